//! Requests as bytes made once, with slots for what differs from one to the next.

use std::ops::Range;

/// A piece of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    /// So many bytes that each request fills in.
    Slot(usize),
}

/// The bytes of a request, copied for each one sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    slots: Vec<Range<usize>>,
}

/// A request in the output buffer whose slots are still to be filled.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    bytes: &'a mut [u8],
    slots: &'a [Range<usize>],
}

impl Template {
    /// A command in RESP: one part per argument.
    pub(crate) fn command(arguments: &[Part<'_>]) -> Template {
        let mut template = Template::default();
        template.push(Part::Text(&format!("*{}\r\n", arguments.len())));
        for &argument in arguments {
            let length = match argument {
                Part::Text(text) => text.len(),
                Part::Slot(length) => length,
            };
            template.push(Part::Text(&format!("${length}\r\n")));
            template.push(argument);
            template.push(Part::Text("\r\n"));
        }
        template
    }

    /// The parts as they are, for a line-based protocol.
    pub(crate) fn raw(parts: &[Part<'_>]) -> Template {
        let mut template = Template::default();
        for &part in parts {
            template.push(part);
        }
        template
    }

    /// This request with another right behind it, sent together. The other's slots come after this one's.
    pub(crate) fn then(mut self, next: &Template) -> Template {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&next.bytes);
        self.slots.extend(next.slots.iter().map(|slot| slot.start + start..slot.end + start));
        self
    }

    /// Copies the request to the end of `out`.
    pub(crate) fn append<'a>(&'a self, out: &'a mut Vec<u8>) -> Filling<'a> {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        Filling { bytes: &mut out[start..], slots: &self.slots }
    }

    fn push(&mut self, part: Part<'_>) {
        match part {
            Part::Text(text) => self.bytes.extend_from_slice(text.as_bytes()),
            Part::Slot(length) => {
                let start = self.bytes.len();
                self.bytes.resize(start + length, b'?');
                self.slots.push(start..start + length);
            }
        }
    }
}

/// Appends a command in RESP, where no two requests are alike.
pub(crate) fn append(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

impl Filling<'_> {
    /// The bytes of slot `index`, counted from 0 in the order in which the parts were given.
    pub(crate) fn slot(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[self.slots[index].clone()]
    }

    /// Fills slot `index` with bytes of exactly its length.
    pub(crate) fn put(&mut self, index: usize, bytes: &[u8]) {
        self.slot(index).copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Part::{Slot, Text},
        Template, append,
    };

    #[test]
    fn commands_are_framed_and_their_slots_filled() {
        let template =
            Template::command(&[Text("HSET"), Slot(2), Text("f"), Slot(3)]).then(&Template::command(&[Text("DEL"), Slot(1)]));
        let mut out = b"before".to_vec();
        let mut request = template.append(&mut out);
        request.put(0, b"k1");
        request.put(1, b"abc");
        request.put(2, b"x");
        let expected = "before*4\r\n$4\r\nHSET\r\n$2\r\nk1\r\n$1\r\nf\r\n$3\r\nabc\r\n*2\r\n$3\r\nDEL\r\n$1\r\nx\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        let mut out = b"before".to_vec();
        append(&mut out, &[b"HSET", b"k1", b"f", b"abc"]);
        append(&mut out, &[b"DEL", b"x"]);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn lines_are_left_as_they_are() {
        let template = Template::raw(&[Text("get "), Slot(1), Text("\r\n")]);
        let mut out = Vec::new();
        template.append(&mut out).put(0, b"k");
        assert_eq!(out, b"get k\r\n");
    }
}
