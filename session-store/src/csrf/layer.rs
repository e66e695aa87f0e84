//! The layer: refuses what changes something without a token.

use std::{
    borrow::Cow,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower_layer::Layer;
use tower_service::Service;
use tower_sessions::Session;

use super::{CSRF_FIELD, CSRF_HEADER, Csrf};
use crate::{answer, metrics};

/// How many bytes a form may have when nothing else is said.
///
/// ```
/// assert_eq!(session_store::CSRF_FORM_BYTES_MAX_DEFAULT, 64 * 1_024);
/// ```
pub const CSRF_FORM_BYTES_MAX_DEFAULT: usize = 64 * 1_024;

const REFUSED: &str = "This request has no valid CSRF token: the page that it came from is too old, or it came from another site. Load the \
page again and repeat what you did. A form sends the token in its field csrf_token, a script in the header x-csrf-token.\n";
const TOO_LARGE: &str = "This form is too large.\n";
const BROKEN_OFF: &str = "The form did not arrive whole.\n";
const OUT_OF_REACH: &str = "The session is out of reach for a moment. Nothing was changed; please try again.\n";
const NO_SESSION: &str = "There is no session here: put session_store::SessionLayer outside of CsrfLayer.\n";

/// Refuses with 403 each request with an unsafe method that brings no token of its session, in the header [`CSRF_HEADER`](crate::CSRF_HEADER) or in
/// the field [`CSRF_FIELD`](crate::CSRF_FIELD) of a form (`application/x-www-form-urlencoded`).
///
/// It stands inside the [`SessionLayer`](crate::SessionLayer), which makes [`Csrf`] work too. A token is of one id of the session: no token
/// from before a login or a logout is accepted after it, wherever that happened, on whichever route and replica, as long as it gives the
/// session a new id, as a login must (`cycle_id`).
///
/// `SameSite=Lax`, the default of the cookie, stays worth its while: it is another wall, and no substitute.
///
/// The body of a form is read to look into it, up to [`form_bytes_max`](Self::form_bytes_max), and handed on; so the requests of the service below
/// have a body that can be made of bytes, as axum's can.
///
/// ```
/// use axum::{Router, routing::post};
/// use session_store::{CacheStore, CsrfLayer, SessionLayer};
///
/// fn app(store: CacheStore) -> Router {
///     Router::new()
///         .route("/order", post(async || "ordered"))
///         .route("/hooks/payment", post(async || "noted"))
///         // Whoever calls this one has no cookie, and signs what it sends.
///         .layer(CsrfLayer::new().exempt_under("/hooks"))
///         .layer(SessionLayer::new(store))
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is added to a router"]
pub struct CsrfLayer {
    rules: Arc<Rules>,
}

#[derive(Debug, Clone)]
struct Rules {
    exempt: Vec<Cow<'static, str>>,
    exempt_under: Vec<Cow<'static, str>>,
    form_bytes_max: usize,
}

impl CsrfLayer {
    /// A layer that lets no path be.
    ///
    /// ```
    /// let layer = session_store::CsrfLayer::new();
    /// ```
    pub fn new() -> Self {
        let rules = Rules { exempt: Vec::new(), exempt_under: Vec::new(), form_bytes_max: CSRF_FORM_BYTES_MAX_DEFAULT };
        Self { rules: Arc::new(rules) }
    }

    /// Lets requests to this very path pass. The path is that which this layer sees: inside of axum's `nest`, without what is nested
    /// under.
    ///
    /// # Panics
    ///
    /// When the path does not begin with `/`.
    ///
    /// ```
    /// let layer = session_store::CsrfLayer::new().exempt("/hooks/payment");
    /// ```
    pub fn exempt(self, path: impl Into<Cow<'static, str>>) -> Self {
        let path = checked(path.into());
        self.change(|rules| rules.exempt.push(path))
    }

    /// Lets requests to this path pass, and to all that have it and a `/` in front. One that has `.` or `..` as a segment, encoded or not,
    /// is never let pass.
    ///
    /// # Panics
    ///
    /// When the path does not begin with `/`.
    ///
    /// ```
    /// let layer = session_store::CsrfLayer::new().exempt_under("/hooks");
    /// ```
    pub fn exempt_under(self, path: impl Into<Cow<'static, str>>) -> Self {
        let path = checked(path.into());
        self.change(|rules| rules.exempt_under.push(path))
    }

    /// How many bytes a form may have; a larger one is answered 413. Default: [`CSRF_FORM_BYTES_MAX_DEFAULT`]. A form whose token is in
    /// the header is not looked into.
    ///
    /// ```
    /// let layer = session_store::CsrfLayer::new().form_bytes_max(1_024 * 1_024);
    /// ```
    pub fn form_bytes_max(self, bytes: usize) -> Self {
        self.change(|rules| rules.form_bytes_max = bytes)
    }

    fn change(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self
    }
}

impl Default for CsrfLayer {
    fn default() -> Self {
        Self::new()
    }
}

fn checked(path: Cow<'static, str>) -> Cow<'static, str> {
    assert!(path.starts_with('/'), "`{path}` is no path: it must begin with /");
    path
}

impl<S> Layer<S> for CsrfLayer {
    type Service = CsrfService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CsrfService { inner, rules: Arc::clone(&self.rules) }
    }
}

/// The service that [`CsrfLayer`] makes of another one.
///
/// ```
/// use session_store::{CsrfLayer, CsrfService};
/// use tower::Layer as _;
///
/// let service: CsrfService<axum::Router> = CsrfLayer::new().layer(axum::Router::new());
/// ```
#[derive(Debug, Clone)]
pub struct CsrfService<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CsrfService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Body + From<Bytes> + Send + 'static,
    ReqBody::Data: Send,
    ReqBody::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    ResBody: From<&'static str> + Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // The one that was polled ready is used, and a clone of it kept.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let Some(session) = request.extensions().get::<Session>().cloned() else {
                tracing::error!("there is no session in the request; CsrfLayer must be inside of SessionLayer");
                return Ok(answer::text(StatusCode::INTERNAL_SERVER_ERROR, NO_SESSION));
            };
            let csrf = Csrf::new(session);
            if !request.method().is_safe() && !rules.exempts(request.uri().path()) {
                request = match rules.check(&csrf, request).await {
                    Ok(request) => request,
                    Err(refusal) => return Ok(refusal),
                };
            }
            request.extensions_mut().insert(csrf.clone());
            let response = inner.call(request).await?;
            if let Err(error) = csrf.renew_after_login().await {
                // The session was read when it got a new id: there is nothing that could fail.
                tracing::warn!(%error, "no CSRF secret was drawn for a new id; the next page draws it");
            }
            Ok(response)
        })
    }
}

