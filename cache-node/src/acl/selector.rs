//! A set of rules on commands, keys and channels. A user has one, and may have further ones in parentheses: a request must fit one of them.

use crate::{
    acl::{
        Catalog, Categories, Commands, RuleError,
        access::{Access, ChannelUse},
        catalog::{Entry, Named},
        pattern::Pattern,
        rule::{fits_in_parentheses, has_blanks},
    },
    command::{Flags, parse::is_word},
    protocol::{Args, split_quoted_words},
};

/// What a request lacks, the least first: of several selectors' reasons Redis tells the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    Command,
    Key,
    Channel,
}

/// Why a request may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) reason: Reason,
    /// What was asked for, in the [`Catalog`].
    pub(crate) id: usize,
    /// Which argument is the key or the channel.
    pub(crate) position: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    commands: Commands,
    /// Whether the rules begin with all commands or with none.
    begins_with_all: bool,
    /// Those on commands that still hold, in order and in small letters.
    rules: Vec<Vec<u8>>,
    /// First arguments of commands without subcommands (`+select|0`), by the command.
    first_arguments: Vec<(usize, Vec<u8>)>,
    has_all_keys: bool,
    keys: Vec<KeyPattern>,
    has_all_channels: bool,
    channels: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct KeyPattern {
    access: Access,
    pattern: Pattern,
}

impl Selector {
    /// With nothing but what `acl-pubsub-default` gives.
    pub(super) fn new(has_all_channels: bool) -> Selector {
        Selector {
            commands: Commands::none(),
            begins_with_all: false,
            rules: Vec::new(),
            first_arguments: Vec::new(),
            has_all_keys: false,
            keys: Vec::new(),
            has_all_channels,
            channels: Vec::new(),
        }
    }

    /// From `(rule rule …)`.
    pub(super) fn parse(text: &[u8], has_all_channels: bool) -> Result<Selector, RuleError> {
        let mut selector = Selector::new(has_all_channels);
        // With quotes that are not closed it has no rules, as in Redis.
        for rule in split_quoted_words(&text[1..text.len() - 1]).unwrap_or_default() {
            if !fits_in_parentheses(&rule) {
                return Err(RuleError::Unwritable);
            }
            selector.apply(&rule)?;
        }
        Ok(selector)
    }

    /// Whether it has the same words, and they mean the same.
    pub(super) fn is_same(&self, other: &Selector) -> bool {
        let are_among = |these: &Selector, those: &Selector| {
            these.first_arguments.iter().all(|(id, argument)| {
                those.first_arguments.iter().any(|(known, other)| known == id && other.eq_ignore_ascii_case(argument))
            })
        };
        self.shown() == other.shown() && self.commands == other.commands && are_among(self, other) && are_among(other, self)
    }

    pub(super) fn permits_everything(&self) -> bool {
        self.has_all_keys && self.has_all_channels && self.commands == Commands::all()
    }

    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule {
            _ if is_word(rule, "allkeys") || rule == b"~*" => self.reset_keys(true),
            _ if is_word(rule, "resetkeys") => self.reset_keys(false),
            _ if is_word(rule, "allchannels") || rule == b"&*" => self.reset_channels(true),
            _ if is_word(rule, "resetchannels") => self.reset_channels(false),
            _ if is_word(rule, "allcommands") || is_word(rule, "+@all") => self.reset_commands(true),
            _ if is_word(rule, "nocommands") || is_word(rule, "-@all") => self.reset_commands(false),
            [b'~' | b'%', ..] => self.add_keys(rule)?,
            [b'&', pattern @ ..] => self.add_channels(pattern)?,
            [sign @ (b'+' | b'-'), b'@', category @ ..] => self.set_category(category, *sign == b'+')?,
            [b'+', name @ ..] if name.contains(&b'|') => self.add_subcommand(name)?,
            [sign @ (b'+' | b'-'), name @ ..] => {
                let named = Catalog::get().named(name).ok_or(RuleError::UnknownCommand)?;
                self.set_command(&named, name, *sign == b'+');
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn reset_keys(&mut self, has_all: bool) {
        self.has_all_keys = has_all;
        self.keys.clear();
    }

    pub(super) fn reset_channels(&mut self, has_all: bool) {
        self.has_all_channels = has_all;
        self.channels.clear();
    }

    fn reset_commands(&mut self, has_all: bool) {
        self.commands = if has_all { Commands::all() } else { Commands::none() };
        self.begins_with_all = has_all;
        self.rules.clear();
        self.first_arguments.clear();
    }

    /// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`.
    fn add_keys(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        if self.has_all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        let (access, text) = match rule {
            [b'~', text @ ..] => (Access::ALL, text),
            _ => parse_access(&rule[1..]).ok_or(RuleError::Syntax)?,
        };
        if has_blanks(text) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern.text() == text) {
            Some(known) => known.access = known.access.and(access),
            None => self.keys.push(KeyPattern { access, pattern: Pattern::new(text) }),
        }
        Ok(())
    }

    fn add_channels(&mut self, text: &[u8]) -> Result<(), RuleError> {
        if self.has_all_channels {
            return Err(RuleError::ChannelsAfterAll);
        }
        if has_blanks(text) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known.text() == text) {
            self.channels.push(Pattern::new(text));
        }
        Ok(())
    }

