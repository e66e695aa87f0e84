//! What a page says when something did not work.
//!
//! Handlers return a [`Failure`]; it travels in the answer's extensions to [`dress`], which knows the visitor and
//! makes a page or JSON of it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use session_store::{Cart, CartError, Session};

use crate::shop::api::ApiError;
use crate::shop::app::App;
use crate::shop::html;
use crate::shop::shell::Shell;
use crate::shop::uncommitted::{Instead, Uncommitted};

/// Why a page could not be made, or a change not be done.
#[derive(Debug)]
pub(crate) enum Failure {
    NotFound,
    /// The request makes no sense as it is.
    Refused {
        status: StatusCode,
        message: String,
    },
    /// The store of sessions and carts is out of reach.
    StoreAway,
    /// The store was out of reach, so a change was not made; the form may be sent again as it was.
    NotChanged(Box<Retry>),
    /// The store did not confirm a change; the form may be sent again as it was, and counts once.
    NotConfirmed(Box<Retry>),
    /// Who they are is known, and the session could not be told; it takes another login.
    NotSignedIn {
        /// The account was made by the form that was sent.
        is_new: bool,
        /// Where they wanted to go.
        next: String,
    },
    /// The database does not answer.
    Database(sqlx::Error),
    /// Too much at once.
    Busy(String),
    Internal(anyhow::Error),
}

/// A form to send once more, with the same token.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) action: &'static str,
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// When to come back after the store was away, in seconds.
pub(crate) const RETRY_AFTER_SECONDS: u16 = 2;

impl Failure {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Failure::NotFound => StatusCode::NOT_FOUND,
            Failure::Refused { status, .. } => *status,
            Failure::StoreAway | Failure::NotChanged(_) | Failure::NotConfirmed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::NotSignedIn { .. } | Failure::Busy(_) | Failure::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Failure::NotFound => "This page is not on our shelves",
            Failure::Refused { .. } => "That did not work",
            Failure::StoreAway => "This has to wait for a moment",
            Failure::NotChanged(_) => "Your change was not made",
            Failure::NotConfirmed(_) => "We do not know yet whether that worked",
            Failure::NotSignedIn { .. } => "You are not signed in yet",
            Failure::Database(_) => "The shop is catching its breath",
            Failure::Busy(_) => "One moment, please",
            Failure::Internal(_) => "Something broke on our side",
        }
    }

    fn message(&self) -> String {
        match self {
            Failure::NotFound => "The address may be old, or a letter went missing.".to_owned(),
            Failure::Refused { message, .. } | Failure::Busy(message) => message.clone(),
            Failure::StoreAway => "It needs the place where we keep carts and sessions, which does not answer right now. \
                                   Nothing is lost: what you put in your cart is there when it is back."
                .to_owned(),
            Failure::NotChanged(_) => "The place where we keep carts does not answer right now, so the change was NOT \
                                       made. What was in your cart before is safe. Trying again is safe too: it counts \
                                       once, however often you press."
                .to_owned(),
            Failure::NotConfirmed(_) => "The place where we keep carts did not answer in time, so your change may have been \
                                         made or not. What was in your cart before is safe. Trying again is safe too: it \
                                         counts once, however often you press."
                .to_owned(),
            Failure::NotSignedIn { is_new: true, .. } => "Your account is made, but the place where we keep sessions does not \
                                                          answer right now. Please log in with your new account in a \
                                                          moment: your cart comes with you."
                .to_owned(),
            Failure::NotSignedIn { is_new: false, .. } => "The place where we keep sessions does not answer right now. Nothing \
                                                           is lost; please log in again in a moment."
                .to_owned(),
            Failure::Database(_) => "Our product database does not answer right now. Your cart is safe; please try \
                                     again in a moment."
                .to_owned(),
            Failure::Internal(_) => "We have written it down. Your cart is safe; please try again.".to_owned(),
        }
    }

    fn log(&self) {
        match self {
            Failure::Database(error) => tracing::error!(%error, "database"),
            Failure::Internal(error) => tracing::error!(error = format!("{error:#}"), "internal"),
            _ => {}
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.log();
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Failure::Database(error)
    }
}

impl From<tower_sessions::session::Error> for Failure {
    fn from(error: tower_sessions::session::Error) -> Self {
        match error {
            tower_sessions::session::Error::Store(_) => Failure::StoreAway,
            error => Failure::Internal(error.into()),
        }
    }
}

impl From<askama::Error> for Failure {
    fn from(error: askama::Error) -> Self {
        Failure::Internal(error.into())
    }
}

/// What a cart's refusal means for a form.
pub(crate) fn cart_failure(error: CartError, retry: impl FnOnce() -> Retry) -> Failure {
    let refused = |status, message: String| Failure::Refused { status, message };
    match error {
        CartError::Unavailable(error) if error.may_be_done() => Failure::NotConfirmed(Box::new(retry())),
        CartError::Unavailable(_) => Failure::NotChanged(Box::new(retry())),
        CartError::QuantityZero => refused(StatusCode::UNPROCESSABLE_ENTITY, "Please take at least one.".to_owned()),
        CartError::QuantityTooLarge { max } => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, format!("We hand out at most {max} of one thing."))
        }
        CartError::TooManyLines { max } => refused(StatusCode::CONFLICT, format!("A cart holds at most {max} different things.")),
        CartError::InvalidSku => refused(StatusCode::NOT_FOUND, "There is no such product.".to_owned()),
        CartError::SessionEnded => refused(StatusCode::CONFLICT, SESSION_ENDED.to_owned()),
        error => Failure::Internal(error.into()),
    }
}

