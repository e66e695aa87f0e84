//! What others send to a connection: published messages, and the word to close.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
    time::Instant,
};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use crate::config::BufferLimit;

/// A bounded buffer that any thread fills and the connection's own task empties.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// `None` until a message comes: most connections never get one.
    waiting: Mutex<Option<Box<Waiting>>>,
    /// Whether any wait: looked at once per batch, where the lock would cost more.
    has_bytes: AtomicBool,
    is_closing: AtomicBool,
    waker: AtomicWaker,
}

/// Messages that wait.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Since when there are more than the soft limit.
    too_many_since: Option<Instant>,
}

impl Outbox {
    /// Adds a message. A connection that lets more than `limit` pile up is closed: dropping messages silently would be worse,
    /// and keeping them would let one slow subscriber take the node's memory.
    pub(crate) fn push(&self, message: &[u8], limit: BufferLimit) {
        let mut waiting = self.waiting.lock();
        let Waiting { bytes, too_many_since } = &mut **waiting.get_or_insert_default();
        let length = bytes.len() + message.len();
        let is_too_long =
            limit.soft > 0 && length > limit.soft && too_many_since.get_or_insert_with(Instant::now).elapsed() >= limit.soft_time;
        if length > limit.hard || is_too_long {
            *waiting = None;
            drop(waiting);
            self.close();
            return;
        }
        bytes.extend_from_slice(message);
        self.has_bytes.store(true, Ordering::Release);
        drop(waiting);
        self.waker.wake();
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Takes what has come in.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut waiting = self.waiting.lock();
        self.has_bytes.store(false, Ordering::Release);
        waiting.take().map(|waiting| waiting.bytes).unwrap_or_default()
    }

    /// Asks the connection's task to end.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Whether a message or the word to close waits.
    pub(crate) fn has_something(&self) -> bool {
        self.has_bytes.load(Ordering::Acquire) || self.is_closing()
    }

    /// Has `waker` woken at the next message or the word to close. Only the connection's own task calls it.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
