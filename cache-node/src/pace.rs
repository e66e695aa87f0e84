//! How work on all data shares a core with the threads that serve.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Work after which others get the core for certain.
const PIECE: Duration = Duration::from_micros(250);

/// As short as the kernel has it, which is 50 µs more: long enough for whoever was woken meanwhile.
const NAP: Duration = Duration::from_micros(1);

/// Of the time worked, so much may be lost by naps. On a core that others keep busy a nap lasts until they give it up, and the work has to
/// come to its end there as well.
const LOST_SHARE_MAX: f64 = 0.5;

/// Gives the core up between pieces of work. A thread that is woken to serve a request does not get the core before the one that has it
/// gives it up, or the kernel looks at its clock, every 4 ms. Yielding is not enough: who has just served much is not the next by the
/// kernel's count. A lower priority would halve the wait, and keep a lock for as long as others are busy.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    worked: Duration,
    lost: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { since: Instant::now(), worked: Duration::ZERO, lost: Duration::ZERO }
    }
}

impl Pace {
    /// To be called without a lock, more often than pieces are over.
    pub(crate) fn step(&mut self) {
        let now = Instant::now();
        let piece = now.duration_since(self.since);
        if piece < PIECE || self.lost > (self.worked + piece).mul_f64(LOST_SHARE_MAX) {
            return thread::yield_now();
        }
        thread::sleep(NAP);
        let back = Instant::now();
        self.worked += piece;
        self.lost += back.duration_since(now);
        self.since = back;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::{PIECE, Pace};

    #[test]
    fn there_are_naps_but_not_while_they_have_cost_too_much() {
        let mut pace = Pace::default();
        let start = Instant::now();
        while start.elapsed() < 4 * PIECE || pace.lost.is_zero() {
            pace.step();
        }
        pace.lost = pace.worked + Duration::from_secs(60);
        let before = pace.worked;
        thread::sleep(PIECE);
        pace.step();
        assert_eq!(pace.worked, before);
    }
}
