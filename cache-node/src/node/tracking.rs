//! Client-side caching: who is told of the keys that change. In broadcasting mode only, where a client names the prefixes that it
//! caches and the node remembers nothing of what it has read. Costs one atomic load per change while nobody asks for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::RwLock;

use crate::{
    config::BufferLimit,
    keyspace::{Change, Class},
    node::ClientEntry,
    protocol::{Protocol, Reply},
};

/// The connections that are told. May be locked while a shard is: it locks nothing itself but outboxes.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    followers: RwLock<Vec<Follower>>,
    count: AtomicUsize,
    limit: RwLock<BufferLimit>,
}

#[derive(Debug)]
struct Follower {
    client: Arc<ClientEntry>,
    prefixes: Vec<Box<[u8]>>,
}

impl Tracking {
    /// Bytes that may wait for a connection.
    pub(crate) fn follow(&self, limit: BufferLimit) {
        *self.limit.write() = limit;
    }

    /// Adds prefixes to what a connection is told of.
    pub(crate) fn add(&self, client: &Arc<ClientEntry>, prefixes: Vec<Box<[u8]>>) {
        let mut followers = self.followers.write();
        match followers.iter_mut().find(|follower| follower.client.id == client.id) {
            Some(follower) => {
                for prefix in prefixes {
                    if !follower.prefixes.contains(&prefix) {
                        follower.prefixes.push(prefix);
                    }
                }
            }
            None => followers.push(Follower { client: Arc::clone(client), prefixes }),
        }
        self.count.store(followers.len(), Ordering::Release);
        client.is_tracking.store(true, Ordering::Release);
    }

    pub(crate) fn remove(&self, client: &ClientEntry) {
        if !client.is_tracking.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut followers = self.followers.write();
        followers.retain(|follower| follower.client.id != client.id);
        self.count.store(followers.len(), Ordering::Release);
    }

    /// A prefix of the connection that is one of `prefix`, or of which that is one.
    pub(crate) fn overlapping(&self, client: &ClientEntry, prefix: &[u8]) -> Option<Box<[u8]>> {
        let followers = self.followers.read();
        let follower = followers.iter().find(|follower| follower.client.id == client.id)?;
        follower.prefixes.iter().find(|known| known.starts_with(prefix) || prefix.starts_with(known)).cloned()
    }

    pub(crate) fn take(&self, change: Change<'_>) {
        // Neither an absent key that was asked for nor a created one, which another event tells of, is news.
        if self.count.load(Ordering::Acquire) == 0 || matches!(change.class, Class::Miss | Class::New) {
            return;
        }
        let wants = |follower: &Follower| follower.prefixes.iter().any(|prefix| change.key.starts_with(prefix));
        self.tell(wants, |frame| {
            frame.array(1);
            frame.bulk(change.key);
        });
    }

    /// All keys of a database are gone.
    pub(crate) fn take_flush(&self) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.tell(|_| true, Reply::null);
        }
    }

    fn tell(&self, wants: impl Fn(&Follower) -> bool, write_keys: impl Fn(&mut Reply)) {
        let mut encoded = None;
        for follower in self.followers.read().iter().filter(|follower| wants(follower)) {
            // RESP2 has no form for what nobody asked for at that moment.
            if follower.client.protocol() == Protocol::Resp2 {
                continue;
            }
            let frame: &Reply = encoded.get_or_insert_with(|| {
                let mut frame = Reply::new(Protocol::Resp3);
                frame.push(2);
                frame.bulk(b"invalidate");
                write_keys(&mut frame);
                frame
            });
            follower.client.outbox.push(frame.bytes(), *self.limit.read());
        }
    }
}
