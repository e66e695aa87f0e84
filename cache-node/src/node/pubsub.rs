//! Channels: who subscribes to what. Publishing costs one atomic load while nobody does.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    config::BufferLimit,
    keyspace::glob_matches,
    node::ClientEntry,
    protocol::{Protocol, Reply},
};

/// A channel's name, or a pattern of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic<'a> {
    Channel(&'a [u8]),
    Pattern(&'a [u8]),
}

#[derive(Debug, Default)]
struct Topics {
    channels: HashMap<Box<[u8]>, Vec<Arc<ClientEntry>>>,
    patterns: HashMap<Box<[u8]>, Vec<Arc<ClientEntry>>>,
}

impl Topics {
    fn of(&mut self, topic: Topic<'_>) -> &mut HashMap<Box<[u8]>, Vec<Arc<ClientEntry>>> {
        match topic {
            Topic::Channel(_) => &mut self.channels,
            Topic::Pattern(_) => &mut self.patterns,
        }
    }
}

impl<'a> Topic<'a> {
    fn name(self) -> &'a [u8] {
        match self {
            Topic::Channel(name) | Topic::Pattern(name) => name,
        }
    }
}

/// The registry of subscriptions. May be locked while a shard is: it locks nothing itself but outboxes.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    topics: Mutex<Topics>,
    subscriptions: AtomicUsize,
}

impl PubSub {
    /// Adds a subscription that is not there yet; the connection keeps account of its own.
    pub(crate) fn subscribe(&self, topic: Topic<'_>, client: &Arc<ClientEntry>) {
        self.topics.lock().of(topic).entry(topic.name().into()).or_default().push(Arc::clone(client));
        self.subscriptions.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn unsubscribe(&self, topic: Topic<'_>, client: &ClientEntry) {
        let mut topics = self.topics.lock();
        let map = topics.of(topic);
        let Some(subscribers) = map.get_mut(topic.name()) else { return };
        let before = subscribers.len();
        subscribers.retain(|subscriber| subscriber.id != client.id);
        self.subscriptions.fetch_sub(before - subscribers.len(), Ordering::Release);
        if subscribers.is_empty() {
            map.remove(topic.name());
        }
    }

    /// Whether anybody subscribes to anything.
    pub(crate) fn has_subscribers(&self) -> bool {
        self.subscriptions.load(Ordering::Acquire) > 0
    }

    /// Sends a message to everyone who wants it and gives how many those were. `limit`: bytes that may wait per subscriber.
    pub(crate) fn publish(&self, channel: &[u8], message: &[u8], limit: BufferLimit) -> usize {
        self.send(channel, message, limit, b"")
    }

    /// As [`PubSub::publish`], for what no client published: patterns hear it that begin with `prefix`. Who listens to `*` expects what Redis sends.
    pub(crate) fn publish_own(&self, prefix: &[u8], channel: &[u8], message: &[u8], limit: BufferLimit) {
        self.send(channel, message, limit, prefix);
    }

    fn send(&self, channel: &[u8], message: &[u8], limit: BufferLimit, prefix: &[u8]) -> usize {
        if !self.has_subscribers() {
            return 0;
        }
        let topics = self.topics.lock();
        let mut receivers = 0;
        if let Some(subscribers) = topics.channels.get(channel) {
            deliver(subscribers, &[b"message", channel, message], limit);
            receivers += subscribers.len();
        }
        for (pattern, subscribers) in &topics.patterns {
            if pattern.starts_with(prefix) && glob_matches(pattern, channel) {
                deliver(subscribers, &[b"pmessage", pattern, channel, message], limit);
                receivers += subscribers.len();
            }
        }
        receivers
    }

    /// Ends the connections of whom `is_wrong` says that they may not have a subscription, but for the connection `me`: whether it is one of them.
    pub(crate) fn close_where(&self, me: u64, is_wrong: impl Fn(&ClientEntry, Topic<'_>) -> bool) -> bool {
        let topics = self.topics.lock();
        let channels = topics.channels.iter().map(|(name, subscribers)| (Topic::Channel(name), subscribers));
        let patterns = topics.patterns.iter().map(|(name, subscribers)| (Topic::Pattern(name), subscribers));
        let mut is_mine = false;
        for (topic, subscribers) in channels.chain(patterns) {
            for subscriber in subscribers.iter().filter(|subscriber| is_wrong(subscriber, topic)) {
                if subscriber.id == me {
                    is_mine = true;
                } else {
                    subscriber.outbox.close();
                }
            }
        }
        is_mine
    }

    /// PUBSUB CHANNELS.
    pub(crate) fn channels(&self, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let topics = self.topics.lock();
        topics.channels.keys().filter(|name| pattern.is_none_or(|pattern| glob_matches(pattern, name))).cloned().collect()
    }

    /// PUBSUB NUMSUB.
    pub(crate) fn subscribers(&self, channel: &[u8]) -> usize {
        self.topics.lock().channels.get(channel).map_or(0, Vec::len)
    }

    /// PUBSUB NUMPAT.
    pub(crate) fn patterns(&self) -> usize {
        self.topics.lock().patterns.len()
    }

    /// Channels that have a subscriber.
    pub(crate) fn channel_count(&self) -> usize {
        self.topics.lock().channels.len()
    }
}

/// Encodes the message once per protocol version and not once per subscriber.
fn deliver(subscribers: &[Arc<ClientEntry>], parts: &[&[u8]], limit: BufferLimit) {
    let mut encoded: [Option<Reply>; 2] = [None, None];
    for subscriber in subscribers {
        let protocol = subscriber.protocol();
        let frame = encoded[usize::from(protocol == Protocol::Resp3)].get_or_insert_with(|| {
            let mut frame = Reply::new(protocol);
            frame.push(parts.len());
            parts.iter().for_each(|part| frame.bulk(part));
            frame
        });
        subscriber.outbox.push(frame.bytes(), limit);
    }
}
