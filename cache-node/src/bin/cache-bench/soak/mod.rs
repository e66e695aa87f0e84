//! A server under churn for minutes: whether its memory and its latencies stay as they were.

mod options;
mod sample;
mod traffic;

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

pub(crate) use self::options::{EXAMPLES, SoakOptions};
use self::{
    sample::{Churned, PERIODS, Sample, THIRD, median, timelines},
    traffic::{Churn, SIZES},
};
use crate::{
    affinity,
    control::Control,
    load::{Load, Pace, Plan},
    peer::{Peer, Server},
    progress::Progress,
    report::{Goal, Measure, Report},
    table,
};

/// What RSS in the last third may be of the first's.
const RSS_GROWTH_MAX: f64 = 1.05;
/// The same of p99, which machines disturb.
const P99_GROWTH_MAX: f64 = 1.2;
/// Keys of each kind before the first comes again, for each MiB of `maxmemory`: many times what it holds.
const KEYS_PER_MIB: u32 = 4_000;
const KEYS_MAX: u32 = 2_000_000;
/// After each interval so many connections are closed, and others opened.
const REPLACED: usize = 20;
/// A server is filled in steps of this length, with so many operations under way on each connection.
const FILL_STEP: Duration = Duration::from_millis(500);
const FILL_DEPTH: usize = 16;
/// A server is warm when it has evicted so many times as many keys as it held at first: until then its memory finds its shape.
const WARM_UP_TURNOVERS: u64 = 4;
/// It is judged after so many periods of warm-up, warm or not.
const WARM_UP_PERIODS_MAX: usize = 9;
/// A server that has evicted nothing after so long has another idea of `maxmemory`.
const FILL_MAX: Duration = Duration::from_secs(600);

/// Soaks one server after the other; writes nothing.
///
/// # Errors
/// When a server fails, gives a wrong reply, or nothing was evicted or expired.
pub(crate) fn run(options: &SoakOptions) -> Result<Report> {
    let mut peers = vec![Peer::cache_node()];
    for path in &options.peers {
        let peer = Peer::at(path)?;
        ensure!(peer.speaks_resp(), "--peer {}: a soak needs a server that speaks the Redis protocol", path.display());
        peers.push(peer);
    }
    if options.pin {
        affinity::pin(options.threads)?;
    }
    let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    let about = format!(
        "{} operations/s of sessions, hashes and carts that begin, grow, expire and are evicted, {} connections of which {REPLACED} are \
         replaced after each interval, maxmemory {} MiB, {} s",
        options.rate, options.connections, options.maxmemory, options.duration
    );
    let mut report = Report::new("soak".to_owned(), about, measures(), &names);
    let seconds = (f64::from(options.duration) * f64::from(PERIODS + 1) / f64::from(PERIODS)).round() as u64;
    let progress = Progress::new(seconds * peers.len() as u64, "s");
    for (index, peer) in peers.iter().enumerate() {
        let samples = soak(options, peer, &progress).with_context(|| peer.name.clone())?;
        for values in compare_thirds(&samples) {
            report.push(index, &values);
        }
        report.timelines.extend(timelines(&peer.name, &samples, options.duration()));
    }
    progress.finish();
    println!("{}", table::render(&report));
    Ok(report)
}

fn measures() -> Vec<Measure> {
    vec![
        Measure::new("RSS MiB", 1),
        Measure::new("RSS last/first third", 3).goal(Some(Goal::AtMost(RSS_GROWTH_MAX))),
        Measure::new("RSS/used_memory", 3),
        Measure::new("p99 ms", 3),
        Measure::new("p99 last/first third", 2).goal(Some(Goal::AtMost(P99_GROWTH_MAX))),
        Measure::new("p99.9 ms", 3),
        Measure::new("p99.9 last/first", 2),
        Measure::new("load's own p99 ms", 3),
        Measure::new("load's own last/first", 2),
        Measure::new("ops/s", 0),
        Measure::new("hits %", 1),
    ]
}

/// Each period of the last third beside the one of the first third that had the same sizes: as many rounds as a third has periods.
fn compare_thirds(samples: &[Sample]) -> Vec<Vec<f64>> {
    let rounds = 1..=THIRD;
    rounds
        .map(|first| {
            let last = first + PERIODS - THIRD;
            let late = |value: fn(&Sample) -> f64| median(samples, last, value);
            let growth = |value: fn(&Sample) -> f64| median(samples, last, value) / median(samples, first, value);
            vec![
                late(|sample| sample.rss_mib),
                growth(|sample| sample.rss_mib),
                late(|sample| sample.rss_mib / sample.used_mib),
                late(|sample| sample.p99_ms),
                growth(|sample| sample.p99_ms),
                late(|sample| sample.p999_ms),
                growth(|sample| sample.p999_ms),
                late(|sample| sample.own_p99_ms),
                growth(|sample| sample.own_p99_ms),
                late(|sample| sample.operations_per_second),
                late(|sample| sample.hit_percent),
            ]
        })
        .collect()
}

