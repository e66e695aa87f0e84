//! What a write did, told to whoever listens: keyspace notifications, the log, replicas.

use std::fmt;

use crate::keyspace::Record;

/// The class of an event, as the letters of `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `g`: DEL, EXPIRE, RENAME …
    Generic = 1 << 0,
    /// `$`
    String = 1 << 1,
    /// `l`
    List = 1 << 2,
    /// `s`
    Set = 1 << 3,
    /// `h`
    Hash = 1 << 4,
    /// `z`
    SortedSet = 1 << 5,
    /// `x`: a key was removed because its time had come.
    Expired = 1 << 6,
    /// `e`: a key was removed for `maxmemory`.
    Evicted = 1 << 7,
    /// `n`: a key was created. Not part of `A`.
    New = 1 << 8,
    /// `m`: a key was asked for and absent. Not part of `A`.
    Miss = 1 << 9,
}

/// A set of classes and of the two channel families: the value of `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Classes(u32);

const KEYSPACE: u32 = 1 << 16;
const KEYEVENT: u32 = 1 << 17;
const STREAM: u32 = 1 << 10;
const MODULE: u32 = 1 << 11;
/// `A` stands for "g$lshzxetd".
const ALL: u32 = 0b1111_1111 | STREAM | MODULE;
const LETTERS: [(char, u32); 14] = [
    ('g', Class::Generic as u32),
    ('$', Class::String as u32),
    ('l', Class::List as u32),
    ('s', Class::Set as u32),
    ('h', Class::Hash as u32),
    ('z', Class::SortedSet as u32),
    ('x', Class::Expired as u32),
    ('e', Class::Evicted as u32),
    ('t', STREAM),
    ('d', MODULE),
    ('K', KEYSPACE),
    ('E', KEYEVENT),
    ('m', Class::Miss as u32),
    ('n', Class::New as u32),
];

impl Classes {
    /// Reads the letters; `None` when one is unknown.
    pub(crate) fn parse(letters: &str) -> Option<Classes> {
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= match letter {
                'A' => ALL,
                _ => LETTERS.iter().find(|(known, _)| *known == letter)?.1,
            };
        }
        Some(Classes(bits))
    }

    pub(crate) fn from_bits(bits: u32) -> Classes {
        Classes(bits)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// Whether an event of this class goes to any channel at all.
    pub(crate) fn wants(self, class: Class) -> bool {
        self.0 & class as u32 != 0 && self.0 & (KEYSPACE | KEYEVENT) != 0
    }

    pub(crate) fn wants_keyspace_channel(self) -> bool {
        self.0 & KEYSPACE != 0
    }

    pub(crate) fn wants_keyevent_channel(self) -> bool {
        self.0 & KEYEVENT != 0
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bits = self.0;
        if bits & ALL == ALL {
            f.write_str("A")?;
            bits &= !ALL;
        }
        for (letter, bit) in LETTERS {
            if bits & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// One thing that happened to one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) class: Class,
    /// Redis's name of the event: "set", "hset", "expired" …
    pub(crate) event: &'a str,
    pub(crate) db: usize,
    pub(crate) key: &'a [u8],
}

/// Takes changes in the order in which they happen to a key. Called while the key's shard is locked: it must not block and must
/// not lock a shard.
pub(crate) trait ChangeSink: Sync {
    fn take(&self, change: Change<'_>);

    /// All keys of a database are about to be removed, or have been.
    fn take_flush(&self) {}

    /// Whether writes are wanted as requests. Asked once per lock, after it: whoever begins to want them locks every shard to say so.
    fn wants_records(&self) -> bool {
        false
    }

    /// Takes writes as requests and gives the stream's offset behind them.
    fn record(&self, _: &Record) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Classes};

    #[test]
    fn letters_read_and_print() {
        let classes = Classes::parse("Egx").expect("known letters");
        assert_eq!(classes.to_string(), "gxE");
        assert!(classes.wants(Class::Expired) && !classes.wants(Class::Hash) && !classes.wants_keyspace_channel());
        assert_eq!(Classes::parse("KEA").expect("known letters").to_string(), "AKE");
        assert_eq!(Classes::parse("q"), None);
        assert!(!Classes::parse("A").expect("known letters").wants(Class::Hash), "no channel family, no event");
    }
}
