//! Latency at the traffic that a team has: the same for each mode, and one that all of them can serve.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{
    GOAL_CONNECTIONS, Route,
    samples::{Place, Samples, Spread},
};
use crate::mode::Mode;

/// Whose throughput in a closed loop the rate is a share of: the goals compare with it.
pub(super) const MEASURE: Mode = Mode::TowerSessionsRedis;

/// One mode's turn at the rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) requests_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// Part of the requests that were not sent in time.
    pub(super) late: f64,
    /// Of one core, what the load itself took.
    pub(super) load_cpu: f64,
}

/// Whether there is a goal for the latency, and so turns at an equal rate.
pub(super) fn has_goal(connections: u16, route: Route) -> bool {
    connections == GOAL_CONNECTIONS && matches!(route, Route::Read | Route::Write)
}

pub(super) fn table(
    text: &mut String,
    samples: &Samples<Sample>,
    (connections, route): (u16, Route),
    modes: &[Mode],
    percent: u8,
) {
    if !modes.iter().any(|&mode| !samples.of((connections, route, mode)).is_empty()) {
        return;
    }
    let _ = writeln!(
        text,
        "{}, {connections} connections, requests due at {percent} % of what {MEASURE} served, counted from when they were due",
        route.name()
    );
    let _ = writeln!(
        text,
        "  {:<22}{:>8}{:>9}{:>9}{:>20}{:>11}{:>20}{:>8}{:>8}",
        "", "req/s", "p50 µs", "p99 µs", "× theirs", "p99.9 µs", "× theirs", "late %", "load %"
    );
    for &mode in modes {
        line(text, samples, (connections, route, mode));
    }
    text.push('\n');
}

fn line(text: &mut String, samples: &Samples<Sample>, place: Place) {
    let ratio = |value: fn(&Sample) -> f64| {
        samples
            .ratio(place, MEASURE, value)
            .map_or_else(String::new, |Spread { median, min, max }| format!("{median:.2} ({min:.2}-{max:.2})"))
    };
    let _ = writeln!(
        text,
        "  {:<22}{:>8.0}{:>9.0}{:>9.0}{:>20}{:>11.0}{:>20}{:>8.2}{:>8.0}",
        place.2.to_string(),
        samples.median(place, |sample| sample.requests_per_second),
        samples.median(place, |sample| sample.p50_us),
        samples.median(place, |sample| sample.p99_us),
        ratio(|sample| sample.p99_us),
        samples.median(place, |sample| sample.p999_us),
        ratio(|sample| sample.p999_us),
        samples.median(place, |sample| sample.late) * 100.0,
        samples.median(place, |sample| sample.load_cpu) * 100.0,
    );
}

pub(super) fn json(samples: &[Sample]) -> Json {
    let rounds = samples.iter().map(|sample| {
        json!({
            "requests_per_second": sample.requests_per_second,
            "p50_us": sample.p50_us, "p99_us": sample.p99_us, "p99.9_us": sample.p999_us,
            "late": sample.late, "load_cpu": sample.load_cpu,
        })
    });
    rounds.collect()
}
