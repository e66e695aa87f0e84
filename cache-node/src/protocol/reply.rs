//! Replies: a buffer that commands write into, in RESP2 or RESP3.
//!
//! A command writes its reply straight into the connection's buffer, and does not build a value first: a GET then costs one copy
//! of the value and no allocation.

use crate::protocol::DecimalBuffer;

/// The version of the protocol that a client speaks: 2 until it says `HELLO 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Where a length will be filled in once it is known; see [`Reply::open`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(usize);

/// Bytes of replies that one connection may have waiting. Redis sets no bound, so that `MGET` of one large value by the million takes
/// all memory.
pub(crate) const REPLY_BYTES_LIMIT: usize = 1024 * 1024 * 1024;

/// More than the header of a bulk string and the end of its line take.
const AROUND_BULK: usize = 32;

/// Room behind a reply that is made at once, at the most, so that the next ones find it.
const ROOM_BYTES: usize = 4 * 1024;

/// Bytes from which on a text is appended without its place being filled with zeros before.
const LONG_BYTES: usize = 4 * 1024;

/// Bytes of bulk strings for which [`Reply::bulks`] makes room at once.
const BLOCK_BYTES_MAX: usize = 16 * 1024;

/// Texts up to here are copied with what lies behind them: a copy of a size that is known before takes a few instructions, any other one
/// a call.
const SHORT_TEXT_BYTES: usize = 32;
const MIDDLE_TEXT_BYTES: usize = 64;

/// Header lines with numbers below so much stand in a table.
const SHORT_HEADERS: usize = 1024;

/// The header lines of bulk strings, by the strings' length.
static SHORT_BULK_HEADERS: [[u8; 8]; SHORT_HEADERS] = {
    let mut headers = [[0; 8]; SHORT_HEADERS];
    let mut length = 0;
    while length < headers.len() {
        headers[length] = short_header(length as u32);
        length += 1;
    }
    headers
};

/// A reply buffer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// What was written, and behind it bytes of before that are written over: so a reply is a few stores into a slice, where a vector that
    /// grows asks for its capacity at each of them.
    storage: Vec<u8>,
    len: usize,
    protocol: Protocol,
    /// Something did not fit below [`REPLY_BYTES_LIMIT`] and was left out.
    is_over: bool,
}

impl Reply {
    pub(crate) fn new(protocol: Protocol) -> Reply {
        Reply { protocol, ..Reply::default() }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.storage[..self.len]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Drops what was written after the buffer had `length` bytes: an error replaces a half-written reply.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.len = self.len.min(length);
        self.is_over = false;
    }

    /// Whether the reply is not whole, because it would have passed [`REPLY_BYTES_LIMIT`].
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Bytes that this keeps allocated.
    pub(crate) fn capacity(&self) -> usize {
        self.storage.capacity()
    }

    /// Changes what was written, and the memory that it lies in, for what the other has.
    pub(crate) fn exchange(&mut self, other: &mut Reply) {
        std::mem::swap(&mut self.storage, &mut other.storage);
        std::mem::swap(&mut self.len, &mut other.len);
    }

    /// Gives memory back after a large reply, and keeps up to `capacity_max` bytes for the next.
    pub(crate) fn shrink_to(&mut self, capacity_max: usize) {
        if self.storage.capacity() > capacity_max {
            self.storage.truncate(self.len.max(capacity_max));
            self.storage.shrink_to(capacity_max);
        }
    }

