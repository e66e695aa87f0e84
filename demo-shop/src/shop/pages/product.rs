//! One product.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use crate::shop::app::App;
use crate::shop::catalogue::Category;
use crate::shop::database::Product;
use crate::shop::failure::Failure;
use crate::shop::filters;
use crate::shop::html;
use crate::shop::shell::Shell;

#[derive(Template)]
#[template(path = "product.html")]
struct ProductPage {
    shell: Shell,
    product: Product,
    /// How many the visitor has already.
    in_cart: u32,
    related: Vec<Product>,
    here: String,
}

const RELATED_MAX: usize = 4;

pub(crate) async fn show(State(app): State<App>, mut shell: Shell, Path(sku): Path<String>) -> Result<Response, Failure> {
    let product = app.database.product(&sku).await?.ok_or(Failure::NotFound)?;
    shell.category = Category::parse(&product.category);
    let mut related = app.database.products(shell.category, "").await?;
    related.retain(|other| other.sku != product.sku);
    related.truncate(RELATED_MAX);
    let in_cart = shell
        .cart
        .as_ref()
        .and_then(|cart| cart.lines.iter().find(|line| line.sku == product.sku))
        .map_or(0, |line| line.quantity);
    let here = format!("/products/{}", product.sku);
    Ok(html::render(&ProductPage { shell, product, in_cart, related, here })?)
}
