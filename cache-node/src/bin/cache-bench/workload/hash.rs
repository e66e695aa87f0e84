//! A session as one hash: HGETALL to read it, HSET of the field that changed with EXPIRE to write it.

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES},
    load::{Expected, Traffic},
    report::Report,
    request::{
        Filling,
        Part::{self, Slot, Text},
        Template,
    },
    throughput::{Prepared, Variant, compare},
};

/// Fields of a session.
pub(crate) const FIELDS: u8 = 10;
/// Bytes of each field's value.
pub(crate) const VALUE_BYTES: usize = 60;
/// Bytes of each field's name: `field:` and a digit.
const NAME_BYTES: usize = 7;
/// Of 100 operations so many are HGETALL.
const READS_PERCENT: u32 = 90;
/// Idle time of a session, as EXPIRE takes it.
const IDLE_SECONDS: &str = "1800";

const HGETALL: u8 = 0;
const HSET: u8 = 1;
const EXPIRE: u8 = 2;
const FILL: u8 = 3;

const VARIANTS: [Variant; 2] = [Variant::p1(Some(1.35), None), Variant::p16(Some(2.5), None)];

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.keys()[0];
    let content = Content::new("session", keys as usize, bench.options.seed);
    let about = format!(
        "{READS_PERCENT} % HGETALL of {FIELDS} fields of {VALUE_BYTES} bytes, {} % HSET of one and EXPIRE, {keys} keys",
        100 - READS_PERCENT
    );
    compare(bench, "hash", &about, &VARIANTS, &bench.peers, &|peer, _| {
        let prepared = Prepared {
            fill: Box::new(Hashes::fill(&content, FIELDS)),
            load: Box::new(Hashes::load(&content, FIELDS, bench.options.seed)),
        };
        Ok(peer.speaks_resp().then_some(prepared))
    })
}

/// HGETALL and HSET over all keys, or the first HSET of each key once.
pub(crate) struct Hashes<'a> {
    content: &'a Content,
    fields: u8,
    read: Template,
    write: Template,
    create: Template,
    rng: SmallRng,
    /// The next key to fill; `None` in a load.
    next: Option<u32>,
}

