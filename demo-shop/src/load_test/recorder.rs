//! What all shoppers of a run saw: latencies over time, shares, and what happened around each kill.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::load_test::ledger::{Fault, Finding};
use crate::load_test::limits::{EXAMPLES_MAX, KILL_EFFECT_MAX, LATENCY_MAX};

/// How one exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// An answer with a status of 500 or above.
    ServerError,
    Broken,
    Late,
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    /// When the shopper wanted to send it.
    pub(crate) intended: Instant,
    pub(crate) sent: Instant,
    pub(crate) done: Instant,
    pub(crate) outcome: Outcome,
    pub(crate) served_by: Option<&'a str>,
}

/// One second of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Second {
    /// Counted from the start of the run.
    pub(crate) second: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// How a process is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// A replica of the shop, by SIGKILL.
    ReplicaKilled,
    /// The primary cache node, by SIGKILL.
    NodeKilled,
    /// The primary cache node, by SIGSTOP: it keeps its connections and answers nothing.
    NodeFrozen,
}

impl Failure {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ReplicaKilled | Self::NodeKilled => "kill -9",
            Self::NodeFrozen => "freeze",
        }
    }

    /// The option that asks for it.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::ReplicaKilled => "--kill-replica-every",
            Self::NodeKilled => "--kill-node-every",
            Self::NodeFrozen => "--freeze-node-every",
        }
    }
}

/// A process that was made to fail, and what the shoppers saw of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kill {
    /// Counted from the start of the run.
    pub(crate) at_s: f64,
    pub(crate) failure: Failure,
    /// The process: a replica of the shop or a cache node.
    pub(crate) replica: String,
    pub(crate) pid: u32,
    /// From the kill to the first exchange that failed; null when none did within 3 s or before the next kill.
    pub(crate) first_error_ms: Option<f64>,
    /// From the kill to the first success that was sent after it, and after that failure if there was one.
    pub(crate) first_success_ms: Option<f64>,
    /// From the kill to the first answer of the process that took the place of the dead one.
    pub(crate) back_ms: Option<f64>,
    /// The longest time without an acknowledged change of any cart, from this failure to the next.
    pub(crate) gap_ms: Option<f64>,
    #[serde(skip)]
    at: Option<Instant>,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// What became of the shoppers' changes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Operations {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Still unknown after every repetition.
    pub(crate) unknown: u64,
    /// Tries after the first, under the same key.
    pub(crate) repeated: u64,
    /// Whole carts that were compared with the ledger.
    pub(crate) carts_compared: u64,
    /// Actions, of any kind, that were planned and not begun because the shop was too slow for the plan.
    pub(crate) not_begun: u64,
}

/// Everything of one run. All of it is behind one short lock.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// From the intended moment.
    latency: Histogram<u64>,
    /// From the actual sending.
    service: Histogram<u64>,
    second: Histogram<u64>,
    second_index: u64,
    second_errors: u64,
    timeline: Vec<Second>,
    requests: u64,
    server_errors: u64,
    broken: u64,
    late: u64,
    shares: BTreeMap<String, u64>,
    kills: Vec<Kill>,
    last_acknowledged: Option<Instant>,
    operations: Operations,
    faults: BTreeMap<Fault, u64>,
    examples: Vec<String>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) elapsed: Duration,
    pub(crate) latency: Latency,
    pub(crate) service: Latency,
    pub(crate) timeline: Vec<Second>,
    pub(crate) requests: u64,
    pub(crate) server_errors: u64,
    pub(crate) broken: u64,
    pub(crate) late: u64,
    pub(crate) shares: BTreeMap<String, u64>,
    pub(crate) kills: Vec<Kill>,
    pub(crate) operations: Operations,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) examples: Vec<String>,
}

