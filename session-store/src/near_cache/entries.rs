//! What the near cache holds: bounded, and never more than what the store is known to have said.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{NearCache, NearCacheStatus};
use crate::{
    keys::{Tag, TagMap},
    metrics,
    record::StoredSession,
};

/// Parts with a lock of their own: replicas have few threads.
const SHARDS: usize = 16;
/// What an entry costs beside its bytes: key, entry, and its share of the table.
const ENTRY_BYTES: usize = 384;

pub(crate) struct Entries {
    settings: NearCache,
    shards: [Mutex<Shard>; SHARDS],
    started: Instant,
    /// Counts the nodes that requests are sent to, one after the other.
    switches: Arc<AtomicU64>,
    /// The one of them that tells of changes.
    followed: AtomicU64,
    /// Until when all changes are known to have been told; 0: nothing is known.
    proven_us: AtomicU64,
    delay_us: AtomicU64,
    invalidations: AtomicU64,
    drops: AtomicU64,
}

/// Two generations: the older one is dropped when the younger one has its share.
#[derive(Default)]
struct Shard {
    young: TagMap<Entry>,
    old: TagMap<Entry>,
    young_bytes: usize,
    old_bytes: usize,
    /// Counts what was named as changed: an answer that was asked for before that is not kept.
    sequence: u64,
    // Counted where the lock is held in any case: threads would take one count from each other.
    hits: u64,
    misses: u64,
}

struct Entry {
    session: StoredSession,
    bytes: usize,
    asked_us: u64,
    /// It is served before this.
    until_us: u64,
}

impl Entry {
    /// The session as it is at this moment, while it may be served.
    fn at(&self, now_us: u64, revision_min: u64) -> Option<StoredSession> {
        if now_us >= self.until_us || self.session.revision < Some(revision_min) {
            return None;
        }
        let mut session = self.session.clone();
        session.remaining_ms -= (now_us.saturating_sub(self.asked_us) / 1_000) as i64;
        Some(session)
    }
}

/// Taken before the store is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    sequence: u64,
    asked_us: u64,
}

impl Entries {
    /// `switches`: counts how often another node took the place of the one that requests are sent to.
    pub(crate) fn new(settings: NearCache, switches: Arc<AtomicU64>) -> Self {
        Self {
            settings,
            followed: AtomicU64::new(switches.load(Ordering::Acquire)),
            switches,
            shards: Default::default(),
            started: Instant::now(),
            proven_us: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            drops: AtomicU64::new(0),
        }
    }

    pub(super) fn settings(&self) -> &NearCache {
        &self.settings
    }

    /// Never 0.
    pub(super) fn now_us(&self) -> u64 {
        self.us_at(Instant::now())
    }

