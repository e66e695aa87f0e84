//! How long to wait before a dead process is started again.

use std::time::Duration;

use crate::fleet::limits::{RESTART_DELAY_MAX, RESTART_DELAY_MIN, STABLE_AFTER};

/// Immediately at first, then [`RESTART_DELAY_MIN`], doubled up to [`RESTART_DELAY_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes how long the process had run; after a stable time the waits begin anew.
    pub(crate) fn note_uptime(&mut self, uptime: Duration) {
        if uptime >= STABLE_AFTER {
            self.failures = 0;
        }
    }

    /// The wait before the next start.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                RESTART_DELAY_MIN.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(RESTART_DELAY_MAX)
            }
        };
        self.failures = self.failures.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fleet::backoff::Backoff;

    #[test]
    fn immediate_then_doubled_up_to_the_limit() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..9).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next_delay().as_millis(), 5_000);
    }

    #[test]
    fn a_stable_run_begins_anew() {
        let mut backoff = Backoff::default();
        backoff.next_delay();
        backoff.note_uptime(Duration::from_secs(9));
        assert_ne!(backoff.next_delay(), Duration::ZERO);
        backoff.note_uptime(Duration::from_secs(10));
        assert_eq!(backoff.next_delay(), Duration::ZERO);
    }
}
