//! JSON for machines.

pub(crate) mod cart;
mod error;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

pub(crate) use crate::shop::api::error::ApiError;
use crate::shop::app::App;
use crate::shop::database;

#[derive(Debug, Serialize)]
pub(crate) struct Products {
    products: Vec<Product>,
}

#[derive(Debug, Serialize)]
struct Product {
    sku: String,
    name: String,
    category: String,
    price_cents: i64,
    stock: i64,
}

impl From<database::Product> for Product {
    fn from(product: database::Product) -> Self {
        let database::Product { sku, name, category, price_cents, stock, .. } = product;
        Product { sku, name, category, price_cents, stock }
    }
}

/// `GET /api/products`
pub(crate) async fn products(State(app): State<App>) -> Result<Json<Products>, ApiError> {
    let products = app.database.products(None, "").await?;
    Ok(Json(Products { products: products.into_iter().map(Product::from).collect() }))
}
