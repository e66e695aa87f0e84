//! The answer of a handler that could not reach the session or the cart.

use axum_core::response::{IntoResponse, Response};
use http::{StatusCode, header::RETRY_AFTER};

use crate::{CartError, StoreError, UpdateError};

/// What a handler returns when it can do nothing without the session: 503 with Retry-After for an outage, 409 when the
/// session ended meanwhile, 422 for a change of the cart that its limits refuse.
///
/// Made by `?` from the errors of [`Session`](crate::Session), [`Cart`](crate::Cart) and [`CacheStore`](crate::CacheStore). A page that can be shown without
/// them matches on the error instead.
///
/// ```
/// use session_store::{Session, Unavailable};
///
/// async fn visits(session: Session) -> Result<String, Unavailable> {
///     let visits = session.get::<u32>("visits").await?.unwrap_or(0) + 1;
///     session.insert("visits", visits).await?;
///     Ok(format!("visit {visits}"))
/// }
/// # let route: axum::Router = axum::Router::new().route("/", axum::routing::get(visits));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Unavailable {
    status: StatusCode,
    text: String,
}

impl From<tower_sessions::session::Error> for Unavailable {
    fn from(error: tower_sessions::session::Error) -> Self {
        use tower_sessions::session::Error;
        match error {
            Error::Store(error) => {
                tracing::debug!(%error, "the session is out of reach");
                let text = "The session is out of reach for a moment. Please try again.\n".to_owned();
                Self { status: StatusCode::SERVICE_UNAVAILABLE, text }
            }
            // The handler asked for another type than it stored.
            Error::SerdeJson(error) => {
                tracing::error!(%error, "a value of the session has another type");
                Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: "This page has a fault.\n".to_owned() }
            }
        }
    }
}

impl From<StoreError> for Unavailable {
    fn from(error: StoreError) -> Self {
        if error.is_conflict() {
            return Self { status: StatusCode::CONFLICT, text: format!("{error}\n") };
        }
        tower_sessions::session::Error::Store(error.into()).into()
    }
}

impl From<UpdateError> for Unavailable {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Store(error) => error.into(),
            UpdateError::Session(error) => error.into(),
            UpdateError::OtherType(error) | UpdateError::Unwritable(error) => {
                tower_sessions::session::Error::SerdeJson(error).into()
            }
            UpdateError::OtherLayer => {
                tracing::error!(%error, "a value cannot be updated");
                Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: "This page has a fault.\n".to_owned() }
            }
        }
    }
}

impl From<CartError> for Unavailable {
    fn from(error: CartError) -> Self {
        match error {
            CartError::Unavailable(error) => {
                tracing::debug!(%error, "the cart is out of reach");
                let text = "The cart is out of reach for a moment. Please try again.\n".to_owned();
                Self { status: StatusCode::SERVICE_UNAVAILABLE, text }
            }
            CartError::SessionEnded => Self { status: StatusCode::CONFLICT, text: format!("{error}\n") },
            _ => Self { status: StatusCode::UNPROCESSABLE_ENTITY, text: format!("{error}\n") },
        }
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => (self.status, [(RETRY_AFTER, "1")], self.text).into_response(),
            status => (status, self.text).into_response(),
        }
    }
}
