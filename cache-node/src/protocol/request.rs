//! Requests: RESP arrays of bulk strings, and inline commands as typed into telnet.
//!
//! Format: <https://redis.io/docs/latest/develop/reference/protocol-spec/>. The parser keeps where it stopped, so that a large
//! request that arrives in many pieces is walked once and not once per piece.

use thiserror::Error;

use crate::protocol::parse_integer;

/// Longest line that may stand before its end is seen: a length prefix or an inline command (Redis: `PROTO_INLINE_MAX_SIZE`).
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Arguments that a client may send before it has authenticated (Redis: 10), so that strangers cannot make the node hold much.
const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;

/// Bytes of one argument that a client may send before it has authenticated (Redis: 16 KiB).
const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// Spans reserved at once for a request: the rest grows as arguments really arrive, so that `*1048576` alone costs nothing.
const SPANS_RESERVED_MAX: usize = 64;

/// Arguments up to which a whole request is taken without the parser, so that what is not whole is not walked twice for long.
const PLAIN_ARGUMENTS_MAX: usize = 64;

/// Spans that are kept allocated between batches.
const SPANS_KEPT_MAX: usize = 4096;

/// Bounds on one request. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) bulk_bytes_max: usize,
    pub(crate) arguments_max: usize,
}

impl Limits {
    /// The bounds for a client that has not authenticated yet.
    pub(crate) fn unauthenticated(self) -> Limits {
        Limits {
            bulk_bytes_max: self.bulk_bytes_max.min(UNAUTHENTICATED_BULK_BYTES_MAX),
            arguments_max: self.arguments_max.min(UNAUTHENTICATED_ARGUMENTS_MAX),
        }
    }
}

/// What a client sent is not the protocol. The text is Redis's own; the connection is closed after it.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0).escape_default())]
    ExpectedBulk(u8),
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    #[error("Protocol error: too big inline request")]
    InlineLine,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn moved(self, by: u32) -> Span {
        Span { start: self.start + by, end: self.end + by }
    }
}

/// The arguments of one request, the command's name first. Borrowed from the read buffer: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    pub(crate) fn len(self) -> usize {
        self.spans.len()
    }

    /// The argument at `index`; callers have checked the arity, so an absent one is a programming error.
    #[inline]
    pub(crate) fn at(self, index: usize) -> &'a [u8] {
        self.get(index).expect("the arity check admits only requests with this argument")
    }

    #[inline]
    pub(crate) fn get(self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        Some(&self.bytes[span.start as usize..span.end as usize])
    }

    /// The arguments from `start` on.
    pub(crate) fn from(self, start: usize) -> Args<'a> {
        Args { bytes: self.bytes, spans: self.spans.get(start..).unwrap_or(&[]) }
    }

    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator {
        let bytes = self.bytes;
        self.spans.iter().map(move |span| &bytes[span.start as usize..span.end as usize])
    }

    /// Bytes from the first argument to the last.
    #[inline]
    pub(crate) fn spanned_bytes(self) -> usize {
        let (first, last) = (self.spans.first(), self.spans.last());
        first.zip(last).map_or(0, |(first, last)| (last.end - first.start) as usize)
    }

    /// Bytes that [`Args::to_owned`] allocates.
    pub(crate) fn owned_bytes(self) -> usize {
        self.bytes_of_all() + size_of_val(self.spans)
    }

    /// A copy that owns its bytes, and takes no more than they need.
    pub(crate) fn to_owned(self) -> OwnedRequest {
        let (bytes, spans) = (Vec::with_capacity(self.bytes_of_all()), Vec::with_capacity(self.len()));
        let mut request = OwnedRequest { bytes, spans };
        self.iter().for_each(|argument| request.push(argument));
        request
    }

    fn bytes_of_all(self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }
}

/// A request that owns its bytes: queued by MULTI, or built by a script.
#[derive(Debug, Default)]
pub(crate) struct OwnedRequest {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedRequest {
    pub(crate) fn args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, spans: &self.spans }
    }

    pub(crate) fn push(&mut self, argument: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(argument);
        self.spans.push(Span { start, end: self.bytes.len() as u32 });
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Bytes of all arguments.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that this request keeps allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}

