//! Routes that read the session from the store whatever the near cache has.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::Cart;

/// The routes under this layer read the session from the primary of the store, never from the near cache or a replica: for what decides who
/// may do what. It stands inside the [`SessionLayer`](crate::SessionLayer), as with axum's `route_layer`.
///
/// ```
/// use axum::{Router, routing::get};
/// use session_store::fresh_session;
///
/// let admin: Router = Router::new().route("/admin", get(async || "secret")).route_layer(fresh_session());
/// ```
pub fn fresh_session() -> FreshSessionLayer {
    FreshSessionLayer(())
}

/// The layer that [`fresh_session`] makes.
///
/// ```
/// let layer: session_store::FreshSessionLayer = session_store::fresh_session();
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a layer does nothing until it is added to a router"]
pub struct FreshSessionLayer(());

impl<S> Layer<S> for FreshSessionLayer {
    type Service = FreshSessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FreshSessionService { inner }
    }
}

/// The service that [`FreshSessionLayer`] makes of another one.
///
/// ```
/// use session_store::{FreshSessionService, fresh_session};
/// use tower::Layer as _;
///
/// let service: FreshSessionService<axum::Router> = fresh_session().layer(axum::Router::new());
/// ```
#[derive(Debug, Clone)]
pub struct FreshSessionService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for FreshSessionService<S>
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
            Some(cart) => cart.unit.read_fresh(),
            None => tracing::error!("fresh_session has no effect: it must stand inside of the SessionLayer"),
        }
        self.inner.call(request)
    }
}
