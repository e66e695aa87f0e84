//! `Session` of tower-sessions 0.14, which axum-login and axum-messages ask the request for, beside our own.
//!
//! Neither version lets its data be shared: each handle keeps a copy of the record. The other handle's store is therefore a
//! [`Bridge`] onto ours: it shows what ours has, and brings to it what differs, so that both changes are one commit.

mod bridge;
mod whole_records;

use std::sync::{Arc, Weak};

use http::Extensions;
use tower_sessions::{Expiry, Session, session_store::Error};
use tower_sessions_core_014 as theirs;

use self::bridge::Bridge;
use crate::{StoreError, unit_of_work::OtherHandle};

/// References to a bridge that nobody but the layer holds: its own, its handle's, and that of the handle which the bridge holds.
const OWN_REFERENCES: usize = 3;

/// The other handle of a request.
pub(crate) struct Beside {
    session: theirs::Session,
    bridge: Arc<Bridge>,
}

impl Beside {
    pub(crate) fn new(ours: &Session) -> Self {
        let expiry = ours.expiry().map(expiry_outwards);
        let bridge = Arc::new(Bridge::new(ours.clone(), expiry));
        let id = ours.id().map(|id| theirs::session::Id(id.0));
        let session = theirs::Session::new(id, Arc::clone(&bridge), expiry);
        bridge.attach(&session);
        Self { session, bridge }
    }

    pub(crate) fn give(&self, extensions: &mut Extensions) {
        extensions.insert(self.session.clone());
    }

    /// For what the handle cannot hear of by itself.
    pub(crate) fn handle(&self) -> Weak<dyn OtherHandle> {
        let bridge: Arc<dyn OtherHandle> = Arc::<Bridge>::clone(&self.bridge);
        Arc::downgrade(&bridge)
    }

    pub(crate) fn is_modified(&self) -> bool {
        self.session.is_modified()
    }

    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.bridge) > OWN_REFERENCES
    }

    /// Brings what was changed through this handle to ours, without committing it.
    pub(crate) async fn merge(&self) -> Result<(), StoreError> {
        if !self.is_modified() {
            return Ok(());
        }
        let merged = self.bridge.merge(&self.session).await;
        merged.map_err(|error| StoreError::Unreadable { reason: error.to_string() })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.bridge.release();
    }
}

fn expiry_outwards(expiry: Expiry) -> theirs::Expiry {
    match expiry {
        Expiry::OnSessionEnd => theirs::Expiry::OnSessionEnd,
        Expiry::OnInactivity(idle) => theirs::Expiry::OnInactivity(idle),
        Expiry::AtDateTime(at) => theirs::Expiry::AtDateTime(at),
    }
}

fn expiry_inwards(expiry: theirs::Expiry) -> Expiry {
    match expiry {
        theirs::Expiry::OnSessionEnd => Expiry::OnSessionEnd,
        theirs::Expiry::OnInactivity(idle) => Expiry::OnInactivity(idle),
        theirs::Expiry::AtDateTime(at) => Expiry::AtDateTime(at),
    }
}

fn error_outwards(error: Error) -> theirs::session_store::Error {
    match error {
        Error::Encode(reason) => theirs::session_store::Error::Encode(reason),
        Error::Decode(reason) => theirs::session_store::Error::Decode(reason),
        Error::Backend(reason) => theirs::session_store::Error::Backend(reason),
    }
}
