//! One request's way to a replica, and to the next one when that replica dies.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};

use crate::balancer::answers::Trouble;
use crate::balancer::body::HeldBody;
use crate::balancer::headers::{prepare_request, remove_hop_by_hop};
use crate::balancer::limits::{
    BODY_STALL_TIMEOUT, CONNECT_TIMEOUT, EXCHANGE_WAIT_MAX, HEAD_BYTES_MAX, HEADERS_MAX, IDLE_PER_REPLICA_MAX, IDLE_TIMEOUT,
    REQUEST_BODY_MAX, REQUEST_REPLAY_MAX, REQUEST_TIMEOUT, RESPONSE_REPLAY_MAX, TRIES_MAX, TRY_TIMEOUT,
};
use crate::balancer::replicas::{Replica, ReplicaSet};

/// What every request needs: the replicas and the connections to them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Forwarder {
    replicas: Arc<ReplicaSet>,
    client: Client<HttpConnector, Body>,
}

impl Forwarder {
    pub(crate) fn new(replicas: Arc<ReplicaSet>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_REPLICA_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            // An idle connection that the replica closed hands its request back unwritten; the client then takes another
            // connection. That is safe for a POST as well, since not a byte of it was sent.
            .retry_canceled_requests(true)
            .build(connector);
        Self { replicas, client }
    }
}

/// The parts of a request that every try needs again.
struct Outgoing {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: OutgoingBody,
}

enum OutgoingBody {
    /// Small enough to be kept, so it can be sent again.
    Kept(Bytes),
    /// Sent once; `None` after that.
    Streamed(Option<Body>),
}

impl Outgoing {
    /// A safe method can be sent again whatever became of the first try (RFC 9110 section 9.2.1).
    fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// The request for one try, or `None` when its body is gone.
    fn to(&mut self, address: SocketAddr) -> Option<Request> {
        let body = match &mut self.body {
            OutgoingBody::Kept(bytes) => Body::from(bytes.clone()),
            OutgoingBody::Streamed(body) => body.take()?,
        };
        let uri = format!("http://{address}{}", self.target).parse::<Uri>().ok()?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }
}

/// The balancer's fallback handler: everything but its own routes goes to a replica.
pub(crate) async fn forward(
    State(forwarder): State<Forwarder>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let uri = request.uri().clone();
    let headers = request.headers().clone();
    let answered = async {
        let outgoing = receive(request, client).await?;
        forwarder.send(outgoing).await
    };
    match answered.await {
        Ok(response) => response,
        Err(trouble) => {
            tracing::debug!(path = uri.path(), ?trouble, "answered by the balancer");
            trouble.answer(&uri, &headers)
        }
    }
}

/// Takes the request from the client: its head as it may be forwarded, its body as far as it can be kept.
async fn receive(request: Request, client: SocketAddr) -> Result<Outgoing, Trouble> {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if parts.method == Method::CONNECT || !target.starts_with('/') {
        return Err(Trouble::BadRequest);
    }
    let target = target.to_owned();
    check_host(&parts)?;
    if let Some(authority) = parts.uri.authority() {
        // RFC 9112 section 3.2.2: with a target in absolute form, its host counts and not the header's.
        let host = authority.as_str().parse().map_err(|_| Trouble::BadRequest)?;
        parts.headers.insert(header::HOST, host);
    }
    prepare_request(&mut parts.headers, client);
    let body = match body.size_hint().exact() {
        Some(length) if length > REQUEST_BODY_MAX as u64 => return Err(Trouble::BodyTooLarge),
        Some(length) if length <= REQUEST_REPLAY_MAX as u64 => {
            let collected = timeout(BODY_STALL_TIMEOUT, body.collect()).await;
            let bytes = collected.map_err(|_| Trouble::Late)?.map_err(|_| Trouble::BadRequest)?.to_bytes();
            OutgoingBody::Kept(bytes)
        }
        _ => {
            let limited = Limited::new(body, REQUEST_BODY_MAX);
            OutgoingBody::Streamed(Some(Body::new(HeldBody::new(limited, None))))
        }
    };
    Ok(Outgoing { method: parts.method, target, headers: parts.headers, body })
}

/// RFC 9112 section 3.2: one Host, not none and not two that different readers might choose from.
fn check_host(parts: &Parts) -> Result<(), Trouble> {
    let count = parts.headers.get_all(header::HOST).iter().count();
    let fits = if parts.version == Version::HTTP_11 { count == 1 } else { count <= 1 };
    if fits { Ok(()) } else { Err(Trouble::BadRequest) }
}

