//! Loads that are run as fast as the servers go, in turns.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Bench,
    load::{Load, Outcome, Pace, Plan, Traffic},
    options::Options,
    peer::{IO_URING, Peer, Server},
    process,
    report::{Goal, Measure, Report},
    statistic::{Direction, mebibytes, milliseconds},
};

/// Operations that fill a server travel in batches of so many, over so few connections.
const FILL_DEPTH: usize = 64;
const FILL_CONNECTIONS: usize = 8;

/// Cores that neither the server nor the load kept busy, but something else did.
pub(crate) const OTHERS: &str = "cores taken by others";

/// One way to send the same operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) depth: usize,
    pub(crate) pace: Pace,
    /// Wanted of operations per CPU second, against the first peer.
    pub(crate) efficiency_goal: Option<f64>,
    /// The same of the node with `io-uring yes`.
    pub(crate) io_uring_goal: Option<f64>,
    /// Wanted of p99, against the first peer.
    pub(crate) p99_goal: Option<f64>,
}

impl Variant {
    /// One operation at a time on each connection.
    pub(crate) const fn p1(efficiency_goal: Option<f64>, p99_goal: Option<f64>) -> Variant {
        Variant { name: "P1", depth: 1, pace: Pace::Batch, efficiency_goal, io_uring_goal: None, p99_goal }
    }

    /// Sixteen operations in one write, the next when all are answered.
    pub(crate) const fn p16(efficiency_goal: Option<f64>, p99_goal: Option<f64>) -> Variant {
        Variant { name: "P16", depth: 16, pace: Pace::Batch, efficiency_goal, io_uring_goal: None, p99_goal }
    }
}

/// What a workload sends to one server, once it is filled.
pub(crate) struct Prepared<'a> {
    /// Fills the server; run to its end first.
    pub(crate) fill: Box<dyn Traffic + 'a>,
    /// Makes the load after that.
    pub(crate) load: Box<dyn Traffic + 'a>,
}

/// Runs the variants over those of `peers` for which `prepare` has an answer.
///
/// # Errors
/// When a server fails or gives a wrong reply.
pub(crate) fn compare<'a>(
    bench: &Bench,
    name: &str,
    about: &str,
    variants: &[Variant],
    peers: &[Peer],
    prepare: &dyn Fn(&Peer, &Server) -> Result<Option<Prepared<'a>>>,
) -> Result<Vec<Report>> {
    let mut runs: Vec<(String, Server, Load, Box<dyn Traffic + 'a>)> = Vec::new();
    for peer in peers {
        let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
        let Some(Prepared { mut fill, load }) = prepare(peer, &server)? else { continue };
        bench.progress.step(format!("{name}: filling {peer}"));
        self::fill(&server, &mut *fill).with_context(|| format!("filling {peer}"))?;
        let connections = Load::connect(server.addr(), server.protocol, usize::from(bench.options.connections))?;
        runs.push((peer.name.clone(), server, connections, load));
    }
    let names: Vec<String> = runs.iter().map(|(name, ..)| name.clone()).collect();
    let mut reports = Vec::new();
    for variant in variants {
        let mut report = Report::new(format!("{name} {}", variant.name), about.to_owned(), measures(variant), &names);
        for round in 1..=bench.options.rounds() {
            for (index, (peer, server, connections, traffic)) in runs.iter_mut().enumerate() {
                bench.progress.step(format!("{name} {}: round {round} of {}, {peer}", variant.name, bench.options.rounds()));
                let figures = Turn::new(&bench.options)
                    .take(server, connections, &mut **traffic, variant)
                    .with_context(|| format!("{peer}, {}", variant.name))?;
                report.push(index, &figures.values());
            }
        }
        reports.push(report);
    }
    Ok(reports)
}

/// Runs a traffic to its end, quickly.
///
/// # Errors
/// When a reply is wrong.
pub(crate) fn fill(server: &Server, traffic: &mut dyn Traffic) -> Result<Outcome> {
    let mut connections = Load::connect(server.addr(), server.protocol, FILL_CONNECTIONS)?;
    connections.run(traffic, Plan { depth: FILL_DEPTH, pace: Pace::Batch, duration: None })
}

/// Runs `traffic` while `watch` looks at the server, and until it has seen enough: then `stop` tells the traffic to end.
///
/// # Errors
/// When the load or the watch fails.
pub(crate) fn run_while<T: Send>(
    load: &mut Load,
    traffic: &mut dyn Traffic,
    pace: Pace,
    stop: &AtomicBool,
    watch: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, Outcome)> {
    let (watched, outcome) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let watched = watch();
            stop.store(true, Ordering::Relaxed);
            watched
        });
        let outcome = load.run(traffic, Plan { depth: usize::MAX, pace, duration: None });
        (watcher.join().unwrap_or_else(|_| bail!("the watcher of the server has panicked")), outcome)
    });
    Ok((watched?, outcome?))
}