impl<'a> Hashes<'a> {
    /// Creates each key once with `fields` fields, at most 10.
    pub(crate) fn fill(content: &'a Content, fields: u8) -> Hashes<'a> {
        Hashes { next: Some(0), ..Hashes::load(content, fields, 0) }
    }

    pub(crate) fn load(content: &'a Content, fields: u8, seed: u64) -> Hashes<'a> {
        assert!(fields <= 10, "a field's name ends in one digit");
        let expire = Template::command(&[Text("EXPIRE"), Slot(KEY_BYTES), Text(IDLE_SECONDS)]);
        let names: Vec<String> = (0..fields).map(|field| format!("field:{field}")).collect();
        let pairs = names.iter().flat_map(|name| [Text(name), Slot(VALUE_BYTES)]);
        let create: Vec<Part<'_>> = [Text("HSET"), Slot(KEY_BYTES)].into_iter().chain(pairs).collect();
        Hashes {
            content,
            fields,
            read: Template::command(&[Text("HGETALL"), Slot(KEY_BYTES)]),
            write: Template::command(&[Text("HSET"), Slot(KEY_BYTES), Slot(NAME_BYTES), Slot(VALUE_BYTES)]).then(&expire),
            create: Template::command(&create).then(&expire),
            rng: SmallRng::seed_from_u64(seed),
            next: None,
        }
    }

    /// Bytes of keys, names and values that [`fill`](Self::fill) stores for each key.
    pub(crate) fn payload_bytes(fields: u8) -> usize {
        KEY_BYTES + usize::from(fields) * (NAME_BYTES + VALUE_BYTES)
    }

    /// One HGETALL of a key.
    pub(crate) fn read(&self, key: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        self.read.append(out).put(0, self.content.key(key));
        expected(Expected { kind: HGETALL, key, is_last: true });
    }

    /// One HSET of a field with the EXPIRE that goes with it.
    pub(crate) fn write(&mut self, key: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        let field = self.rng.random_range(0..self.fields);
        let mut request = self.write.append(out);
        request.put(0, self.content.key(key));
        put_name(&mut request, field);
        self.content.write_value(key, field, request.slot(2));
        request.put(3, self.content.key(key));
        expected(Expected { kind: HSET, key, is_last: false });
        expected(Expected { kind: EXPIRE, key, is_last: true });
    }

    fn create(&self, key: u32, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) {
        let mut request = self.create.append(out);
        request.put(0, self.content.key(key));
        for field in 0..self.fields {
            self.content.write_value(key, field, request.slot(usize::from(field) + 1));
        }
        request.put(usize::from(self.fields) + 1, self.content.key(key));
        expected(Expected { kind: FILL, key, is_last: false });
        expected(Expected { kind: EXPIRE, key, is_last: true });
    }

    /// All fields, each once, with the key's values; in any order.
    fn is_right_hash(&self, key: u32, reply: &[u8]) -> bool {
        const PAIR_BYTES: usize = "$7\r\nfield:0\r\n$60\r\n\r\n".len() + VALUE_BYTES;
        let Some(line) = reply.iter().position(|&byte| byte == b'\n') else { return false };
        let (header, pairs) = reply.split_at(line + 1);
        let is_header = header
            .strip_prefix(b"*")
            .and_then(|rest| rest.strip_suffix(b"\r\n"))
            .is_some_and(|count| std::str::from_utf8(count).is_ok_and(|count| count.parse() == Ok(2 * usize::from(self.fields))));
        if !is_header || pairs.len() != usize::from(self.fields) * PAIR_BYTES {
            return false;
        }
        let mut seen = 0_u32;
        for pair in pairs.chunks_exact(PAIR_BYTES) {
            let Some((digit, value)) = pair.strip_prefix(b"$7\r\nfield:").and_then(<[u8]>::split_first) else { return false };
            let field = digit.wrapping_sub(b'0');
            let value = value.strip_prefix(b"\r\n$60\r\n").and_then(|rest| rest.strip_suffix(b"\r\n"));
            if field >= self.fields || !value.is_some_and(|value| self.content.is_value(key, field, value)) {
                return false;
            }
            seen |= 1 << field;
        }
        seen == (1 << self.fields) - 1
    }
}

impl Traffic for Hashes<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        match &mut self.next {
            Some(next) if *next == count => return false,
            Some(next) => {
                *next += 1;
                let key = *next - 1;
                self.create(key, out, expected);
            }
            None => {
                let key = self.rng.random_range(0..count);
                if self.rng.random_range(0..100) < READS_PERCENT {
                    self.read(key, out, expected);
                } else {
                    self.write(key, out, expected);
                }
            }
        }
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        match expected.kind {
            HGETALL => self.is_right_hash(expected.key, reply),
            HSET => reply == b":0\r\n",
            EXPIRE => reply == b":1\r\n",
            _ => reply == format!(":{}\r\n", self.fields).as_bytes(),
        }
    }
}

fn put_name(request: &mut Filling<'_>, field: u8) {
    let mut name = *b"field:0";
    name[NAME_BYTES - 1] += field;
    request.put(1, &name);
}

#[cfg(test)]
mod tests {
    use super::{Content, Expected, HGETALL, Hashes, Traffic as _, VALUE_BYTES};

    fn reply(content: &Content, key: u32, order: &[u8]) -> Vec<u8> {
        let mut reply = format!("*{}\r\n", 2 * order.len()).into_bytes();
        for &field in order {
            let mut value = [0; VALUE_BYTES];
            content.write_value(key, field, &mut value);
            reply.extend_from_slice(format!("$7\r\nfield:{field}\r\n$60\r\n").as_bytes());
            reply.extend_from_slice(&value);
            reply.extend_from_slice(b"\r\n");
        }
        reply
    }

    #[test]
    fn a_hash_is_right_in_any_order_and_only_whole() {
        let content = Content::new("session", 10, 1);
        let mut hashes = Hashes::load(&content, 4, 1);
        let expected = Expected { kind: HGETALL, key: 3, is_last: true };
        assert!(hashes.check(expected, &reply(&content, 3, &[0, 1, 2, 3])));
        assert!(hashes.check(expected, &reply(&content, 3, &[3, 1, 0, 2])));
        assert!(!hashes.check(expected, &reply(&content, 3, &[0, 1, 2])), "a field is missing");
        assert!(!hashes.check(expected, &reply(&content, 3, &[0, 1, 2, 2])), "a field twice");
        assert!(!hashes.check(expected, &reply(&content, 4, &[0, 1, 2, 3])), "another key's values");
        assert!(!hashes.check(expected, b"*0\r\n"));
    }
}
