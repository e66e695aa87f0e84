//! Sockets: listeners, worker threads, connections. Nothing else in the node touches them.

mod connection;
mod listener;
mod worker;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{config::Config, keyspace::Now, node::Shared, persistence};

/// A running node. Dropping it asks it to end and waits for its threads; [`Node::shutdown`] does the same from async code.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let node = cache_node::Node::spawn(cache_node::Config::for_test()).await?;
/// println!("redis://{}", node.addr());
/// node.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts a node on threads of its own: it serves while the caller's runtime is busy, and needs none.
    ///
    /// # Errors
    /// When an address cannot be bound (the text names it), the snapshot cannot be loaded, or the machine gives no threads.
    pub async fn spawn(config: Config) -> io::Result<Node> {
        // Loading a snapshot takes its time: not on the caller's runtime.
        tokio::task::spawn_blocking(move || Node::start(config)).await.map_err(io::Error::other)?
    }

    /// As [`Node::spawn`], for callers without async.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn start(config: Config) -> io::Result<Node> {
        let listeners = listener::bind_all(&config)?;
        let address = listeners[0].local_addr()?;
        let shared = Arc::new(Shared::new(config, address, now()));
        // The port is taken, and clients that come already wait in its backlog.
        persistence::load_at_start(&shared)?;
        let mut threads = worker::start_all(&shared, listeners)?;
        threads.push(persistence::start_saver(&shared)?);
        Ok(Node { shared, threads })
    }

    /// Where the node listens; the first address of several.
    pub fn addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Ends the node: what has arrived is answered, then connections are closed and the threads end.
    pub async fn shutdown(mut self) {
        self.ask_to_end();
        let threads = std::mem::take(&mut self.threads);
        // Joining blocks: not on the caller's runtime.
        let shared = Arc::clone(&self.shared);
        let joined = tokio::task::spawn_blocking(move || finish(&shared, threads)).await;
        drop(joined);
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn ask_to_end(&self) {
        if !self.shared.is_stopping.load(Ordering::Acquire) {
            self.shared.end(true);
        }
    }

    /// Completes when a client has asked the node to end: SHUTDOWN. [`Node::shutdown`] is then still to be called.
    pub(crate) async fn asked_to_end(&self) {
        self.shared.asked_to_end.notified().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ask_to_end();
        finish(&self.shared, std::mem::take(&mut self.threads));
    }
}

/// Waits for the threads, and takes the last snapshot when nothing writes any more.
fn finish(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    if threads.is_empty() {
        return;
    }
    threads.into_iter().for_each(join);
    if shared.saves_at_end.load(Ordering::Acquire) {
        shared.saver.save_at_end(shared);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a worker thread ended by a panic");
    }
}

/// The clock of the node: read once per batch of requests.
pub(crate) fn now() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { unix_ms: since_epoch.as_millis() as u64 }
}
