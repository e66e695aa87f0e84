//! An entry's bytes: header, key and value together, in one slot of the arena.
//!
//! | bytes | what |
//! |---|---|
//! | 0..6 | Unix time in milliseconds at which the entry ends; 0 for never |
//! | 6..9 | last use, see [`Access`] |
//! | 9 | many unused bytes at the end (bit 7), epoch (bit 6), form of the value (bits 4 and 5, never 0 in a live entry), long key (bit 3), unused bytes at the end (low three) |
//! | 10 | length of the key, or four bytes of it when the key is long |
//! | … | key, value |
//!
//! The value's length is not stored: it is what the slot leaves. Where more than seven bytes are unused, the last of them is their number.

use crate::keyspace::{access::Access, arena::SLOT_BYTES_UNUSED_MAX};

/// How a value lies in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A string's bytes.
    String = 1,
    /// A packed hash.
    Hash = 2,
    /// Four bytes that number an object beside the arena.
    Object = 3,
}

const FORM_AT: usize = 9;
const LONG_KEY: u8 = 1 << 3;
const UNUSED: u8 = 0b111;
const FORM: u8 = 0b11 << 4;
const EPOCH: u8 = 1 << 6;
const MANY_UNUSED: u8 = 1 << 7;
const SHORT_HEADER: usize = 11;
const LONG_HEADER: usize = 14;

/// What a new entry is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) key: &'a [u8],
    pub(super) form: Form,
    pub(super) value: &'a [u8],
    pub(super) expires_at_ms: Option<u64>,
    pub(super) access: Access,
    /// Which of two snapshots in a row the entry was handed over to: see `snapshot`.
    pub(super) epoch: bool,
}

impl Parts<'_> {
    pub(super) fn bytes(&self) -> usize {
        header_bytes(self.key) + self.key.len() + self.value.len()
    }

    /// Writes the entry into a slot that has room for it, and at most 255 bytes more.
    pub(super) fn write(&self, slot: &mut [u8]) {
        let unused = match slot.len() - self.bytes() {
            few if few <= usize::from(UNUSED) => few as u8,
            many => {
                debug_assert!(many <= SLOT_BYTES_UNUSED_MAX, "{many} bytes unused");
                let last = slot.len() - 1;
                slot[last] = many as u8;
                MANY_UNUSED
            }
        };
        let is_long = header_bytes(self.key) == LONG_HEADER;
        set_expires_at_ms(slot, self.expires_at_ms);
        set_access(slot, self.access);
        slot[FORM_AT] = (self.form as u8) << 4 | if is_long { LONG_KEY } else { 0 } | unused;
        set_epoch(slot, self.epoch);
        if is_long {
            slot[SHORT_HEADER - 1..LONG_HEADER].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        } else {
            slot[SHORT_HEADER - 1] = self.key.len() as u8;
        }
        let key_at = header_bytes(self.key);
        let value_at = key_at + self.key.len();
        slot[key_at..value_at].copy_from_slice(self.key);
        slot[value_at..value_at + self.value.len()].copy_from_slice(self.value);
    }
}

/// Header bytes of an entry with this key.
fn header_bytes(key: &[u8]) -> usize {
    if key.len() <= usize::from(u8::MAX) { SHORT_HEADER } else { LONG_HEADER }
}

/// An entry that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a>(pub(super) &'a [u8]);

