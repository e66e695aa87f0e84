//! Eviction: what goes when `maxmemory` is reached.

use std::sync::atomic::Ordering;

use crate::keyspace::{ChangeSink, Class, EvictionPolicy, Keyspace, Now, Record, entry::Entry, shard::Shard};

/// Shards tried in a row without finding anything that may go, before eviction gives up: every shard once or more with
/// overwhelming probability.
const EMPTY_SHARDS_MAX: usize = 128;

/// Keys removed by one write at the most, so that no client waits for a whole sweep after `maxmemory` was lowered.
const EVICTED_PER_WRITE_MAX: usize = 256;

impl Keyspace {
    /// Removes keys by `policy` until at most `target_bytes` are used. `false` when that was not reached and nothing more may go:
    /// the write is then refused with OOM. Holds one shard's lock at a time.
    pub(crate) fn evict_to(
        &self,
        target_bytes: usize,
        policy: EvictionPolicy,
        samples: usize,
        now: Now,
        sink: &dyn ChangeSink,
    ) -> bool {
        let mut empty = 0;
        let mut evicted = 0;
        while self.used_bytes() > target_bytes {
            if policy == EvictionPolicy::NoEviction || empty == EMPTY_SHARDS_MAX {
                return false;
            }
            if evicted == EVICTED_PER_WRITE_MAX {
                return true;
            }
            if self.evict_one(policy, samples, now, sink) {
                empty = 0;
                evicted += 1;
            } else {
                empty += 1;
            }
        }
        true
    }

    fn evict_one(&self, policy: EvictionPolicy, samples: usize, now: Now, sink: &dyn ChangeSink) -> bool {
        let cell = &self.cells[rand::random_range(0..self.cells.len())];
        let mut guard = cell.shard.lock();
        let shard = &mut *guard;
        let Some((db, position)) = choose(shard, policy, samples, now) else { return false };
        shard.counters.evicted += 1;
        if sink.wants_records() {
            let mut record = Record::default();
            record.push_removal(db, shard.entry(db, position).key());
            sink.record(&record);
        }
        shard.remove_and_tell(db, position, (Class::Evicted, "evicted"), sink);
        cell.used_bytes.store(shard.used_bytes(), Ordering::Relaxed);
        true
    }
}

/// The best of `samples` random entries of a random database of the shard.
fn choose(shard: &Shard, policy: EvictionPolicy, samples: usize, now: Now) -> Option<(usize, usize)> {
    let has_candidates = |db: &usize| {
        let table = &shard.tables[*db];
        (if policy.is_volatile() { table.volatile_len() } else { table.len() }) > 0
    };
    let filled: Vec<usize> = (0..shard.tables.len()).filter(has_candidates).collect();
    let db = *filled.get(rand::random_range(0..filled.len().max(1)))?;
    let table = &shard.tables[db];
    let mut best: Option<(u64, usize)> = None;
    for _ in 0..samples {
        let position = if policy.is_volatile() { table.random_volatile_position() } else { table.random_position() }?;
        let entry = shard.entry(db, position);
        let worth = worth(entry, policy, now);
        if best.is_none_or(|(least, _)| worth < least) {
            best = Some((worth, position));
        }
    }
    best.map(|(_, position)| (db, position))
}

/// How much an entry is worth keeping: the smallest goes. An expired entry is worth nothing under any policy.
fn worth(entry: Entry<'_>, policy: EvictionPolicy, now: Now) -> u64 {
    let expires_at_ms = entry.expires_at_ms().unwrap_or(u64::MAX);
    if expires_at_ms <= now.unix_ms {
        return 0;
    }
    match policy {
        EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => u64::MAX - entry.access().idle_ms(now),
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

    #[test]
    fn the_few_keys_that_may_go_are_found_among_many() {
        let keyspace = Keyspace::new(1);
        let now = Now { unix_ms: 1_000_000 };
        let mut keys = keyspace.lock_all(0, now, &Nobody);
        (0..50_000).for_each(|number| keys.set_string(format!("lasting-{number}").as_bytes(), b"v", None));
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
