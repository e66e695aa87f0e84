//! The data: synchronous, without sockets, files or a clock of its own. Time is handed in as [`Now`], so that expiry, eviction and
//! idle times are tested without sleeping; what happened is handed out as [`Change`]s.
//!
//! The keyspace is split into shards, each behind a lock of its own. A command locks what its keys need ([`Keyspace::lock`]) before
//! it touches anything and never locks more while it holds something, so that no two commands can wait for each other.

mod access;
mod arena;
mod change;
mod entry;
mod eviction;
mod expiry;
mod garbage;
mod glob;
mod hash;
mod index;
mod keys;
mod leaving;
mod list;
mod numbered;
mod objects;
mod packed;
mod ranks;
mod read_ahead;
mod record;
mod set;
mod shard;
mod snapshot;
mod sorted_set;
#[cfg(feature = "metrics")]
mod totals;
mod value;
mod watch;

pub(crate) use access::{Clock, EvictionPolicy, Usage};
pub(crate) use change::{Change, ChangeSink, Class, Classes};
pub(crate) use glob::glob_matches;
pub(crate) use hash::{Hash, HashRef};
pub(crate) use keys::{Changed, Keys, ValueRef};
pub(crate) use list::{End, List};
pub(crate) use read_ahead::READ_AHEAD_MAX;
pub(crate) use record::Record;
pub(crate) use set::Set;
pub(crate) use snapshot::{DbSize, Encode, EntryRef, Snapshot, UsageKind};
pub(crate) use sorted_set::{Member, SortedSet};
#[cfg(feature = "metrics")]
pub(crate) use totals::Totals;
pub(crate) use value::{Collection, Kind, Str, Value, WrongType};
pub(crate) use watch::WatchFlag;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use shard::Shard;

/// The moment at which a batch of commands runs: Unix time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now {
    pub(crate) unix_ms: u64,
}

/// Shards of a keyspace. More than the threads that could meet in one, few enough that locking all of them for a script stays
/// below a microsecond.
const SHARDS: usize = 16;

/// All databases of a node.
#[derive(Debug)]
pub(crate) struct Keyspace {
    cells: Box<[Cell]>,
    hasher: RandomState,
    clock: Clock,
    databases: usize,
    /// Whether keys go only when another node, or the log that is loaded, says so.
    is_follower: AtomicBool,
    /// Until then no entry is due that was not removed: see [`Keyspace::evict_to`].
    nothing_due_before_ms: AtomicU64,
    has_snapshot: AtomicBool,
    /// Whether a shard may have entries of a flushed database that are to be freed.
    has_leaving: AtomicBool,
}

/// Aligned to a cache line pair, so that two threads in neighbouring shards do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Cell {
    shard: Mutex<Shard>,
    /// The shard's bytes, readable without its lock.
    used_bytes: AtomicUsize,
    /// The keys that eviction took from it, in the same way.
    evicted: AtomicU64,
    /// What the entry is worth that eviction would take from this shard.
    least_worth: AtomicU64,
}

impl Cell {
    /// Makes the shard's size readable without its lock. Gives the bytes by which it differs from what was there to be read.
    fn account(&self, shard: &Shard) -> usize {
        let (before, used) = (self.used_bytes.load(Ordering::Relaxed), shard.used_bytes());
        self.used_bytes.store(used, Ordering::Relaxed);
        used.abs_diff(before)
    }
}

type Guards<'a> = SmallVec<[(usize, MutexGuard<'a, Shard>); SHARDS]>;

/// A key of a request and its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashedKey<'k> {
    key: &'k [u8],
    hash: u64,
}

impl Keyspace {
    /// An empty keyspace with `databases` databases.
    pub(crate) fn new(databases: usize) -> Keyspace {
        let cell = || Cell {
            shard: Mutex::new(Shard::new(databases)),
            used_bytes: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            least_worth: AtomicU64::new(0),
        };
        Keyspace {
            cells: (0..SHARDS).map(|_| cell()).collect(),
            hasher: RandomState::new(),
            clock: Clock::default(),
            databases,
            is_follower: AtomicBool::new(false),
            nothing_due_before_ms: AtomicU64::new(0),
            has_snapshot: AtomicBool::new(false),
            has_leaving: AtomicBool::new(false),
        }
    }

    /// How entries remember their last use; follows `maxmemory-policy`.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether keys whose time has come stay until a DEL of the stream that is followed takes them; readers do not see them. Replicas
    /// do so, and a node that loads its log.
    pub(crate) fn follow(&self, is_follower: bool) {
        self.is_follower.store(is_follower, Ordering::Release);
    }

    pub(crate) fn is_follower(&self) -> bool {
        self.is_follower.load(Ordering::Acquire)
    }

    pub(crate) fn databases(&self) -> usize {
        self.databases
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.cells.len()
    }

    /// Bytes that keys and values take, the tables' own included. O(shards), no lock.
    pub(crate) fn used_bytes(&self) -> usize {
        self.cells.iter().map(|cell| cell.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Keys that went for `maxmemory`. O(shards), no lock.
    pub(crate) fn evicted(&self) -> u64 {
        self.cells.iter().map(|cell| cell.evicted.load(Ordering::Relaxed)).sum()
    }

    /// Writes since the start: Redis's dirty count. Locks one shard after the other.
    pub(crate) fn changes(&self) -> u64 {
        self.cells.iter().map(|cell| cell.shard.lock().counters.changes).sum()
    }

    /// Locks the shards of `keys` and gives a view of database `db` at `now`. Blocks while other threads hold those shards.
    pub(crate) fn lock<'a, 'k>(
        &'a self,
        keys: impl Iterator<Item = &'k [u8]>,
        db: usize,
        now: Now,
        sink: &'a dyn ChangeSink,
    ) -> Keys<'a> {
        let shards = keys.fold(0, |shards, key| shards | 1 << self.shard_of(self.hash(key)));
        Keys::lock(self, shards, &[], db, now, sink)
    }

    /// As [`Keyspace::lock`], for keys that were hashed before: the view does not hash them again.
    #[inline(always)]
    pub(crate) fn lock_hashed<'a>(
        &'a self,
        keys: &'a [HashedKey<'a>],
        db: usize,
        now: Now,
        sink: &'a dyn ChangeSink,
    ) -> Keys<'a> {
        let shards = keys.iter().fold(0, |shards, key| shards | 1 << self.shard_of(key.hash));
        Keys::lock(self, shards, keys, db, now, sink)
    }

    /// Locks every shard: scripts, and commands on the whole keyspace.
    pub(crate) fn lock_all<'a>(&'a self, db: usize, now: Now, sink: &'a dyn ChangeSink) -> Keys<'a> {
        Keys::lock(self, (1 << self.shard_count()) - 1, &[], db, now, sink)
    }

    /// The key with its hash, for [`Keyspace::lock_hashed`].
    #[inline]
    pub(crate) fn hashed<'k>(&self, key: &'k [u8]) -> HashedKey<'k> {
        HashedKey { key, hash: self.hash(key) }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        hash as usize % SHARDS
    }
}

/// The part of a hash that an index uses: the low bits chose the shard.
fn index_hash(hash: u64) -> u32 {
    (hash >> 32) as u32
}
