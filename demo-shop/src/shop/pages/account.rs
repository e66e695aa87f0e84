//! Register, log in, log out, account.

use askama::Template;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Extension, Form, Query, State};
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
use crate::shop::uncommitted::{Instead, Uncommitted};
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
    Extension(uncommitted): Extension<Uncommitted>,
    sent: Result<Form<LoginForm>, FormRejection>,
) -> Result<Response, Failure> {
    let LoginForm { email, password, next } = form::fields(sent)?;
    let email = email.trim().to_lowercase();
    match account_of(&app, &email, password).await? {
        Some(user) => Entrance { app, session, cart, uncommitted, is_new: false, next }.welcome(user).await,
        None => {
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
    Extension(uncommitted): Extension<Uncommitted>,
    sent: Result<Form<RegisterForm>, FormRejection>,
) -> Result<Response, Failure> {
    let RegisterForm { name, email, password, next } = form::fields(sent)?;
    let (name, email) = (name.trim().to_owned(), email.trim().to_lowercase());
    let mistake = match mistake_in(&name, &email, &password) {
        Some(mistake) => mistake,
        None => {
            let password_hash = app.passwords.hash(password.clone()).await??;
            let id = ids::random_id();
            let user = NewUser { id: &id, email: &email, name: &name, password_hash: &password_hash };
            match app.database.register(&user).await {
                Ok(()) => {
                    let user = User { id, email, name };
                    return Entrance { app, session, cart, uncommitted, is_new: true, next }.welcome(user).await;
                }
                // The form may come again after an outage: who has the account's password has made it.
                Err(RegisterError::EmailTaken) => match account_of(&app, &email, password).await? {
                    Some(user) => return Entrance { app, session, cart, uncommitted, is_new: false, next }.welcome(user).await,
                    None => "We could not make an account with these details. If you have one already, please log in.",
                },
                Err(RegisterError::Database(error)) => return Err(error.into()),
            }
        }
    };
    let shell = Shell::read(&app, &session, &cart).await;
    let page = RegisterPage { shell, name, email, next, mistake: Some(mistake) };
    Ok((StatusCode::UNPROCESSABLE_ENTITY, html::render(&page)?).into_response())
}

/// Ends the session: here, in the store and on every other replica.
pub(crate) async fn log_out(session: Session, Extension(uncommitted): Extension<Uncommitted>) -> Result<Redirect, Failure> {
    uncommitted.answer(Instead::Failure(still_signed_in()));
    session.flush().await.map_err(|_| still_signed_in())?;
    Ok(Redirect::to("/"))
}

fn still_signed_in() -> Failure {
    let message = "Logging out is not possible right now: the place where we keep sessions does not answer. Nothing is lost; \
                   please try again in a moment.";
    Failure::Busy(message.to_owned())
}

/// The account of this address, if it is this one's password.
async fn account_of(app: &App, email: &str, password: String) -> Result<Option<User>, Failure> {
    let account = if is_email(email) && password.len() <= PASSWORD_LENGTH_MAX * 4 {
        app.database.user_by_email(email).await?
    } else {
        None
    };
    let stored = account.as_ref().map(|account| account.password_hash.clone());
    let fits = app.passwords.verify(password, stored).await??;
    Ok(account.filter(|_| fits).map(|account| User { id: account.id, email: account.email, name: account.name }))
}

/// A visitor whose account is known, on the way in.
struct Entrance {
    app: App,
    session: Session,
    cart: Cart,
    uncommitted: Uncommitted,
    /// The account was made a moment ago.
    is_new: bool,
    next: String,
}

impl Entrance {
    async fn welcome(self, user: User) -> Result<Response, Failure> {
        // The commit, without which nobody is signed in, comes after the handler.
        self.uncommitted.answer(Instead::Failure(self.not_signed_in()));
        self.sign_in(&user).await?;
        let greeting = if self.is_new { "Welcome" } else { "Welcome back" };
        visitor::leave_flash(&self.session, FlashKind::Done, format!("{greeting}, {}.", user.name)).await;
        Ok(Redirect::to(form::next_or(&self.next, "/account")).into_response())
    }

    /// A new session id, the visitor's cart merged into the account's, their orders under the account's name.
    async fn sign_in(&self, user: &User) -> Result<(), Failure> {
        let guest = visitor::guest(&self.session).await.map_err(|_| self.not_signed_in())?;
        self.session.cycle_id().await.map_err(|_| self.not_signed_in())?;
        // Before the session names the user: who is signed in has their cart.
        self.cart.log_in(&user.id).await.map_err(|error| {
            tracing::warn!(%error, "a cart was not merged");
            self.not_signed_in()
        })?;
        visitor::set_user(&self.session, user).await.map_err(|_| self.not_signed_in())?;
        if let Some(guest) = guest {
            self.app.database.adopt_orders(&guest, &user.owner()).await?;
            visitor::forget_guest(&self.session).await?;
        }
        Ok(())
    }

    fn not_signed_in(&self) -> Failure {
        Failure::NotSignedIn { is_new: self.is_new, next: self.next.clone() }
    }
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
