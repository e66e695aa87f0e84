//! The shelves: all products, a category, a search.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use crate::shop::app::App;
use crate::shop::catalogue::Category;
use crate::shop::database::Product;
use crate::shop::failure::Failure;
use crate::shop::filters;
use crate::shop::html;
use crate::shop::shell::Shell;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shelf {
    category: String,
    q: String,
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    shell: Shell,
    products: Vec<Product>,
    /// This page's own address, for the forms to come back to.
    here: String,
}

/// Letters of a search that count.
const SEARCH_LENGTH_MAX: usize = 80;

pub(crate) async fn show(
    State(app): State<App>,
    mut shell: Shell,
    shelf: Result<Query<Shelf>, QueryRejection>,
) -> Result<Response, Failure> {
    // A query string that cannot be read shows all shelves.
    let Shelf { category, q } = shelf.map(|Query(shelf)| shelf).unwrap_or_default();
    shell.category = match category.as_str() {
        "" => None,
        slug => Some(Category::parse(slug).ok_or(Failure::NotFound)?),
    };
    shell.search = q.trim().chars().take(SEARCH_LENGTH_MAX).collect();
    let products = app.database.products(shell.category, &shell.search).await?;
    // A search is left out: it may hold anything, and after adding something all shelves are fine too.
    let here = shell.category.map_or_else(|| "/".to_owned(), |category| format!("/?category={}", category.slug()));
    Ok(html::render(&HomePage { shell, products, here })?)
}