/// Complete requests at the front of a buffer, found before the first of them runs: their keys are then known together.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    spans: Vec<Span>,
    ends: Vec<RequestEnd>,
    /// How the last few different ones began, of this batch or of one before it.
    beginnings: [Beginning; BEGINNINGS],
    /// The one of them that goes next.
    oldest: usize,
    /// The number of the last one.
    numbered: u32,
    /// What they passed.
    limits: Limits,
}

/// The bytes of a request up to where its second argument begins, if they are few: in a pipeline most requests begin as one before them
/// did, with a key of the same length, and need not be taken apart again.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    words: [u64; BEGINNING_WORDS],
    /// Which bits of `words` count.
    mask: [u64; BEGINNING_WORDS],
    /// At least two.
    arguments: usize,
    /// Which beginning this is: never [`UNKNOWN`], and another one's only after all other numbers.
    number: u32,
    /// What was noted of requests that begin so.
    note: Option<u32>,
    name: Span,
    argument: Span,
}

/// In place of a beginning's number: nobody knows how the request began.
const UNKNOWN: u32 = 0;

const BEGINNINGS: usize = 4;
const BEGINNING_WORDS: usize = 4;
const BEGINNING_BYTES: usize = BEGINNING_WORDS * size_of::<u64>();

impl Default for Beginning {
    /// How no request begins, which the number says.
    fn default() -> Beginning {
        let (words, mask) = ([0; BEGINNING_WORDS], [u64::MAX; BEGINNING_WORDS]);
        Beginning { words, mask, arguments: 2, number: UNKNOWN, note: None, name: Span::default(), argument: Span::default() }
    }
}

impl Beginning {
    /// Of the request at the front of `bytes`, which has these arguments.
    fn of(bytes: &[u8], name: Span, argument: Span, arguments: usize, number: u32) -> Option<Beginning> {
        let words = Beginning::words(bytes)?;
        let known = argument.start as usize;
        let mask: [u64; BEGINNING_WORDS] = std::array::from_fn(|word| match known.saturating_sub(word * size_of::<u64>()) {
            bytes @ 0..8 => (1 << (8 * bytes)) - 1,
            _ => u64::MAX,
        });
        // What follows is a key or a password: nothing of it stays.
        let words = std::array::from_fn(|word| words[word] & mask[word]);
        (known <= BEGINNING_BYTES).then_some(Beginning { words, mask, arguments, number, note: None, name, argument })
    }

    fn words(bytes: &[u8]) -> Option<[u64; BEGINNING_WORDS]> {
        let bytes = bytes.first_chunk::<BEGINNING_BYTES>()?;
        let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
        Some(std::array::from_fn(|word| u64::from_le_bytes(words[word])))
    }

    #[inline]
    fn is_of(&self, words: &[u64; BEGINNING_WORDS]) -> bool {
        // Most others differ in the first word, by how many arguments there are or how long the name is. What nothing was put into yet would be
        // of a request of nothing but zeros.
        self.number != UNKNOWN && (0..BEGINNING_WORDS).all(|word| (self.words[word] ^ words[word]) & self.mask[word] == 0)
    }
}

#[derive(Clone, Copy, Debug)]
struct RequestEnd {
    spans: usize,
    bytes: usize,
    beginning: u32,
    note: Option<u32>,
}

