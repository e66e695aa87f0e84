//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// Asks `condition` until it answers `Some`, at most for `limit`.
///
/// # Errors
/// When `limit` has passed; `what` is what was waited for.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut condition: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if started.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        tokio::time::sleep(POLL).await;
    }
}
