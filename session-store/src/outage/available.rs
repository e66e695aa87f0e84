//! The session, if the store can be reached.

use std::time::Duration;

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::RETRY_AFTER, request::Parts};

use crate::{Cart, Session, StoreError};

/// Takes the session out of a request and reads it at once, so that a handler knows whether there can be one before it
/// does anything else. One round trip, none for a visitor without a session.
///
/// Alone, it refuses the request with [`SessionUnavailable`]; as a `Result` it lets the handler go on without a session, on
/// routes with [`OutagePolicy::WithoutSession`](crate::OutagePolicy::WithoutSession).
///
/// ```
/// use session_store::{Available, SessionUnavailable};
///
/// async fn home(session: Result<Available, SessionUnavailable>) -> String {
///     match session {
///         Ok(Available(session)) => match session.get::<String>("name").await {
///             Ok(Some(name)) => format!("Welcome back, {name}"),
///             _ => "Welcome".to_owned(),
///         },
///         // Not the page of a stranger: nobody knows who this is.
///         Err(_) => "Welcome. Your cart is out of reach for a moment.".to_owned(),
///     }
/// }
/// # let route: axum::Router = axum::Router::new().route("/", axum::routing::get(home));
/// ```
#[derive(Debug, Clone)]
pub struct Available(pub Session);

/// The store is out of reach, so that nothing can be said about the visitor's session. As an answer: 503 with Retry-After.
///
/// ```
/// use session_store::SessionUnavailable;
///
/// fn log(unavailable: &SessionUnavailable) {
///     println!("{unavailable}; again in {:?}", unavailable.retry_after());
/// }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("the session is out of reach: {source}")]
pub struct SessionUnavailable {
    source: StoreError,
}

impl SessionUnavailable {
    /// Why.
    ///
    /// ```
    /// fn is_outage(unavailable: &session_store::SessionUnavailable) -> bool {
    ///     unavailable.error().is_outage()
    /// }
    /// ```
    #[must_use]
    pub fn error(&self) -> &StoreError {
        &self.source
    }

    /// When to try again: what Retry-After says.
    ///
    /// ```
    /// fn seconds(unavailable: &session_store::SessionUnavailable) -> u64 {
    ///     unavailable.retry_after().as_secs()
    /// }
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl From<StoreError> for SessionUnavailable {
    fn from(source: StoreError) -> Self {
        Self { source }
    }
}

impl IntoResponse for SessionUnavailable {
    fn into_response(self) -> Response {
        let text = "The session is out of reach for a moment. Please try again.\n";
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], text).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Available {
    type Rejection = SessionUnavailable;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionUnavailable> {
        let (Some(session), Some(cart)) = (parts.extensions.get::<Session>(), parts.extensions.get::<Cart>()) else {
            let reason = "there is no SessionLayer around this route".to_owned();
            return Err(StoreError::InvalidSettings { reason }.into());
        };
        cart.unit.ensure_read().await?;
        Ok(Self(session.clone()))
    }
}