const SESSION_ENDED: &str = "You were signed out while this was under way. Please look whether it was kept before you repeat it.";

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    shell: Shell,
    title: &'a str,
    message: &'a str,
    status: u16,
    retry: Option<&'a Retry>,
    /// Where the form stands that was refused.
    back: Option<&'a str>,
    /// Where a login leads to, when that is the way on.
    log_in: Option<&'a str>,
    /// Seconds until the page asks again by itself.
    refresh: Option<u16>,
}

/// Turns a [`Failure`] into a page for browsers or JSON for machines. Stands inside the session layer.
pub(crate) async fn dress(State(app): State<App>, session: Session, cart: Cart, request: Request, next: Next) -> Response {
    let (json, safe) = (is_for_machines(request.uri().path()), request.method().is_safe());
    let form = if safe { None } else { page_of_form(request.headers()) };
    let mut response = next.run(request).await;
    let failure = response.extensions().get::<Arc<Failure>>().cloned();
    if json {
        if let Some(failure) = failure {
            response = ApiError::of_failure(&failure).into_response();
        }
        // Somebody's cart, whatever the method: nothing between here and there may keep it.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return response;
    }
    let Some(failure) = failure else {
        return response;
    };
    let shell = Shell::read(&app, &session, &cart).await;
    page(shell, &failure, safe, form.as_deref())
}

/// Where the form stands that was sent, if that is a page of this shop.
fn page_of_form(headers: &HeaderMap) -> Option<String> {
    let page: Uri = headers.get(header::REFERER)?.to_str().ok()?.parse().ok()?;
    let is_here = page.authority()?.as_str() == headers.get(header::HOST)?.to_str().ok()?;
    let path = page.path_and_query()?.as_str();
    (is_here && !path.starts_with("//")).then(|| path.to_owned())
}

/// Gives a bare answer of the session layer (a commit that failed) the shop's face. Stands outside of it.
pub(crate) async fn dress_commit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let uncommitted = Uncommitted::default();
    request.extensions_mut().insert(uncommitted.clone());
    let (json, safe) = (is_for_machines(request.uri().path()), request.method().is_safe());
    let response = next.run(request).await;
    let status = response.status();
    let is_bare = !matches!(
        response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes),
        Some(kind) if kind.starts_with(b"text/html") || kind.starts_with(b"application/json")
    );
    let instead = match status {
        StatusCode::SERVICE_UNAVAILABLE if is_bare && safe => Instead::Failure(Failure::StoreAway),
        StatusCode::SERVICE_UNAVAILABLE if is_bare => uncommitted.take().unwrap_or_else(|| {
            let message = "The place where we keep sessions stopped answering while we worked. Please look at your cart \
                           before you try again.";
            Instead::Failure(Failure::Refused { status, message: message.to_owned() })
        }),
        StatusCode::CONFLICT if is_bare => Instead::Failure(Failure::Refused { status, message: SESSION_ENDED.to_owned() }),
        _ => return response,
    };
    let mut dressed = match instead {
        Instead::Failure(failure) if json => ApiError::of_failure(&failure).into_response(),
        Instead::Failure(failure) => page(Shell::bare(&app), &failure, safe, None),
        Instead::Redirect(to) => Redirect::to(&to).into_response(),
    };
    let is_done = dressed.status().is_redirection();
    // What the layer said about cookies and retrying stays.
    for (name, value) in response.headers() {
        let is_outdated = match *name {
            header::CONTENT_TYPE | header::CONTENT_LENGTH => true,
            header::RETRY_AFTER => is_done,
            _ => false,
        };
        if !is_outdated {
            dressed.headers_mut().insert(name, value.clone());
        }
    }
    dressed
}

/// `form`: the page of the form that was sent.
fn page(shell: Shell, failure: &Failure, safe: bool, form: Option<&str>) -> Response {
    let status = failure.status();
    let retry = match failure {
        Failure::NotChanged(retry) | Failure::NotConfirmed(retry) => Some(&**retry),
        _ => None,
    };
    let again = status == StatusCode::SERVICE_UNAVAILABLE;
    let page = ErrorPage {
        shell,
        title: failure.title(),
        message: &failure.message(),
        status: status.as_u16(),
        retry,
        // What was refused can be put right there.
        back: form.filter(|_| matches!(failure, Failure::Refused { .. })),
        log_in: match failure {
            Failure::NotSignedIn { next, .. } => Some(next),
            _ => None,
        },
        // Only what can be asked again without harm asks again by itself.
        refresh: (again && safe).then_some(RETRY_AFTER_SECONDS),
    };
    let mut response = match html::render(&page) {
        Ok(html) => (status, html).into_response(),
        Err(error) => {
            tracing::error!(%error, "the error page has an error");
            status.into_response()
        }
    };
    if again {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response
}

fn is_for_machines(path: &str) -> bool {
    path.starts_with("/api/") || matches!(path, "/healthz" | "/readyz")
}

/// What a page says about a path that is none.
pub(crate) async fn not_found() -> Failure {
    Failure::NotFound
}

pub(crate) async fn method_not_allowed() -> Failure {
    Failure::Refused {
        status: StatusCode::METHOD_NOT_ALLOWED,
        message: "This address does not take that kind of request.".to_owned(),
    }
}
