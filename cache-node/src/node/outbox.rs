//! What others send to a connection: published messages, and the word to close.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A bounded buffer that any thread fills and the connection's own task empties.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Mutex<Vec<u8>>,
    is_closing: AtomicBool,
    wake: Notify,
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
        drop(bytes);
        self.wake.notify_one();
    }

    /// Takes what has come in.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock())
    }

    /// Asks the connection's task to end.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Waits for a message or the word to close.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}
