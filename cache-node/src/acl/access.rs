//! What commands do with the keys that they name: read what is in them, write, or neither.

use crate::{
    command::{Flags, Spec},
    protocol::Args,
};

/// Rights on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    /// To know whether it is there, how long it is, of which type: any right on a key is enough.
    pub(super) const NONE: Access = Access(0);
    pub(super) const READ: Access = Access(1);
    pub(super) const WRITE: Access = Access(2);
    pub(super) const ALL: Access = Access(3);

    pub(super) const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// Whether all of `wanted` is among them.
    pub(super) const fn includes(self, wanted: Access) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// What a command does with its first key, and with each behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyUse {
    pub(super) first: Access,
    pub(super) rest: Access,
    /// SET: with GET it reads, too.
    may_get: bool,
}

/// They tell nothing of what is in a key.
const WITHOUT_CONTENT: [&str; 14] = [
    "EXISTS",
    "HEXISTS",
    "HLEN",
    "HSTRLEN",
    "LLEN",
    "MEMORY",
    "OBJECT",
    "SCARD",
    "SISMEMBER",
    "STRLEN",
    "TOUCH",
    "TYPE",
    "WATCH",
    "ZCARD",
];

/// They write, and answer with what was there.
const READ_AND_WRITE: [&str; 18] = [
    "DECR",
    "DECRBY",
    "EVAL",
    "EVALSHA",
    "GETDEL",
    "GETEX",
    "GETSET",
    "HINCRBY",
    "HINCRBYFLOAT",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LPOP",
    "RPOP",
    "SPOP",
    "ZINCRBY",
    "ZPOPMAX",
    "ZPOPMIN",
];

impl KeyUse {
    pub(super) fn of(spec: &Spec) -> KeyUse {
        let (first, rest) = match spec.name {
            "COPY" => (Access::READ, Access::WRITE),
            "LMOVE" | "RENAME" | "RENAMENX" | "RPOPLPUSH" | "SMOVE" => (Access::ALL, Access::WRITE),
            "SDIFFSTORE" | "SINTERSTORE" | "SUNIONSTORE" => (Access::WRITE, Access::READ),
            name if WITHOUT_CONTENT.contains(&name) => (Access::NONE, Access::NONE),
            name if READ_AND_WRITE.contains(&name) => (Access::ALL, Access::ALL),
            _ if spec.flags.has(Flags::WRITE) => (Access::WRITE, Access::WRITE),
            _ => (Access::READ, Access::READ),
        };
        KeyUse { first, rest, may_get: spec.name == "SET" }
    }

    /// Of the first key of this request.
    pub(super) fn first_in(self, args: Args<'_>) -> Access {
        /// Where SET's options begin.
        const OPTIONS: usize = 3;
        let gets =
            self.may_get && args.len() > OPTIONS && args.from(OPTIONS).iter().any(|word| word.eq_ignore_ascii_case(b"get"));
        if gets { Access::ALL } else { self.first }
    }
}

/// What a command does with channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelUse {
    None,
    /// Its first argument is one.
    First,
    /// All its arguments are.
    All,
    /// All its arguments are patterns, which only a rule of the same words permits.
    Patterns,
}

impl ChannelUse {
    /// Leaving a channel is nobody's business.
    pub(super) fn of(spec: &Spec) -> ChannelUse {
        match spec.name {
            "PUBLISH" => ChannelUse::First,
            "SUBSCRIBE" => ChannelUse::All,
            "PSUBSCRIBE" => ChannelUse::Patterns,
            _ => ChannelUse::None,
        }
    }
}
