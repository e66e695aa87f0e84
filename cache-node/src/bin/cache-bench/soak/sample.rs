//! What is seen of a server at one time of a soak, and what the times say together.

use std::{collections::HashMap, fmt, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    load::Outcome,
    peer::Server,
    process,
    statistic::{mebibytes, spread},
    timeline::{Scale, Span, Timeline},
};

/// A soak is judged in so many periods. In each second one sessions are small.
pub(super) const PERIODS: u32 = 12;
/// Of the periods a third: the last ones are compared with the first ones.
pub(super) const THIRD: u32 = PERIODS / 3;

/// What was seen of one interval.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// The end of the interval, in seconds; those of the warm-up are below 0.
    pub(super) seconds: f64,
    /// 0 is the warm-up.
    pub(super) period: u32,
    pub(super) operations_per_second: f64,
    pub(super) rss_mib: f64,
    pub(super) used_mib: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) own_p99_ms: f64,
    pub(super) hit_percent: f64,
}

/// What became of the churn, from the server's own counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Churned {
    pub(super) evicted: u64,
    pub(super) expired: u64,
    pub(super) connections: u64,
}

impl Sample {
    pub(super) fn take(
        server: &Server,
        info: &HashMap<String, u64>,
        outcome: &Outcome,
        place: (f64, u32),
        hits: f64,
    ) -> Result<Sample> {
        let [p99_ms, p999_ms, _, own_p99_ms, _] = outcome.delays();
        Ok(Sample {
            seconds: place.0,
            period: place.1,
            operations_per_second: outcome.operations as f64 / outcome.elapsed.as_secs_f64(),
            rss_mib: mebibytes(process::counted_rss(server.pid())?),
            used_mib: mebibytes(counter(info, "used_memory")?),
            p99_ms,
            p999_ms,
            own_p99_ms,
            hit_percent: hits,
        })
    }
}

impl Churned {
    pub(super) fn of(info: &HashMap<String, u64>) -> Result<Churned> {
        let counter = |name| counter(info, name);
        Ok(Churned {
            evicted: counter("evicted_keys")?,
            expired: counter("expired_keys")?,
            connections: counter("total_connections_received")?,
        })
    }

    pub(super) fn since(self, before: Churned) -> Churned {
        Churned {
            evicted: self.evicted - before.evicted,
            expired: self.expired - before.expired,
            connections: self.connections - before.connections,
        }
    }

    /// A soak whose keys stay and whose connections stand says nothing.
    pub(super) fn check(self) -> Result<()> {
        let Churned { evicted, expired, connections } = self;
        ensure!(evicted > 0 && expired > 0 && connections > 0, "there was no churn: {self}; let --duration be longer");
        Ok(())
    }
}

impl fmt::Display for Churned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Churned { evicted, expired, connections } = self;
        write!(f, "{evicted} keys evicted, {expired} expired, {connections} connections accepted")
    }
}

fn counter(info: &HashMap<String, u64>, name: &str) -> Result<u64> {
    info.get(name).copied().with_context(|| format!("INFO does not tell {name}"))
}

/// The median of a value over a period's samples.
pub(super) fn median(samples: &[Sample], period: u32, value: impl Fn(&Sample) -> f64) -> f64 {
    let values: Vec<f64> = samples.iter().filter(|sample| sample.period == period).map(value).collect();
    spread(&values).map_or(f64::NAN, |spread| spread.median)
}

/// The samples of a server as lines.
pub(super) fn timelines(server: &str, samples: &[Sample], duration: Duration) -> Vec<Timeline> {
    let length = duration.as_secs_f64();
    let third = length * f64::from(THIRD) / f64::from(PERIODS);
    let spans = vec![
        Span { name: "warm-up", from: samples.first().map_or(0.0, |sample| sample.seconds.min(0.0)), to: 0.0 },
        Span { name: "first third", from: 0.0, to: third },
        Span { name: "last third", from: length - third, to: length },
    ];
    let line = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let timeline = |name: &str, scale, lines| Timeline {
        name: format!("{server}: {name}"),
        scale,
        spans: spans.clone(),
        seconds: line(|sample| sample.seconds),
        lines,
    };
    vec![
        timeline(
            "memory, MiB",
            Scale::Linear,
            vec![("RSS", line(|sample| sample.rss_mib)), ("used_memory", line(|sample| sample.used_mib))],
        ),
        timeline(
            "latency of each interval, ms",
            Scale::Logarithmic,
            vec![
                ("p99", line(|sample| sample.p99_ms)),
                ("p99.9", line(|sample| sample.p999_ms)),
                ("load's own p99", line(|sample| sample.own_p99_ms)),
            ],
        ),
    ]
}
