//! Eviction: what goes when `maxmemory` is reached.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::keyspace::{
    ChangeSink, Class, EvictionPolicy, Keyspace, Now, Record, entry::Entry, index::TICK_MS as DUE_TICK_MS, shard::Shard,
};

/// Shards tried one after the other without finding anything that may go, before eviction gives up: more than there are.
const EMPTY_SHARDS_MAX: usize = 128;

/// Keys removed by one write at the most, so that no client waits for a whole sweep after `maxmemory` was lowered.
const EVICTED_PER_WRITE_MAX: usize = 256;

impl Keyspace {
    /// Removes keys by `policy` until at most `target_bytes` are used. `false` when that was not reached and nothing more may go:
    /// the write is then refused with OOM. Expired keys go first, under any policy. Holds one shard's lock at a time. What follows a
    /// stream removes what that says, and nothing else.
    pub(crate) fn evict_to(
        &self,
        target_bytes: usize,
        policy: EvictionPolicy,
        samples: usize,
        now: Now,
        sink: &dyn ChangeSink,
    ) -> bool {
        if self.is_follower() {
            return true;
        }
        if self.used_bytes() > target_bytes {
            self.free_to(target_bytes);
        }
        if self.used_bytes() > target_bytes {
            self.expire_to(target_bytes, now, sink);
        }
        let mut empty = 0;
        let mut evicted = 0;
        let any_shard = || rand::random_range(0..self.cells.len());
        let mut sampled = any_shard();
        while self.used_bytes() > target_bytes {
            if policy == EvictionPolicy::NoEviction || empty == EMPTY_SHARDS_MAX {
                return false;
            }
            if evicted == EVICTED_PER_WRITE_MAX {
                return true;
            }
            if self.evict_one(sampled, policy, samples, now, sink) {
                empty = 0;
                evicted += 1;
                sampled = any_shard();
            } else {
                empty += 1;
                // One after the other: drawn each time anew, the only one with a key that may go might never be.
                sampled = (sampled + 1) % self.cells.len();
            }
        }
        true
    }

    /// Removes expired keys, as far as it takes to get to the target: no key that still has time goes before one that has none. Ends
    /// with a look through all due times, which is not repeated before the next of them can come.
    fn expire_to(&self, target_bytes: usize, now: Now, sink: &dyn ChangeSink) {
        if now.unix_ms < self.nothing_due_before_ms.load(Ordering::Relaxed) {
            return;
        }
        for shard in 0..self.cells.len() {
            while self.used_bytes() > target_bytes && self.expire_slice(shard, now, sink) {}
            if self.used_bytes() <= target_bytes {
                return;
            }
        }
        self.nothing_due_before_ms.store(now.unix_ms + DUE_TICK_MS, Ordering::Relaxed);
    }

    /// Looks at a few entries of a shard, and removes what is worth least of all that was looked at in any shard.
    fn evict_one(&self, sampled: usize, policy: EvictionPolicy, samples: usize, now: Now, sink: &dyn ChangeSink) -> bool {
        if matches!(policy, EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom) {
            return self.remove_from(sampled, sink, |shard| random_entry(shard, policy));
        }
        self.sample(sampled, policy, samples, now);
        // Once each for those that nobody has looked at yet.
        for _ in 0..=self.cells.len() {
            let worst = (0..self.cells.len()).map(|offset| (sampled + offset) % self.cells.len());
            let worst = worst.min_by_key(|cell| self.cells[*cell].least_worth.load(Ordering::Relaxed)).unwrap_or(sampled);
            if self.cells[worst].least_worth.load(Ordering::Relaxed) != UNKNOWN {
                return self.remove_from(worst, sink, |shard| shard.with_pool(policy, |shard, pool| pool.take(shard, now)));
            }
            self.sample(worst, policy, samples, now);
        }
        false
    }

    fn sample(&self, cell: usize, policy: EvictionPolicy, samples: usize, now: Now) {
        let cell = &self.cells[cell];
        let mut shard = cell.shard.lock();
        shard.with_pool(policy, |shard, pool| pool.sample(shard, samples, now));
        cell.least_worth.store(shard.pool.least_worth(), Ordering::Relaxed);
    }

