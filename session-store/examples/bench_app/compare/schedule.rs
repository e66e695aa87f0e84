//! When requests are due in an open loop.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Times from the beginning of a turn to each request that is due in it: at random, as visitors come who know nothing of each
/// other. With one seed they are the same for each mode.
pub(super) struct Schedule {
    random: StdRng,
    per_second: f64,
    at: f64,
    end: f64,
}

impl Schedule {
    pub(super) fn new(per_second: f64, turn: Duration, seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), per_second, at: 0.0, end: turn.as_secs_f64() }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // `random` is below 1, so that there is a logarithm.
        self.at += -(1.0 - self.random.random::<f64>()).ln() / self.per_second;
        // Not a number neither, where the rate is none.
        (self.at < self.end).then(|| Duration::from_secs_f64(self.at))
    }
}

#[test]
fn as_many_are_due_as_the_rate_says_within_the_turn_and_in_order() {
    let turn = Duration::from_secs(10);
    let due: Vec<Duration> = Schedule::new(10_000.0, turn, 1).collect();
    // A hundredth is more than three times what chance makes of 100,000.
    assert!((99_000..101_000).contains(&due.len()), "{}", due.len());
    assert!(due.is_sorted() && *due.last().expect("there are some") < turn);
    assert_eq!(due, Schedule::new(10_000.0, turn, 1).collect::<Vec<_>>(), "each mode gets the same");
    assert_ne!(due, Schedule::new(10_000.0, turn, 2).collect::<Vec<_>>(), "each round gets others");
}

#[test]
fn gaps_are_those_of_chance() {
    let due: Vec<Duration> = Schedule::new(1_000.0, Duration::from_secs(100), 3).collect();
    let longer = due.windows(2).filter(|pair| pair[1] - pair[0] > Duration::from_millis(1)).count();
    // Of exponential gaps 1/e is longer than the mean; of even ones all or none would be.
    let share = longer as f64 / due.len() as f64;
    assert!((0.35..0.39).contains(&share), "{share}");
}

#[test]
fn without_a_rate_nothing_is_due() {
    assert_eq!(Schedule::new(0.0, Duration::from_secs(1), 1).count(), 0);
}
