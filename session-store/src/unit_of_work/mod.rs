//! The unit of work: what one request reads of its session, what it changes, and the one commit at its end.
//!
//! `tower_sessions::Session` calls it as its store. It remembers what was loaded, notes a deletion instead of making it,
//! and sends the difference when the session is saved: by the layer when the answer is ready, or by the handler.

mod cart;
mod commit;
mod finish;
mod outage;
mod state;
mod swap;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tower_sessions::{
    Session, SessionStore,
    session::{Id, Record},
    session_store,
};

use self::state::{Base, Intent, Live, State};
pub(crate) use self::{
    cart::{CartSource, CartTarget, LoginView},
    finish::{CookieChange, Outcome},
    swap::{Swap, Swapped},
};
use crate::{
    CacheStore, StoreError,
    backend::Fate,
    device::Client,
    expiry::{ExpiryPolicy, not_chosen, unix_ms},
    layer::Settings,
    record::{StoredSession, decode},
};

/// New ids that are followed to see whether the session still lives. So many logins within the grace are none of a person.
const SUCCESSORS_MAX: u32 = 8;

/// The session and the cart of one request.
pub(crate) struct UnitOfWork {
    pub(crate) store: CacheStore,
    pub(crate) settings: Arc<Settings>,
    // Never held across an await.
    state: Mutex<State>,
    /// The handle that the application has, for its expiry; taken out when the request is done, since it holds this unit.
    session: Mutex<Option<Session>>,
}

impl fmt::Debug for UnitOfWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No ids: this ends up in the debug output of every `Session`.
        f.debug_struct("UnitOfWork").finish_non_exhaustive()
    }
}

impl UnitOfWork {
    pub(crate) fn new(store: CacheStore, settings: Arc<Settings>, sent: Option<Id>) -> Arc<Self> {
        let base = sent.map_or(Base::None { stale: false }, Base::Sent);
        store.patience.set(settings.outage.patience());
        let state = Mutex::new(State::new(base, settings.outage));
        Arc::new(Self { store, settings, state, session: Mutex::new(None) })
    }

    pub(crate) fn attach(&self, session: &Session) {
        *self.session.lock() = Some(session.clone());
    }

    /// From where the request comes, for the list of a user's sessions.
    pub(crate) fn came_from(&self, client: Client) {
        self.state.lock().client = client;
    }

    /// Ends the circle of handle and unit. The handle works on, without a later `set_expiry` being seen.
    pub(crate) fn release(&self) {
        // Dropped after the lock: it may be the last handle.
        let session = self.session.lock().take();
        drop(session);
    }

    fn attached(&self) -> Option<Session> {
        self.session.lock().clone()
    }

    /// Reads the session, and its cart with it when asked to, in one round trip.
    pub(crate) async fn read(&self, id: &Id, with_cart: bool) -> Result<(), StoreError> {
        let tag = self.store.keys().session_tag(id);
        let (mut stored, cart) = if with_cart {
            let cart_tag = self.store.owners().hint(&tag).unwrap_or(tag);
            let (stored, cart) = self.store.read_session_and_cart(&tag, &cart_tag).await?;
            // A cart that is not this session's is dropped unseen.
            let is_its_own = stored.owner.unwrap_or(tag) == cart_tag;
            (stored, is_its_own.then_some(cart))
        } else {
            (self.store.read_session(&tag).await?, None)
        };
        self.follow(&mut stored).await?;
        self.store.owners().learn(&tag, stored.owner);
        let policy = stored.expiry;
        {
            let mut state = self.state.lock();
            if state.base.session().is_none_or(|(known, _)| known != *id) {
                // Another task of this request got a new id meanwhile.
                return Ok(());
            }
            state.cart = cart.filter(|_| !stored.shut);
            self.loaded(&mut state, *id, tag, stored);
        }
        self.adopt_policy(policy);
        Ok(())
    }

    /// What a session was before it got a new id may be read as long as the new one lives. Costs a round trip only in the seconds
    /// after a new id.
    async fn follow(&self, stored: &mut StoredSession) -> Result<(), StoreError> {
        for _ in 0..SUCCESSORS_MAX {
            let Some(successor) = stored.successor else {
                break;
            };
            match self.store.fate(&successor).await? {
                Fate::Lives => return Ok(()),
                Fate::Succeeded(by) => stored.successor = Some(by),
                Fate::Ended => stored.successor = None,
            }
        }
        stored.shut = stored.ended;
        Ok(())
    }