impl Rules {
    fn exempts(&self, path: &str) -> bool {
        let is_under = |above: &str| {
            path.strip_prefix(above.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.exempt.iter().any(|exempt| exempt == path)
            || (!climbs(path) && self.exempt_under.iter().any(|above| is_under(above)))
    }

    /// The request as it was, or the answer that refuses it.
    async fn check<B, R>(&self, csrf: &Csrf, request: Request<B>) -> Result<Request<B>, Response<R>>
    where
        B: Body + From<Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        R: From<&'static str>,
    {
        let header = request.headers().get(CSRF_HEADER).map(|value| value.to_str().unwrap_or_default().to_owned());
        let (request, token) = match header {
            Some(token) => (request, Some(token)),
            None if is_form(request.headers()) => {
                let (parts, body) = request.into_parts();
                let body = match Limited::new(body, self.form_bytes_max).collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(error) if error.is::<LengthLimitError>() => {
                        return Err(answer::text(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
                    }
                    Err(_) => return Err(answer::text(StatusCode::BAD_REQUEST, BROKEN_OFF)),
                };
                let token =
                    form_urlencoded::parse(&body).find(|(name, _)| name == CSRF_FIELD).map(|(_, token)| token.into_owned());
                (Request::from_parts(parts, B::from(body)), token)
            }
            None => (request, None),
        };
        let verified = match token {
            Some(token) => csrf.verify(&token).await,
            None => Ok(false),
        };
        match verified {
            Ok(true) => Ok(request),
            Ok(false) => {
                metrics::csrf_refused();
                Err(answer::text(StatusCode::FORBIDDEN, REFUSED))
            }
            Err(error) => {
                tracing::debug!(%error, "a CSRF token cannot be checked: the session is out of reach");
                let mut response = answer::text(StatusCode::SERVICE_UNAVAILABLE, OUT_OF_REACH);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                Err(response)
            }
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// Whether what serves the path may take it for one that is elsewhere.
fn climbs(path: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::CsrfLayer;

    #[test]
    fn a_path_is_exempt_by_whole_segments_and_without_climbing() {
        let rules = CsrfLayer::new().exempt("/ping").exempt_under("/hooks").rules;
        for path in ["/ping", "/hooks", "/hooks/", "/hooks/payment"] {
            assert!(rules.exempts(path), "{path}");
        }
        for path in
            ["/", "/ping/", "/hooksx", "/hooks/../order", "/hooks/%2e%2E/order", "/hooks/..%2forder", "/hooks/.", "/order"]
        {
            assert!(!rules.exempts(path), "{path}");
        }
    }
}
