//! Sockets: listeners, worker threads, connections. Nothing else in the node touches them.

#[cfg(feature = "metrics")]
pub(crate) mod accept;
#[cfg(feature = "bench")]
pub(crate) mod bench;
mod connection;
mod listener;
mod socket;
mod turn_replies;
mod worker;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

#[cfg(feature = "metrics")]
use crate::metrics;
use crate::{
    announce::Announcer,
    config::{self, Config},
    keyspace::Now,
    node::{EventKind, Hindrance, Shared},
    persistence, replication,
    server::listener::Place,
};

#[cfg(feature = "cluster")]
pub(crate) use worker::MAX_CLIENTS;

/// A running node. Dropping it asks it to end and waits for its threads; [`Node::shutdown`] does the same from async code.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let node = cache_node::Node::spawn(cache_node::Config::for_test()).await?;
/// println!("redis://{}", node.addr());
/// node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Keeps the log; ends after the others.
    log: Option<JoinHandle<io::Result<()>>>,
    /// Tells events; ends last, so that it tells how the others ended.
    announcer: Option<Announcer>,
}

impl Node {
    /// Starts a node on threads of its own: it serves while the caller's runtime is busy, and needs none. With `appendonly` it has its
    /// data when this completes; whoever connects before that is told LOADING.
    ///
    /// # Errors
    /// When an address cannot be bound (the text names it), the machine gives no threads, webhooks cannot be signed, the ACL file is not right, or the snapshot or the
    /// log cannot be loaded (the text says what to do).
    pub async fn spawn(config: Config) -> io::Result<Node> {
        // Loading takes its time: not on the caller's runtime.
        tokio::task::spawn_blocking(move || Node::start(config)).await.map_err(io::Error::other)?
    }

    /// As [`Node::spawn`], for callers without async.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn start(config: Config) -> io::Result<Node> {
        // Before anybody is let in.
        let users = config::load_users(&config).map_err(io::Error::other)?;
        let listeners = listener::bind_all(&Place {
            addresses: &config.bind,
            port: config.port,
            backlog: config.tcp_backlog,
            address_option: "--bind",
            port_option: "--port",
        })?;
        #[cfg(feature = "metrics")]
        let watched = config.metrics_port.map(|port| bind_metrics(&config, port)).transpose()?;
        let address = listeners[0].local_addr()?;
        let shared = Arc::new(Shared::new(config, address, now()));
        shared.acl.begin(users, shared.config().aclfile.is_some());
        shared.gate.set(Hindrance::Loading, shared.config().has_persistence());
        let announcer = Announcer::start(&shared)?;
        #[cfg_attr(not(feature = "metrics"), allow(unused_mut, reason = "there is one thread less"))]
        let mut threads = worker::start_all(&shared, listeners)?;
        // Before the data is loaded: who watches the node sees that, too.
        #[cfg(feature = "metrics")]
        if let Some(listeners) = watched {
            threads.push(metrics::start(&shared, listeners)?);
        }
        let mut node = Node { shared, threads, log: None, announcer: Some(announcer) };
        node.load().inspect_err(|error| {
            node.shared.tell(EventKind::NodeStartFailed, error.to_string());
            // It never served: that it ends is nothing more to tell. What was loaded until then must not take the place of what is there.
            node.shared.is_stopping.store(true, Ordering::Release);
            node.shared.end(false);
        })?;
        node.shared.gate.set(Hindrance::Loading, false);
        let role = match node.shared.replication.primary() {
            Some(primary) => format!("a replica of {}:{}", primary.host, primary.port),
            None => "a primary".to_owned(),
        };
        let (version, bytes) = (env!("CARGO_PKG_VERSION"), node.shared.keyspace.used_bytes());
        let text = format!("cache-node {version} serves on {address} as {role}, with {bytes} bytes of keys and values");
        node.shared.tell(EventKind::NodeStarted, text);
        Ok(node)
    }

    /// Loads what was kept, and starts to keep what comes.
    fn load(&mut self) -> io::Result<()> {
        self.log = Some(persistence::start_log(&self.shared, now())?);
        self.threads.push(persistence::start_saver(&self.shared)?);
        // What is loaded is as old as it is: a primary is asked for what came since.
        replication::begin(&self.shared, now());
        self.threads.push(replication::start_link(&self.shared)?);
        Ok(())
    }

    /// Where the node listens; the first address of several.
    pub fn addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Where `/metrics` is; the first address of several. `None` without [`Config::metrics_port`].
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.shared.metrics_address.get().copied()
    }

    /// Ends the node: what has arrived is answered, then connections are closed, the log is brought to disk and the threads end.
    ///
    /// # Errors
    /// When the log could not be brought to disk: what was acknowledged last may be lost.
    pub async fn shutdown(mut self) -> io::Result<()> {
        // Joining blocks: not on the caller's runtime.
        let ended = tokio::task::spawn_blocking(move || self.end()).await;
        ended.map_err(io::Error::other)?
    }

    /// As [`Node::shutdown`], for callers without async. A node that was ended already does nothing.
    fn end(&mut self) -> io::Result<()> {
        self.ask_to_end();
        if self.threads.is_empty() {
            return Ok(());
        }
        std::mem::take(&mut self.threads).into_iter().for_each(join);
        // Connections that end have their writes in the log before they are answered, so it ends behind them.
        self.shared.log.stop();
        self.shared.journal.call_log();
        let outcome = match self.log.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(io::Error::other("the thread that keeps the log ended by a panic")),
        };
        // The last snapshot, when nothing writes any more.
        if self.shared.saves_at_end.load(Ordering::Acquire) {
            self.shared.saver.save_at_end(&self.shared);
        }
        if let Some(announcer) = self.announcer.take() {
            announcer.end();
        }
        outcome
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

#[cfg(feature = "metrics")]
fn bind_metrics(config: &Config, port: u16) -> io::Result<Vec<std::net::TcpListener>> {
    listener::bind_all(&Place {
        addresses: &config.metrics_bind,
        port,
        backlog: config.tcp_backlog,
        address_option: "--metrics-bind",
        port_option: "--metrics-port",
    })
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!("{error}");
        }
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
