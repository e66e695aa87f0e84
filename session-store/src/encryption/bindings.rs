//! What the carts of sessions are bound to that got a new id, as far as this process has seen: a hint, so that a change of such a cart
//! is one round trip although nobody has read the session. The step that uses it compares, and tells when it was wrong.

use std::sync::Arc;

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
pub(crate) struct Bindings(Generations<Binding>);

impl Bindings {
    pub(crate) fn hint(&self, session: &Tag) -> Option<Binding> {
        self.0.get(session)
    }

    pub(crate) fn learn(&self, session: &Tag, to: Tag, stored: &[u8]) {
        if self.0.get(session).is_none_or(|known| *known.stored != *stored) {
            self.0.insert(*session, Binding { to, stored: stored.into() }, SESSIONS_REMEMBERED);
        }
    }

    pub(crate) fn forget(&self, session: &Tag) {
        self.0.remove(session);
    }
}
