//! What a request knows of its session, and what it intends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tower_sessions::{Expiry, Session, session::Id};

use super::{Arrival, swap::Updates};
use crate::{
    CacheStore, OutagePolicy, StoreError,
    backend::{Along, CommitToken, Version},
    cart::{CartSnapshot, MergePolicy, merge::Merge},
    device::Client,
    expiry::ExpiryPolicy,
    keys::{Keys, Tag},
    metrics,
    record::{CSRF_KEY, RawField, find_field},
    seen::Seen,
    settings::Settings,
    touches::is_far_off,
};

#[derive(Debug)]
pub(super) struct State {
    /// The handle that the application has, for its expiry; taken out when the request is done, since it holds this unit.
    pub(super) session: Option<Session>,
    /// Somebody reads a session that nobody has read yet, and those who want it wait for him.
    pub(super) reading: Reading,
    /// The id that the client sent.
    pub(super) sent: Option<Id>,
    pub(super) client: Client,
    pub(super) base: Base,
    /// It is what a replica or the near cache had.
    pub(super) base_is_copy: bool,
    pub(super) intent: Intent,
    /// The user to whom the next commit gives the session.
    // Boxed, as what is rare is.
    pub(super) pending_owner: Option<Box<PendingOwner>>,
    /// The session that the first change of a cart creates; drawn once, so that changes at the same time share it.
    pub(super) planned: Option<Box<Planned>>,
    /// A cart that came along with the session, for the first read.
    pub(super) cart: Option<CartSnapshot>,
    pub(super) cart_expected: bool,
    /// Whether what the near cache has will do.
    pub(super) may_read_near: bool,
    /// The revision that a replica must have for its answer to do; `None`: only the primary will do.
    pub(super) replica_from: Option<u64>,
    /// The client has said what it has seen.
    pub(super) sent_seen: bool,
    /// The revision that the session had when it was read.
    pub(super) read_revision: Option<u64>,
    /// The revision of this request's last commit.
    pub(super) wrote: Option<u64>,
    /// Whether anything was asked of the unit at all.
    pub(super) touched: bool,
    pub(super) committed: bool,
    /// The turn of the handler in which the store last wrote the session's time. In a later one the handler has waited since, and
    /// the session may have ended meanwhile.
    pub(super) alive_in: Option<u32>,
    /// The policy of a session whose time the store has extended, or is about to.
    pub(super) extended: Option<ExpiryPolicy>,
    /// A touch is due of which no cookie tells: the answer does not wait for it.
    pub(super) due_behind: bool,
    /// What is remembered of the next touch is old enough that a commit, which extends the session's time too, says when the next one is due.
    pub(super) puts_off_touch: bool,
    /// List and cart have not heard of the session's time for so long that a commit tells them.
    pub(super) tells_along: bool,
    /// It has done so along with the read.
    pub(super) extended_by_read: bool,
    /// Ms for which the store keeps the session, when it last told.
    pub(super) kept_ms: i64,
    /// When its time was last extended, as far as that is known.
    kept_since: Option<Instant>,
    /// When it had all of its time before it, as the primary has told this request, at the latest; `None`: nobody knows.
    pub(super) renewed: Option<Instant>,
    /// The head of the answer is gone: no cookie can be given any more.
    pub(super) answered: bool,
    /// The request itself ended its session.
    pub(super) ended_here: bool,
    /// The session is to end by `delete`, which leaves its data in the handle, and not by `flush`.
    pub(super) is_deserting: bool,
    /// The id that the handle has of a session that `delete` has ended. It shows the data of that one too, and none of it belongs to
    /// another session.
    pub(super) deserted: Option<Id>,
    /// What it shows of that one, if anything, has [`DESERTED_MARK`](super::handle::DESERTED_MARK) beside it, until it is emptied.
    pub(super) is_marked: bool,
    /// There may be a [`HELD_MARK`](super::handle::HELD_MARK) in the handle.
    pub(super) is_held: bool,
    /// It was saved without that one since, by its id: what was emptied goes on as it is.
    pub(super) is_saved_bare: bool,
    /// The id that the handle has, which led nowhere or was left with nothing by `delete`, of the session that this request has begun all the
    /// same, or is to begin.
    pub(super) stands_for: Option<Id>,
    /// The handle's expiry that the session has been given.
    pub(super) applied: Option<Expiry>,
    /// The CSRF secret of the former id, which the handle shows until it has got the new one.
    left_secret: Option<Box<RawField>>,
    /// Nobody but the layer waits for the write, which finds its failure here.
    pub(super) keeps_failures: bool,
    /// There once something was updated.
    pub(super) updates: Option<Arc<Updates>>,
    /// Why the last write failed; `tower_sessions` passes on only its text.
    pub(super) failure: Option<StoreError>,
    pub(super) outage: OutagePolicy,
    /// The id came in a cookie that is to be replaced by another one.
    pub(super) cookie_outdated: bool,
}

