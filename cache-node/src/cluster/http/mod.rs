//! `/v1/…` as JSON: where the cluster is, how it is, what happened to it; and commands to it.

mod answer;
mod command;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::cluster::{
    limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_MAX},
    operation::Desk,
    token::Token,
};

/// What the HTTP port answers from.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) desk: Desk,
    pub(super) endpoints: Endpoints,
    pub(super) token: Token,
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
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let http = http.clone();
        connections.spawn(async move {
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
            drop(place);
        });
    }
}
