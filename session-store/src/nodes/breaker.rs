//! The breaker of a node: whether requests may be sent to it. Time is handed in.

use std::{
    fmt,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Deadlines in a row during which a connection was silent, or answers in a row that the node cannot serve, until no more
/// requests are sent there. A connection that cannot be made is enough by itself.
const FAILURES_MAX: u32 = 3;
/// For this long after the breaker has closed, one failure of any kind opens it again: a node that answers a probe and
/// nothing else is not back.
const PROBATION: Duration = Duration::from_secs(1);

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
    /// Requests are still refused; a probe has reached the node and waits for its answer.
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
    /// Nothing came over a connection for a whole deadline.
    Silent,
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
    failures: AtomicU32,
    details: Mutex<Details>,
    closed: Notify,
}

#[derive(Debug)]
struct Details {
    /// When it opened or closed last.
    since: Instant,
    /// `false` until it has opened for the first time: nothing is known against a new node.
    probation: bool,
    /// The failure that opened it, or the latest one of a probe.
    reason: String,
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: AtomicU8::new(CLOSED),
            failures: AtomicU32::new(0),
            details: Mutex::new(Details { since: now, probation: false, reason: String::new() }),
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
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self, failure: Failure, reason: &str, now: Instant) -> Change {
        let mut details = self.details.lock();
        if !self.is_closed() {
            reason.clone_into(&mut details.reason);
            return Change::None;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let on_probation = details.probation && now.saturating_duration_since(details.since) < PROBATION;
        if failure != Failure::Unreachable && failures < FAILURES_MAX && !on_probation {
            return Change::None;
        }
        *details = Details { since: now, probation: true, reason: reason.to_owned() };
        self.state.store(OPEN, Ordering::Release);
        Change::Opened
    }

    /// A probe has reached the node.
    pub(crate) fn half_open(&self) {
        let _details = self.details.lock();
        if self.state.load(Ordering::Relaxed) == OPEN {
            self.state.store(HALF_OPEN, Ordering::Release);
        }
    }

    /// A probe has failed.
    pub(crate) fn reopen(&self, reason: &str) {
        let mut details = self.details.lock();
        if !self.is_closed() {
            reason.clone_into(&mut details.reason);
            self.state.store(OPEN, Ordering::Release);
        }
    }

    /// A probe was answered in time.
    pub(crate) fn close(&self, now: Instant) -> Change {
        let mut details = self.details.lock();
        if self.is_closed() {
            return Change::None;
        }
        let after = now.saturating_duration_since(details.since);
        details.since = now;
        self.failures.store(0, Ordering::Relaxed);
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

    use super::{Breaker, BreakerState, Change, FAILURES_MAX, Failure, PROBATION};

    #[test]
    fn a_connection_that_cannot_be_made_opens_it_and_a_probe_that_is_answered_closes_it() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        assert_eq!(breaker.failed(Failure::Unreachable, "refused", now), Change::Opened);
        assert_eq!(breaker.failed(Failure::Unreachable, "refused again", now), Change::None);
        breaker.half_open();
        assert_eq!((breaker.state(), breaker.is_closed()), (BreakerState::HalfOpen, false));
        breaker.reopen("no answer");
        let later = now + Duration::from_secs(7);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.since(later), (Duration::from_secs(7), "no answer".to_owned()));
        assert_eq!(breaker.close(later), Change::Closed { after: Duration::from_secs(7) });
        assert_eq!(breaker.close(later), Change::None);
        breaker.half_open();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn silence_opens_it_only_when_it_is_repeated() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(Failure::Silent, "silent", now), Change::None);
        }
        breaker.answered();
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(Failure::NotServing, "LOADING", now), Change::None);
        }
        assert_eq!(breaker.failed(Failure::Silent, "silent", now), Change::Opened);
    }

    #[test]
    fn a_node_that_fails_right_after_its_return_is_not_back() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        breaker.failed(Failure::Unreachable, "refused", now);
        breaker.close(now);
        assert_eq!(breaker.failed(Failure::Silent, "silent", now + PROBATION / 2), Change::Opened);
        breaker.close(now);
        assert_eq!(breaker.failed(Failure::Silent, "silent", now + PROBATION), Change::None);
    }
}