impl State {
    pub(super) fn new(arrival: Arrival, session: Option<Session>, store: &CacheStore, outage: OutagePolicy) -> Self {
        let Arrival { sent, cookie_outdated, seen, client, is_safe } = arrival;
        // A client that says nothing may have made changes while replicas were not read, or while it could not be told: the
        // primary is read.
        let reads_replicas = store.reads_replicas();
        let replica_from = seen.filter(|_| is_safe && reads_replicas).and_then(Seen::revision_min);
        Self {
            session,
            reading: Reading::Nobody,
            sent,
            client,
            base: sent.map_or(Base::None { stale: false }, Base::Sent),
            base_is_copy: false,
            intent: Intent::Keep,
            pending_owner: None,
            planned: None,
            cart: None,
            cart_expected: false,
            // Who is promised what he has changed himself, on all replicas of the application, is not shown what this one has from before.
            may_read_near: is_safe && store.has_near() && (replica_from.is_some() || !reads_replicas),
            replica_from,
            sent_seen: seen.is_some(),
            read_revision: None,
            wrote: None,
            touched: false,
            committed: false,
            alive_in: None,
            extended: None,
            due_behind: false,
            puts_off_touch: false,
            tells_along: false,
            extended_by_read: false,
            kept_ms: 0,
            kept_since: None,
            renewed: None,
            answered: false,
            ended_here: false,
            is_deserting: false,
            deserted: None,
            is_marked: false,
            is_held: false,
            is_saved_bare: false,
            stands_for: None,
            applied: None,
            left_secret: None,
            keeps_failures: false,
            updates: None,
            failure: None,
            outage,
            cookie_outdated,
        }
    }

