//! Register, log in, log out, account.

use askama::Template;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use session_store::{Cart, Session};

use crate::shop::app::App;
use crate::shop::database::{NewUser, Order, RegisterError};
use crate::shop::failure::Failure;
use crate::shop::filters;
use crate::shop::html;
use crate::shop::ids;
use crate::shop::pages::checkout::is_email;
use crate::shop::pages::devices::{self, Device};
use crate::shop::pages::form;
use crate::shop::passwords::Busy;
use crate::shop::shell::Shell;
use crate::shop::visitor::{self, FlashKind, User};

/// NIST SP 800-63B asks for at least 8; the upper bound keeps hashing cheap for the shop.
const PASSWORD_LENGTH_MIN: usize = 8;
const PASSWORD_LENGTH_MAX: usize = 128;
const NAME_LENGTH_MAX: usize = 80;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Next {
    next: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LoginForm {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RegisterForm {
    name: String,
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    email: String,
    next: String,
    mistake: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "register.html")]
struct RegisterPage {
    shell: Shell,
    name: String,
    email: String,
    next: String,
    mistake: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    user: User,
    orders: Vec<Order>,
    devices: Vec<Device>,
}

/// Orders that the account page shows; the history has the rest.
const RECENT_ORDERS: usize = 3;

pub(crate) async fn show(State(app): State<App>, session: Session, shell: Shell) -> Result<Response, Failure> {
    let Some(user) = visitor::user(&session).await? else {
        return Ok(Redirect::to("/login?next=/account").into_response());
    };
    let mut orders = app.database.orders_of(&user.owner()).await?;
    orders.truncate(RECENT_ORDERS);
    let devices = devices::of_user(&app, &session, &user).await?;
    Ok(html::render(&AccountPage { shell, user, orders, devices })?)
}

pub(crate) async fn show_login(shell: Shell, next: Result<Query<Next>, QueryRejection>) -> Result<Response, Failure> {
    if shell.user.is_some() {
        return Ok(Redirect::to("/account").into_response());
    }
    let next = next.map(|Query(Next { next })| next).unwrap_or_default();
    Ok(html::render(&LoginPage { shell, email: String::new(), next, mistake: None })?)
}

pub(crate) async fn show_register(shell: Shell, next: Result<Query<Next>, QueryRejection>) -> Result<Response, Failure> {
    if shell.user.is_some() {
        return Ok(Redirect::to("/account").into_response());
    }
    let next = next.map(|Query(Next { next })| next).unwrap_or_default();
    Ok(html::render(&RegisterPage { shell, name: String::new(), email: String::new(), next, mistake: None })?)
}

pub(crate) async fn log_in(
    State(app): State<App>,
    session: Session,
    cart: Cart,
    sent: Result<Form<LoginForm>, FormRejection>,
) -> Result<Response, Failure> {
    let LoginForm { email, password, next } = form::fields(sent)?;
    let email = email.trim().to_lowercase();
    let account = if is_email(&email) && password.len() <= PASSWORD_LENGTH_MAX * 4 {
        app.database.user_by_email(&email).await?
    } else {
        None
    };
    let stored = account.as_ref().map(|account| account.password_hash.clone());
    let fits = app.passwords.verify(password, stored).await??;
    match account {
        Some(account) if fits => {
            let user = User { id: account.id, email: account.email, name: account.name };
            sign_in(&app, &session, &cart, &user).await?;
            visitor::leave_flash(&session, FlashKind::Done, format!("Welcome back, {}.", user.name)).await;
            Ok(Redirect::to(form::next_or(&next, "/account")).into_response())
        }
        _ => {
            let shell = Shell::read(&app, &session, &cart).await;
            // The same words whether there is no such account or the password is wrong.
            let mistake = Some("That e-mail address and password do not go together.");
            Ok((StatusCode::UNPROCESSABLE_ENTITY, html::render(&LoginPage { shell, email, next, mistake })?).into_response())
        }
    }
}

pub(crate) async fn register(
    State(app): State<App>,
    session: Session,
    cart: Cart,
    sent: Result<Form<RegisterForm>, FormRejection>,
) -> Result<Response, Failure> {
    let RegisterForm { name, email, password, next } = form::fields(sent)?;
    let (name, email) = (name.trim().to_owned(), email.trim().to_lowercase());
    let mistake = match mistake_in(&name, &email, &password) {
        Some(mistake) => mistake,
        None => {
            let password_hash = app.passwords.hash(password).await??;
            let id = ids::random_id();
            let user = NewUser { id: &id, email: &email, name: &name, password_hash: &password_hash };
            match app.database.register(&user).await {
                Ok(()) => {
                    let user = User { id, email, name };
                    sign_in(&app, &session, &cart, &user).await?;
                    visitor::leave_flash(&session, FlashKind::Done, format!("Welcome, {}.", user.name)).await;
                    return Ok(Redirect::to(form::next_or(&next, "/account")).into_response());
                }
                Err(RegisterError::EmailTaken) => {
                    "We could not make an account with these details. If you have one already, please log in."
                }
                Err(RegisterError::Database(error)) => return Err(error.into()),
            }
        }
    };
    let shell = Shell::read(&app, &session, &cart).await;
    let page = RegisterPage { shell, name, email, next, mistake: Some(mistake) };
    Ok((StatusCode::UNPROCESSABLE_ENTITY, html::render(&page)?).into_response())
}

/// Ends the session: here, in the store and on every other replica.
pub(crate) async fn log_out(session: Session) -> Result<Redirect, Failure> {
    session.flush().await.map_err(|_| not_now("Logging out"))?;
    Ok(Redirect::to("/"))
}

/// A new session id, the visitor's cart merged into the account's, their orders under the account's name.
async fn sign_in(app: &App, session: &Session, cart: &Cart, user: &User) -> Result<(), Failure> {
    let guest = visitor::guest(session).await.map_err(|_| not_now("Signing in"))?;
    session.cycle_id().await.map_err(|_| not_now("Signing in"))?;
    // Before the session names the user: who is signed in has their cart.
    cart.log_in(&user.id).await.map_err(|error| {
        tracing::warn!(%error, "a cart was not merged");
        not_now("Signing in")
    })?;
    visitor::set_user(session, user).await?;
    if let Some(guest) = guest {
        app.database.adopt_orders(&guest, &user.owner()).await?;
        visitor::forget_guest(session).await?;
    }
    Ok(())
}

fn not_now(what: &str) -> Failure {
    Failure::Busy(format!(
        "{what} is not possible right now: the place where we keep sessions does not answer. Nothing is lost; please \
         try again in a moment."
    ))
}

fn mistake_in(name: &str, email: &str, password: &str) -> Option<&'static str> {
    let password_length = password.chars().count();
    if name.is_empty() || name.chars().count() > NAME_LENGTH_MAX || name.contains(char::is_control) {
        Some("Please tell us your name, in up to 80 characters.")
    } else if !is_email(email) {
        Some("Please give an e-mail address like you@example.com.")
    } else if !(PASSWORD_LENGTH_MIN..=PASSWORD_LENGTH_MAX).contains(&password_length) {
        Some("A password has 8 to 128 characters.")
    } else {
        None
    }
}

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        Failure::Busy(format!("Please try again in a moment: {busy}."))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Internal(error)
    }
}
