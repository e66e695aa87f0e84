//! The connections of a node, as CLIENT LIST shows them and CLIENT KILL finds them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use crate::{
    acl::{DEFAULT, User},
    command::table::TABLE,
    keyspace::Now,
    node::{Outbox, address::Address},
    protocol::Protocol,
};

/// `last_command` of a connection that has not sent any.
const NO_COMMAND: u32 = u32::MAX;

/// What others may see of a connection. Numbers are written by its own thread only.
#[derive(Debug)]
pub(crate) struct ClientEntry {
    pub(crate) id: u64,
    pub(crate) address: Address,
    pub(crate) local_address: Address,
    pub(crate) created: Now,
    pub(crate) outbox: Outbox,
    /// `None` until it says something: [`ClientEntry::names`].
    names: Mutex<Option<Box<ClientNames>>>,
    pub(crate) last_command: AtomicU32,
    pub(crate) last_active_ms: AtomicU64,
    pub(crate) db: AtomicU32,
    pub(crate) is_resp3: AtomicBool,
    /// It is told of keys that change: `t` in CLIENT LIST.
    pub(crate) is_tracking: AtomicBool,
    pub(crate) channels: AtomicU32,
    pub(crate) patterns: AtomicU32,
    pub(crate) is_in_transaction: AtomicBool,
    pub(crate) is_replica: AtomicBool,
    /// The number of its user.
    user: AtomicU32,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientNames {
    pub(crate) name: String,
    pub(crate) library: String,
    pub(crate) library_version: String,
    /// `None`: the default user.
    user: Option<String>,
}

impl ClientEntry {
    pub(crate) fn new(id: u64, address: SocketAddr, local_address: SocketAddr, now: Now) -> ClientEntry {
        ClientEntry {
            id,
            address: address.into(),
            local_address: local_address.into(),
            created: now,
            outbox: Outbox::default(),
            names: Mutex::default(),
            last_command: AtomicU32::new(NO_COMMAND),
            last_active_ms: AtomicU64::new(now.unix_ms),
            db: AtomicU32::new(0),
            is_resp3: AtomicBool::new(false),
            is_tracking: AtomicBool::new(false),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            is_in_transaction: AtomicBool::new(false),
            is_replica: AtomicBool::new(false),
            user: AtomicU32::new(0),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        if self.is_resp3.load(Ordering::Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    pub(crate) fn is_subscriber(&self) -> bool {
        self.channels.load(Ordering::Relaxed) + self.patterns.load(Ordering::Relaxed) > 0
    }

    /// What the client has said of itself so far.
    pub(crate) fn names(&self) -> ClientNames {
        self.names.lock().as_deref().cloned().unwrap_or_default()
    }

    /// The client says something of itself.
    pub(crate) fn change_names(&self, change: impl FnOnce(&mut ClientNames)) {
        change(self.names.lock().get_or_insert_default());
    }

    /// Whose rights it has now.
    pub(super) fn set_user(&self, user: &User) {
        let before = self.user.swap(user.id, Ordering::AcqRel);
        if before != user.id {
            self.change_names(|names| names.user = (*user.name != *DEFAULT).then(|| user.shown_name()));
        }
    }

    /// The number of its user.
    pub(crate) fn user(&self) -> u32 {
        self.user.load(Ordering::Acquire)
    }

    /// The line of CLIENT LIST and CLIENT INFO.
    pub(crate) fn line(&self, now: Now) -> String {
        let names = self.names();
        let age = now.unix_ms.saturating_sub(self.created.unix_ms) / 1000;
        let idle = now.unix_ms.saturating_sub(self.last_active_ms.load(Ordering::Relaxed)) / 1000;
        let command = TABLE
            .get(self.last_command.load(Ordering::Relaxed) as usize)
            .map_or("NULL".to_owned(), |spec| spec.name.to_ascii_lowercase());
        let mut flags = String::new();
        if self.is_replica.load(Ordering::Relaxed) {
            flags.push('S');
        }
        if self.is_in_transaction.load(Ordering::Relaxed) {
            flags.push('x');
        }
        if self.is_subscriber() {
            flags.push('P');
        }
        if self.is_tracking.load(Ordering::Relaxed) {
            // Tracking, in broadcasting mode.
            flags.push_str("tB");
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let mut line = String::new();
        write!(
            line,
            "id={} addr={} laddr={} fd=0 name={} age={age} idle={idle} flags={flags} db={} sub={} psub={} ssub=0 multi={} \
             cmd={command} user={} redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.local_address,
            names.name,
            self.db.load(Ordering::Relaxed),
            self.channels.load(Ordering::Relaxed),
            self.patterns.load(Ordering::Relaxed),
            if self.is_in_transaction.load(Ordering::Relaxed) { 0 } else { -1 },
            names.user.as_deref().unwrap_or("default"),
            if self.protocol() == Protocol::Resp3 { 3 } else { 2 },
            names.library,
            names.library_version,
        )
        .expect("writing to a String cannot fail");
        line
    }
}

/// All connections, by id.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    entries: RwLock<BTreeMap<u64, Arc<ClientEntry>>>,
    /// Let in and not yet with their thread. Changed together with `entries`, under its lock.
    waiting: AtomicUsize,
    next_id: AtomicU64,
}

impl Clients {
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets one more in, if there are fewer than `max`. Until its thread has it, it counts as one that waits.
    pub(crate) fn let_in(&self, max: usize) -> bool {
        let entries = self.entries.write();
        let has_room = entries.len() + self.waiting.load(Ordering::Relaxed) < max;
        self.waiting.fetch_add(usize::from(has_room), Ordering::Relaxed);
        has_room
    }

    /// One that waited went away.
    pub(crate) fn give_up(&self) {
        let _entries = self.entries.write();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// One that waited has its thread.
    pub(crate) fn add(&self, entry: &Arc<ClientEntry>) {
        let mut entries = self.entries.write();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        entries.insert(entry.id, Arc::clone(entry));
    }

    pub(crate) fn remove(&self, id: u64) {
        self.entries.write().remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.read().len()
    }

    /// Visits every connection, oldest first.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<ClientEntry>)) {
        self.entries.read().values().for_each(&mut visit);
    }

    /// Ends the connections of users that are gone, but for the connection `me`, which has an answer to give: whether it is one of them.
    pub(crate) fn close_of_users(&self, users: &[u32], me: u64) -> bool {
        let mut is_mine = false;
        self.for_each(|entry| {
            if !users.contains(&entry.user()) {
                return;
            }
            if entry.id == me {
                is_mine = true;
            } else {
                entry.outbox.close();
            }
        });
        is_mine
    }

    pub(crate) fn close_all(&self) {
        self.for_each(|entry| entry.outbox.close());
    }
}
