//! The settings of a store.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use redis::RedisConnectionInfo;

#[cfg(feature = "tls")]
use crate::nodes::tls;
#[cfg(feature = "testing")]
use crate::testing::{Faults, MemoryNode};
use crate::{
    CacheStore, EncryptionKeys, NearCache, StoreError,
    encryption::{Bindings, Vault},
    keys::{FORMER_KEYS_MAX, Keys},
    metrics,
    near_cache::Entries,
    nodes::{Address, Node, Transport},
    owners::Owners,
    pool::{Changes, Pool},
    replica_reads::replica_deadline,
    store::Inner,
    topology::{Cluster, Replicas, Sentinel, Topology},
    touches::Touches,
    url::{Login, StoreUrl, Target},
};

/// Operations in flight at most. Further ones wait in order, within their deadline.
///
/// ```
/// assert_eq!(session_store::POOL_SIZE_DEFAULT, 64);
/// ```
pub const POOL_SIZE_DEFAULT: usize = 64;
/// Operations that wait for a place in the pool at most.
///
/// ```
/// assert_eq!(session_store::WAITING_MAX_DEFAULT, 4_096);
/// ```
pub const WAITING_MAX_DEFAULT: usize = 4_096;
/// How old a connection becomes: then another takes its place, so that a store behind a name or a balancer that moved is
/// followed.
///
/// ```
/// assert_eq!(session_store::CONNECTION_AGE_MAX_DEFAULT.as_secs(), 3_600);
/// ```
pub const CONNECTION_AGE_MAX_DEFAULT: Duration = Duration::from_secs(3_600);
/// Sockets that the operations in flight share: up to 16 the first one, so that they travel together, more all of them. Two keep one
/// large answer from holding up all others.
///
/// ```
/// assert_eq!(session_store::SOCKETS_DEFAULT, 2);
/// ```
pub const SOCKETS_DEFAULT: usize = 2;
/// Time for a whole operation: waiting for the pool, connecting, the answer, and retries on fresh connections.
///
/// ```
/// assert_eq!(session_store::DEADLINE_DEFAULT.as_millis(), 250);
/// ```
pub const DEADLINE_DEFAULT: Duration = Duration::from_millis(250);
/// Time for one attempt to connect. It outlives the request that began it.
///
/// ```
/// assert_eq!(session_store::CONNECT_TIMEOUT_DEFAULT.as_millis(), 250);
/// ```
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);
/// What every key begins with.
///
/// ```
/// assert_eq!(session_store::PREFIX_DEFAULT, "shop");
/// ```
pub const PREFIX_DEFAULT: &str = "shop";

/// The key of the keyed hash when none is given. Ids have 128 random bits, so that their hashes cannot be searched;
/// names of users have not, which is what a key of one's own is for.
const PUBLIC_KEY: &[u8] = b"session-store: a public constant, see CacheStoreBuilder::key";

/// Settings of a [`CacheStore`].
///
/// ```no_run
/// # async fn example() -> Result<(), session_store::StoreError> {
/// use session_store::CacheStore;
///
/// let store = CacheStore::builder("redis://127.0.0.1:6379").prefix("shop").connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "settings do nothing until `connect` or `connect_lazy`"]
pub struct CacheStoreBuilder {
    url: String,
    prefix: Option<String>,
    pool_size: Option<usize>,
    waiting_max: usize,
    sockets: usize,
    connection_age_max: Duration,
    deadline: Duration,
    connect_timeout: Duration,
    key: Option<Vec<u8>>,
    former_keys: Vec<Vec<u8>>,
    user_key: Option<Vec<u8>>,
    encryption: Option<EncryptionKeys>,
    near_cache: Option<NearCache>,
    read_from_replicas: bool,
    reader: Option<String>,
    /// Where the store is instead of at the URL.
    #[cfg(feature = "testing")]
    memory: Option<MemoryNode>,
    #[cfg(feature = "testing")]
    faults: Option<Faults>,
}