    /// Whether it is `Session::load` that calls, and not a handle that wants to show something and holds its lock meanwhile.
    pub(super) fn is_asked_explicitly(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_empty().now_or_never().is_some())
    }

    /// Something is asked of the unit: only now the hash of the id is needed.
    pub(super) fn touch(&mut self, keys: &Keys) {
        self.touched = true;
        if let Base::Sent(id) = self.base {
            self.base = Base::Unread { id, tag: keys.session_tag(&id), owner: None };
        }
    }

    /// The session has got a new id, and not the secret among these fields.
    pub(super) fn leave_secret(&mut self, fields: &[RawField]) {
        self.left_secret = find_field(fields, CSRF_KEY.as_bytes()).cloned().map(Box::new);
    }

    pub(super) fn has_left_secret(&self) -> bool {
        self.left_secret.is_some()
    }

    /// Whether it was left behind under the former id.
    pub(super) fn has_left(&self, field: &RawField) -> bool {
        self.left_secret.as_ref().is_some_and(|left| left.name() == field.name() && left.value() == field.value())
    }

    /// From now on only the primary of the store will do.
    pub(super) fn read_from_primary(&mut self) {
        self.may_read_near = false;
        self.replica_from = None;
    }

    pub(super) fn wrote(&mut self, revision: u64) {
        self.wrote = Some(revision);
        // A replica may not have heard of it.
        self.replica_from = None;
    }

    pub(super) fn keeps(&mut self, kept_ms: i64) {
        self.kept_ms = kept_ms;
        self.kept_since = Some(Instant::now());
        // By an answer that may have been long on its way.
        self.renewed = None;
    }

    /// What is left of the time of a session, in ms, where a change puts its end off by so little that it need not: as little as makes no
    /// difference to when a touch is due.
    pub(super) fn gains_little(&self, policy: ExpiryPolicy) -> Option<i64> {
        let passed_ms = i64::try_from(self.renewed?.elapsed().as_millis()).ok()?;
        let left_ms = policy.idle_ms()?.checked_sub(passed_ms)?;
        (left_ms > 0 && is_far_off(policy, passed_ms)).then_some(left_ms)
    }

    /// As a read has told that extended nothing: of `idle_ms` the rest has passed. `None`: no touch can extend it.
    pub(super) fn keeps_since(&mut self, remaining_ms: i64, idle_ms: Option<i64>, now: Instant) {
        let passed_ms = idle_ms.and_then(|idle| u64::try_from(idle.saturating_sub(remaining_ms)).ok());
        let extended = passed_ms.and_then(|passed| now.checked_sub(Duration::from_millis(passed)));
        self.kept_ms = remaining_ms;
        self.kept_since = Some(extended.unwrap_or(now));
    }

    /// The session of an upgraded connection, when so much time has passed that it should be extended.
    pub(super) fn due_long_after(&self) -> Option<(Tag, ExpiryPolicy)> {
        let Base::Live(live) = &self.base else {
            return None;
        };
        let passed_ms = i64::try_from(self.kept_since?.elapsed().as_millis()).unwrap_or(i64::MAX);
        let is_due = live.policy.touch_interval_ms().is_some_and(|interval| passed_ms >= interval);
        (self.answered && is_due).then_some((live.tag, live.policy))
    }

    /// The session whose time is to be extended, or was, and of which nobody knows whether it is still alive: it is what the cookie
    /// of the answer is for.
    pub(super) fn due_touch(&self, turn: u32) -> Option<(Tag, ExpiryPolicy)> {
        let policy = self.extended.filter(|_| self.alive_in != Some(turn))?;
        self.base.session().map(|(_, tag)| (tag, policy))
    }

    /// Whether a write of this request is to extend what goes along with the session, too.
    pub(super) fn is_to_extend(&self) -> bool {
        self.due_behind || self.tells_along || self.extended.is_some() && !self.extended_by_read
    }

    /// What goes along when the time of the session is set by this request.
    pub(super) fn along(&self, settings: &Settings) -> Along {
        let owner = match &self.base {
            Base::Live(live) => live.owner,
            Base::Unread { owner, .. } => *owner,
            _ => None,
        };
        let user = self.pending_owner.as_ref().map(|pending| pending.user);
        Along {
            user: user.or(owner),
            sessions_max: settings.user_sessions_max,
            cart_ttl_ms: self.is_to_extend().then_some(settings.cart_ttl_ms),
            logs_in: user.is_some(),
        }
    }

    pub(super) fn planned(&mut self) -> &Planned {
        self.planned.get_or_insert_with(|| Planned { id: Id::default(), token: CommitToken::random() }.into())
    }
}

/// The session in the store, as far as this request knows.
#[derive(Debug)]
pub(super) enum Base {
    /// The client sent an id, and nothing was asked of the unit so far.
    Sent(Id),
    /// The client sent an id and nobody has looked yet. The owner is known when a change of the cart was told of it.
    Unread { id: Id, tag: Tag, owner: Option<Tag> },
    /// It is there.
    Live(Live),
    /// There is none; `stale`: the client sent the id of one.
    None { stale: bool },
    /// It ended a moment ago, or while this request was running: it can be read as it was, and not be changed.
    Ended { id: Id, tag: Tag, binding: Tag, owner: Option<Tag>, fields: Arc<Vec<RawField>>, readable: bool },
    /// The store has said that it ended, and nobody has read it: what it was, and whose cart it had, is still to be looked for.
    Lost { id: Id },
}

