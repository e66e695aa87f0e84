//! `/pictures/{sku}.svg`

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::shop::assets;
use crate::shop::failure::Failure;
use crate::shop::pictures;

/// A month: the address has no hash in it, and a later version of the shop may draw better.
const A_MONTH: &str = "public, max-age=2592000";

pub(crate) async fn show(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    let svg = file.strip_suffix(".svg").and_then(pictures::svg).ok_or(Failure::NotFound)?;
    Ok(assets::cached(&headers, &assets::hash(svg.as_bytes()), "image/svg+xml", A_MONTH, svg))
}
