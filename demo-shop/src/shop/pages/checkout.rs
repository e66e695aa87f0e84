//! Checkout: from a cart to an order, once.

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use session_store::{Cart, CartSnapshot, Session};

use crate::shop::app::App;
use crate::shop::database::{Address, NewOrder, Order, PlaceError};
use crate::shop::failure::{Failure, Retry};
use crate::shop::filters;
use crate::shop::html;
use crate::shop::ids;
use crate::shop::pages::cart::{PricedLine, priced};
use crate::shop::pages::form;
use crate::shop::pages::orders::{self, Cleared};
use crate::shop::shell::Shell;
use crate::shop::visitor::{self, FlashKind};

/// Characters that a field of the address may have.
const FIELD_LENGTH_MAX: usize = 120;
/// RFC 5321's limit for a path, less the angle brackets.
pub(super) const EMAIL_LENGTH_MAX: usize = 254;

#[derive(Debug, Deserialize)]
pub(crate) struct CheckoutForm {
    token: String,
    /// What the page showed, as [`mark_of`] names it; empty from whoever saw no page.
    #[serde(default)]
    seen: String,
    email: String,
    recipient: String,
    street: String,
    postcode: String,
    city: String,
    country: String,
}

/// What is wrong with an address, a field each.
#[derive(Debug, Default)]
struct Mistakes {
    email: Option<&'static str>,
    recipient: Option<&'static str>,
    street: Option<&'static str>,
    postcode: Option<&'static str>,
    city: Option<&'static str>,
    country: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "checkout.html")]
struct CheckoutPage {
    shell: Shell,
    token: String,
    seen: String,
    address: Address,
    mistakes: Mistakes,
    cart_changed: bool,
    lines: Vec<PricedLine>,
    total_cents: i64,
}

/// Where the shop sends parcels.
const COUNTRIES: [&str; 8] = ["Austria", "Belgium", "Denmark", "France", "Germany", "Netherlands", "Norway", "Sweden"];

impl CheckoutPage {
    fn countries(&self) -> [&'static str; 8] {
        COUNTRIES
    }

    fn is_chosen(&self, country: &str) -> bool {
        self.address.country == country
    }

    fn has_mistakes(&self) -> bool {
        self.mistakes.any()
    }
}

pub(crate) async fn show(State(app): State<App>, session: Session, cart: Cart, shell: Shell) -> Result<Response, Failure> {
    let Some(snapshot) = &shell.cart else {
        return Err(Failure::StoreAway);
    };
    if snapshot.lines.is_empty() {
        return Ok(empty_cart(&session).await);
    }
    // Whoever will own the order is in the session before the form is sent, so that a form sent twice at the same
    // time is one owner's.
    visitor::owner_or_new_guest(&session).await?;
    let address = Address {
        email: shell.user.as_ref().map(|user| user.email.clone()).unwrap_or_default(),
        recipient: shell.user.as_ref().map(|user| user.name.clone()).unwrap_or_default(),
        ..Address::default()
    };
    let token = ids::random_id();
    page(&app, &cart, shell, Filled { token, address, mistakes: Mistakes::default(), cart_changed: false }).await
}

pub(crate) async fn submit(
    State(app): State<App>,
    session: Session,
    cart: Cart,
    sent: Result<Form<CheckoutForm>, FormRejection>,
) -> Result<Response, Failure> {
    let sent = form::fields(sent)?;
    if !ids::is_random_id(&sent.token) {
        return Err(Failure::Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: "This form has no valid token. Please open the checkout again.".to_owned(),
        });
    }
    let owner = visitor::owner_or_guest_of_form(&session, &sent.token).await;
    // A form that has its order already needs nothing but that order, however often it comes.
    if let Some(order) = app.database.order_by_token(&sent.token).await? {
        return finish(&app, &session, &cart, order, owner.ok()).await;
    }
    let not_made = || Failure::NotChanged(Box::new(sent.retry()));
    let owner = owner.map_err(|_| not_made())?;
    let address = sent.address();
    let mistakes = Mistakes::of(&address);
    if mistakes.any() {
        let shell = Shell::read(&app, &session, &cart).await;
        let filled = Filled { token: sent.token.clone(), address, mistakes, cart_changed: false };
        let mut response = page(&app, &cart, shell, filled).await?;
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        return Ok(response);
    }
    let snapshot = cart.snapshot().await.map_err(|_| not_made())?;
    if !snapshot.lines.is_empty() {
        if !sent.seen.is_empty() && sent.seen != mark_of(&snapshot, &priced(&app.database, &snapshot.lines).await?) {
            // The other submit of this very form may be why.
            if let Some(order) = app.database.order_by_token(&sent.token).await? {
                return finish(&app, &session, &cart, order, Some(owner)).await;
            }
            let shell = Shell::read(&app, &session, &cart).await;
            let filled = Filled { token: sent.token.clone(), address, mistakes, cart_changed: true };
            let mut response = page(&app, &cart, shell, filled).await?;
            *response.status_mut() = StatusCode::CONFLICT;
            return Ok(response);
        }
        let order = NewOrder {
            id: &ids::order_id(),
            token: &sent.token,
            owner: &owner,
            address: &address,
            lines: snapshot.lines.into_iter().map(|line| (line.sku, line.quantity)).collect(),
        };
        if let Err(error) = app.database.place_order(order).await {
            return cannot_place(&session, error).await;
        }
    }
    // An empty cart may be the other submit's doing: its order says so.
    match app.database.order_by_token(&sent.token).await? {
        Some(order) => finish(&app, &session, &cart, order, Some(owner)).await,
        None => Ok(empty_cart(&session).await),
    }
}

