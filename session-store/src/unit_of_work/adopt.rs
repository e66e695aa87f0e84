//! The handle of a visitor without a session learns of the one that the cart has begun, or that somebody logs in.
//!
//! `tower_sessions::Session` tells its store of a `flush`, a `delete` or a `cycle_id` only when it has an id, and it takes one only when it is saved: so it is
//! saved while a task-local says which one to take, and nothing else is done.

#[cfg(feature = "tower-sessions-014")]
use std::sync::{Arc, Weak};

use serde_json::Value as Json;
use tower_sessions::{
    Session,
    session::{Id, Record},
};

use super::{
    UnitOfWork,
    handle::{DESERTED_MARK, HELD_MARK},
    state::Intent,
};
use crate::StoreError;

tokio::task_local! {
    static ADOPTED: Id;
}

/// The handle of another version that the request has beside ours.
#[cfg(feature = "tower-sessions-014")]
#[async_trait::async_trait]
pub(crate) trait OtherHandle: Send + Sync {
    /// Saves it, if it has no id, so that it takes the one that is [`adopted`].
    async fn take_id(&self);
    /// Brings what was changed through it to ours where it has no id, or was emptied unread: no store is told that it was emptied, and what
    /// follows comes behind that.
    async fn bring(&self);
    /// Shows it the mark of ours, and where it has no id all that ours holds, so that what empties it empties ours.
    async fn share(&self);
    fn has_id(&self) -> bool;
}

/// The id that the handle is to take, and nothing is to be saved.
pub(crate) fn adopted() -> Option<Id> {
    ADOPTED.try_with(|id| *id).ok()
}

impl UnitOfWork {
    /// Gives each handle the id of the session that the cart has begun, where it has none.
    pub(crate) async fn adopt(&self, id: Id) {
        #[cfg(feature = "tower-sessions-014")]
        let other = self.other();
        #[cfg(feature = "tower-sessions-014")]
        if let Some(other) = other.as_ref().filter(|other| other.has_id()) {
            self.told(other.bring()).await;
        }
        self.adopt_ours(id).await;
        #[cfg(feature = "tower-sessions-014")]
        match other {
            Some(other) if other.has_id() => self.told(other.share()).await,
            Some(_) => self.tell_id(id).await,
            None => {}
        }
    }

    /// Gives the other handle the id of the session, where it has none: without it, it tells nobody of a `flush`.
    #[cfg(feature = "tower-sessions-014")]
    pub(super) async fn tell_id(&self, id: Id) {
        if let Some(other) = self.other() {
            self.told(ADOPTED.scope(id, other.take_id())).await;
        }
    }

    #[cfg(feature = "tower-sessions-014")]
    fn other(&self) -> Option<Arc<dyn OtherHandle>> {
        self.other.get().and_then(Weak::upgrade)
    }

    /// Nothing that the other handle is told, or tells, keeps a request for ever.
    #[cfg(feature = "tower-sessions-014")]
    async fn told(&self, telling: impl Future<Output = ()>) {
        if self.within(telling).await.is_err() {
            tracing::debug!("the other handle is kept locked, and ours does not hear of it, nor it of ours");
        }
    }

    /// A handle of another version that has no id tells nobody that it was emptied: it is looked at before that matters.
    #[cfg(feature = "tower-sessions-014")]
    async fn hear_other(&self) {
        let matters = {
            let state = self.state();
            state.pending_owner.is_some() || state.intent == Intent::Rotate
        };
        if let Some(other) = self.other().filter(|other| matters && !other.has_id()) {
            self.told(other.bring()).await;
        }
    }

    /// One whose id led nowhere keeps it, and is marked.
    async fn adopt_ours(&self, id: Id) {
        let Some(session) = self.attached() else {
            return;
        };
        if session.id().is_none() {
            // Nothing is asked of the store, and nothing can fail.
            match self.within(ADOPTED.scope(id, session.save())).await {
                Ok(adopted) => debug_assert!(adopted.is_ok(), "a handle without an id loads nothing"),
                // The change of the cart is done all the same, and the next save brings the id.
                Err(error) => tracing::debug!(%error, "the handle does not learn of the session that a cart has begun"),
            }
            return;
        }
        let is_wanted = {
            let state = self.state();
            // What `delete` has left is marked already.
            state.has_other_id() && state.deserted.is_none()
        };
        if is_wanted && !matches!(self.mark(&session).await, Ok(true)) {
            tracing::debug!("the handle does not show the session that a cart has begun");
        }
    }

