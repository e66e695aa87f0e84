//! Keyspace notifications: changes become messages on `__keyspace@N__:key` and `__keyevent@N__:event`.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

use crate::{
    keyspace::{Change, ChangeSink, Classes},
    node::PubSub,
};

/// Publishes the changes that `notify-keyspace-events` asks for. Costs one atomic load per change while it asks for none.
#[derive(Debug)]
pub(crate) struct Notifier {
    classes: AtomicU32,
    buffer_max: AtomicUsize,
    pubsub: Arc<PubSub>,
}

impl Notifier {
    pub(crate) fn new(pubsub: Arc<PubSub>) -> Notifier {
        Notifier { classes: AtomicU32::new(0), buffer_max: AtomicUsize::new(0), pubsub }
    }

    pub(crate) fn follow(&self, classes: Classes, buffer_max: usize) {
        self.classes.store(classes.bits(), Ordering::Relaxed);
        self.buffer_max.store(buffer_max, Ordering::Relaxed);
    }
}

impl ChangeSink for Notifier {
    fn take(&self, change: Change<'_>) {
        let classes = Classes::from_bits(self.classes.load(Ordering::Relaxed));
        if !classes.wants(change.class) || !self.pubsub.has_subscribers() {
            return;
        }
        let buffer_max = self.buffer_max.load(Ordering::Relaxed);
        if classes.wants_keyspace_channel() {
            let channel = [format!("__keyspace@{}__:", change.db).as_bytes(), change.key].concat();
            self.pubsub.publish(&channel, change.event.as_bytes(), buffer_max);
        }
        if classes.wants_keyevent_channel() {
            let channel = format!("__keyevent@{}__:{}", change.db, change.event);
            self.pubsub.publish(channel.as_bytes(), change.key, buffer_max);
        }
    }
}
