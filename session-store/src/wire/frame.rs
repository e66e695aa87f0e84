//! Where a reply ends, and what is in it: RESP2 and RESP3 over byte slices, without a socket and without a copy.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of the longest reply that is accepted: more than a session or a cart can have.
pub(super) const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes of the longest line: a simple string, an error, a number, a length.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lists within lists at most.
const DEPTH_MAX: u32 = 16;
/// Digits of a number that surely fits.
const DIGITS_MAX: usize = 18;
/// Places reserved for a list before its values are seen.
const LIST_RESERVED_MAX: usize = 64;

/// The peer does not speak RESP, or says more than is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not RESP: {0}")]
pub(crate) struct Malformed(&'static str);

/// How far the reply at the front of a buffer was looked at: kept between reads, so that each byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    position: usize,
    /// Values that are still to come; 0 before the first.
    missing: u64,
}

impl Scan {
    /// Whether the buffer begins with what nobody has looked at.
    pub(super) fn is_fresh(&self) -> bool {
        self.missing == 0
    }

    /// The length of `values` values in a row, once all of them have arrived.
    pub(super) fn end(&mut self, buffer: &[u8], values: u32) -> Result<Option<usize>, Malformed> {
        if self.missing == 0 {
            self.missing = u64::from(values);
        }
        while self.missing > 0 {
            // The usual forms first: what is left over is looked at line by line.
            let usual = match buffer.get(self.position) {
                Some(b'$') => string(buffer, self.position).map(|text| (text.end + 2, 0)),
                Some(b':') => short_number(buffer, self.position + 1).map(|(_, after)| (after, 0)),
                Some(b'*') => short_length(buffer, self.position + 1).map(|(length, after)| (after, length as u64)),
                _ => None,
            };
            if let Some((next, more)) = usual {
                (self.position, self.missing) = (next, self.missing - 1 + more);
                if next > REPLY_BYTES_MAX {
                    return Err(Malformed("it is too long"));
                }
                continue;
            }
            let Some(Line { kind, text: line, after }) = line(buffer, self.position)? else { return Ok(None) };
            let mut next = after;
            let more = match kind {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
                b'$' | b'=' | b'!' => {
                    if let Some(length) = length(line)? {
                        next = after + length + 2;
                        if next > REPLY_BYTES_MAX {
                            return Err(Malformed("it is too long"));
                        }
                        if buffer.len() < next {
                            return Ok(None);
                        }
                    }
                    0
                }
                b'*' | b'~' | b'>' => length(line)?.unwrap_or(0) as u64,
                b'%' => 2 * length(line)?.unwrap_or(0) as u64,
                // An attribute stands before a value, and is not counted as one.
                b'|' => 2 * length(line)?.unwrap_or(0) as u64 + 1,
                _ => return Err(Malformed("a value has no known type")),
            };
            self.position = next;
            self.missing = self.missing - 1 + more;
        }
        let end = std::mem::take(self).position;
        Ok(Some(end))
    }
}

struct Line<'a> {
    kind: u8,
    text: &'a [u8],
    /// Where the next one begins.
    after: usize,
}

/// The line at `position`, if it is complete.
fn line(buffer: &[u8], position: usize) -> Result<Option<Line<'_>>, Malformed> {
    let Some((&kind, rest)) = buffer.get(position..).and_then(<[u8]>::split_first) else { return Ok(None) };
    match memchr::memchr(b'\r', rest) {
        Some(end) if end > LINE_BYTES_MAX => Err(Malformed("a line is too long")),
        Some(end) => match rest.get(end + 1) {
            Some(b'\n') => Ok(Some(Line { kind, text: &rest[..end], after: position + end + 3 })),
            Some(_) => Err(Malformed("a line has no end")),
            None => Ok(None),
        },
        None if rest.len() > LINE_BYTES_MAX => Err(Malformed("a line is too long")),
        None => Ok(None),
    }
}

/// Where the string at `position` is, when it is whole and of the usual form, with up to three digits. Nearly all of an answer is
/// strings: to look for the end of each line was a fifth of what it took to read a session, and a loop over the digits a
/// twentieth. The shortest string has as many bytes as the longest head, so that one look at the bounds is enough for both.
#[inline]
fn string(buffer: &[u8], position: usize) -> Option<Range<usize>> {
    let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
    let (length, is_usual, head) = match *buffer.get(position..)?.first_chunk()? {
        [b'$', a, b'\r', b'\n', _, _] => (digit(a), digit(a) < 10, 4),
        [b'$', a, b, b'\r', b'\n', _] => (10 * digit(a) + digit(b), digit(a) < 10 && digit(b) < 10, 5),
        [b'$', a, b, c, b'\r', b'\n'] => {
            (100 * digit(a) + 10 * digit(b) + digit(c), digit(a) < 10 && digit(b) < 10 && digit(c) < 10, 6)
        }
        _ => return None,
    };
    let start = position + head;
    let end = start + length;
    (is_usual && end + 2 <= buffer.len()).then_some(start..end)
}

