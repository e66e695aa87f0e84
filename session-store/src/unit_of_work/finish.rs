//! The end of a request: the commit, and what becomes of the cookie.

use std::{pin::Pin, sync::Arc};

use futures_util::FutureExt as _;
use tower_sessions::{Session, session::Id};

use super::{
    UnitOfWork,
    handle::DESERTED_MARK,
    state::{Base, Intent, Live, State},
};
use crate::{
    OutagePolicy, StoreError,
    backend::{Along, Touch},
    expiry::ExpiryPolicy,
    keys::Tag,
    seen::Seen,
};

/// What the layer does with the answer.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) cookie: CookieChange,
    pub(crate) seen: SeenChange,
    pub(crate) failure: Option<StoreError>,
    /// Something that was asked for could not be read or changed, whatever the handler made of it.
    pub(crate) met_outage: bool,
    pub(crate) policy: OutagePolicy,
}

impl Outcome {
    /// Whether the answer says that the commit failed, in place of what the handler said.
    pub(crate) fn replaces_answer(&self, is_safe: bool) -> bool {
        self.failure.as_ref().is_some_and(|failure| must_be_told(failure, self.policy, is_safe))
    }
}

/// Whether the client must not believe that the request was done.
///
/// Of a conflict it is told only where it meant to change something: what a safe request read before the session ended was right when it was
/// read.
fn must_be_told(failure: &StoreError, policy: OutagePolicy, is_safe: bool) -> bool {
    if failure.is_conflict() { !is_safe } else { !policy.keeps_answer(true, is_safe) }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum CookieChange {
    Keep,
    Set { id: Id, policy: ExpiryPolicy, kept_ms: i64 },
    Remove,
}

/// What becomes of the cookie that says what the client has seen, where there are replicas.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SeenChange {
    Keep,
    Set { seen: Seen, policy: ExpiryPolicy, kept_ms: i64 },
    Remove,
}

/// What is left to do when the handler has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Neither the session nor the cart was asked for anything.
    Nothing,
    /// There is nothing to commit: the answer can leave at once, with what its outcome says.
    Cookie,
    Commit,
}

impl UnitOfWork {
    /// `is_shared`: somebody besides the layer has a handle, and may still ask for something.
    pub(crate) fn rest(&self, is_shared: bool) -> Rest {
        let begun = self.begun.lock();
        let Some(state) = &begun.state else {
            if begun.session.as_ref().is_some_and(Session::is_modified) {
                return Rest::Commit;
            }
            if !is_shared {
                // It is the end of the request: the lock is taken once for both, as most requests come here.
                Self::release_begun(begun);
            }
            return Rest::Nothing;
        };
        let is_settled = !state.session.as_ref().is_some_and(Session::is_modified)
            && state.intent == Intent::Keep
            && state.pending_owner.is_none()
            && state.due_touch(self.turn()).is_none();
        match is_settled {
            true if !state.touched => Rest::Nothing,
            true => Rest::Cookie,
            false => Rest::Commit,
        }
    }

    /// Commits what the request changed. After a server error only a logout counts.
    pub(crate) async fn finish(self: Arc<Self>, server_error: bool) -> Outcome {
        let Some(session) = self.attached() else {
            return self.outcome(None);
        };
        // `Session` writes every error that it gets to the log, a lost race too; the layer looks at each itself.
        self.state().keeps_failures = true;
        let failure = self.write(&session, server_error).await.err();
        self.state().keeps_failures = false;
        // Before the touch: that one is not what the handler's answer is about.
        let met_outage = self.met_outage();
        if self.state().due_touch(self.turn()).is_some() {
            Box::pin(self.touch(failure.is_none())).await;
        }
        Outcome { met_outage, ..self.outcome(failure) }
    }

    /// The head of the answer leaves, and somebody still has the session.
    pub(crate) fn answered(&self) {
        self.state().answered = true;
    }

    /// Commits what was changed after the head of the answer was sent; an error if the client must not believe that it was
    /// done.
    pub(crate) async fn finish_late(self: Arc<Self>, is_safe: bool) -> Option<StoreError> {
        let session = self.attached()?;
        let error = self.write(&session, false).await.err()?;
        if error.is_outage() || error.is_conflict() {
            tracing::debug!(%error, "what was changed while the body was sent is not committed");
        } else {
            tracing::warn!(%error, "what was changed while the body was sent is not committed");
        }
        must_be_told(&error, self.outage_policy(), is_safe).then_some(error)
    }