impl Forwarder {
    /// Sends the request to one replica after another, as far as that is safe.
    async fn send(&self, mut outgoing: Outgoing) -> Result<Response, Trouble> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut tried: Vec<Arc<Replica>> = Vec::new();
        let mut trouble = Trouble::NoReplica;
        // The last answer of a dying replica, for when no other one has a better.
        let mut fallback = None;
        while tried.len() < TRIES_MAX {
            let Some((replica, exchange)) = self.next(&mut tried).await else {
                break;
            };
            let Some(exchange) = exchange else {
                trouble = Trouble::Busy;
                continue;
            };
            let Some(address) = replica.address() else {
                continue;
            };
            let Some(request) = outgoing.to(address) else {
                break;
            };
            replica.count_request();
            let try_deadline = if outgoing.is_safe() { deadline.min(Instant::now() + TRY_TIMEOUT) } else { deadline };
            let outcome = tokio::select! {
                outcome = self.exchange(request, outgoing.is_safe(), exchange) => Some(outcome),
                () = sleep_until(try_deadline) => None,
                () = self.better_elsewhere(&replica, &tried), if outgoing.is_safe() => None,
            };
            match outcome {
                Some(Ok(response)) if outgoing.is_safe() && is_dying(&response) => {
                    replica.want_probe();
                    fallback = Some(response);
                }
                Some(Ok(response)) => return Ok(response),
                Some(Err(failure)) => {
                    tracing::debug!(replica = replica.name(), %failure, "exchange failed");
                    match failure {
                        Failure::NotConnected(_) => {
                            replica.mark_down(address);
                            trouble = Trouble::NoReplica;
                        }
                        Failure::NotSent(_) => replica.want_probe(),
                        Failure::BodyTooLarge => return Err(Trouble::BodyTooLarge),
                        Failure::RequestBody(_) => return Err(Trouble::BadRequest),
                        Failure::Broken(_) => {
                            replica.want_probe();
                            trouble = Trouble::Broken;
                            if !outgoing.is_safe() {
                                return Err(Trouble::Broken);
                            }
                        }
                    }
                }
                None => {
                    replica.want_probe();
                    trouble = Trouble::Late;
                    if !outgoing.is_safe() {
                        return Err(Trouble::Late);
                    }
                }
            }
            if Instant::now() >= deadline {
                trouble = Trouble::Late;
                break;
            }
        }
        fallback.ok_or(trouble)
    }

    /// Resolves when the replica hangs and another one is up: whoever only looks need not wait for it.
    async fn better_elsewhere(&self, replica: &Replica, tried: &[Arc<Replica>]) {
        loop {
            replica.silence().await;
            if self.replicas.has_other(tried) {
                return;
            }
        }
    }

    /// The next replica and a place among its exchanges, noted in `tried`. No place means: all of them were busy.
    async fn next(&self, tried: &mut Vec<Arc<Replica>>) -> Option<(Arc<Replica>, Option<OwnedSemaphorePermit>)> {
        let replica = self.replicas.next(tried)?;
        tried.push(Arc::clone(&replica));
        if let Some(exchange) = replica.try_exchange() {
            return Some((replica, Some(exchange)));
        }
        // Another one may have room; only the last one is waited for.
        if self.replicas.has_other(tried) && tried.len() < TRIES_MAX {
            return Some((replica, None));
        }
        let exchange = timeout(EXCHANGE_WAIT_MAX, replica.exchange()).await.ok().flatten();
        Some((replica, exchange))
    }

    /// One exchange with one replica: the answer's head and, when it is small and may be asked for again, its body.
    async fn exchange(&self, request: Request, is_safe: bool, exchange: OwnedSemaphorePermit) -> Result<Response, Failure> {
        let response = self.client.request(request).await.map_err(Failure::of)?;
        let (mut parts, body) = response.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        if is_safe && is_small(&body) {
            let bytes = body.collect().await.map_err(|error| Failure::Broken(error.into()))?.to_bytes();
            return Ok(Response::from_parts(parts, Body::from(bytes)));
        }
        Ok(Response::from_parts(parts, Body::new(HeldBody::new(body, Some(exchange)))))
    }
}

fn is_small(body: &Incoming) -> bool {
    body.size_hint().exact().is_some_and(|length| length <= RESPONSE_REPLAY_MAX as u64)
}

/// A 502 or 503 of a process that is going away is worth a second try elsewhere. One with `Retry-After` was said on
/// purpose, for example by the page that tells of a store out of reach: the other replicas would say the same.
fn is_dying(response: &Response) -> bool {
    matches!(response.status(), StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE)
        && !response.headers().contains_key(header::RETRY_AFTER)
}

/// How an exchange failed; what may be sent again depends on it.
#[derive(Debug)]
enum Failure {
    /// No connection, so nothing was sent: safe to repeat, whatever the method.
    NotConnected(ClientError),
    /// A connection that closed before a byte of the request was written: safe to repeat as well.
    NotSent(ClientError),
    /// The request's own body grew over the limit.
    BodyTooLarge,
    /// The client's body broke off, stalled or made no sense. The replica saw no whole request.
    RequestBody(ClientError),
    /// The connection broke while or after the request was written: it may have been carried out.
    Broken(BoxError),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotConnected(error) => write!(f, "not connected: {error}"),
            Self::NotSent(error) => write!(f, "not sent: {error}"),
            Self::BodyTooLarge => write!(f, "the request's body is over the limit"),
            Self::RequestBody(error) => write!(f, "the request's body: {error}"),
            Self::Broken(error) => write!(f, "broken: {error}"),
        }
    }
}

impl Failure {
    fn of(error: ClientError) -> Self {
        if error.is_connect() {
            return Self::NotConnected(error);
        }
        let mut is_request_body = false;
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            if cause.is::<LengthLimitError>() {
                return Self::BodyTooLarge;
            }
            // An error that hyper got from us: the stream of the body is all we gave it.
            is_request_body |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user);
            // hyper says "canceled" only when it hands the message back unwritten.
            if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
                return Self::NotSent(error);
            }
            source = cause.source();
        }
        if is_request_body { Self::RequestBody(error) } else { Self::Broken(error.into()) }
    }
}