/// The state of a run in a few numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Glance {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) p99_ms: f64,
    pub(crate) kills: usize,
    pub(crate) faults: u64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                latency: histogram(),
                service: histogram(),
                second: histogram(),
                second_index: 0,
                second_errors: 0,
                timeline: Vec::new(),
                requests: 0,
                server_errors: 0,
                broken: 0,
                late: 0,
                shares: BTreeMap::new(),
                kills: Vec::new(),
                last_acknowledged: None,
                operations: Operations::default(),
                faults: BTreeMap::new(),
                examples: Vec::new(),
            }),
        }
    }

    pub(crate) fn record(&self, sample: &Sample<'_>) {
        let latency = micros(sample.done.saturating_duration_since(sample.intended));
        let service = micros(sample.done.saturating_duration_since(sample.sent));
        let mut state = self.state.lock();
        let state = &mut *state;
        state.close_seconds(sample.done.saturating_duration_since(self.start).as_secs());
        state.requests += 1;
        // Saturating: a latency past the largest that is told apart counts as that one.
        state.latency.saturating_record(latency);
        state.service.saturating_record(service);
        state.second.saturating_record(latency);
        if let Some(name) = sample.served_by {
            match state.shares.get_mut(name) {
                Some(count) => *count += 1,
                None => {
                    state.shares.insert(name.to_owned(), 1);
                }
            }
        }
        match sample.outcome {
            Outcome::Success => {}
            Outcome::ServerError => state.server_errors += 1,
            Outcome::Broken => state.broken += 1,
            Outcome::Late => state.late += 1,
        }
        let is_error = sample.outcome != Outcome::Success;
        state.second_errors += u64::from(is_error);
        if let Some((last, earlier)) = state.kills.split_last_mut() {
            last.observe(sample, is_error);
            for kill in earlier {
                kill.observe_return(sample);
            }
        }
    }

    /// Notes that the shop acknowledged a change just now.
    pub(crate) fn acknowledged(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let state = &mut *state;
        state.operations.acknowledged += 1;
        if let (Some(before), Some(kill)) = (state.last_acknowledged.replace(now), state.kills.last_mut()) {
            kill.observe_acknowledged(before, now);
        }
    }

    /// Notes that a process was made to fail just now.
    pub(crate) fn kill(&self, failure: Failure, replica: &str, pid: u32) {
        let now = Instant::now();
        self.state.lock().kills.push(Kill {
            at_s: now.saturating_duration_since(self.start).as_secs_f64(),
            failure,
            replica: replica.to_owned(),
            pid,
            first_error_ms: None,
            first_success_ms: None,
            back_ms: None,
            gap_ms: None,
            at: Some(now),
        });
    }

    /// Counts what became of changes.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Operations)) {
        change(&mut self.state.lock().operations);
    }

    pub(crate) fn report(&self, findings: impl IntoIterator<Item = Finding>) {
        let mut state = self.state.lock();
        for finding in findings {
            *state.faults.entry(finding.fault).or_default() += 1;
            if state.examples.len() < EXAMPLES_MAX {
                state.examples.push(finding.detail);
            }
        }
    }

    pub(crate) fn glance(&self) -> Glance {
        let state = self.state.lock();
        Glance {
            requests: state.requests,
            errors: state.server_errors + state.broken + state.late,
            p99_ms: millis(state.latency.value_at_quantile(0.99)),
            kills: state.kills.len(),
            faults: state.faults.values().sum(),
        }
    }

    /// Ends the recording of a run that was to take `planned`; looks at the carts after that time are no part of it.
    pub(crate) fn totals(&self, planned: Duration) -> Totals {
        let elapsed = self.start.elapsed().min(planned);
        let mut state = self.state.lock();
        state.close_seconds(u64::MAX);
        Totals {
            elapsed,
            latency: latency_of(&state.latency),
            service: latency_of(&state.service),
            timeline: std::mem::take(&mut state.timeline),
            requests: state.requests,
            server_errors: state.server_errors,
            broken: state.broken,
            late: state.late,
            shares: state.shares.clone(),
            kills: state.kills.clone(),
            operations: state.operations,
            faults: state.faults.clone(),
            examples: state.examples.clone(),
        }
    }
}

impl State {
    /// Reduces a second to four numbers as soon as it is over, so that a long run needs no memory for its past.
    fn close_seconds(&mut self, now: u64) {
        if now <= self.second_index {
            return;
        }
        if !self.second.is_empty() {
            self.timeline.push(Second {
                second: self.second_index,
                requests: self.second.len(),
                errors: self.second_errors,
                p50_ms: millis(self.second.value_at_quantile(0.5)),
                p99_ms: millis(self.second.value_at_quantile(0.99)),
            });
        }
        self.second.reset();
        self.second_errors = 0;
        self.second_index = now;
    }
}

impl Kill {
    fn observe(&mut self, sample: &Sample<'_>, is_error: bool) {
        let Some(after) = self.at.and_then(|at| sample.done.checked_duration_since(at)) else {
            return;
        };
        let was_sent_after = self.at.is_some_and(|at| sample.sent > at);
        if is_error && self.first_error_ms.is_none() && after <= KILL_EFFECT_MAX {
            self.first_error_ms = Some(after.as_secs_f64() * 1_000.0);
            self.first_success_ms = None;
        } else if !is_error && was_sent_after && self.first_success_ms.is_none() {
            self.first_success_ms = Some(after.as_secs_f64() * 1_000.0);
        }
        self.observe_return(sample);
    }

