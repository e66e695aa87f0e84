//! SLOWLOG: requests that took long, without what is nobody's business.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::{
    command::{Spec, table},
    protocol::Args,
};

/// Arguments of a request that are kept, and bytes of each (Redis: the same).
const ARGUMENTS_MAX: usize = 32;
/// See [`ARGUMENTS_MAX`].
const ARGUMENT_BYTES_MAX: usize = 128;

/// What stands in place of an argument (Redis: the same).
const REDACTED: &str = "(redacted)";

/// Commands whose first argument is the name of a subcommand.
const WITH_SUBCOMMANDS: [&str; 9] = ["ACL", "CLIENT", "COMMAND", "CONFIG", "MEMORY", "OBJECT", "PUBSUB", "SCRIPT", "SLOWLOG"];

/// Commands that may carry a password: what they carry is never shown.
const WITH_SECRETS: [&str; 4] = ["ACL", "AUTH", "CONFIG", "HELLO"];

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct SlowRequest {
    pub(crate) id: u64,
    /// Unix time.
    pub(crate) seconds: u64,
    pub(crate) microseconds: u64,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) address: String,
    pub(crate) client_name: String,
}

/// The latest of them. Its mutex is locked behind shards and never before them.
#[derive(Debug, Default)]
pub(crate) struct SlowLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<SlowRequest>,
    next_id: u64,
}

impl SlowLog {
    /// Keeps a request, and at most `length_max` of them; its id is given here.
    pub(crate) fn add(&self, request: SlowRequest, length_max: usize) {
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.requests.push_front(SlowRequest { id, ..request });
        state.requests.truncate(length_max);
    }

    /// The latest `count`, the newest first.
    pub(crate) fn latest(&self, count: usize) -> Vec<SlowRequest> {
        self.0.lock().requests.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().requests.len()
    }

    pub(crate) fn reset(&self) {
        self.0.lock().requests.clear();
    }
}

/// The arguments of a request as they are kept. `is_redacted`: only names of commands and keys are shown.
pub(crate) fn shown_arguments(spec: &Spec, args: Args<'_>, is_redacted: bool) -> Vec<Vec<u8>> {
    let keys: Vec<&[u8]> = table::keys(spec, args).map(Iterator::collect).unwrap_or_default();
    let has_secret = WITH_SECRETS.contains(&spec.name);
    let mut shown: Vec<Vec<u8>> = Vec::new();
    for (index, argument) in args.iter().enumerate() {
        if index == ARGUMENTS_MAX - 1 && args.len() > ARGUMENTS_MAX {
            shown.push(format!("... ({} more arguments)", args.len() - index).into_bytes());
            break;
        }
        let is_name = index == 0 || (index == 1 && WITH_SUBCOMMANDS.contains(&spec.name));
        let is_key = || keys.iter().any(|key| std::ptr::eq(*key, argument));
        shown.push(match argument {
            _ if !is_name && (has_secret || is_redacted && !is_key()) => REDACTED.into(),
            _ if argument.len() > ARGUMENT_BYTES_MAX => {
                let rest = format!("... ({} more bytes)", argument.len() - ARGUMENT_BYTES_MAX);
                [&argument[..ARGUMENT_BYTES_MAX], rest.as_bytes()].concat()
            }
            _ => argument.to_vec(),
        });
    }
    shown
}