    /// Whether so many bytes more stay below [`REPLY_BYTES_LIMIT`]; otherwise they are left out.
    #[inline]
    fn may_take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= REPLY_BYTES_LIMIT.saturating_sub(self.len);
        self.is_over |= !fits;
        fits
    }

    /// Room for at least so many bytes behind what was written.
    #[inline]
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.storage.len() - self.len < bytes {
            self.grow(bytes);
        }
        &mut self.storage[self.len..]
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        let wanted = self.len + bytes + self.storage.len().min(ROOM_BYTES);
        self.storage.reserve(wanted - self.storage.len());
        self.storage.resize(wanted, 0);
    }

    /// Appends bytes that are already in the protocol.
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if !self.may_take(bytes.len()) {
            return;
        }
        if bytes.len() >= LONG_BYTES {
            self.storage.truncate(self.len);
            self.storage.extend_from_slice(bytes);
        } else {
            self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        }
        self.len += bytes.len();
    }

    /// Puts bytes that are already in the protocol before what was written from `position` on.
    pub(crate) fn insert(&mut self, position: usize, bytes: &[u8]) {
        self.storage.truncate(self.len);
        self.storage.splice(position..position, bytes.iter().copied());
        self.len = self.storage.len();
    }

    pub(crate) fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    pub(crate) fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// An error line; `text` starts with Redis's prefix (`ERR`, `WRONGTYPE` …).
    pub(crate) fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    pub(crate) fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// An integer from a count.
    pub(crate) fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `:1` or `:0`: commands that answer a boolean as an integer in both versions.
    pub(crate) fn flag(&mut self, is_true: bool) {
        self.raw(if is_true { b":1\r\n" } else { b":0\r\n" });
    }

    #[inline]
    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        if !self.may_take(bytes.len() + AROUND_BULK) {
            return;
        }
        if bytes.len() >= LONG_BYTES {
            self.header(b'$', bytes.len() as i64);
            self.raw(bytes);
            return self.raw(b"\r\n");
        }
        let place = self.room(bytes.len() + AROUND_BULK);
        let header_bytes = put_header(place, b'$', bytes.len() as i64);
        let end = header_bytes + bytes.len();
        place[header_bytes..end].copy_from_slice(bytes);
        place[end..end + 2].copy_from_slice(b"\r\n");
        self.len += end + 2;
    }

    /// Appends bulk strings that lie in one block: about `count`, of `bytes` together. Each is given as the beginning of what is left of the block, and its length.
    ///
    /// Room is made once. A short one is copied with what lies behind it, and the next one written over that.
    #[inline]
    pub(crate) fn bulks<'a>(&mut self, count: usize, bytes: usize, texts: impl Iterator<Item = (&'a [u8], usize)>) {
        /// A length has one byte in the block already.
        const AROUND: usize = 8;
        let room = bytes + count * AROUND + AROUND_BULK + MIDDLE_TEXT_BYTES;
        if bytes > BLOCK_BYTES_MAX || room > REPLY_BYTES_LIMIT.saturating_sub(self.len) {
            texts.for_each(|(rest, length)| self.bulk(&rest[..length]));
            return;
        }
        let (mut texts, mut at) = (texts, 0);
        let place = self.room(room);
        let mut more = None;
        for (text, length) in texts.by_ref() {
            let Some(taken) = put_bulk(&mut place[at..], text, length) else {
                more = Some(&text[..length]);
                break;
            };
            at += taken;
        }
        self.len += at;
        // They are more than was said.
        if let Some(text) = more {
            self.bulk(text);
            texts.for_each(|(text, length)| self.bulk(&text[..length]));
        }
    }

    pub(crate) fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// A bulk string from an integer: INCR's neighbours answer so.
    pub(crate) fn bulk_integer(&mut self, number: i64) {
        let mut digits = DecimalBuffer::default();
        self.bulk(digits.format(number));
    }

    /// Text for people: a verbatim string in RESP3 (INFO, CLIENT LIST), a bulk string before.
    pub(crate) fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.raw(b"txt:");
                self.raw(text.as_bytes());
                self.raw(b"\r\n");
            }
        }
    }

    pub(crate) fn null(&mut self) {
        self.raw(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    pub(crate) fn null_array(&mut self) {
        self.raw(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// A double: `,1.5` in RESP3, a bulk string before.
    pub(crate) fn double(&mut self, number: f64) {
        let text = format_double(number);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', &text),
        }
    }

    pub(crate) fn array(&mut self, length: usize) {
        self.header(b'*', length as i64);
    }

    /// A map of `pairs` pairs; twice as many array elements in RESP2.
    pub(crate) fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs as i64 * 2),
            Protocol::Resp3 => self.header(b'%', pairs as i64),
        }
    }

    pub(crate) fn set(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', length as i64),
            Protocol::Resp3 => self.header(b'~', length as i64),
        }
    }

    /// Out-of-band data: a push in RESP3, an array before.
    pub(crate) fn push(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', length as i64),
            Protocol::Resp3 => self.header(b'>', length as i64),
        }
    }

    /// Begins an array whose length is known only after its elements were written; [`Reply::close_array`] ends it.
    pub(crate) fn open(&mut self) -> Mark {
        Mark(self.len)
    }

    /// Ends an array of `length` elements begun at `mark`. Moves the elements by the size of the header.
    pub(crate) fn close_array(&mut self, mark: Mark, length: usize) {
        let mut digits = DecimalBuffer::default();
        let digits = digits.format(length as i64);
        let mut header = [0_u8; 24];
        header[0] = b'*';
        header[1..=digits.len()].copy_from_slice(digits);
        header[digits.len() + 1..digits.len() + 3].copy_from_slice(b"\r\n");
        let header = &header[..digits.len() + 3];
        self.insert(mark.0, header);
    }

    fn line(&mut self, kind: u8, text: &str) {
        /// The kind, and the end of the line.
        const AROUND: usize = 3;
        if !self.may_take(text.len() + AROUND) {
            return;
        }
        let place = &mut self.room(text.len() + AROUND)[..text.len() + AROUND];
        place[0] = kind;
        // A line break inside would end the reply early and let a value forge the next one.
        for (place, byte) in place[1..].iter_mut().zip(text.bytes()) {
            *place = if byte == b'\r' || byte == b'\n' { b' ' } else { byte };
        }
        place[text.len() + 1..].copy_from_slice(b"\r\n");
        self.len += text.len() + AROUND;
    }

    #[inline]
    fn header(&mut self, kind: u8, number: i64) {
        if !self.may_take(AROUND_BULK) {
            return;
        }
        let place = self.room(AROUND_BULK);
        let header_bytes = put_header(place, kind, number);
        self.len += header_bytes;
    }
}

