//! What is known of the handle: whether it was emptied, whose data it shows, which session it means, and what it says of the session's time.

use std::mem;

use serde_json::Value as Json;
use time::OffsetDateTime;
use tower_sessions::{
    Session,
    session::{Id, Record},
};

use super::state::{Base, Intent, State};
use crate::{
    expiry::{ExpiryPolicy, not_chosen},
    look::Data,
    record::RawField,
    settings::Settings,
};

/// A key in the handle that `delete` has left with its data. A `flush` behind `cycle_id` is told to no store, since the handle has no id
/// then; it takes this along with everything else.
pub(crate) const DESERTED_MARK: &str = "session-store.deserted";
/// A key in a handle that holds nothing else, and is not emptied for all that: behind `cycle_id`, and before there is a session, no store is told of
/// a `flush`, which takes this along.
pub(crate) const HELD_MARK: &str = "session-store.held";

impl State {
    /// The handle has no id and wants one: after `flush` what it shows is new, after `cycle_id` it is what it was.
    pub(super) fn begin_anew(&mut self) {
        if !self.is_marked && self.intent != Intent::Rotate {
            self.deserted = None;
        }
    }

    /// The handle is saved, and shows nothing of what `delete` has left in it, or there was nothing: what it shows is new.
    pub(super) fn note_emptied(&mut self, shown: &Data) {
        if self.is_marked && !shown.contains_key(DESERTED_MARK) {
            self.deserted = None;
            self.is_deserting = false;
        }
    }

    /// What the handle reads by its id once its session is to end.
    pub(super) fn nothing_of_ended(&mut self, id: Id) -> Record {
        // It has no mark: whatever the handle showed before went with it, so that what is put into it is new.
        self.is_marked = true;
        self.is_deserting = false;
        let mut data = Data::new();
        if self.pending_owner.is_some() {
            self.mark_empty(&mut data);
        }
        Record { id, data, expiry_date: OffsetDateTime::now_utc() }
    }

    /// A handle that was emptied since somebody has logged in, which no store is told of, logs nobody in.
    pub(super) fn drop_login_of_emptied(&mut self, shown: &Data) {
        let shows_mark = shown.contains_key(HELD_MARK) || shown.contains_key(DESERTED_MARK);
        if self.has_marked_login() && !shows_mark {
            self.pending_owner = None;
        }
    }

    /// Whether somebody has logged in, and a handle that shows no mark was emptied since.
    pub(super) fn has_marked_login(&self) -> bool {
        // Behind a `delete` it is that one's.
        self.pending_owner.as_ref().is_some_and(|pending| pending.is_held || self.is_marked)
    }

    /// Whether an empty handle has held nothing from the beginning of its session, or since it was saved like that: it was not given the mark.
    pub(super) fn has_held_nothing(&self) -> bool {
        (self.is_saved_bare || !self.is_held) && matches!(&self.base, Base::Live(live) if live.fields.is_empty())
    }

    /// A handle that holds nothing of its session is told apart from one that was emptied.
    pub(super) fn mark_empty(&mut self, shown: &mut Data) {
        if shown.is_empty() {
            self.mark_held(shown);
        }
    }

    /// A `load` takes the mark of a login out of the handle, with everything else, and empties nothing.
    pub(super) fn mark_login(&mut self, shown: &mut Data) {
        if self.pending_owner.as_ref().is_some_and(|pending| pending.is_held) {
            self.mark_held(shown);
        }
    }

    pub(super) fn mark_held(&mut self, shown: &mut Data) {
        shown.insert(HELD_MARK.to_owned(), Json::Bool(true));
        self.is_held = true;
        self.is_saved_bare = false;
        if let Some(pending) = &mut self.pending_owner {
            pending.is_held = true;
        }
    }

