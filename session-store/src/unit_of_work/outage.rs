//! What this request does while the store is out of reach.

use super::UnitOfWork;
use crate::OutagePolicy;

impl UnitOfWork {
    pub(crate) fn set_outage_policy(&self, policy: OutagePolicy) {
        self.state().outage = policy;
        self.store.patience.set(policy.patience());
    }

    pub(crate) fn outage_policy(&self) -> OutagePolicy {
        self.begun.lock().state.as_ref().map_or(self.settings.outage, |state| state.outage)
    }

    /// Whether an operation of this request failed because the store was out of reach.
    pub(crate) fn met_outage(&self) -> bool {
        self.store.patience.met_outage()
    }
}