/// Writes a header line into at least [`AROUND_BULK`] bytes, and gives how many bytes it took.
#[inline]
fn put_header(place: &mut [u8], kind: u8, number: i64) -> usize {
    if let Ok(number) = usize::try_from(number)
        && let Some(header) = SHORT_BULK_HEADERS.get(number)
    {
        // A copy of eight bytes is one instruction, one of five is a call.
        place[..header.len()].copy_from_slice(header);
        place[0] = kind;
        return header_bytes(number);
    }
    put_long_header(place, kind, number)
}

/// Bytes of a header line with a number of up to four digits.
#[inline]
fn header_bytes(number: usize) -> usize {
    4 + usize::from(number >= 10) + usize::from(number >= 100) + usize::from(number >= 1_000)
}

#[cold]
fn put_long_header(place: &mut [u8], kind: u8, number: i64) -> usize {
    let mut digits = DecimalBuffer::default();
    let digits = digits.format(number);
    let end = 1 + digits.len();
    place[0] = kind;
    place[1..end].copy_from_slice(digits);
    place[end..end + 2].copy_from_slice(b"\r\n");
    end + 2
}

/// Writes a bulk string, the first `length` bytes of `text`, and gives how many bytes that took. `None`: there is too little room.
///
/// Its two ways with sizes that are known before are a dozen instructions each, without a call.
#[inline]
fn put_bulk(place: &mut [u8], text: &[u8], length: usize) -> Option<usize> {
    const SHORT_BYTES: usize = 8 + SHORT_TEXT_BYTES;
    const MIDDLE_BYTES: usize = 8 + MIDDLE_TEXT_BYTES;
    if length <= SHORT_TEXT_BYTES
        && let Some((place, text)) = place.first_chunk_mut::<SHORT_BYTES>().zip(text.first_chunk::<SHORT_TEXT_BYTES>())
    {
        let header_bytes = if length < 10 { 4 } else { 5 };
        place[..8].copy_from_slice(&SHORT_BULK_HEADERS[length]);
        place[header_bytes..header_bytes + text.len()].copy_from_slice(text);
        place[header_bytes + length..header_bytes + length + 2].copy_from_slice(b"\r\n");
        return Some(header_bytes + length + 2);
    }
    if (SHORT_TEXT_BYTES..=MIDDLE_TEXT_BYTES).contains(&length)
        && let Some((place, text)) = place.first_chunk_mut::<MIDDLE_BYTES>().zip(text.first_chunk::<MIDDLE_TEXT_BYTES>())
    {
        let header_bytes = 5;
        place[..8].copy_from_slice(&SHORT_BULK_HEADERS[length]);
        place[header_bytes..header_bytes + text.len()].copy_from_slice(text);
        place[header_bytes + length..header_bytes + length + 2].copy_from_slice(b"\r\n");
        return Some(header_bytes + length + 2);
    }
    put_other_bulk(place, text, length)
}

