//! When and how often an entry was used: 24 bits that LRU and LFU share, as in Redis.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::keyspace::Now;

/// Milliseconds per tick of the LRU clock: 24 bits last 194 days (Redis: the same).
const LRU_TICK_MS: u64 = 1_000;

const BITS: u32 = 0x00FF_FFFF;

/// Minutes after which an LFU counter loses one (Redis: `lfu-decay-time`).
const LFU_DECAY_MINUTES: u32 = 1;

/// Slope of the LFU counter (Redis: `lfu-log-factor`): about a million hits saturate it.
const LFU_LOG_FACTOR: f64 = 10.0;

/// Where a new entry's LFU counter starts, so that it is not the first to go (Redis: `LFU_INIT_VAL`).
const LFU_INITIAL: u32 = 5;

/// `maxmemory-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictionPolicy {
    NoEviction,
    AllKeysLru,
    VolatileLru,
    AllKeysLfu,
    VolatileLfu,
    AllKeysRandom,
    VolatileRandom,
    VolatileTtl,
}

impl EvictionPolicy {
    pub(crate) const NAMES: [(&'static str, EvictionPolicy); 8] = [
        ("volatile-lru", EvictionPolicy::VolatileLru),
        ("volatile-lfu", EvictionPolicy::VolatileLfu),
        ("volatile-random", EvictionPolicy::VolatileRandom),
        ("volatile-ttl", EvictionPolicy::VolatileTtl),
        ("allkeys-lru", EvictionPolicy::AllKeysLru),
        ("allkeys-lfu", EvictionPolicy::AllKeysLfu),
        ("allkeys-random", EvictionPolicy::AllKeysRandom),
        ("noeviction", EvictionPolicy::NoEviction),
    ];

    pub(crate) fn parse(name: &str) -> Option<EvictionPolicy> {
        EvictionPolicy::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, policy)| *policy)
    }

    pub(crate) fn name(self) -> &'static str {
        EvictionPolicy::NAMES.iter().find(|(_, policy)| *policy == self).map_or("noeviction", |(name, _)| name)
    }

    pub(crate) fn is_lfu(self) -> bool {
        matches!(self, EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu)
    }

    /// Whether only keys with a time to live may go.
    pub(crate) fn is_volatile(self) -> bool {
        matches!(
            self,
            EvictionPolicy::VolatileLru
                | EvictionPolicy::VolatileLfu
                | EvictionPolicy::VolatileRandom
                | EvictionPolicy::VolatileTtl
        )
    }
}

/// The policy as the keyspace sees it; changed by CONFIG SET while commands run.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    is_lfu: AtomicBool,
}

impl Clock {
    pub(crate) fn follow(&self, policy: EvictionPolicy) {
        self.is_lfu.store(policy.is_lfu(), Ordering::Relaxed);
    }

    pub(super) fn is_lfu(&self) -> bool {
        self.is_lfu.load(Ordering::Relaxed)
    }

    /// The stamp of an entry made now.
    pub(super) fn created(&self, now: Now) -> Access {
        if self.is_lfu() { Access::counted(now, LFU_INITIAL) } else { Access(lru_tick(now)) }
    }

    /// The stamp of an entry that was used before it came here. What the policy does not go by is passed over.
    pub(super) fn restored(&self, usage: Usage, now: Now) -> Access {
        match usage {
            Usage::IdleSeconds(seconds) if !self.is_lfu() => {
                Access(lru_tick(Now { unix_ms: now.unix_ms.saturating_sub(seconds.saturating_mul(1000)) }))
            }
            Usage::Frequency(counter) if self.is_lfu() => Access::counted(now, u32::from(counter)),
            _ => self.created(now),
        }
    }

    /// The stamp after one more use.
    #[inline]
    pub(super) fn used(&self, access: Access, now: Now) -> Access {
        if self.is_lfu() { access.count_use(now) } else { Access(lru_tick(now)) }
    }
}

/// When and how often an entry was used, as a snapshot tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Usage {
    #[default]
    Unknown,
    IdleSeconds(u64),
    /// The LFU counter.
    Frequency(u8),
}

/// LRU: ticks of [`LRU_TICK_MS`]. LFU: 16 bits of minutes, 8 bits of a logarithmic counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Access(u32);

impl Access {
    pub(super) fn from_bytes([low, middle, high]: [u8; 3]) -> Access {
        Access(u32::from_le_bytes([low, middle, high, 0]))
    }

    pub(super) fn to_bytes(self) -> [u8; 3] {
        let [low, middle, high, _] = self.0.to_le_bytes();
        [low, middle, high]
    }

    fn counted(now: Now, counter: u32) -> Access {
        Access(minutes(now) << 8 | counter)
    }

    /// Milliseconds since the last use, for LRU stamps.
    pub(super) fn idle_ms(self, now: Now) -> u64 {
        u64::from(lru_tick(now).wrapping_sub(self.0) & BITS) * LRU_TICK_MS
    }

    /// When it was last used, for LRU stamps: Unix time to [`LRU_TICK_MS`].
    pub(super) fn used_at_ms(self, now: Now) -> u64 {
        (now.unix_ms / LRU_TICK_MS * LRU_TICK_MS).saturating_sub(self.idle_ms(now))
    }

    /// The LFU counter after its decay: 0 to 255.
    pub(super) fn frequency(self, now: Now) -> u32 {
        let elapsed = minutes(now).wrapping_sub(self.0 >> 8) & 0xFFFF;
        (self.0 & 0xFF).saturating_sub(elapsed / LFU_DECAY_MINUTES)
    }

    fn count_use(self, now: Now) -> Access {
        let mut counter = self.frequency(now);
        if counter < 255 {
            let base = f64::from(counter.saturating_sub(LFU_INITIAL));
            if rand::random::<f64>() < 1.0 / (base * LFU_LOG_FACTOR + 1.0) {
                counter += 1;
            }
        }
        Access::counted(now, counter)
    }
}

fn lru_tick(now: Now) -> u32 {
    (now.unix_ms / LRU_TICK_MS) as u32 & BITS
}

fn minutes(now: Now) -> u32 {
    (now.unix_ms / 60_000) as u32 & 0xFFFF
}

#[cfg(test)]
mod tests {
    use super::{Clock, EvictionPolicy};
    use crate::keyspace::Now;

    #[test]
    fn frequency_grows_with_use_and_decays_with_time() {
        let clock = Clock::default();
        clock.follow(EvictionPolicy::AllKeysLfu);
        let start = Now { unix_ms: 1_700_000_000_000 };
        let mut access = clock.created(start);
        for _ in 0..10_000 {
            access = clock.used(access, start);
        }
        let hot = access.frequency(start);
        assert!(hot > 20, "{hot}");
        let later = Now { unix_ms: start.unix_ms + 10 * 60_000 };
        assert_eq!(access.frequency(later), hot - 10);
    }

    #[test]
    fn idle_time_counts_from_the_last_use() {
        let clock = Clock::default();
        let access = clock.created(Now { unix_ms: 1_000_000 });
        assert_eq!(access.idle_ms(Now { unix_ms: 1_005_000 }), 5_000);
    }
}
