//! The same answers without a session.

use axum::{Json, Router, extract::Query, routing::get};

use crate::content::{Line, NAME, Sku};

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/plain", get(async || "plain"))
        .route("/seed", get(async || "seeded"))
        .route("/read", get(async || NAME))
        .route("/write", get(async || 1.to_string()))
        .route("/cart/add", get(add))
        .route("/cart", get(async || Json(Vec::<Line>::new())))
}

async fn add(Query(line): Query<Sku>) -> String {
    u32::from(!line.sku.is_empty()).to_string()
}