impl Requests {
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.ends.clear();
        if self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans = Vec::new();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The arguments of a request, whose bytes are those that it was found in.
    #[inline]
    pub(crate) fn args<'a>(&'a self, bytes: &'a [u8], index: usize) -> Args<'a> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].spans);
        Args { bytes, spans: &self.spans[start..self.ends[index].spans] }
    }

    /// As [`Requests::args`], of one request after the other from the one with number `first` on.
    #[inline]
    pub(crate) fn args_from<'a>(&'a self, bytes: &'a [u8], first: usize) -> impl Iterator<Item = Args<'a>> {
        let start = first.checked_sub(1).map_or(0, |before| self.ends[before].spans);
        let mut rest = &self.spans[start..];
        let mut taken = start;
        self.ends[first..].iter().map(move |end| {
            let (spans, behind) = rest.split_at(end.spans - taken);
            (rest, taken) = (behind, end.spans);
            Args { bytes, spans }
        })
    }

    /// What was noted of a request that began as this one: it has the same name, letter by letter, and as many arguments.
    #[inline]
    pub(crate) fn noted(&self, index: usize) -> Option<u32> {
        self.ends.get(index).and_then(|end| end.note)
    }

    /// Notes what holds of all requests that begin as this one, for those that are found from now on.
    pub(crate) fn note(&mut self, index: usize, note: u32) {
        let Some(number) = self.ends.get(index).map(|end| end.beginning).filter(|number| *number != UNKNOWN) else { return };
        if let Some(beginning) = self.beginnings.iter_mut().find(|known| known.number == number) {
            beginning.note = Some(note);
        }
    }

    /// Bytes up to the end of the first `count` requests.
    pub(crate) fn bytes_of(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.ends[last].bytes)
    }

    /// Adds the array that begins at `start` and gives the bytes that it took, if all of it is there and it is as nearly all are: few
    /// arguments, short lengths, nothing wrong. Otherwise it adds nothing, and the parser tells what it is. A fifth of the parser's
    /// instructions.
    pub(crate) fn push_plain(&mut self, bytes: &[u8], start: usize, limits: Limits) -> Option<usize> {
        let spans = self.spans.len();
        let Some((end, beginning, note)) = self.plain_spans(bytes, start, limits) else {
            self.spans.truncate(spans);
            return None;
        };
        self.ends.push(RequestEnd { spans: self.spans.len(), bytes: end, beginning, note });
        Some(end - start)
    }

    /// Where it ends, the number of how it began, and what was noted of that.
    #[inline]
    fn plain_spans(&mut self, bytes: &[u8], start: usize, limits: Limits) -> Option<(usize, u32, Option<u32>)> {
        if limits != self.limits {
            (self.beginnings, self.limits) = (Default::default(), limits);
        }
        let from = bytes.get(start..)?;
        let words = Beginning::words(from);
        let known = words.and_then(|words| self.beginnings.iter().find(|known| known.is_of(&words)));
        let Some(&Beginning { arguments, number, note, name, argument, .. }) = known else {
            let (count, position) = short_length(bytes, start, b'*')?;
            if count == 0 || count > PLAIN_ARGUMENTS_MAX.min(limits.arguments_max) {
                return None;
            }
            let first = self.spans.len();
            let end = self.spans_from(bytes, position, count, limits)?;
            return Some((end, self.remember(from, start, first), None));
        };
        self.spans.push(name.moved(start as u32));
        self.spans.push(argument.moved(start as u32));
        let position = start + argument.end as usize + 2;
        if arguments == 2 {
            return (position <= bytes.len()).then_some((position, number, note));
        }
        Some((self.spans_from(bytes, position, arguments - 2, limits)?, number, note))
    }

    /// The request at the front of `from`, whose spans are those from the one with number `first` on, `start` too far behind. Gives the
    /// number of how it began.
    #[cold]
    fn remember(&mut self, from: &[u8], start: usize, first: usize) -> u32 {
        let at_front = |span: &Span| Span { start: span.start - start as u32, end: span.end - start as u32 };
        let [name, argument, ..] = &self.spans[first..] else { return UNKNOWN };
        let number = self.numbered.wrapping_add(1).max(UNKNOWN + 1);
        let beginning = Beginning::of(from, at_front(name), at_front(argument), self.spans.len() - first, number);
        let Some(beginning) = beginning else { return UNKNOWN };
        self.beginnings[self.oldest] = beginning;
        self.oldest = (self.oldest + 1) % BEGINNINGS;
        self.numbered = number;
        number
    }

    /// The spans of `count` arguments, of which the first begins at `position`. Gives where the last one ends.
    fn spans_from(&mut self, bytes: &[u8], mut position: usize, count: usize, limits: Limits) -> Option<usize> {
        for _ in 0..count {
            let (length, body) = short_length(bytes, position, b'$')?;
            let end = body + length;
            position = end + 2;
            if length > limits.bulk_bytes_max || position > bytes.len() {
                return None;
            }
            self.spans.push(Span { start: body as u32, end: end as u32 });
        }
        Some(position)
    }

    /// Adds the array that `parser` has just found, which began at `start` and took `length` bytes.
    pub(crate) fn push(&mut self, parser: &RequestParser, start: usize, length: usize) {
        let shift = start as u32;
        self.spans.extend(parser.spans.iter().map(|span| span.moved(shift)));
        self.ends.push(RequestEnd { spans: self.spans.len(), bytes: start + length, beginning: UNKNOWN, note: None });
    }
}

