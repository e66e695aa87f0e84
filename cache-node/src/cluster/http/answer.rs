//! The routes of the HTTP port.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, channel::Channel};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

use crate::{
    cluster::{
        http::{
            Endpoints, Http,
            metrics::{self, Figures},
        },
        view::View,
    },
    metrics::Format,
};

/// A whole answer, or lines that come while a command runs.
pub(super) type Body = Either<Full<Bytes>, Channel<Bytes>>;

impl Http {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let is_command = request.uri().path() == "/v1/commands";
        let is_allowed =
            if is_command { *request.method() == Method::POST } else { [Method::GET, Method::HEAD].contains(request.method()) };
        if !is_allowed {
            let methods = if is_command { "POST" } else { "GET, HEAD" };
            let mut response = fault(StatusCode::METHOD_NOT_ALLOWED, &format!("only {methods}"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return response;
        }
        if is_command {
            return self.command(request).await;
        }
        let view = self.desk.seen();
        match request.uri().path() {
            "/v1/endpoints" => json(StatusCode::OK, &endpoints(self.endpoints, &view)),
            "/v1/nodes" => json(StatusCode::OK, &*view),
            "/v1/events" => match self.desk.events.page(request.uri().query()) {
                Ok(page) => json(StatusCode::OK, &page),
                Err(text) => fault(StatusCode::BAD_REQUEST, text),
            },
            "/v1/targets" => json(StatusCode::OK, &metrics::targets(self.endpoints.http, &view)),
            "/metrics" => {
                let format = Format::wanted(request.headers().get_all(ACCEPT));
                match format.render(Figures { view, counts: self.desk.events.counts(), webhooks: self.webhooks.counts() }) {
                    Some(text) => with_type(StatusCode::OK, format.content_type(), Either::Left(Full::new(Bytes::from(text)))),
                    None => fault(StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be written"),
                }
            }
            "/healthz" => json(StatusCode::OK, &serde_json::json!({ "status": "ok" })),
            "/readyz" if view.primary.is_some() => json(StatusCode::OK, &serde_json::json!({ "status": "ready" })),
            "/readyz" => fault(StatusCode::SERVICE_UNAVAILABLE, "no node serves as the primary"),
            _ => fault(
                StatusCode::NOT_FOUND,
                "there are GET /v1/endpoints, /v1/nodes, /v1/events?after=ID, /v1/targets, /metrics, /healthz and /readyz, and POST /v1/commands",
            ),
        }
    }
}

fn endpoints(Endpoints { primary, reader, sentinel, http }: Endpoints, view: &View) -> serde_json::Value {
    let node = |node: &crate::cluster::view::NodeView| serde_json::json!({ "name": node.name, "role": node.role, "address": node.address });
    serde_json::json!({
        "primary": { "address": primary, "url": format!("redis://{primary}") },
        "reader": { "address": reader, "url": format!("redis://{reader}") },
        "sentinel": { "address": sentinel, "master_name": view.name, "url": format!("redis+sentinel://{sentinel}/{}", view.name) },
        "http": { "address": http, "url": format!("http://{http}") },
        "nodes": view.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("these values have string keys and no floats that JSON lacks");
    with_type(status, "application/json", Either::Left(Full::new(Bytes::from(body))))
}

pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn fault(status: StatusCode, text: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "error": text }))
}

/// The bytes of a body, up to `bytes_max`.
pub(super) async fn read(body: Incoming, bytes_max: usize) -> Option<Bytes> {
    http_body_util::Limited::new(body, bytes_max).collect().await.ok().map(http_body_util::Collected::to_bytes)
}
