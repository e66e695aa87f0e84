//! A node in memory: what a store connects to where there is no server.
//!
//! Everything above the connection is what runs in production: deadlines, retries, the breaker, encryption, the layout of a
//! record. Below it are the commands that this library sends, and its scripts in Rust, under one lock.

mod answer;
mod commands;
mod keyspace;
mod scripts;
#[cfg(test)]
mod twins;

use std::{
    fmt, io,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::watch,
};

use self::keyspace::Keyspace;
use crate::{CacheStore, CacheStoreBuilder, expiry::unix_ms, topology::arguments};

/// Bytes that are under way to the node, or from it, before the other side waits.
const PIPE_BYTES: usize = 64 << 10;
/// What a busy machine does not reach, so that no test of an application depends on how busy it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node in the memory of this process, for tests of applications: no server, no sockets, nothing left behind.
///
/// Its clock is that of this process and what it was [advanced](Self::advance) by, so that a test sees the end of a session without
/// waiting for it. Clones are the same node; several stores on it are several replicas.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use session_store::{Expiry, Session, SessionLayer, Unavailable, testing::MemoryNode};
/// use tower::ServiceExt as _;
///
/// async fn visits(session: Session) -> Result<String, Unavailable> {
///     let visits = session.get::<u32>("visits").await?.unwrap_or(0) + 1;
///     session.insert("visits", visits).await?;
///     Ok(visits.to_string())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = MemoryNode::new();
/// let idle = Expiry::OnInactivity(time::Duration::minutes(30));
/// let app = Router::new().route("/", get(visits)).layer(SessionLayer::new(node.store()).with_expiry(idle));
///
/// let first = app.clone().oneshot(Request::get("/").body(Body::empty())?).await?;
/// let cookie = first.headers()["set-cookie"].to_str()?.split(';').next().unwrap_or_default().to_owned();
/// let visit = async || {
///     let again = Request::get("/").header("cookie", &cookie).body(Body::empty())?;
///     let body = app.clone().oneshot(again).await?.into_body();
///     Ok::<_, Box<dyn std::error::Error>>(axum::body::to_bytes(body, 16).await?)
/// };
/// assert_eq!(visit().await?, "2");
/// node.advance(Duration::from_secs(31 * 60));
/// assert_eq!(visit().await?, "1");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryNode {
    shared: Arc<Shared>,
}

struct Shared {
    // Held while one request is carried out, which waits for nothing.
    state: Mutex<State>,
    is_up: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    keyspace: Keyspace,
    advanced: Duration,
}

impl Default for MemoryNode {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNode").field("is_up", &*self.shared.is_up.borrow()).finish_non_exhaustive()
    }
}

impl MemoryNode {
    /// An empty node.
    ///
    /// ```
    /// let node = session_store::testing::MemoryNode::new();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), is_up: watch::Sender::new(true) }) }
    }

    /// A store on this node, with a deadline of 10 s that a busy machine does not reach; other settings are the defaults.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let node = session_store::testing::MemoryNode::new();
    /// node.store().ping().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn store(&self) -> CacheStore {
        self.builder().connect_lazy().expect("the settings are those of this function")
    }

    /// Settings of a store on this node, as [`CacheStore::builder`] has them for a URL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// use session_store::{EncryptionKeys, testing::MemoryNode};
    ///
    /// let node = MemoryNode::new();
    /// let store = node.builder().prefix("shop").encryption(EncryptionKeys::new([7; 32])).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(&self) -> CacheStoreBuilder {
        CacheStoreBuilder::in_memory(self.clone()).deadline(PATIENCE).connect_timeout(PATIENCE)
    }

    /// Lets this much time pass for all that is kept here. The process, whose clock does not know, keeps its cookies as they are.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// session_store::testing::MemoryNode::new().advance(Duration::from_secs(86_400));
    /// ```
    pub fn advance(&self, time: Duration) {
        let mut state = self.shared.state.lock();
        state.advanced = state.advanced.saturating_add(time);
    }

    /// Breaks all connections and takes no new one, until [`start`](Self::start). What is kept stays. For tests of what visitors
    /// see meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let node = session_store::testing::MemoryNode::new();
    /// node.stop();
    /// assert!(node.store().ping().await.unwrap_err().is_outage());
    /// # }
    /// ```
    pub fn stop(&self) {
        self.shared.is_up.send_replace(false);
    }

    /// Takes connections again. A store that was refused finds out within a few milliseconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let node = session_store::testing::MemoryNode::new();
    /// node.stop();
    /// node.start();
    /// node.store().ping().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(&self) {
        self.shared.is_up.send_replace(true);
    }

    /// This end of a new connection. Whoever answers at the other end does so until the connection or the node is gone.
    pub(crate) fn connect(&self) -> io::Result<DuplexStream> {
        let mut is_up = self.shared.is_up.subscribe();
        if !*is_up.borrow_and_update() {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the node in memory was stopped"));
        }
        let (ours, theirs) = duplex(PIPE_BYTES);
        let node = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::select! {
                // An error is the end of the connection, which the store sees by itself.
                _ = serve(&node, theirs) => {}
                _ = is_up.wait_for(|is_up| !is_up) => {}
            }
        });
        Ok(ours)
    }
}

impl Shared {
    /// Answers the complete requests that are in `received`, and tells how many bytes they had.
    fn answer(&self, received: &[u8], out: &mut Vec<u8>) -> usize {
        let mut rest = received;
        while let Some((command, after)) = arguments(rest) {
            let mut state = self.state.lock();
            let advanced_ms = i64::try_from(state.advanced.as_millis()).unwrap_or(i64::MAX);
            state.keyspace.begin(unix_ms(OffsetDateTime::now_utc()).saturating_add(advanced_ms));
            commands::run(&mut state.keyspace, &command).encode(out);
            rest = after;
        }
        received.len() - rest.len()
    }
}

async fn serve(node: &Weak<Shared>, mut stream: DuplexStream) -> io::Result<()> {
    let (mut received, mut out) = (Vec::new(), Vec::new());
    while stream.read_buf(&mut received).await? > 0 {
        let Some(node) = node.upgrade() else { return Ok(()) };
        let answered = node.answer(&received, &mut out);
        drop(node);
        received.drain(..answered);
        stream.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}