    /// Extends the session of an upgraded connection that saves it now and then, where that is due. An error when it has ended.
    pub(super) fn keep_alive(&self) -> Option<Pin<Box<impl Future<Output = Result<(), StoreError>>>>> {
        let (due, along) = {
            let state = self.state();
            let cart_ttl_ms = Some(self.settings.cart_ttl_ms);
            (state.due_long_after(), Along { cart_ttl_ms, ..state.along(&self.settings) })
        };
        // Boxed is what most requests do not do: it would make the future of each of them larger.
        due.map(|(tag, policy)| Box::pin(self.extend(tag, policy, along)))
    }

    async fn extend(&self, tag: Tag, policy: ExpiryPolicy, along: Along) -> Result<(), StoreError> {
        let kept = self.store.touch_session(&tag, &Touch { policy, settings: &self.settings, along }).await?;
        let mut state = self.state();
        match kept {
            Some(kept_ms) => {
                state.keeps(kept_ms);
                Ok(())
            }
            None => Err(state.base.lose()),
        }
    }

    /// What becomes of the cookie, after everything was written.
    pub(crate) fn outcome(&self, failure: Option<StoreError>) -> Outcome {
        let mut state = self.state();
        self.touch_behind(&mut state);
        let conflict = failure.as_ref().is_some_and(StoreError::is_conflict);
        let cookie = if conflict { CookieChange::Keep } else { state.cookie() };
        let seen = self.seen(&state, cookie);
        Outcome { cookie, seen, failure, met_outage: self.met_outage(), policy: state.outage }
    }

    async fn write(&self, session: &Session, server_error: bool) -> Result<(), StoreError> {
        let (intent, base, owner_pending) = {
            let state = self.state();
            (state.intent, state.base.session(), state.pending_owner.is_some())
        };
        if intent == Intent::End {
            // New data may have been put into it since. One with an id is never empty.
            let is_emptied = self.is_empty(session).await?;
            let begins_anew = session.is_modified() && !is_emptied && !self.shows_deserted(session).await;
            if !server_error && (begins_anew || owner_pending && !is_emptied) {
                return self.save(session).await;
            }
            return match base {
                Some((_, tag)) => Box::pin(self.end_alone(&tag)).await,
                None => {
                    self.state().leave(&self.settings);
                    Ok(())
                }
            };
        }
        if server_error || !(session.is_modified() || owner_pending || intent == Intent::Rotate) {
            return Ok(());
        }
        if !self.is_empty(session).await? {
            let is_over = base.is_none() && self.state().deserted.is_some() && session.id().is_some();
            if is_over && intent == Intent::Keep && !owner_pending {
                // What the handle shows is of the session that was deleted, and saved it would begin another one without it.
                return Ok(());
            }
            return self.save(session).await;
        }
        // The handle has no id, and not even the mark that one has which was empty from the beginning: it was emptied, by a `flush` that no store is
        // told of then. A login before it does not count, and a session behind `cycle_id` is over; a visitor who stored nothing gets nothing.
        let has_held_nothing = {
            let mut state = self.state();
            state.pending_owner = None;
            state.has_held_nothing()
        };
        match (intent, base) {
            // It has its cart.
            (Intent::Rotate, Some(_)) if has_held_nothing => self.save(session).await,
            (Intent::Rotate, Some((_, tag))) => Box::pin(self.end_alone(&tag)).await,
            _ => Ok(()),
        }
    }

    /// Whether there is nothing in the handle. Its lock is with whoever saves it, and one that the handler has begun and polls no more keeps it.
    async fn is_empty(&self, session: &Session) -> Result<bool, StoreError> {
        match session.is_empty().now_or_never() {
            Some(is_empty) => Ok(is_empty),
            None => Box::pin(self.within(session.is_empty())).await,
        }
    }

    /// Whether the handle still shows what `delete` has left in it.
    async fn shows_deserted(&self, session: &Session) -> bool {
        let (is_deserting, is_marked) = {
            let state = self.state();
            (state.is_deserting, state.is_marked)
        };
        // Nothing is asked of the store for it; and what is not known to be new is not.
        is_deserting && !(is_marked && matches!(session.get_value(DESERTED_MARK).await, Ok(None)))
    }