impl<'a> Entry<'a> {
    #[inline]
    pub(super) fn key(self) -> &'a [u8] {
        let (start, length) = self.key_span();
        &self.0[start..start + length]
    }

    #[inline]
    pub(super) fn value(self) -> &'a [u8] {
        let (start, length) = self.key_span();
        let mark = self.0[FORM_AT];
        let unused = if mark & MANY_UNUSED == 0 { mark & UNUSED } else { self.0[self.0.len() - 1] };
        &self.0[start + length..self.0.len() - usize::from(unused)]
    }

    #[inline]
    pub(super) fn form(self) -> Form {
        match (self.0[FORM_AT] & FORM) >> 4 {
            1 => Form::String,
            2 => Form::Hash,
            _ => Form::Object,
        }
    }

    /// The object's number, in an entry of [`Form::Object`].
    pub(super) fn object(self) -> usize {
        let number: [u8; 4] = self.value().try_into().expect("four bytes");
        u32::from_le_bytes(number) as usize
    }

    #[inline]
    pub(super) fn expires_at_ms(self) -> Option<u64> {
        let (low, _) = self.0.split_first_chunk::<8>().expect("a header is longer");
        Some(u64::from_le_bytes(*low) & EXPIRES_MAX).filter(|at| *at != 0)
    }

    #[inline]
    pub(super) fn is_expired(self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    pub(super) fn epoch(self) -> bool {
        self.0[FORM_AT] & EPOCH != 0
    }

    #[inline]
    pub(super) fn access(self) -> Access {
        Access::from_bytes([self.0[6], self.0[7], self.0[8]])
    }

    #[inline]
    fn key_span(self) -> (usize, usize) {
        if self.0[FORM_AT] & LONG_KEY == 0 {
            (SHORT_HEADER, usize::from(self.0[SHORT_HEADER - 1]))
        } else {
            let length: [u8; 4] = self.0[SHORT_HEADER - 1..LONG_HEADER].try_into().expect("four bytes");
            (LONG_HEADER, u32::from_le_bytes(length) as usize)
        }
    }
}

/// Times beyond the year 10,889 are kept as that: 48 bits.
const EXPIRES_MAX: u64 = (1 << 48) - 1;

pub(super) fn set_expires_at_ms(slot: &mut [u8], expires_at_ms: Option<u64>) {
    // A time of 0 has passed, as has 1; and 0 means never.
    let at = expires_at_ms.map_or(0, |at| at.clamp(1, EXPIRES_MAX));
    slot[..6].copy_from_slice(&at.to_le_bytes()[..6]);
}

pub(super) fn set_access(slot: &mut [u8], access: Access) {
    slot[6..9].copy_from_slice(&access.to_bytes());
}

pub(super) fn set_epoch(slot: &mut [u8], epoch: bool) {
    slot[FORM_AT] = slot[FORM_AT] & !EPOCH | if epoch { EPOCH } else { 0 };
}

/// Whether the slot holds an entry.
pub(super) fn is_live(slot: &[u8]) -> bool {
    slot[FORM_AT] != 0
}

/// Marks a slot as holding none, before it is given back.
pub(super) fn mark_free(slot: &mut [u8]) {
    slot[FORM_AT] = 0;
}

#[cfg(test)]
mod tests {
    use super::{Entry, Form, Parts, set_expires_at_ms};
    use crate::keyspace::{access::Access, arena::Arena};

    #[test]
    fn what_was_written_is_read() {
        for key_length in [0, 1, 32, 255, 256, 5_000] {
            for value_length in (0..20).chain(470..1_100) {
                let (key, value) = (vec![b'k'; key_length], vec![b'v'; value_length]);
                let parts = Parts {
                    key: &key,
                    form: Form::Hash,
                    value: &value,
                    expires_at_ms: Some(1_795_000_000_123),
                    access: Access::default(),
                    epoch: value_length % 2 == 0,
                };
                let mut slot = vec![0xAA; Arena::slot_bytes_for(parts.bytes())];
                parts.write(&mut slot);
                let entry = Entry(&slot);
                assert_eq!((entry.key(), entry.value(), entry.form()), (&key[..], &value[..], Form::Hash));
                assert_eq!((entry.expires_at_ms(), entry.epoch()), (Some(1_795_000_000_123), value_length % 2 == 0));
                set_expires_at_ms(&mut slot, None);
                assert_eq!(Entry(&slot).expires_at_ms(), None);
            }
        }
    }
}
