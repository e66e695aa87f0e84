//! Reading RDB, from any stream: what comes from outside is checked, and takes no more memory than it brings bytes.

use std::io::{self, Read};

use thiserror::Error;

use crate::{
    keyspace::{Collection, End, Hash, List, Set, SortedSet, Usage, Value},
    persistence::rdb::{
        CRC, Checksum, VALKEY_VERSION_MAX, VERSION_MAX, encoding, kind, lzf, opcode,
        packed::{self, Broken, Walk},
    },
    protocol::DecimalBuffer,
};

/// Longest string or packed collection that is taken: Redis's own bound for a value.
const STRING_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Memory is taken for so many bytes at a time, as they come.
const READ_AHEAD_BYTES: usize = 256 * 1024;

/// Version from which a checksum stands at the end.
const CHECKSUM_VERSION: u32 = 5;

/// Why a stream cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum RdbError {
    #[error("it is not an RDB file: it does not begin with REDIS and a version")]
    NotRdb,
    #[error("it is of RDB version {version}, and versions up to {known} are understood")]
    Version { version: u32, known: u32 },
    #[error("it ends too early, at byte {at}")]
    Truncated { at: u64 },
    #[error("it is corrupt at byte {at}: {what}")]
    Corrupt { at: u64, what: &'static str },
    #[error("its checksum is wrong: the file was damaged after it was written")]
    Checksum,
    #[error("the key '{key}' is {what}, which this node does not have")]
    Unsupported { key: String, what: &'static str },
    #[error("it has a database {db}, and this node has {databases}: raise 'databases'")]
    Database { db: u64, databases: usize },
    #[error("it is not wanted any more")]
    NotWanted,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A key that was read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Value,
    /// Unix time in milliseconds.
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) usage: Usage,
}

/// One thing in a stream.
#[derive(Debug)]
pub(crate) enum Item {
    /// The keys behind it belong to this database.
    Db(usize),
    Entry(Entry),
    /// What the writer says of itself: `redis-ver`, `repl-id` …
    Aux(Vec<u8>, Vec<u8>),
    /// Something that is passed over: a library of functions, an empty collection.
    Skipped,
    /// The end, checksum included: nothing behind it was read.
    End,
}

/// Reads a stream item by item.
pub(crate) struct Decoder<R> {
    inner: R,
    /// `None` where the version has none.
    checksum: Option<Checksum>,
    at: u64,
    databases: usize,
}

/// A length, or what stands in its place.
enum Length {
    Plain(u64),
    Encoded(u8),
}

