//! The store: a pool, names of keys, and a deadline on everything.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    CacheStoreBuilder, NearCacheStatus, NodeStatus, PoolStatus, StoreError,
    encryption::{Bindings, Vault},
    keys::{Keys, Tag},
    near_cache::{self, Entries},
    operation::Patience,
    owners::Owners,
    pool::Pool,
    topology::Topology,
    touches::Touches,
    turns::Turns,
};

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
pub struct CacheStore {
    pub(crate) inner: Arc<Counted>,
    /// Of one request; a clone has its own.
    pub(crate) patience: Patience,
}

/// The store with a count of the clones of one handle: there may be several, each around the same store.
// On a cache line of its own, and on one that is not fetched along with another.
#[repr(align(128))]
pub(crate) struct Counted(Arc<Inner>);

impl Deref for Counted {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) topology: Topology,
    pub(crate) keys: Keys,
    pub(crate) owners: Owners,
    pub(crate) touches: Touches,
    pub(crate) vault: Vault,
    pub(crate) bindings: Bindings,
    pub(crate) turns: Arc<Turns>,
    pub(crate) quarantined: AtomicU64,
    pub(crate) deadline: Duration,
    pub(crate) near: Option<Arc<Entries>>,
    /// Whether somebody follows the store for the near cache.
    pub(crate) is_followed: AtomicBool,
    /// What operations meet on purpose.
    #[cfg(feature = "testing")]
    pub(crate) faults: Option<crate::testing::Faults>,
}

/// A session is being changed.
#[must_use = "the change is over when this is dropped"]
pub(crate) struct Changes<'a> {
    near: Option<&'a Entries>,
    tag: Tag,
}

impl Drop for Changes<'_> {
    fn drop(&mut self) {
        if let Some(near) = self.near {
            near.invalidate(&self.tag);
        }
    }
}

impl Clone for CacheStore {
    fn clone(&self) -> Self {
        Self::counted_by(Arc::clone(&self.inner))
    }
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

/// How the store is: its nodes, and its pool.
///
/// ```no_run
/// # fn example(store: &session_store::CacheStore) {
/// use session_store::BreakerState;
///
/// let status = store.status();
/// let ready = status.nodes.iter().all(|node| node.breaker == BreakerState::Closed);
/// println!("{}: ready {ready}, {} operations in flight", status.topology, status.pool.in_use);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// `standalone`, `sentinel` or `cluster`.
    pub topology: &'static str,
    /// The nodes that requests are sent to, as far as they are known.
    pub nodes: Vec<NodeStatus>,
    /// The replicas that reads may go to, when they may. A store is as ready without them.
    pub replicas: Vec<NodeStatus>,
    /// How busy the pool is.
    pub pool: PoolStatus,
}

