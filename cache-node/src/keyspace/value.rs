//! What a key holds.

use thiserror::Error;

use crate::keyspace::{Hash, List, Set, SortedSet, entry::Form, garbage::Dismantling};

/// The name of a type as TYPE prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Hash,
    Set,
    SortedSet,
    List,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::List => "list",
        }
    }
}

/// A string that grows to this length gets room for more.
const ROOM_FROM_BYTES: usize = 4 * 1024;

/// A string value: any bytes. While there is room behind them it stands beside the arena, whose slots have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Str(pub(crate) Vec<u8>);

impl Str {
    /// Makes room for `more` bytes behind those that are there. A long string gets a quarter of its length as well, so that one that is built
    /// piece by piece is not copied for each piece; one that is written whole has no spare room.
    pub(crate) fn reserve(&mut self, more: usize) {
        let Str(bytes) = self;
        if bytes.capacity() - bytes.len() < more {
            let is_growing = !bytes.is_empty() && bytes.len() + more >= ROOM_FROM_BYTES;
            bytes.reserve_exact(if is_growing { more + bytes.len() / 4 } else { more });
        }
    }

    /// Adds `tail` at the end.
    pub(crate) fn append(&mut self, tail: &[u8]) {
        self.reserve(tail.len());
        self.0.extend_from_slice(tail);
    }
}

/// A value of any type.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Str(Str),
    Hash(Box<Hash>),
    Set(Box<Set>),
    SortedSet(Box<SortedSet>),
    List(Box<List>),
}

/// The key holds another type than the command is for.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
pub(crate) struct WrongType;

/// A type that [`Value`] can hold, so that access by type is written once.
pub(crate) trait Collection: Default {
    fn of(value: &Value) -> Result<&Self, WrongType>;
    fn of_mut(value: &mut Value) -> Result<&mut Self, WrongType>;
    fn into_value(self) -> Value;
    /// Whether the key goes away: Redis keeps no empty collections.
    fn is_empty(&self) -> bool;
    /// Bytes on the heap. O(1): collections keep count while they change.
    fn heap_bytes(&self) -> usize;

    /// Reads a value that lies in its entry: strings and small hashes do.
    fn from_inline(_: Form, _: &[u8]) -> Result<Self, WrongType> {
        Err(WrongType)
    }

    /// The bytes to lie in the entry, if the value is of a kind and size that does.
    fn as_inline(&self) -> Option<(Form, &[u8])> {
        None
    }
}

macro_rules! collection {
    ($type:ident, $boxed:expr, $empty:expr, $heap:expr $(, $inline:item)*) => {
        impl Collection for $type {
            fn of(value: &Value) -> Result<&Self, WrongType> {
                match value {
                    Value::$type(inner) => Ok(inner),
                    _ => Err(WrongType),
                }
            }

            fn of_mut(value: &mut Value) -> Result<&mut Self, WrongType> {
                match value {
                    Value::$type(inner) => Ok(inner),
                    _ => Err(WrongType),
                }
            }

            fn into_value(self) -> Value {
                Value::$type($boxed(self))
            }

            fn is_empty(&self) -> bool {
                $empty(self)
            }

            fn heap_bytes(&self) -> usize {
                $heap(self)
            }

            $($inline)*
        }
    };
}

// A string may be empty and stay.
collection!(
    Str,
    std::convert::identity,
    |_: &Str| false,
    |string: &Str| string.0.capacity(),
    fn from_inline(form: Form, bytes: &[u8]) -> Result<Str, WrongType> {
        if form == Form::String { Ok(Str(bytes.into())) } else { Err(WrongType) }
    },
    fn as_inline(&self) -> Option<(Form, &[u8])> {
        (self.0.len() == self.0.capacity()).then_some((Form::String, &*self.0))
    }
);
collection!(
    Hash,
    Box::new,
    |hash: &Hash| hash.len() == 0,
    |hash: &Hash| size_of::<Hash>() + hash.heap_bytes(),
    fn from_inline(form: Form, bytes: &[u8]) -> Result<Hash, WrongType> {
        if form == Form::Hash { Ok(Hash::from_packed(bytes)) } else { Err(WrongType) }
    },
    fn as_inline(&self) -> Option<(Form, &[u8])> {
        self.packed_bytes().map(|bytes| (Form::Hash, bytes))
    }
);
collection!(Set, Box::new, |set: &Set| set.len() == 0, |set: &Set| size_of::<Set>() + set.heap_bytes());
collection!(SortedSet, Box::new, |set: &SortedSet| set.len() == 0, |set: &SortedSet| size_of::<SortedSet>() + set.heap_bytes());
collection!(List, Box::new, |list: &List| list.len() == 0, |list: &List| size_of::<List>() + list.heap_bytes());

