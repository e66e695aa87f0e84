//! One node: its sockets, its breaker, what is known of it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use redis::RedisError;

use super::{
    Address, Failure, Handle, Transport,
    breaker::{Breaker, BreakerState, Change},
    probe,
    socket::{self, Socket},
    transport::Connection,
};
use crate::{
    StoreError, metrics,
    wire::{OnPush, Wire},
};

/// What is known of a node of the store.
///
/// ```no_run
/// # fn example(store: &session_store::CacheStore) {
/// for node in store.status().nodes {
///     println!("{}: breaker {} for {:?}", node.address, node.breaker, node.since);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Host and port, or the path of the socket.
    pub address: String,
    /// Whether requests are sent to it.
    pub breaker: BreakerState,
    /// How long that has been so; half-open counts as open.
    pub since: Duration,
    /// What is wrong, while the breaker is not closed.
    pub reason: Option<String>,
    /// Connections that are up.
    pub connections: usize,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(super) address: Address,
    pub(super) transport: Arc<Transport>,
    pub(super) sockets: Box<[Socket]>,
    pub(super) breaker: Breaker,
    started: Instant,
}

impl Node {
    pub(crate) fn new(address: Address, transport: Arc<Transport>, sockets: usize) -> Arc<Self> {
        let started = Instant::now();
        let sockets = (0..sockets).map(|_| Socket::new(Arc::clone(&transport.replaced))).collect();
        let breaker = Breaker::new(transport.answer_within, started);
        Arc::new(Self { address, transport, sockets, breaker, started })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.breaker.is_closed()
    }

    /// A handle on one of the connections; an error at once while the breaker is open.
    pub(crate) async fn handle(self: &Arc<Self>, turn: usize) -> Result<Handle, StoreError> {
        self.admit()?;
        socket::handle(self, turn % self.sockets.len()).await
    }

    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        if self.breaker.is_closed() { Ok(()) } else { Err(socket::open_error(self)) }
    }

    /// A connection beside the others, over which the node may say what was not asked.
    pub(crate) async fn open_pushed(&self, reached: &AtomicBool, on_push: OnPush) -> Result<Wire, RedisError> {
        Ok(self.transport.open_with(&self.address, reached, Some(on_push)).await?.wire)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.transport.connect_timeout
    }

    /// Whether it is asked only while it is a primary.
    pub(crate) fn is_primary_only(&self) -> bool {
        self.transport.primary_only
    }

    /// Returns when the breaker is closed.
    pub(crate) async fn until_closed(&self) {
        self.breaker.until_closed().await;
    }

    pub(crate) fn failed(self: &Arc<Self>, failure: Failure, reason: &str) {
        if self.breaker.failed(failure, reason, Instant::now()) == Change::Opened {
            tracing::warn!(
                node = %self.address,
                reason,
                answers_needed = self.breaker.proof(),
                "the store's node is out of reach, requests are refused until it is back"
            );
            metrics::breaker(&self.address.to_string(), true);
            probe::start(self);
        }
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let breaker = self.breaker.state();
        let (since, reason) = self.breaker.since(Instant::now());
        NodeStatus {
            address: self.address.to_string(),
            breaker,
            since,
            reason: (breaker != BreakerState::Closed).then_some(reason),
            connections: self.sockets.iter().filter(|socket| socket.is_up()).count(),
        }
    }

    /// Since there is this node.
    pub(super) fn us_until(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started).as_micros() as u64
    }

    /// Over this socket, at this moment: as of the request, whose end is looked at the clock for in any case.
    pub(super) fn answered(&self, socket: usize, at: Instant) {
        self.sockets[socket].answered(self.us_until(at));
        self.breaker.answered();
    }

    /// An attempt to connect has failed. One that succeeds closes no breaker: that is for the probe, which knows that answers come in time.
    pub(super) fn not_connected(self: &Arc<Self>, error: &StoreError) {
        match error {
            StoreError::Connect { reason, .. } => self.failed(Failure::Unreachable, reason),
            error => self.failed(Failure::Unreachable, &error.to_string()),
        }
    }

    /// A probe has been answered in time over this connection, which serves from now on. What was there before may hang.
    pub(super) fn recovered(&self, connection: Connection) {
        let mut connection = Some(connection);
        for socket in &self.sockets {
            socket.install(connection.take());
        }
        if let Change::Closed { after } = self.breaker.close(Instant::now()) {
            metrics::breaker(&self.address.to_string(), false);
            tracing::info!(node = %self.address, after_ms = after.as_millis() as u64, "the store's node is back");
        }
    }
}
