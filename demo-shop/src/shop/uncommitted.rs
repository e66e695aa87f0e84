//! What is answered when the handler was done and the session could not be told.
//!
//! The commit comes after the handler, and the answer that says it failed comes from the session layer, which knows no pages. A handler
//! that can say more than "that did not work" leaves it here before.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::shop::failure::Failure;

/// The answer in the place of the handler's, when the store was out of reach for its commit.
#[derive(Debug)]
pub(crate) enum Instead {
    /// What was asked for is done: only a message for the next page is lost.
    Redirect(String),
    Failure(Failure),
}

/// In the extensions of every request of a visitor: `failure::dress_commit` puts it there and looks at it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uncommitted(Arc<Mutex<Option<Instead>>>);

impl Uncommitted {
    /// What to answer when the commit fails.
    pub(crate) fn answer(&self, instead: Instead) {
        *self.0.lock() = Some(instead);
    }

    pub(crate) fn take(&self) -> Option<Instead> {
        self.0.lock().take()
    }
}
