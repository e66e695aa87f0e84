//! The pool: a checkout is a handle on one of a few multiplexed connections.
//!
//! The pool bounds and measures how many operations are in flight; the sockets are shared, so that operations in
//! flight travel in one write. A checkout costs no command: whether a connection still works is learnt from the
//! operations themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::managed::{Manager, Metrics, RecycleResult};
use futures_util::{FutureExt as _, future::Shared};
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{sync::oneshot, time::timeout};

use crate::StoreError;

pub(crate) type Pool = deadpool::managed::Pool<Connections>;

/// What a finished attempt to connect leaves for all who waited for it.
type Connected = Result<Handle, StoreError>;

/// A few sockets, and how to open one.
#[derive(Debug)]
pub(crate) struct Connections {
    sockets: Box<[Arc<Socket>]>,
    next: AtomicUsize,
}

impl Connections {
    pub(crate) fn new(client: &Client, sockets: usize, queue_max: usize, connect_timeout: Duration) -> Self {
        let socket = || {
            Arc::new(Socket {
                client: client.clone(),
                queue_max,
                connect_timeout,
                started: Instant::now(),
                generation: AtomicU64::new(0),
                answered_at_us: AtomicU64::new(0),
                state: Mutex::new(State::Down),
            })
        };
        Self { sockets: (0..sockets).map(|_| socket()).collect(), next: AtomicUsize::new(0) }
    }
}

impl Manager for Connections {
    type Type = Handle;
    type Error = StoreError;

    async fn create(&self) -> Result<Handle, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.sockets[turn % self.sockets.len()].connection().await
    }

    async fn recycle(&self, handle: &mut Handle, _: &Metrics) -> RecycleResult<StoreError> {
        if handle.generation != handle.socket.generation.load(Ordering::Acquire) {
            handle.renew().await?;
        }
        Ok(())
    }
}

/// What is checked out: a clone of a multiplexed connection, and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) connection: MultiplexedConnection,
    socket: Arc<Socket>,
    generation: u64,
}

impl Handle {
    /// Follows the socket to its present connection.
    pub(crate) async fn renew(&mut self) -> Result<(), StoreError> {
        *self = self.socket.connection().await?;
        Ok(())
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { socket: Arc::clone(&self.socket), generation: self.generation }
    }
}

/// Which socket an operation went to, kept outside of the operation so that its end can be reported after a timeout.
#[derive(Debug)]
pub(crate) struct Origin {
    socket: Arc<Socket>,
    generation: u64,
}

impl Origin {
    pub(crate) fn answered(&self) {
        self.socket.answered_at_us.store(self.socket.now_us(), Ordering::Relaxed);
    }

    pub(crate) fn broke(&self) {
        self.socket.replace(self.generation);
    }

    /// A connection over which nothing came for a whole deadline is replaced: its peer may be gone without a word. One
    /// that answered others meanwhile is only slow, and replacing it would add to the load.
    pub(crate) fn timed_out(&self, waited: Duration) {
        let asked_at_us = self.socket.now_us().saturating_sub(waited.as_micros() as u64);
        if self.socket.answered_at_us.load(Ordering::Relaxed) < asked_at_us {
            self.socket.replace(self.generation);
        }
    }
}

#[derive(Debug)]
struct Socket {
    client: Client,
    queue_max: usize,
    connect_timeout: Duration,
    started: Instant,
    /// Counts the connections: a handle of an earlier one is not used again.
    generation: AtomicU64,
    answered_at_us: AtomicU64,
    // Held for a few instructions only; the waiting happens on the shared future inside.
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Down,
    Connecting(Shared<oneshot::Receiver<Connected>>),
    Up(MultiplexedConnection),
}

impl Socket {
    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn replace(&self, generation: u64) {
        let mut state = self.state.lock();
        if self.generation.load(Ordering::Relaxed) == generation && matches!(*state, State::Up(_)) {
            self.generation.store(generation + 1, Ordering::Release);
            *state = State::Down;
        }
    }

    /// The connection, or one attempt to make it for everybody who asks at the same time.
    async fn connection(self: &Arc<Self>) -> Connected {
        let attempt = {
            let mut state = self.state.lock();
            match &*state {
                State::Up(connection) => {
                    return Ok(Handle {
                        connection: connection.clone(),
                        socket: Arc::clone(self),
                        generation: self.generation.load(Ordering::Relaxed),
                    });
                }
                State::Connecting(attempt) => attempt.clone(),
                State::Down => {
                    let (sender, receiver) = oneshot::channel();
                    let attempt = receiver.shared();
                    *state = State::Connecting(attempt.clone());
                    // A task of its own: the attempt goes on when the request that began it runs out of time.
                    tokio::spawn(Arc::clone(self).connect(sender));
                    attempt
                }
            }
        };
        if let Ok(connected) = attempt.clone().await {
            return connected;
        }
        // The task was dropped with its runtime. The next one who asks begins another.
        let mut state = self.state.lock();
        if matches!(&*state, State::Connecting(current) if current.ptr_eq(&attempt)) {
            *state = State::Down;
        }
        Err(StoreError::Disconnected { reason: "the runtime that was connecting has shut down".to_owned() })
    }

    async fn connect(self: Arc<Self>, done: oneshot::Sender<Connected>) {
        // The deadline of the operation bounds the answer; a second timer for each request would only cost.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(self.queue_max);
        let open = async || {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            // The handshake ignores errors, also that of a socket which is closed already. This shows it, and a server
            // that wants a password or is still loading.
            redis::cmd("PING").exec_async(&mut connection).await?;
            Ok(connection)
        };
        let attempts = async {
            match open().await {
                // Closed during the handshake, as by a server that is going down or has just come up: once more.
                Err(error) if is_broken(&error) && !error.is_connection_refusal() => open().await,
                opened => opened,
            }
        };
        let connected = match timeout(self.connect_timeout, attempts).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.connect_error(reason(&error))),
            Err(_) => Err(self.connect_error(format!(
                "no answer within {} ms; is it running, and is the address right?",
                self.connect_timeout.as_millis()
            ))),
        };
        let connected = {
            let mut state = self.state.lock();
            *state = match &connected {
                Ok(connection) => State::Up(connection.clone()),
                Err(_) => State::Down,
            };
            connected.map(|connection| Handle {
                connection,
                socket: Arc::clone(&self),
                generation: self.generation.load(Ordering::Relaxed),
            })
        };
        // Nobody waits any more: the connection is there for the next one.
        let _ = done.send(connected);
    }

    fn connect_error(&self, reason: String) -> StoreError {
        StoreError::Connect { address: self.client.get_connection_info().addr().to_string(), reason }
    }
}

/// Whether the connection cannot be used after this error.
pub(crate) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// Whether the error says that this node is not, or not yet, the one to ask.
pub(crate) fn is_wrong_node(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING" | "CLUSTERDOWN"))
}

fn reason(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "connection refused; start the store, or correct the address".to_owned();
    }
    match error.code() {
        Some("NOAUTH") => "it asks for a password; put it into the URL: redis://:password@host:port".to_owned(),
        Some("WRONGPASS") => "it does not accept the user name and password of the URL".to_owned(),
        _ if error.kind() == redis::ErrorKind::AuthenticationFailed => {
            "it does not accept the user name and password of the URL".to_owned()
        }
        _ => error.to_string(),
    }
}
