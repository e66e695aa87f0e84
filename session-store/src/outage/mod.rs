//! What becomes of a request while the store is out of reach.

mod available;
mod route;

use std::time::Duration;

pub use self::{
    available::{Available, SessionUnavailable},
    route::{OutagePolicyLayer, OutagePolicyService, outage_policy},
};

/// The longest that [`OutagePolicy::Wait`] waits: browsers and balancers give up soon after.
///
/// ```
/// assert_eq!(session_store::OUTAGE_WAIT_MAX.as_secs(), 60);
/// ```
pub const OUTAGE_WAIT_MAX: Duration = Duration::from_secs(60);

/// What becomes of a request that uses the session or the cart while the store is out of reach.
///
/// Whatever the policy: an error is never shown as an empty session, nothing is written after a failed read, no cookie is
/// removed, and a request that uses neither session nor cart is served as ever.
///
/// Set for all routes with [`SessionLayer::with_outage_policy`](crate::SessionLayer::with_outage_policy) and for some with
/// [`outage_policy`].
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::{get, post}};
/// use session_store::{CacheStore, OutagePolicy, SessionLayer, outage_policy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), session_store::StoreError> {
/// let store = CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
/// let app: Router = Router::new()
///     .route("/checkout", post(async || "ordered"))
///     .route_layer(outage_policy(OutagePolicy::Wait { max: Duration::from_secs(5) }))
///     .merge(Router::new()
///         .route("/", get(async || "welcome"))
///         .route_layer(outage_policy(OutagePolicy::WithoutSession)))
///     .layer(SessionLayer::new(store));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutagePolicy {
    /// The answer is 503 with Retry-After whenever the session or the cart could not be read or changed, whatever the
    /// handler made of the error.
    #[default]
    FailClosed,
    /// The handler decides: it sees the error, most conveniently as [`SessionUnavailable`] from the extractor
    /// [`Available`], and what it answers is sent. Only when it changed the session, the change could not be stored, and
    /// the method is not a safe one, the answer is 503 with Retry-After, since it would say what is not true.
    WithoutSession,
    /// Operations are repeated until the store is back, so that the visitor sees a slow answer and no error; at the limit
    /// as [`FailClosed`](Self::FailClosed).
    Wait {
        /// How long in all for one request, beyond the deadline of an operation; [`OUTAGE_WAIT_MAX`] at most.
        max: Duration,
    },
}

impl OutagePolicy {
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::FailClosed | Self::WithoutSession => Duration::ZERO,
            Self::Wait { max } => max.min(OUTAGE_WAIT_MAX),
        }
    }

    /// Whether the handler's answer is kept although the store was out of reach.
    pub(crate) fn keeps_answer(self, commit_failed: bool, is_safe: bool) -> bool {
        match self {
            Self::FailClosed | Self::Wait { .. } => false,
            Self::WithoutSession => !commit_failed || is_safe,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{OUTAGE_WAIT_MAX, OutagePolicy};

    #[test]
    fn a_policy_waits_and_keeps_what_it_says() {
        let wait = |max| OutagePolicy::Wait { max };
        assert_eq!(wait(Duration::from_secs(2)).patience(), Duration::from_secs(2));
        assert_eq!(wait(Duration::MAX).patience(), OUTAGE_WAIT_MAX);
        assert_eq!(OutagePolicy::default(), OutagePolicy::FailClosed);
        for (policy, commit_failed, is_safe, keeps) in [
            (OutagePolicy::FailClosed, false, true, false),
            (wait(Duration::ZERO), true, false, false),
            (OutagePolicy::WithoutSession, false, false, true),
            (OutagePolicy::WithoutSession, true, true, true),
            (OutagePolicy::WithoutSession, true, false, false),
        ] {
            assert_eq!(policy.keeps_answer(commit_failed, is_safe), keeps, "{policy:?}");
        }
    }
}
