//! The bounds of the load test.

use std::time::Duration;

/// Shoppers of one run: each has a task and a connection of its own.
pub(crate) const SHOPPERS_MAX: u32 = 5_000;
/// Runs of one test.
pub(crate) const RUNS_MAX: usize = 10;
/// Longest run.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longest wait for one answer. Longer than the balancer's limit and every deadline behind it: a request that has no answer
/// by then is no longer on its way, so it cannot surprise a later look at the cart.
pub(crate) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(35);
/// Largest answer that is read, in bytes.
pub(crate) const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How long a change whose outcome is unknown is repeated under its key before it stays unknown.
pub(crate) const RETRY_TIME_MAX: Duration = Duration::from_secs(20);
/// The first pause between two tries of a change.
pub(crate) const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two tries of a change.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the last look at a cart is tried.
pub(crate) const LAST_LOOK_TIME_MAX: Duration = Duration::from_secs(30);
/// The part of a run within which its shoppers arrive.
pub(crate) const ARRIVAL_SHARE: u32 = 10;
/// The longest time within which the shoppers of a run arrive.
pub(crate) const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(3);
/// Pieces of one product above which a shopper takes some out instead of adding more.
pub(crate) const QUANTITY_MAX: u32 = 20;
/// Findings that are told in words; all of them are counted.
pub(crate) const EXAMPLES_MAX: usize = 20;
/// Longest latency that is told apart from longer ones.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(120);
/// Time between two lines of progress when the output is no terminal.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How late an action at the end of a run must be to count as not begun; a timer alone is late by less.
pub(crate) const BEHIND_MIN: Duration = Duration::from_millis(100);
/// A failure later than this after a kill is told as an error of the run and not as one of that kill.
pub(crate) const KILL_EFFECT_MAX: Duration = Duration::from_secs(3);