/// One server's turn.
pub(crate) struct Turn {
    warm_up: Duration,
    duration: Duration,
}

/// What was seen in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) operations_per_second: f64,
    /// CPU of the server for each operation, in µs.
    pub(crate) server_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) rss_mib: f64,
    /// CPU of the load for each operation, in µs.
    pub(crate) client_us: f64,
    pub(crate) evenness: f64,
    /// Cores that others kept busy.
    pub(crate) others: f64,
}

impl Turn {
    /// As long as the options say.
    pub(crate) fn new(options: &Options) -> Turn {
        Turn { warm_up: options.warm_up(), duration: options.turn() }
    }

    /// Runs a load over a server and looks at both.
    ///
    /// # Errors
    /// When the server fails or a reply is wrong.
    pub(crate) fn take(
        &self,
        server: &Server,
        connections: &mut Load,
        traffic: &mut dyn Traffic,
        variant: &Variant,
    ) -> Result<Figures> {
        let plan = |duration| Plan { depth: variant.depth, pace: variant.pace, duration: Some(duration) };
        connections.run(traffic, plan(self.warm_up))?;
        let (machine_before, server_before, client_before) =
            (process::machine_cpu()?, process::cpu(server.pid())?, process::own_cpu()?);
        let outcome = connections.run(traffic, plan(self.duration))?;
        let server_cpu = process::cpu(server.pid())?.checked_sub(server_before);
        let server_cpu = server_cpu.context("a thread of the server has ended, and its CPU time is lost")?;
        let client_cpu = process::own_cpu()? - client_before;
        let others = (process::machine_cpu()? - machine_before).saturating_sub(server_cpu + client_cpu);
        let operations = outcome.operations as f64;
        let quantile = |quantile| milliseconds(outcome.latency.value_at_quantile(quantile));
        Ok(Figures {
            operations_per_second: operations / outcome.elapsed.as_secs_f64(),
            server_us: server_cpu.as_secs_f64() * 1e6 / operations,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            rss_mib: mebibytes(process::rss(server.pid())?),
            client_us: client_cpu.as_secs_f64() * 1e6 / operations,
            evenness: outcome.evenness,
            others: others.as_secs_f64() / outcome.elapsed.as_secs_f64(),
        })
    }
}

impl Figures {
    /// In the order of [`measures`].
    fn values(self) -> [f64; 9] {
        let Figures { operations_per_second, server_us, p50_ms, p99_ms, p999_ms, rss_mib, client_us, evenness, others } = self;
        [operations_per_second, server_us, p50_ms, p99_ms, p999_ms, rss_mib, client_us, evenness, others]
    }
}

fn measures(variant: &Variant) -> Vec<Measure> {
    vec![
        Measure::new("ops/s", 0),
        Measure::new("CPU µs/op", 2)
            .compared("ops per CPU s", Direction::PeersOverOurs)
            .goal(variant.efficiency_goal.map(Goal::RatioAtLeast))
            .goal_of(IO_URING, variant.io_uring_goal.map(Goal::RatioAtLeast)),
        Measure::new("p50 ms", 3),
        Measure::new("p99 ms", 3).compared("p99", Direction::OursOverPeers).goal(variant.p99_goal.map(Goal::RatioAtMost)),
        Measure::new("p99.9 ms", 3),
        Measure::new("RSS MiB", 0),
        Measure::new("client CPU µs/op", 2).hidden(),
        Measure::new("evenness", 2).hidden(),
        Measure::new(OTHERS, 2).hidden(),
    ]
}
