//! Whether the node does what it is there for.

use std::sync::atomic::Ordering;

use crate::{
    node::{Hindrance, Shared},
    replication::LinkState,
};

/// Why requests should not be sent here now. Takes no lock of the data: a long script is no reason.
pub(super) fn obstacle(shared: &Shared) -> Option<String> {
    if shared.is_stopping.load(Ordering::Acquire) {
        return Some("the node is ending".to_owned());
    }
    if shared.gate.has(Hindrance::Loading) {
        return Some("the node is loading its data".to_owned());
    }
    if shared.replication.primary().is_some() {
        let state = shared.replication.link().state;
        return (state != LinkState::Connected).then(|| format!("the link to the primary is not up: {}", state.name()));
    }
    shared.gate.refusal_of_write().map(|refusal| format!("writes are refused: {refusal}"))
}
