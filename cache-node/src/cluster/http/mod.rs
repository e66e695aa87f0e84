//! `/v1/…` as JSON: where the cluster is, how it is, what happened to it; and commands to it.

mod answer;
mod command;
mod metrics;

use std::{convert::Infallible, net::SocketAddr};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{
    cluster::{
        limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_MAX},
        operation::Desk,
        token::Token,
    },
    server::accept::{Places, accept},
    webhook::Tallies,
};

/// What the HTTP port answers from.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) desk: Desk,
    pub(super) endpoints: Endpoints,
    pub(super) token: Token,
    pub(super) webhooks: Tallies,
}

/// The fixed addresses of the cluster.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Endpoints {
    pub(super) primary: SocketAddr,
    pub(super) reader: SocketAddr,
    pub(super) sentinel: SocketAddr,
    pub(super) http: SocketAddr,
}

/// What a client is told that is one too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves until the task is aborted.
pub(super) async fn serve(listener: TcpListener, http: Http) {
    accept(listener, Places::new(HTTP_CONNECTIONS_MAX), FULL, move |client, _| {
        let http = http.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let http = http.clone();
                async move { Ok::<_, Infallible>(http.answer(request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HTTP_HEAD_MAX)
                .serve_connection(TokioIo::new(client), service)
                .await;
            // A client that went away or spoke no HTTP.
            drop(served);
        }
    })
    .await;
}
