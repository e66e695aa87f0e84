//! What the carts of sessions are bound to that got a new id, as far as this process has seen: a hint, so that a change of such a cart
//! is one round trip although nobody has read the session. The step that uses it compares, and tells when it was wrong.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{generations::Generations, keys::Tag};

/// Sessions that are remembered at least; twice as many at most, about 8 MiB.
const SESSIONS_REMEMBERED: usize = 16_384;

#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) to: Tag,
    /// The field that says so, as it is stored: no two are alike.
    pub(crate) stored: Arc<[u8]>,
}

#[derive(Debug, Default)]
pub(crate) struct Bindings(Mutex<Generations<Binding>>);

impl Bindings {
    pub(crate) fn hint(&self, session: &Tag) -> Option<Binding> {
        self.0.lock().get(session)
    }

    pub(crate) fn learn(&self, session: &Tag, to: Tag, stored: &[u8]) {
        let mut sessions = self.0.lock();
        if sessions.get(session).is_none_or(|known| *known.stored != *stored) {
            sessions.insert(*session, Binding { to, stored: stored.into() }, SESSIONS_REMEMBERED);
        }
    }

    pub(crate) fn forget(&self, session: &Tag) {
        self.0.lock().remove(session);
    }
}
