//! Keyspace notifications: changes become messages on `__keyspace@N__:key` and `__keyevent@N__:event`.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::RwLock;

use crate::{
    config::BufferLimit,
    keyspace::{Change, ChangeSink, Classes},
    node::PubSub,
};

/// Publishes the changes that `notify-keyspace-events` asks for. Costs one atomic load per change while it asks for none.
#[derive(Debug)]
pub(crate) struct Notifier {
    classes: AtomicU32,
    limit: RwLock<BufferLimit>,
    pubsub: Arc<PubSub>,
}

impl Notifier {
    pub(crate) fn new(pubsub: Arc<PubSub>) -> Notifier {
        Notifier { classes: AtomicU32::new(0), limit: RwLock::default(), pubsub }
    }

    pub(crate) fn follow(&self, classes: Classes, limit: BufferLimit) {
        self.classes.store(classes.bits(), Ordering::Relaxed);
        *self.limit.write() = limit;
    }
}

impl ChangeSink for Notifier {
    fn take(&self, change: Change<'_>) {
        let classes = Classes::from_bits(self.classes.load(Ordering::Relaxed));
        if !classes.wants(change.class) || !self.pubsub.has_subscribers() {
            return;
        }
        let limit = *self.limit.read();
        if classes.wants_keyspace_channel() {
            let channel = [format!("__keyspace@{}__:", change.db).as_bytes(), change.key].concat();
            self.pubsub.publish(&channel, change.event.as_bytes(), limit);
        }
        if classes.wants_keyevent_channel() {
            let channel = format!("__keyevent@{}__:{}", change.db, change.event);
            self.pubsub.publish(channel.as_bytes(), change.key, limit);
        }
    }
}
