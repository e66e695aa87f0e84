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
            if let Some(text) = string(buffer, self.position) {
                (self.position, self.missing) = (text.end + 2, self.missing - 1);
                if self.position > REPLY_BYTES_MAX {
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
/// twentieth.
fn string(buffer: &[u8], position: usize) -> Option<Range<usize>> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| usize::from(byte - b'0'));
    let (length, digits) = match *buffer.get(position..)? {
        [b'$', a, b'\r', b'\n', ..] => (digit(a)?, 1),
        [b'$', a, b, b'\r', b'\n', ..] => (10 * digit(a)? + digit(b)?, 2),
        [b'$', a, b, c, b'\r', b'\n', ..] => (100 * digit(a)? + 10 * digit(b)? + digit(c)?, 3),
        _ => return None,
    };
    let start = position + digits + 3;
    let end = start + length;
    (end + 2 <= buffer.len()).then_some(start..end)
}

/// The number at `position` and where the next line begins, when its line is whole and of the usual form.
fn short_number(buffer: &[u8], position: usize) -> Option<(i64, usize)> {
    let is_negative = *buffer.get(position)? == b'-';
    let (first, mut number) = (position + usize::from(is_negative), 0);
    for (digits, &byte) in buffer.get(first..)?.iter().take(DIGITS_MAX + 1).enumerate() {
        match byte {
            b'0'..=b'9' if digits < DIGITS_MAX => number = number * 10 + i64::from(byte - b'0'),
            b'\r' if digits > 0 && buffer.get(first + digits + 1) == Some(&b'\n') => {
                return Some((if is_negative { -number } else { number }, first + digits + 2));
            }
            _ => return None,
        }
    }
    None
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

/// Every string and list begins with one: so many that the way over `str` was a fifteenth of a read.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        // None, one with a plus, or one that may be too large.
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some(if digits.len() == text.len() { number } else { -number })
}

/// The values of one request, in place.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    bytes: Bytes,
    position: usize,
}

/// One value; the elements of a list follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    String(Bytes),
    Integer(i64),
    Null,
    /// A list, a set or a push of so many values.
    List(usize),
    /// A map of so many pairs.
    Map(usize),
    /// The whole line, with the `-` in front.
    Error(Bytes),
}

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
        if let Some(b':') = self.bytes.get(self.position)
            && let Some((number, after)) = short_number(&self.bytes, self.position + 1)
        {
            self.position = after;
            return Ok(Item::Integer(number));
        }
        if let Some(place) = self.next_string() {
            return Ok(Item::String(self.kept(&place)));
        }
        let Some(Line { kind, text, after }) = line(&self.bytes, self.position)? else {
            return Err(Malformed("a value is missing"));
        };
        let begin = self.position + 1;
        let (item, next) = match kind {
            b'+' | b',' | b'(' => (Item::String(self.bytes.slice(begin..begin + text.len())), after),
            b'#' => (Item::Integer(i64::from(text == b"t")), after),
            b':' => (Item::Integer(number(text).ok_or(Malformed("a number is no number"))?), after),
            b'_' => (Item::Null, after),
            b'-' => (Item::Error(self.bytes.slice(self.position..after)), after),
            b'$' | b'=' | b'!' => match length(text)? {
                None => (Item::Null, after),
                Some(length) if after + length + 2 > self.bytes.len() => return Err(Malformed("a string is cut off")),
                Some(length) => (Item::String(self.bytes.slice(after..after + length)), after + length + 2),
            },
            b'*' | b'~' | b'>' => (length(text)?.map_or(Item::Null, Item::List), after),
            b'%' => (length(text)?.map_or(Item::Null, Item::Map), after),
            b'|' => return Err(Malformed("an attribute was not asked for")),
            _ => return Err(Malformed("a value has no known type")),
        };
        self.position = next;
        Ok(item)
    }

    /// Where the next value is, when it is a string of the usual form; otherwise nothing is taken.
    pub(crate) fn next_string(&mut self) -> Option<Range<usize>> {
        let place = string(&self.bytes, self.position)?;
        self.position = place.end + 2;
        Some(place)
    }

    /// What is at a place that [`Reply::next_string`] told.
    pub(crate) fn at(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }

    /// The same, to be kept: it keeps all that was received with it.
    pub(crate) fn kept(&self, place: &Range<usize>) -> Bytes {
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

    use super::{Item, Malformed, Reply, Scan, number, short_number, string};

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
