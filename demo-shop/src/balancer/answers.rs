//! The answers the balancer gives itself, when no replica could.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use crate::balancer::limits::{REQUEST_BODY_MAX, RETRY_AFTER_SECONDS};

/// What went wrong between the client and the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No replica is up, or every one that is refused.
    NoReplica,
    /// Every replica that is up has as many exchanges as it may.
    Busy,
    /// The connection broke after an unsafe request was sent: it may have been carried out.
    Broken,
    /// No answer in time to an unsafe request, or from any replica.
    Late,
    /// The request's body is over the limit.
    BodyTooLarge,
    /// The client sent no body that could be read, or a target that cannot be forwarded.
    BadRequest,
}

impl Trouble {
    /// The answer, as JSON for a machine's paths and as a page for everybody else.
    pub(crate) fn answer(self, uri: &Uri, headers: &HeaderMap) -> Response {
        let (status, code, message) = self.text();
        let mut response = if wants_json(uri, headers) {
            (status, Json(json!({ "error": { "code": code, "message": message }, "served_by": "balancer" }))).into_response()
        } else {
            (status, Html(self.page())).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-served-by", HeaderValue::from_static("balancer"));
        if matches!(self, Self::NoReplica | Self::Busy) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }

    fn text(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoReplica => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_replica",
                "No replica of the shop is up at this moment. Nothing was changed; the cart is safe. Try again.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Every replica of the shop is at its limit. Nothing was changed. Try again.",
            ),
            Self::Broken => (
                StatusCode::BAD_GATEWAY,
                "connection_broken",
                "The replica went away while it worked on this change, so the change may or may not have been made. \
                 Look at the cart, or repeat the request with the same Idempotency-Key: it counts once.",
            ),
            Self::Late => (
                StatusCode::GATEWAY_TIMEOUT,
                "no_answer_in_time",
                "The shop did not answer in time. A change may or may not have been made. \
                 Look at the cart, or repeat the request with the same Idempotency-Key: it counts once.",
            ),
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The request's body is over the limit of 1 MiB.")
            }
            Self::BadRequest => (
                StatusCode::BAD_REQUEST,
                "bad_request",
                "The request cannot be forwarded: its target, its Host or its body could not be read.",
            ),
        }
    }

    /// One page without anything to load: whatever it would load comes from the replicas that are away.
    fn page(self) -> String {
        let (_, _, message) = self.text();
        // A page that repeats an unsafe request by itself would be worse than none: only these two refresh.
        let (title, refresh) = match self {
            Self::NoReplica | Self::Busy => ("Back in a moment", "<meta http-equiv=\"refresh\" content=\"2\">"),
            Self::Broken | Self::Late => ("We are not sure that worked", ""),
            Self::BodyTooLarge | Self::BadRequest => ("That request is not one for us", ""),
        };
        let message = match self {
            Self::NoReplica => {
                "The shop is restarting. Your cart is kept outside of it, so nothing is lost. This page looks again by itself."
            }
            Self::Busy => "Many people are shopping right now. This page looks again by itself.",
            Self::Broken | Self::Late => {
                "The part of the shop that worked on your last step went away in the middle of it. Your cart is safe; \
                 please look whether the step is in it."
            }
            _ => message,
        };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
             <style>:root{{color-scheme:light dark}}body{{font:17px/1.6 system-ui,sans-serif;margin:0;min-height:100vh;\
             display:grid;place-items:center;background:light-dark(#f6f7f9,#14171c);color:light-dark(#1d2430,#e6e9ef)}}\
             main{{max-width:32rem;padding:2rem;text-align:center}}h1{{font-size:1.5rem}}a{{color:light-dark(#0b62c4,#7db7ff)}}\
             </style></head><body><main><h1>{title}</h1><p>{message}</p>\
             <p><a href=\"/cart\">Look at the cart</a> · <a href=\"/\">Home</a></p></main></body></html>"
        )
    }
}

fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    if uri.path().starts_with("/api/") {
        return true;
    }
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json") && !accept.contains("text/html"))
}

const _: () = assert!(REQUEST_BODY_MAX == 1024 * 1024, "the text of BodyTooLarge names 1 MiB");
