//! From a template to an answer.

use askama::Template;
use axum::http::header;
use axum::response::{IntoResponse, Response};

/// A page. Pages name the visitor and their cart, so no cache keeps them.
pub(crate) fn render(page: &impl Template) -> Result<Response, askama::Error> {
    let body = page.render()?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], body).into_response())
}