/// As [`put_bulk`], for what is long, or last in its block.
#[inline(never)]
fn put_other_bulk(place: &mut [u8], text: &[u8], length: usize) -> Option<usize> {
    let place = place.get_mut(..length + AROUND_BULK)?;
    let header_bytes = put_header(place, b'$', length as i64);
    let end = header_bytes + length;
    place[header_bytes..end].copy_from_slice(&text[..length]);
    place[end..end + 2].copy_from_slice(b"\r\n");
    Some(end + 2)
}

/// Of a number of up to four digits.
const fn short_header(number: u32) -> [u8; 8] {
    match number {
        0..10 => [b'$', digit(number, 1), b'\r', b'\n', 0, 0, 0, 0],
        10..100 => [b'$', digit(number, 10), digit(number, 1), b'\r', b'\n', 0, 0, 0],
        100..1_000 => [b'$', digit(number, 100), digit(number, 10), digit(number, 1), b'\r', b'\n', 0, 0],
        _ => [b'$', digit(number, 1_000), digit(number, 100), digit(number, 10), digit(number, 1), b'\r', b'\n', 0],
    }
}

/// The digit of a number that counts so many.
const fn digit(number: u32, unit: u32) -> u8 {
    b'0' + (number / unit % 10) as u8
}

/// A double as Redis 7.2 prints it: whole numbers up to 2^52 in full, else the shortest digits that read back the same, in the
/// layout of its `fpconv_dtoa`.
pub(crate) fn format_double(number: f64) -> String {
    const WHOLE_MAX: f64 = (1_u64 << 52) as f64;
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    if number.abs() <= WHOLE_MAX && number.fract() == 0.0 {
        return (number as i64).to_string();
    }
    // "-1.25e-7": a digit, a point and the other digits, an exponent.
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format has a decimal exponent");
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    // Places of the last digit before the point; negative: behind it.
    let places = exponent + 1 - digits;
    let is_plain = if places >= 0 { exponent < digits + 7 } else { places > -7 || exponent.abs() < 4 };
    if is_plain {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::{Protocol, Reply, format_double};

    #[test]
    fn integers_of_every_length() {
        for number in (0..19).flat_map(|power| [10_i64.pow(power) - 1, 10_i64.pow(power), -(10_i64.pow(power))]) {
            let mut reply = Reply::new(Protocol::Resp2);
            reply.integer(number);
            assert_eq!(reply.bytes(), format!(":{number}\r\n").as_bytes());
        }
    }

    #[test]
    fn bulk_strings_of_every_length() {
        let mut reply = Reply::new(Protocol::Resp2);
        for length in (0..300).chain([999, 1_000, 1_023, 1_024, 4_095, 4_096, 9_999, 10_000, 5, 100_000, 7]) {
            let text = "x".repeat(length);
            let before = reply.len();
            reply.bulk(text.as_bytes());
            assert_eq!(&reply.bytes()[before..], format!("${length}\r\n{text}\r\n").as_bytes());
        }
    }

    #[test]
    fn bulk_strings_of_one_block_are_those_of_each() {
        let block: Vec<u8> = (0..12_000_u32).map(|byte| byte as u8).collect();
        for lengths in [
            vec![],
            vec![0],
            (0..100).collect(),
            vec![8_000, 0, 1, 31, 32, 33],
            (0..40).rev().collect(),
            vec![3, 9_990, 7],
            vec![10_000, 5],
        ] {
            let places = || lengths.iter().scan(0, |end, length| Some((std::mem::replace(end, *end + length), *length)));
            let bytes = lengths.iter().map(|length| length + 1).sum();
            let mut each = Reply::new(Protocol::Resp2);
            each.ok();
            places().for_each(|(start, length)| each.bulk(&block[start..start + length]));
            // What lies behind may be short, and there may be more of them than was said.
            let end = places().map(|(start, length)| start + length).last().unwrap_or(0);
            for (count, bytes, end) in
                [(lengths.len(), bytes, end), (lengths.len(), bytes, block.len()), (0, bytes, end), (0, 0, end)]
            {
                let mut reply = Reply::new(Protocol::Resp2);
                reply.ok();
                reply.bulks(count, bytes, places().map(|(start, length)| (&block[start..end], length)));
                assert_eq!(reply.bytes(), each.bytes(), "{lengths:?}");
            }
        }
    }

    #[test]
    fn what_was_dropped_is_not_seen_again() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.raw(&[b'x'; 10_000]);
        reply.truncate(3);
        assert_eq!(reply.bytes(), b"xxx");
        reply.insert(1, b"ab");
        assert_eq!(reply.bytes(), b"xabxx");
        reply.bulk(&[b'y'; 5_000]);
        reply.truncate(5);
        reply.error("ERR no");
        assert_eq!(reply.bytes(), b"xabxx-ERR no\r\n");
        reply.clear();
        reply.null();
        assert_eq!((reply.bytes(), reply.len()), (&b"$-1\r\n"[..], 5));
        reply.shrink_to(2);
        reply.integer(12_345);
        assert_eq!(reply.bytes(), b"$-1\r\n:12345\r\n");
    }

    #[test]
    fn integers_at_the_edges() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.integer(i64::MIN);
        reply.integer(i64::MAX);
        reply.integer(0);
        assert_eq!(reply.bytes(), b":-9223372036854775808\r\n:9223372036854775807\r\n:0\r\n");
    }

    #[test]
    fn a_deferred_array_gets_its_length_in_front() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.ok();
        let mark = reply.open();
        for _ in 0..12 {
            reply.integer(7);
        }
        reply.close_array(mark, 12);
        assert!(reply.bytes().starts_with(b"+OK\r\n*12\r\n:7\r\n"));
    }

    #[test]
    fn a_line_break_in_an_error_cannot_forge_a_reply() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.error("ERR no\r\n+OK");
        assert_eq!(reply.bytes(), b"-ERR no  +OK\r\n");
    }

    #[test]
    fn doubles_read_as_redis_prints_them() {
        let samples = [
            (1.0, "1"),
            (1.1, "1.1"),
            (-0.0, "-0"),
            (1e21, "1e+21"),
            (1e20, "1e+20"),
            (4_503_599_627_370_496.0, "4503599627370496"),
            (12_345_678_901_234_567_000.0, "12345678901234567000"),
            (0.000_001_5, "1.5e-6"),
            (3.0e-5, "0.00003"),
            (-1.234_567_890_123e-5, "-1.234567890123e-5"),
            (1.7e308, "1.7e+308"),
            (f64::INFINITY, "inf"),
            (1.5e-7, "1.5e-7"),
        ];
        for (number, text) in samples {
            assert_eq!(format_double(number), text);
        }
    }
}
