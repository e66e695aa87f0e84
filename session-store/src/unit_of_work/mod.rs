//! The unit of work: what one request reads of its session, what it changes, and the one commit at its end.
//!
//! `tower_sessions::Session` calls it as its store. It remembers what was loaded, notes a deletion instead of making it,
//! and sends the difference when the session is saved: by the layer when the answer is ready, or by the handler.

mod adopt;
mod at_hand;
mod cart;
mod commit;
mod finish;
mod handle;
mod outage;
mod read;
mod state;
mod swap;

#[cfg(feature = "tower-sessions-014")]
use std::sync::{OnceLock, Weak};
use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use serde_json::Value as Json;
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tower_sessions::{
    Session, SessionStore,
    session::{Id, Record},
    session_store,
};

#[cfg(feature = "tower-sessions-014")]
pub(crate) use self::adopt::OtherHandle;
use self::state::{Base, Intent, State};
pub(crate) use self::{
    adopt::adopted,
    at_hand::{AtHand, at_hand, id_of},
    cart::{CartSource, CartTarget, CreateSession, LoginView},
    finish::{CookieChange, Outcome, Rest, SeenChange},
    handle::{DESERTED_MARK, HELD_MARK},
    swap::{Basis, Swap, Swapped},
};
use crate::{
    CacheStore, StoreError,
    device::Client,
    keys::Tag,
    look::{self, look},
    record::{CSRF_KEY, decode},
    seen::Seen,
    settings::Settings,
    turns::WAIT_MAX,
};

/// Another part of the same request has what is waited for.
const CONTENDED: StoreError = StoreError::Contended { attempts: 1 };

/// What `Session` gets to see, the tag that it is under, and whether it is a copy.
type Placed = (Result<Option<Record>, StoreError>, Option<Tag>, bool);

/// With what a request comes.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// The id that the client sent.
    pub(crate) sent: Option<Id>,
    /// It came in a cookie that is not as it would be written today.
    pub(crate) cookie_outdated: bool,
    /// What the client says that it has seen.
    pub(crate) seen: Option<Seen>,
    /// From where the request comes, for the list of a user's sessions.
    pub(crate) client: Client,
    /// The method is a safe one: a copy of the session will do.
    pub(crate) is_safe: bool,
}

/// The session and the cart of one request.
pub(crate) struct UnitOfWork {
    pub(crate) store: CacheStore,
    pub(crate) settings: Arc<Settings>,
    // Never held across an await.
    begun: Mutex<Begun>,
    /// Whoever brings the store to another state. The handle holds its own lock while it is saved, but not while it is deleted, and an update
    /// may go past it: what two of them take for the state of the store would be wrong for the later one.
    committing: Semaphore,
    /// Counts how often the handler was polled: what the store has said in this turn is as fresh as what it would say at the end.
    turn: AtomicU32,
    #[cfg(feature = "tower-sessions-014")]
    other: OnceLock<Weak<dyn OtherHandle>>,
}

/// What is known of the request, and all that comes of it once somebody has asked for something.
// Most requests ask for nothing: to make a state for each, and to move it to its place, was more than all else that the layer does.
struct Begun {
    arrival: Arrival,
    /// The handle, until the state has it.
    session: Option<Session>,
    state: Option<Box<State>>,
}

impl fmt::Debug for UnitOfWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No ids: this ends up in the debug output of every `Session`.
        f.debug_struct("UnitOfWork").finish_non_exhaustive()
    }
}

impl Begun {
    fn session(&mut self) -> &mut Option<Session> {
        match &mut self.state {
            Some(state) => &mut state.session,
            None => &mut self.session,
        }
    }
}

impl UnitOfWork {
    pub(crate) fn new(store: CacheStore, settings: Arc<Settings>, arrival: Arrival) -> Arc<Self> {
        store.patience.set(settings.outage.patience());
        Arc::new(Self {
            begun: Mutex::new(Begun { arrival, session: None, state: None }),
            store,
            settings,
            committing: Semaphore::new(1),
            turn: AtomicU32::new(0),
            #[cfg(feature = "tower-sessions-014")]
            other: OnceLock::new(),
        })
    }

    #[cfg(feature = "tower-sessions-014")]
    pub(crate) fn attach_other(&self, other: Weak<dyn OtherHandle>) {
        let attached = self.other.set(other);
        debug_assert!(attached.is_ok(), "a request has one other handle");
    }

    /// The handler goes on, after whatever it waited for.
    pub(crate) fn next_turn(&self) {
        // Only whoever polls it counts: an addition that others could not interfere with would cost some ns more.
        self.turn.store(self.turn().wrapping_add(1), Ordering::Relaxed);
    }

    fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    pub(crate) fn attach(&self, session: Session) {
        self.begun.lock().session = Some(session);
    }

