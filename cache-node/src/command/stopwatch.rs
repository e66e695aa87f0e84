//! How long the commands of a batch took. Reading the clock takes as long as a tenth of a GET, so it is read once for a stretch of the
//! same short command.
//!
//! Which of a stretch took long cannot be told afterwards, so nothing in it may but the last: a command that shows that it was long ends its
//! stretch. What such a stretch took is its last command's but for a little. In one without, each command did little, and where it took
//! long nevertheless the system had stopped the thread: that is shared out evenly, and the slow log names none of them.

use std::time::Instant;

use crate::command::{Flags, Spec};

/// Commands of a stretch.
const STRETCH_MAX: u64 = 16;

/// What each of those before a long command is counted with at the most: they are short.
const SHORT_NS: u64 = 1_000;

/// With `slowlog-log-slower-than` at or above this a stretch hides no request that is to be logged: no short command takes nearly so long,
/// and what all the others of a stretch took is little beside it. Below it each request is timed by itself.
const SLOW_NS_MIN: u64 = 1_000_000;

/// Bytes of the arguments, of the reply, and of memory that came or went, up to which a command is short.
const SHORT_BYTES: usize = 4 * 1024;
/// Arguments up to which a command is short.
const SHORT_ARGUMENTS: usize = 16;

/// Times one command after the other.
pub(super) struct Stopwatch {
    /// When what was timed last ended.
    read: Instant,
    /// Commands since then.
    calls: u64,
    calls_max: u64,
    /// Whether the last of them may have taken long.
    is_last_long: bool,
}

/// Commands that were timed together, as they are counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// All but the last, and what each of them took.
    pub(super) before: u64,
    pub(super) before_ns_each: u64,
    pub(super) last_ns: u64,
    /// What the slow log is told that the last one took, if that is known: never less than it did, and more by the little of the others.
    pub(super) told_ns: Option<u64>,
}

impl Stopwatch {
    pub(super) fn start(slowlog_slower_than_ns: u64) -> Stopwatch {
        let calls_max = if slowlog_slower_than_ns < SLOW_NS_MIN { 1 } else { STRETCH_MAX };
        Stopwatch { read: Instant::now(), calls: 0, calls_max, is_last_long: false }
    }

    /// A command ended, which had arguments and a reply and moved memory of so many bytes. Whether the stretch goes on behind it, if the
    /// next command is the same.
    #[inline]
    pub(super) fn goes_on(&mut self, spec: &Spec, arguments: usize, bytes: [usize; 3]) -> bool {
        self.calls += 1;
        let is_short =
            spec.flags.has(Flags::SHORT) && arguments <= SHORT_ARGUMENTS && bytes.iter().all(|bytes| *bytes <= SHORT_BYTES);
        self.is_last_long = !is_short;
        is_short && self.calls < self.calls_max
    }

    /// Ends the stretch; another begins.
    pub(super) fn read(&mut self) -> Stretch {
        let now = Instant::now();
        let took = now - self.read;
        self.read = now;
        share(std::mem::take(&mut self.calls), took.as_nanos() as u64, self.is_last_long)
    }
}

/// Shares the time of `calls` commands out, to the last nanosecond.
fn share(calls: u64, took_ns: u64, is_last_long: bool) -> Stretch {
    let before = calls.saturating_sub(1);
    let even = took_ns / calls.max(1);
    let before_ns_each = if is_last_long { even.min(SHORT_NS) } else { even };
    let told_ns = (before == 0 || is_last_long).then_some(took_ns);
    Stretch { before, before_ns_each, last_ns: took_ns - before * before_ns_each, told_ns }
}

#[cfg(test)]
mod tests {
    use super::{SHORT_ARGUMENTS, SHORT_BYTES, SLOW_NS_MIN, STRETCH_MAX, Stopwatch, Stretch, share};
    use crate::command::{names, table::TABLE};

    fn goes_on(stopwatch: &mut Stopwatch, name: &str, arguments: usize, bytes: [usize; 3]) -> bool {
        let row = names::find(name.as_bytes()).unwrap_or_else(|| panic!("{name} is a command"));
        stopwatch.goes_on(&TABLE[row], arguments, bytes)
    }

    #[test]
    fn the_sum_is_exact() {
        for calls in 1..=STRETCH_MAX {
            for took in (0..2_000).chain([calls * 8_000 + 1, SLOW_NS_MIN, 10_000_000, u64::MAX]) {
                for is_last_long in [false, true] {
                    let Stretch { before, before_ns_each, last_ns, .. } = share(calls, took, is_last_long);
                    assert_eq!((before + 1, before * before_ns_each + last_ns), (calls, took));
                }
            }
        }
    }

    #[test]
    fn a_request_is_told_slow_only_where_its_own_time_is_known() {
        let alone = Stretch { before: 0, before_ns_each: 777, last_ns: 777, told_ns: Some(777) };
        assert_eq!(share(1, 777, false), alone);
        let even = Stretch { before: 15, before_ns_each: 100, last_ns: 107, told_ns: None };
        assert_eq!(share(16, 1_607, false), even);
        let held_up = Stretch { before: 15, before_ns_each: 1_250_000, last_ns: 1_250_000, told_ns: None };
        assert_eq!(share(16, 20_000_000, false), held_up);
        // A long one of exactly what is slow is logged.
        for each in [100, 1_000, 5_000] {
            let told_ns = share(16, 15 * each + SLOW_NS_MIN, true).told_ns;
            let bounds = SLOW_NS_MIN..SLOW_NS_MIN + SLOW_NS_MIN / 10;
            assert!(told_ns.is_some_and(|told_ns| bounds.contains(&told_ns)), "{told_ns:?}");
        }
    }

    #[test]
    fn what_may_have_taken_long_ends_its_stretch() {
        let few = [SHORT_BYTES; 3];
        let stopwatch = || Stopwatch::start(SLOW_NS_MIN);
        for name in ["GET", "SET", "SETEX", "HGET", "HMGET", "HGETALL", "MGET", "EXISTS", "TTL", "TYPE"] {
            let mut stopwatch = stopwatch();
            for call in 1..STRETCH_MAX {
                assert!(goes_on(&mut stopwatch, name, SHORT_ARGUMENTS, few), "{name}, call {call}");
            }
            assert!(!goes_on(&mut stopwatch, name, SHORT_ARGUMENTS, few), "{name}");
            assert!(stopwatch.read().told_ns.is_none(), "{name}");
        }
        let over = SHORT_BYTES + 1;
        for (arguments, bytes) in [(SHORT_ARGUMENTS + 1, [0; 3]), (2, [over, 0, 0]), (2, [0, over, 0]), (2, [0, 0, over])] {
            let mut stopwatch = stopwatch();
            assert!(goes_on(&mut stopwatch, "SET", 3, few));
            assert!(!goes_on(&mut stopwatch, "SET", arguments, bytes), "{arguments} arguments, bytes {bytes:?}");
            assert!(stopwatch.read().told_ns.is_some());
        }
        // Redis calls them fast as well, but what they do depends on what the key holds.
        for name in ["APPEND", "INCR", "LPOP", "ZPOPMIN", "SPOP", "ZCOUNT", "HSET", "SADD", "RPUSH", "ZADD", "UNLINK", "GETSET"] {
            assert!(!goes_on(&mut stopwatch(), name, 2, [0; 3]), "{name}");
        }
        assert!(!goes_on(&mut Stopwatch::start(SLOW_NS_MIN - 1), "GET", 2, [0; 3]));
    }
}
