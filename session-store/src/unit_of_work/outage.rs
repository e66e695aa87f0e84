//! What this request does while the store is out of reach.

use super::{UnitOfWork, state::Base};
use crate::{OutagePolicy, StoreError};

impl UnitOfWork {
    pub(crate) fn set_outage_policy(&self, policy: OutagePolicy) {
        self.state.lock().outage = policy;
        self.store.patience.set(policy.patience());
    }

    pub(crate) fn outage_policy(&self) -> OutagePolicy {
        self.state.lock().outage
    }

    /// Whether an operation of this request failed because the store was out of reach.
    pub(crate) fn met_outage(&self) -> bool {
        self.store.patience.met_outage()
    }

    /// Reads the session unless that has happened already.
    pub(crate) async fn ensure_read(&self) -> Result<(), StoreError> {
        let (unread, with_cart) = {
            let mut state = self.state.lock();
            state.touch(self.store.keys());
            let unread = match &state.base {
                Base::Unread { id, .. } => Some(*id),
                _ => None,
            };
            (unread, state.cart_expected)
        };
        match unread {
            Some(id) => self.read(&id, with_cart).await,
            None => Ok(()),
        }
    }
}
