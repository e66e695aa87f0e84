//! The store: a pool, names of keys, and a deadline on everything.

use std::{fmt, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    CacheStoreBuilder, Stage, StoreError,
    keys::Keys,
    owners::Owners,
    pool::{Origin, Pool, is_broken, is_wrong_node},
    scripts::Source,
};

/// Attempts of an operation: the first, and two on fresh connections when the ones before broke. All within the deadline.
const ATTEMPTS: u32 = 3;

/// Sessions and carts in a cache node, Redis or Valkey. Cheap to clone: all clones share one pool.
///
/// ```no_run
/// # async fn example() -> Result<(), session_store::StoreError> {
/// use session_store::CacheStore;
///
/// let store = CacheStore::connect("redis://127.0.0.1:6379").await?;
/// store.ping().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CacheStore {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    keys: Keys,
    owners: Owners,
    deadline: Duration,
    scripts_cross_slots: bool,
}

impl fmt::Debug for CacheStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheStore")
            .field("keys", &self.inner.keys)
            .field("pool", &self.pool_status())
            .field("deadline", &self.inner.deadline)
            .finish()
    }
}

/// How busy the pool is, in operations.
///
/// ```no_run
/// # async fn example(store: session_store::CacheStore) {
/// let status = store.pool_status();
/// println!("{} of {} in use, {} waiting", status.in_use, status.size_max, status.waiting);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Operations that can be in flight at once.
    pub size_max: usize,
    /// Handles made so far; they are made when first needed.
    pub size: usize,
    /// Operations in flight.
    pub in_use: usize,
    /// Operations that wait for a place.
    pub waiting: usize,
}

