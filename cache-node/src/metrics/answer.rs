//! The routes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{error::Elapsed, timeout},
};

use crate::{
    metrics::{collector, format::Format, ready},
    node::Shared,
    server::now,
};

/// How long `/metrics` may take: a script that runs keeps every shard locked.
const READING_TIME_MAX: Duration = Duration::from_secs(8);

/// Readings at once: more would only wait for the same locks.
const READINGS_MAX: usize = 1;

/// What the port answers from.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    shared: Arc<Shared>,
    readings: Arc<Semaphore>,
}

impl Answers {
    pub(super) fn new(shared: Arc<Shared>) -> Answers {
        Answers { shared, readings: Arc::new(Semaphore::new(READINGS_MAX)) }
    }

    pub(super) async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(Format::wanted(request.headers().get_all(ACCEPT))).await,
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match ready::obstacle(&self.shared) {
                None => text(StatusCode::OK, "ready\n"),
                Some(obstacle) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
            },
            "/v1/events" => match self.shared.events.page(request.uri().query()) {
                Ok(page) => typed(StatusCode::OK, "application/json", page.to_string()),
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /v1/events?after=ID\n"),
        }
    }

    async fn metrics(&self, format: Format) -> Response<Full<Bytes>> {
        match timeout(READING_TIME_MAX, self.read(format)).await {
            Ok(Some(body)) => typed(StatusCode::OK, format.content_type(), body),
            Ok(None) => text(StatusCode::INTERNAL_SERVER_ERROR, "the reading failed; the node's log says more\n"),
            Err(Elapsed { .. }) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("no reading within {READING_TIME_MAX:?}: a script or a command on all keys is running\n"),
            ),
        }
    }

    /// Reads off this thread, which goes on to answer others meanwhile. A reading that nobody waits for any more keeps its place.
    async fn read(&self, format: Format) -> Option<String> {
        let place = Arc::clone(&self.readings).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.shared);
        let reading = spawn_blocking(move || {
            let _place = place;
            collector::read(&shared, now(), format)
        });
        reading.await.ok()?
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
