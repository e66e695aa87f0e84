//! The packed forms in which Redis keeps small collections, as they lie in RDB files: listpack, ziplist, zipmap, intset.

use crate::protocol::DecimalBuffer;

/// What a packed collection is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// Takes an element, or refuses it.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Broken>;

/// A way through a packed collection.
pub(super) type Walk = fn(&[u8], Visit<'_>) -> Result<(), Broken>;

/// A walk over bytes that never reads past them.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Broken("a packed collection ends in the middle of an element"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.take(1)?[0])
    }

    /// Unsigned, little-endian.
    fn little(&mut self, count: usize) -> Result<u64, Broken> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Signed, little-endian, of up to 8 bytes.
    fn signed(&mut self, count: usize) -> Result<i64, Broken> {
        let shift = 64 - 8 * count as u32;
        Ok((self.little(count)? << shift) as i64 >> shift)
    }
}

fn visit_integer(number: i64, visit: Visit<'_>) -> Result<(), Broken> {
    visit(DecimalBuffer::default().format(number))
}

/// Elements of a listpack: strings, and integers as decimals.
pub(super) fn listpack(block: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
    let mut bytes = Bytes(block);
    if bytes.little(4)? != block.len() as u64 {
        return Err(Broken("a listpack's length is not its own"));
    }
    let announced = bytes.little(2)?;
    let mut count = 0;
    loop {
        let left = bytes.0.len();
        let first = bytes.byte()?;
        let low = usize::from(first);
        match first {
            0xFF if bytes.0.is_empty() => break,
            0xFF => return Err(Broken("a listpack goes on behind its end")),
            0x00..=0x7F => visit_integer(i64::from(first), visit)?,
            0x80..=0xBF => visit(bytes.take(low & 0x3F)?)?,
            0xC0..=0xDF => {
                let number = i64::from(first & 0x1F) << 8 | i64::from(bytes.byte()?);
                visit_integer(number << 51 >> 51, visit)?;
            }
            0xE0..=0xEF => {
                let length = (low & 0x0F) << 8 | usize::from(bytes.byte()?);
                visit(bytes.take(length)?)?;
            }
            0xF0 => {
                let length = bytes.little(4)? as usize;
                visit(bytes.take(length)?)?;
            }
            0xF1..=0xF4 => {
                let number = bytes.signed([2, 3, 4, 8][usize::from(first - 0xF1)])?;
                visit_integer(number, visit)?;
            }
            _ => return Err(Broken("a listpack has an element of no known form")),
        }
        // Behind each element stands its length once more, for walks from the end.
        let backwards = match left - bytes.0.len() {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            2_097_152..=268_435_455 => 4,
            _ => 5,
        };
        bytes.take(backwards)?;
        count += 1;
    }
    // 65535 stands for "count them".
    if announced != 0xFFFF && announced != count { Err(Broken("a listpack's count is not its own")) } else { Ok(()) }
}

/// Elements of a ziplist, the listpack's predecessor.
pub(super) fn ziplist(block: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
    let mut bytes = Bytes(block);
    if bytes.little(4)? != block.len() as u64 {
        return Err(Broken("a ziplist's length is not its own"));
    }
    bytes.little(4)?;
    let announced = bytes.little(2)?;
    let mut count = 0;
    loop {
        // The length of the element before.
        match bytes.byte()? {
            0xFF if bytes.0.is_empty() => break,
            0xFF => return Err(Broken("a ziplist goes on behind its end")),
            0xFE => drop(bytes.take(4)?),
            _ => {}
        }
        let first = bytes.byte()?;
        let low = usize::from(first & 0x3F);
        match first {
            0x00..=0x3F => visit(bytes.take(low)?)?,
            0x40..=0x7F => {
                let length = low << 8 | usize::from(bytes.byte()?);
                visit(bytes.take(length)?)?;
            }
            0x80 => {
                let length = bytes.take(4)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                visit(bytes.take(length)?)?;
            }
            0xC0 => visit_integer(bytes.signed(2)?, visit)?,
            0xD0 => visit_integer(bytes.signed(4)?, visit)?,
            0xE0 => visit_integer(bytes.signed(8)?, visit)?,
            0xF0 => visit_integer(bytes.signed(3)?, visit)?,
            0xFE => visit_integer(bytes.signed(1)?, visit)?,
            0xF1..=0xFD => visit_integer(i64::from(first & 0x0F) - 1, visit)?,
            _ => return Err(Broken("a ziplist has an element of no known form")),
        }
        count += 1;
    }
    if announced != 0xFFFF && announced != count { Err(Broken("a ziplist's count is not its own")) } else { Ok(()) }
}

/// Fields and values, one after the other, of a zipmap: small hashes before Redis 2.6.
pub(super) fn zipmap(block: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
    fn length(bytes: &mut Bytes<'_>) -> Result<Option<usize>, Broken> {
        match bytes.byte()? {
            0xFF => Ok(None),
            0xFE => Ok(Some(bytes.little(4)? as usize)),
            short => Ok(Some(usize::from(short))),
        }
    }
    let mut bytes = Bytes(block);
    bytes.byte()?;
    while let Some(field) = length(&mut bytes)? {
        visit(bytes.take(field)?)?;
        let value = length(&mut bytes)?.ok_or(Broken("a zipmap ends behind a field"))?;
        let unused = usize::from(bytes.byte()?);
        visit(bytes.take(value)?)?;
        bytes.take(unused)?;
    }
    if bytes.0.is_empty() { Ok(()) } else { Err(Broken("a zipmap goes on behind its end")) }
}

/// Members of an intset, as decimals.
pub(super) fn intset(block: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
    let mut bytes = Bytes(block);
    let width = bytes.little(4)? as usize;
    let count = bytes.little(4)? as usize;
    if !matches!(width, 2 | 4 | 8) || count.checked_mul(width) != Some(bytes.0.len()) {
        return Err(Broken("an intset's width and count are not its own"));
    }
    (0..count).try_for_each(|_| visit_integer(bytes.signed(width)?, visit))
}