    /// Takes out what only the handle is to show.
    pub(super) fn strip_marks(&self, fields: &mut Vec<RawField>) {
        for (mark, is_there) in [(DESERTED_MARK, self.is_marked), (HELD_MARK, self.is_held)] {
            if is_there {
                fields.retain(|field| field.name() != mark.as_bytes());
            }
        }
    }

    /// This request has begun a session, of which the handle does not learn where it has an id that led nowhere.
    pub(super) fn begins(&mut self, id: Id) {
        self.stands_for = self.session.as_ref().and_then(Session::id).filter(|shown| *shown != id);
    }

    pub(super) fn has_other_id(&self) -> bool {
        self.stands_for.is_some()
    }

    /// Whether the handle has this id since its session is over, by its own wish.
    pub(super) fn is_left_with(&self, id: &Id) -> bool {
        self.deserted == Some(*id) || self.stands_for == Some(*id)
    }

    /// The id of the session that the handle means by this one.
    pub(super) fn meant(&self, id: &Id) -> Id {
        self.base.session().filter(|_| self.stands_for == Some(*id)).map_or(*id, |(known, _)| known)
    }

    /// Whether a call of the handle with this id is about the session that is known here.
    pub(super) fn is_about(&self, id: &Id) -> bool {
        let is_known = match &self.base {
            Base::Ended { id: known, .. } | Base::Lost { id: known } => known == id,
            base => base.session().is_some_and(|(known, _)| known == *id),
        };
        is_known || self.is_left_with(id)
    }

    /// The session of this request is over, by its own wish: what is saved from now on belongs to another one.
    pub(super) fn leave(&mut self, settings: &Settings) {
        let handle = self.session.as_ref().and_then(Session::id);
        let default = not_chosen(settings.expiry);
        if let Some(session) = &self.session {
            let expiry = session.expiry();
            let is_former = expiry == not_chosen(ExpiryPolicy::of(expiry).expiry());
            if is_former && expiry != default {
                // When the former session was to end is nothing to the next one, whoever has ended it.
                session.set_expiry(default);
            }
        }
        if self.intent == Intent::End {
            // `flush` leaves a handle without an id and without data, `delete` one that has both, or what `cycle_id` makes of it.
            if mem::take(&mut self.is_deserting) {
                self.deserted = handle.or(self.base.any_id());
            } else {
                (self.deserted, self.stands_for) = (None, handle);
            }
        }
        self.base = Base::None { stale: false };
        self.applied = None;
        self.intent = Intent::Keep;
        self.ended_here = true;
        self.committed = true;
        self.extended = None;
        self.cart = None;
    }

    /// Others have chosen another policy since the session was read, and the handle shows it unless it was given another one meanwhile.
    pub(super) fn adopt(&self, read: ExpiryPolicy, stored: ExpiryPolicy) {
        if let Some(session) = self.session.as_ref().filter(|session| ExpiryPolicy::of(session.expiry()) == read) {
            session.set_expiry(not_chosen(stored.expiry()));
        }
    }

    /// When the session is to end by what this request knows, and whether the handler has chosen that and no commit has said so yet. It may have chosen
    /// what was read.
    pub(super) fn policy(&self, settings: &Settings) -> (ExpiryPolicy, bool) {
        let Some(session) = &self.session else {
            let policy = if let Base::Live(live) = &self.base { live.policy } else { ExpiryPolicy::of(Some(settings.expiry)) };
            return (policy, false);
        };
        let expiry = session.expiry();
        let policy = ExpiryPolicy::of(expiry);
        let is_default = expiry == not_chosen(settings.expiry);
        (policy, !is_default && expiry != not_chosen(policy.expiry()) && self.applied != expiry)
    }

    /// A commit has said that the handle's expiry counts.
    pub(super) fn apply(&mut self, policy: ExpiryPolicy) {
        let expiry = self.session.as_ref().and_then(Session::expiry);
        if ExpiryPolicy::of(expiry) == policy {
            self.applied = expiry;
        }
    }
}