    fn us_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_micros() as u64 + 1
    }

    fn shard(&self, tag: &Tag) -> &Mutex<Shard> {
        &self.shards[tag.spread() % SHARDS]
    }

    /// To be asked before the node that is to be followed.
    pub(super) fn switches(&self) -> u64 {
        self.switches.load(Ordering::Acquire)
    }

    /// Whether the node that tells of changes is the one that requests are sent to.
    pub(super) fn follows_the_right_one(&self) -> bool {
        self.followed.load(Ordering::Acquire) == self.switches()
    }

    fn is_proven(&self, now_us: u64) -> bool {
        let proven_us = self.proven_us.load(Ordering::Acquire);
        proven_us > 0
            && self.follows_the_right_one()
            && now_us.saturating_sub(proven_us) <= self.settings.staleness_max.as_micros() as u64
    }

    /// The session as the store had it no longer ago than is allowed, if it is there at this revision or a later one.
    pub(crate) fn get(&self, tag: &Tag, revision_min: u64, now: Instant) -> Option<StoredSession> {
        let now_us = self.us_at(now);
        let found = {
            let mut shard = self.shard(tag).lock();
            let found = if self.is_proven(now_us) { self.find(&mut shard, tag, revision_min, now_us) } else { None };
            *(if found.is_some() { &mut shard.hits } else { &mut shard.misses }) += 1;
            found
        };
        metrics::near_cache_read(found.is_some());
        found
    }

    fn find(&self, shard: &mut Shard, tag: &Tag, revision_min: u64, now_us: u64) -> Option<StoredSession> {
        if let Some(entry) = shard.young.get(tag) {
            return entry.at(now_us, revision_min);
        }
        let entry = shard.old.remove(tag)?;
        shard.old_bytes -= entry.bytes;
        let session = entry.at(now_us, revision_min);
        self.insert(shard, *tag, entry);
        session
    }

    /// To be called before the store is asked, for [`keep`](Self::keep).
    pub(crate) fn ask(&self, tag: &Tag) -> Ticket {
        Ticket { sequence: self.shard(tag).lock().sequence, asked_us: self.now_us() }
    }

    /// Keeps what the store answered, unless something was named as changed since it was asked: that may have been this session.
    pub(crate) fn keep(&self, tag: &Tag, ticket: Ticket, session: &StoredSession) {
        // One that ended is not worth it, and the remaining time of one without end is unknown.
        if session.revision.is_none() || session.remaining_ms <= 0 || !self.is_proven(self.now_us()) {
            return;
        }
        let session = session.compact();
        let bytes = ENTRY_BYTES + session.bytes();
        if bytes > self.settings.bytes_max / SHARDS / 2 {
            return;
        }
        let age_us = (self.settings.age_max.as_micros() as u64).min(session.remaining_ms as u64 * 1_000);
        let entry = Entry { session, bytes, asked_us: ticket.asked_us, until_us: ticket.asked_us + age_us };
        let mut shard = self.shard(tag).lock();
        if shard.sequence == ticket.sequence {
            shard.remove(tag);
            self.insert(&mut shard, *tag, entry);
        }
    }

    fn insert(&self, shard: &mut Shard, tag: Tag, entry: Entry) {
        // Half of the shard's share, so that both generations together stay within it.
        let (entries_max, bytes_max) = (self.settings.entries_max.div_ceil(2 * SHARDS), self.settings.bytes_max / SHARDS / 2);
        if shard.young.len() >= entries_max || shard.young_bytes + entry.bytes > bytes_max {
            shard.old = mem::take(&mut shard.young);
            shard.old_bytes = mem::take(&mut shard.young_bytes);
        }
        shard.young_bytes += entry.bytes;
        shard.young.insert(tag, entry);
    }

    /// The session changed, or is about to.
    pub(crate) fn invalidate(&self, tag: &Tag) {
        let mut shard = self.shard(tag).lock();
        shard.sequence += 1;
        shard.remove(tag);
        drop(shard);
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        metrics::near_cache_invalidated();
    }

    /// Nothing is known any more.
    pub(super) fn drop_all(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        metrics::near_cache_dropped();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let (sequence, hits, misses) = (shard.sequence + 1, shard.hits, shard.misses);
            *shard = Shard { sequence, hits, misses, ..Shard::default() };
        }
        metrics::near_cache_holds(0, 0);
    }

    /// The connection that tells of changes broke: nothing is served until there is another one.
    pub(super) fn lose(&self) {
        self.proven_us.store(0, Ordering::Release);
        self.drop_all();
    }

    /// From now on this one of the nodes tells of changes. What was read before, nobody was told of.
    pub(super) fn follow(&self, switches: u64, asked_us: u64) {
        self.lose();
        self.followed.store(switches, Ordering::Release);
        self.prove(asked_us);
    }

    /// All changes from before this moment have been told.
    pub(super) fn prove(&self, asked_us: u64) {
        self.delay_us.store(self.now_us().saturating_sub(asked_us), Ordering::Relaxed);
        self.proven_us.store(asked_us, Ordering::Release);
        // Now and then will do for the size, which every read would have to add up.
        let (entries, bytes) = self.size();
        metrics::near_cache_holds(entries, bytes);
    }

    fn size(&self) -> (usize, usize) {
        let mut size = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            size.0 += shard.young.len() + shard.old.len();
            size.1 += shard.young_bytes + shard.old_bytes;
        }
        size
    }

    fn reads(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(hits, misses), shard| {
            let shard = shard.lock();
            (hits + shard.hits, misses + shard.misses)
        })
    }

    pub(crate) fn status(&self) -> NearCacheStatus {
        let ((entries, bytes), (hits, misses)) = (self.size(), self.reads());
        let now_us = self.now_us();
        let proven_us = self.proven_us.load(Ordering::Acquire);
        NearCacheStatus {
            entries,
            bytes,
            hits,
            misses,
            invalidations: self.invalidations.load(Ordering::Relaxed),
            drops: self.drops.load(Ordering::Relaxed),
            proven_ago: self.is_proven(now_us).then(|| Duration::from_micros(now_us.saturating_sub(proven_us))),
            delay: Duration::from_micros(self.delay_us.load(Ordering::Relaxed)),
        }
    }
}