impl fmt::Debug for CacheStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the URL, which may hold a password, nor the key.
        f.debug_struct("CacheStoreBuilder")
            .field("prefix", &self.prefix)
            .field("pool_size", &self.pool_size)
            .field("sockets", &self.sockets)
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl CacheStoreBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            prefix: None,
            pool_size: None,
            waiting_max: WAITING_MAX_DEFAULT,
            sockets: SOCKETS_DEFAULT,
            connection_age_max: CONNECTION_AGE_MAX_DEFAULT,
            deadline: DEADLINE_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            key: None,
            former_keys: Vec::new(),
            user_key: None,
            encryption: None,
            near_cache: None,
            read_from_replicas: false,
            reader: None,
            #[cfg(feature = "testing")]
            memory: None,
            #[cfg(feature = "testing")]
            faults: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn in_memory(node: MemoryNode) -> Self {
        Self { memory: Some(node), ..Self::new(String::new()) }
    }

    fn store_url(&self) -> Result<StoreUrl, StoreError> {
        #[cfg(feature = "testing")]
        if self.memory.is_some() {
            return Ok(StoreUrl::to(Target::Standalone(Address::Memory)));
        }
        StoreUrl::parse(&self.url)
    }

    /// What every key begins with, so that applications can share a store. Default: [`PREFIX_DEFAULT`].
    ///
    /// 1 to 64 characters, without braces and white space: a brace would move the hash tag.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.prefix("bookshop");
    /// ```
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Operations in flight at most, 1 to 65,536. Default: [`POOL_SIZE_DEFAULT`].
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.pool_size(256);
    /// ```
    pub fn pool_size(mut self, operations: usize) -> Self {
        self.pool_size = Some(operations);
        self
    }

    /// Operations that wait for a place in the pool at most, 0 to 1,000,000; further ones fail at once with
    /// [`StoreError::PoolFull`]. Default: [`WAITING_MAX_DEFAULT`].
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.waiting_max(1_000);
    /// ```
    pub fn waiting_max(mut self, operations: usize) -> Self {
        self.waiting_max = operations;
        self
    }

    /// How old a connection becomes before another takes its place, 1 s to 30 days. Operations that are under way end on
    /// the old one. Default: [`CONNECTION_AGE_MAX_DEFAULT`].
    ///
    /// ```
    /// use std::time::Duration;
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.connection_age_max(Duration::from_secs(600));
    /// ```
    pub fn connection_age_max(mut self, age: Duration) -> Self {
        self.connection_age_max = age;
        self
    }

    /// Sockets that the operations share, 1 to 64. Default: [`SOCKETS_DEFAULT`].
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.sockets(1);
    /// ```
    pub fn sockets(mut self, sockets: usize) -> Self {
        self.sockets = sockets;
        self
    }

    /// Time for a whole operation, 1 ms to 60 s. Default: [`DEADLINE_DEFAULT`].
    ///
    /// ```
    /// use std::time::Duration;
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.deadline(Duration::from_millis(100));
    /// ```
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time for one attempt to connect, 1 ms to 60 s. Default: [`CONNECT_TIMEOUT_DEFAULT`].
    ///
    /// ```
    /// use std::time::Duration;
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.connect_timeout(Duration::from_secs(1));
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The secret of the keyed hash that stands for an id in the store; at least 16 bytes, the same on all replicas.
    ///
    /// Without one, a public constant is used. A dump of the store then still reveals no session id, since an id has 128
    /// random bits, but names of users can be tried one by one. To change it, see [`former_key`](Self::former_key).
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.key(*b"32 bytes that only replicas know");
    /// ```
    pub fn key(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.key = Some(secret.into());
        self
    }

    /// A key of the hash under which sessions are looked for when there is none under [`key`](Self::key), up to four.
    ///
    /// To change the key without anybody being logged out: first give all replicas the new one as a `former_key`, so that they
    /// find what the others will write; then make it the `key` and the former one the `former_key`, and
    /// [`user_key`](Self::user_key) what `key` was; and leave the former one out when the sessions of its time have ended. A session
    /// moves to the new key when it gets a new id. Only what is not found under the key costs a round trip more, and a process
    /// remembers what it has found.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder
    ///     .key(*b"32 bytes that are new this month")
    ///     .former_key(*b"32 bytes that only replicas know")
    ///     .user_key(*b"32 bytes that only replicas know");
    /// ```
    pub fn former_key(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.former_keys.push(secret.into());
        self
    }

    /// The secret of the keyed hash that stands for a user and for an idempotency token. Default: [`key`](Self::key). When it
    /// changes, the carts of users are not found any more.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.user_key(*b"32 bytes that only replicas know");
    /// ```
    pub fn user_key(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.user_key = Some(secret.into());
        self
    }

    /// Encrypts the values of sessions, and what is in carts. Default: values are in the store as JSON, and SKUs as they are.
    ///
    /// What is there from before is read on, and encrypted when it changes: a value by the next commit that changes it, a line by the
    /// next change of its quantity. A replica without the keys cannot read what others have encrypted: it answers with an error until it has
    /// them, and nothing is lost. To turn it on with no error, give all replicas the keys with [`only_read`](EncryptionKeys::only_read) first;
    /// [a guide](crate::guides::secrets) has the steps.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.encryption(session_store::EncryptionKeys::new([7; 32]));
    /// ```
    pub fn encryption(mut self, keys: EncryptionKeys) -> Self {
        self.encryption = Some(keys);
        self
    }

    /// Keeps the sessions that this replica reads in its memory, and reads them there; see [`NearCache`]. Default: off.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// use session_store::NearCache;
    /// let builder = builder.near_cache(NearCache::default());
    /// ```
    pub fn near_cache(mut self, settings: NearCache) -> Self {
        self.near_cache = Some(settings);
        self
    }

    /// Lets the operations of this store meet faults, between it and its connection. By the feature `testing`.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// use session_store::testing::{Fault, Faults};
    /// let builder = builder.faults(Faults::seeded(7).with(Fault::Drop, 0.1));
    /// ```
    #[cfg(feature = "testing")]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Lets requests with a safe method (GET, HEAD) read their session from a replica, of those that the Sentinels or the cluster name.
    /// Default: off. In the URL: `read_from=replicas`.
    ///
    /// A visitor never sees less than what he has changed himself, on whichever replica of the application: with each change the client gets
    /// a second cookie, `…-seen`, with the revision of its session. For two seconds after it reads go to the primary; later a
    /// replica's answer counts if it has that revision, and the primary is asked otherwise. So it is when the replica has no such session, or
    /// does not answer within a quarter of the deadline, and when there is no replica. A client without that cookie is read from the
    /// primary, and gets the cookie with the answer.
    ///
    /// To switch it on while visitors are there takes two steps. First let every replica of the application run this version without the
    /// setting: it takes the cookie away from a client whose session it changes. Then set it on one replica after another. Mixed with
    /// versions that do not know the cookie, or with replicas that have other cookie settings, a change that one of those made may be
    /// seen late. Switching it off is one step.
    ///
    /// What is changed on a WebSocket or while a body is sent brings no cookie, and may be seen later by as much as the replica is behind.
    /// So may what others have changed, and the end of a session by
    /// [`UserSessions::end_all`](crate::UserSessions::end_all). Put routes that decide who may do what under
    /// [`fresh_session`](crate::fresh_session), which reads from the primary. Requests with other methods do so in any case, and so do all
    /// carts, and a session that is read together with its cart.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis+sentinel://127.0.0.1/main");
    /// let builder = builder.read_from_replicas();
    /// ```
    pub fn read_from_replicas(mut self) -> Self {
        self.read_from_replicas = true;
        self
    }

    /// As [`read_from_replicas`](Self::read_from_replicas), of one node: the address, as `host:port`, that leads to its replicas, such as
    /// the reader endpoint of ElastiCache. Default: none. In the URL: `reader=host:port`.
    ///
    /// ```
    /// # let builder = session_store::CacheStore::builder("redis://127.0.0.1:6379");
    /// let builder = builder.reader("127.0.0.1:6380");
    /// ```
    pub fn reader(mut self, address: impl Into<String>) -> Self {
        self.reader = Some(address.into());
        self
    }

    /// Makes the store and asks it for a sign of life.
    ///
    /// # Errors
    ///
    /// As [`connect_lazy`](Self::connect_lazy), and [`StoreError::Connect`] or [`StoreError::Timeout`] when no store
    /// answers.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::builder("redis://127.0.0.1:6379").connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<CacheStore, StoreError> {
        let store = self.connect_lazy()?;
        store.ping().await?;
        Ok(store)
    }

    /// Makes the store without connecting: the first operation does. For a process that may start before its store.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidUrl`] and [`StoreError::InvalidSettings`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_lazy(mut self) -> Result<CacheStore, StoreError> {
        let url = self.store_url()?;
        // What was said in so many words counts more than what is in the URL.
        self.prefix = self.prefix.or_else(|| url.prefix.clone());
        self.pool_size = self.pool_size.or(url.pool_size);
        self.check()?;
        metrics::describe();
        let replaced = Arc::default();
        let topology = self.topology(&url, &replaced)?;
        #[cfg(feature = "testing")]
        if self.near_cache.is_some() && self.memory.is_some() {
            let reason = "a near cache follows a server, and a node in memory is none: take away one of the two";
            return Err(StoreError::InvalidSettings { reason: reason.to_owned() });
        }
        let near = self.near_cache.map(|near| Arc::new(Entries::new(near, topology.switches())));
        let pool_size = self.pool_size.unwrap_or(POOL_SIZE_DEFAULT);
        let changes = Changes { connections: replaced, nodes: topology.switches() };
        let pool = Pool::new(pool_size, self.waiting_max, self.sockets, changes)
            .map_err(|error| StoreError::InvalidSettings { reason: error.to_string() })?;
        let key = self.key.as_deref().unwrap_or(PUBLIC_KEY);
        let keys = Keys::new(
            self.prefix.as_deref().unwrap_or(PREFIX_DEFAULT),
            key,
            &self.former_keys,
            self.user_key.as_deref().unwrap_or(key),
        );
        Ok(CacheStore::new(Inner {
            pool,
            topology,
            keys,
            owners: Owners::default(),
            touches: Touches::default(),
            turns: Arc::default(),
            vault: Vault(self.encryption),
            bindings: Bindings::default(),
            quarantined: 0.into(),
            deadline: self.deadline,
            near,
            is_followed: false.into(),
            #[cfg(feature = "testing")]
            faults: self.faults,
        }))
    }

    fn topology(&self, url: &StoreUrl, replaced: &Arc<AtomicU64>) -> Result<Topology, StoreError> {
        #[cfg(feature = "tls")]
        let tls = url.tls.as_ref().map(tls::connector).transpose()?;
        let transport = |login: &Login, primary_only| {
            let mut info = RedisConnectionInfo::default();
            if let Some(user) = &login.user {
                info = info.set_username(user);
            }
            if let Some(password) = &login.password {
                info = info.set_password(password);
            }
            Transport {
                login: info,
                queue_max: self.pool_size.unwrap_or(POOL_SIZE_DEFAULT),
                connect_timeout: self.connect_timeout,
                answer_within: self.deadline,
                age_max: self.connection_age_max,
                replaced: Arc::clone(replaced),
                primary_only,
                readonly: false,
                #[cfg(feature = "tls")]
                tls: tls.clone(),
                #[cfg(feature = "testing")]
                memory: self.memory.clone(),
            }
        };
        let requests = |primary_only| {
            let mut transport = transport(&url.login, primary_only);
            transport.login = transport.login.set_db(url.database);
            transport
        };
        let reads = || Transport { answer_within: replica_deadline(self.deadline), ..requests(false) };
        let invalid = |reason: &str| StoreError::InvalidSettings { reason: reason.to_owned() };
        let reads_replicas = self.read_from_replicas || url.read_from_replicas;
        let reader = self.reader.as_deref().map(StoreUrl::address).transpose()?.or_else(|| url.reader.clone());
        if reader.is_some() && !matches!(url.target, Target::Standalone(Address::Tcp { .. })) {
            return Err(invalid("a reader belongs to one node; with Sentinels or a cluster, use read_from_replicas"));
        }
        Ok(match &url.target {
            Target::Standalone(_) if reads_replicas => {
                return Err(invalid("of one node it is not known where its replicas are: say so with `reader`"));
            }
            Target::Standalone(address) => {
                let node = |address, transport| Node::new(address, Arc::new(transport), self.sockets);
                let reader = reader.map(|reader| Replicas::endpoint(node(reader, reads())));
                Topology::Standalone(node(address.clone(), requests(false)), reader)
            }
            Target::Sentinel { sentinels, name } => {
                let questions = transport(&url.sentinel_login, false);
                let reads = reads_replicas.then(reads);
                let (sentinels, name) = (sentinels.clone(), name.clone());
                Topology::Sentinel(Sentinel::new(sentinels, name, questions, requests(true), reads, self.sockets))
            }
            Target::Cluster { seeds } => {
                let reads = reads_replicas.then(|| Transport { readonly: true, ..reads() });
                Topology::Cluster(Cluster::new(seeds.clone(), requests(false), reads, self.sockets))
            }
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        let times = Duration::from_millis(1)..=Duration::from_secs(60);
        let bad_prefix = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}');
        let prefix = self.prefix.as_deref().unwrap_or(PREFIX_DEFAULT);
        let pool_size = self.pool_size.unwrap_or(POOL_SIZE_DEFAULT);
        let problem = if prefix.is_empty() || prefix.len() > 64 || prefix.contains(bad_prefix) {
            "the prefix must have 1 to 64 characters, without braces and white space"
        } else if !(1..=65_536).contains(&pool_size) {
            "the pool size must be 1 to 65536 operations"
        } else if !(1..=64).contains(&self.sockets) {
            "the number of sockets must be 1 to 64"
        } else if self.waiting_max > 1_000_000 {
            "at most 1000000 operations may wait for the pool"
        } else if !(Duration::from_secs(1)..=Duration::from_secs(30 * 86_400)).contains(&self.connection_age_max) {
            "a connection's age must be 1 s to 30 days"
        } else if !times.contains(&self.deadline) {
            "the deadline must be 1 ms to 60 s"
        } else if !times.contains(&self.connect_timeout) {
            "the connect timeout must be 1 ms to 60 s"
        } else if self.key.iter().chain(&self.former_keys).chain(&self.user_key).any(|key| key.len() < 16) {
            "each key must have at least 16 bytes"
        } else if self.former_keys.len() > FORMER_KEYS_MAX {
            "there may be four former keys at most"
        } else if let Some(problem) = self.near_cache.as_ref().and_then(NearCache::problem) {
            problem
        } else {
            return Ok(());
        };
        Err(StoreError::InvalidSettings { reason: problem.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use crate::{CacheStore, NearCache};

    #[test]
    fn a_near_cache_goes_with_every_topology() {
        for url in [
            "redis+sentinel://127.0.0.1:26379/shop",
            "redis+sentinel://127.0.0.1:26379/shop?read_from=replicas",
            "redis+cluster://127.0.0.1:7000",
            "redis+cluster://127.0.0.1:7000?read_from=replicas",
            "redis://127.0.0.1:6379?reader=127.0.0.1:6380",
        ] {
            assert!(CacheStore::builder(url).near_cache(NearCache::default()).connect_lazy().is_ok(), "{url}");
        }
    }
}