    fn remove_from(&self, cell: usize, sink: &dyn ChangeSink, choose: impl FnOnce(&mut Shard) -> Option<(usize, usize)>) -> bool {
        let cell = &self.cells[cell];
        let mut guard = cell.shard.lock();
        // Behind the lock: roles change with every shard locked.
        if self.is_follower() {
            return false;
        }
        let shard = &mut *guard;
        let chosen = choose(shard);
        cell.least_worth.store(shard.pool.least_worth(), Ordering::Relaxed);
        let Some((db, position)) = chosen else { return false };
        shard.counters.evicted += 1;
        if sink.wants_records() {
            let mut record = Record::default();
            record.push_removal(db, shard.entry(db, position).key());
            sink.record(&record);
        }
        shard.remove_and_tell(db, position, (Class::Evicted, "evicted"), sink);
        cell.account(shard);
        cell.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Shard {
    /// The pool, apart from the shard that it is filled from; empty again when the policy is another.
    fn with_pool<R>(&mut self, policy: EvictionPolicy, act: impl FnOnce(&Shard, &mut Pool) -> R) -> R {
        let mut pool = std::mem::take(&mut self.pool);
        if pool.policy != policy {
            pool = Pool { policy, candidates: SmallVec::new() };
        }
        let result = act(self, &mut pool);
        self.pool = pool;
        result
    }
}

/// What the least worth of a shard is before anybody looked: it is looked at first.
const UNKNOWN: u64 = 0;

/// What it is where nothing may go.
const NOTHING: u64 = u64::MAX;

/// The best candidates of earlier samples of a shard: with those of each new sample beside them, what goes is close to what is worth
/// least of all, although few entries are looked at for it.
#[derive(Debug)]
pub(super) struct Pool {
    policy: EvictionPolicy,
    /// The best one last.
    candidates: SmallVec<[Candidate; POOL_SIZE]>,
}

/// Candidates that a shard remembers (Redis: `EVPOOL_SIZE`, for all of its keys together).
const POOL_SIZE: usize = 16;

/// An entry that may go. It is found again by its hash: another entry of the same hash in its place does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    worth: u64,
    db: usize,
    hash: u32,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool { policy: EvictionPolicy::NoEviction, candidates: SmallVec::new() }
    }
}

impl Pool {
    /// Offers `samples` random entries, or as many as the pool lacks: the best of a few is often none that should go.
    fn sample(&mut self, shard: &Shard, samples: usize, now: Now) {
        for _ in 0..samples.max(POOL_SIZE - self.candidates.len()) {
            let Some((db, position)) = random_entry(shard, self.policy) else { return };
            let worth = worth(shard.entry(db, position), self.policy, now);
            self.offer(Candidate { worth, db, hash: shard.tables[db].hash_at(position) });
        }
    }

    /// Takes the best candidate that still is one.
    fn take(&mut self, shard: &Shard, now: Now) -> Option<(usize, usize)> {
        while let Some(Candidate { worth: then, db, hash }) = self.candidates.pop() {
            // What was used or given more time since is no candidate any more, nor is what may not go at all now. Looked for among all
            // of the same hash: the first may be one that never goes.
            let is_candidate = |handle| {
                let entry = shard.entry_of(handle);
                let may_go = !self.policy.is_volatile() || entry.expires_at_ms().is_some();
                may_go && worth(entry, self.policy, now) <= then
            };
            if let Some(position) = shard.tables[db].find(hash, is_candidate) {
                return Some((db, position));
            }
        }
        None
    }

    fn least_worth(&self) -> u64 {
        self.candidates.last().map_or(NOTHING, |candidate| candidate.worth.max(UNKNOWN + 1))
    }

    /// Takes a candidate in, if it is better than one that is there or there is room.
    fn offer(&mut self, candidate: Candidate) {
        if self.candidates.contains(&candidate) {
            return;
        }
        let place = self.candidates.partition_point(|there| there.worth > candidate.worth);
        if self.candidates.len() < POOL_SIZE {
            self.candidates.insert(place, candidate);
        } else if place > 0 {
            self.candidates.remove(0);
            self.candidates.insert(place - 1, candidate);
        }
    }
}

