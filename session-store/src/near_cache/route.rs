//! Routes that read the session from the store whatever the near cache has.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Cart, service::unavailable};

/// The routes under this layer read the session from the primary of the store, never from the near cache or a replica: for what decides who
/// may do what. It stands inside the [`SessionLayer`](crate::SessionLayer), as with axum's `route_layer`.
///
/// It stands directly inside the [`SessionLayer`](crate::SessionLayer), outside of everything that reads the session. What a layer between the
/// two has read is saved and read again, with a warning in the log; but what such a layer has made of it, such as the user of
/// axum-login's `AuthSession`, stays as old as it was, and so does the handle of tower-sessions 0.14. Where the store is out of reach for
/// that second read, the answer is 503.
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

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for FreshSessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: From<&'static str>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let Some(unit) = request.extensions().get::<Cart>().map(|cart| Arc::clone(&cart.unit)) else {
            tracing::error!("fresh_session has no effect: it must stand inside of the SessionLayer");
            return Box::pin(self.inner.call(request));
        };
        if !unit.read_fresh() {
            return Box::pin(self.inner.call(request));
        }
        tracing::warn!(
            "the session was read before it came to fresh_session, and is read again: put fresh_session outside of what reads it, \
             which may have kept what it saw"
        );
        // The one that is ready answers; its clone may not be.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        Box::pin(async move {
            if let Err(error) = unit.read_again().await {
                tracing::warn!(%error, "a session that was to be fresh could not be read again");
                return Ok(unavailable());
            }
            drop(unit);
            inner.call(request).await
        })
    }
}