    /// Saves through the handle, so that it learns of a new id, and keeps the typed error.
    pub(crate) async fn save(&self, session: &Session) -> Result<(), StoreError> {
        self.state().failure = None;
        let saved = session.save().await;
        // The typed error, which `Session` has turned into text, or has not been told of.
        match (self.state().failure.take(), saved) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(StoreError::Unreadable { reason: error.to_string() }),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Extends the session's time when that is due and nothing has done it; where the read has, and the handler has waited since, looks
    /// whether the session is still there. The answer waits for it, since it brings a cookie: for a session that ended or got a new id
    /// while the handler ran, that would be the cookie of a dead id, and it could land after the new one's.
    async fn touch(&self, store_answers: bool) {
        let (due, along, is_extended) = {
            let state = self.state();
            (state.due_touch(self.turn()), state.along(&self.settings), state.extended_by_read)
        };
        let Some((tag, policy)) = due else {
            return;
        };
        // After a failure nobody waits for the store once more.
        let touched = match store_answers {
            true if is_extended => self.store.kept_ms(&tag).await,
            true => self.store.touch_session(&tag, &Touch { policy, settings: &self.settings, along }).await,
            false => Ok(None),
        };
        let mut state = self.state();
        match touched {
            Ok(Some(kept_ms)) => {
                state.keeps(kept_ms);
                self.remember_touch(&state, false, !is_extended && along.cart_ttl_ms.is_some());
            }
            Ok(None) if store_answers => state.base.end(),
            // The next request finds it due again.
            Ok(None) => state.extended = None,
            Err(error) => {
                tracing::debug!(%error, "the session's time was not extended");
                state.extended = None;
            }
        }
    }

    /// Extends the session's time behind the answer, where that is due and the answer says nothing of it.
    fn touch_behind(&self, state: &mut State) {
        if !state.due_behind {
            return;
        }
        let along = state.along(&self.settings);
        state.due_behind = false;
        let Base::Live(Live { tag, policy, .. }) = state.base else {
            return;
        };
        let (store, settings) = (self.store.clone(), Arc::clone(&self.settings));
        // As many of them as the pool lets wait, and each for the deadline at most.
        tokio::spawn(async move {
            match store.touch_session(&tag, &Touch { policy, settings: &settings, along }).await {
                Ok(kept_ms) => store.touches().learn(&tag, policy, kept_ms, along.cart_ttl_ms.is_some()),
                // The next request finds it due again.
                Err(error) => tracing::debug!(%error, "the session's time was not extended"),
            }
        });
    }

    fn seen(&self, state: &State, cookie: CookieChange) -> SeenChange {
        if matches!(cookie, CookieChange::Remove) {
            return if state.sent_seen { SeenChange::Remove } else { SeenChange::Keep };
        }
        if !self.store.reads_replicas() {
            // Others do, and must not take what this client has said for all that it has seen.
            return if state.sent_seen && state.wrote.is_some() { SeenChange::Remove } else { SeenChange::Keep };
        }
        // A client that has not said what it has seen is told of what it is shown, so that its next reads may go to replicas.
        match (&state.base, state.wrote.or(state.read_revision.filter(|_| !state.sent_seen))) {
            (Base::Live(live), Some(revision)) => {
                SeenChange::Set { seen: Seen::now(revision), policy: live.policy, kept_ms: state.kept_ms }
            }
            _ => SeenChange::Keep,
        }
    }
}

impl State {
    fn cookie(&self) -> CookieChange {
        let kept_ms = self.kept_ms;
        match &self.base {
            Base::Live(live) if self.sent != Some(live.id) || self.extended.is_some() => {
                CookieChange::Set { id: live.id, policy: live.policy, kept_ms }
            }
            Base::Unread { id, .. } => match self.extended {
                Some(policy) => CookieChange::Set { id: *id, policy, kept_ms },
                None => CookieChange::Keep,
            },
            Base::None { stale } if self.sent.is_some() && (*stale || self.ended_here) => CookieChange::Remove,
            _ => CookieChange::Keep,
        }
    }
}