fn random_entry(shard: &Shard, policy: EvictionPolicy) -> Option<(usize, usize)> {
    let has_candidates = |db: &usize| {
        let table = &shard.tables[*db];
        (if policy.is_volatile() { table.volatile_len() } else { table.len() }) > 0
    };
    let filled: SmallVec<[usize; 16]> = (0..shard.tables.len()).filter(has_candidates).collect();
    let db = *filled.get(rand::random_range(0..filled.len().max(1)))?;
    let table = &shard.tables[db];
    let position = if policy.is_volatile() { table.random_volatile_position() } else { table.random_position() };
    position.map(|position| (db, position))
}

/// How much an entry is worth keeping: the smallest goes. An expired entry is worth nothing under any policy.
fn worth(entry: Entry<'_>, policy: EvictionPolicy, now: Now) -> u64 {
    let expires_at_ms = entry.expires_at_ms().unwrap_or(u64::MAX);
    if expires_at_ms <= now.unix_ms {
        return 0;
    }
    match policy {
        // When it was last used, which stays as it is until it is used again.
        EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => 1 + entry.access().used_at_ms(now),
        EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => 1 + u64::from(entry.access().frequency(now)),
        EvictionPolicy::VolatileTtl => expires_at_ms,
        EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom | EvictionPolicy::NoEviction => 1,
    }
}

#[cfg(test)]
mod tests {
    use crate::keyspace::{Change, ChangeSink, EvictionPolicy, Keyspace, Now};

    struct Nobody;

    impl ChangeSink for Nobody {
        fn take(&self, _: Change<'_>) {}
    }

    /// 1,000 old keys and 1,000 fresh ones, each second one with a time to live; gives the old, fresh and volatile ones that survive.
    fn survivors(policy: EvictionPolicy) -> (usize, usize, usize, bool) {
        let keyspace = Keyspace::new(1);
        keyspace.clock().follow(policy);
        let old = Now { unix_ms: 1_000_000 };
        let fresh = Now { unix_ms: 2_000_000 };
        for (age, now) in [("old", old), ("fresh", fresh)] {
            for number in 0..1_000_u64 {
                let key = format!("{age}-{number}");
                let mut keys = keyspace.lock_all(0, now, &Nobody);
                keys.set_string(key.as_bytes(), &[0; 100], (number % 2 == 0).then_some(10_000_000 + number));
                for _ in 0..50 {
                    if age == "fresh" {
                        keys.touch(key.as_bytes());
                    }
                }
            }
        }
        let half = keyspace.used_bytes() / 2;
        let mut is_enough = true;
        for _ in 0..50 {
            is_enough = keyspace.evict_to(half, policy, 5, fresh, &Nobody);
        }
        let keys = keyspace.lock_all(0, fresh, &Nobody);
        let mut fresh_left = 0;
        keys.for_each(|key| fresh_left += usize::from(key.starts_with(b"fresh")));
        (keys.len() - fresh_left, fresh_left, keys.volatile_len(), is_enough)
    }

    /// Chance alone would leave as many old ones as fresh ones.
    #[test]
    fn recently_and_often_used_keys_stay() {
        for policy in [EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysLfu] {
            let (old, fresh, _, is_enough) = survivors(policy);
            assert!(is_enough && fresh > 2 * old, "{policy:?}: {fresh} fresh, {old} old");
        }
    }

    #[test]
    fn volatile_policies_touch_only_keys_with_a_time_to_live() {
        for policy in [
            EvictionPolicy::VolatileLru,
            EvictionPolicy::VolatileLfu,
            EvictionPolicy::VolatileRandom,
            EvictionPolicy::VolatileTtl,
        ] {
            let (_, fresh, volatile, _) = survivors(policy);
            assert!(fresh >= 500 && volatile < 60, "{policy:?}: {fresh} fresh, {volatile} volatile");
        }
    }

