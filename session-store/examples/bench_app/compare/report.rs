//! What was found: medians of the rounds, ratios within each round, and what became of the goals.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{
    GOAL_CONNECTIONS, Route, equal_rate,
    samples::{Place, Samples, Spread},
};
use crate::mode::Mode;

/// One mode's turn under one load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// CPU of the application per request.
    pub(super) app_us: f64,
    /// CPU of the store per request.
    pub(super) store_us: f64,
    pub(super) requests_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

pub(super) struct Report {
    store: String,
    /// The equal rate, of what tower-sessions-redis serves in a closed loop.
    percent: u8,
    pub(super) modes: Vec<Mode>,
    pub(super) routes: Vec<Route>,
    pub(super) connections: Vec<u16>,
    pub(super) samples: Samples<Sample>,
    pub(super) at_equal_rate: Samples<equal_rate::Sample>,
}

/// A goal of the project, and what was found.
struct Goal {
    text: String,
    at_most: f64,
    found: Spread,
}

impl Goal {
    fn is_met(&self) -> bool {
        self.found.median <= self.at_most
    }
}

impl Report {
    pub(super) fn new(store: String, percent: u8, modes: Vec<Mode>, routes: Vec<Route>, connections: Vec<u16>) -> Self {
        let (samples, at_equal_rate) = (Samples::default(), Samples::default());
        Self { store, percent, modes, routes, connections, samples, at_equal_rate }
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for &connections in &self.connections {
            for &route in &self.routes {
                let _ = writeln!(text, "{}, {connections} connections, store {}", route.name(), self.store);
                let _ = writeln!(
                    text,
                    "  {:<22}{:>10}{:>20}{:>11}{:>11}{:>9}{:>9}{:>9}",
                    "", "app µs", "× plain", "store µs", "req/s", "× plain", "p50 µs", "p99 µs"
                );
                for &mode in &self.modes {
                    self.line(&mut text, (connections, route, mode));
                }
                text.push('\n');
                equal_rate::table(&mut text, &self.at_equal_rate, (connections, route), &self.modes, self.percent);
            }
        }
        for goal in self.goals() {
            let Spread { median, min, max } = goal.found;
            let mark = if goal.is_met() { "met" } else { "MISSED" };
            let _ = writeln!(text, "  {mark:<7}{}: {median:.2} ({min:.2}-{max:.2}), goal ≤ {}", goal.text, goal.at_most);
        }
        text
    }

    fn line(&self, text: &mut String, place: Place) {
        let value = |value: fn(&Sample) -> f64| self.samples.median(place, value);
        let ratio = self.samples.ratio(place, Mode::Plain, |sample| sample.app_us);
        let throughput = self.samples.ratio(place, Mode::Plain, |sample| sample.requests_per_second);
        let _ = writeln!(
            text,
            "  {:<22}{:>10.1}{:>20}{:>11.1}{:>11.0}{:>9.2}{:>9.0}{:>9.0}",
            place.2.to_string(),
            value(|sample| sample.app_us),
            ratio.map_or_else(String::new, |Spread { median, min, max }| format!("{median:.2} ({min:.2}-{max:.2})")),
            value(|sample| sample.store_us),
            value(|sample| sample.requests_per_second),
            throughput.map_or(f64::NAN, |spread| spread.median),
            value(|sample| sample.p50_us),
            value(|sample| sample.p99_us),
        );
    }

    /// Those whose modes, routes and connections were measured.
    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let mut judge = |text: String, at_most: f64, found: Option<Spread>| {
            goals.extend(found.map(|found| Goal { text, at_most, found }));
        };
        for (mode, route, at_most) in [
            (Mode::Ours, Route::Untouched, 1.05),
            (Mode::OursAround, Route::Untouched, 1.05),
            (Mode::Ours, Route::Read, 1.75),
            (Mode::Ours, Route::Write, 2.6),
            (Mode::Ours, Route::CartAdd, 1.8),
            (Mode::NearCache, Route::Read, 1.25),
            (Mode::NearCacheAround, Route::Read, 1.25),
        ] {
            let found = self.samples.ratio((GOAL_CONNECTIONS, route, mode), Mode::Plain, |sample| sample.app_us);
            judge(format!("{mode}, {}, app CPU to plain axum's", route.name()), at_most, found);
        }
        for route in [Route::Read, Route::Write] {
            let ours = (GOAL_CONNECTIONS, route, Mode::Ours);
            let found = self.samples.ratio(ours, Mode::TowerSessionsRedis, |sample| sample.store_us);
            judge(format!("ours, {}, store CPU to tower-sessions-redis'", route.name()), 1.0, found);
            let found = self.samples.ratio(ours, Mode::TowerSessionsRedis, |sample| sample.p99_us);
            judge(format!("ours, {}, p99 to tower-sessions-redis'", route.name()), 0.5, found);
            let found = self.at_equal_rate.ratio(ours, Mode::TowerSessionsRedis, |sample| sample.p99_us);
            judge(format!("ours, {}, p99 at an equal rate to tower-sessions-redis'", route.name()), 0.5, found);
            for &connections in self.connections.iter().filter(|&&connections| connections != GOAL_CONNECTIONS) {
                let found =
                    self.samples.ratio((connections, route, Mode::Ours), Mode::TowerSessionsRedis, |sample| sample.app_us);
                judge(format!("ours, {}, {connections} connections, app CPU to tower-sessions-redis'", route.name()), 1.0, found);
            }
        }
        goals
    }

    pub(super) fn json(&self) -> Json {
        let mut results = Vec::new();
        for &connections in &self.connections {
            for &route in &self.routes {
                for &mode in &self.modes {
                    let rounds = self.samples.of((connections, route, mode)).iter().map(|sample| {
                        json!({
                            "app_us": sample.app_us, "store_us": sample.store_us,
                            "requests_per_second": sample.requests_per_second,
                            "p50_us": sample.p50_us, "p99_us": sample.p99_us,
                        })
                    });
                    results.push(json!({
                        "mode": mode.to_string(), "route": route.name(), "connections": connections,
                        "app_cpu_to_plain": self.samples.ratio((connections, route, mode), Mode::Plain, |s| s.app_us).map(|r| r.median),
                        "rounds": rounds.collect::<Vec<_>>(),
                        "at_equal_rate": equal_rate::json(self.at_equal_rate.of((connections, route, mode))),
                    }));
                }
            }
        }
        let goals = self
            .goals()
            .into_iter()
            .map(|goal| json!({"goal": goal.text, "at_most": goal.at_most, "found": goal.found.median, "met": goal.is_met()}));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        json!({
            "store": self.store, "cores": cores, "equal_rate_percent": self.percent,
            "results": results, "goals": goals.collect::<Vec<_>>(),
        })
    }
}

