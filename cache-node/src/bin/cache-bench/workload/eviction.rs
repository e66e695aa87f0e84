//! How much of a cache's traffic it answers when not everything fits: the same Zipf trace at the same `maxmemory`.

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Bench,
    content::{Content, KEY_BYTES, VALUE_BYTES},
    control::Control,
    load::{Expected, Load, Pace, Plan, Traffic},
    peer::{Peer, Server},
    report::{Goal, Group, Measure, Report},
    request::{
        Part::{Slot, Text},
        Template,
    },
    statistic::Direction,
};

/// Keys of the trace: with their overhead about 36 MiB in cache-node, 45 MiB in Redis.
const KEYS: u32 = 100_000;
/// The key of rank k is asked for in proportion to 1 / k to this power.
const EXPONENT: f64 = 0.9;
/// What the servers are given, as `maxmemory` takes it, and how a hit ratio there is called.
const SIZES: [(&str, &str); 3] = [("8mb", "hit % in 8 MiB"), ("16mb", "hit % in 16 MiB"), ("24mb", "hit % in 24 MiB")];
const POLICIES: [&str; 5] = ["allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-ttl", "allkeys-random"];
/// Few connections: Redis counts their buffers as memory.
const CONNECTIONS: usize = 8;
const DEPTH: usize = 16;
/// Of the operations of a run so many come before the counted ones.
const WARM_UP: u32 = 3;

const GET: u8 = 0;
const SET: u8 = 1;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let operations = if bench.options.quick { 200_000 } else { 1_000_000 };
    let content = Content::new("evict", KEYS as usize, bench.options.seed);
    let zipf = Zipf::new(KEYS, EXPONENT);
    let peers: Vec<&Peer> = bench.peers.iter().filter(|peer| peer.speaks_resp()).collect();
    let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    let mut reports = Vec::new();
    let trace = format!(
        "GET, and SET with a time to live after a miss; {KEYS} keys of {VALUE_BYTES} bytes by Zipf ({EXPONENT}), {operations} GET"
    );
    for policy in POLICIES {
        let measures = SIZES.map(|(_, name)| {
            Measure::new(name, 1).compared("hits", Direction::OursOverPeers).goal(Some(Goal::RatioAtLeast(1.0)))
        });
        let mut report = Report::new(format!("eviction {policy}"), format!("{policy}: {trace}"), measures.to_vec(), &names);
        report.group = Some(Group { name: "eviction".to_owned(), about: trace.clone(), label: policy.to_owned() });
        for round in 1..=bench.options.long_rounds() {
            let mut hits = vec![Vec::new(); peers.len()];
            for (size, _) in SIZES {
                for (index, peer) in peers.iter().enumerate() {
                    bench.progress.step(format!("eviction {policy} {size}: round {round}, {peer}"));
                    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
                    let trace = Trace::new(&content, &zipf, operations, bench.options.seed + u64::from(round));
                    hits[index].push(hit_percent(&server, trace, policy, size).with_context(|| peer.name.clone())?);
                }
            }
            for (index, hits) in hits.iter().enumerate() {
                report.push(index, hits);
            }
        }
        reports.push(report);
    }
    Ok(reports)
}

fn hit_percent(server: &Server, mut trace: Trace<'_>, policy: &str, size: &str) -> Result<f64> {
    let mut control = Control::connect(server)?;
    for (name, value) in [("maxmemory-policy", policy), ("maxmemory", size)] {
        control.call(&["CONFIG", "SET", name, value])?;
    }
    let mut load = Load::connect(server.addr(), server.protocol, CONNECTIONS)?;
    load.run(&mut trace, Plan { depth: DEPTH, pace: Pace::Batch, duration: None })?;
    Ok(f64::from(trace.hits) * 100.0 / f64::from(trace.counted))
}

/// Ranks by their cumulated weight.
struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    fn new(ranks: u32, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let cumulated = (1..=ranks).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Zipf { cumulated: cumulated.collect() }
    }

    fn draw(&self, rng: &mut SmallRng) -> u32 {
        let total = self.cumulated.last().copied().unwrap_or_default();
        let point = rng.random_range(0.0..total);
        self.cumulated.partition_point(|cumulated| *cumulated <= point) as u32
    }
}

/// GET by Zipf, and SET of what was missing.
struct Trace<'a> {
    content: &'a Content,
    zipf: &'a Zipf,
    get: Template,
    set: Template,
    rng: SmallRng,
    operations: u32,
    asked: u32,
    missing: Vec<u32>,
    answered: u32,
    counted: u32,
    hits: u32,
}

impl<'a> Trace<'a> {
    fn new(content: &'a Content, zipf: &'a Zipf, operations: u32, seed: u64) -> Trace<'a> {
        Trace {
            content,
            zipf,
            get: Template::command(&[Text("GET"), Slot(KEY_BYTES)]),
            set: Template::command(&[Text("SET"), Slot(KEY_BYTES), Slot(VALUE_BYTES), Text("EX"), Slot(4)]),
            rng: SmallRng::seed_from_u64(seed),
            operations,
            asked: 0,
            missing: Vec::new(),
            answered: 0,
            counted: 0,
            hits: 0,
        }
    }
}

impl Traffic for Trace<'_> {
    fn next(&mut self, _: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        if let Some(key) = self.missing.pop() {
            let mut request = self.set.append(out);
            request.put(0, self.content.key(key));
            self.content.write_value(key, 0, request.slot(1));
            request.put(2, self.rng.random_range(1_000..10_000).to_string().as_bytes());
            expected(Expected { kind: SET, key, is_last: true });
            return true;
        }
        if self.asked == self.operations {
            return false;
        }
        self.asked += 1;
        let key = self.zipf.draw(&mut self.rng);
        self.get.append(out).put(0, self.content.key(key));
        expected(Expected { kind: GET, key, is_last: true });
        true
    }

    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        if expected.kind == SET {
            return reply == b"+OK\r\n";
        }
        let is_hit = reply != b"$-1\r\n";
        self.answered += 1;
        if self.answered > self.operations / WARM_UP {
            self.counted += 1;
            self.hits += u32::from(is_hit);
        }
        if !is_hit {
            self.missing.push(expected.key);
            return true;
        }
        self.content.is_reply(expected.key, reply)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::Zipf;

    #[test]
    fn low_ranks_are_drawn_in_proportion() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((8.0..12.5).contains(&ratio), "{ratio}");
        assert!(counts[999] > 0);
    }
}
