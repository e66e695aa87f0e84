//! The service: a unit of work before the handler, the commit and the cookie after it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{RETRY_AFTER, USER_AGENT},
};
use pin_project_lite::pin_project;
use tower_service::Service;
use tower_sessions::Session;

use crate::{
    StoreError, answer,
    cookie::{self, Sent},
    cookie_keys::Found,
    device::Client,
    enclosing,
    expiry::not_chosen,
    scope::{Detached, RequestScope},
    settings::Settings,
    shared::{Held, Shared},
    streaming::follow,
    unit_of_work::{Arrival, CookieChange, Outcome, Rest, SeenChange, UnitOfWork},
};

/// Body of the answer when the commit failed.
const UNAVAILABLE: &str = "The session store is out of reach for a moment. Nothing is lost; please try again.\n";
/// Body of the answer when the session ended while the request was running.
const ENDED: &str = "The session ended while this request was running. Nothing was changed; please try again.\n";
/// Body of the answer where two layers would take each other's cookies.
const ONE_NAME: &str =
    "Two session layers with different stores share one cookie name. Give one of them another with with_name.\n";
/// Seconds after which a client may try again. Outages that end by themselves are shorter.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The service that [`SessionLayer`](crate::SessionLayer) makes of another one.
///
/// ```
/// use session_store::{CacheStore, SessionLayer, SessionService};
/// use tower::Layer as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), session_store::StoreError> {
/// let store = CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
/// let service: SessionService<axum::Router> = SessionLayer::new(store).layer(axum::Router::new());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SessionService<S> {
    inner: S,
    shared: Held,
}

impl<S> SessionService<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared: Held::new(shared) }
    }
}

impl<ReqBody, ResBody, S> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: From<&'static str> + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let own = self.shared.of_thread();
        let settings = &own.settings;
        if let Some(outer) = enclosing::of_name(request.extensions_mut(), &settings.cookie_name) {
            if !outer.store.is_same(&own.store) {
                tracing::error!(cookie = %settings.cookie_name, "two session layers with different stores share one cookie name");
                return ResponseFuture { inner: None, stage: Stage::Refused, is_safe: true };
            }
            // One cookie is one session: that of the outer layer.
            return ResponseFuture { inner: Some(self.inner.call(request)), stage: Stage::Within, is_safe: true };
        }
        let headers = request.headers();
        let Sent { id, seen } = cookie::find(headers, &settings.cookie_name, &settings.cookie.protection, &settings.seen_name);
        let found = id.or_else(|| {
            let found = cookie::find_plain(headers, settings.former_cookie.as_deref()?)?;
            Some(Found { is_outdated: true, ..found })
        });
        let sent = found.map(|found| found.id);
        let client = Client {
            user_agent: headers.get(USER_AGENT).cloned(),
            address: settings.client_address.as_ref().and_then(|find| find.of(&request)),
        };
        let is_safe = request.method().is_safe();
        let arrival = Arrival { sent, cookie_outdated: found.is_some_and(|found| found.is_outdated), seen, client, is_safe };
        let unit = UnitOfWork::new(own.store.clone(), Arc::clone(settings), arrival);
        let session = Session::new(sent, Arc::clone(&unit), not_chosen(settings.expiry));
        self.shared.make_room(request.extensions_mut());
        let scope = RequestScope::begin(session, unit, request.extensions_mut());
        ResponseFuture { inner: Some(self.inner.call(request)), stage: Stage::Handler(scope), is_safe }
    }
}

pin_project! {
    /// The answer of a [`SessionService`].
    ///
    /// When it is dropped while the commit is under way, because the client went away, the commit goes on.
    ///
    /// ```
    /// use session_store::{ResponseFuture, SessionService};
    /// use tower::Service;
    ///
    /// fn answer(
    ///     service: &mut SessionService<axum::Router>,
    ///     request: axum::extract::Request,
    /// ) -> ResponseFuture<<axum::Router as Service<axum::extract::Request>>::Future, axum::body::Body> {
    ///     service.call(request)
    /// }
    /// ```
    pub struct ResponseFuture<F, B> {
        // None in the one case in which there is nothing to be asked.
        #[pin]
        inner: Option<F>,
        stage: Stage<B>,
        is_safe: bool,
    }
}

impl<F, B> std::fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