#[test]
fn a_goal_is_judged_by_the_ratios_within_the_rounds() {
    let sample = |app_us| Sample { app_us, store_us: 1.0, requests_per_second: 1.0, p50_us: 1.0, p99_us: 1.0 };
    let mut report = Report::new("s".to_owned(), 70, vec![Mode::Plain, Mode::Ours], vec![Route::Read], vec![GOAL_CONNECTIONS]);
    // The machine is slow in the second round.
    for (plain, ours) in [(10.0, 17.0), (100.0, 170.0), (10.0, 18.0)] {
        report.samples.add((GOAL_CONNECTIONS, Route::Read, Mode::Plain), sample(plain));
        report.samples.add((GOAL_CONNECTIONS, Route::Read, Mode::Ours), sample(ours));
    }
    let goals = report.goals();
    assert_eq!(goals.len(), 1, "what was not measured is not judged");
    assert_eq!(goals[0].found, Spread { median: 1.7, min: 1.7, max: 1.8 });
    assert!(goals[0].is_met());
    assert!(report.table().contains("met    ours, read one key"), "{}", report.table());
}

#[test]
fn the_closed_loop_and_the_equal_rate_have_goals_of_their_own() {
    let modes = vec![Mode::Ours, Mode::TowerSessionsRedis];
    let mut report = Report::new("s".to_owned(), 70, modes, vec![Route::Read], vec![GOAL_CONNECTIONS]);
    for (mode, closed, open) in [(Mode::Ours, 80.0, 40.0), (Mode::TowerSessionsRedis, 100.0, 100.0)] {
        let place = (GOAL_CONNECTIONS, Route::Read, mode);
        let sample = Sample { app_us: 1.0, store_us: 1.0, requests_per_second: 1_000.0, p50_us: 1.0, p99_us: closed };
        report.samples.add(place, sample);
        let sample = equal_rate::Sample {
            requests_per_second: 700.0,
            p50_us: 10.0,
            p99_us: open,
            p999_us: 2.0 * open,
            late: 0.015,
            load_cpu: 0.25,
        };
        report.at_equal_rate.add(place, sample);
    }
    let text = report.table();
    assert!(text.contains("MISSED ours, read one key, p99 to tower-sessions-redis': 0.80"), "{text}");
    assert!(text.contains("met    ours, read one key, p99 at an equal rate to tower-sessions-redis': 0.40"), "{text}");
    let line = text.lines().rfind(|line| line.starts_with("  ours ")).expect("the last table has the mode");
    let cells: Vec<&str> = line.split_ascii_whitespace().collect();
    let expected = ["ours", "700", "10", "40", "0.40", "(0.40-0.40)", "80", "0.40", "(0.40-0.40)", "1.50", "25"];
    assert_eq!(cells, expected, "{text}");
    assert_eq!(report.json()["results"][0]["at_equal_rate"][0]["p99.9_us"], 80.0);
}

#[test]
fn without_turns_at_an_equal_rate_nothing_is_said_of_them() {
    let mut report = Report::new("s".to_owned(), 0, vec![Mode::Plain], vec![Route::Read], vec![GOAL_CONNECTIONS]);
    let sample = Sample { app_us: 1.0, store_us: 1.0, requests_per_second: 1.0, p50_us: 1.0, p99_us: 1.0 };
    report.samples.add((GOAL_CONNECTIONS, Route::Read, Mode::Plain), sample);
    assert!(!report.table().contains("due"), "{}", report.table());
}
