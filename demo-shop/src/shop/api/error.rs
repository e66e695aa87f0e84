//! `{"error":{"code":"…","message":"…"}}`

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use session_store::CartError;

use crate::shop::failure::{Failure, RETRY_AFTER_SECONDS};

/// An error that a program can tell from others by its code.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into() }
    }

    pub(crate) fn unknown_sku() -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "unknown_sku", "there is no product with this SKU; GET /api/products lists them")
    }

    fn store_unavailable() -> Self {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "the store of sessions and carts is out of reach; nothing was changed and nothing is lost: send it again later",
        )
    }

    fn outcome_unknown() -> Self {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "outcome_unknown",
            "the store of sessions and carts did not answer in time: the change may have been made or not; with the \
             Idempotency-Key that it had it is safe to send again, without one look at GET /api/cart first",
        )
    }

    /// Of a change, which the store may have made although it did not answer.
    pub(super) fn of_change(error: CartError) -> Self {
        match error {
            CartError::Unavailable(error) if error.may_be_done() => {
                tracing::debug!(%error, "cart");
                ApiError::outcome_unknown()
            }
            error => error.into(),
        }
    }

    fn internal() -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something broke on our side")
    }

    /// What a page would have said, for a program.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        let status = failure.status();
        match failure {
            Failure::NotFound => ApiError::new(status, "not_found", "there is nothing at this path"),
            Failure::Refused { message, .. } => {
                let code = match status {
                    StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
                    StatusCode::FORBIDDEN => "cross_site_request",
                    StatusCode::CONFLICT => "session_ended",
                    StatusCode::SERVICE_UNAVAILABLE => return ApiError::outcome_unknown(),
                    _ => "refused",
                };
                ApiError::new(status, code, message)
            }
            Failure::NotConfirmed(_) => ApiError::outcome_unknown(),
            Failure::StoreAway | Failure::NotChanged(_) | Failure::NotSignedIn { .. } => ApiError::store_unavailable(),
            Failure::Database(_) => ApiError::new(status, "database_unavailable", "the database does not answer"),
            Failure::Busy(message) => ApiError::new(status, "busy", message),
            Failure::Internal(_) => ApiError::internal(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, [(header::CACHE_CONTROL, "no-store")], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

impl From<CartError> for ApiError {
    fn from(error: CartError) -> Self {
        match error {
            CartError::Unavailable(error) => {
                tracing::debug!(%error, "cart");
                ApiError::store_unavailable()
            }
            CartError::SessionEnded => ApiError::new(
                StatusCode::CONFLICT,
                "session_ended",
                "the session ended while the request was running; the cart was not changed",
            ),
            CartError::InvalidSku => ApiError::unknown_sku(),
            CartError::QuantityZero => ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "quantity_zero",
                "the quantity is at least 1; DELETE removes a line",
            ),
            CartError::QuantityTooLarge { max } => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "quantity_too_large", format!("a line holds at most {max}"))
            }
            CartError::TooManyLines { max } => {
                ApiError::new(StatusCode::CONFLICT, "too_many_lines", format!("a cart holds at most {max} different products"))
            }
            error => {
                tracing::error!(%error, "cart");
                ApiError::internal()
            }
        }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "database");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", "the database does not answer")
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "not_json",
            StatusCode::UNPROCESSABLE_ENTITY => "invalid_body",
            _ => "malformed_json",
        };
        ApiError::new(rejection.status(), code, rejection.body_text())
    }
}
