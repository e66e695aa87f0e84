//! The application that the checks visit: a handler that does what the request brings along.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, LocalBoxFuture};
use http::{HeaderValue, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use tower_service::Service;
use tower_sessions::{Session, session};

/// What a handler does: the text of the answer, or the error of the session.
type Act = Box<dyn FnOnce(Session) -> BoxFuture<'static, Result<Response<String>, session::Error>> + Send>;

/// Travels with the request to the handler.
#[derive(Clone)]
struct Errand(Arc<Mutex<Option<Act>>>);

/// The innermost service of a replica that [`conformance_of_layer`](super::conformance_of_layer) makes. It takes its
/// `tower_sessions::Session` from the extensions of the request, where the layer puts it.
///
/// ```
/// # fn example<L: tower_layer::Layer<session_store::testing::Handler>>(layer: L) {
/// let replica = layer.layer(session_store::testing::Handler::default());
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let session = request.extensions_mut().remove::<Session>();
        let act = request.extensions_mut().remove::<Errand>().and_then(|errand| errand.0.lock().take());
        Box::pin(async move {
            Ok(match (session, act) {
                (Some(session), Some(act)) => act(session).await.unwrap_or_else(|error| failure(error.to_string())),
                (None, _) => failure("the layer gives the handler no session".to_owned()),
                (_, None) => Response::new(String::new()),
            })
        })
    }
}

pub(super) fn failure(why: String) -> Response<String> {
    let mut response = Response::new(why);
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// What became of the cookie with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SetCookie {
    No,
    Removed,
    /// Its name and value.
    To(String),
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) text: String,
    pub(super) cookie: SetCookie,
}

impl Answer {
    pub(super) fn ok(self) -> Result<Self, String> {
        if self.status.is_success() { Ok(self) } else { Err(format!("it was answered {}: {}", self.status, self.text)) }
    }

    /// The cookie that it sets.
    pub(super) fn given(&self) -> Result<String, String> {
        match &self.cookie {
            SetCookie::To(cookie) => Ok(cookie.clone()),
            other => Err(format!("an answer that should give out an id has as cookie: {other:?}")),
        }
    }
}

type Call = dyn Fn(Request<()>) -> LocalBoxFuture<'static, Result<Response<String>, String>>;

/// One replica of the application.
#[derive(Clone)]
pub(super) struct Replica(Rc<Call>);

impl Replica {
    pub(super) fn new<S>(service: S) -> Self
    where
        S: Service<Request<()>, Response = Response<String>> + Clone + 'static,
        S::Error: fmt::Debug,
    {
        Self(Rc::new(move |request| {
            let mut service = service.clone();
            Box::pin(async move {
                let ready = poll_fn(|context| service.poll_ready(context)).await;
                ready.map_err(|error| format!("the service is not ready: {error:?}"))?;
                service.call(request).await.map_err(|error| format!("the service failed: {error:?}"))
            })
        }))
    }

    /// A request that may change something, in which the handler does this.
    pub(super) async fn visit<F>(
        &self,
        cookie: Option<&str>,
        act: impl FnOnce(Session) -> F + Send + 'static,
    ) -> Result<Answer, String>
    where
        F: Future<Output = Result<String, session::Error>> + Send + 'static,
    {
        self.visit_raw(cookie, move |session| {
            let done = act(session);
            async move { done.await.map(Response::new) }
        })
        .await
    }

    /// The same with an answer of its own.
    pub(super) async fn visit_raw<F>(
        &self,
        cookie: Option<&str>,
        act: impl FnOnce(Session) -> F + Send + 'static,
    ) -> Result<Answer, String>
    where
        F: Future<Output = Result<Response<String>, session::Error>> + Send + 'static,
    {
        let act: Act = Box::new(move |session| Box::pin(act(session)));
        let mut request = Request::post("/").body(()).map_err(|error| error.to_string())?;
        if let Some(cookie) = cookie {
            let cookie = HeaderValue::from_str(cookie).map_err(|error| error.to_string())?;
            request.headers_mut().insert(header::COOKIE, cookie);
        }
        request.extensions_mut().insert(Errand(Arc::new(Mutex::new(Some(act)))));
        let response = (self.0)(request).await?;
        let cookie = set_cookie(&response)?;
        Ok(Answer { status: response.status(), text: response.body().clone(), cookie })
    }

    /// Stores a value; the cookie that came with it.
    pub(super) async fn begin(&self, key: &'static str, value: &'static str) -> Result<String, String> {
        self.insert(None, key, value).await?.ok()?.given()
    }

    pub(super) async fn insert(&self, cookie: Option<&str>, key: &'static str, value: &'static str) -> Result<Answer, String> {
        let insert = async move |session: Session| session.insert(key, value).await.map(|()| String::new());
        self.visit(cookie, move |session| Box::pin(async move { insert(session).await })).await
    }

    /// The value of a key, `-` when there is none.
    pub(super) async fn read(&self, cookie: &str, key: &'static str) -> Result<String, String> {
        Ok(self.visit(Some(cookie), move |session| get(session, key)).await?.ok()?.text)
    }
}

/// The value of a key, `-` when there is none.
pub(super) async fn get(session: Session, key: &str) -> Result<String, session::Error> {
    Ok(session.get::<String>(key).await?.unwrap_or_else(|| "-".to_owned()))
}

fn set_cookie(response: &Response<String>) -> Result<SetCookie, String> {
    let mut cookies = response.headers().get_all(header::SET_COOKIE).iter();
    let Some(cookie) = cookies.next() else { return Ok(SetCookie::No) };
    if cookies.next().is_some() {
        return Err("an answer sets the cookie twice".to_owned());
    }
    let text = cookie.to_str().map_err(|error| error.to_string())?;
    let cookie = cookie::Cookie::parse(text).map_err(|error| error.to_string())?;
    let is_over = cookie.max_age().is_some_and(|age| age <= time::Duration::ZERO);
    Ok(if is_over { SetCookie::Removed } else { SetCookie::To(format!("{}={}", cookie.name(), cookie.value())) })
}