enum Stage<B> {
    Handler(RequestScope),
    Commit {
        commit: Detached<(Outcome, RequestScope)>,
        // Boxed is what most requests do not have: the future of each is moved from hand to hand.
        response: Box<Response<B>>,
    },
    /// An outer layer does everything.
    Within,
    Refused,
    Done,
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<&'static str> + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let (Stage::Handler(scope), Some(handler)) = (&mut *this.stage, this.inner.as_mut().as_pin_mut()) {
            scope.unit().next_turn();
            let answer = scope.at_hand(|| handler.poll(cx));
            let Poll::Ready(Ok(_)) = &answer else {
                return answer;
            };
            let Stage::Handler(scope) = std::mem::replace(this.stage, Stage::Done) else {
                unreachable!("the stage was looked at above");
            };
            // Before the look at what is left: whoever has a handle may change something right after it.
            let is_shared = scope.is_shared();
            let rest = scope.rest(is_shared);
            if rest == Rest::Nothing && !is_shared {
                // The answer of most requests is not touched, and not moved from hand to hand either.
                return answer;
            }
            let response = ready!(answer)?;
            let response = match rest {
                Rest::Nothing => return Poll::Ready(Ok(follow(response, scope, *this.is_safe, false))),
                Rest::Cookie => {
                    let response = apply(scope.unit().outcome(None), response, *this.is_safe, &scope.unit().settings);
                    return Poll::Ready(Ok(followed(response, scope, *this.is_safe, false)));
                }
                Rest::Commit => Box::new(response),
            };
            let server_error = response.status().is_server_error();
            let commit = Detached::new(async move {
                let outcome = scope.finish(server_error).await;
                // The scope lives as long as the commit, which needs the handle's expiry.
                (outcome, scope)
            });
            *this.stage = Stage::Commit { commit, response };
        }
        match (&*this.stage, this.inner.as_mut().as_pin_mut()) {
            (Stage::Within, Some(handler)) => return handler.poll(cx),
            (Stage::Refused, _) => {
                *this.stage = Stage::Done;
                return Poll::Ready(Ok(answer::text(StatusCode::INTERNAL_SERVER_ERROR, ONE_NAME)));
            }
            _ => {}
        }
        let Stage::Commit { commit, .. } = this.stage else {
            panic!("the future of an answer was polled after it was ready");
        };
        let (outcome, scope) = ready!(commit.poll(cx));
        let Stage::Commit { response, .. } = std::mem::replace(this.stage, Stage::Done) else {
            unreachable!("the stage was looked at above");
        };
        let is_told = outcome.replaces_answer(*this.is_safe);
        let response = apply(outcome, *response, *this.is_safe, &scope.unit().settings);
        Poll::Ready(Ok(followed(response, scope, *this.is_safe, is_told)))
    }
}

/// The body is looked at only when somebody has a handle who may change something while it is sent.
fn followed<B: 'static>(response: Response<B>, scope: RequestScope, is_safe: bool, is_told: bool) -> Response<B> {
    if scope.is_shared() { follow(response, scope, is_safe, is_told) } else { response }
}

/// The answer as the client gets it.
fn apply<B: From<&'static str>>(outcome: Outcome, response: Response<B>, is_safe: bool, settings: &Settings) -> Response<B> {
    let is_replaced = outcome.replaces_answer(is_safe);
    let mut response = match outcome.failure {
        Some(StoreError::SessionEnded) if is_replaced => answer::text(StatusCode::CONFLICT, ENDED),
        Some(StoreError::SessionEnded) => response,
        Some(error) => {
            // An outage is told of once, by its node, and not by every request.
            if error.is_outage() {
                tracing::debug!(%error, "the session was not committed");
            } else {
                tracing::warn!(%error, "the session was not committed");
            }
            if is_replaced { unavailable() } else { response }
        }
        // A page of the application's own that says so is better than a bare line.
        None if outcome.met_outage
            && !outcome.policy.keeps_answer(false, is_safe)
            && response.status() != StatusCode::SERVICE_UNAVAILABLE =>
        {
            unavailable()
        }
        None => response,
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE && outcome.met_outage {
        response.headers_mut().entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
    }
    cookie::vary(response.headers_mut());
    let (name, seen_name) = (&settings.cookie_name, &settings.seen_name);
    let session = match outcome.cookie {
        CookieChange::Keep => None,
        CookieChange::Set { id, policy, kept_ms } => Some(settings.cookie.set(name, &id, policy, kept_ms)),
        CookieChange::Remove => Some(settings.cookie.remove(name)),
    };
    let seen = match outcome.seen {
        SeenChange::Keep => None,
        SeenChange::Set { seen, policy, kept_ms } => Some(settings.cookie.set_seen(seen_name, seen, policy, kept_ms)),
        SeenChange::Remove => Some(settings.cookie.remove(seen_name)),
    };
    for header in session.into_iter().chain(seen) {
        cookie::attach(response.headers_mut(), header);
    }
    response
}

pub(crate) fn unavailable<B: From<&'static str>>() -> Response<B> {
    let mut response = answer::text(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    response
}