/// Finds one request after another in a buffer. Between calls with an incomplete request the caller keeps the buffer's beginning
/// and appends; after a complete one it drops the bytes consumed.
#[derive(Debug, Default)]
pub(crate) struct RequestParser {
    spans: Vec<Span>,
    /// Arguments that the array still lacks; `None` between requests.
    missing: Option<usize>,
    position: usize,
    /// Length of the argument whose body is awaited.
    bulk: Option<usize>,
    /// Unquoted bytes of an inline command; empty for arrays.
    inline: Vec<u8>,
    is_inline: bool,
}

impl RequestParser {
    /// Looks for a request at the start of `bytes`. `Ok(None)`: more bytes are needed. `Ok(Some(n))`: a request took `n` bytes and
    /// [`RequestParser::args`] has it; it may be empty (a bare newline), which is answered by nothing.
    ///
    /// O(new bytes) for headers, O(1) for the body of an argument.
    pub(crate) fn parse(&mut self, bytes: &[u8], limits: Limits, authenticated: bool) -> Result<Option<usize>, ProtocolError> {
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => match self.begin(bytes, limits, authenticated)? {
                Begun::Array(missing) => missing,
                Begun::Complete(consumed) => return Ok(Some(consumed)),
                Begun::Incomplete => return Ok(None),
            },
        };
        while missing > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => {
                    let Some(line) = find_line(&bytes[self.position..], ProtocolError::BulkLine)? else {
                        self.missing = Some(missing);
                        return Ok(None);
                    };
                    let length = bulk_length(line.content, limits, authenticated)?;
                    self.position += line.consumed;
                    length
                }
            };
            let end = self.position + length;
            if bytes.len() < end + 2 {
                self.missing = Some(missing);
                self.bulk = Some(length);
                return Ok(None);
            }
            self.spans.push(Span { start: self.position as u32, end: end as u32 });
            self.position = end + 2;
            self.bulk = None;
            missing -= 1;
        }
        let consumed = self.position;
        self.missing = None;
        Ok(Some(consumed))
    }

    /// Forgets a request that was begun.
    pub(crate) fn reset(&mut self) {
        self.missing = None;
        self.bulk = None;
    }

    /// Whether it is between two requests, and has nothing of the next one.
    pub(crate) fn is_between(&self) -> bool {
        self.missing.is_none()
    }

    /// Whether the last request was an inline command, whose unquoted bytes the parser itself holds.
    pub(crate) fn is_inline(&self) -> bool {
        self.is_inline
    }

    /// The request found by the last successful [`RequestParser::parse`] over the same `bytes`.
    pub(crate) fn args<'a>(&'a self, bytes: &'a [u8]) -> Args<'a> {
        Args { bytes: if self.is_inline { &self.inline } else { bytes }, spans: &self.spans }
    }

    /// Bytes up to which the awaited argument reaches, so that the caller can reserve once for a large one.
    pub(crate) fn bytes_wanted(&self) -> Option<usize> {
        self.bulk.map(|length| self.position + length + 2)
    }

    fn begin(&mut self, bytes: &[u8], limits: Limits, authenticated: bool) -> Result<Begun, ProtocolError> {
        self.spans.clear();
        if self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans = Vec::new();
        }
        self.position = 0;
        self.bulk = None;
        let Some(first) = bytes.first() else { return Ok(Begun::Incomplete) };
        self.is_inline = *first != b'*';
        if self.is_inline {
            return self.begin_inline(bytes);
        }
        let Some(line) = find_line(bytes, ProtocolError::MultibulkLine)? else { return Ok(Begun::Incomplete) };
        let count = parse_integer(&line.content[1..]).ok_or(ProtocolError::MultibulkLength)?;
        self.position = line.consumed;
        // Redis takes a count of zero or less as an empty request.
        let Ok(count) = usize::try_from(count) else { return Ok(Begun::Complete(line.consumed)) };
        if count > limits.arguments_max {
            let error =
                if authenticated { ProtocolError::MultibulkLength } else { ProtocolError::UnauthenticatedMultibulkLength };
            return Err(error);
        }
        self.spans.reserve(count.min(SPANS_RESERVED_MAX));
        Ok(Begun::Array(count))
    }

    fn begin_inline(&mut self, bytes: &[u8]) -> Result<Begun, ProtocolError> {
        let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
            return if bytes.len() >= LINE_BYTES_MAX { Err(ProtocolError::InlineLine) } else { Ok(Begun::Incomplete) };
        };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        self.inline.clear();
        split_quoted(line, &mut self.inline, &mut self.spans)?;
        Ok(Begun::Complete(end + 1))
    }
}

