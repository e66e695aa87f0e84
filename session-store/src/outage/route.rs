//! A policy of its own for some routes.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::OutagePolicy;
use crate::Cart;

/// Gives the routes under this layer a policy of their own. It stands inside the [`SessionLayer`](crate::SessionLayer), as
/// with axum's `route_layer`; the innermost one counts.
///
/// It works because the session is read only when the handler asks for it.
///
/// ```
/// use axum::{Router, routing::get};
/// use session_store::{OutagePolicy, outage_policy};
///
/// let home: Router = Router::new()
///     .route("/", get(async || "welcome"))
///     .route_layer(outage_policy(OutagePolicy::WithoutSession));
/// ```
pub fn outage_policy(policy: OutagePolicy) -> OutagePolicyLayer {
    OutagePolicyLayer { policy }
}

/// The layer that [`outage_policy`] makes.
///
/// ```
/// use session_store::{OutagePolicy, OutagePolicyLayer, outage_policy};
///
/// let layer: OutagePolicyLayer = outage_policy(OutagePolicy::WithoutSession);
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a layer does nothing until it is added to a router"]
pub struct OutagePolicyLayer {
    policy: OutagePolicy,
}

impl<S> Layer<S> for OutagePolicyLayer {
    type Service = OutagePolicyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OutagePolicyService { inner, policy: self.policy }
    }
}

/// The service that [`OutagePolicyLayer`] makes of another one.
///
/// ```
/// use session_store::{OutagePolicy, OutagePolicyService, outage_policy};
/// use tower::Layer as _;
///
/// let service: OutagePolicyService<axum::Router> = outage_policy(OutagePolicy::WithoutSession).layer(axum::Router::new());
/// ```
#[derive(Debug, Clone)]
pub struct OutagePolicyService<S> {
    inner: S,
    policy: OutagePolicy,
}

impl<S, B> Service<Request<B>> for OutagePolicyService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        match request.extensions().get::<Cart>() {
            Some(cart) => cart.unit.set_outage_policy(self.policy),
            None => tracing::error!("outage_policy has no effect: it must stand inside of the SessionLayer"),
        }
        self.inner.call(request)
    }
}
