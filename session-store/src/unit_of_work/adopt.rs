//! The handle of a visitor without a session learns of the one that the cart has begun, or that somebody logs in.
//!
//! `tower_sessions::Session` tells its store of a `flush`, a `delete` or a `cycle_id` only when it has an id, and it takes one only when it is saved: so it is
//! saved while a task-local says which one to take, and nothing else is done.

use serde_json::Value as Json;
use tower_sessions::{
    Session,
    session::{Id, Record},
};

use super::{UnitOfWork, handle::HELD_MARK, state::Intent};

tokio::task_local! {
    static ADOPTED: Id;
}

/// The id that the handle is to take, and nothing is to be saved.
pub(super) fn adopted() -> Option<Id> {
    ADOPTED.try_with(|id| *id).ok()
}

impl UnitOfWork {
    /// Gives the handle the id of the session that the cart has begun, where it has none.
    pub(crate) async fn adopt(&self, id: Id) {
        if let Some(session) = self.attached().filter(|session| session.id().is_none()) {
            // Nothing is asked of the store, and nothing can fail.
            let adopted = ADOPTED.scope(id, session.save()).await;
            debug_assert!(adopted.is_ok(), "a handle without an id loads nothing");
        }
    }

    pub(super) fn adopted_by(&self, record: &mut Record, id: Id) {
        record.id = id;
        let mut state = self.state();
        state.begin_anew(&record.data);
        state.mark_empty(&mut record.data);
    }

    /// Somebody logs in. The handle shows by a mark that it was not emptied since, for when it has no id, with which no store is told of a `flush`: whether
    /// it does.
    pub(super) async fn hold(&self) -> bool {
        let session = {
            let mut state = self.state();
            // With the id that `delete` has left the next `flush` is told, and what is behind it need not be read.
            let is_told = state.intent == Intent::End && state.session.as_ref().is_some_and(|session| session.id().is_some());
            match state.session.clone().filter(|_| !is_told) {
                Some(session) => {
                    state.is_held = true;
                    session
                }
                None => return false,
            }
        };
        // The session has been read by now. One that cannot be shown is put into quarantine, and shown without the mark at worst.
        session.insert_value(HELD_MARK, Json::Bool(true)).await.is_ok()
    }

    /// A login does not count where the handle was emptied since, which no store is told of while it has no id.
    pub(crate) async fn settle_login(&self) {
        if let Some(session) = self.held_in() {
            // A handle without an id loads nothing, so that nothing can fail.
            if matches!(Box::pin(session.get_value(HELD_MARK)).await, Ok(None)) {
                self.state().pending_owner = None;
            }
        }
    }

    /// The handle in which a login has left its mark.
    fn held_in(&self) -> Option<Session> {
        let state = self.state();
        state.pending_owner.as_ref().filter(|pending| pending.is_held)?;
        state.session.clone().filter(|session| session.id().is_none())
    }

    /// Whether the handle was emptied behind `cycle_id`, likewise: its session is over.
    pub(super) async fn is_emptied_behind_cycle(&self) -> bool {
        let session = Some(self.state()).filter(|state| state.intent == Intent::Rotate).and_then(|state| state.session.clone());
        match session {
            Some(session) => Box::pin(session.is_empty()).await,
            None => false,
        }
    }
}
