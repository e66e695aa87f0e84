//! The unit of work of the request whose handler runs on this thread, for what need not go through the handle.
//!
//! `tower_sessions::Session` keeps its store to itself, and decodes the whole session to show one value of it. While nothing was
//! changed through the handle, what it shows is what the unit has read, and a typed key is read from there. In another task the
//! handle is asked as ever.

use std::{cell::RefCell, mem, sync::Arc};

use bytes::Bytes;
use tower_sessions::{Session, session::Id};

use super::{
    UnitOfWork,
    read::Begun,
    state::{Base, Intent, Live, State},
};
use crate::{
    StoreError,
    record::{RawField, field_name, find_field},
};

thread_local! {
    static CURRENT: RefCell<Option<Arc<UnitOfWork>>> = const { RefCell::new(None) };
}

/// Until it is dropped, the unit that was in this place is the one at hand, and what was at hand before is in its place.
// The reference itself changes its place: another one would be counted up and down for each request.
struct Entered<'a>(&'a mut Option<Arc<UnitOfWork>>);

impl<'a> Entered<'a> {
    fn new(place: &'a mut Option<Arc<UnitOfWork>>) -> Self {
        CURRENT.with_borrow_mut(|current| mem::swap(current, place));
        Self(place)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| mem::swap(current, self.0));
    }
}

/// The session of a request, as its unit of work knows it.
#[derive(Debug)]
pub(crate) struct AtHand {
    unit: Arc<UnitOfWork>,
    id: Id,
}

impl AtHand {
    /// That of this handle, where it shows nothing else than what was read, and if it is one of the unit at hand: who asks it looks.
    /// An id is drawn from 128 bits: it tells a session from all others.
    pub(crate) fn of(session: &Session) -> Option<Self> {
        if session.is_modified() {
            return None;
        }
        let id = session.id()?;
        let unit = CURRENT.with_borrow(Option::clone)?;
        Some(Self { unit, id })
    }

    /// The value of this key as JSON; `None`: the handle is to be asked, which shows a session that has ended as well, and puts one
    /// that cannot be read in quarantine.
    ///
    /// # Errors
    ///
    /// When the store could not be asked.
    pub(crate) async fn value(&self, key: &str) -> Result<Option<Option<Bytes>>, StoreError> {
        let (begun, with_cart) = {
            let mut state = self.unit.state();
            if state.base.id() != Some(self.id) || state.intent == Intent::End {
                return Ok(None);
            }
            match self.unit.begin_wanted(&mut state) {
                (Begun::Known, _) => return Ok(self.known_value(&state, key)),
                begun => begun,
            }
        };
        self.unit.read_begun(begun, with_cart).await?;
        Ok(self.known_value(&self.unit.state(), key))
    }

    fn known_value(&self, state: &State, key: &str) -> Option<Option<Bytes>> {
        let live = self.live(state)?;
        Some(find_field(&live.fields, field_name(key).as_bytes()).map(RawField::kept_value))
    }

    /// Whether the handle has not been given the session yet, so that it will be given what the unit knows by then.
    pub(crate) fn is_unseen(&self) -> bool {
        self.live(&self.unit.state()).is_some_and(|live| live.fresh)
    }

    /// Commits what the [`Swap`](super::Swap) beside this task wants, and nothing else; `None` when the handle has been given the
    /// session meanwhile, through which it is to be saved then.
    ///
    /// # Errors
    ///
    /// What the swap is told too.
    pub(crate) async fn save(&self) -> Option<Result<(), StoreError>> {
        if !self.is_unseen() {
            return None;
        }
        // Boxed, as the handler's future it would be in is faster to allocate up to a size of 1,032 bytes.
        Some(Box::pin(self.unit.commit_unseen(&self.id)).await?.map(drop))
    }

    fn live<'a>(&self, state: &'a State) -> Option<&'a Live> {
        match &state.base {
            Base::Live(live) if live.id == self.id => Some(live),
            _ => None,
        }
    }
}

/// The id of the handle's session, where the handle has one that led nowhere and its request has begun another session too.
pub(crate) fn id_of(session: &Session) -> Option<Id> {
    let id = session.id()?;
    Some(CURRENT.with_borrow(|unit| unit.as_ref().map_or(id, |unit| unit.meant(&id))))
}

/// Runs what belongs to the request whose unit is in this place, where it is again in the end, also when that panics.
pub(crate) fn at_hand<T>(place: &mut Option<Arc<UnitOfWork>>, run: impl FnOnce() -> T) -> T {
    let _entered = Entered::new(place);
    run()
}
