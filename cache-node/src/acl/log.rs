//! ACL LOG: who was refused what. The same again within a minute counts up.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::{acl::Reason, keyspace::Now};

/// Entries that are compared with a new one (Redis: the same).
const COMPARED_MAX: usize = 10;

/// Milliseconds within which the same again is no entry of its own (Redis: the same).
const GROUPED_MS_MAX: u64 = 60_000;

/// Bytes kept of a key, a channel or a name that was refused: strangers choose them.
const OBJECT_BYTES_MAX: usize = 1024;

/// Where a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DenialContext {
    TopLevel,
    Transaction,
    Script,
}

impl DenialContext {
    fn word(self) -> &'static str {
        match self {
            DenialContext::TopLevel => "toplevel",
            DenialContext::Transaction => "multi",
            DenialContext::Script => "lua",
        }
    }
}

/// A refusal.
#[derive(Clone, Debug)]
pub(crate) struct Denied {
    pub(crate) id: u64,
    pub(crate) count: u64,
    /// `None`: the password was wrong.
    reason: Option<Reason>,
    context: DenialContext,
    /// The command, the key or the channel.
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) created_ms: u64,
    pub(crate) updated_ms: u64,
    /// The line of CLIENT LIST of who was refused last.
    pub(crate) client: String,
}

impl Denied {
    pub(crate) fn new(
        reason: Option<Reason>,
        context: DenialContext,
        (object, user): (&[u8], &[u8]),
        client: String,
        now: Now,
    ) -> Denied {
        let short = |text: &[u8]| text[..text.len().min(OBJECT_BYTES_MAX)].to_vec();
        Denied {
            id: 0,
            count: 1,
            reason,
            context,
            object: short(object),
            user: short(user),
            created_ms: now.unix_ms,
            updated_ms: now.unix_ms,
            client,
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match self.reason {
            Some(Reason::Command) => "command",
            Some(Reason::Key) => "key",
            Some(Reason::Channel) => "channel",
            None => "auth",
        }
    }

    pub(crate) fn context(&self) -> &'static str {
        self.context.word()
    }

    fn is_same(&self, other: &Denied) -> bool {
        self.reason == other.reason
            && self.context == other.context
            && self.updated_ms.abs_diff(other.updated_ms) <= GROUPED_MS_MAX
            && self.object == other.object
            && self.user == other.user
    }
}

/// The latest refusals, the last first.
#[derive(Debug, Default)]
pub(crate) struct AclLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Denied>,
    next_id: u64,
}

impl AclLog {
    /// Keeps a refusal, and at most `length_max` of them.
    pub(crate) fn add(&self, denied: Denied, length_max: usize) {
        let mut state = self.0.lock();
        let same = state.entries.iter().take(COMPARED_MAX).position(|known| known.is_same(&denied));
        let entry = match same.and_then(|at| state.entries.remove(at)) {
            Some(known) => Denied { count: known.count + 1, client: denied.client, updated_ms: denied.updated_ms, ..known },
            None => {
                state.next_id += 1;
                Denied { id: state.next_id - 1, ..denied }
            }
        };
        state.entries.push_front(entry);
        state.entries.truncate(length_max);
    }

    /// The latest `count`.
    pub(crate) fn latest(&self, count: usize) -> Vec<Denied> {
        self.0.lock().entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn reset(&self) {
        self.0.lock().entries.clear();
    }
}
