//! A shopper's browser: one connection, one cookie jar, and every exchange on record.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout};

use crate::load_test::jar::Jar;
use crate::load_test::limits::{ANSWER_MAX, EXCHANGE_TIMEOUT};
use crate::load_test::recorder::{Outcome, Recorder, Sample};

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The connection broke or could not be made.
    Broken,
    /// Nothing came in time, so the request may still be on its way.
    Late,
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) body: String,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), content_type: None, idempotency_key: None, body: String::new() }
    }
}

pub(crate) struct Browser {
    client: Client<HttpConnector, Body>,
    origin: Arc<str>,
    jar: Jar,
    recorder: Arc<Recorder>,
    /// Whether exchanges go on record. The looks after a run's end do not: they come all at once and are no load.
    pub(crate) is_on_record: bool,
    /// The replicas that ever answered this shopper.
    pub(crate) instances: BTreeSet<String>,
    /// Cookies that the shop replaced or took away without being asked, since this was last looked at.
    pub(crate) replaced_cookies: Vec<String>,
}

impl Browser {
    pub(crate) fn new(origin: Arc<str>, recorder: Arc<Recorder>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1).build(connector);
        Self {
            client,
            origin,
            jar: Jar::default(),
            recorder,
            is_on_record: true,
            instances: BTreeSet::new(),
            replaced_cookies: Vec::new(),
        }
    }

    /// One exchange. Its latency counts from `intended`, the moment at which the shopper wanted to send it: a shop that
    /// keeps a shopper waiting is not excused from the requests which that wait delayed (coordinated omission).
    pub(crate) async fn exchange(&mut self, ask: &Ask, intended: Instant) -> Result<Answer, NoAnswer> {
        let sent = Instant::now();
        let result = match timeout(EXCHANGE_TIMEOUT, self.send(ask)).await {
            Ok(result) => result,
            Err(_) => Err(NoAnswer::Late),
        };
        let done = Instant::now();
        let served_by = result.as_ref().ok().and_then(Answer::served_by);
        let outcome = match &result {
            Ok(answer) if answer.status.is_server_error() => Outcome::ServerError,
            Ok(_) => Outcome::Success,
            Err(NoAnswer::Broken) => Outcome::Broken,
            Err(NoAnswer::Late) => Outcome::Late,
        };
        if self.is_on_record {
            self.recorder.record(&Sample { intended, sent, done, outcome, served_by });
        }
        if let Ok(answer) = &result {
            if let Some(name) = served_by.filter(|name| !self.instances.contains(*name)) {
                self.instances.insert(name.to_owned());
            }
            self.replaced_cookies.extend(self.jar.take(&answer.headers));
        }
        result
    }

    async fn send(&self, ask: &Ask) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.origin, ask.path))
            .header(header::USER_AGENT, "demo-shop-load-test");
        if let Some(cookies) = self.jar.header() {
            request = request.header(header::COOKIE, cookies);
        }
        if let Some(content_type) = ask.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(key) = &ask.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(ask.body.clone())).map_err(|_| NoAnswer::Broken)?;
        let response = self.client.request(request).await.map_err(|_| NoAnswer::Broken)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|_| NoAnswer::Broken)?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

impl Answer {
    /// The replica's name; the balancer's own answers are of no replica.
    pub(crate) fn served_by(&self) -> Option<&str> {
        self.headers.get("x-served-by")?.to_str().ok().filter(|name| *name != "balancer")
    }

    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}
