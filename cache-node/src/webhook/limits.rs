//! Every bound and period of webhooks, by name. How many events may wait is said where they are ([`crate::events`]).

use std::time::Duration;

/// How long a try to deliver an event may take.
pub(super) const TRY_MAX: Duration = Duration::from_secs(5);

/// Tries of one event, over about two minutes.
pub(super) const TRIES_MAX: u32 = 9;

/// The wait after the first try that failed; it doubles.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(500);
/// See [`DELAY_MIN`].
pub(super) const DELAY_MAX: Duration = Duration::from_secs(60);

/// How long the end of the process waits for events that are still to be delivered.
pub(super) const END_MAX: Duration = Duration::from_secs(3);

/// Receivers.
pub(crate) const TARGETS_MAX: usize = 8;
