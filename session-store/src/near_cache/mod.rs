//! The near cache: sessions that this replica has read lately, kept coherent by the store.

mod entries;
mod follow;
mod route;

use std::time::Duration;

pub(crate) use self::entries::Entries;
pub(crate) use self::follow::follow;
pub use self::route::{FreshSessionLayer, FreshSessionService, fresh_session};

/// Bounds of the near cache, which is off unless [`CacheStoreBuilder::near_cache`](crate::CacheStoreBuilder::near_cache) turns
/// it on.
///
/// With it, a replica keeps the sessions that it has read, and a request with a safe method (GET, HEAD) reads its session from there.
/// The store tells of every change (RESP3 client-side caching, `CLIENT TRACKING` in broadcasting mode: Redis 6, Valkey, cache-node),
/// over a connection of its own. When that connection breaks, everything is dropped and nothing is served until it is back.
///
/// What is served was true at most [`staleness_max`](Self::staleness_max) ago, also when the store hangs or the network loses
/// everything: the store is asked for a sign of life over that very connection, an answer proves that all changes before the question
/// have been told, and without a proof that is young enough nothing is served. What this replica has committed itself it never
/// serves stale.
///
/// Requests with other methods always read from the store, and so do carts and routes with [`fresh_session`]: use it where a session that
/// was ended a moment ago must not be let in.
///
/// ```no_run
/// use session_store::{CacheStore, NearCache};
/// # async fn example() -> Result<(), session_store::StoreError> {
/// let near = NearCache { entries_max: 100_000, bytes_max: 64 << 20, ..NearCache::default() };
/// let store = CacheStore::builder("redis://127.0.0.1:6379").near_cache(near).connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// With a URL of Sentinels it follows the primary. As soon as requests of this process go to another one, everything that the former has told is
/// dropped, and nothing is served until the new one is followed; until then this process reads from the former in any case, with a near
/// cache or without. Of a cluster each primary is followed; when one of them is out of reach or has another in its place, or slots have
/// moved, everything is dropped, and nothing is served until all are followed again.
///
/// Together with reads from replicas it keeps what the primary has answered, and never what a replica has, which may be older than a change
/// that has been told. A request that a replica might serve is served from here where there is the session at the revision that the visitor
/// has seen or a later one, and by the replica else; after a change of the visitor's own, the primary is read for a while, and what it says is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NearCache {
    /// Sessions at most. Default: 10,000.
    pub entries_max: usize,
    /// Bytes of names and values at most, with what keeping them costs. Default: 16 MiB.
    pub bytes_max: usize,
    /// How long a session is kept without being read from the store again, 1 ms to 1 h. Default: 10 s.
    pub age_max: Duration,
    /// How old what is served may be, 20 ms to 60 s. Default: 500 ms. The store is asked four times in this time.
    pub staleness_max: Duration,
}

impl Default for NearCache {
    fn default() -> Self {
        Self {
            entries_max: 10_000,
            bytes_max: 16 << 20,
            age_max: Duration::from_secs(10),
            staleness_max: Duration::from_millis(500),
        }
    }
}

impl NearCache {
    /// What is wrong with the settings.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.entries_max == 0 || self.bytes_max == 0 {
            Some("the near cache must have room for something")
        } else if !(Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(&self.age_max) {
            Some("the age of the near cache's sessions must be 1 ms to 1 h")
        } else if !(Duration::from_millis(20)..=Duration::from_secs(60)).contains(&self.staleness_max) {
            Some("the staleness of the near cache must be 20 ms to 60 s")
        } else {
            None
        }
    }
}

/// How the near cache does, since the store was made.
///
/// ```no_run
/// # fn example(store: &session_store::CacheStore) {
/// if let Some(near) = store.near_cache_status() {
///     println!("{} hits, {} misses, proven {:?} ago", near.hits, near.misses, near.proven_ago);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearCacheStatus {
    /// Sessions in it.
    pub entries: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Reads that it served.
    pub hits: u64,
    /// Reads that went to the store.
    pub misses: u64,
    /// Sessions that the store, or a commit of this replica, has named as changed.
    pub invalidations: u64,
    /// How often everything was dropped: the connection broke, or the store was emptied.
    pub drops: u64,
    /// How old what is served now may be; `None`: nothing is served.
    pub proven_ago: Option<Duration>,
    /// How long the store took for its last sign of life: about how long a change takes until it is seen here.
    pub delay: Duration,
}
