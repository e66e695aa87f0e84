//! The balancer's listener: connections of clients, with bounds, and its orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::balancer::client_stream::ClientStream;
use crate::balancer::limits::{
    CLIENT_CONNECTIONS_MAX, CLIENT_STALL_TIMEOUT, DRAIN_TIMEOUT, HEAD_BYTES_MAX, HEAD_READ_TIMEOUT, HEADERS_MAX,
    OPEN_FILES_RESERVED,
};

/// Opens the listener; the error names the option that chooses another address.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| match address.port() {
        0 => format!("cannot listen on {address}"),
        port => format!(
            "cannot listen on {address}: choose another address with --listen, for example --listen {}",
            SocketAddr::new(address.ip(), if port == u16::MAX { port - 1 } else { port + 1 })
        ),
    })
}

/// Serves until `shutdown` resolves; then accepts nothing more and gives the exchanges in flight [`DRAIN_TIMEOUT`].
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let files = crate::process::open_files_max().saturating_sub(OPEN_FILES_RESERVED);
    let places = Arc::new(Semaphore::new((files / 2).clamp(1, CLIENT_CONNECTIONS_MAX)));
    let (ending, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
            // Finished tasks are collected as they end, or the set would grow for ever.
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, client, place)) = accepted else {
            continue;
        };
        let router = router.clone();
        let ending = ending.subscribe();
        connections.spawn(async move {
            serve_connection(stream, client, router, ending).await;
            drop(place);
        });
    }
    drop(listener);
    ending.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("exchanges were still in flight after {DRAIN_TIMEOUT:?} and were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, client)) => Some((stream, client, place)),
        Err(error) => {
            // Out of file descriptors, most likely: a pause lets some close instead of spinning on the error.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            None
        }
    }
}

async fn serve_connection(stream: TcpStream, client: SocketAddr, router: Router, mut ending: watch::Receiver<bool>) {
    // A small answer waits for nothing: without this, Nagle and delayed acknowledgements add 40 ms.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(client));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(ClientStream::new(stream, CLIENT_STALL_TIMEOUT)), service);
    tokio::pin!(connection);
    let ended = async { ending.wait_for(|ending| *ending).await.is_ok() };
    tokio::pin!(ended);
    tokio::select! {
        // An error here is a client that went away or spoke no HTTP; neither is the operator's concern.
        result = &mut connection => { let _ = result; return; }
        _ = &mut ended => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
