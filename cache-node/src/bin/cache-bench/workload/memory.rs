//! Bytes that a server needs for a session beyond the session itself.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES},
    load::{Expected, Traffic},
    peer::{Peer, Server},
    process,
    reply::Protocol,
    report::{Goal, Measure, Report},
    request::{
        Part::{Slot, Text},
        Template,
    },
    rounds::in_rounds,
    statistic::mebibytes,
    throughput::fill,
    workload::hash::Hashes,
};

/// Bytes of a value at first.
const VALUE_BYTES: usize = 300;
/// Bytes of the values that replace it, at random between these.
const OVERWRITE_BYTES: std::ops::RangeInclusive<usize> = 200..=400;
/// So many overwrites for each key.
const OVERWRITES_PER_KEY: u64 = 4;
/// Fields of a hash session.
const FIELDS: u8 = 4;
/// What a server frees on its own, such as buffers of closed connections, is free after this.
const SETTLE: Duration = Duration::from_secs(1);

const GET: u8 = 0;
const SET: u8 = 1;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.million();
    let about = format!(
        "overhead per session beside keys, names and values, {keys} with a TTL: {VALUE_BYTES} B strings, after {OVERWRITES_PER_KEY} \
         overwrites each with {}-{} B, hashes of {FIELDS} x 60 B",
        OVERWRITE_BYTES.start(),
        OVERWRITE_BYTES.end()
    );
    let measures = vec![
        Measure::new("string B", 1).goal(Some(Goal::AtMost(32.0))),
        Measure::new("overwritten B", 1).goal(Some(Goal::AtMost(45.0))),
        Measure::new("hash B", 1).goal(Some(Goal::AtMost(60.0))),
        Measure::new("RSS MiB", 0),
    ];
    let content = Content::new("session", keys as usize, bench.options.seed);
    let peers: Vec<&Peer> = bench.peers.iter().collect();
    in_rounds(bench, ("memory", about), measures, &peers, |peer| {
        let [string, overwritten, rss] = strings(bench, peer, &content)?;
        let hash = if peer.speaks_resp() { hashes(bench, peer, &content)? } else { f64::NAN };
        Ok([string, overwritten, hash, rss])
    })
}

/// Overhead at first, overhead after the overwrites, and MiB resident at first.
fn strings(bench: &Bench, peer: &Peer, content: &Content) -> Result<[f64; 3]> {
    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
    let before = settled(&server)?;
    let mut sets = Sets::new(content, server.protocol, bench.options.seed);
    fill(&server, &mut sets)?;
    let first = settled(&server)?;
    sets.step = Step::Overwrite { left: OVERWRITES_PER_KEY * content.count() as u64 };
    fill(&server, &mut sets)?;
    let second = settled(&server)?;
    sets.step = Step::Read { next: 0 };
    fill(&server, &mut sets).context("reading back what was written")?;
    let overhead = |rss: u64, payload: f64| (rss as f64 - before as f64) / content.count() as f64 - payload;
    let payload = KEY_BYTES as f64 + sets.lengths.iter().map(|&length| f64::from(length)).sum::<f64>() / content.count() as f64;
    Ok([overhead(first, (KEY_BYTES + VALUE_BYTES) as f64), overhead(second, payload), mebibytes(first)])
}

fn hashes(bench: &Bench, peer: &Peer, content: &Content) -> Result<f64> {
    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
    let before = settled(&server)?;
    fill(&server, &mut Hashes::fill(content, FIELDS))?;
    let after = settled(&server)?;
    Ok((after as f64 - before as f64) / content.count() as f64 - Hashes::payload_bytes(FIELDS) as f64)
}

fn settled(server: &Server) -> Result<u64> {
    thread::sleep(SETTLE);
    process::rss(server.pid())
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Fill { next: u32 },
    Overwrite { left: u64 },
    Read { next: u32 },
}

/// SET of values that differ in length, and GET that knows the length of each.
struct Sets<'a> {
    content: &'a Content,
    protocol: Protocol,
    /// A SET up to the value, whose length has three digits, and after it.
    head: Template,
    tail: &'static [u8],
    get: Template,
    /// The length that each key's value has now.
    lengths: Vec<u16>,
    rng: SmallRng,
    step: Step,
}

impl<'a> Sets<'a> {
    fn new(content: &'a Content, protocol: Protocol, seed: u64) -> Sets<'a> {
        let key = Slot(KEY_BYTES);
        let (head, tail, get) = match protocol {
            Protocol::Resp => (
                Template::raw(&[Text("*5\r\n$3\r\nSET\r\n$32\r\n"), key, Text("\r\n$"), Slot(3), Text("\r\n")]),
                &b"\r\n$2\r\nEX\r\n$4\r\n1800\r\n"[..],
                Template::command(&[Text("GET"), key]),
            ),
            Protocol::Memcached => (
                Template::raw(&[Text("set "), key, Text(" 0 1800 "), Slot(3), Text("\r\n")]),
                &b"\r\n"[..],
                Template::raw(&[Text("get "), key, Text("\r\n")]),
            ),
        };
        let lengths = vec![VALUE_BYTES as u16; content.count()];
        Sets { content, protocol, head, tail, get, lengths, rng: SmallRng::seed_from_u64(seed), step: Step::Fill { next: 0 } }
    }

    fn set(&self, key: u32, length: usize, out: &mut Vec<u8>) {
        let mut request = self.head.append(out);
        request.put(0, self.content.key(key));
        request.put(1, length.to_string().as_bytes());
        let start = out.len();
        out.resize(start + length, 0);
        self.content.write_value(key, 0, &mut out[start..]);
        out.extend_from_slice(self.tail);
    }
}

impl Traffic for Sets<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        let (kind, key) = match &mut self.step {
            Step::Fill { next } | Step::Read { next } if *next == count => return false,
            Step::Overwrite { left: 0 } => return false,
            Step::Fill { next } => {
                let key = *next;
                *next += 1;
                self.set(key, VALUE_BYTES, out);
                (SET, key)
            }
            Step::Overwrite { left } => {
                *left -= 1;
                let (key, length) = (self.rng.random_range(0..count), self.rng.random_range(OVERWRITE_BYTES));
                self.lengths[key as usize] = length as u16;
                self.set(key, length, out);
                (SET, key)
            }
            Step::Read { next } => {
                let key = *next;
                *next += 1;
                self.get.append(out).put(0, self.content.key(key));
                (GET, key)
            }
        };
        expected(Expected { kind, key, is_last: true });
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        if expected.kind == SET {
            return reply == if self.protocol == Protocol::Resp { &b"+OK\r\n"[..] } else { b"STORED\r\n" };
        }
        // Two overwrites of one key at once on two connections may end in either order: any length of the right value will do.
        let Some(end) = reply.iter().position(|&byte| byte == b'\n') else { return false };
        let suffix = if self.protocol == Protocol::Resp { &b"\r\n"[..] } else { b"\r\nEND\r\n" };
        reply[end + 1..].strip_suffix(suffix).is_some_and(|value| self.content.is_value(expected.key, 0, value))
    }
}