impl Base {
    /// Id and tag of a session that is there or may be.
    pub(super) fn session(&self) -> Option<(Id, Tag)> {
        match self {
            Self::Unread { id, tag, .. } => Some((*id, *tag)),
            Self::Live(live) => Some((live.id, live.tag)),
            Self::Sent(_) | Self::None { .. } | Self::Ended { .. } | Self::Lost { .. } => None,
        }
    }

    /// The id of it, whether or not anything was asked so far.
    pub(super) fn id(&self) -> Option<Id> {
        match self {
            Self::Sent(id) => Some(*id),
            base => base.session().map(|(id, _)| id),
        }
    }

    /// Likewise, of one that has ended too.
    pub(super) fn any_id(&self) -> Option<Id> {
        match self {
            Self::Ended { id, .. } | Self::Lost { id } => Some(*id),
            base => base.id(),
        }
    }

    /// The handle has a record, and needs to be given none.
    pub(super) fn mark_seen(&mut self) {
        if let Self::Live(live) = self {
            live.fresh = false;
        }
    }

    /// The value that the store has in a field now.
    pub(super) fn learn_field(&mut self, name: &[u8], now: Option<RawField>) {
        let Self::Live(live) = self else {
            return;
        };
        live.version = None;
        let fields = Arc::make_mut(&mut live.fields);
        fields.retain(|field| field.name() != name);
        fields.extend(now);
    }

    /// The client sent the id of a session that is not there, any more or ever.
    pub(super) fn stale() -> Self {
        metrics::session_ended(metrics::End::Expired);
        Self::None { stale: true }
    }

    /// After the store has said that the session ended.
    pub(super) fn end(&mut self) {
        *self = match self {
            Self::Unread { id, .. } => Self::Lost { id: *id },
            Self::Live(Live { id, tag, binding, owner, fields, .. }) => {
                let (id, tag, binding, owner) = (*id, *tag, *binding, *owner);
                Self::Ended { id, tag, binding, owner, fields: Arc::clone(fields), readable: true }
            }
            Self::Sent(_) | Self::None { .. } | Self::Ended { .. } | Self::Lost { .. } => return,
        };
    }

    /// The session ended under a request that was to change something: counted, and an error.
    pub(super) fn lose(&mut self) -> StoreError {
        self.end();
        metrics::conflict(metrics::Conflict::SessionEnded);
        StoreError::SessionEnded
    }
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: Id,
    pub(super) tag: Tag,
    /// What its values, and the lines of its cart, are bound to when they are encrypted.
    pub(super) binding: Tag,
    pub(super) policy: ExpiryPolicy,
    pub(super) owner: Option<Tag>,
    /// The version of the application's data.
    pub(super) data_version: Option<u32>,
    /// What the store held when it was last asked: the difference to this is what a commit sends.
    pub(super) fields: Arc<Vec<RawField>>,
    /// As which the primary had these fields; `None`: nobody knows, or the session is another one by now.
    pub(super) version: Option<Version>,
    /// Read by somebody else than `Session`, which has not seen it yet.
    pub(super) fresh: bool,
}

/// Whether somebody reads the session.
#[derive(Debug)]
pub(super) enum Reading {
    Nobody,
    Somebody,
    /// Others are to be told when that is over.
    Awaited(Arc<Notify>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Keep,
    /// `cycle_id`: the next commit gives the session a new id.
    Rotate,
    /// `flush` or `delete`: the session ends; what is inserted afterwards belongs to another one.
    End,
}

#[derive(Debug, Clone)]
pub(super) struct PendingOwner {
    pub(super) user: Tag,
    pub(super) policy: MergePolicy,
    pub(super) merge: Merge,
    /// A [`HELD_MARK`](super::handle::HELD_MARK) is in the handle since.
    pub(super) is_held: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) id: Id,
    pub(super) token: CommitToken,
}
