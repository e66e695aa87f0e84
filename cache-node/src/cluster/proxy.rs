//! The `primary` and `reader` endpoints: fixed addresses for clients that know no Sentinel.
//!
//! Bytes are passed on as they are. When the node behind a connection loses its role, the connection is closed at once: a client that
//! waits for an answer of a dead primary learns it now and not after its own time-out.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{
    cluster::{
        limits::{CONNECT_MAX, PRIMARY_WAIT_MAX, PROXY_BUFFER_BYTES, PROXY_CONNECTIONS_MAX},
        view::View,
    },
    server::{
        MAX_CLIENTS,
        accept::{Places, accept},
    },
};

/// Which node an endpoint leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Primary,
    /// The replicas in turn; the primary while none serves.
    Reader,
}

/// What a client is told that found no node in time. Clients take `LOADING` for what passes by itself, and try again.
const NOBODY: &[u8] = b"-LOADING the cluster has no node to serve this; try again\r\n";

/// Wait before a node that refused a connection is tried again.
const RETRY_PERIOD: Duration = Duration::from_millis(20);

/// Serves the endpoint until the task is aborted; its connections end with it.
pub(super) async fn serve(listener: TcpListener, target: Target, view: watch::Receiver<Arc<View>>) {
    let turn = Arc::new(AtomicUsize::new(0));
    accept(listener, Places::new(PROXY_CONNECTIONS_MAX), MAX_CLIENTS, move |client, _| {
        let (view, turn) = (view.clone(), Arc::clone(&turn));
        async move {
            let passed = pass(client, target, view, &turn).await;
            // A connection that ended in the middle is the client's or the node's business.
            drop(passed);
        }
    })
    .await;
}

async fn pass(mut client: TcpStream, target: Target, mut view: watch::Receiver<Arc<View>>, turn: &AtomicUsize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let found = timeout(PRIMARY_WAIT_MAX, connect(target, &mut view, turn)).await;
    let Ok((epoch, address, mut node)) = found else {
        client.write_all(NOBODY).await?;
        return client.shutdown().await;
    };
    node.set_nodelay(true)?;
    tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut node, PROXY_BUFFER_BYTES, PROXY_BUFFER_BYTES) => copied.map(drop),
        () = lost(target, epoch, address, &mut view) => Ok(()),
    }
}

/// Connects to a node that serves, as soon as there is one.
async fn connect(target: Target, view: &mut watch::Receiver<Arc<View>>, turn: &AtomicUsize) -> (u64, SocketAddr, TcpStream) {
    loop {
        let seen = Arc::clone(&view.borrow_and_update());
        if let Some(address) = choose(target, &seen, turn)
            && let Ok(Ok(node)) = timeout(CONNECT_MAX, TcpStream::connect(address)).await
        {
            return (seen.epoch, address, node);
        }
        // The node may be gone before the controller knows it.
        let changed = timeout(RETRY_PERIOD, view.changed()).await;
        drop(changed);
    }
}

fn choose(target: Target, view: &View, turn: &AtomicUsize) -> Option<SocketAddr> {
    if target == Target::Reader {
        let readers: Vec<SocketAddr> = view.readers().map(|node| node.address).collect();
        if !readers.is_empty() {
            return readers.get(turn.fetch_add(1, Ordering::Relaxed) % readers.len()).copied();
        }
    }
    view.primary
}

/// Completes when the node at `address` no longer has the role that the connection was made for.
async fn lost(target: Target, epoch: u64, address: SocketAddr, view: &mut watch::Receiver<Arc<View>>) {
    let is_lost = |view: &Arc<View>| match target {
        Target::Primary => view.epoch != epoch || view.primary != Some(address),
        // A replica that became the primary still reads; one that is being filled anew does not.
        Target::Reader => view.primary != Some(address) && !view.readers().any(|node| node.address == address),
    };
    if view.wait_for(is_lost).await.is_err() {
        // The controller is ending, and its nodes end their connections.
        std::future::pending::<()>().await;
    }
}
