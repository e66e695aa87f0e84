//! Order confirmation and history.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use session_store::{Cart, Session};

use crate::shop::app::App;
use crate::shop::database::Order;
use crate::shop::failure::Failure;
use crate::shop::filters;
use crate::shop::html;
use crate::shop::ids;
use crate::shop::shell::Shell;
use crate::shop::visitor;

/// Whether what was ordered has left the cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleared {
    Yes,
    /// The store was out of reach; the next look at the order does it.
    Pending,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage {
    shell: Shell,
    order: Order,
    is_pending: bool,
    with_address: bool,
}

#[derive(Template)]
#[template(path = "orders.html")]
struct OrdersPage {
    shell: Shell,
    orders: Vec<Order>,
}

pub(crate) async fn show(
    State(app): State<App>,
    session: Session,
    cart: Cart,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let owner = visitor::owner(&session).await?;
    // Somebody else's order does not exist.
    let order = app.database.order(&id).await?.filter(|order| Some(&order.owner) == owner.as_ref()).ok_or(Failure::NotFound)?;
    let cleared = clear_cart(&app, &cart, &order).await?;
    // Read after the clearing, so that the badge shows the cart as it is now.
    let shell = Shell::read(&app, &session, &cart).await;
    page(shell, order, cleared, true)
}

pub(crate) async fn list(State(app): State<App>, session: Session, shell: Shell) -> Result<Response, Failure> {
    let orders = match visitor::owner(&session).await? {
        Some(owner) => app.database.orders_of(&owner).await?,
        None => Vec::new(),
    };
    Ok(html::render(&OrdersPage { shell, orders })?)
}

/// Takes exactly what was ordered out of the cart. The order's token makes it count once, and the database
/// remembers that it was done for as long as the order itself.
pub(super) async fn clear_cart(app: &App, cart: &Cart, order: &Order) -> Result<Cleared, Failure> {
    if order.cart_cleared {
        return Ok(Cleared::Yes);
    }
    let Some(token) = ids::parse_token(&order.token) else {
        return Ok(Cleared::Pending);
    };
    let lines: Vec<(&str, u32)> = order.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
    match cart.with_token(token).subtract(&lines).await {
        Ok(_) => {
            app.database.mark_cart_cleared(&order.id).await?;
            Ok(Cleared::Yes)
        }
        Err(error) => {
            tracing::warn!(order = order.id, %error, "an order stands, but its lines are still in the cart");
            Ok(Cleared::Pending)
        }
    }
}

pub(super) fn page(shell: Shell, order: Order, cleared: Cleared, with_address: bool) -> Result<Response, Failure> {
    let is_pending = cleared == Cleared::Pending;
    Ok(html::render(&OrderPage { shell, order, is_pending, with_address })?)
}