enum Begun {
    Array(usize),
    Complete(usize),
    Incomplete,
}

struct Line<'a> {
    content: &'a [u8],
    consumed: usize,
}

/// The argument behind the name of the request that `bytes` begin with, when all of it is there: of nearly all commands it is the key.
pub(crate) fn key_at_front(bytes: &[u8]) -> Option<&[u8]> {
    let (_, position) = short_length(bytes, 0, b'*')?;
    let (length, name) = short_length(bytes, position, b'$')?;
    let (length, key) = short_length(bytes, name + length + 2, b'$')?;
    bytes.get(key..key + length)
}

/// A line of a mark and a few digits: the number, and where the next line begins. `None` when it is anything else.
#[inline]
fn short_length(bytes: &[u8], start: usize, mark: u8) -> Option<(usize, usize)> {
    const DIGITS_MAX: usize = 8;
    let (first, rest) = bytes.get(start..)?.split_first()?;
    if *first != mark {
        return None;
    }
    // Nearly all: one digit, or two.
    if let [first, second, third, _, ..] = rest {
        let [tens, digit] = [first, second].map(|byte| byte.wrapping_sub(b'0'));
        if tens <= 9 && *second == b'\r' {
            return Some((tens.into(), start + 4));
        }
        if tens <= 9 && digit <= 9 && *third == b'\r' {
            return Some((usize::from(tens) * 10 + usize::from(digit), start + 5));
        }
    }
    let mut number = 0;
    for (digits, byte) in rest.iter().enumerate().take(DIGITS_MAX + 1) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let is_whole = *byte == b'\r' && digits > 0 && digits + 1 < rest.len();
            return is_whole.then_some((number, start + digits + 3));
        }
        number = number * 10 + usize::from(digit);
    }
    None
}

/// A length line up to CR LF. As in Redis, the byte after CR is not looked at.
fn find_line(bytes: &[u8], too_long: ProtocolError) -> Result<Option<Line<'_>>, ProtocolError> {
    // Length lines are a few bytes: a plain loop beats memchr's set-up.
    match bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\r') {
        Some(end) if end + 1 < bytes.len() => Ok(Some(Line { content: &bytes[..end], consumed: end + 2 })),
        Some(_) => Ok(None),
        None if bytes.len() >= LINE_BYTES_MAX => Err(too_long),
        None => Ok(None),
    }
}

fn bulk_length(line: &[u8], limits: Limits, authenticated: bool) -> Result<usize, ProtocolError> {
    match line.first() {
        Some(b'$') => {}
        other => return Err(ProtocolError::ExpectedBulk(other.copied().unwrap_or(b'\r'))),
    }
    let length = parse_integer(&line[1..]).and_then(|length| usize::try_from(length).ok()).ok_or(ProtocolError::BulkLength)?;
    if length > limits.bulk_bytes_max {
        let error = if authenticated { ProtocolError::BulkLength } else { ProtocolError::UnauthenticatedBulkLength };
        return Err(error);
    }
    Ok(length)
}

/// Splits as Redis's `sdssplitargs`: blanks separate, "…" knows \n \r \t \b \a \xHH, '…' knows \' only.
fn split_quoted(line: &[u8], out: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Ok(());
        }
        let start = out.len() as u32;
        rest = match rest[0] {
            b'"' => double_quoted(&rest[1..], out)?,
            b'\'' => single_quoted(&rest[1..], out)?,
            _ => bare(rest, out)?,
        };
        spans.push(Span { start, end: out.len() as u32 });
    }
}

