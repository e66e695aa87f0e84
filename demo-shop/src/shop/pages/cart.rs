//! The cart and its forms.

use std::collections::HashMap;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{Redirect, Response};
use serde::Deserialize;
use session_store::{Cart, CartLine, Session};

use crate::shop::app::App;
use crate::shop::database::{Database, Product};
use crate::shop::failure::{Failure, RETRY_AFTER_SECONDS, Retry, cart_failure};
use crate::shop::filters;
use crate::shop::html;
use crate::shop::ids;
use crate::shop::pages::form;
use crate::shop::shell::Shell;
use crate::shop::uncommitted::Uncommitted;

/// A line of the cart with what the database says about its product.
#[derive(Debug)]
pub(super) struct PricedLine {
    pub(super) sku: String,
    pub(super) quantity: u32,
    /// `None` when the product is no longer for sale.
    pub(super) product: Option<Product>,
}

impl PricedLine {
    fn name(&self) -> &str {
        self.product.as_ref().map_or(&self.sku, |product| &product.name)
    }

    pub(super) fn total_cents(&self) -> i64 {
        self.product.as_ref().map_or(0, |product| product.price_cents.saturating_mul(i64::from(self.quantity)))
    }

    /// Whether there are fewer than the visitor wants.
    pub(super) fn is_short(&self) -> bool {
        self.product.as_ref().is_none_or(|product| product.stock < i64::from(self.quantity))
    }
}

#[derive(Template)]
#[template(path = "cart.html")]
struct CartPage {
    shell: Shell,
    lines: Vec<PricedLine>,
    total_cents: i64,
    can_check_out: bool,
    /// Seconds until the page asks again, while the cart is out of reach.
    refresh: Option<u16>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AddForm {
    sku: String,
    #[serde(default = "one")]
    quantity: u32,
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct UpdateForm {
    sku: String,
    quantity: u32,
    #[serde(default)]
    token: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RemoveForm {
    sku: String,
    #[serde(default)]
    token: String,
}

pub(crate) async fn show(State(app): State<App>, shell: Shell) -> Result<Response, Failure> {
    let lines = match &shell.cart {
        Some(cart) => priced(&app.database, &cart.lines).await?,
        None => Vec::new(),
    };
    let page = CartPage {
        total_cents: lines.iter().map(PricedLine::total_cents).sum(),
        can_check_out: !lines.is_empty() && !lines.iter().any(PricedLine::is_short),
        refresh: shell.is_away().then_some(RETRY_AFTER_SECONDS),
        lines,
        shell,
    };
    Ok(html::render(&page)?)
}

pub(crate) async fn add(
    State(app): State<App>,
    session: Session,
    cart: Cart,
    Extension(uncommitted): Extension<Uncommitted>,
    sent: Result<Form<AddForm>, FormRejection>,
) -> Result<Redirect, Failure> {
    let sent = form::fields(sent)?;
    let product = app.database.product(&sent.sku).await?.ok_or(Failure::NotFound)?;
    let done = match ids::form_token(&sent.token) {
        Some(token) => cart.with_token(token).add(&sent.sku, sent.quantity).await,
        None => cart.add(&sent.sku, sent.quantity).await,
    };
    let retry = || Retry {
        action: "/cart/add",
        fields: vec![
            ("sku", sent.sku.clone()),
            ("quantity", sent.quantity.to_string()),
            ("token", sent.token.clone()),
            ("next", sent.next.clone()),
        ],
    };
    let change = done.map_err(|error| cart_failure(error, retry))?;
    let message = if change.applied {
        format!("{} × {} is in your cart.", sent.quantity, product.name)
    } else {
        format!("{} was in your cart already: sending the form twice counts once.", product.name)
    };
    Ok(form::done(&session, &uncommitted, message, form::next_or(&sent.next, "/cart")).await)
}

pub(crate) async fn update(
    session: Session,
    cart: Cart,
    Extension(uncommitted): Extension<Uncommitted>,
    sent: Result<Form<UpdateForm>, FormRejection>,
) -> Result<Redirect, Failure> {
    let sent = form::fields(sent)?;
    let done = match ids::form_token(&sent.token) {
        Some(token) => cart.with_token(token).set_quantity(&sent.sku, sent.quantity).await,
        None => cart.set_quantity(&sent.sku, sent.quantity).await,
    };
    let retry = || Retry {
        action: "/cart/update",
        fields: vec![("sku", sent.sku.clone()), ("quantity", sent.quantity.to_string()), ("token", sent.token.clone())],
    };
    done.map_err(|error| cart_failure(error, retry))?;
    let message = if sent.quantity == 0 { "Taken out of your cart." } else { "The quantity is changed." };
    Ok(form::done(&session, &uncommitted, message, "/cart").await)
}

pub(crate) async fn remove(
    session: Session,
    cart: Cart,
    Extension(uncommitted): Extension<Uncommitted>,
    sent: Result<Form<RemoveForm>, FormRejection>,
) -> Result<Redirect, Failure> {
    let sent = form::fields(sent)?;
    let done = match ids::form_token(&sent.token) {
        Some(token) => cart.with_token(token).remove(&sent.sku).await,
        None => cart.remove(&sent.sku).await,
    };
    let retry = || Retry { action: "/cart/remove", fields: vec![("sku", sent.sku.clone()), ("token", sent.token.clone())] };
    done.map_err(|error| cart_failure(error, retry))?;
    Ok(form::done(&session, &uncommitted, "Taken out of your cart.", "/cart").await)
}

/// The lines with their products, by name as an order lists them.
pub(super) async fn priced(database: &Database, lines: &[CartLine]) -> Result<Vec<PricedLine>, sqlx::Error> {
    let skus: Vec<&str> = lines.iter().map(|line| line.sku.as_str()).collect();
    let products = database.products_of(&skus).await?;
    let mut products: HashMap<String, Product> = products.into_iter().map(|product| (product.sku.clone(), product)).collect();
    let mut priced: Vec<PricedLine> = lines
        .iter()
        .map(|line| PricedLine { sku: line.sku.clone(), quantity: line.quantity, product: products.remove(&line.sku) })
        .collect();
    priced.sort_by(|one, other| (one.name(), &one.sku).cmp(&(other.name(), &other.sku)));
    Ok(priced)
}

fn one() -> u32 {
    1
}
