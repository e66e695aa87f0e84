//! What clients see of a snapshot of a million sessions while it is written.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES, VALUE_BYTES},
    control::Control,
    load::{Expected, Load, Pace, Plan, Traffic},
    peer::Peer,
    process,
    report::{Goal, Measure, Report},
    request::{
        Part::{Slot, Text},
        Template,
    },
    rounds::in_rounds,
    statistic::{Direction, mebibytes, milliseconds},
    throughput::{fill, run_while},
};

/// At fixed times: a stall is seen by all that fall into it.
pub(super) const REQUESTS_PER_SECOND: f64 = 10_000.0;
/// One request of so many writes.
const WRITES_ONE_IN: u32 = 10;
/// A snapshot that is not written after so long has failed.
const SNAPSHOT_MAX: Duration = Duration::from_secs(120);
/// Between two looks whether it is written. Each is a request to the server.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

const GET: u8 = 0;
const SET: u8 = 1;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.million();
    let about = format!("{REQUESTS_PER_SECOND} requests/s (90 % GET, 10 % SET) of {keys} sessions while BGSAVE writes them");
    let measures = vec![
        Measure::new("p99 before ms", 3),
        Measure::new("max before ms", 1),
        Measure::new("p99 ms", 3).compared("p99", Direction::OursOverPeers),
        Measure::new("p99.9 ms", 3),
        Measure::new("max ms", 1).compared("max", Direction::OursOverPeers).goal(Some(Goal::AtMost(5.0))),
        Measure::new("load's own p99 ms", 3),
        Measure::new("load's own max ms", 1),
        Measure::new("snapshot s", 2),
        Measure::new("RSS before MiB", 0),
        Measure::new("peak more MiB", 1),
    ];
    let peers: Vec<&Peer> = bench.peers.iter().filter(|peer| peer.speaks_resp()).collect();
    let content = Content::new("session", keys as usize, bench.options.seed);
    in_rounds(bench, ("snapshot", about), measures, &peers, |peer| measure(bench, peer, &content))
}

fn measure(bench: &Bench, peer: &Peer, content: &Content) -> Result<[f64; 10]> {
    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
    fill(&server, &mut Requests::all(content))?;
    let mut control = Control::connect(&server)?;
    let stop = AtomicBool::new(false);
    let mut requests = Requests::random(content, &stop, bench.options.seed);
    let mut load = Load::connect(server.addr(), server.protocol, usize::from(bench.options.connections))?;
    let pace = Pace::Fixed(REQUESTS_PER_SECOND);
    let before = load.run(&mut requests, Plan { depth: usize::MAX, pace, duration: Some(bench.options.turn()) })?;
    let rss_before = process::rss(server.pid())?;
    process::forget_peak(server.pid())?;
    let peak_before = process::peak_rss(server.pid())?;
    let ((took, copied), during) = run_while(&mut load, &mut requests, pace, &stop, || watch(&mut control))?;
    let more = process::peak_rss(server.pid())?.saturating_sub(peak_before) + copied;
    let [p99, p999, max, own_p99, own_max] = during.delays();
    Ok([
        milliseconds(before.latency.value_at_quantile(0.99)),
        milliseconds(before.latency.max()),
        p99,
        p999,
        max,
        own_p99,
        own_max,
        took.as_secs_f64(),
        mebibytes(rss_before),
        mebibytes(more),
    ])
}

/// Has a snapshot taken; how long it took, and the bytes of pages that a forked child did not share with its parent at its end, which the
/// server itself reports. The parent's resident memory does not grow by them.
fn watch(control: &mut Control) -> Result<(Duration, u64)> {
    let started = Instant::now();
    control.call(&["BGSAVE"])?;
    loop {
        thread::sleep(LOOK_INTERVAL);
        let info = String::from_utf8_lossy(&control.call(&["INFO", "persistence"])?).into_owned();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        // It is the server's first.
        if field("rdb_last_bgsave_time_sec") != Some("-1") {
            ensure!(field("rdb_last_bgsave_status") == Some("ok"), "the snapshot failed");
            let copied = field("rdb_last_cow_size").map_or(Ok(0), str::parse).context("rdb_last_cow_size is no number")?;
            return Ok((started.elapsed(), copied));
        }
        ensure!(started.elapsed() < SNAPSHOT_MAX, "no snapshot after {} s", SNAPSHOT_MAX.as_secs());
    }
}

/// SET of each key once, or GET and SET of any until told to stop.
pub(super) struct Requests<'a> {
    content: &'a Content,
    get: Template,
    set: Template,
    next: u32,
    random: Option<(SmallRng, &'a AtomicBool)>,
    /// Whether keys may be gone.
    pub(super) may_miss: bool,
}

impl<'a> Requests<'a> {
    pub(super) fn all(content: &'a Content) -> Requests<'a> {
        Requests {
            content,
            get: Template::command(&[Text("GET"), Slot(KEY_BYTES)]),
            set: Template::command(&[Text("SET"), Slot(KEY_BYTES), Slot(VALUE_BYTES), Text("EX"), Text("86400")]),
            next: 0,
            random: None,
            may_miss: false,
        }
    }

    pub(super) fn random(content: &'a Content, stop: &'a AtomicBool, seed: u64) -> Requests<'a> {
        Requests { random: Some((SmallRng::seed_from_u64(seed), stop)), ..Requests::all(content) }
    }
}

impl Traffic for Requests<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        let count = self.content.count() as u32;
        let (key, writes) = match &mut self.random {
            Some((_, stop)) if stop.load(Ordering::Relaxed) => return false,
            Some((random, _)) => (random.random_range(0..count), random.random_range(0..WRITES_ONE_IN) == 0),
            None if self.next == count => return false,
            None => (self.next, true),
        };
        self.next = self.next.saturating_add(1);
        if writes {
            let mut request = self.set.append(out);
            request.put(0, self.content.key(key));
            self.content.write_value(key, 0, request.slot(1));
        } else {
            self.get.append(out).put(0, self.content.key(key));
        }
        expected(Expected { kind: if writes { SET } else { GET }, key, is_last: true });
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        if expected.kind == SET {
            return reply == b"+OK\r\n";
        }
        self.may_miss && reply == b"$-1\r\n" || self.content.is_reply(expected.key, reply)
    }
}