    fn observe_acknowledged(&mut self, before: Instant, now: Instant) {
        if self.at.is_some_and(|at| now > at) {
            let gap_ms = now.saturating_duration_since(before).as_secs_f64() * 1_000.0;
            self.gap_ms = Some(self.gap_ms.map_or(gap_ms, |longest| longest.max(gap_ms)));
        }
    }

    /// Only a request that was sent after the kill can have been answered by the new process.
    fn observe_return(&mut self, sample: &Sample<'_>) {
        let Some(at) = self.at.filter(|at| sample.sent > *at) else {
            return;
        };
        if self.back_ms.is_none() && sample.served_by == Some(&self.replica) {
            self.back_ms = Some(sample.done.saturating_duration_since(at).as_secs_f64() * 1_000.0);
        }
    }
}

fn histogram() -> Histogram<u64> {
    let highest = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, highest, 3).expect("the bounds are in order and three digits are allowed")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a latency are far below 2^52")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

fn latency_of(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| millis(histogram.value_at_quantile(quantile));
    Latency { p50_ms: at(0.5), p90_ms: at(0.9), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: millis(histogram.max()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::load_test::recorder::{Failure, Outcome, Recorder, Sample};

    fn sample(start: Instant, from_ms: u64, to_ms: u64, outcome: Outcome, served_by: Option<&str>) -> Sample<'_> {
        let at = |ms| start + Duration::from_millis(ms);
        Sample { intended: at(from_ms), sent: at(from_ms), done: at(to_ms), outcome, served_by }
    }

    #[test]
    fn seconds_and_latencies_from_the_intended_moment() {
        let recorder = Recorder::new();
        let start = recorder.start;
        recorder.record(&sample(start, 100, 110, Outcome::Success, Some("A")));
        let late = Sample { intended: start, ..sample(start, 900, 1_100, Outcome::Success, Some("B")) };
        recorder.record(&late);
        recorder.record(&sample(start, 3_000, 3_001, Outcome::Broken, None));
        let totals = recorder.totals(Duration::from_secs(4));
        let seconds: Vec<_> = totals.timeline.iter().map(|one| (one.second, one.requests, one.errors)).collect();
        assert_eq!(seconds, [(0, 1, 0), (1, 1, 0), (3, 1, 1)]);
        assert!((totals.latency.max_ms - 1_100.0).abs() < 2.0, "{:?}", totals.latency);
        assert!((totals.service.max_ms - 200.0).abs() < 2.0, "{:?}", totals.service);
        assert_eq!((totals.requests, totals.broken), (3, 1));
    }

    #[test]
    fn what_was_seen_of_a_kill() {
        let recorder = Recorder::new();
        recorder.kill(Failure::ReplicaKilled, "A", 7);
        let at = recorder.state.lock().kills[0].at.expect("it was just set");
        let before = at - Duration::from_millis(5);
        recorder.record(&Sample { intended: before, sent: before, ..sample(at, 0, 2, Outcome::Success, Some("A")) });
        recorder.record(&sample(at, 1, 10, Outcome::Success, Some("B")));
        recorder.record(&Sample { sent: before, ..sample(at, 0, 20, Outcome::ServerError, None) });
        recorder.record(&sample(at, 21, 30, Outcome::Success, Some("B")));
        recorder.record(&sample(at, 200, 250, Outcome::Success, Some("A")));
        recorder.kill(Failure::NodeFrozen, "B", 8);
        let at = recorder.state.lock().kills[1].at.expect("it was just set");
        recorder.record(&sample(at, 1, 10, Outcome::Success, Some("A")));
        recorder.record(&sample(at, 5_000, 5_010, Outcome::Late, None));
        let mut kills = recorder.totals(Duration::from_secs(4)).kills;
        let later = kills.remove(1);
        assert_eq!((later.first_error_ms, later.first_success_ms.map(f64::round)), (None, Some(10.0)));
        let kill = kills.remove(0);
        assert_eq!(kill.first_error_ms.map(f64::round), Some(20.0));
        assert_eq!(kill.first_success_ms.map(f64::round), Some(30.0));
        assert_eq!(kill.back_ms.map(f64::round), Some(250.0));
    }

    #[test]
    fn the_gap_of_a_failure_is_the_longest_time_without_an_acknowledged_change() {
        let recorder = Recorder::new();
        recorder.acknowledged();
        recorder.kill(Failure::NodeKilled, "node-1", 7);
        std::thread::sleep(Duration::from_millis(30));
        recorder.acknowledged();
        recorder.acknowledged();
        let totals = recorder.totals(Duration::from_secs(4));
        assert!(totals.kills[0].gap_ms.is_some_and(|gap| gap >= 30.0), "{:?}", totals.kills);
        assert_eq!(totals.operations.acknowledged, 3);
    }
}
