//! A connection as its commands see it.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    acl::{Acl, User},
    command::{Transaction, Watch},
    node::{ClientEntry, Shared},
    protocol::Protocol,
    replication::{Hints, SyncRequest, Wait},
};

/// The state of one connection. Lives on its thread; what others may see is in [`ClientEntry`]. Small: an idle connection is little more.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) entry: Arc<ClientEntry>,
    /// Whether it may run commands: it logged in, or nobody has to.
    pub(crate) is_authenticated: bool,
    has_logged_in: bool,
    user: Arc<User>,
    /// The version of all users in which the user was looked at.
    users_version: u32,
    /// Boxed, as is the next: an idle connection has neither.
    pub(crate) transaction: Option<Box<Transaction>>,
    pub(crate) watch: Option<Box<Watch>>,
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
    pub(crate) fn new(entry: Arc<ClientEntry>, acl: &Acl) -> Client {
        let (users_version, user) = (acl.version(), acl.default_user());
        Client {
            entry,
            is_authenticated: user.is_open(),
            has_logged_in: user.is_open(),
            user,
            users_version,
            transaction: None,
            watch: None,
            subscribed: None,
            written_offset: 0,
            closes_after_reply: false,
            is_postponed: false,
            sync_hints: None,
            sync: None,
            wait: None,
        }
    }

    /// Whose rights its commands have.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// The user, if there is something that it may not do.
    #[inline]
    pub(crate) fn limited_user(&self) -> Option<&User> {
        (!self.user.is_unlimited).then_some(&*self.user)
    }

    /// Looks at what others have done to this connection since the last request that was not plain: its user's rights taken away, or the
    /// connection ended. Gives whether it may run another. Not inlined: within pipelines of plain requests nobody
    /// comes here. When the node ends, what it has received is still answered.
    #[inline(never)]
    pub(crate) fn goes_on(&mut self, shared: &Shared) -> bool {
        self.follow_users(&shared.acl);
        self.closes_after_reply |= self.entry.outbox.is_closing() && !shared.is_stopping.load(Ordering::Acquire);
        !self.closes_after_reply
    }

    /// The user as it is now, if any was changed since the last look. Gives whether one was.
    #[inline]
    pub(crate) fn follow_users(&mut self, acl: &Acl) -> bool {
        let has_changed = self.users_version != acl.version();
        if has_changed {
            self.look_at_user(acl);
        }
        has_changed
    }

    #[cold]
    fn look_at_user(&mut self, acl: &Acl) {
        // Before the look at the users: what changes behind it is looked at the next time.
        self.users_version = acl.version();
        let Some(user) = acl.current(&self.user) else {
            // Removed. The connection is told to close, or is about to be; what it has sent does not run with the rights of another user.
            self.has_logged_in = false;
            self.is_authenticated = false;
            self.closes_after_reply = true;
            return;
        };
        self.set_user(user);
        self.is_authenticated = self.has_logged_in || acl.default_user().is_open();
    }

    /// AUTH: from now on its commands have this user's rights.
    pub(crate) fn log_in(&mut self, user: Arc<User>) {
        self.set_user(user);
        self.has_logged_in = true;
        self.is_authenticated = true;
    }

    /// RESET: as a connection begins.
    pub(crate) fn log_out(&mut self, acl: &Acl) {
        self.set_user(acl.default_user());
        self.has_logged_in = self.user.is_open();
        self.is_authenticated = self.has_logged_in;
    }

    fn set_user(&mut self, user: Arc<User>) {
        self.entry.set_user(&user);
        self.user = user;
    }

    /// How many channels and patterns it subscribes to.
    #[inline]
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscribed.as_ref().map_or(0, |subscribed| subscribed.channels.len() + subscribed.patterns.len())
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