    fn set_category(&mut self, name: &[u8], is_in: bool) -> Result<(), RuleError> {
        let category = Categories::named(name).ok_or(RuleError::UnknownCommand)?;
        self.remember(&[b"@", name].concat(), is_in);
        for (id, entry) in Catalog::get().entries().iter().enumerate() {
            if entry.categories.overlaps(category) {
                self.commands.set(id, is_in);
                self.first_arguments.retain(|(known, _)| *known != id);
            }
        }
        Ok(())
    }

    /// `name` is that of `named`.
    fn set_command(&mut self, named: &Named, name: &[u8], is_in: bool) {
        if let Named::Here(id) = named {
            self.commands.set(*id, is_in);
            self.first_arguments.retain(|(known, _)| known != id);
        }
        self.remember(name, is_in);
    }

    /// `+config|get`, or `+select|0`.
    fn add_subcommand(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let catalog = Catalog::get();
        let bar = name.iter().rposition(|byte| *byte == b'|').unwrap_or(name.len());
        let (command, first) = (&name[..bar], &name[(bar + 1).min(name.len())..]);
        let parent = catalog.named(command).ok_or(RuleError::UnknownCommand)?;
        if command.contains(&b'|') {
            return Err(RuleError::FirstArgumentOfSubcommand);
        }
        if first.is_empty() || has_blanks(first) {
            return Err(RuleError::Syntax);
        }
        if catalog.has_subcommands(command) {
            let named = catalog.named(name).ok_or(RuleError::UnknownCommand)?;
            self.set_command(&named, name, true);
            return Ok(());
        }
        if let Named::Here(id) = parent {
            let is_known = |(known, argument): &(usize, Vec<u8>)| *known == id && argument.eq_ignore_ascii_case(first);
            if !self.first_arguments.iter().any(is_known) {
                self.first_arguments.push((id, first.to_vec()));
            }
        }
        self.remember(name, true);
        Ok(())
    }