    /// Only the primary of the store will do. Whether the handle has been given a copy already, which is to be read again.
    pub(crate) fn read_fresh(&self) -> bool {
        let mut state = self.state();
        state.read_from_primary();
        state.base_is_copy && state.intent != Intent::End && matches!(state.base, Base::Live(_))
    }

    /// Ends the circle of handle and unit. The handle works on, without a later `set_expiry` being seen.
    pub(crate) fn release(&self) {
        Self::release_begun(self.begun.lock());
    }

    fn release_begun(mut begun: MutexGuard<'_, Begun>) {
        let session = begun.session().take();
        // Dropped after the lock: it may be the last handle.
        drop(begun);
        drop(session);
    }

    /// The handle of the application, until the request is done.
    pub(crate) fn attached(&self) -> Option<Session> {
        self.begun.lock().session().clone()
    }

    /// The right to bring the store to another state, until it is dropped.
    async fn alone(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        if let Ok(alone) = self.committing.try_acquire() {
            return Ok(alone);
        }
        // Boxed, as what most requests do not wait for is.
        Box::pin(self.within(self.committing.acquire())).await?.map_err(|_| CONTENDED)
    }

    /// What the request waits for within itself. A future that the handler keeps and polls no more would hold it for ever.
    ///
    /// # Errors
    ///
    /// [`StoreError::Contended`], when whoever has it has had all the time that the store is given, and [`WAIT_MAX`] beyond.
    pub(crate) async fn within<T>(&self, wait: impl Future<Output = T>) -> Result<T, StoreError> {
        let wait_max = WAIT_MAX.saturating_add(self.settings.outage.patience());
        timeout(wait_max, wait).await.map_err(|_| CONTENDED)
    }

    fn state(&self) -> MappedMutexGuard<'_, State> {
        MutexGuard::map(self.begun.lock(), |Begun { arrival, session, state }| {
            &mut **state.get_or_insert_with(|| {
                Box::new(State::new(mem::take(arrival), session.take(), &self.store, self.settings.outage))
            })
        })
    }

    fn record(state: &mut State, id: &Id) -> Option<Result<Option<Record>, StoreError>> {
        if state.intent == Intent::End {
            // The session is over for this request, whoever still reads it: behind `delete` the handle shows nothing that it has not shown before.
            return Some(Ok(Some(state.nothing_of_ended(*id))));
        }
        let is_left_with = state.is_left_with(id);
        // What the handle shows from now on belongs to the session that this request has, or is about to begin.
        let mut is_of_this = matches!(state.base, Base::Live(_));
        let fields = match &mut state.base {
            Base::Live(live) if live.id == *id && live.fresh => {
                live.fresh = false;
                &live.fields
            }
            // An explicit `Session::load`.
            Base::Live(live) if live.id == *id => return None,
            Base::Unread { id: unread, .. } | Base::Lost { id: unread } if unread == id => return None,
            // After a logout nothing is left; after a new id it is as it was, for the requests that were under way.
            Base::Ended { id: ended, fields, readable: true, .. } if ended == id && !fields.is_empty() => fields,
            // An id that leads nowhere: an empty record, since `Session` warns of an attack when there is none, and a cookie that
            // is older than its session is none. The commit adopts no such id.
            Base::Ended { .. } | Base::Lost { .. } | Base::None { stale: true } => &Arc::default(),
            // Somebody has logged in behind a `delete`: the handle keeps the id with which a `flush` is told, for a session that is yet to begin.
            Base::None { .. } if state.pending_owner.is_some() && is_left_with => {
                state.stands_for = Some(*id);
                is_of_this = true;
                &Arc::default()
            }
            _ => return Some(Ok(None)),
        };
        let record = decode(fields).map(|mut data| {
            if is_of_this {
                state.deserted = None;
                state.mark_empty(&mut data);
            }
            state.mark_login(&mut data);
            Some(Record { id: *id, data, expiry_date: OffsetDateTime::now_utc() })
        });
        Some(record)
    }

    fn meant(&self, id: &Id) -> Id {
        self.begun.lock().state.as_ref().map_or(*id, |state| state.meant(id))
    }

    /// What `Session` gets to see, as far as it is known already.
    fn known_record(&self, id: &Id) -> Option<Placed> {
        let mut state = self.state();
        let record = Self::record(&mut state, id)?;
        Some((record, state.base.session().map(|(_, tag)| tag), state.base_is_copy))
    }

    /// What `Session` gets to see of what was just read.
    fn loaded_record(&self, id: &Id) -> Placed {
        self.known_record(id).unwrap_or_else(|| {
            let is_lost = matches!(self.state().base, Base::Lost { .. });
            (if is_lost { Err(StoreError::SessionEnded) } else { Ok(None) }, None, false)
        })
    }

    fn noted(&self, result: Result<(), StoreError>) -> session_store::Result<()> {
        result.or_else(|error| {
            let mut state = self.state();
            state.failure = Some(error.clone());
            if state.keeps_failures { Ok(()) } else { Err(error.into()) }
        })
    }
}

