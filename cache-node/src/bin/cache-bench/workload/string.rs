//! A session as one string: GET, and SET with a time to live.

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES},
    floor::Unstored,
    load::{Expected, Pace, Traffic},
    peer::{FLOOR, Peer, Server},
    reply::Protocol,
    report::Report,
    request::{
        Part::{Slot, Text},
        Template,
    },
    throughput::{Prepared, Variant, compare},
};

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 600;
/// Of 100 operations so many are reads.
const READS_PERCENT: u32 = 90;

const GET: u8 = 0;
const SET: u8 = 1;

const VARIANTS: [Variant; 3] = [
    Variant { io_uring_goal: Some(1.5), ..Variant::p1(Some(1.35), Some(0.6)) },
    Variant::p16(Some(3.0), Some(0.4)),
    Variant { name: "P16 refilled", pace: Pace::Refill, ..Variant::p16(Some(1.7), None) },
];

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let mut peers = [&*bench.peers, &[Peer::cache_node_by_io_uring()]].concat();
    // It has one thread, and says nothing about servers with more.
    if bench.options.threads == 1 {
        peers.push(Peer::floor());
    }
    let mut reports = Vec::new();
    for keys in bench.options.keys() {
        let content = Content::new("session", keys as usize, bench.options.seed);
        let mut variants = VARIANTS;
        if keys >= 1_000_000 {
            variants[1].efficiency_goal = Some(3.5);
        }
        let about = format!("{READS_PERCENT} % GET, {} % SET EX 1800, {VALUE_BYTES} bytes, {keys} keys", 100 - READS_PERCENT);
        let name = if keys == 100_000 { "string".to_owned() } else { format!("string {}k", keys / 1_000) };
        let prepare = |peer: &Peer, server: &Server| {
            let fill = Strings::fill(&content, server.protocol);
            let load = Strings::load(&content, server.protocol, bench.options.seed);
            Ok(Some(if peer.name == FLOOR {
                Prepared { fill: Box::new(Unstored(fill)), load: Box::new(Unstored(load)) }
            } else {
                Prepared { fill: Box::new(fill), load: Box::new(load) }
            }))
        };
        reports.extend(compare(bench, &name, &about, &variants, &peers, &prepare)?);
    }
    Ok(reports)
}

/// Bytes of a GET and of a SET in RESP: each is as long as any other.
pub(crate) fn request_bytes() -> [usize; 2] {
    [get_template(), set_template()].map(|template| {
        let mut request = Vec::new();
        template.append(&mut request);
        request.len()
    })
}

fn get_template() -> Template {
    Template::command(&[Text("GET"), Slot(KEY_BYTES)])
}

fn set_template() -> Template {
    Template::command(&[Text("SET"), Slot(KEY_BYTES), Slot(VALUE_BYTES), Text("EX"), Text("1800")])
}

/// GET and SET over all keys, or SET of each key once.
pub(crate) struct Strings<'a> {
    content: &'a Content,
    get: Template,
    set: Template,
    /// The reply to GET before the value, and after it.
    frame: [Vec<u8>; 2],
    protocol: Protocol,
    rng: SmallRng,
    /// The next key to fill; `None` in a load.
    next: Option<u32>,
}

impl<'a> Strings<'a> {
    pub(crate) fn fill(content: &'a Content, protocol: Protocol) -> Strings<'a> {
        Strings { next: Some(0), ..Strings::load(content, protocol, 0) }
    }

    /// Whether it is the reply to GET that is expected.
    pub(crate) fn is_read(expected: Expected) -> bool {
        expected.kind == GET
    }

    pub(crate) fn load(content: &'a Content, protocol: Protocol, seed: u64) -> Strings<'a> {
        let bytes = VALUE_BYTES.to_string();
        let (get, set, frame) = match protocol {
            Protocol::Resp => (get_template(), set_template(), [format!("${bytes}\r\n"), "\r\n".to_owned()]),
            Protocol::Memcached => (
                Template::raw(&[Text("get "), Slot(KEY_BYTES), Text("\r\n")]),
                Template::raw(&[
                    Text("set "),
                    Slot(KEY_BYTES),
                    Text(" 0 1800 "),
                    Text(&bytes),
                    Text("\r\n"),
                    Slot(VALUE_BYTES),
                    Text("\r\n"),
                ]),
                [format!(" 0 {bytes}\r\n"), "\r\nEND\r\n".to_owned()],
            ),
        };
        let frame = frame.map(String::into_bytes);
        Strings { content, get, set, frame, protocol, rng: SmallRng::seed_from_u64(seed), next: None }
    }

    fn write_set(&self, key: u32, out: &mut Vec<u8>) {
        let mut request = self.set.append(out);
        request.put(0, self.content.key(key));
        self.content.write_value(key, 0, request.slot(1));
    }

    fn is_right_value(&self, key: u32, reply: &[u8]) -> bool {
        let reply = match self.protocol {
            Protocol::Resp => reply,
            Protocol::Memcached => {
                let rest = reply.strip_prefix(b"VALUE ").and_then(|rest| rest.strip_prefix(self.content.key(key)));
                rest.unwrap_or_default()
            }
        };
        let value = reply.strip_prefix(&*self.frame[0]).and_then(|rest| rest.strip_suffix(&*self.frame[1]));
        value.is_some_and(|value| value.len() == VALUE_BYTES && self.content.is_value(key, 0, value))
    }
}

impl Traffic for Strings<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        let (kind, key) = match &mut self.next {
            Some(next) if *next == count => return false,
            Some(next) => {
                *next += 1;
                (SET, *next - 1)
            }
            None if self.rng.random_range(0..100) < READS_PERCENT => (GET, self.rng.random_range(0..count)),
            None => (SET, self.rng.random_range(0..count)),
        };
        match kind {
            GET => self.get.append(out).put(0, self.content.key(key)),
            _ => self.write_set(key, out),
        }
        expected(Expected { kind, key, is_last: true });
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        match (expected.kind, self.protocol) {
            (GET, _) => self.is_right_value(expected.key, reply),
            (_, Protocol::Resp) => reply == b"+OK\r\n",
            (_, Protocol::Memcached) => reply == b"STORED\r\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Expected, GET, Protocol, Strings, Traffic as _, VALUE_BYTES};

    #[test]
    fn only_the_value_of_the_key_is_a_right_reply() {
        let content = Content::new("session", 10, 1);
        let mut value = vec![0; VALUE_BYTES];
        content.write_value(7, 0, &mut value);
        let value = String::from_utf8_lossy(&value);
        let key = String::from_utf8_lossy(content.key(7));
        let get = |key| Expected { kind: GET, key, is_last: true };
        let resp = format!("$600\r\n{value}\r\n");
        let memcached = format!("VALUE {key} 0 600\r\n{value}\r\nEND\r\n");
        for (protocol, reply, miss) in [(Protocol::Resp, resp, "$-1\r\n"), (Protocol::Memcached, memcached, "END\r\n")] {
            let mut strings = Strings::load(&content, protocol, 1);
            assert!(strings.check(get(7), reply.as_bytes()));
            assert!(!strings.check(get(6), reply.as_bytes()), "the value of another key");
            assert!(!strings.check(get(7), miss.as_bytes()), "every key was filled");
            assert!(!strings.check(get(7), &reply.as_bytes()[..reply.len() - 1]));
        }
    }
}
