//! One server thread against two, when the load shares the cores with them.

use anyhow::{Context as _, Result};

use crate::{
    Bench,
    content::Content,
    load::Load,
    peer::{CACHE_NODE, Peer, Server},
    report::{Goal, Measure, Report},
    statistic::Direction,
    throughput::{Figures, OTHERS, Turn, Variant, fill},
    workload::string::Strings,
};

const THREADS: [usize; 2] = [1, 2];
const VARIANTS: [Variant; 2] = [Variant::p1(None, None), Variant::p16(None, None)];
/// In the middle of the rounds, two threads do no less than one.
const SCALES_FROM: f64 = 1.0;
/// And in none of them less than this: where there is no core for the second thread, the load and the first one pay for it.
const COLLAPSED_BELOW: f64 = 0.7;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let keys = bench.options.keys()[0];
    let content = Content::new("session", keys as usize, bench.options.seed);
    let about = format!(
        "string sessions, {keys} keys: 2 server threads against 1 in turns, one thread of load, {} cores for all of them",
        cores()
    );
    let names: Vec<String> = bench.peers.iter().map(|peer| peer.name.clone()).collect();
    let mut runs = bench.peers.iter().map(|peer| Run::new(bench, peer, &content)).collect::<Result<Vec<_>>>()?;
    let mut reports = Vec::new();
    for variant in VARIANTS {
        let mut report = Report::new(format!("threads {}", variant.name), about.clone(), measures(), &names);
        for round in 1..=bench.options.rounds() {
            for (index, run) in runs.iter_mut().enumerate() {
                bench.progress.step(format!(
                    "threads {}: round {round} of {}, {}",
                    variant.name,
                    bench.options.rounds(),
                    run.name
                ));
                let [one, two] = run.turns(bench, &variant, round).with_context(|| run.name.clone())?;
                report.push(index, &values(one, two));
            }
        }
        reports.push(report);
    }
    Ok(reports)
}

fn measures() -> Vec<Measure> {
    vec![
        Measure::new("ops/s, 1 thread", 0),
        Measure::new("2 threads", 0),
        Measure::new("2 over 1", 2)
            .compared("2 over 1", Direction::OursOverPeers)
            .goal(Some(Goal::AtLeast(SCALES_FROM)))
            .goal_of(CACHE_NODE, Some(Goal::NeverBelow(COLLAPSED_BELOW))),
        Measure::new("cores allow", 2),
        Measure::new("CPU µs/op, 1 thread", 2),
        Measure::new("2 threads' CPU", 2),
        Measure::new("p99, 2 over 1", 2),
        Measure::new(OTHERS, 2).hidden(),
    ]
}

fn values(one: Figures, two: Figures) -> [f64; 8] {
    [
        one.operations_per_second,
        two.operations_per_second,
        two.operations_per_second / one.operations_per_second,
        allowed(one, cores() as f64 - one.others.max(two.others)),
        one.server_us,
        two.server_us,
        two.p99_ms / one.p99_ms,
        one.others.max(two.others),
    ]
}

/// What two threads could do of what one did, if they cost no more and nobody ever waited: as fast as the load can go, as both threads can, and as the cores
/// can that the load and the threads share and nobody else takes. Never below 1: one of the threads may do nothing.
fn allowed(one: Figures, cores: f64) -> f64 {
    let limits = [1.0 / one.client_us, 2.0 / one.server_us, cores / (one.client_us + one.server_us)];
    let per_second = limits.into_iter().fold(f64::INFINITY, f64::min) * 1e6;
    (per_second / one.operations_per_second).max(1.0)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A server with each number of threads.
struct Run<'a> {
    name: String,
    sides: [Side<'a>; 2],
}

struct Side<'a> {
    server: Server,
    connections: Load,
    traffic: Strings<'a>,
}

impl<'a> Run<'a> {
    fn new(bench: &Bench, peer: &Peer, content: &'a Content) -> Result<Run<'a>> {
        let [one, two] = THREADS.map(|threads| {
            bench.progress.step(format!("threads: filling {peer} with {threads} thread(s)"));
            Side::new(bench, peer, content, threads).with_context(|| peer.name.clone())
        });
        Ok(Run { name: peer.name.clone(), sides: [one?, two?] })
    }

    /// In every other round two threads come first: what drifts in a machine, such as its clock, favours neither.
    fn turns(&mut self, bench: &Bench, variant: &Variant, round: u32) -> Result<[Figures; 2]> {
        let take =
            |side: &mut Side<'_>| Turn::new(&bench.options).take(&side.server, &mut side.connections, &mut side.traffic, variant);
        let [one, two] = &mut self.sides;
        if round.is_multiple_of(2) {
            let two = take(two)?;
            Ok([take(one)?, two])
        } else {
            Ok([take(one)?, take(two)?])
        }
    }
}

impl<'a> Side<'a> {
    fn new(bench: &Bench, peer: &Peer, content: &'a Content, threads: usize) -> Result<Side<'a>> {
        let server = peer.start(threads, false)?;
        fill(&server, &mut Strings::fill(content, server.protocol))?;
        let connections = Load::connect(server.addr(), server.protocol, usize::from(bench.options.connections))?;
        let traffic = Strings::load(content, server.protocol, bench.options.seed);
        Ok(Side { server, connections, traffic })
    }
}

#[cfg(test)]
mod tests {
    use super::allowed;
    use crate::throughput::Figures;

    #[test]
    fn what_cores_allow_is_bound_by_the_load_the_threads_and_the_cores() {
        let one = |client_us, server_us| Figures {
            operations_per_second: 100_000.0,
            server_us,
            p50_ms: 1.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            rss_mib: 1.0,
            client_us,
            evenness: 1.0,
            others: 0.0,
        };
        let is = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
        is(allowed(one(2.0, 10.0), 8.0), 2.0);
        is(allowed(one(8.0, 10.0), 8.0), 1.25);
        is(allowed(one(6.0, 10.0), 2.0), 1.25);
        is(allowed(one(15.0, 10.0), 2.0), 1.0);
        is(allowed(one(6.0, 10.0), 0.3), 1.0);
    }
}
