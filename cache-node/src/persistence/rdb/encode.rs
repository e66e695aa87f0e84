//! Writing RDB.

use std::io::{self, Write};

use crate::{
    keyspace::{Encode, EntryRef, Usage, ValueRef},
    persistence::rdb::{CRC, Checksum, VERSION, encoding, kind, lzf, opcode},
};

/// Strings of at least so many bytes are worth compressing (Redis: the same).
const COMPRESSED_MIN: usize = 21;

/// Longest text that can be an integer of 32 bits.
const INTEGER_DIGITS_MAX: usize = 11;

/// Writes entries. Holds what the format leaves open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoder {
    /// `rdbcompression`
    pub(crate) compresses: bool,
}

impl Encode for Encoder {
    fn select_db(&self, db: usize, out: &mut Vec<u8>) {
        out.push(opcode::SELECT_DB);
        length(db, out);
    }

    fn entry(&self, entry: EntryRef<'_>, out: &mut Vec<u8>) {
        if let Some(at) = entry.expires_at_ms {
            out.push(opcode::EXPIRES_MS);
            out.extend_from_slice(&at.to_le_bytes());
        }
        match entry.usage {
            Usage::Unknown => {}
            Usage::IdleSeconds(seconds) => {
                out.push(opcode::IDLE);
                length(seconds as usize, out);
            }
            Usage::Frequency(counter) => out.extend_from_slice(&[opcode::FREQUENCY, counter]),
        }
        out.push(kind_of(entry.value));
        self.string(entry.key, out);
        self.value(entry.value, out);
    }
}

impl Encoder {
    /// A value as DUMP gives it: type and bytes, without a key.
    pub(crate) fn dump(&self, value: ValueRef<'_>) -> Vec<u8> {
        let mut out = vec![kind_of(value)];
        self.value(value, &mut out);
        out.extend_from_slice(&(VERSION as u16).to_le_bytes());
        out.extend_from_slice(&CRC.checksum(&out).to_le_bytes());
        out
    }

    fn value(&self, value: ValueRef<'_>, out: &mut Vec<u8>) {
        match value {
            ValueRef::Str(text) => self.string(text, out),
            ValueRef::Hash(hash) => {
                length(hash.len(), out);
                for (field, value) in hash.iter() {
                    self.string(field, out);
                    self.string(value, out);
                }
            }
            ValueRef::Set(set) => {
                length(set.len(), out);
                set.iter().for_each(|member| self.string(member, out));
            }
            ValueRef::SortedSet(set) => {
                length(set.len(), out);
                for member in set.iter() {
                    self.string(&member.name, out);
                    out.extend_from_slice(&member.score.to_le_bytes());
                }
            }
            ValueRef::List(list) => {
                length(list.len(), out);
                list.iter().for_each(|element| self.string(element, out));
            }
        }
    }

    fn string(&self, text: &[u8], out: &mut Vec<u8>) {
        if text.len() <= INTEGER_DIGITS_MAX && integer(text, out) {
            return;
        }
        if self.compresses && text.len() >= COMPRESSED_MIN {
            let mut compressed = Vec::new();
            // The two lengths in front take room as well.
            if lzf::compress(text, &mut compressed) && compressed.len() + 4 < text.len() {
                out.push(0xC0 | encoding::LZF);
                length(compressed.len(), out);
                length(text.len(), out);
                out.extend_from_slice(&compressed);
                return;
            }
        }
        length(text.len(), out);
        out.extend_from_slice(text);
    }
}

fn kind_of(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::Str(_) => kind::STRING,
        ValueRef::Hash(_) => kind::HASH,
        ValueRef::Set(_) => kind::SET,
        ValueRef::SortedSet(_) => kind::SORTED_SET,
        ValueRef::List(_) => kind::LIST,
    }
}

fn length(length: usize, out: &mut Vec<u8>) {
    if length < 1 << 6 {
        out.push(length as u8);
    } else if length < 1 << 14 {
        out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes());
    } else if let Ok(length) = u32::try_from(length) {
        out.push(0x80);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(0x81);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Writes a text that is an integer as one. `false` when it is none, or would come back in other digits.
fn integer(text: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'0'] => text.len() == 1,
        [first, ..] => *first != b'0' && digits.iter().all(u8::is_ascii_digit),
        [] => false,
    };
    if !is_canonical {
        return false;
    }
    let number = digits.iter().fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    let number = if digits.len() < text.len() { -number } else { number };
    if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[0xC0 | encoding::INT8, number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xC0 | encoding::INT16);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(0xC0 | encoding::INT32);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        return false;
    }
    true
}

/// A stream of RDB: magic and auxiliary fields, then chunks of entries, then the end with its checksum.
pub(crate) struct RdbWriter<W> {
    inner: W,
    /// `None` where `rdbchecksum` is off.
    checksum: Option<Checksum>,
    written: u64,
}

impl<W: Write> RdbWriter<W> {
    /// Begins a file: its magic, and `aux` as names and values.
    pub(crate) fn new(inner: W, has_checksum: bool, aux: &[(&str, String)]) -> io::Result<RdbWriter<W>> {
        let mut writer = RdbWriter { inner, checksum: has_checksum.then(|| CRC.digest()), written: 0 };
        let mut out = format!("REDIS{VERSION:04}").into_bytes();
        let plain = Encoder { compresses: false };
        for (name, value) in aux {
            out.push(opcode::AUX);
            plain.string(name.as_bytes(), &mut out);
            plain.string(value.as_bytes(), &mut out);
        }
        writer.write(&out)?;
        Ok(writer)
    }

    /// Tells how many keys a database has: whoever loads makes room at once.
    pub(crate) fn announce_db(&mut self, db: usize, keys: usize, volatile: usize) -> io::Result<()> {
        let mut out = vec![opcode::SELECT_DB];
        length(db, &mut out);
        out.push(opcode::RESIZE_DB);
        length(keys, &mut out);
        length(volatile, &mut out);
        self.write(&out)
    }

    /// Writes what an [`Encoder`] made.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.written += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    /// Writes the end, and gives the number of bytes of the whole.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.write(&[opcode::END])?;
        let checksum = self.checksum.map_or(0, Checksum::finalize);
        self.inner.write_all(&checksum.to_le_bytes())?;
        Ok(self.written + 8)
    }
}