    /// The advice for sessions: by volatile-lru none goes that is in use while there are expired or forgotten ones.
    #[test]
    fn a_live_session_outlives_the_expired_and_the_forgotten() {
        let policy = EvictionPolicy::VolatileLru;
        let keyspace = Keyspace::new(1);
        keyspace.clock().follow(policy);
        let (start, later) = (Now { unix_ms: 1_795_000_000_000 }, Now { unix_ms: 1_795_001_000_000 });
        let put = |kind: &str, now: Now, ttl_ms| {
            let mut keys = keyspace.lock_all(0, now, &Nobody);
            (0..2_000).for_each(|number| {
                keys.set_string(format!("{kind}-{number}").as_bytes(), &[0; 100], Some(now.unix_ms + ttl_ms));
            });
        };
        put("expired", start, 900_000);
        put("forgotten", start, 9_000_000);
        // Less time left than the forgotten ones: volatile-ttl would take these.
        put("live", later, 60_000);
        let count = |kind: &str| {
            let mut count = 0;
            keyspace.lock_all(0, start, &Nobody).for_each(|key| count += usize::from(key.starts_with(kind.as_bytes())));
            count
        };
        let full = keyspace.used_bytes();
        // Expired ones alone make this room: nothing else goes, whatever the policy.
        assert!(!keyspace.evict_to(0, EvictionPolicy::NoEviction, 5, start, &Nobody));
        assert!(keyspace.evict_to(full * 9 / 10, policy, 5, later, &Nobody));
        assert_eq!((count("live"), count("forgotten")), (2_000, 2_000));
        assert!(count("expired") < 2_000);
        // Half of the rest: all the expired and half of the forgotten.
        for _ in 0..20 {
            keyspace.evict_to(full / 2, policy, 5, later, &Nobody);
        }
        assert_eq!((count("live"), count("expired")), (2_000, 0), "{} forgotten", count("forgotten"));
        assert!(count("forgotten") < 1_500, "{}", count("forgotten"));
    }

    #[test]
    fn a_candidate_that_was_used_since_stays() {
        let policy = EvictionPolicy::AllKeysLru;
        let keyspace = Keyspace::new(1);
        let at = |second: u64| Now { unix_ms: 1_795_000_000_000 + second * 1_000 };
        let fill = |second: u64, name: &str, count| {
            let mut keys = keyspace.lock_all(0, at(second), &Nobody);
            (0..count).for_each(|number| keys.set_string(format!("{name}-{number}").as_bytes(), &[0; 100], None));
        };
        fill(0, "old", 1_000);
        fill(50, "new", 1_000);
        let half = keyspace.used_bytes() / 2;
        let mut second = 100;
        while keyspace.used_bytes() > half * 3 / 2 {
            keyspace.evict_to(keyspace.used_bytes() - 1, policy, 5, at(second), &Nobody);
        }
        // All that is left of the old ones is used; from then on the new ones are the older ones.
        second += 1;
        let mut used = 0;
        for number in 0..1_000 {
            used += usize::from(keyspace.lock_all(0, at(second), &Nobody).touch(format!("old-{number}").as_bytes()));
        }
        for _ in 0..200 {
            keyspace.evict_to(keyspace.used_bytes() - 1, policy, 5, at(second), &Nobody);
        }
        let mut left = 0;
        keyspace.lock_all(0, at(second), &Nobody).for_each(|key| left += usize::from(key.starts_with(b"old")));
        assert!(left * 100 >= used * 95, "{left} of {used}");
    }

    #[test]
    fn the_few_keys_that_may_go_are_found_among_many() {
        let keyspace = Keyspace::new(1);
        let now = Now { unix_ms: 1_000_000 };
        let mut keys = keyspace.lock_all(0, now, &Nobody);
        (0..50_000).for_each(|number| keys.set_string(format!("lasting-{number}").as_bytes(), b"v", None));
        // With its place in the index, which may have grown for it and does not shrink.
        keys.set_string(b"passing", b"v", Some(2_000_000));
        let lasting = keyspace.used_bytes();
        keys.set_string(b"passing", &[0; 1_000_000], Some(2_000_000));
        drop(keys);
        assert!(keyspace.evict_to(lasting + 1_000, EvictionPolicy::VolatileLru, 5, now, &Nobody));
        assert_eq!(keyspace.lock_all(0, now, &Nobody).volatile_len(), 0);
    }

    #[test]
    fn noeviction_refuses() {
        let (_, fresh, volatile, is_enough) = survivors(EvictionPolicy::NoEviction);
        assert_eq!((fresh, volatile, is_enough), (1_000, 1_000, false));
    }
}