/// Takes what was ordered out of the cart and shows the order.
async fn finish(app: &App, session: &Session, cart: &Cart, order: Order, owner: Option<String>) -> Result<Response, Failure> {
    if owner.as_ref().is_some_and(|owner| *owner != order.owner) {
        return Err(Failure::Refused {
            status: StatusCode::CONFLICT,
            message: "This form was used for another order. Please open the checkout again.".to_owned(),
        });
    }
    let cleared = orders::clear_cart(app, cart, &order).await?;
    if owner.is_some() && cleared == Cleared::Yes {
        return Ok(Redirect::to(&format!("/orders/{}", order.id)).into_response());
    }
    // The redirect's page would need the store, which is away: the confirmation is given right here. Who does not
    // come with a readable session sees no address.
    let shell = Shell::read(app, session, cart).await;
    orders::page(shell, order, cleared, owner.is_some())
}

async fn cannot_place(session: &Session, error: PlaceError) -> Result<Response, Failure> {
    let message = match error {
        PlaceError::OutOfStock { name, available: 0, .. } => format!("{name} has just been sold out. Nothing was ordered."),
        PlaceError::OutOfStock { name, available, .. } => {
            format!("Of {name} there are only {available} left. Nothing was ordered.")
        }
        PlaceError::Gone { .. } => "Something in your cart is no longer for sale. Nothing was ordered.".to_owned(),
        PlaceError::Database(error) => return Err(error.into()),
    };
    visitor::leave_flash(session, FlashKind::Note, message).await;
    Ok(Redirect::to("/cart").into_response())
}

async fn empty_cart(session: &Session) -> Response {
    visitor::leave_flash(session, FlashKind::Note, "Your cart is empty, so there is nothing to check out.").await;
    Redirect::to("/cart").into_response()
}

/// The form as it is shown.
struct Filled {
    token: String,
    address: Address,
    mistakes: Mistakes,
    cart_changed: bool,
}

async fn page(app: &App, cart: &Cart, shell: Shell, filled: Filled) -> Result<Response, Failure> {
    let snapshot = match &shell.cart {
        Some(snapshot) => snapshot.clone(),
        None => cart.snapshot().await.map_err(|_| Failure::StoreAway)?,
    };
    let lines = priced(&app.database, &snapshot.lines).await?;
    let seen = mark_of(&snapshot, &lines);
    let total_cents = total(&lines);
    let Filled { token, address, mistakes, cart_changed } = filled;
    Ok(html::render(&CheckoutPage { shell, token, seen, address, mistakes, cart_changed, lines, total_cents })?)
}

/// What a checkout page shows: another cart has another revision, and other prices another total.
fn mark_of(snapshot: &CartSnapshot, lines: &[PricedLine]) -> String {
    format!("{}-{}", snapshot.revision, total(lines))
}

fn total(lines: &[PricedLine]) -> i64 {
    lines.iter().map(PricedLine::total_cents).fold(0, i64::saturating_add)
}

impl CheckoutForm {
    fn address(&self) -> Address {
        // Control characters belong on no label, and PostgreSQL does not take all of them.
        let clean = |text: &str| {
            let blank = |character: char| character.is_whitespace() || character.is_control();
            text.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        };
        Address {
            email: clean(&self.email),
            recipient: clean(&self.recipient),
            street: clean(&self.street),
            postcode: clean(&self.postcode),
            city: clean(&self.city),
            country: clean(&self.country),
        }
    }

    fn retry(&self) -> Retry {
        Retry {
            action: "/checkout",
            fields: vec![
                ("token", self.token.clone()),
                ("seen", self.seen.clone()),
                ("email", self.email.clone()),
                ("recipient", self.recipient.clone()),
                ("street", self.street.clone()),
                ("postcode", self.postcode.clone()),
                ("city", self.city.clone()),
                ("country", self.country.clone()),
            ],
        }
    }
}

impl Mistakes {
    fn of(address: &Address) -> Self {
        let text = |text: &str, missing| match text.chars().count() {
            0 => Some(missing),
            length if length > FIELD_LENGTH_MAX => Some("That is too long for a parcel label."),
            _ => None,
        };
        Mistakes {
            email: (!is_email(&address.email)).then_some("Please give an e-mail address like you@example.com."),
            recipient: text(&address.recipient, "Who is it for?"),
            street: text(&address.street, "Please give a street and a number."),
            postcode: text(&address.postcode, "Please give a postcode.").or_else(|| {
                let fits = address.postcode.len() <= 12
                    && address.postcode.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-'));
                (!fits).then_some("A postcode has up to 12 letters and digits.")
            }),
            city: text(&address.city, "Please give a city."),
            country: (!COUNTRIES.contains(&address.country.as_str())).then_some("Please choose a country from the list."),
        }
    }

    fn any(&self) -> bool {
        [self.email, self.recipient, self.street, self.postcode, self.city, self.country].iter().any(Option::is_some)
    }
}

/// Whether `text` could be an address. Only a message sent to it tells more.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    text.len() <= EMAIL_LENGTH_MAX
        && !local.is_empty()
        && !text.contains(|character: char| character.is_whitespace() || character.is_control())
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_email;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        for good in ["ada@example.com", "a.b+c@mail.example.org"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "ada", "ada@", "@example.com", "ada@localhost", "a b@example.com", "ada@example..com"] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
