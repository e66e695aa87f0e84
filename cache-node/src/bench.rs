//! What lies between the sockets, one part at a time, for benchmarks.

pub use crate::server::bench::{Engine, Parser};
use crate::{
    keyspace::{Change, ChangeSink, EvictionPolicy, Keyspace, Now},
    protocol::{Protocol, Reply},
};

/// `maxmemory-samples` as it is by default.
const SAMPLES: usize = 5;

/// A keyspace whose memory is limited.
pub struct LimitedKeyspace {
    keyspace: Keyspace,
    policy: EvictionPolicy,
    bytes_max: usize,
    now: Now,
}

impl std::fmt::Debug for LimitedKeyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitedKeyspace")
            .field("policy", &self.policy)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

struct Nobody;

impl ChangeSink for Nobody {
    fn take(&self, _: Change<'_>) {}
}

impl LimitedKeyspace {
    /// An empty one with this `maxmemory`; `None` when there is no such policy.
    pub fn new(policy: &str, bytes_max: usize) -> Option<LimitedKeyspace> {
        let (_, policy) = EvictionPolicy::NAMES.into_iter().find(|(name, _)| *name == policy)?;
        let keyspace = Keyspace::new(1);
        keyspace.clock().follow(policy);
        Some(LimitedKeyspace { keyspace, policy, bytes_max, now: Now { unix_ms: 1_795_000_000_000 } })
    }

    /// Bytes of a value.
    pub fn get(&self, key: &[u8]) -> Option<usize> {
        let mut keys = self.keyspace.lock([key].into_iter(), 0, self.now, &Nobody);
        keys.string(key).ok().flatten().map(<[u8]>::len)
    }

    /// Makes room as a write does, and sets a value with milliseconds to live. `false` when there is no room.
    pub fn set(&self, key: &[u8], value: &[u8], ttl_ms: u64) -> bool {
        let has_room = self.keyspace.evict_to(self.bytes_max, self.policy, SAMPLES, self.now, &Nobody);
        if has_room {
            let mut keys = self.keyspace.lock([key].into_iter(), 0, self.now, &Nobody);
            keys.set_string(key, value, Some(self.now.unix_ms + ttl_ms));
        }
        has_room
    }

    /// Keys that it holds.
    pub fn len(&self) -> usize {
        self.keyspace.lock_all(0, self.now, &Nobody).len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Replies as they are sent.
#[derive(Debug)]
pub struct Encoder {
    reply: Reply,
}

impl Encoder {
    /// In RESP2 or, as HELLO 3 has it, RESP3.
    pub fn new(is_resp3: bool) -> Encoder {
        Encoder { reply: Reply::new(if is_resp3 { Protocol::Resp3 } else { Protocol::Resp2 }) }
    }

    /// A string, as GET answers.
    pub fn bulk(&mut self, value: &[u8]) -> &[u8] {
        self.reply.clear();
        self.reply.bulk(value);
        self.reply.bytes()
    }

    /// Fields and values, as HGETALL answers.
    pub fn hash(&mut self, pairs: &[(&[u8], &[u8])]) -> &[u8] {
        self.reply.clear();
        self.reply.map(pairs.len());
        for (field, value) in pairs {
            self.reply.bulk(field);
            self.reply.bulk(value);
        }
        self.reply.bytes()
    }
}