impl CacheStore {
    /// Connects with the default settings, and asks the store for a sign of life.
    ///
    /// The URL is `redis://[user:password@]host:port[/database]` or `unix:///path/to/socket`.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidUrl`] for a URL that names no store; [`StoreError::Connect`] or [`StoreError::Timeout`] when
    /// none answers there. To start without one, use [`CacheStoreBuilder::connect_lazy`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::connect("redis://127.0.0.1:6379").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(url: impl Into<String>) -> Result<Self, StoreError> {
        Self::builder(url).connect().await
    }

    /// Settings other than the defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use session_store::CacheStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let store = CacheStore::builder("redis://127.0.0.1:6379")
    ///     .prefix("shop")
    ///     .pool_size(16)
    ///     .deadline(Duration::from_millis(100))
    ///     .key(*b"32 bytes that only replicas know")
    ///     .connect_lazy()?;
    /// assert_eq!(store.pool_status().size_max, 16);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(url: impl Into<String>) -> CacheStoreBuilder {
        CacheStoreBuilder::new(url.into())
    }

    /// Asks the store for a sign of life, through the pool: what a readiness probe wants to know.
    ///
    /// # Errors
    ///
    /// What any operation would meet at this moment.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore) -> u16 {
    /// match store.ping().await {
    ///     Ok(()) => 200,
    ///     Err(_) => 503,
    /// }
    /// # }
    /// ```
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.send(Request::One(&redis::cmd("PING"))).await.map(drop)
    }

    /// How busy the pool is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// assert_eq!(store.pool_status().in_use, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.inner.pool.status();
        PoolStatus {
            size_max: status.max_size,
            size: status.size,
            in_use: status.size - status.available,
            waiting: status.waiting,
        }
    }

    pub(crate) fn from_parts(pool: Pool, keys: Keys, deadline: Duration) -> Self {
        Self { inner: Arc::new(Inner { pool, keys, owners: Owners::default(), deadline, scripts_cross_slots: true }) }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    pub(crate) fn owners(&self) -> &Owners {
        &self.inner.owners
    }

    /// Whether one script may use keys of different slots.
    pub(crate) fn scripts_cross_slots(&self) -> bool {
        self.inner.scripts_cross_slots
    }

    /// One script call in one round trip; in two when the store does not know the script yet.
    pub(crate) async fn script(&self, script: &Source, call: &Cmd) -> Result<Vec<Value>, StoreError> {
        let answer = match self.send_raw(Request::One(call)).await {
            Err(Failure::Refused(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(Request::One(&script.call_with_code(call))).await?
            }
            answer => answer.map_err(Failure::into_error)?,
        };
        match answer {
            Value::Array(values) if !values.is_empty() => Ok(values),
            _ => Err(StoreError::Unreadable { reason: "a script answered with no list".to_owned() }),
        }
    }

    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        match self.send(Request::Many(pipeline)).await? {
            Value::Array(values) if values.len() == pipeline.len() => Ok(values),
            _ => Err(StoreError::Unreadable { reason: "a pipeline has another number of answers".to_owned() }),
        }
    }

    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.send(Request::One(command)).await
    }

    async fn send(&self, request: Request<'_>) -> Result<Value, StoreError> {
        self.send_raw(request).await.map_err(Failure::into_error)
    }

    async fn send_raw(&self, request: Request<'_>) -> Result<Value, Failure> {
        let began = Instant::now();
        let deadline = self.inner.deadline;
        // Outside of the attempt, so that it is still known when the attempt is dropped at the deadline.
        let mut origin = None;
        if let Ok(answer) = timeout_at(began + deadline, self.attempts(request, &mut origin)).await {
            return answer;
        }
        let stage = match origin {
            None => Stage::Pool,
            Some(origin) => {
                origin.timed_out(deadline);
                Stage::Answer
            }
        };
        Err(Failure::Store(StoreError::Timeout { deadline, stage }))
    }

    async fn attempts(&self, request: Request<'_>, origin: &mut Option<Origin>) -> Result<Value, Failure> {
        let mut checkout = self.inner.pool.get().await.map_err(pool_failure)?;
        let mut attempt = 1;
        loop {
            let origin = origin.insert(checkout.origin());
            let connection = &mut checkout.connection;
            let answer = match request {
                Request::One(command) => command.query_async(connection).await,
                Request::Many(pipeline) => pipeline.query_async(connection).await,
            };
            let error = match answer {
                Ok(answer) => {
                    origin.answered();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if !is_broken(&error) {
                origin.answered();
                if is_wrong_node(&error) {
                    // After a failover the name may lead elsewhere: the next operation connects anew.
                    origin.broke();
                }
                return Err(Failure::Refused(error));
            }
            origin.broke();
            if attempt == ATTEMPTS {
                return Err(Failure::Store(StoreError::Disconnected { reason: error.to_string() }));
            }
            // Every operation may be repeated: reads, touches, and scripts that carry a token. On a fresh connection of
            // the same socket, since the other sockets may be just as broken without knowing it yet.
            attempt += 1;
            let reason = error;
            // What broke may have been carried out, whatever the new connection fails at.
            checkout
                .renew()
                .await
                .map_err(|error| Failure::Store(StoreError::Disconnected { reason: format!("{reason}; then: {error}") }))?;
        }
    }
}

#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
}

enum Failure {
    Store(StoreError),
    Refused(RedisError),
}

impl Failure {
    fn into_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Refused(error) => {
                let code = error.code().unwrap_or("ERR").to_owned();
                let message = match (&*code, error.detail()) {
                    ("NOAUTH", _) => "NOAUTH it asks for a password; put it into the URL: redis://:password@host:port".to_owned(),
                    (_, Some(detail)) => format!("{code} {detail}"),
                    (_, None) => error.to_string(),
                };
                StoreError::Refused { code, message }
            }
        }
    }
}

fn pool_failure(error: deadpool::managed::PoolError<StoreError>) -> Failure {
    Failure::Store(match error {
        deadpool::managed::PoolError::Backend(error) => error,
        other => StoreError::Disconnected { reason: other.to_string() },
    })
}
