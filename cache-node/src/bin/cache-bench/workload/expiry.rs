//! A million sessions that expire at one moment, while others are read.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
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

/// Sessions that live on, and are read.
const LIVE: u32 = 100_000;
/// Reads a second, at fixed times: a stall is seen by all that fall into it.
const READS_PER_SECOND: f64 = 10_000.0;
/// Between the last SET and the moment of expiry, at the least.
const QUIET_MIN: Duration = Duration::from_millis(500);
/// Reads are counted from the moment of expiry until all is reclaimed, and no shorter than this.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// A server that has not reclaimed all after so long is not waited for.
const RECLAIM_MAX: Duration = Duration::from_secs(60);
/// Between the end of the reads and the look at what is resident.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two looks at the number of keys.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

const GET: u8 = 0;
const SET: u8 = 1;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.million();
    let about = format!("{READS_PER_SECOND} GET/s of {LIVE} keys while {keys} others expire at one moment");
    let measures = vec![
        Measure::new("p99 before ms", 3),
        Measure::new("p99 ms", 3).compared("p99", Direction::OursOverPeers).goal(Some(Goal::AtMost(1.5))),
        Measure::new("p99.9 ms", 3),
        Measure::new("max ms", 1),
        Measure::new("load's own p99 ms", 3),
        Measure::new("load's own max ms", 1),
        Measure::new("last reclaimed s", 2).goal(Some(Goal::AtMost(1.0))),
        Measure::new("RSS before MiB", 0),
        Measure::new("peak MiB", 0),
        Measure::new("after MiB", 0),
        Measure::new("after/before", 2).goal(Some(Goal::AtMost(1.2))),
    ];
    let peers: Vec<&Peer> = bench.peers.iter().filter(|peer| peer.speaks_resp()).collect();
    let live = Content::new("live", LIVE as usize, bench.options.seed);
    let mortal = Content::new("mortal", keys as usize, bench.options.seed + 1);
    in_rounds(bench, ("expiry", about), measures, &peers, |peer| measure(bench, peer, &live, &mortal))
}

fn measure(bench: &Bench, peer: &Peer, live: &Content, mortal: &Content) -> Result<[f64; 11]> {
    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
    let never = now_ms()? + 3_600_000;
    fill(&server, &mut Sets::new(live, never))?;
    thread::sleep(SETTLE / 3);
    let rss_before = process::rss(server.pid())?;

    // Time for slow servers on a busy machine: 20 µs for each key.
    let moment = now_ms()? + 2_000 + mortal.count() as u64 / 50;
    fill(&server, &mut Sets::new(mortal, moment))?;
    let quiet = Duration::from_millis(moment.saturating_sub(now_ms()?));
    ensure!(quiet >= QUIET_MIN, "this machine is too busy: the keys were not stored when they were about to expire");
    let mut control = Control::connect(&server)?;
    let stored = control.integer(&["DBSIZE"])?;
    ensure!(
        stored == i64::from(LIVE) + mortal.count() as i64,
        "DBSIZE is {stored} after {} keys were stored",
        LIVE as usize + mortal.count()
    );

    let stop = AtomicBool::new(false);
    let mut reads = Reads::new(live, &stop, bench.options.seed);
    let mut load = Load::connect(server.addr(), server.protocol, usize::from(bench.options.connections))?;
    let pace = Pace::Fixed(READS_PER_SECOND);
    let duration = Some(quiet.saturating_sub(Duration::from_millis(50)));
    let before = load.run(&mut reads, Plan { depth: usize::MAX, pace, duration })?;
    let rss_peak = process::rss(server.pid())?;
    thread::sleep(Duration::from_millis(moment.saturating_sub(now_ms()?)));
    let (reclaimed, during) = run_while(&mut load, &mut reads, pace, &stop, || watch(&mut control, mortal, moment))?;
    thread::sleep(SETTLE);
    let rss_after = process::rss(server.pid())?;
    let [p99, p999, max, own_p99, own_max] = during.delays();
    Ok([
        milliseconds(before.latency.value_at_quantile(0.99)),
        p99,
        p999,
        max,
        own_p99,
        own_max,
        reclaimed.as_secs_f64(),
        mebibytes(rss_before),
        mebibytes(rss_peak),
        mebibytes(rss_after),
        rss_after as f64 / rss_before as f64,
    ])
}

/// How long after the moment the last key was reclaimed. Returns no sooner than the window ends.
fn watch(control: &mut Control, mortal: &Content, moment: u64) -> Result<Duration> {
    let mut rng = SmallRng::seed_from_u64(moment);
    let mut reclaimed = None;
    loop {
        let now = now_ms()?;
        let since = Duration::from_millis(now.saturating_sub(moment));
        if reclaimed.is_none() {
            // The clock first: what is expired by then must not be readable, whether or not it is reclaimed.
            let key = String::from_utf8_lossy(mortal.key(rng.random_range(0..mortal.count() as u32))).into_owned();
            if now > moment {
                let reply = control.call(&["GET", &key])?;
                ensure!(reply == b"$-1\r\n", "an expired key was readable {since:?} after its time: '{}'", reply.escape_ascii());
            }
            if control.integer(&["DBSIZE"])? <= i64::from(LIVE) {
                reclaimed = Some(since);
            }
            ensure!(since < RECLAIM_MAX, "expired keys are still there after {} s", RECLAIM_MAX.as_secs());
        }
        match reclaimed {
            Some(reclaimed) if since >= WINDOW_MIN => return Ok(reclaimed),
            _ => thread::sleep(SAMPLE_INTERVAL),
        }
    }
}

/// SET of each key once, to expire at one moment.
struct Sets<'a> {
    content: &'a Content,
    set: Template,
    next: u32,
}

impl<'a> Sets<'a> {
    fn new(content: &'a Content, moment_ms: u64) -> Sets<'a> {
        let moment = moment_ms.to_string();
        Sets {
            content,
            set: Template::command(&[Text("SET"), Slot(KEY_BYTES), Slot(VALUE_BYTES), Text("PXAT"), Text(&moment)]),
            next: 0,
        }
    }
}

impl Traffic for Sets<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        if self.next as usize == self.content.count() {
            return false;
        }
        let key = self.next;
        self.next += 1;
        let mut request = self.set.append(out);
        request.put(0, self.content.key(key));
        self.content.write_value(key, 0, request.slot(1));
        expected(Expected { kind: SET, key, is_last: true });
        true
    }

    fn check(&mut self, _: Expected, reply: &[u8]) -> bool {
        reply == b"+OK\r\n"
    }
}

/// GET of keys that live, until told to stop.
struct Reads<'a> {
    content: &'a Content,
    get: Template,
    stop: &'a AtomicBool,
    rng: SmallRng,
}

impl<'a> Reads<'a> {
    fn new(content: &'a Content, stop: &'a AtomicBool, seed: u64) -> Reads<'a> {
        Reads { content, get: Template::command(&[Text("GET"), Slot(KEY_BYTES)]), stop, rng: SmallRng::seed_from_u64(seed) }
    }
}

impl Traffic for Reads<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let key = self.rng.random_range(0..self.content.count() as u32);
        self.get.append(out).put(0, self.content.key(key));
        expected(Expected { kind: GET, key, is_last: true });
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        self.content.is_reply(expected.key, reply)
    }
}

fn now_ms() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis() as u64)
}
