//! The command table: one row per command. Dispatch, arity and key checks, COMMAND, statistics and queueing all read it.

use std::{iter::StepBy, ops::Range, sync::LazyLock};

use crate::{
    command::{
        CommandError, Context, acl, aof, connection, generic, hash, latency, list, listing, parse::integer, pubsub, replication,
        scripting, server, set, slowlog, snapshot, sorted_set, string, transaction,
    },
    keyspace::Keys,
    protocol::{Args, Reply},
};

/// What a command's function gives back; it wrote its reply already, an error replaces it.
pub(crate) type Outcome = Result<(), CommandError>;

/// The function of a command that touches only keys.
pub(crate) type OnKeys = fn(&mut Keys<'_>, Args<'_>, &mut Reply) -> Outcome;

/// The function of a command that touches the connection and all keys.
pub(crate) type OnBoth = fn(&mut Context<'_>, &mut Keys<'_>, Args<'_>, &mut Reply) -> Outcome;

/// A command's function, by what it may touch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// Only keys, those that the row names (all, when it has [`Flags::WHOLE_KEYSPACE`]). Scripts may call it.
    Keys(OnKeys),
    /// The connection and the node, no keys.
    Client(fn(&mut Context<'_>, Args<'_>, &mut Reply) -> Outcome),
    /// Both, with every shard locked: scripts, INFO. A function of [`Run::Client`] never locks a shard: EXEC may hold it.
    Both(OnBoth),
}

/// Properties of a command; the names are those that COMMAND prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    pub(crate) const WRITE: Flags = Flags(1 << 0);
    pub(crate) const READONLY: Flags = Flags(1 << 1);
    /// May need memory: refused when `maxmemory` is reached and nothing may be evicted.
    pub(crate) const DENYOOM: Flags = Flags(1 << 2);
    pub(crate) const ADMIN: Flags = Flags(1 << 3);
    pub(crate) const PUBSUB: Flags = Flags(1 << 4);
    pub(crate) const NOSCRIPT: Flags = Flags(1 << 5);
    pub(crate) const FAST: Flags = Flags(1 << 6);
    /// Allowed before authentication.
    pub(crate) const NO_AUTH: Flags = Flags(1 << 7);
    /// Refused inside MULTI.
    pub(crate) const NO_MULTI: Flags = Flags(1 << 8);
    /// Runs at once inside MULTI instead of being queued.
    pub(crate) const NOT_QUEUED: Flags = Flags(1 << 9);
    /// Needs every shard.
    pub(crate) const WHOLE_KEYSPACE: Flags = Flags(1 << 10);
    /// Allowed to a RESP2 connection that subscribes.
    pub(crate) const WHILE_SUBSCRIBED: Flags = Flags(1 << 11);
    /// Key positions depend on the arguments: `numkeys` at position 2 and keys after it (EVAL).
    pub(crate) const MOVABLE_KEYS: Flags = Flags(1 << 12);
    pub(crate) const LOADING: Flags = Flags(1 << 13);
    pub(crate) const STALE: Flags = Flags(1 << 14);
    pub(crate) const SKIP_MONITOR: Flags = Flags(1 << 15);
    /// What it does goes to replicas, although it is none that writes by itself.
    pub(crate) const MAY_REPLICATE: Flags = Flags(1 << 16);
    /// Runs a script, whose commands may need memory.
    pub(crate) const RUNS_SCRIPT: Flags = Flags(1 << 17);
    /// Takes long only where its arguments, its reply or the memory that it took or gave back tell so, whatever the key holds. Not each that
    /// Redis calls fast is such: APPEND may copy the value, an HSET may rebuild the table of a large hash.
    pub(crate) const SHORT: Flags = Flags(1 << 18);

    const NAMES: [(Flags, &'static str); 13] = [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::SKIP_MONITOR, "skip_monitor"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::MAY_REPLICATE, "may_replicate"),
    ];

    pub(crate) const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Names of the flags that are set, as COMMAND INFO prints them.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let movable = self.has(Flags::MOVABLE_KEYS).then_some("movablekeys");
        Flags::NAMES.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name).chain(movable)
    }
}

/// Where the keys stand among the arguments: from `first` to `last` (negative: from the end) each `step`. `first` 0: no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyPositions {
    pub(crate) first: i8,
    pub(crate) last: i8,
    pub(crate) step: i8,
}

impl KeyPositions {
    pub(crate) const NONE: KeyPositions = KeyPositions::new(0, 0, 0);
    pub(crate) const ONE: KeyPositions = KeyPositions::new(1, 1, 1);
    /// The key after a subcommand: OBJECT ENCODING key.
    pub(crate) const SECOND: KeyPositions = KeyPositions::new(2, 2, 1);
    pub(crate) const TWO: KeyPositions = KeyPositions::new(1, 2, 1);
    pub(crate) const ALL: KeyPositions = KeyPositions::new(1, -1, 1);
    pub(crate) const PAIRS: KeyPositions = KeyPositions::new(1, -1, 2);