#[async_trait]
impl SessionStore for UnitOfWork {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        if look::shows(&record.data) {
            return Ok(());
        }
        if let Some(id) = adopted() {
            self.adopted_by(record, id);
            return Ok(());
        }
        let committed = self.commit(&record.data, true).await;
        if committed.is_ok() && record.data.contains_key(CSRF_KEY) && self.is_committed_without(CSRF_KEY) {
            // The handle does not show what the new id has not got, and does not bring it back.
            record.data.remove(CSRF_KEY);
        }
        if committed.is_ok() {
            self.state().mark_empty(&mut record.data);
        }
        self.noted(committed.map(|id| record.id = id.unwrap_or(record.id)))
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        if look::shows(&record.data) || adopted().is_some() {
            return Ok(());
        }
        let committed = self.commit(&record.data, false).await.map(drop);
        if committed.is_ok() && !record.data.contains_key(HELD_MARK) {
            self.state().is_saved_bare = true;
        }
        self.noted(committed)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let (id, with_cart) = {
            let mut state = self.state();
            state.touch(self.store.keys());
            if state.is_asked_explicitly() {
                // What was read for somebody else will not do.
                state.base.mark_seen();
            }
            (&state.meant(id), state.cart_expected)
        };
        let known = match self.known_record(id) {
            // It may have been read long ago: what is moved away is what is there now.
            Some((Err(error), ..)) if error.is_corrupt() => {
                self.read(id, false).await?;
                Some(self.loaded_record(id))
            }
            known => known,
        };
        let (mut record, mut tag, is_copy) = match known {
            Some(known) => known,
            None => {
                self.read_once(with_cart).await?;
                match self.known_record(id) {
                    Some(known) => known,
                    // An explicit `Session::load`.
                    None => {
                        self.read(id, with_cart).await?;
                        self.loaded_record(id)
                    }
                }
            }
        };
        if is_copy && record.as_ref().is_err_and(StoreError::is_corrupt) {
            // The primary may have a record by now that can be read: only what it has itself is moved away.
            self.state().read_from_primary();
            Box::pin(self.read(id, false)).await?;
            (record, tag, _) = self.loaded_record(id);
        }
        match (record, tag) {
            (Err(error), Some(tag)) if error.is_corrupt() => {
                Box::pin(self.quarantine(&tag, &error)).await?;
                Box::pin(self.read(id, false)).await?;
                Ok(self.loaded_record(id).0?)
            }
            (record, _) => Ok(record?),
        }
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        if look::is_under_way() {
            return Ok(());
        }
        // `cycle_id` forgets the id before it calls, with the record locked, `flush` and `delete` after.
        let handle = self.attached();
        let ending = handle.as_ref().filter(|session| session.id().is_some());
        let is_emptied = match ending {
            Some(session) => Box::pin(is_emptied(session)).await,
            None => false,
        };
        let alone = {
            let mut state = self.state();
            state.touch(self.store.keys());
            if ending.is_some() {
                state.pending_owner = None;
            }
            if !state.is_about(id) {
                // An id that was never stored: `cycle_id` called twice.
                return Ok(());
            }
            match (&handle, ending) {
                (Some(_), Some(session)) => {
                    // One that has ended already, by another request, ends for this one all the same: nothing of it matters any more.
                    state.intent = Intent::End;
                    state.is_deserting = !is_emptied;
                    let shows_it = session.is_modified()
                        || match &state.base {
                            Base::Live(live) => !live.fresh,
                            Base::Ended { fields, readable, .. } => *readable && !fields.is_empty(),
                            _ => false,
                        };
                    // What is put into a handle that shows nothing of it is new.
                    state.is_marked |= !shows_it;
                    if is_emptied || !shows_it {
                        return Ok(());
                    }
                    None
                }
                (Some(_), None) => {
                    // A new id for what the handle shows, be it of a session that is over; one that another request has ended gets none.
                    let is_there = state.base.session().is_some() || state.deserted == Some(*id);
                    if is_there && state.intent != Intent::End {
                        state.intent = Intent::Rotate;
                    }
                    return Ok(());
                }
                (None, _) => match state.base.session() {
                    Some((_, tag)) => Some(tag),
                    None => return Ok(()),
                },
            }
        };
        match (alone, ending) {
            // The request is over: there is no commit to come.
            (Some(tag), _) => self.noted(self.end_alone(&tag).await),
            (None, Some(session)) => {
                // Its record is not locked: `delete` does not.
                if session.insert_value(DESERTED_MARK, Json::Bool(true)).await.is_ok() {
                    self.state().is_marked = true;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

/// Whether the handle was emptied, which is what `flush` does before it ends the session.
async fn is_emptied(session: &Session) -> bool {
    // What was not modified was not emptied, and may not be read yet.
    session.is_modified() && look(session.save()).await.is_ok_and(|data| data.is_empty())
}
