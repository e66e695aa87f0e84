//! What rules can name: each command and each subcommand has a number, its place here.

use std::{ops::Range, sync::LazyLock};

use crate::{
    acl::{
        Categories,
        access::{ChannelUse, KeyUse},
        foreign,
    },
    command::{
        Spec, names,
        subcommand::{self, Subcommand},
        table::TABLE,
    },
    protocol::Args,
};

/// Commands, at their places in the table of commands, and behind them their subcommands.
#[derive(Debug)]
pub(crate) struct Catalog {
    entries: Vec<Entry>,
}

/// A command or a subcommand.
#[derive(Debug)]
pub(crate) struct Entry {
    /// In small letters, as in `config|get`.
    pub(crate) name: String,
    pub(crate) categories: Categories,
    /// The command's row, of a subcommand that of its command.
    pub(crate) spec: &'static Spec,
    /// `None` of a command.
    subcommand: Option<&'static Subcommand>,
    /// Where its subcommands are; empty of what has none.
    subcommands: Range<usize>,
    pub(super) keys: KeyUse,
    pub(super) channels: ChannelUse,
}

/// What a rule names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Here(usize),
    /// Only Redis has it.
    Foreign,
}

static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::new);

impl Catalog {
    pub(crate) fn get() -> &'static Catalog {
        &CATALOG
    }

    fn new() -> Catalog {
        let mut subcommands = Vec::new();
        let commands = TABLE.iter().map(|spec| {
            let begin = TABLE.len() + subcommands.len();
            subcommands.extend(subcommand::all_of(spec.name).iter().map(|subcommand| Entry {
                name: format!("{}|{}", spec.name, subcommand.name).to_ascii_lowercase(),
                categories: Categories::of_subcommand(spec.name, subcommand.name),
                spec,
                subcommand: Some(subcommand),
                subcommands: 0..0,
                keys: KeyUse::of(spec),
                channels: ChannelUse::None,
            }));
            let end = TABLE.len() + subcommands.len();
            Entry {
                name: spec.name.to_ascii_lowercase(),
                categories: Categories::of(spec, begin < end),
                spec,
                subcommand: None,
                subcommands: begin..end,
                keys: KeyUse::of(spec),
                channels: ChannelUse::of(spec),
            }
        });
        let mut entries: Vec<Entry> = commands.collect();
        entries.append(&mut subcommands);
        Catalog { entries }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    #[inline]
    pub(crate) fn entry(&self, id: usize) -> &Entry {
        &self.entries[id]
    }

    /// What a request asks for, whose command stands at `index` in the table. `None`: the command refuses it by itself, since it has no
    /// such subcommand, or that takes other arguments.
    #[inline]
    pub(crate) fn asked(&self, index: usize, args: Args<'_>) -> Option<usize> {
        let subcommands = &self.entries[index].subcommands;
        if subcommands.is_empty() || args.len() == 1 { Some(index) } else { self.asked_among(subcommands, args) }
    }

    fn asked_among(&self, subcommands: &Range<usize>, args: Args<'_>) -> Option<usize> {
        let asks = |id: &usize| self.entries[*id].subcommand.is_some_and(|known| known.is_named(args.at(1)) && known.takes(args));
        subcommands.clone().find(asks)
    }

    /// The subcommand of a command, whatever its arguments.
    pub(crate) fn subcommand(&self, index: usize, name: &[u8]) -> Option<usize> {
        let is_it = |id: &usize| self.entries[*id].subcommand.is_some_and(|known| known.is_named(name));
        self.entries[index].subcommands.clone().find(is_it)
    }

    /// Of `config` or `config|get`, in any case.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        let mut parts = name.splitn(2, |byte| *byte == b'|');
        let index = names::find(parts.next()?)?;
        parts.next().map_or(Some(index), |subcommand| self.subcommand(index, subcommand))
    }

    /// As [`find`](Catalog::find), of what Redis has as well.
    pub(super) fn named(&self, name: &[u8]) -> Option<Named> {
        let foreign = || {
            let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
            foreign::is_known(&name).then_some(Named::Foreign)
        };
        self.find(name).map(Named::Here).or_else(foreign)
    }

    /// Whether a command, by its name, has subcommands.
    pub(super) fn has_subcommands(&self, name: &[u8]) -> bool {
        match names::find(name) {
            Some(index) => !self.entries[index].subcommands.is_empty(),
            None => std::str::from_utf8(name).is_ok_and(|name| foreign::has_subcommands(&name.to_ascii_lowercase())),
        }
    }
}

impl Entry {
    /// `None` of a command.
    pub(crate) fn subcommand(&self) -> Option<&'static Subcommand> {
        self.subcommand
    }

    pub(crate) fn subcommands(&self) -> &'static [Entry] {
        &CATALOG.entries[self.subcommands.clone()]
    }

    /// Arguments with its name, or both; negative: at least so many.
    pub(crate) fn arity(&self) -> i64 {
        self.subcommand.map_or(i64::from(self.spec.arity), |known| i64::from(known.arity))
    }

    /// Whether a request has as many arguments as it takes.
    pub(crate) fn takes(&self, args: Args<'_>) -> bool {
        match self.subcommand {
            Some(subcommand) => subcommand.takes(args),
            None => self.spec.check_arity(args).is_ok(),
        }
    }
}

/// A set of commands and subcommands: a bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commands(Box<[u64]>);

impl Commands {
    pub(super) fn none() -> Commands {
        Commands(vec![0; CATALOG.entries.len().div_ceil(u64::BITS as usize)].into())
    }

    pub(super) fn all() -> Commands {
        let mut commands = Commands::none();
        (0..CATALOG.entries.len()).for_each(|id| commands.set_one(id, true));
        commands
    }

    #[inline]
    pub(super) fn has(&self, id: usize) -> bool {
        self.0[id / u64::BITS as usize] & 1 << (id % u64::BITS as usize) != 0
    }

    /// A command goes with its subcommands.
    pub(super) fn set(&mut self, id: usize, is_in: bool) {
        self.set_one(id, is_in);
        CATALOG.entries[id].subcommands.clone().for_each(|id| self.set_one(id, is_in));
    }

    fn set_one(&mut self, id: usize, is_in: bool) {
        let (word, bit) = (&mut self.0[id / u64::BITS as usize], 1 << (id % u64::BITS as usize));
        if is_in { *word |= bit } else { *word &= !bit }
    }
}