/// The number at `position` and where the next line begins, when its line is whole and of the usual form.
fn short_number(buffer: &[u8], position: usize) -> Option<(i64, usize)> {
    let rest = buffer.get(position..)?;
    let (is_negative, rest) = match rest {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut number = 0;
    for (digits, byte) in rest[..rest.len().min(DIGITS_MAX + 1)].iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let is_whole = digits > 0 && rest[digits..].starts_with(b"\r\n");
            let after = position + usize::from(is_negative) + digits + 2;
            return is_whole.then_some((if is_negative { -number } else { number }, after));
        }
        // Wraps where there are too many digits, for which there is no number in the end.
        number = i64::wrapping_add(10_i64.wrapping_mul(number), i64::from(digit));
    }
    None
}

/// The same of a length.
fn short_length(buffer: &[u8], position: usize) -> Option<(usize, usize)> {
    let (length, after) = short_number(buffer, position)?;
    (0..=REPLY_BYTES_MAX as i64).contains(&length).then_some((length as usize, after))
}

/// `None` for the null of RESP2.
fn length(line: &[u8]) -> Result<Option<usize>, Malformed> {
    match line {
        b"-1" => Ok(None),
        _ => match number(line) {
            Some(length) if (0..=REPLY_BYTES_MAX as i64).contains(&length) => Ok(Some(length as usize)),
            _ => Err(Malformed("a length is no length")),
        },
    }
}

/// A session has five of them, so long that the way over `str` was a fifteenth of a read.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return unusual_number(text);
    }
    let (eights, rest) = digits.as_chunks();
    let mut number = 0;
    for eight in eights {
        let Some(eight) = eight_digits(*eight) else { return unusual_number(text) };
        number = number * 100_000_000 + eight;
    }
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return unusual_number(text);
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if digits.len() == text.len() { number } else { -number })
}

/// None, one with a plus, or one that may be too large.
#[cold]
fn unusual_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The number that eight digits are, all at once: neighbours are joined to pairs, pairs to fours, and those.
fn eight_digits(text: [u8; 8]) -> Option<i64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let text = u64::from_le_bytes(text);
    // Those of digits begin with a 3, and do so when 6 is added.
    let begins = |text: u64| text & (0xF0 * EACH);
    let is_digits = begins(text) == 0x30 * EACH && begins(text.wrapping_add(6 * EACH)) == 0x30 * EACH;
    let ones = text & (0x0F * EACH);
    let twos = (10 * ones + (ones >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (100 * twos + (twos >> 16)) & 0x0000_FFFF_0000_FFFF;
    let all = (10_000 * fours + (fours >> 32)) & 0xFFFF_FFFF;
    is_digits.then_some(all as i64)
}

/// The values of one request, in place.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    bytes: Bytes,
    position: usize,
}

/// One value; the elements of a list follow it. `T`: what there is of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item<T = Bytes> {
    String(T),
    Integer(i64),
    Null,
    /// A list, a set or a push of so many values.
    List(usize),
    /// A map of so many pairs.
    Map(usize),
    /// The whole line, with the `-` in front.
    Error(T),
}

/// A place in a reply.
pub(crate) type Place = Range<usize>;