impl Value {
    pub(crate) fn string(bytes: &[u8]) -> Value {
        Value::Str(Str(bytes.into()))
    }

    /// As [`Collection::as_inline`].
    pub(super) fn as_inline(&self) -> Option<(Form, &[u8])> {
        match self {
            Value::Str(string) => string.as_inline(),
            Value::Hash(hash) => hash.as_inline(),
            Value::Set(_) | Value::SortedSet(_) | Value::List(_) => None,
        }
    }

    /// Frees it piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        match self {
            Value::Str(_) => {}
            Value::Hash(hash) => hash.dismantle(freeing),
            Value::Set(set) => set.dismantle(freeing),
            Value::SortedSet(set) => set.dismantle(freeing),
            Value::List(list) => list.dismantle(freeing),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Value::Str(string) => string.heap_bytes(),
            Value::Hash(hash) => Collection::heap_bytes(&**hash),
            Value::Set(set) => Collection::heap_bytes(&**set),
            Value::SortedSet(set) => Collection::heap_bytes(&**set),
            Value::List(list) => Collection::heap_bytes(&**list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ROOM_FROM_BYTES, Str};
    use crate::keyspace::{Change, ChangeSink, Changed, Class, Keys, Keyspace, Now};

    struct Nobody;

    impl ChangeSink for Nobody {
        fn take(&self, _: Change<'_>) {}
    }

    const KEY: &[u8] = b"log";

    fn append(keys: &mut Keys<'_>, piece: &[u8]) {
        let appended = keys.edit_or_create::<Str, _>(KEY, (Class::String, "append"), |string| {
            string.append(piece);
            (Changed::Yes, ())
        });
        appended.expect("it is a string");
    }

    /// A value is copied only where it moves, and then it takes another amount of memory.
    #[test]
    fn a_string_that_is_built_piece_by_piece_is_copied_a_few_times_and_its_room_is_counted() {
        const PIECES: usize = 40_000;
        let piece = [b'x'; 50];
        let keyspace = Keyspace::new(1);
        let mut keys = keyspace.lock_all(0, Now { unix_ms: 1_795_000_000_000 }, &Nobody);
        let (mut used, mut moves) = (0, 0);
        for number in 1..=PIECES {
            append(&mut keys, &piece);
            let now = keys.used_bytes(KEY).expect("it is there");
            moves += usize::from(now != used && number * piece.len() > ROOM_FROM_BYTES);
            used = now;
        }
        let length = PIECES * piece.len();
        assert_eq!(keys.string(KEY), Ok(Some(&*piece.repeat(PIECES))));
        assert!(moves < 40, "{moves} moves");
        assert!((length..length * 5 / 4 + ROOM_FROM_BYTES).contains(&used), "{used} bytes for {length}");
        drop(keys);
        assert!(keyspace.used_bytes() > used, "{} bytes in all, {used} for the string", keyspace.used_bytes());
    }

    /// Whatever it was, what is written whole takes no more than its bytes.
    #[test]
    fn a_string_that_is_written_whole_has_no_spare_room() {
        let keyspace = Keyspace::new(1);
        let mut keys = keyspace.lock_all(0, Now { unix_ms: 1_795_000_000_000 }, &Nobody);
        let whole = vec![b'w'; 3 * ROOM_FROM_BYTES];
        append(&mut keys, &whole);
        let exact = keys.used_bytes(KEY);
        append(&mut keys, b"more");
        assert!(keys.used_bytes(KEY) > exact.map(|exact| exact + ROOM_FROM_BYTES / 2));
        let copy = keys.get(KEY).expect("it is there").to_value();
        keys.set_string(KEY, &whole, None);
        assert_eq!(keys.used_bytes(KEY), exact);
        assert_eq!(copy.heap_bytes(), whole.len() + b"more".len());
    }
}
