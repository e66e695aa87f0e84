//! Categories of commands: what `+@read` and `-@dangerous` mean.

use crate::command::{Flags, Spec};

/// A set of categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Categories(u32);

impl Categories {
    pub(crate) const NONE: Categories = Categories(0);
    const KEYSPACE: Categories = Categories(1 << 0);
    const READ: Categories = Categories(1 << 1);
    const WRITE: Categories = Categories(1 << 2);
    const SET: Categories = Categories(1 << 3);
    const SORTED_SET: Categories = Categories(1 << 4);
    const LIST: Categories = Categories(1 << 5);
    const HASH: Categories = Categories(1 << 6);
    const STRING: Categories = Categories(1 << 7);
    const PUBSUB: Categories = Categories(1 << 12);
    const ADMIN: Categories = Categories(1 << 13);
    const FAST: Categories = Categories(1 << 14);
    const SLOW: Categories = Categories(1 << 15);
    const BLOCKING: Categories = Categories(1 << 16);
    const DANGEROUS: Categories = Categories(1 << 17);
    const CONNECTION: Categories = Categories(1 << 18);
    const TRANSACTION: Categories = Categories(1 << 19);
    const SCRIPTING: Categories = Categories(1 << 20);
    /// What operators do: nobody is an administrator without being dangerous.
    const OPERATION: Categories = Categories::ADMIN.and(Categories::DANGEROUS);

    /// Each category's name, at its bit, in the order in which Redis tells them. Of some there is no command here.
    pub(crate) const NAMES: [&str; 21] = [
        "keyspace",
        "read",
        "write",
        "set",
        "sortedset",
        "list",
        "hash",
        "string",
        "bitmap",
        "hyperloglog",
        "geo",
        "stream",
        "pubsub",
        "admin",
        "fast",
        "slow",
        "blocking",
        "dangerous",
        "connection",
        "transaction",
        "scripting",
    ];

    const fn and(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    pub(crate) const fn overlaps(self, other: Categories) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it is what operators do.
    pub(crate) fn are_for_operators(self) -> bool {
        self.overlaps(Categories::OPERATION)
    }

    /// The category of a name, in any case.
    pub(crate) fn named(name: &[u8]) -> Option<Categories> {
        let at = Categories::NAMES.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some(Categories(1 << at))
    }

    /// The names of those in the set.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Categories::NAMES.into_iter().enumerate().filter(move |(at, _)| self.0 & 1 << at != 0).map(|(_, name)| name)
    }

    /// Those of a command. They come from its row, as Redis derives them, but for what [`exceptions`] says.
    pub(crate) fn of(spec: &Spec, has_subcommands: bool) -> Categories {
        let flags = spec.flags;
        let speed = if flags.has(Flags::FAST) && !has_subcommands { Categories::FAST } else { Categories::SLOW };
        if has_subcommands {
            // What they do is their subcommands' matter.
            return speed.and(if spec.name == "COMMAND" { Categories::CONNECTION } else { Categories::NONE });
        }
        let group = match spec.category {
            "keyspace" => Categories::KEYSPACE,
            "string" => Categories::STRING,
            "hash" => Categories::HASH,
            "set" => Categories::SET,
            "sorted-set" => Categories::SORTED_SET,
            "list" => Categories::LIST,
            "connection" => Categories::CONNECTION,
            "transactions" => Categories::TRANSACTION,
            "scripting" => Categories::SCRIPTING,
            _ => Categories::NONE,
        };
        let is_script = group == Categories::SCRIPTING;
        let rights = [
            (Flags::WRITE, Categories::WRITE),
            (Flags::READONLY, if is_script { Categories::NONE } else { Categories::READ }),
            (Flags::ADMIN, Categories::OPERATION),
            (Flags::PUBSUB, Categories::PUBSUB),
        ];
        let rights = rights.iter().filter(|(flag, _)| flags.has(*flag)).fold(Categories::NONE, |all, (_, right)| all.and(*right));
        match exceptions(spec.name) {
            Exception::Also(more) => speed.and(group).and(rights).and(more),
            Exception::Instead(other) => speed.and(rights).and(other),
        }
    }

    /// Those of a subcommand: both names in capitals.
    pub(crate) fn of_subcommand(command: &str, subcommand: &str) -> Categories {
        let is_help = subcommand == "HELP";
        let own = match (command, subcommand) {
            ("ACL", "CAT" | "GENPASS" | "WHOAMI") => Categories::NONE,
            ("CLIENT", "KILL" | "LIST" | "NO-EVICT" | "PAUSE" | "UNPAUSE") => Categories::CONNECTION.and(Categories::OPERATION),
            ("CLIENT" | "COMMAND", _) => Categories::CONNECTION,
            ("ACL" | "CONFIG" | "LATENCY" | "SLOWLOG", _) if !is_help => Categories::OPERATION,
            ("MEMORY", "USAGE") => Categories::READ,
            ("OBJECT", _) if is_help => Categories::KEYSPACE,
            ("OBJECT", _) => Categories::KEYSPACE.and(Categories::READ),
            ("PUBSUB", _) if !is_help => Categories::PUBSUB,
            ("SCRIPT", _) => Categories::SCRIPTING,
            _ => Categories::NONE,
        };
        own.and(Categories::SLOW)
    }
}

/// What a row does not tell.
enum Exception {
    Also(Categories),
    /// In place of the group.
    Instead(Categories),
}

fn exceptions(name: &str) -> Exception {
    match name {
        "FLUSHALL" | "FLUSHDB" | "INFO" | "KEYS" | "RESTORE" => Exception::Also(Categories::DANGEROUS),
        "LASTSAVE" | "ROLE" => Exception::Also(Categories::OPERATION),
        "WAIT" | "WAITAOF" => Exception::Instead(Categories::BLOCKING.and(Categories::CONNECTION)),
        _ => Exception::Also(Categories::NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::Categories;

    #[test]
    fn each_name_stands_at_its_bit() {
        let constants = [
            (Categories::KEYSPACE, "keyspace"),
            (Categories::STRING, "string"),
            (Categories::PUBSUB, "pubsub"),
            (Categories::DANGEROUS, "dangerous"),
            (Categories::SCRIPTING, "scripting"),
        ];
        for (category, name) in constants {
            assert_eq!(Categories::named(name.to_ascii_uppercase().as_bytes()), Some(category), "{name}");
            assert_eq!(category.names().collect::<Vec<_>>(), [name]);
        }
        assert_eq!(Categories::named(b"all"), None);
    }
}
