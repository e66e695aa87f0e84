//! The breaker of a node: whether requests may be sent to it. Time is handed in.
//!
//! It opens when no connection can be made, and when answers in time are outnumbered: by [`DEFICIT_OPENS`], and, where it is lateness
//! and no refusal, for [`DEADLINES_OUTNUMBERED`] deadlines. A deficit is counted and no row of failures, so that a node which
//! answers most requests is asked, one that answers fewer than half is not, and neither depends on how many ask at once.
//!
//! It closes when a probe is answered in time. A node that is partly in time would pass that soon, and open it again soon, over
//! and over: so a breaker that opens again within [`RELAPSE_WITHIN`] closes only after [`PROOF_MIN`] answers in a row, each in
//! time, and after twice as many for each further relapse, up to [`PROOF_MAX`]. Where nobody listens any more, a process has
//! ended, and nothing is held against its successor: that one is back with its first answer.

use std::{
    fmt,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// By how many the requests that were not answered in time, or that the node said it cannot serve, exceed the answers when
/// it opens. A connection that cannot be made is enough by itself.
const DEFICIT_OPENS: u32 = 3;
/// Nothing is counted beyond it: after as many answers a pause is forgotten, however many requests it met.
const DEFICIT_MAX: u32 = 32;
/// Deadlines for which answers in time must have been outnumbered: a pause that many requests meet at once is no outage.
const DEADLINES_OUTNUMBERED: u32 = 2;
/// For this long after the breaker has closed, one failure of any kind opens it again, if nothing was answered: a node that
/// answers a probe and nothing else is not back.
const PROBATION: Duration = Duration::from_secs(1);
/// When it opens again so soon after it has closed, the node has not recovered.
const RELAPSE_WITHIN: Duration = Duration::from_secs(10);
/// Answers in time, in a row, that close it after the first relapse. Of a node that is late half of the time one in 256 probes
/// is answered so.
const PROOF_MIN: u32 = 8;
/// The most that is asked for, which takes a node that is well about five seconds.
const PROOF_MAX: u32 = 128;

/// Whether requests are sent to a node.
///
/// ```
/// assert_eq!(session_store::BreakerState::HalfOpen.to_string(), "half-open");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Requests are sent.
    Closed,
    /// Requests are refused at once, and a probe in the background looks whether the node is back.
    Open,
    /// Requests are still refused; a probe has reached the node and waits for its answer, or for several in a row if the node has
    /// failed again soon after it was back.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made.
    Unreachable,
    /// A request was not answered within the deadline.
    Late,
    /// The node answers that it is not, or not yet, the one to ask.
    NotServing,
}

/// What became of a failure or a success that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened,
    Closed { after: Duration },
}

#[derive(Debug)]
pub(crate) struct Breaker {
    // Beside the details, so that a request pays one load.
    state: AtomicU8,
    deficit: AtomicU32,
    answer_within: Duration,
    details: Mutex<Details>,
    closed: Notify,
}

#[derive(Debug)]
struct Details {
    /// When it opened or closed last.
    since: Instant,
    /// `false` until it has opened for the first time: nothing is known against a new node.
    has_opened: bool,
    /// How often in a row it opened soon after it had closed.
    relapses: u32,
    /// Since when there is a deficit; `None` for the one with which a node comes back.
    outnumbered_since: Option<Instant>,
    /// The failure that opened it, or the latest one of a probe.
    reason: String,
}

