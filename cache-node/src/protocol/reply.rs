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

/// A bulk string with its header up to which room for it is made at once.
const SHORT_BULK_BYTES: usize = 96;

/// The largest number in a [`Header`].
const HEADER_NUMBER_MAX: i64 = 9_999;

/// Texts up to here are copied with what lies behind them.
const SHORT_TEXT_BYTES: usize = 32;

/// A header line of up to four digits, and its length.
type Header = ([u8; 8], usize);

/// The header lines of bulk strings that fit into that, by the strings' length.
static SHORT_BULK_HEADERS: [Header; SHORT_BULK_BYTES - 7] = {
    let mut headers = [([0; 8], 0); SHORT_BULK_BYTES - 7];
    let mut length = 0;
    while length < headers.len() {
        if let Some(header) = short_header(b'$', length as i64) {
            headers[length] = header;
        }
        length += 1;
    }
    headers
};

/// A reply buffer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    protocol: Protocol,
    /// Something did not fit below [`REPLY_BYTES_LIMIT`] and was left out.
    is_over: bool,
}

impl Reply {
    pub(crate) fn new(protocol: Protocol) -> Reply {
        Reply { bytes: Vec::new(), protocol, is_over: false }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Drops what was written after the buffer had `length` bytes: an error replaces a half-written reply.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.is_over = false;
    }

    /// Whether the reply is not whole, because it would have passed [`REPLY_BYTES_LIMIT`].
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Gives memory back after a large reply, and keeps up to `capacity_max` bytes for the next.
    pub(crate) fn shrink_to(&mut self, capacity_max: usize) {
        if self.bytes.capacity() > capacity_max {
            self.bytes.shrink_to(capacity_max);
        }
    }

    /// Appends bytes that are already in the protocol.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if bytes.len() > REPLY_BYTES_LIMIT - self.bytes.len().min(REPLY_BYTES_LIMIT) {
            self.is_over = true;
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts bytes that are already in the protocol before what was written from `position` on.
    pub(crate) fn insert(&mut self, position: usize, bytes: &[u8]) {
        self.bytes.splice(position..position, bytes.iter().copied());
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

    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        /// More than a header and the end of the line take.
        const AROUND: usize = 32;
        if bytes.len() + AROUND > REPLY_BYTES_LIMIT.saturating_sub(self.bytes.len()) {
            self.is_over = true;
            return;
        }
        match SHORT_BULK_HEADERS.get(bytes.len()) {
            Some(header) => self.short_bulk(*header, bytes),
            None => {
                self.bytes.reserve(bytes.len() + AROUND);
                self.header(b'$', bytes.len() as i64);
                self.bytes.extend_from_slice(bytes);
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A hash is answered by dozens of short texts: room for each is made in one go of a size that is known before, which takes a few
    /// instructions, where making it three times takes three calls.
    #[inline]
    fn short_bulk(&mut self, (header, header_bytes): Header, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; SHORT_BULK_BYTES]);
        let place = &mut self.bytes[start..];
        place[..header.len()].copy_from_slice(&header);
        let end = header_bytes + bytes.len();
        place[header_bytes..end].copy_from_slice(bytes);
        place[end..end + 2].copy_from_slice(b"\r\n");
        self.bytes.truncate(start + end + 2);
    }

    /// Appends bulk strings that lie in one block: about `count`, of `bytes` together. Each is given as the beginning of what is left of the block, and its length.
    ///
    /// Room is made once. A short one is copied with what lies behind it, and the next one written over that: a copy of a size that is known before takes a
    /// few instructions, any other one a call.
    pub(crate) fn bulks<'a>(&mut self, count: usize, bytes: usize, texts: impl Iterator<Item = (&'a [u8], usize)>) {
        /// A length has one byte in the block already.
        const AROUND: usize = 8;
        let start = self.bytes.len();
        let room = bytes + count * AROUND + SHORT_TEXT_BYTES;
        if bytes > HEADER_NUMBER_MAX as usize || room > REPLY_BYTES_LIMIT.saturating_sub(start) {
            texts.for_each(|(rest, length)| self.bulk(&rest[..length]));
            return;
        }
        self.bytes.resize(start + room, 0);
        let mut at = start;
        for (rest, length) in texts {
            if let Some(taken) = put_bulk(&mut self.bytes[at..], rest, length) {
                at += taken;
                continue;
            }
            // They are more than was said.
            self.bytes.truncate(at);
            self.bulk(&rest[..length]);
            at = self.bytes.len();
        }
        self.bytes.truncate(at);
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
        Mark(self.bytes.len())
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
        self.bytes.splice(mark.0..mark.0, header.iter().copied());
    }

    fn line(&mut self, kind: u8, text: &str) {
        if text.len() > REPLY_BYTES_LIMIT - self.bytes.len().min(REPLY_BYTES_LIMIT) {
            self.is_over = true;
            return;
        }
        self.bytes.push(kind);
        // A line break inside would end the reply early and let a value forge the next one.
        self.bytes.extend(text.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        self.raw(b"\r\n");
    }

    fn header(&mut self, kind: u8, number: i64) {
        if let Some((header, length)) = short_header(kind, number)
            && self.bytes.len() < REPLY_BYTES_LIMIT - header.len()
        {
            // A copy of eight bytes is one instruction, one of five is a call.
            self.bytes.extend_from_slice(&header);
            self.bytes.truncate(self.bytes.len() - header.len() + length);
            return;
        }
        let mut digits = DecimalBuffer::default();
        self.raw(&[kind]);
        self.raw(digits.format(number));
        self.raw(b"\r\n");
    }
}

/// Writes a bulk string, the first `length` bytes of `text`, and gives how many bytes that took. `None`: there is too little room.
#[inline]
fn put_bulk(place: &mut [u8], text: &[u8], length: usize) -> Option<usize> {
    let (header, header_bytes) = match SHORT_BULK_HEADERS.get(length) {
        Some(header) => *header,
        None => short_header(b'$', length as i64)?,
    };
    *place.first_chunk_mut()? = header;
    let body = &mut place[header_bytes..];
    match (body.first_chunk_mut::<SHORT_TEXT_BYTES>(), text.first_chunk()) {
        (Some(body), Some(text)) if length <= SHORT_TEXT_BYTES => *body = *text,
        _ => body.get_mut(..length)?.copy_from_slice(text.get(..length)?),
    }
    *body.get_mut(length..)?.first_chunk_mut()? = *b"\r\n";
    Some(header_bytes + length + 2)
}

/// `None`: the number has more digits, or a sign.
const fn short_header(kind: u8, number: i64) -> Option<Header> {
    if number < 0 || number > HEADER_NUMBER_MAX {
        return None;
    }
    let number = number as u32;
    Some(match number {
        0..10 => ([kind, digit(number, 1), b'\r', b'\n', 0, 0, 0, 0], 4),
        10..100 => ([kind, digit(number, 10), digit(number, 1), b'\r', b'\n', 0, 0, 0], 5),
        100..1_000 => ([kind, digit(number, 100), digit(number, 10), digit(number, 1), b'\r', b'\n', 0, 0], 6),
        _ => ([kind, digit(number, 1_000), digit(number, 100), digit(number, 10), digit(number, 1), b'\r', b'\n', 0], 7),
    })
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
        for length in (0..300).chain([999, 1_000, 9_999, 10_000, 100_000]) {
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
