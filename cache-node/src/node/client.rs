//! A connection as its commands see it.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    command::{Transaction, Watch},
    node::ClientEntry,
    protocol::Protocol,
    replication::{Hints, SyncRequest, Wait},
};

/// The state of one connection. Lives on its thread; what others may see is in [`ClientEntry`].
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) entry: Arc<ClientEntry>,
    pub(crate) is_authenticated: bool,
    /// Boxed, as is the next: an idle connection has neither.
    pub(crate) transaction: Option<Box<Transaction>>,
    pub(crate) watch: Option<Box<Watch>>,
    /// Channels and patterns together.
    pub(crate) subscriptions: usize,
    /// `None` until the first SUBSCRIBE: most connections never do.
    pub(crate) subscribed: Option<Box<Subscribed>>,
    /// The stream's offset behind the last write of this connection; 0: none yet.
    pub(crate) written_offset: u64,
    /// QUIT, a protocol error: the reply goes out, then the connection ends.
    pub(crate) closes_after_reply: bool,
    /// The next request waits for the end of a pause.
    pub(crate) is_postponed: bool,
    /// What REPLCONF told: `None` for all that are no replicas.
    pub(crate) sync_hints: Option<Box<Hints>>,
    /// PSYNC: the connection becomes a replica's.
    pub(crate) sync: Option<Box<SyncRequest>>,
    /// WAIT: nothing more runs until that is over.
    pub(crate) wait: Option<Box<Wait>>,
}

/// What a connection subscribes to.
#[derive(Debug, Default)]
pub(crate) struct Subscribed {
    pub(crate) channels: HashSet<Vec<u8>>,
    pub(crate) patterns: HashSet<Vec<u8>>,
}

impl Client {
    pub(crate) fn new(entry: Arc<ClientEntry>, is_authenticated: bool) -> Client {
        Client {
            entry,
            is_authenticated,
            transaction: None,
            watch: None,
            subscriptions: 0,
            subscribed: None,
            written_offset: 0,
            closes_after_reply: false,
            is_postponed: false,
            sync_hints: None,
            sync: None,
            wait: None,
        }
    }

    pub(crate) fn db(&self) -> usize {
        self.entry.db.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_db(&mut self, db: usize) {
        self.entry.db.store(db as u32, Ordering::Relaxed);
    }

    /// A command of this connection wrote, and the stream ends there now.
    pub(crate) fn wrote(&mut self, offset: Option<u64>) {
        self.written_offset = offset.unwrap_or(self.written_offset);
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.entry.protocol()
    }

    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.entry.is_resp3.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    pub(crate) fn begin_transaction(&mut self) {
        self.transaction = Some(Box::default());
        self.entry.is_in_transaction.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end_transaction(&mut self) -> Option<Box<Transaction>> {
        self.entry.is_in_transaction.store(false, Ordering::Relaxed);
        self.transaction.take()
    }

    /// A command was refused: a transaction that is being queued will not run.
    pub(crate) fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.has_failed = true;
        }
    }
}