impl Breaker {
    pub(crate) fn new(answer_within: Duration, now: Instant) -> Self {
        let details = Details { since: now, has_opened: false, relapses: 0, outnumbered_since: None, reason: String::new() };
        Self {
            state: AtomicU8::new(CLOSED),
            deficit: AtomicU32::new(0),
            answer_within,
            details: Mutex::new(details),
            closed: Notify::new(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state.load(Ordering::Acquire) {
            CLOSED => BreakerState::Closed,
            OPEN => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// How long it has been in this state, half-open counted as open, and what for.
    pub(crate) fn since(&self, now: Instant) -> (Duration, String) {
        let details = self.details.lock();
        (now.saturating_duration_since(details.since), details.reason.clone())
    }

    /// The node has answered a request.
    pub(crate) fn answered(&self) {
        if self.deficit.load(Ordering::Relaxed) != 0 {
            let _details = self.details.lock();
            self.deficit.store(self.deficit.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, failure: Failure, reason: &str, now: Instant) -> Change {
        let mut details = self.details.lock();
        if !self.is_closed() {
            reason.clone_into(&mut details.reason);
            return Change::None;
        }
        let closed_for = now.saturating_duration_since(details.since);
        let mut deficit = self.deficit.load(Ordering::Relaxed);
        if details.outnumbered_since.is_none() && closed_for >= PROBATION {
            deficit = 0;
        }
        if deficit == 0 {
            details.outnumbered_since = Some(now);
        }
        deficit = (deficit + 1).min(DEFICIT_MAX);
        self.deficit.store(deficit, Ordering::Relaxed);
        let is_outnumbered_for_long = details
            .outnumbered_since
            .is_none_or(|since| now.saturating_duration_since(since) >= DEADLINES_OUTNUMBERED * self.answer_within);
        let opens = match failure {
            Failure::Unreachable => true,
            Failure::NotServing => deficit >= DEFICIT_OPENS,
            Failure::Late => deficit >= DEFICIT_OPENS && is_outnumbered_for_long,
        };
        if !opens {
            return Change::None;
        }
        let is_relapse = details.has_opened && closed_for < RELAPSE_WITHIN;
        *details = Details {
            since: now,
            has_opened: true,
            relapses: if is_relapse { details.relapses.saturating_add(1) } else { 0 },
            outnumbered_since: None,
            reason: reason.to_owned(),
        };
        self.state.store(OPEN, Ordering::Release);
        Change::Opened
    }

    /// How many answers in time a probe needs, in a row, to close it.
    pub(crate) fn proof(&self) -> u32 {
        match self.details.lock().relapses {
            0 => 1,
            relapses => PROOF_MIN.saturating_mul(2_u32.saturating_pow(relapses - 1)).min(PROOF_MAX),
        }
    }

    /// A probe has reached the node.
    pub(crate) fn half_open(&self) {
        let _details = self.details.lock();
        if self.state.load(Ordering::Relaxed) == OPEN {
            self.state.store(HALF_OPEN, Ordering::Release);
        }
    }

    /// A probe has failed. `is_gone`: nobody listens there, so that whoever does later is another process.
    pub(crate) fn reopen(&self, reason: &str, is_gone: bool) {
        let mut details = self.details.lock();
        if !self.is_closed() {
            reason.clone_into(&mut details.reason);
            if is_gone {
                details.relapses = 0;
            }
            self.state.store(OPEN, Ordering::Release);
        }
    }

    /// A probe was answered in time, as often as it has to be.
    pub(crate) fn close(&self, now: Instant) -> Change {
        let mut details = self.details.lock();
        if self.is_closed() {
            return Change::None;
        }
        let after = now.saturating_duration_since(details.since);
        details.since = now;
        details.outnumbered_since = None;
        // One failure before the first answer is enough.
        self.deficit.store(DEFICIT_OPENS - 1, Ordering::Relaxed);
        self.state.store(CLOSED, Ordering::Release);
        drop(details);
        self.closed.notify_waiters();
        Change::Closed { after }
    }

    /// Returns when it is closed.
    pub(crate) async fn until_closed(&self) {
        loop {
            let closed = self.closed.notified();
            let mut closed = std::pin::pin!(closed);
            closed.as_mut().enable();
            if self.is_closed() {
                return;
            }
            closed.await;
        }
    }
}

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const HALF_OPEN: u8 = 2;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{
        Breaker, BreakerState, Change, DEFICIT_MAX, DEFICIT_OPENS, Failure, PROBATION, PROOF_MAX, PROOF_MIN, RELAPSE_WITHIN,
    };

    const DEADLINE: Duration = Duration::from_millis(250);
    /// Between the questions of a probe.
    const PAUSE: Duration = Duration::from_millis(40);

    fn breaker(now: Instant) -> Breaker {
        Breaker::new(DEADLINE, now)
    }

    #[test]
    fn a_connection_that_cannot_be_made_opens_it_and_a_probe_that_is_answered_closes_it() {
        let now = Instant::now();
        let breaker = breaker(now);
        assert_eq!(breaker.failed(Failure::Unreachable, "refused", now), Change::Opened);
        assert_eq!(breaker.failed(Failure::Unreachable, "refused again", now), Change::None);
        breaker.half_open();
        assert_eq!((breaker.state(), breaker.is_closed()), (BreakerState::HalfOpen, false));
        breaker.reopen("no answer", false);
        let later = now + Duration::from_secs(7);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.since(later), (Duration::from_secs(7), "no answer".to_owned()));
        assert_eq!(breaker.proof(), 1);
        assert_eq!(breaker.close(later), Change::Closed { after: Duration::from_secs(7) });
        assert_eq!(breaker.close(later), Change::None);
        breaker.half_open();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_pause_that_many_requests_meet_at_once_does_not_open_it_and_one_that_goes_on_does() {
        let now = Instant::now();
        let breaker = breaker(now);
        for _ in 0..1_000 {
            assert_eq!(breaker.failed(Failure::Late, "late", now), Change::None);
        }
        for _ in 0..DEFICIT_MAX {
            breaker.answered();
        }
        let later = now + 3 * DEADLINE;
        for turn in 0..2 {
            assert_eq!(breaker.failed(Failure::Late, "late", later + turn * DEADLINE), Change::None);
        }
        assert_eq!(breaker.failed(Failure::Late, "late", later + 2 * DEADLINE), Change::Opened);
    }

    #[test]
    fn a_node_that_says_that_it_cannot_serve_opens_it_at_once() {
        let now = Instant::now();
        let breaker = breaker(now);
        for _ in 1..DEFICIT_OPENS {
            assert_eq!(breaker.failed(Failure::NotServing, "LOADING", now), Change::None);
        }
        breaker.answered();
        assert_eq!(breaker.failed(Failure::NotServing, "LOADING", now), Change::None);
        assert_eq!(breaker.failed(Failure::NotServing, "LOADING", now), Change::Opened);
    }

    /// A thousand requests, one after the other every 5 ms, of which so many of a hundred are late.
    fn is_opened_by(late_percent: u32) -> bool {
        let mut now = Instant::now();
        let breaker = breaker(now);
        (0..1_000).any(|number| {
            now += Duration::from_millis(5);
            // Spread evenly: a step of 61 meets each of the hundred once.
            if number * 61 % 100 < late_percent {
                return breaker.failed(Failure::Late, "late", now) == Change::Opened;
            }
            breaker.answered();
            false
        })
    }

    #[test]
    fn the_share_of_late_answers_decides_and_not_how_many_there_are() {
        assert!([0, 10, 30, 45].iter().all(|percent| !is_opened_by(*percent)));
        assert!([60, 70, 90, 100].iter().all(|percent| is_opened_by(*percent)));
    }

    #[test]
    fn a_node_that_fails_right_after_its_return_is_not_back() {
        let now = Instant::now();
        let breaker = breaker(now);
        breaker.failed(Failure::Unreachable, "refused", now);
        breaker.close(now);
        assert_eq!(breaker.failed(Failure::Late, "late", now + PROBATION / 2), Change::Opened);
        breaker.close(now);
        assert_eq!(breaker.failed(Failure::Late, "late", now + PROBATION), Change::None);
        breaker.failed(Failure::Unreachable, "refused", now);
        breaker.close(now);
        for _ in 1..DEFICIT_OPENS {
            breaker.answered();
        }
        assert_eq!(breaker.failed(Failure::Late, "late", now + PROBATION / 2), Change::None);
    }

    #[test]
    fn a_relapse_needs_a_longer_proof_unless_it_is_another_process() {
        let mut now = Instant::now();
        let breaker = breaker(now);
        breaker.failed(Failure::Unreachable, "no answer", now);
        let mut proofs = Vec::new();
        for _ in 0..7 {
            proofs.push(breaker.proof());
            breaker.close(now);
            now += RELAPSE_WITHIN / 2;
            breaker.failed(Failure::Unreachable, "no answer", now);
        }
        assert_eq!(proofs, [1, PROOF_MIN, 16, 32, 64, PROOF_MAX, PROOF_MAX]);
        breaker.reopen("no answer", false);
        assert_eq!(breaker.proof(), PROOF_MAX);
        breaker.reopen("connection refused", true);
        assert_eq!(breaker.proof(), 1);

        for _ in 0..2 {
            breaker.close(now);
            breaker.failed(Failure::Unreachable, "no answer", now);
        }
        assert_eq!(breaker.proof(), 2 * PROOF_MIN);
        breaker.close(now);
        breaker.failed(Failure::Unreachable, "no answer", now + RELAPSE_WITHIN);
        assert_eq!(breaker.proof(), 1);
    }

    /// The worst that a node can do: each proof is given as fast as it can be, and the next request fails.
    #[test]
    fn it_opens_no_more_than_sixteen_times_a_minute_whatever_a_node_does() {
        let mut now = Instant::now();
        let breaker = breaker(now);
        for minute in 0..5 {
            let ends = now + Duration::from_secs(60);
            let mut opened = 0;
            while now < ends {
                assert_eq!(breaker.failed(Failure::Unreachable, "no answer", now), Change::Opened);
                opened += 1;
                now += (breaker.proof() - 1) * PAUSE;
                breaker.close(now);
            }
            assert!(opened <= 16, "{opened} times in minute {minute}");
        }
    }
}