    /// Marks a handle as one that was not emptied; whether it is.
    ///
    /// # Errors
    ///
    /// When the handle is kept locked.
    async fn mark(&self, session: &Session) -> Result<bool, StoreError> {
        // Before the mark can be seen by a commit, which takes it out.
        self.state().is_held = true;
        let is_marked = Box::pin(self.within(session.insert_value(HELD_MARK, Json::Bool(true)))).await?.is_ok();
        if is_marked {
            self.state().is_saved_bare = false;
        }
        Ok(is_marked)
    }

    pub(super) fn adopted_by(&self, record: &mut Record, id: Id) {
        record.id = id;
        let mut state = self.state();
        state.note_emptied(&record.data);
        state.begin_anew();
        // What it holds already is not stored yet: the session that it has now is an empty one, too.
        state.mark_held(&mut record.data);
    }

    /// Somebody logs in. The handle shows by a mark that it was not emptied since, for when it has no id, with which no store is told of a `flush`: whether
    /// it does.
    ///
    /// # Errors
    ///
    /// When the handle is kept locked.
    pub(super) async fn hold(&self) -> Result<bool, StoreError> {
        let Some(session) = self.attached() else {
            return Ok(false);
        };
        #[cfg(feature = "tower-sessions-014")]
        let other = self.other();
        #[cfg(feature = "tower-sessions-014")]
        if let Some(other) = &other {
            // What was emptied before does not log out who logs in now.
            Box::pin(self.told(other.bring())).await;
        }
        // The session has been read by now, or is to end. One that cannot be shown is put into quarantine, and shown without the mark at worst.
        let is_marked = self.mark(&session).await?;
        #[cfg(feature = "tower-sessions-014")]
        if let Some(other) = other {
            Box::pin(self.told(other.share())).await;
        }
        Ok(is_marked)
    }

    /// Somebody logs in who is logged in: the handle may have been emptied in between.
    pub(crate) async fn hold_again(&self) -> Result<(), StoreError> {
        if self.attached().is_some_and(|session| session.is_modified()) {
            let is_held = self.hold().await?;
            if let Some(pending) = &mut self.state().pending_owner {
                pending.is_held |= is_held;
            }
        }
        Ok(())
    }

    /// A login does not count where the handle was emptied since, which no store is told of while it has no id.
    ///
    /// # Errors
    ///
    /// When the handle is kept locked.
    pub(crate) async fn settle_login(&self) -> Result<(), StoreError> {
        #[cfg(feature = "tower-sessions-014")]
        if self.other.get().is_some() {
            Box::pin(self.hear_other()).await;
        }
        if let Some(session) = self.held_in() {
            // A handle without an id loads nothing, so that nothing can fail.
            let held = Box::pin(self.within(session.get_value(HELD_MARK))).await?;
            if matches!(held, Ok(None)) && matches!(Box::pin(session.get_value(DESERTED_MARK)).await, Ok(None)) {
                self.state().pending_owner = None;
            }
        }
        Ok(())
    }

    /// The handle in which a login has left its mark.
    fn held_in(&self) -> Option<Session> {
        let state = self.state();
        state.session.as_ref().filter(|session| state.has_marked_login() && session.id().is_none()).cloned()
    }

    /// Whether the handle was emptied behind `cycle_id`, likewise: its session is over.
    ///
    /// # Errors
    ///
    /// When the handle is kept locked.
    pub(super) async fn is_emptied_behind_cycle(&self) -> Result<bool, StoreError> {
        let session = {
            let state = self.state();
            state.session.as_ref().filter(|_| state.intent == Intent::Rotate && !state.has_held_nothing()).cloned()
        };
        match session {
            Some(session) => Box::pin(self.within(session.is_empty())).await,
            None => Ok(false),
        }
    }
}