/// A line of redis.conf as words, quoted as inline commands are. `None`: a quote is not closed.
pub(crate) fn split_quoted_line(line: &str) -> Option<Vec<String>> {
    let words = split_quoted_words(line.as_bytes())?;
    Some(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// As [`split_quoted_line`], byte for byte.
pub(crate) fn split_quoted_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut request = OwnedRequest::default();
    split_quoted(line, &mut request.bytes, &mut request.spans).ok()?;
    Some(request.args().iter().map(<[u8]>::to_vec).collect())
}

/// A word as [`split_quoted_line`] reads it back: in quotes only where it must be.
pub(crate) fn quoted_word(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = "\"".to_owned();
    for byte in word.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => quoted += &format!("\\x{other:02x}"),
        }
    }
    quoted + "\""
}

fn bare<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        match byte {
            b'"' => return double_quoted(tail, out),
            b'\'' => return single_quoted(tail, out),
            byte if byte.is_ascii_whitespace() || *byte == 0 => break,
            byte => out.push(*byte),
        }
        rest = tail;
    }
    Ok(rest)
}

fn double_quoted<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = text;
    loop {
        match rest {
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_value(*high) << 4 | hex_value(*low));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return closed(tail),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

fn single_quoted<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = text;
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                out.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return closed(tail),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

/// A closing quote must be followed by a blank or the end.
fn closed(tail: &[u8]) -> Result<&[u8], ProtocolError> {
    match tail.first() {
        Some(byte) if !byte.is_ascii_whitespace() && *byte != 0 => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(tail),
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::{Limits, ProtocolError, RequestParser, Requests, key_at_front};

    const LIMITS: Limits = Limits { bulk_bytes_max: 512 * 1024 * 1024, arguments_max: 1024 * 1024 };

    fn parse_all(mut bytes: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut parser = RequestParser::default();
        let mut requests = Vec::new();
        while let Some(consumed) = parser.parse(bytes, LIMITS, true)? {
            requests.push(parser.args(bytes).iter().map(<[u8]>::to_vec).collect());
            bytes = &bytes[consumed..];
        }
        Ok(requests)
    }

    #[test]
    fn a_pipeline_is_found_request_by_request() {
        let requests = parse_all(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*1\r\n$4\r\nPING\r\n").unwrap();
        assert_eq!(requests, [vec![b"GET".to_vec(), b"a".to_vec()], vec![b"PING".to_vec()], vec![b"PING".to_vec()]]);
    }

    #[test]
    fn of_a_password_nothing_stays_with_how_a_request_began() {
        const BEFORE_IT: &[u8] = b"*2\r\n$4\r\nAUTH\r\n$21\r\n";
        let bytes = [BEFORE_IT, b"correct-horse-battery\r\n"].concat();
        let mut requests = Requests::default();
        assert_eq!(requests.push_plain(&bytes, 0, LIMITS), Some(bytes.len()));
        requests.clear();
        let kept: Vec<Vec<u8>> =
            requests.beginnings.iter().map(|known| known.words.iter().flat_map(|word| word.to_le_bytes()).collect()).collect();
        assert!(kept.iter().any(|kept| kept.starts_with(BEFORE_IT)), "{kept:?}");
        assert!(kept.iter().all(|kept| kept.iter().skip(BEFORE_IT.len()).all(|byte| *byte == 0)), "{kept:?}");
    }

    #[test]
    fn every_split_point_gives_the_same_request() {
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10\r\n0123\r\n6789\r\n";
        for split in 0..whole.len() {
            let mut parser = RequestParser::default();
            assert_eq!(parser.parse(&whole[..split], LIMITS, true).unwrap(), None, "split at {split}");
            assert_eq!(parser.parse(whole, LIMITS, true).unwrap(), Some(whole.len()));
            assert_eq!(parser.args(whole).at(2), b"0123\r\n6789");
        }
    }

    /// What is taken without the parser is what the parser finds, whatever byte of it was changed and wherever it ends; also where it is known
    /// how the request before it began.
    #[test]
    fn a_plain_request_is_the_one_that_the_parser_finds() {
        let limits = Limits { bulk_bytes_max: 1000, arguments_max: 100 };
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10\r\n0123\r\n6789\r\n*0\r\n*065\r\n$0\r\n\r\n*1\r\n$1001\r\n";
        let unchanged = Requests::default().push_plain(whole, 0, limits).expect("it is plain");
        let (mut plain, mut left) = (0, 0);
        for changed in 0..whole.len() {
            for byte in [b'0', b'9', b'\r', b'\n', b'$', b'*', b'-', b'+', b':', 0, 255] {
                let mut bytes = whole.to_vec();
                bytes[changed] = byte;
                for end in 0..=bytes.len() {
                    let (bytes, mut requests, mut parser) = (&bytes[..end], Requests::default(), RequestParser::default());
                    let found = requests.push_plain(bytes, 0, limits);
                    let (both, mut second) = ([&whole[..unchanged], bytes].concat(), Requests::default());
                    assert_eq!(second.push_plain(&both, 0, limits), Some(unchanged));
                    assert_eq!(second.push_plain(&both, unchanged, limits), found, "{:?}", bytes.escape_ascii());
                    let Some(length) = found else {
                        assert_eq!(second.len(), 1);
                        assert!(requests.spans.is_empty() && requests.len() == 0);
                        left += 1;
                        continue;
                    };
                    plain += 1;
                    assert_eq!(parser.parse(bytes, limits, true), Ok(Some(length)), "{:?}", bytes.escape_ascii());
                    assert!(requests.args(bytes, 0).iter().eq(parser.args(bytes).iter()), "{:?}", bytes.escape_ascii());
                    assert_eq!(requests.bytes_of(1), length);
                    assert!(second.args(&both, 1).iter().eq(parser.args(bytes).iter()), "{:?}", bytes.escape_ascii());
                    assert_eq!(second.bytes_of(2), unchanged + length);
                }
            }
        }
        assert!(plain > 10_000 && left > 10_000, "{plain} {left}");
    }

    #[test]
    fn a_note_is_of_requests_that_begin_in_the_same_way() {
        let requests_of = |kinds: &[&str]| kinds.concat().into_bytes();
        let (get, longer, set) =
            ("*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "*2\r\n$3\r\nGET\r\n$2\r\nab\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n");
        let bytes = requests_of(&[get, get, longer, set, "*2\r\n$3\r\nget\r\n$1\r\na\r\n", get, "*1\r\n$4\r\nPING\r\n"]);
        let mut requests = Requests::default();
        for round in 0..3 {
            requests.clear();
            let mut start = 0;
            while start < bytes.len() {
                start += requests.push_plain(&bytes, start, LIMITS).expect("it is plain");
            }
            let noted: Vec<_> = (0..requests.len()).map(|index| requests.noted(index)).collect();
            let known = if round == 0 { [None; 7] } else { [Some(5), Some(5), None, Some(6), None, Some(5), None] };
            assert_eq!(noted, known);
            requests.note(1, 5);
            requests.note(3, 6);
            requests.note(6, 7);
        }
    }

    #[test]
    fn nothing_is_noted_of_what_begins_as_nothing_was_remembered() {
        let mut requests = Requests::default();
        let short = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
        assert_eq!(requests.push_plain(short, 0, LIMITS), Some(short.len()));
        requests.note(0, 5);
        assert_eq!(requests.push_plain(&[0; 64], 0, LIMITS), None, "that is not how an array begins");
        assert_eq!(requests.push_plain(short, 0, LIMITS), Some(short.len()));
        assert_eq!(requests.noted(1), None);
    }

    #[test]
    fn what_began_as_another_request_is_held_to_its_own_limits() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$10\r\n0123456789\r\n".repeat(3);
        let (wide, narrow) = (Limits { bulk_bytes_max: 10, arguments_max: 2 }, Limits { bulk_bytes_max: 9, arguments_max: 2 });
        let mut requests = Requests::default();
        let length = requests.push_plain(&bytes, 0, wide).expect("it is plain");
        assert_eq!(requests.push_plain(&bytes, length, wide), Some(length));
        assert_eq!(requests.push_plain(&bytes, length, narrow), None);
        assert_eq!(requests.push_plain(&bytes, length, Limits { arguments_max: 1, ..wide }), None);
        assert_eq!(requests.push_plain(&bytes, length, wide), Some(length));
    }

    #[test]
    fn the_key_at_the_front_is_the_first_argument_or_none() {
        let whole = b"*3\r\n$3\r\nSET\r\n$12\r\nsession:0123\r\n$2\r\nok\r\n";
        for end in 0..=whole.len() {
            let expected = (end >= whole.len() - b"\r\n$2\r\nok\r\n".len()).then_some(b"session:0123".as_slice());
            assert_eq!(key_at_front(&whole[..end]), expected, "{end} bytes");
        }
        for other in ["*1\r\n$4\r\nPING\r\n", "GET a\r\n", "*2\r\n$99999999\r\nGET\r\n$1\r\na\r\n", "*2\r\n$-1\r\n$1\r\na\r\n"] {
            assert_eq!(key_at_front(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn inline_quotes_are_unquoted() {
        let requests = parse_all(b"SET \"a b\\x41\\n\" 'it\\'s'\r\n").unwrap();
        assert_eq!(requests, [vec![b"SET".to_vec(), b"a bA\n".to_vec(), b"it's".to_vec()]]);
        assert_eq!(parse_all(b"SET \"a\n"), Err(ProtocolError::UnbalancedQuotes));
        assert_eq!(parse_all(b"SET \"a\"b\n"), Err(ProtocolError::UnbalancedQuotes));
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        assert_eq!(parse_all(b"*1\r\n$-2\r\n"), Err(ProtocolError::BulkLength));
        assert_eq!(parse_all(b"*1\r\n$9223372036854775808\r\n"), Err(ProtocolError::BulkLength));
        assert_eq!(parse_all(b"*1\r\n$629145600\r\n"), Err(ProtocolError::BulkLength));
        assert_eq!(parse_all(b"*1048577\r\n"), Err(ProtocolError::MultibulkLength));
        assert_eq!(parse_all(b"*9223372036854775808\r\n"), Err(ProtocolError::MultibulkLength));
        assert_eq!(parse_all(b"*1\r\n*1\r\n"), Err(ProtocolError::ExpectedBulk(b'*')));
        assert_eq!(parse_all(&[b'a'; 64 * 1024]), Err(ProtocolError::InlineLine));
        assert_eq!(parse_all(&[b'*'; 64 * 1024]), Err(ProtocolError::MultibulkLine));
    }

    #[test]
    fn a_stranger_may_send_little() {
        let mut parser = RequestParser::default();
        assert_eq!(parser.parse(b"*11\r\n", LIMITS.unauthenticated(), false), Err(ProtocolError::UnauthenticatedMultibulkLength));
        let mut parser = RequestParser::default();
        assert_eq!(
            parser.parse(b"*1\r\n$16385\r\n", LIMITS.unauthenticated(), false),
            Err(ProtocolError::UnauthenticatedBulkLength)
        );
    }

    #[test]
    fn a_parser_that_was_reset_takes_nothing_for_the_rest_of_what_was_begun() {
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
        for begun in ["*2\r\n$3\r\nGET\r\n$5\r\nab", "*2\r\n$3\r\nGET\r\n", "*2\r\n", "*", "GET"] {
            let mut parser = RequestParser::default();
            assert_eq!(parser.parse(begun.as_bytes(), LIMITS, true), Ok(None));
            parser.reset();
            assert!(parser.is_between());
            assert_eq!(parser.parse(whole, LIMITS, true), Ok(Some(whole.len())));
            assert_eq!(parser.args(whole).iter().collect::<Vec<_>>(), [&b"SET"[..], b"k", b"value"]);
        }
    }

    #[test]
    fn a_copy_allocates_what_was_told_before() {
        let mut parser = RequestParser::default();
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n";
        parser.parse(bytes, LIMITS, true).unwrap();
        let args = parser.args(bytes);
        let copy = args.to_owned();
        assert!(copy.args().iter().eq(args.iter()));
        assert_eq!((copy.allocated_bytes(), copy.len()), (args.owned_bytes(), 14));
    }

    #[test]
    fn empty_requests_are_consumed() {
        assert_eq!(parse_all(b"\r\n*0\r\n*-1\r\nPING\r\n").unwrap().last().unwrap(), &[b"PING".to_vec()]);
    }
}
