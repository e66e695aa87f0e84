//! `/v1/…` as JSON: where the cluster is, how it is, and what happened to it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::cluster::{
    events::Events,
    limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_MAX},
    view::View,
};

/// What the HTTP port answers from.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) events: Arc<Events>,
    pub(super) endpoints: Endpoints,
}

/// The fixed addresses of the cluster.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Endpoints {
    pub(super) primary: SocketAddr,
    pub(super) reader: SocketAddr,
    pub(super) sentinel: SocketAddr,
    pub(super) http: SocketAddr,
}

/// Serves until the task is aborted.
pub(super) async fn serve(listener: TcpListener, http: Http) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (client, place) = match (client, Arc::clone(&places).try_acquire_owned()) {
            (Ok((client, _)), Ok(place)) => (client, place),
            (Ok(_), Err(_)) => continue,
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
        };
        let http = http.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = http.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HTTP_HEAD_MAX)
                .serve_connection(TokioIo::new(client), service)
                .await;
            // A client that went away or spoke no HTTP.
            drop(served);
            drop(place);
        });
    }
}

impl Http {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = fault(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let view = Arc::clone(&self.view.borrow());
        match request.uri().path() {
            "/v1/endpoints" => json(StatusCode::OK, &self.endpoints(&view)),
            "/v1/nodes" => json(StatusCode::OK, &*view),
            "/v1/events" => match after(request.uri().query()) {
                Ok(after) => json(StatusCode::OK, &serde_json::json!({ "events": self.events.since(after) })),
                Err(text) => fault(StatusCode::BAD_REQUEST, text),
            },
            "/healthz" => json(StatusCode::OK, &serde_json::json!({ "status": "ok" })),
            "/readyz" if view.primary.is_some() => json(StatusCode::OK, &serde_json::json!({ "status": "ready" })),
            "/readyz" => fault(StatusCode::SERVICE_UNAVAILABLE, "no node serves as the primary"),
            _ => fault(StatusCode::NOT_FOUND, "there are /v1/endpoints, /v1/nodes, /v1/events?after=ID, /healthz and /readyz"),
        }
    }

    fn endpoints(&self, view: &View) -> serde_json::Value {
        let Endpoints { primary, reader, sentinel, http } = self.endpoints;
        serde_json::json!({
            "primary": { "address": primary, "url": format!("redis://{primary}") },
            "reader": { "address": reader, "url": format!("redis://{reader}") },
            "sentinel": { "address": sentinel, "master_name": view.name, "url": format!("redis+sentinel://{sentinel}/{}", view.name) },
            "http": { "address": http, "url": format!("http://{http}") },
            "nodes": view.nodes.iter().map(|node| serde_json::json!({ "name": node.name, "role": node.role, "address": node.address })).collect::<Vec<_>>(),
        })
    }
}

/// The number in `after=N`.
fn after(query: Option<&str>) -> Result<u64, &'static str> {
    match query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("after=")) {
        None => Ok(0),
        Some(number) => number.parse().map_err(|_| "after must be the id of an event, such as after=17"),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("these values have string keys and no floats that JSON lacks");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

fn fault(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": text }))
}
