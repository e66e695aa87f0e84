//! A connection that operations share, and its successors: it is replaced when it breaks, is silent, or is old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::Shared};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{Failure, Node, transport::Connection};
use crate::StoreError;

/// A node that had a request for less than this part of the deadline is not to blame for its end: the rest went by while the
/// request waited for its turn.
const BLAMED_FROM_PARTS: u32 = 2;

/// A socket is known to have answered within this time before it did last: by so much less than a deadline one may have been silent that is
/// replaced.
const ANSWERED_EVERY_US: u64 = 250;

/// What a finished attempt to connect leaves for all who waited for it.
type Connected = Result<(Connection, u64), StoreError>;

/// What an operation works with: a clone of a shared connection, and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) connection: Connection,
    node: Arc<Node>,
    socket: usize,
    generation: u64,
}

impl Handle {
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Whether it leads over the present connection, and that one is not too old.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        !self.node.transport.is_old(&self.connection, now.into_std())
            && self.node.sockets[self.socket].generation.load(Ordering::Acquire) == self.generation
    }

    pub(crate) fn answered(&self, at: Instant) {
        self.node.answered(self.socket, at.into_std());
    }

    /// `waited_until`: when the operation was ready to ask, if it had to wait for that.
    pub(crate) fn origin(&self, waited_until: Option<Instant>) -> Origin {
        let Self { socket, generation, .. } = *self;
        Origin { node: Arc::clone(&self.node), socket, generation, waited_until }
    }
}

/// Which connection an operation went to, kept outside of the operation so that its end can be reported after a timeout.
#[derive(Debug)]
pub(crate) struct Origin {
    node: Arc<Node>,
    socket: usize,
    generation: u64,
    waited_until: Option<Instant>,
}

impl Origin {
    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    pub(crate) fn answered(&self) {
        self.node.answered(self.socket, Instant::now().into_std());
    }

    pub(crate) fn broke(&self) {
        self.socket().replace(self.generation);
    }

    /// An operation ended at its deadline without an answer. A connection over which nothing came for a whole deadline is
    /// replaced: its peer may be gone without a word. One that answered others meanwhile is only slow, and replacing it would
    /// add to the load.
    pub(crate) fn unanswered(&self, began: Instant, deadline: Duration) {
        let asked_at_us = self.node.us_until(Instant::now().into_std()).saturating_sub(deadline.as_micros() as u64);
        let is_silent = self.socket().answered_at_us.load(Ordering::Relaxed) < asked_at_us;
        let is_replaced = is_silent && self.socket().replace(self.generation);
        if !is_replaced && self.waited_until.unwrap_or(began).elapsed() < deadline / BLAMED_FROM_PARTS {
            return;
        }
        let reason: &str = if is_silent {
            "it accepts connections and does not answer"
        } else {
            &format!("most requests are not answered within {} ms", deadline.as_millis())
        };
        self.node.failed(Failure::Late, reason);
    }

    fn socket(&self) -> &Socket {
        &self.node.sockets[self.socket]
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    /// Counts the connections: a handle of an earlier one is not used again.
    generation: AtomicU64,
    replaced: Arc<AtomicU64>,
    answered_at_us: AtomicU64,
    // Held for a few instructions only; the waiting happens on the shared future inside.
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Down,
    Connecting(Shared<oneshot::Receiver<Connected>>),
    Up(Connection),
    /// Old, and still used until its successor is there.
    Renewing(Connection),
}

impl Socket {
    /// `replaced`: counts the generations of all sockets of a store.
    pub(super) fn new(replaced: Arc<AtomicU64>) -> Self {
        Self { generation: AtomicU64::new(0), replaced, answered_at_us: AtomicU64::new(0), state: Mutex::new(State::Down) }
    }

    pub(super) fn answered(&self, at_us: u64) {
        // Not each time: two busy cores would take its cache line from each other.
        if at_us.saturating_sub(self.answered_at_us.load(Ordering::Relaxed)) >= ANSWERED_EVERY_US {
            self.answered_at_us.store(at_us, Ordering::Relaxed);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.lock(), State::Up(_) | State::Renewing(_))
    }

    /// `false` when it has been replaced already.
    fn replace(&self, generation: u64) -> bool {
        let mut state = self.state.lock();
        let is_current = self.generation.load(Ordering::Relaxed) == generation;
        if is_current && matches!(*state, State::Up(_) | State::Renewing(_)) {
            self.advance(&mut state, State::Down);
            return true;
        }
        false
    }