impl CacheStore {
    /// Connects with the default settings, and asks the store for a sign of life.
    ///
    /// | URL | store |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/database]` | one node |
    /// | `unix:///path/to/socket` | one node, by a socket of the file system |
    /// | `redis+sentinel://[user:password@]host,host,host/name[/database]` | the primary that these Sentinels watch by this name |
    /// | `redis+cluster://[user:password@]host,host,host` | a cluster, of which some nodes are named |
    ///
    /// `rediss` in place of `redis` speaks TLS. Settings in the query:
    ///
    /// | setting | what it is |
    /// |---|---|
    /// | `prefix`, `pool_size` | as [`CacheStoreBuilder::prefix`] and [`CacheStoreBuilder::pool_size`], which count more |
    /// | `db`, `user`, `password` | as before the host |
    /// | `read_from=replicas`, `reader` | as [`CacheStoreBuilder::read_from_replicas`] and [`CacheStoreBuilder::reader`] |
    /// | `sentinel_user`, `sentinel_password` | for the Sentinels, which do not get those of the nodes |
    /// | `ca` | a file with the authorities that may have signed the server's certificate, instead of the system's |
    /// | `cert`, `key` | files with the client's certificate and its key |
    /// | `insecure=accept-any-certificate` | TLS without knowing with whom |
    ///
    /// A user needs these rights: `~PREFIX:* +@read +@write +@scripting +@connection +time`, and behind them
    /// `-@dangerous -scan -randomkey -function -script|flush -script|kill`, or it could empty the database, list the keys of others, and
    /// end their connections and scripts. Behind that, with Sentinel also `+role`, in a cluster also
    /// `+cluster|slots +cluster|info +asking`, and `+readonly` for reads from replicas.
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
        self.command(&redis::cmd("PING")).await.map(drop)
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
        self.inner.pool.status()
    }

    /// How the store is, as far as this process knows: nothing is sent. For metrics and a status page;
    /// [`ping`](Self::ping) is for a readiness probe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// use session_store::{BreakerState, CacheStore};
    ///
    /// let store = CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// assert_eq!(store.status().nodes[0].breaker, BreakerState::Closed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let topology = &self.inner.topology;
        StoreStatus {
            topology: topology.name(),
            nodes: topology.nodes(),
            replicas: topology.replicas(),
            pool: self.pool_status(),
        }
    }

    /// How the near cache does; `None` when there is none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// use session_store::{CacheStore, NearCache};
    ///
    /// let store = CacheStore::builder("redis://127.0.0.1:6379").near_cache(NearCache::default()).connect_lazy()?;
    /// assert_eq!(store.near_cache_status().map(|near| near.entries), Some(0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn near_cache_status(&self) -> Option<NearCacheStatus> {
        self.inner.near.as_ref().map(|near| near.status())
    }

    pub(crate) fn has_near(&self) -> bool {
        self.inner.near.is_some()
    }

    /// The near cache. Somebody follows the store from the first time on.
    pub(crate) fn near(&self) -> Option<&Arc<Entries>> {
        let near = self.inner.near.as_ref()?;
        if !self.inner.is_followed.load(Ordering::Relaxed) && !self.inner.is_followed.swap(true, Ordering::Relaxed) {
            tokio::spawn(near_cache::follow(self.weak(), Arc::clone(near)));
        }
        Some(near)
    }

    /// To be held while a session is changed: what the near cache has of it is dropped now and in the end, however that comes.
    pub(crate) fn changes(&self, tag: &Tag) -> Changes<'_> {
        let near = self.inner.near.as_deref();
        if let Some(near) = near {
            near.invalidate(tag);
        }
        Changes { near, tag: *tag }
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self::counted_by(Counted(Arc::new(inner)).into())
    }

    /// A clone whose own clones are counted apart from all others.
    pub(crate) fn counted_apart(&self) -> Self {
        Self::counted_by(Counted(Arc::clone(&self.inner.0)).into())
    }

    fn counted_by(inner: Arc<Counted>) -> Self {
        Self { inner, patience: Patience::default() }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// Records that this process has put in quarantine because they could not be read. They are under
    /// `<prefix>:quarantine:{…}` for [`QUARANTINE_TTL`](crate::QUARANTINE_TTL).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// assert_eq!(store.quarantined(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.inner.quarantined.load(Ordering::Relaxed)
    }

    pub(crate) fn note_quarantined(&self) {
        self.inner.quarantined.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    pub(crate) fn bindings(&self) -> &Bindings {
        &self.inner.bindings
    }

    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.inner.turns
    }

    pub(crate) fn owners(&self) -> &Owners {
        &self.inner.owners
    }

    pub(crate) fn touches(&self) -> &Touches {
        &self.inner.touches
    }

    /// Ends with the last handle.
    pub(crate) fn weak(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner.0)
    }

    /// Whether the other one is a clone of this one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner.0, &other.inner.0)
    }

    /// Whether one script may use keys of different slots.
    pub(crate) fn scripts_cross_slots(&self) -> bool {
        self.inner.topology.is_one_node()
    }
}
