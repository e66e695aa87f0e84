//! `/api/cart` and its lines.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use session_store::{Cart, CartChange, CartError, IdempotencyToken};

use crate::shop::api::ApiError;
use crate::shop::app::App;
use crate::shop::ids;

/// A visitor's whole cart.
#[derive(Debug, Serialize)]
pub(crate) struct WholeCart {
    revision: u64,
    lines: Vec<Line>,
    served_by: String,
}

#[derive(Debug, Serialize)]
struct Line {
    sku: String,
    quantity: u32,
}

/// What a change has made of the cart.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    revision: u64,
    sku: String,
    /// Of this line, now.
    quantity: u32,
    /// Different products in the cart.
    line_count: u64,
    /// Pieces in the cart.
    count: u64,
    /// `false` when this Idempotency-Key was seen before and nothing was changed again.
    applied: bool,
    served_by: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Addition {
    sku: String,
    quantity: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Quantity {
    quantity: i64,
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// `GET /api/cart`
pub(crate) async fn show(State(app): State<App>, cart: Cart) -> Result<Json<WholeCart>, ApiError> {
    let snapshot = cart.snapshot().await?;
    let lines = snapshot.lines.into_iter().map(|line| Line { sku: line.sku, quantity: line.quantity }).collect();
    Ok(Json(WholeCart { revision: snapshot.revision, lines, served_by: app.name.clone() }))
}

/// `POST /api/cart/lines`
pub(crate) async fn add(
    State(app): State<App>,
    cart: Cart,
    headers: HeaderMap,
    body: Result<Json<Addition>, JsonRejection>,
) -> Result<Json<Changed>, ApiError> {
    let Json(Addition { sku, quantity }) = body?;
    let token = idempotency_key(&headers)?;
    let quantity = quantity_of(quantity)?;
    if app.database.product(&sku).await?.is_none() {
        return Err(ApiError::unknown_sku());
    }
    let change = match token {
        Some(token) => cart.with_token(token).add(&sku, quantity).await,
        None => cart.add(&sku, quantity).await,
    };
    changed(&app, sku, change)
}

/// `PUT /api/cart/lines/{sku}`
pub(crate) async fn set(
    State(app): State<App>,
    cart: Cart,
    Path(sku): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Quantity>, JsonRejection>,
) -> Result<Json<Changed>, ApiError> {
    let Json(Quantity { quantity }) = body?;
    let token = idempotency_key(&headers)?;
    let quantity = quantity_of(quantity)?;
    if app.database.product(&sku).await?.is_none() {
        return Err(ApiError::unknown_sku());
    }
    let change = match token {
        Some(token) => cart.with_token(token).set_quantity(&sku, quantity).await,
        None => cart.set_quantity(&sku, quantity).await,
    };
    changed(&app, sku, change)
}

/// `DELETE /api/cart/lines/{sku}`: also of a product that is no longer for sale, and of a line that is gone already.
pub(crate) async fn remove(
    State(app): State<App>,
    cart: Cart,
    Path(sku): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Changed>, ApiError> {
    let change = match idempotency_key(&headers)? {
        Some(token) => cart.with_token(token).remove(&sku).await,
        None => cart.remove(&sku).await,
    };
    changed(&app, sku, change)
}

fn changed(app: &App, sku: String, change: Result<CartChange, CartError>) -> Result<Json<Changed>, ApiError> {
    let change = change.map_err(ApiError::of_change)?;
    Ok(Json(Changed {
        revision: change.revision,
        sku,
        quantity: change.quantity,
        line_count: change.lines as u64,
        count: change.count,
        applied: change.applied,
        served_by: app.name.clone(),
    }))
}

/// The cart itself knows the upper limit; a number past `u32` is past it as well.
fn quantity_of(quantity: i64) -> Result<u32, ApiError> {
    match quantity {
        0 => Err(CartError::QuantityZero.into()),
        ..0 => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "quantity_negative", "the quantity is at least 1")),
        _ => Ok(u32::try_from(quantity).unwrap_or(u32::MAX)),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyToken>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(ids::parse_token);
    let refused = || {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_idempotency_key",
            "an Idempotency-Key is 1 to 255 visible ASCII characters, new for each change",
        )
    };
    token.map(Some).ok_or_else(refused)
}