impl Shard {
    fn remove(&mut self, tag: &Tag) {
        if let Some(entry) = self.young.remove(tag) {
            self.young_bytes -= entry.bytes;
        }
        if let Some(entry) = self.old.remove(tag) {
            self.old_bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::{Duration, Instant},
    };

    use tower_sessions::session::Id;

    use super::Entries;
    use crate::{
        NearCache,
        keys::{Keys, Tag},
        record::{RawField, StoredSession},
    };

    fn session(value: &'static str) -> StoredSession {
        let fields = Arc::new(vec![RawField::new("name", value)]);
        StoredSession { revision: Some(1), remaining_ms: 60_000, fields, ..StoredSession::default() }
    }

    fn entries(settings: NearCache) -> (Entries, impl Fn(usize) -> Tag) {
        let keys = Keys::new("shop", b"0123456789abcdef", &[], b"0123456789abcdef");
        let entries = Entries::new(settings, Arc::default());
        entries.prove(entries.now_us());
        (entries, move |i| keys.session_tag(&Id(i as i128)))
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let (entries, tag) = entries(NearCache::default());
        let ticket = entries.ask(&tag(1));
        entries.invalidate(&tag(1));
        entries.keep(&tag(1), ticket, &session("old"));
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none());
        entries.keep(&tag(1), entries.ask(&tag(1)), &session("new"));
        assert_eq!(entries.get(&tag(1), 0, Instant::now()).map(|found| found.fields), Some(session("new").fields));
        entries.drop_all();
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none());
        assert_eq!(entries.status().bytes, 0);
    }

    #[test]
    fn nothing_is_served_without_a_young_proof() {
        let (entries, tag) = entries(NearCache { staleness_max: Duration::from_millis(20), ..NearCache::default() });
        // As if the machine could not be slow.
        entries.prove(entries.now_us() + 10_000_000);
        entries.keep(&tag(1), entries.ask(&tag(1)), &session("a"));
        entries.prove(entries.now_us());
        std::thread::sleep(Duration::from_millis(25));
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none() && entries.status().proven_ago.is_none());
        entries.prove(entries.now_us() + 10_000_000);
        assert!(entries.get(&tag(1), 0, Instant::now()).is_some(), "it was kept, and is proven again");
        entries.lose();
        entries.prove(entries.now_us());
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none(), "what was there before the loss is gone");
    }

    #[test]
    fn nothing_is_served_once_requests_go_to_another_node() {
        let switches = Arc::<AtomicU64>::default();
        let settings = NearCache { staleness_max: Duration::from_secs(60), ..NearCache::default() };
        let (entries, (_, tag)) = (Entries::new(settings, Arc::clone(&switches)), entries(settings));
        entries.follow(entries.switches(), entries.now_us());
        entries.keep(&tag(1), entries.ask(&tag(1)), &session("a"));
        assert!(entries.get(&tag(1), 0, Instant::now()).is_some());
        let (before, late) = (entries.switches(), entries.ask(&tag(2)));
        switches.fetch_add(1, Ordering::AcqRel);
        // Its sign of life is worth nothing any more.
        entries.prove(entries.now_us());
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none() && entries.status().proven_ago.is_none());
        entries.follow(before, entries.now_us());
        assert!(!entries.follows_the_right_one(), "it was chosen before the switch");
        entries.follow(entries.switches(), entries.now_us());
        entries.keep(&tag(2), late, &session("of the former"));
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none() && entries.get(&tag(2), 0, Instant::now()).is_none());
        entries.keep(&tag(1), entries.ask(&tag(1)), &session("b"));
        assert!(entries.get(&tag(1), 0, Instant::now()).is_some());
    }

    #[test]
    fn an_ended_session_and_one_past_its_time_are_not_served() {
        let (entries, tag) = entries(NearCache { age_max: Duration::from_millis(10), ..NearCache::default() });
        entries.keep(&tag(1), entries.ask(&tag(1)), &StoredSession { revision: None, ended: true, ..session("a") });
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none());
        entries.keep(&tag(1), entries.ask(&tag(1)), &session("a"));
        std::thread::sleep(Duration::from_millis(12));
        assert!(entries.get(&tag(1), 0, Instant::now()).is_none());
    }

    #[test]
    fn the_cache_stays_within_its_bounds_and_keeps_what_is_used() {
        for settings in
            [NearCache { entries_max: 320, ..NearCache::default() }, NearCache { bytes_max: 256 << 10, ..NearCache::default() }]
        {
            // However slow the machine is.
            let settings = NearCache { staleness_max: Duration::from_secs(60), ..settings };
            let (entries, tag) = entries(settings);
            for i in 1..5_000 {
                entries.keep(&tag(i), entries.ask(&tag(i)), &session("a"));
                let status = entries.status();
                assert!(status.entries <= settings.entries_max && status.bytes <= settings.bytes_max, "{status:?}");
                entries.keep(&tag(0), entries.ask(&tag(0)), &session("used"));
                assert!(entries.get(&tag(0), 0, Instant::now()).is_some());
            }
            assert!(entries.status().entries >= 100);
        }
    }
}