    fn loaded(&self, state: &mut State, id: Id, tag: crate::keys::Tag, stored: StoredSession) {
        let fields = Arc::new(stored.fields);
        state.base = if stored.revision.is_some() {
            let policy = stored.expiry.unwrap_or_else(|| ExpiryPolicy::of(Some(self.settings.expiry)));
            // Of a setting that is newer than the session the store learns with the next touch.
            let latest_ms = self.settings.absolute_ms.zip(stored.created_ms).map(|(ms, created)| created.saturating_add(ms));
            let is_news = latest_ms.is_some_and(|latest| stored.until_ms.is_none_or(|until| latest < until));
            if is_news && latest_ms.is_some_and(|latest| latest <= unix_ms(OffsetDateTime::now_utc())) {
                state.base = Base::None { stale: true };
                return;
            }
            if is_news || (!stored.capped && policy.is_touch_due(stored.remaining_ms)) {
                state.extended = Some(policy);
            }
            state.kept_ms = stored.remaining_ms;
            Base::Live(Live { id, tag, policy, owner: stored.owner, fields, fresh: true })
        } else if stored.ended {
            Base::Ended { id, tag, owner: stored.owner, fields, readable: !stored.shut }
        } else {
            Base::None { stale: true }
        };
    }

    /// Lets the handle know the policy of the session, unless the handler has set one already.
    fn adopt_policy(&self, stored: Option<ExpiryPolicy>) {
        let not_chosen = not_chosen(self.settings.expiry);
        if let (Some(stored), Some(session)) = (stored, self.attached())
            && stored != ExpiryPolicy::of(not_chosen)
            && session.expiry() == not_chosen
        {
            session.set_expiry(Some(stored.expiry()));
        }
    }

    /// What `Session` gets to see, as far as it is known already.
    fn record(state: &mut State, id: &Id) -> Option<Result<Option<Record>, StoreError>> {
        let fields = match &mut state.base {
            Base::Live(live) if live.id == *id && live.fresh => {
                live.fresh = false;
                &live.fields
            }
            // An explicit `Session::load`.
            Base::Live(live) if live.id == *id => return None,
            Base::Unread { id: unread, .. } if unread == id => return None,
            // After a logout nothing is left; after a new id it is as it was, for the requests that were under way.
            Base::Ended { id: ended, fields, readable: true, .. } if ended == id && !fields.is_empty() => fields,
            _ => return Some(Ok(None)),
        };
        Some(decode(fields).map(|data| Some(Record { id: *id, data, expiry_date: OffsetDateTime::now_utc() })))
    }

    fn noted<T>(&self, result: Result<T, StoreError>) -> session_store::Result<T> {
        result.map_err(|error| {
            self.state.lock().failure = Some(error.clone());
            error.into()
        })
    }
}

#[async_trait]
impl SessionStore for UnitOfWork {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let id = self.noted(self.commit(&record.data, true).await)?;
        if let Some(id) = id {
            record.id = id;
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        self.noted(self.commit(&record.data, false).await).map(drop)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let with_cart = {
            let mut state = self.state.lock();
            state.touch(self.store.keys());
            if let Some(known) = Self::record(&mut state, id) {
                return Ok(known?);
            }
            state.cart_expected
        };
        self.read(id, with_cart).await?;
        let mut state = self.state.lock();
        Ok(Self::record(&mut state, id).unwrap_or(Ok(None))?)
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let tag = {
            let mut state = self.state.lock();
            state.touch(self.store.keys());
            let Some((_, tag)) = state.base.session().filter(|(known, _)| known == id) else {
                // An id that was never stored: `cycle_id` called twice.
                return Ok(());
            };
            match self.attached() {
                // `cycle_id` forgets the id before it calls, `flush` and `delete` after.
                Some(session) if session.id().is_none() && state.intent != Intent::End => {
                    state.intent = Intent::Rotate;
                    return Ok(());
                }
                Some(_) => {
                    state.intent = Intent::End;
                    return Ok(());
                }
                None => tag,
            }
        };
        // The request is over: there is no commit to come.
        self.noted(self.store.end_session(&tag, None).await)?;
        self.state.lock().base = Base::None { stale: false };
        Ok(())
    }
}
