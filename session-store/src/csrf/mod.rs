//! Protection against forged requests, by OWASP's synchronizer token pattern: the session has a secret, pages have tokens made of it, and
//! a request that changes something must bring one.

mod layer;
mod token;

use std::{fmt, sync::Arc};

use axum_core::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use parking_lot::Mutex;
use tower_sessions::{
    Session,
    session::{self, Id},
};

pub use self::layer::{CSRF_FORM_BYTES_MAX_DEFAULT, CsrfLayer, CsrfService};
use self::token::Secret;
use crate::{Key, SessionExt as _, StoreError, UpdateError, record::CSRF_KEY};

/// The header in which scripts send the token.
///
/// ```
/// assert_eq!(session_store::CSRF_HEADER, "x-csrf-token");
/// ```
pub const CSRF_HEADER: &str = "x-csrf-token";

/// The field in which forms send the token.
///
/// ```
/// assert_eq!(session_store::CSRF_FIELD, "csrf_token");
/// ```
pub const CSRF_FIELD: &str = "csrf_token";

const SECRET: Key<String> = Key::new(CSRF_KEY);

/// The tokens of the visitor who makes this request: an extractor, wherever [`CsrfLayer`] is.
///
/// ```
/// use axum::{Router, response::Html, routing::{get, post}};
/// use session_store::{CacheStore, Csrf, CsrfLayer, SessionLayer, Unavailable};
///
/// async fn form(csrf: Csrf) -> Result<Html<String>, Unavailable> {
///     Ok(Html(format!("<form method=\"post\" action=\"/order\">{}<button>Order</button></form>", csrf.field().await?)))
/// }
///
/// fn app(store: CacheStore) -> Router {
///     Router::new()
///         .route("/", get(form))
///         .route("/order", post(async || "ordered"))
///         .layer(CsrfLayer::new())
///         .layer(SessionLayer::new(store))
/// }
/// ```
#[derive(Clone)]
pub struct Csrf {
    session: Session,
    /// The session's id when the request came to the layer: what the handle has of a secret is of that id. `None`: of another one, or of none.
    came_with: Option<Id>,
    drawn: Arc<Mutex<Option<Drawn>>>,
}

/// What this request has drawn.
struct Drawn {
    secret: Secret,
    /// The id of the session at that time, or the one that it got since.
    of: Option<Id>,
}

impl fmt::Debug for Csrf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the id nor the secret.
        f.debug_struct("Csrf").finish_non_exhaustive()
    }
}

impl Csrf {
    fn new(session: Session) -> Self {
        let came_with = session.id();
        Self { session, came_with, drawn: Arc::default() }
    }

    /// A token for this page, another one each time. It is good as long as the session keeps its id: until the next login or logout,
    /// wherever that happens. A page that logs in asks for its token after that.
    ///
    /// A visitor without a session gets one, since the token is bound to it.
    ///
    /// # Errors
    ///
    /// When the session cannot be read, or the secret not stored.
    ///
    /// ```
    /// # async fn example(csrf: session_store::Csrf) -> Result<String, session_store::UpdateError> {
    /// // For scripts, which send it in the header `x-csrf-token`.
    /// Ok(format!("<meta name=\"csrf-token\" content=\"{}\">", csrf.token().await?))
    /// # }
    /// ```
    pub async fn token(&self) -> Result<String, UpdateError> {
        if let Some(secret) = self.secret().await? {
            return Ok(secret.token());
        }
        if self.session.id().is_none() {
            // Nobody else has this session.
            return Ok(self.draw().await?.token());
        }
        let drawn = Secret::draw();
        // Two pages that are loaded at once have tokens of one secret.
        let keep =
            |there: Option<String>| there.filter(|there| Secret::parse(there).is_some()).unwrap_or_else(|| drawn.to_text());
        match self.session.update(&SECRET, keep).await {
            Ok(kept) => {
                let kept = Secret::parse(&kept).unwrap_or(drawn);
                self.note(&kept);
                Ok(kept.token())
            }
            // It ended a moment ago, and gets nothing any more. The page is shown, and its form asks for another one.
            Err(UpdateError::Store(StoreError::SessionEnded)) => Ok(drawn.token()),
            Err(error) => Err(error),
        }
    }

    /// The token as a hidden field of a form, in HTML.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    ///
    /// ```
    /// # async fn example(csrf: session_store::Csrf) -> Result<String, session_store::UpdateError> {
    /// Ok(format!("<form method=\"post\">{}<button>Buy</button></form>", csrf.field().await?))
    /// # }
    /// ```
    pub async fn field(&self) -> Result<String, UpdateError> {
        // Nothing of it needs to be escaped.
        Ok(format!("<input type=\"hidden\" name=\"{CSRF_FIELD}\" value=\"{}\">", self.token().await?))
    }

    /// Whether the token is one of this session's. For what the layer cannot look into, such as a field of a multipart form; the path is
    /// exempt there.
    ///
    /// # Errors
    ///
    /// When the session cannot be read.
    ///
    /// ```
    /// # async fn example(csrf: session_store::Csrf, token: &str) -> Result<http::StatusCode, session_store::Unavailable> {
    /// if !csrf.verify(token).await? {
    ///     return Ok(http::StatusCode::FORBIDDEN);
    /// }
    /// # Ok(http::StatusCode::OK)
    /// # }
    /// ```
    pub async fn verify(&self, token: &str) -> Result<bool, session::Error> {
        Ok(self.secret().await?.is_some_and(|secret| secret.matches(token)))
    }

    /// The secret of the session's id. One that the handle still has from before a new id is none.
    async fn secret(&self) -> Result<Option<Secret>, session::Error> {
        let there = self.session.read(&SECRET).await?.as_deref().and_then(Secret::parse);
        let is_of_this_id = self.came_with.is_some() && self.came_with == self.session.id();
        Ok(there.filter(|there| is_of_this_id || self.has_drawn(there)))
    }

    /// Whether this request has drawn it, for the id that the session has now or is to get.
    fn has_drawn(&self, there: &Secret) -> bool {
        let now = self.session.id();
        self.drawn.lock().as_mut().is_some_and(|drawn| {
            drawn.of = drawn.of.or(now);
            drawn.of == now && drawn.secret == *there
        })
    }

    fn note(&self, drawn: &Secret) {
        *self.drawn.lock() = Some(Drawn { secret: drawn.clone(), of: self.session.id() });
    }

    async fn draw(&self) -> Result<Secret, session::Error> {
        let drawn = Secret::draw();
        self.session.write(&SECRET, &drawn.to_text()).await?;
        self.note(&drawn);
        Ok(drawn)
    }

    /// A session that gets a new id in this request begins it without a secret. Where pages had one, the next is drawn at once, so that it
    /// comes with the new id and no page pays for it.
    async fn renew_after_login(&self) -> Result<(), session::Error> {
        let has_former = self.session.id().is_none() && self.session.read(&SECRET).await?.is_some();
        if has_former && self.secret().await?.is_none() {
            self.draw().await?;
        }
        Ok(())
    }
}

/// Fails with 500 where there is no [`CsrfLayer`].
impl<S: Sync> FromRequestParts<S> for Csrf {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let missing =
            (StatusCode::INTERNAL_SERVER_ERROR, "There are no CSRF tokens here: add session_store::CsrfLayer to the routes.");
        parts.extensions.get().cloned().ok_or(missing)
    }
}
