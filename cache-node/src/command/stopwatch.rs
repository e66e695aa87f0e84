//! How long the commands of a batch took. Reading the clock takes as long as a tenth of a GET, so it is read once for a stretch of the
//! same short command.

use std::time::Instant;

use crate::{
    command::{Flags, Spec},
    protocol::Args,
};

/// Commands of a stretch.
const STRETCH_MAX: u64 = 16;

/// A stretch that took longer than this for each of its commands was held up by one of them.
const EVEN_NS_MAX: u64 = 8_000;

/// What each of the others is then said to have taken at the most: they are short.
const SHORT_NS: u64 = 1_000;

/// With `slowlog-log-slower-than` at or above this a stretch hides no request that is to be logged; below it each is timed by itself.
const SLOW_NS_MIN: u64 = 2 * STRETCH_MAX * EVEN_NS_MAX;

/// Bytes of a reply, and arguments, up to which a command is short. One with more of either ends its stretch.
const SHORT_REPLY_BYTES: usize = 4 * 1024;
/// See [`SHORT_REPLY_BYTES`].
const SHORT_ARGUMENTS: usize = 16;

/// Times one command after the other.
pub(super) struct Stopwatch {
    /// When what was timed last ended.
    read: Instant,
    /// Commands since then.
    calls: u64,
    calls_max: u64,
}

/// Commands that were timed together, as they are counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// All but the last, and what each of them took.
    pub(super) before: u64,
    pub(super) before_ns_each: u64,
    /// The last one, which had a long reply if one had.
    pub(super) last_ns: u64,
}

impl Stopwatch {
    pub(super) fn start(slowlog_slower_than_ns: u64) -> Stopwatch {
        let calls_max = if slowlog_slower_than_ns < SLOW_NS_MIN { 1 } else { STRETCH_MAX };
        Stopwatch { read: Instant::now(), calls: 0, calls_max }
    }

    /// A command ended. Whether the stretch goes on behind it, if the next command is the same.
    pub(super) fn goes_on(&mut self, spec: &Spec, args: Args<'_>, reply_bytes: usize) -> bool {
        self.calls += 1;
        let is_short =
            spec.flags.has(Flags::FAST.and(Flags::SHORT)) && reply_bytes <= SHORT_REPLY_BYTES && args.len() <= SHORT_ARGUMENTS;
        is_short && self.calls < self.calls_max
    }

    /// Ends the stretch; another begins.
    pub(super) fn read(&mut self) -> Stretch {
        let now = Instant::now();
        let took = now - self.read;
        self.read = now;
        share(std::mem::take(&mut self.calls), took.as_nanos() as u64)
    }
}

/// Shares the time of `calls` commands out, to the last nanosecond.
fn share(calls: u64, took_ns: u64) -> Stretch {
    let before = calls.saturating_sub(1);
    let even = took_ns / calls.max(1);
    let before_ns_each = if even <= EVEN_NS_MAX { even } else { SHORT_NS };
    Stretch { before, before_ns_each, last_ns: took_ns - before * before_ns_each }
}

#[cfg(test)]
mod tests {
    use super::{EVEN_NS_MAX, SHORT_NS, SLOW_NS_MIN, STRETCH_MAX, Stretch, share};

    #[test]
    fn the_sum_is_exact_and_a_slow_one_is_seen() {
        for calls in 1..=STRETCH_MAX {
            for took in (0..2_000).chain([calls * EVEN_NS_MAX, calls * EVEN_NS_MAX + calls, 10_000_000, u64::MAX]) {
                let Stretch { before, before_ns_each, last_ns } = share(calls, took);
                assert_eq!((before + 1, before * before_ns_each + last_ns), (calls, took));
            }
        }
        assert_eq!(share(1, 777), Stretch { before: 0, before_ns_each: 777, last_ns: 777 });
        assert_eq!(share(16, 1_607), Stretch { before: 15, before_ns_each: 100, last_ns: 107 });
        let slow = share(16, 16 * 100 + SLOW_NS_MIN);
        assert_eq!(slow.before_ns_each, SHORT_NS);
        assert!(slow.last_ns >= SLOW_NS_MIN - STRETCH_MAX * SHORT_NS, "{slow:?}");
    }
}