impl Reply {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, position: 0 }
    }

    /// What the server refused the request with, if it did so with the first reply.
    pub(crate) fn error(&self) -> Option<redis::RedisError> {
        if self.bytes.first() != Some(&b'-') {
            return None;
        }
        // The client library knows the kinds of errors.
        self.clone().value().ok().and_then(|value| value.extract_error().err())
    }

    /// Replies of several requests, one behind the other.
    pub(crate) fn concat(replies: &[Self]) -> Self {
        Self::new(replies.iter().map(|reply| &reply.bytes[reply.position..]).collect::<Vec<_>>().concat().into())
    }

    /// Leaves the first reply out: what remains is as if it had been asked for alone.
    pub(crate) fn skip_first(&mut self) -> Result<(), Malformed> {
        self.value()?;
        self.bytes = self.bytes.slice(self.position..);
        self.position = 0;
        Ok(())
    }

    /// The next value. After the last one it is malformed.
    pub(crate) fn next(&mut self) -> Result<Item, Malformed> {
        Ok(match self.next_placed()? {
            Item::String(place) => Item::String(self.kept(&place)),
            Item::Integer(number) => Item::Integer(number),
            Item::Null => Item::Null,
            Item::List(length) => Item::List(length),
            Item::Map(pairs) => Item::Map(pairs),
            Item::Error(place) => Item::Error(self.kept(&place)),
        })
    }

    /// The same, a text only by its place: to keep a part of an answer costs more than to look at it.
    pub(crate) fn next_placed(&mut self) -> Result<Item<Place>, Malformed> {
        let usual = match self.bytes.get(self.position) {
            Some(b'$') => string(&self.bytes, self.position).map(|place| (place.end + 2, Item::String(place))),
            Some(b':') => short_number(&self.bytes, self.position + 1).map(|(number, after)| (after, Item::Integer(number))),
            Some(b'*') => short_length(&self.bytes, self.position + 1).map(|(length, after)| (after, Item::List(length))),
            _ => None,
        };
        let (next, item) = match usual {
            Some(usual) => usual,
            None => self.unusual()?,
        };
        self.position = next;
        Ok(item)
    }

    /// The next value, of whatever form, and where the one after it begins.
    fn unusual(&self) -> Result<(usize, Item<Place>), Malformed> {
        let Some(Line { kind, text, after }) = line(&self.bytes, self.position)? else {
            return Err(Malformed("a value is missing"));
        };
        let begin = self.position + 1;
        Ok(match kind {
            b'+' | b',' | b'(' => (after, Item::String(begin..begin + text.len())),
            b'#' => (after, Item::Integer(i64::from(text == b"t"))),
            b':' => (after, Item::Integer(number(text).ok_or(Malformed("a number is no number"))?)),
            b'_' => (after, Item::Null),
            b'-' => (after, Item::Error(self.position..after)),
            b'$' | b'=' | b'!' => match length(text)? {
                None => (after, Item::Null),
                Some(length) if after + length + 2 > self.bytes.len() => return Err(Malformed("a string is cut off")),
                Some(length) => (after + length + 2, Item::String(after..after + length)),
            },
            b'*' | b'~' | b'>' => (after, length(text)?.map_or(Item::Null, Item::List)),
            b'%' => (after, length(text)?.map_or(Item::Null, Item::Map)),
            b'|' => return Err(Malformed("an attribute was not asked for")),
            _ => return Err(Malformed("a value has no known type")),
        })
    }

    /// Where the next value is, when it is a string of the usual form; otherwise nothing is taken.
    #[inline]
    pub(crate) fn next_string(&mut self) -> Option<Place> {
        let place = string(&self.bytes, self.position)?;
        self.position = place.end + 2;
        Some(place)
    }

    /// What is at a place that this reply told.
    #[inline]
    pub(crate) fn at(&self, place: &Place) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }

    /// The same, to be kept: it keeps all that was received with it.
    pub(crate) fn kept(&self, place: &Place) -> Bytes {
        self.bytes.slice_ref(self.at(place))
    }

    /// The next value with all that belongs to it, for those who need no speed.
    pub(crate) fn value(&mut self) -> Result<redis::Value, Malformed> {
        self.value_within(DEPTH_MAX)
    }

    fn value_within(&mut self, depth: u32) -> Result<redis::Value, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("lists are nested too deeply"))?;
        Ok(match self.next()? {
            Item::Null => redis::Value::Nil,
            Item::Integer(number) => redis::Value::Int(number),
            Item::String(bytes) => redis::Value::BulkString(bytes.to_vec()),
            Item::List(length) => {
                // Collecting results would not know how many there are.
                let mut values = Vec::with_capacity(length.min(LIST_RESERVED_MAX));
                for _ in 0..length {
                    values.push(self.value_within(depth)?);
                }
                redis::Value::Array(values)
            }
            Item::Map(length) => {
                let pairs = (0..length).map(|_| Ok((self.value_within(depth)?, self.value_within(depth)?)));
                redis::Value::Map(pairs.collect::<Result<_, _>>()?)
            }
            Item::Error(line) => redis::parse_redis_value(&line).map_err(|_| Malformed("an error is no error"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use bytes::Bytes;
    use redis::Value;

    use super::{Item, Malformed, Reply, Scan, eight_digits, number, short_number, string};

    const REPLIES: [&str; 9] = [
        "+OK\r\n",
        "-ERR no\r\n",
        ":-42\r\n",
        "$5\r\na\r\nbc\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
        "%1\r\n+k\r\n~2\r\n#t\r\n_\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
    ];

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        let texts = [
            "0",
            "7",
            "-1",
            "007",
            "+5",
            "",
            "-",
            "--1",
            "1-",
            " 1",
            "1 ",
            "12a",
            "999999999999999999",
            "-999999999999999999",
            "1000000000000000000",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "12345678",
            "-9876543210987654",
            "1234567890123",
            "12345678901234567",
            "1234567/",
            "1234567:",
            "/2345678",
            ":2345678",
            "12345678901234/",
            "1234\u{b0}78",
            "-12345678-",
        ];
        for text in texts {
            assert_eq!(number(text.as_bytes()), text.parse().ok(), "{text:?}");
            let line = format!(":{text}\r\n");
            if let Some((number, after)) = short_number(line.as_bytes(), 1) {
                assert_eq!((Some(number), after), (text.parse().ok(), line.len()), "{text:?}");
            }
            for end in 0..line.len() {
                assert_eq!(short_number(&line.as_bytes()[..end], 1), None, "{text:?} {end}");
            }
        }
    }

    #[test]
    fn eight_digits_are_a_number_and_no_other_byte_is_among_them() {
        for place in 0..8 {
            for byte in 0..=u8::MAX {
                let mut text = *b"90817263";
                text[place] = byte;
                let expected =
                    std::str::from_utf8(&text).ok().filter(|_| byte.is_ascii_digit()).map(|text| text.parse().unwrap());
                assert_eq!(eight_digits(text), expected, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn a_reply_ends_where_it_ends_however_it_arrives() {
        for reply in REPLIES {
            let (mut whole, mut part) = (Scan::default(), Scan::default());
            let followed = format!("{reply}:7\r\n");
            assert_eq!(whole.end(followed.as_bytes(), 1).unwrap(), Some(reply.len()), "{reply:?}");
            for arrived in 0..reply.len() {
                assert_eq!(part.end(&reply.as_bytes()[..arrived], 1).unwrap(), None, "{reply:?} {arrived}");
            }
            assert_eq!(part.end(followed.as_bytes(), 1).unwrap(), Some(reply.len()));
        }
        let all = REPLIES.concat();
        assert_eq!(Scan::default().end(all.as_bytes(), REPLIES.len() as u32).unwrap(), Some(all.len()));
    }

    #[test]
    fn a_string_is_found_only_where_it_is_whole_and_of_the_usual_form() {
        let buffer = b":1\r\n$5\r\na\r\nbc\r\n";
        assert_eq!(string(buffer, 4), Some(8..13));
        assert_eq!(string(b"$0\r\n\r\n", 0), Some(4..4));
        assert_eq!(string(b"$02\r\nab\r\n", 0), Some(5..7));
        let long = [b"$123\r\n", &[b'x'; 123][..], b"\r\n"].concat();
        assert_eq!(string(&long, 0), Some(6..129));
        for end in 4..buffer.len() {
            assert_eq!(string(&buffer[..end], 4), None, "{end}");
        }
        for other in ["", "$", "$\r\n\r\n", "$-1\r\n", "$+1\r\na\r\n", "$1\ra\r\n", "$0001\r\na\r\n", "+OK\r\n", "$1"] {
            assert_eq!(string(other.as_bytes(), 0), None, "{other:?}");
        }
        let mut reply = Reply::new(Bytes::from_static(b"$1\r\na\r\n:7\r\n"));
        let place = reply.next_string().unwrap();
        assert_eq!(reply.next_string(), None);
        assert_eq!(reply.at(&place), b"a");
        assert_eq!((reply.kept(&place), reply.next().unwrap()), (Bytes::from_static(b"a"), Item::Integer(7)));
    }

    #[test]
    fn values_are_as_the_client_library_reads_them() {
        for reply in REPLIES.into_iter().take(7).skip(1) {
            let value = Reply::new(Bytes::from_static(reply.as_bytes())).value().unwrap();
            assert_eq!(value, redis::parse_redis_value(reply.as_bytes()).unwrap(), "{reply:?}");
        }
        let mut reply = Reply::new(Bytes::from_static(b"%1\r\n+k\r\n:1\r\n"));
        assert_eq!(reply.value().unwrap(), Value::Map(vec![(Value::BulkString(b"k".to_vec()), Value::Int(1))]));
        assert!(matches!(reply.next(), Err(Malformed(_))), "there is nothing more");
        assert_eq!(Reply::new(Bytes::from_static(b"+OK\r\n")).next().unwrap(), Item::String(Bytes::from_static(b"OK")));
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        let deep = format!("{}:1\r\n", "*1\r\n".repeat(64));
        for bad in ["HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "*99999999999\r\n", ":1\rx", "$68000000\r\n", ""] {
            let mut reply = Reply::new(Bytes::copy_from_slice(bad.as_bytes()));
            let scanned = Scan::default().end(bad.as_bytes(), 1);
            assert!(reply.value().is_err(), "{bad:?}");
            assert!(bad.is_empty() || scanned.is_err(), "{bad:?}: {scanned:?}");
        }
        assert!(Reply::new(Bytes::from(deep)).value().is_err());
        let endless = vec![b'+'; 100 << 10];
        assert!(Scan::default().end(&endless, 1).is_err());
    }
}