    const fn new(first: i8, last: i8, step: i8) -> KeyPositions {
        KeyPositions { first, last, step }
    }

    /// Where the only key is, of commands that have exactly one: nearly all, and found without counting.
    pub(crate) fn only(self) -> Option<usize> {
        (self.first > 0 && self.last == self.first).then_some(self.first as usize)
    }

    /// The keys of a request that passed the arity check.
    pub(crate) fn keys<'a>(self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
        self.positions(args).filter_map(move |position| args.get(position))
    }

    /// Where they stand.
    fn positions(self, args: Args<'_>) -> StepBy<Range<usize>> {
        let last = if self.last < 0 { args.len() as isize + isize::from(self.last) } else { isize::from(self.last) };
        let end = if self.first == 0 { 0 } else { usize::try_from(last + 1).unwrap_or(0) };
        (self.first as usize..end).step_by(self.step.max(1) as usize)
    }
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// In capitals.
    pub(crate) name: &'static str,
    /// Arguments with the name; negative: at least so many.
    pub(crate) arity: i16,
    pub(crate) flags: Flags,
    /// ACL category, which is also the documentation's group.
    pub(crate) category: &'static str,
    pub(crate) keys: KeyPositions,
    pub(crate) run: Run,
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
}

impl Spec {
    pub(crate) fn check_arity(&self, args: Args<'_>) -> Result<(), CommandError> {
        if takes(self.arity, args) { Ok(()) } else { Err(CommandError::wrong_arguments(self.name)) }
    }

    /// Where the keys of a request stand, also where their number stands in it; nowhere when that is wrong, which the command refuses.
    pub(crate) fn key_positions(&self, args: Args<'_>) -> StepBy<Range<usize>> {
        if !self.flags.has(Flags::MOVABLE_KEYS) {
            return self.keys.positions(args);
        }
        let count = movable_keys(args).unwrap_or(0);
        (MOVABLE_FIRST..MOVABLE_FIRST + count).step_by(1)
    }
}

/// Whether a request has so many arguments, the names among them; negative: at least so many.
#[inline]
pub(super) fn takes(arity: i16, args: Args<'_>) -> bool {
    let (count, wanted) = (args.len(), usize::from(arity.unsigned_abs()));
    count == wanted || (arity < 0 && count > wanted)
}

/// Sets of flags that many rows share.
pub(crate) const READ: Flags = Flags::READONLY;
pub(crate) const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
pub(crate) const READ_SHORT: Flags = READ_FAST.and(Flags::SHORT);
pub(crate) const WRITE: Flags = Flags::WRITE;
pub(crate) const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
pub(crate) const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
pub(crate) const GROW_FAST: Flags = GROW.and(Flags::FAST);

/// Writes rows: name, arity, flags, group and key positions, kind of function, version since which Redis has it, summary.
macro_rules! rows {
    ($($name:literal $arity:literal $flags:expr, $category:literal $keys:ident $kind:ident($run:path) $since:literal $summary:literal;)*) => {
        &[$($crate::command::Spec {
            name: $name,
            arity: $arity,
            flags: $flags,
            category: $category,
            keys: $crate::command::KeyPositions::$keys,
            run: $crate::command::Run::$kind($run),
            since: $since,
            summary: $summary,
        }),*]
    };
}
pub(crate) use rows;

/// Every command, by family; the families' rows stand beside their functions.
pub(crate) static TABLE: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let families: [&[Spec]; 18] = [
        string::COMMANDS,
        generic::COMMANDS,
        hash::COMMANDS,
        set::COMMANDS,
        sorted_set::COMMANDS,
        list::COMMANDS,
        transaction::COMMANDS,
        scripting::COMMANDS,
        pubsub::COMMANDS,
        connection::COMMANDS,
        acl::COMMANDS,
        aof::COMMANDS,
        listing::COMMANDS,
        server::COMMANDS,
        snapshot::COMMANDS,
        slowlog::COMMANDS,
        latency::COMMANDS,
        replication::COMMANDS,
    ];
    families.concat()
});

/// The keys of a request, also where their number stands in it (EVAL).
pub(crate) fn keys<'a>(spec: &Spec, args: Args<'a>) -> Result<Box<dyn Iterator<Item = &'a [u8]> + 'a>, CommandError> {
    if !spec.flags.has(Flags::MOVABLE_KEYS) {
        return Ok(Box::new(spec.keys.keys(args)));
    }
    Ok(Box::new(args.from(MOVABLE_FIRST).iter().take(movable_keys(args)?)))
}

/// Where the keys begin whose number stands in the request.
const MOVABLE_FIRST: usize = 3;

fn movable_keys(args: Args<'_>) -> Result<usize, CommandError> {
    let count = args.get(2).map(integer).transpose()?.unwrap_or(0);
    let count = usize::try_from(count).map_err(|_| CommandError::fixed("ERR Number of keys can't be negative"))?;
    if count > args.len().saturating_sub(MOVABLE_FIRST) {
        return Err(CommandError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    Ok(count)
}