fn soak(options: &SoakOptions, peer: &Peer, progress: &Progress) -> Result<Vec<Sample>> {
    let server = peer.start(usize::from(options.threads), options.pin)?;
    let mut control = Control::connect(&server)?;
    for (name, value) in [("maxmemory-policy", "volatile-lru"), ("maxmemory", &format!("{}mb", options.maxmemory))] {
        control.call(&["CONFIG", "SET", name, value])?;
    }
    let keys = options.maxmemory.saturating_mul(KEYS_PER_MIB).min(KEYS_MAX);
    let mut churn = Churn::new(keys, options.seed);
    let mut load = Load::connect(server.addr(), server.protocol, usize::from(options.connections))?;
    progress.step(format!("soak: filling {peer}"));
    fill(&mut load, &mut churn, &mut control)?;

    let before = Churned::of(&control.info()?)?;
    let held = u64::try_from(control.integer(&["DBSIZE"])?).context("DBSIZE is negative")?;
    let mut run = Run { options, server, control, load, churn, replaced: 0, start: Instant::now(), samples: Vec::new() };
    // An odd number of periods, so that the first one that is judged comes behind large sessions as its like do.
    for warm_up in 1..=WARM_UP_PERIODS_MAX {
        progress.step(format!("soak: warm-up, {peer}"));
        run.period(0, &SIZES[(warm_up + 1) % SIZES.len()], peer, progress)?;
        let is_warm = Churned::of(&run.control.info()?)?.since(before).evicted >= WARM_UP_TURNOVERS * held;
        if warm_up % SIZES.len() == 1 && is_warm {
            break;
        }
        progress.extend((options.duration() / PERIODS).as_secs());
    }
    let warm = run.start.elapsed().as_secs_f64();
    for period in 1..=PERIODS {
        progress.step(format!("soak: period {period} of {PERIODS}, {peer}"));
        run.period(period, &SIZES[period as usize % SIZES.len()], peer, progress)?;
    }
    let churned = Churned::of(&run.control.info()?)?.since(before);
    churned.check()?;
    progress.note(&format!("soak: {peer}: {churned}"));
    run.samples.iter_mut().for_each(|sample| sample.seconds -= warm);
    Ok(run.samples)
}

/// A soak under way.
struct Run<'a> {
    options: &'a SoakOptions,
    server: Server,
    control: Control,
    load: Load,
    churn: Churn,
    /// Connections that were replaced so far.
    replaced: usize,
    start: Instant,
    samples: Vec<Sample>,
}

impl Run<'_> {
    fn period(&mut self, number: u32, sizes: &RangeInclusive<usize>, peer: &Peer, progress: &Progress) -> Result<()> {
        let Run { options, server, control, load, churn, replaced, start, samples } = self;
        churn.set_sizes(sizes.clone());
        let (began, length) = (Instant::now(), options.duration() / PERIODS);
        while began.elapsed() < length {
            (churn.reads, churn.hits) = (0, 0);
            let duration = Some(options.interval().min(length.saturating_sub(began.elapsed())));
            let plan = Plan { depth: usize::MAX, pace: Pace::Fixed(options.rate.into()), duration };
            let outcome = load.run(churn, plan)?;
            for _ in 0..REPLACED {
                load.replace(*replaced % usize::from(options.connections), server.addr())?;
                *replaced += 1;
            }
            let hits = churn.hits as f64 * 100.0 / churn.reads as f64;
            let place = (start.elapsed().as_secs_f64(), number);
            let sample = Sample::take(server, &control.info()?, &outcome, place, hits)?;
            progress.tick(outcome.elapsed.as_secs_f64().round() as u64, || {
                format!("{peer}: RSS {:.1} MiB, p99 {:.2} ms", sample.rss_mib, sample.p99_ms)
            });
            // What is left of a period at its end is no interval.
            if outcome.elapsed * 2 > options.interval() {
                samples.push(sample);
            }
        }
        Ok(())
    }
}

/// Until the server evicts: from then on nothing is added without something being lost.
fn fill(load: &mut Load, churn: &mut Churn, control: &mut Control) -> Result<()> {
    let start = Instant::now();
    while Churned::of(&control.info()?)?.evicted == 0 {
        ensure!(start.elapsed() < FILL_MAX, "nothing was evicted after {} s of writing", FILL_MAX.as_secs());
        load.run(churn, Plan { depth: FILL_DEPTH, pace: Pace::Batch, duration: Some(FILL_STEP) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PERIODS, Sample, compare_thirds};

    #[test]
    fn a_third_is_compared_with_the_periods_of_the_same_sizes() {
        let sample = |period: u32, rss_mib: f64| Sample {
            seconds: 0.0,
            period,
            operations_per_second: 1.0,
            rss_mib,
            used_mib: 10.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            own_p99_ms: 1.0,
            hit_percent: 50.0,
        };
        // Memory goes up and down with the sizes and does not grow; one interval in each period was disturbed.
        let samples: Vec<Sample> = (0..=PERIODS)
            .flat_map(|period| [10.0, 10.0, 90.0].map(|rss| sample(period, rss + f64::from(period % 2) * 10.0)))
            .collect();
        assert_eq!(compare_thirds(&samples).iter().map(|values| values[1]).collect::<Vec<_>>(), [1.0; 4]);
        // A tenth more in each third.
        let samples: Vec<Sample> = (0..=PERIODS).map(|period| sample(period, 10.0 + f64::from(period.div_ceil(4)))).collect();
        assert!(compare_thirds(&samples).iter().all(|values| (values[1] - 13.0 / 11.0).abs() < 1e-9));
    }
}