    /// Keeps a rule on commands in the place of those that it makes void.
    fn remember(&mut self, name: &[u8], is_in: bool) {
        let name = name.to_ascii_lowercase();
        let is_void = |rule: &[u8]| rule[1..].strip_prefix(name.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'|', ..]));
        self.rules.retain(|rule| !is_void(rule));
        self.rules.push([if is_in { b"+" } else { b"-" }, name.as_slice()].concat());
    }

    /// The rules on commands that make such a selector.
    pub(crate) fn shown_commands(&self) -> Vec<u8> {
        let first: &[u8] = if self.begins_with_all { b"+@all" } else { b"-@all" };
        let rules = self.rules.iter().map(Vec::as_slice);
        std::iter::once(first).chain(rules).collect::<Vec<_>>().join(&b' ')
    }

    /// The rules on keys, with blanks between them.
    pub(crate) fn shown_keys(&self) -> Vec<u8> {
        if self.has_all_keys {
            return b"~*".to_vec();
        }
        let shown = self.keys.iter().map(|KeyPattern { access, pattern }| {
            let prefix: &[u8] = match *access {
                Access::READ => b"%R~",
                Access::WRITE => b"%W~",
                _ => b"~",
            };
            [prefix, pattern.text()].concat()
        });
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// The rules on channels, with blanks between them.
    pub(crate) fn shown_channels(&self) -> Vec<u8> {
        if self.has_all_channels {
            return b"&*".to_vec();
        }
        self.channels.iter().map(|pattern| [b"&", pattern.text()].concat()).collect::<Vec<_>>().join(&b' ')
    }

    /// All rules, as they stand in a file.
    pub(super) fn shown(&self) -> Vec<u8> {
        let channels = match self.shown_channels() {
            shown if self.has_all_channels => shown,
            shown if shown.is_empty() => b"resetchannels".to_vec(),
            shown => [b"resetchannels ", &*shown].concat(),
        };
        let parts = [self.shown_keys(), channels, self.shown_commands()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b' ')
    }

    /// Whether a request may run, by these rules: `id` is what it asks for.
    #[inline]
    pub(super) fn check(&self, id: usize, entry: &Entry, args: Args<'_>) -> Result<(), Denial> {
        let deny = |reason, position| Err(Denial { reason, id, position });
        if !self.commands.has(id) && !entry.spec.flags.has(Flags::NO_AUTH) && !self.permits_first_argument(id, args) {
            return deny(Reason::Command, 0);
        }
        if !self.has_all_keys
            && let Some(position) = self.forbidden_key(entry, args)
        {
            return deny(Reason::Key, position);
        }
        if !self.has_all_channels
            && entry.channels != ChannelUse::None
            && let Some(position) = self.forbidden_channel(entry.channels, args)
        {
            return deny(Reason::Channel, position);
        }
        Ok(())
    }

    fn permits_first_argument(&self, id: usize, args: Args<'_>) -> bool {
        let Some(first) = args.get(1) else { return false };
        self.first_arguments.iter().any(|(known, argument)| *known == id && argument.eq_ignore_ascii_case(first))
    }

    /// The first key that a request may not touch.
    #[inline]
    fn forbidden_key(&self, entry: &Entry, args: Args<'_>) -> Option<usize> {
        if let Some(position) = entry.spec.keys.only() {
            let key = args.get(position)?;
            return (!self.permits_key(key, entry.keys.first_in(args))).then_some(position);
        }
        let mut access = entry.keys.first_in(args);
        for position in entry.spec.key_positions(args) {
            let key = args.get(position)?;
            if !self.permits_key(key, access) {
                return Some(position);
            }
            access = entry.keys.rest;
        }
        None
    }

    #[inline]
    fn permits_key(&self, key: &[u8], access: Access) -> bool {
        self.keys.iter().any(|known| known.access.includes(access) && known.pattern.matches(key))
    }

    fn forbidden_channel(&self, channels: ChannelUse, args: Args<'_>) -> Option<usize> {
        let end = if channels == ChannelUse::First { args.len().min(2) } else { args.len() };
        (1..end).find(|position| !self.permits_channel(args.at(*position), channels == ChannelUse::Patterns))
    }

    pub(super) fn permits_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let fits = |known: &Pattern| if is_pattern { known.text() == name } else { known.matches(name) };
        self.has_all_channels || self.channels.iter().any(fits)
    }
}

/// What stands behind `%`: letters, a tilde, and the pattern. Without a tilde the pattern is empty, as in Redis.
fn parse_access(text: &[u8]) -> Option<(Access, &[u8])> {
    let mut access = Access::NONE;
    for (at, byte) in text.iter().enumerate() {
        let more = match byte {
            b'R' | b'r' if !access.includes(Access::READ) => Access::READ,
            b'W' | b'w' if !access.includes(Access::WRITE) => Access::WRITE,
            b'~' if access != Access::NONE => return Some((access, &text[at + 1..])),
            _ => return None,
        };
        access = access.and(more);
    }
    (access != Access::NONE).then_some((access, b""))
}