    /// Takes a connection that a probe has made, or none: what was there before, or was about to be, is not used again.
    pub(super) fn install(&self, connection: Option<Connection>) {
        self.advance(&mut self.state.lock(), connection.map_or(State::Down, State::Up));
    }

    fn advance(&self, state: &mut State, next: State) {
        self.generation.fetch_add(1, Ordering::Release);
        self.replaced.fetch_add(1, Ordering::Release);
        *state = next;
    }
}

/// The connection, or one attempt to make it for everybody who asks at the same time.
pub(super) async fn handle(node: &Arc<Node>, index: usize) -> Result<Handle, StoreError> {
    let socket = &node.sockets[index];
    let handle = |connection, generation| Handle { connection, node: Arc::clone(node), socket: index, generation };
    let attempt = {
        let mut state = socket.state.lock();
        match &*state {
            State::Up(connection) | State::Renewing(connection) => {
                let handle = handle(connection.clone(), socket.generation.load(Ordering::Relaxed));
                if matches!(*state, State::Up(_)) && node.transport.is_old(connection, Instant::now().into_std()) {
                    drop(state);
                    renew_old(node);
                }
                return Ok(handle);
            }
            State::Connecting(attempt) => attempt.clone(),
            State::Down => {
                let (sender, receiver) = oneshot::channel();
                let attempt = receiver.shared();
                *state = State::Connecting(attempt.clone());
                // A task of its own: the attempt goes on when the request that began it runs out of time.
                tokio::spawn(connect(Arc::clone(node), index, socket.generation.load(Ordering::Relaxed), sender));
                attempt
            }
        }
    };
    if let Ok(connected) = attempt.clone().await {
        return connected.map(|(connection, generation)| handle(connection, generation));
    }
    // The task was dropped with its runtime. The next one who asks begins another.
    let mut state = socket.state.lock();
    if matches!(&*state, State::Connecting(current) if current.ptr_eq(&attempt)) {
        *state = State::Down;
    }
    Err(StoreError::Disconnected { reason: "the runtime that was connecting has shut down".to_owned() })
}

async fn connect(node: Arc<Node>, index: usize, generation: u64, done: oneshot::Sender<Connected>) {
    let connected = node.transport.connect(&node.address).await;
    let socket = &node.sockets[index];
    let (connected, is_news) = {
        let mut state = socket.state.lock();
        let is_news = socket.generation.load(Ordering::Relaxed) == generation;
        match &connected {
            // A probe was faster.
            _ if !is_news => {}
            Ok(connection) => socket.advance(&mut state, State::Up(connection.clone())),
            Err(_) => *state = State::Down,
        }
        (connected.map(|connection| (connection, generation + 1)), is_news)
    };
    if is_news && let Err(error) = &connected {
        node.not_connected(error);
    }
    // Nobody waits any more: the connection is there for the next one.
    let _ = done.send(connected);
}

/// Of all sockets: one that is used in busy hours only would lead to where the store was before.
fn renew_old(node: &Arc<Node>) {
    let now = Instant::now().into_std();
    for (index, socket) in node.sockets.iter().enumerate() {
        let mut state = socket.state.lock();
        if let State::Up(old) = &*state
            && node.transport.is_old(old, now)
        {
            *state = State::Renewing(old.clone());
            tokio::spawn(renew(Arc::clone(node), index, socket.generation.load(Ordering::Relaxed)));
        }
    }
}

/// Puts a young connection in the place of an old one. Operations that are under way end on the old one.
async fn renew(node: Arc<Node>, index: usize, generation: u64) {
    let connected = node.transport.connect(&node.address).await;
    let socket = &node.sockets[index];
    let mut state = socket.state.lock();
    let is_current = socket.generation.load(Ordering::Relaxed) == generation;
    match (&*state, connected) {
        (State::Renewing(_), Ok(connection)) if is_current => socket.advance(&mut state, State::Up(connection)),
        (State::Renewing(old), Err(error)) if is_current => {
            tracing::debug!(%error, "an old connection could not be renewed");
            *state = State::Up(old.clone());
        }
        _ => {}
    }
}

/// Somebody asks a node while its breaker is open.
pub(super) fn open_error(node: &Node) -> StoreError {
    let (open_for, reason) = node.breaker.since(std::time::Instant::now());
    StoreError::BreakerOpen { address: node.address.to_string(), open_for, reason }
}
