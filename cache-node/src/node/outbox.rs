//! What others send to a connection: published messages, and the word to close.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

/// A bounded buffer that any thread fills and the connection's own task empties.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Mutex<Vec<u8>>,
    /// Whether `bytes` has any: looked at once per batch, where the lock would cost more.
    has_bytes: AtomicBool,
    is_closing: AtomicBool,
    waker: AtomicWaker,
}

impl Outbox {
    /// Adds a message. A connection that lets more than `bytes_max` pile up is closed: dropping messages silently would be worse,
    /// and keeping them would let one slow subscriber take the node's memory.
    pub(crate) fn push(&self, message: &[u8], bytes_max: usize) {
        let mut bytes = self.bytes.lock();
        if bytes.len() + message.len() > bytes_max {
            *bytes = Vec::new();
            drop(bytes);
            self.close();
            return;
        }
        bytes.extend_from_slice(message);
        self.has_bytes.store(true, Ordering::Release);
        drop(bytes);
        self.waker.wake();
    }

    /// Takes what has come in.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        self.has_bytes.store(false, Ordering::Release);
        std::mem::take(&mut *bytes)
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
