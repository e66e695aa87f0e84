//! The application that the checks visit: a handler that does what the request brings along.

use std::{
    cell::RefCell,
    collections::BTreeMap,
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
use tower_sessions::{
    Session,
    session::{self, Id},
};

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

/// What a browser keeps of one session: its cookie, and what the layer gives out beside it.
#[derive(Debug, Clone)]
pub(super) struct Cookies {
    name: String,
    value: String,
    /// By name. Requests that are under way with the same id share them.
    beside: Rc<RefCell<BTreeMap<String, String>>>,
}

impl Cookies {
    /// As they are sent.
    fn header(&self) -> String {
        let beside = self.beside.borrow();
        let all = std::iter::once((&self.name, &self.value)).chain(beside.iter());
        all.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// The same with another id, and nothing beside it.
    pub(super) fn with_id(&self, id: Id) -> Self {
        Self { name: self.name.clone(), value: id.to_string(), beside: Rc::default() }
    }

    pub(super) fn has_id_of(&self, other: &Self) -> bool {
        self.value == other.value
    }

    /// What is set to no value is forgotten.
    fn keep(&self, beside: Vec<(String, Option<String>)>) {
        let mut kept = self.beside.borrow_mut();
        for (name, value) in beside {
            match value {
                Some(value) => kept.insert(name, value),
                None => kept.remove(&name),
            };
        }
    }
}

/// What became of the session's cookie with an answer.
#[derive(Debug, Clone)]
pub(super) enum SetCookie {
    No,
    Removed,
    To(Cookies),
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

    /// The cookies of a browser that got it.
    pub(super) fn given(&self) -> Result<Cookies, String> {
        match &self.cookie {
            SetCookie::To(cookies) => Ok(cookies.clone()),
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
        cookies: Option<&Cookies>,
        act: impl FnOnce(Session) -> F + Send + 'static,
    ) -> Result<Answer, String>
    where
        F: Future<Output = Result<String, session::Error>> + Send + 'static,
    {
        self.visit_raw(cookies, move |session| {
            let done = act(session);
            async move { done.await.map(Response::new) }
        })
        .await
    }

    /// The same with an answer of its own.
    pub(super) async fn visit_raw<F>(
        &self,
        cookies: Option<&Cookies>,
        act: impl FnOnce(Session) -> F + Send + 'static,
    ) -> Result<Answer, String>
    where
        F: Future<Output = Result<Response<String>, session::Error>> + Send + 'static,
    {
        let act: Act = Box::new(move |session| Box::pin(act(session)));
        let mut request = Request::post("/").body(()).map_err(|error| error.to_string())?;
        if let Some(cookies) = cookies {
            let cookies = HeaderValue::from_str(&cookies.header()).map_err(|error| error.to_string())?;
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        request.extensions_mut().insert(Errand(Arc::new(Mutex::new(Some(act)))));
        let response = (self.0)(request).await?;
        let cookie = set_cookie(cookies, &response)?;
        Ok(Answer { status: response.status(), text: response.body().clone(), cookie })
    }

    /// Stores a value; the cookies that came with it.
    pub(super) async fn begin(&self, key: &'static str, value: &'static str) -> Result<Cookies, String> {
        self.insert(None, key, value).await?.ok()?.given()
    }

    pub(super) async fn insert(
        &self,
        cookies: Option<&Cookies>,
        key: &'static str,
        value: &'static str,
    ) -> Result<Answer, String> {
        let insert = async move |session: Session| session.insert(key, value).await.map(|()| String::new());
        self.visit(cookies, move |session| Box::pin(async move { insert(session).await })).await
    }

    /// The value of a key, `-` when there is none.
    pub(super) async fn read(&self, cookies: &Cookies, key: &'static str) -> Result<String, String> {
        Ok(self.visit(Some(cookies), move |session| get(session, key)).await?.ok()?.text)
    }
}

/// The value of a key, `-` when there is none.
pub(super) async fn get(session: Session, key: &str) -> Result<String, session::Error> {
    Ok(session.get::<String>(key).await?.unwrap_or_else(|| "-".to_owned()))
}

/// What the answer to a request with these cookies sets. To a request without any, the first is taken for the session's.
fn set_cookie(sent: Option<&Cookies>, response: &Response<String>) -> Result<SetCookie, String> {
    let mut set = Vec::new();
    for header in response.headers().get_all(header::SET_COOKIE) {
        let text = header.to_str().map_err(|error| error.to_string())?;
        let cookie = cookie::Cookie::parse(text).map_err(|error| error.to_string())?;
        let name = cookie.name().to_owned();
        if set.iter().any(|(other, _)| *other == name) {
            return Err(format!("an answer sets the cookie `{name}` twice"));
        }
        let is_over = cookie.max_age().is_some_and(|age| age <= time::Duration::ZERO);
        set.push((name, (!is_over).then(|| cookie.value().to_owned())));
    }
    let Some(name) = sent.map(|sent| &sent.name).or(set.first().map(|(name, _)| name)).cloned() else {
        return Ok(SetCookie::No);
    };
    let of_session = set.iter().position(|(other, _)| *other == name).map(|at| set.remove(at).1);
    Ok(match of_session {
        None => {
            if let Some(sent) = sent {
                sent.keep(set);
            }
            SetCookie::No
        }
        Some(None) => SetCookie::Removed,
        Some(Some(value)) => {
            let beside = match sent {
                Some(sent) if sent.value == value => Rc::clone(&sent.beside),
                // Whoever goes on with the old id has what came with that one.
                Some(sent) => Rc::new(RefCell::clone(&sent.beside)),
                None => Rc::default(),
            };
            let given = Cookies { name, value, beside };
            given.keep(set);
            SetCookie::To(given)
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::{Response, header};

    use super::{Cookies, SetCookie, set_cookie};

    fn answer(set: &[&str]) -> Response<String> {
        let answer = set.iter().fold(Response::builder(), |answer, set| answer.header(header::SET_COOKIE, *set));
        answer.body(String::new()).unwrap()
    }

    fn given(sent: Option<&Cookies>, set: &[&str]) -> Cookies {
        match set_cookie(sent, &answer(set)).unwrap() {
            SetCookie::To(cookies) => cookies,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn cookies_are_kept_by_name_and_sent_back_together() {
        let first = given(None, &["id=1; Path=/", "id-seen=1.0"]);
        assert_eq!(first.header(), "id=1; id-seen=1.0");
        let beside_alone = set_cookie(Some(&first), &answer(&["id-seen=2.0"])).unwrap();
        assert!(matches!(beside_alone, SetCookie::No), "the session's cookie stays as it was");
        assert_eq!(first.header(), "id=1; id-seen=2.0");
        let second = given(Some(&first), &["id-seen=3.0", "id=2", "lang=en"]);
        assert_eq!(second.header(), "id=2; id-seen=3.0; lang=en");
        assert_eq!(first.header(), "id=1; id-seen=2.0");
        set_cookie(Some(&second), &answer(&["lang=; Max-Age=0"])).unwrap();
        assert_eq!(second.header(), "id=2; id-seen=3.0");
        assert!(matches!(set_cookie(Some(&second), &answer(&["id=; Max-Age=0"])).unwrap(), SetCookie::Removed));
    }

    #[test]
    fn the_same_name_twice_is_an_error() {
        let error = set_cookie(None, &answer(&["id=1", "id-seen=1.0", "id=1"])).unwrap_err();
        assert!(error.contains("`id` twice"), "{error}");
    }
}