impl<R: Read> Decoder<R> {
    /// Reads the magic. Keys of databases from `databases` on are refused.
    pub(crate) fn new(inner: R, databases: usize) -> Result<Decoder<R>, RdbError> {
        let mut decoder = Decoder { inner, checksum: Some(CRC.digest()), at: 0, databases };
        let magic: [u8; 9] = decoder.array().map_err(|error| match error {
            RdbError::Truncated { .. } => RdbError::NotRdb,
            other => other,
        })?;
        let (digits, known) = match &magic {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (&digits[..], VERSION_MAX),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (&digits[..], VALKEY_VERSION_MAX),
            _ => return Err(RdbError::NotRdb),
        };
        let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok()).ok_or(RdbError::NotRdb)?;
        if version == 0 || version > known {
            return Err(RdbError::Version { version, known });
        }
        if version < CHECKSUM_VERSION {
            decoder.checksum = None;
        }
        Ok(decoder)
    }

    /// The next item. Behind [`Item::End`] there is none.
    pub(crate) fn next(&mut self) -> Result<Item, RdbError> {
        let mut expires_at_ms = None;
        let mut usage = Usage::Unknown;
        loop {
            match self.byte()? {
                opcode::EXPIRES_MS => expires_at_ms = Some(u64::from_le_bytes(self.array()?)),
                opcode::EXPIRES => expires_at_ms = Some(u64::from(u32::from_le_bytes(self.array()?)) * 1000),
                opcode::FREQUENCY => usage = Usage::Frequency(self.byte()?),
                opcode::IDLE => usage = Usage::IdleSeconds(self.length()?),
                opcode::AUX => return Ok(Item::Aux(self.string()?, self.string()?)),
                opcode::RESIZE_DB => {
                    self.length()?;
                    self.length()?;
                }
                opcode::SLOT_INFO => {
                    for _ in 0..3 {
                        self.length()?;
                    }
                }
                opcode::SELECT_DB => {
                    let db = self.length()?;
                    let databases = self.databases;
                    let known = usize::try_from(db).ok().filter(|db| *db < databases);
                    return known.map(Item::Db).ok_or(RdbError::Database { db, databases });
                }
                opcode::FUNCTION => {
                    self.string()?;
                    return Ok(Item::Skipped);
                }
                opcode::MODULE_AUX => self.skip_module()?,
                opcode::END => {
                    self.end()?;
                    return Ok(Item::End);
                }
                kind => {
                    let key = self.string()?;
                    let value = self.value(kind, &key)?;
                    // A time before 1970 has passed, as has 1970.
                    let expires_at_ms = expires_at_ms.map(|at| if at > i64::MAX as u64 { 1 } else { at });
                    // Redis passes over empty collections as well, which old versions could write.
                    if is_empty(&value) {
                        return Ok(Item::Skipped);
                    }
                    return Ok(Item::Entry(Entry { key, value, expires_at_ms, usage }));
                }
            }
        }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// What is read from, behind what was read.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn end(&mut self) -> Result<(), RdbError> {
        let Some(checksum) = self.checksum.take() else { return Ok(()) };
        let expected = checksum.finalize();
        let found = u64::from_le_bytes(self.array()?);
        // 0 stands for none: rdbchecksum no.
        if found == 0 || found == expected { Ok(()) } else { Err(RdbError::Checksum) }
    }

    pub(super) fn value(&mut self, kind: u8, key: &[u8]) -> Result<Value, RdbError> {
        Ok(match kind {
            kind::STRING => Value::string(&self.string()?),
            kind::LIST => {
                let mut list = List::default();
                for _ in 0..self.length()? {
                    list.push(End::Right, &self.string()?);
                }
                list.into_value()
            }
            kind::SET => {
                let mut set = Set::default();
                for _ in 0..self.length()? {
                    let member = self.string()?;
                    self.check(set.insert(&member), "a set has a member twice")?;
                }
                set.into_value()
            }
            kind::HASH => {
                let mut hash = Hash::default();
                for _ in 0..self.length()? {
                    let (field, value) = (self.string()?, self.string()?);
                    self.check(hash.insert(&field, &value), "a hash has a field twice")?;
                }
                hash.into_value()
            }
            kind::SORTED_SET | kind::SORTED_SET_TEXT => {
                let mut set = SortedSet::default();
                for _ in 0..self.length()? {
                    let member = self.string()?;
                    let score = if kind == kind::SORTED_SET { f64::from_le_bytes(self.array()?) } else { self.text_score()? };
                    self.add_scored(&mut set, &member, score)?;
                }
                set.into_value()
            }
            kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => self.quicklist(kind)?.into_value(),
            kind::LIST_ZIPLIST => {
                let mut list = List::default();
                let block = self.string()?;
                self.packed(packed::ziplist(&block, &mut |element| {
                    list.push(End::Right, element);
                    Ok(())
                }))?;
                list.into_value()
            }
            kind::SET_INTSET | kind::SET_LISTPACK => {
                let mut set = Set::default();
                let block = self.string()?;
                let mut add = |member: &[u8]| if set.insert(member) { Ok(()) } else { Err(Broken("a set has a member twice")) };
                let walk: Walk = if kind == kind::SET_INTSET { packed::intset } else { packed::listpack };
                self.packed(walk(&block, &mut add))?;
                set.into_value()
            }
            kind::HASH_ZIPMAP | kind::HASH_ZIPLIST | kind::HASH_LISTPACK => {
                let mut hash = Hash::default();
                let block = self.string()?;
                let walk: Walk = match kind {
                    kind::HASH_ZIPMAP => packed::zipmap,
                    kind::HASH_ZIPLIST => packed::ziplist,
                    _ => packed::listpack,
                };
                let is_new = |is_new| if is_new { Ok(()) } else { Err(Broken("a hash has a field twice")) };
                self.pairs(walk, &block, |field, value| is_new(hash.insert(field, value)))?;
                hash.into_value()
            }
            kind::SORTED_SET_ZIPLIST | kind::SORTED_SET_LISTPACK => {
                let mut set = SortedSet::default();
                let block = self.string()?;
                let walk: Walk = if kind == kind::SORTED_SET_ZIPLIST { packed::ziplist } else { packed::listpack };
                self.pairs(walk, &block, |member, score| {
                    let score = parse_score(score).ok_or(Broken("a score is no number"))?;
                    if set.insert(member, score).is_none() { Ok(()) } else { Err(Broken("a sorted set has a member twice")) }
                })?;
                set.into_value()
            }
            other => return Err(unsupported(other, key).unwrap_or_else(|| self.corrupt("there is no value of this type"))),
        })
    }

    fn quicklist(&mut self, kind: u8) -> Result<List, RdbError> {
        const PLAIN: u64 = 1;
        const PACKED: u64 = 2;
        let mut list = List::default();
        for _ in 0..self.length()? {
            let container = if kind == kind::LIST_QUICKLIST_2 { self.length()? } else { PACKED };
            let block = self.string()?;
            let walk: Walk = if kind == kind::LIST_QUICKLIST_2 { packed::listpack } else { packed::ziplist };
            match container {
                PLAIN => list.push(End::Right, &block),
                PACKED => self.packed(walk(&block, &mut |element| {
                    list.push(End::Right, element);
                    Ok(())
                }))?,
                _ => return Err(self.corrupt("a list has a node of no known form")),
            }
        }
        Ok(list)
    }

    fn add_scored(&self, set: &mut SortedSet, member: &[u8], score: f64) -> Result<(), RdbError> {
        self.check(!score.is_nan(), "a score is no number")?;
        self.check(set.insert(member, score).is_none(), "a sorted set has a member twice")
    }

    /// Elements of a packed collection two by two.
    fn pairs(&self, walk: Walk, block: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Broken>) -> Result<(), RdbError> {
        let mut first: Option<Vec<u8>> = None;
        let walked = walk(block, &mut |element| match first.take() {
            None => {
                first = Some(element.to_vec());
                Ok(())
            }
            Some(first) => visit(&first, element),
        });
        self.packed(walked)?;
        self.check(first.is_none(), "a packed collection of pairs has one element too few")
    }

    fn packed(&self, outcome: Result<(), Broken>) -> Result<(), RdbError> {
        outcome.map_err(|Broken(what)| self.corrupt(what))
    }

    fn check(&self, is_right: bool, what: &'static str) -> Result<(), RdbError> {
        if is_right { Ok(()) } else { Err(self.corrupt(what)) }
    }

    fn corrupt(&self, what: &'static str) -> RdbError {
        RdbError::Corrupt { at: self.at, what }
    }

    /// A score as versions before 8 wrote it.
    fn text_score(&mut self) -> Result<f64, RdbError> {
        match self.byte()? {
            253 => Ok(f64::NAN),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            length => {
                let text = self.bytes(u64::from(length))?;
                parse_score(&text).ok_or_else(|| self.corrupt("a score is no number"))
            }
        }
    }

    /// Passes over what a module keeps beside the keys: nothing here could use it.
    fn skip_module(&mut self) -> Result<(), RdbError> {
        const END: u64 = 0;
        self.length()?;
        loop {
            match self.length()? {
                END => return Ok(()),
                1 | 2 => drop(self.length()?),
                3 => drop(self.bytes(4)?),
                4 => drop(self.bytes(8)?),
                5 => drop(self.string()?),
                _ => return Err(self.corrupt("a module's data is of no known form")),
            }
        }
    }

    pub(super) fn string(&mut self) -> Result<Vec<u8>, RdbError> {
        let number = match self.length_or_encoding()? {
            Length::Plain(length) => return self.bytes(length),
            Length::Encoded(encoding::INT8) => i64::from(self.byte()? as i8),
            Length::Encoded(encoding::INT16) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Encoded(encoding::INT32) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Encoded(encoding::LZF) => return self.compressed_string(),
            Length::Encoded(_) => return Err(self.corrupt("a string is of no known form")),
        };
        Ok(DecimalBuffer::default().format(number).to_vec())
    }

    fn compressed_string(&mut self) -> Result<Vec<u8>, RdbError> {
        let (compressed, length) = (self.length()?, self.length()?);
        self.check(length <= STRING_BYTES_MAX, "a string is longer than 512 MB")?;
        let compressed = self.bytes(compressed)?;
        let length = length as usize;
        self.check(length <= lzf::decompressed_max(compressed.len()), "a compressed string cannot become as long as it says")?;
        lzf::decompress(&compressed, length).ok_or_else(|| self.corrupt("a compressed string does not become what it says"))
    }

    fn length(&mut self) -> Result<u64, RdbError> {
        match self.length_or_encoding()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(self.corrupt("a length is expected")),
        }
    }

    fn length_or_encoding(&mut self) -> Result<Length, RdbError> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3F);
        Ok(Length::Plain(match (first >> 6, first) {
            (0, _) => low,
            (1, _) => low << 8 | u64::from(self.byte()?),
            (_, 0x80) => u64::from(u32::from_be_bytes(self.array()?)),
            (_, 0x81) => u64::from_be_bytes(self.array()?),
            (3, _) => return Ok(Length::Encoded(first & 0x3F)),
            _ => return Err(self.corrupt("a length is of no known form")),
        }))
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, RdbError> {
        self.check(count <= STRING_BYTES_MAX, "a string is longer than 512 MB")?;
        let count = count as usize;
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let start = bytes.len();
            bytes.resize(count.min(start + READ_AHEAD_BYTES), 0);
            self.fill(&mut bytes[start..])?;
        }
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, RdbError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RdbError> {
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RdbError::Truncated { at: self.at },
            _ => RdbError::Io(error),
        })?;
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// Reads what DUMP gave: a value with its type, version and checksum.
pub(crate) fn undump(bytes: &[u8]) -> Option<Value> {
    let (body, footer) = bytes.split_at_checked(bytes.len().checked_sub(10)?)?;
    let version = u16::from_le_bytes(footer[..2].try_into().ok()?);
    let expected = u64::from_le_bytes(footer[2..].try_into().ok()?);
    let is_whole = expected == 0 || CRC.checksum(&bytes[..bytes.len() - 8]) == expected;
    if u32::from(version) > VERSION_MAX || !is_whole {
        return None;
    }
    let mut decoder = Decoder { inner: body, checksum: None, at: 0, databases: 0 };
    let kind = decoder.byte().ok()?;
    let value = decoder.value(kind, b"").ok()?;
    (decoder.inner.is_empty() && !is_empty(&value)).then_some(value)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Str(_) => false,
        Value::Hash(hash) => hash.len() == 0,
        Value::Set(set) => set.len() == 0,
        Value::SortedSet(set) => set.len() == 0,
        Value::List(list) => list.len() == 0,
    }
}

fn parse_score(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|score: &f64| !score.is_nan())
}

/// Types that others have and this node does not.
fn unsupported(kind: u8, key: &[u8]) -> Option<RdbError> {
    let what = match kind {
        6 | 7 => "of a module's type",
        15 | 19 | 21 => "a stream",
        22..=25 => "a hash whose fields have a time to live",
        _ => return None,
    };
    const SHOWN_BYTES_MAX: usize = 128;
    let key = key[..key.len().min(SHOWN_BYTES_MAX)].escape_ascii().to_string();
    Some(RdbError::Unsupported { key, what })
}
