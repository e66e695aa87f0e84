//! The port: a thread that accepts, with a bound on everything that a client could hold on to.

use std::{
    convert::Infallible,
    io,
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    runtime,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    metrics::answer::Answers,
    node::Shared,
    server::accept::{Places, accept},
};

/// Connections at once, on all addresses together; one more is closed at once.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may last: one request and its answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How often it looks whether the node ends.
const TICK: Duration = Duration::from_millis(50);

/// Serves on bound, non-blocking `listeners` until the node ends.
///
/// # Errors
/// When the machine gives no thread.
pub(crate) fn start(shared: &Arc<Shared>, listeners: Vec<TcpListener>) -> io::Result<JoinHandle<()>> {
    if let Some(address) = listeners.first().and_then(|listener| listener.local_addr().ok()) {
        tracing::info!("metrics at http://{address}/metrics");
        shared.metrics_address.get_or_init(|| address);
    }
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let listeners = {
        let _entered = runtime.enter();
        listeners.into_iter().map(tokio::net::TcpListener::from_std).collect::<io::Result<Vec<_>>>()?
    };
    let shared = Arc::clone(shared);
    thread::Builder::new().name("cache-node-metrics".to_owned()).spawn(move || {
        runtime.block_on(serve(&shared, listeners));
        // A reading may be waiting for a script to end.
        runtime.shutdown_background();
    })
}

async fn serve(shared: &Arc<Shared>, listeners: Vec<tokio::net::TcpListener>) {
    let answers = Answers::new(Arc::clone(shared));
    let places = Places::new(CONNECTIONS_MAX);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let answers = answers.clone();
        accepting.spawn(accept(listener, places.clone(), b"", move |client, _| answer(client, answers.clone())));
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is_stopping.load(Ordering::Acquire) {
        ticks.tick().await;
    }
}

async fn answer(client: TcpStream, answers: Answers) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(client), service);
    // A client that went away, spoke no HTTP, or was too slow.
    drop(timeout(CONNECTION_TIME_MAX, served).await);
}
