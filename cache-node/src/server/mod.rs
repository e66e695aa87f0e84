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

use crate::{config::Config, keyspace::Now, node::Shared};

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
    /// When an address cannot be bound (the text names it), or the machine gives no threads.
    pub async fn spawn(config: Config) -> io::Result<Node> {
        // Binding and starting threads is quick, and never waits for anybody.
        Node::start(config)
    }

    /// As [`Node::spawn`], for callers without async.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn start(config: Config) -> io::Result<Node> {
        let listeners = listener::bind_all(&config)?;
        let address = listeners[0].local_addr()?;
        let shared = Arc::new(Shared::new(config, address, now()));
        let threads = worker::start_all(&shared, listeners)?;
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
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(join)).await;
        drop(joined);
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn ask_to_end(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.clients.close_all();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ask_to_end();
        std::mem::take(&mut self.threads).into_iter().for_each(join);
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
