//! The store of the other handle: ours.
//!
//! Locks of records are taken in one order: theirs, then ours. The unit of work, which our handle calls with its record locked, knows
//! nothing of the other handle.

use std::fmt;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value as Json;
use tower_sessions::{Session, session};
use tower_sessions_core_014::{
    self as theirs, SessionStore,
    session::{Id, Record},
    session_store,
};

use super::{error_outwards, expiry_inwards, expiry_outwards};
use crate::{
    look::{self, Data, look},
    unit_of_work::{DESERTED_MARK, HELD_MARK, OtherHandle, adopted},
};

pub(super) struct Bridge {
    ours: Session,
    // Never held across an await.
    state: Mutex<State>,
    /// The handle that the application has; taken out when the request is done, since it holds this bridge.
    theirs: Mutex<Option<theirs::Session>>,
}

struct State {
    /// What both handles agreed on when the other one was last shown something, or brought something.
    agreed: Option<Data>,
    expiry: Option<theirs::Expiry>,
    /// Whether there is something that the other handle has not been shown before it first asks.
    sent: bool,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No ids: this ends up in the debug output of every `Session`.
        f.debug_struct("Bridge").finish_non_exhaustive()
    }
}

impl Bridge {
    pub(super) fn new(ours: Session, expiry: Option<theirs::Expiry>) -> Self {
        let sent = ours.id().is_some();
        Self { ours, state: Mutex::new(State { agreed: None, expiry, sent }), theirs: Mutex::default() }
    }

    pub(super) fn attach(&self, session: &theirs::Session) {
        *self.theirs.lock() = Some(session.clone());
    }

    /// Ends the circle of handle and bridge.
    pub(super) fn release(&self) {
        // Dropped after the lock: it may be the last handle.
        let session = self.theirs.lock().take();
        drop(session);
    }

    fn attached(&self) -> Option<theirs::Session> {
        self.theirs.lock().clone()
    }

    pub(super) async fn merge(&self, session: &theirs::Session) -> Result<(), session_store::Error> {
        let data = look_at_theirs(session).await.map_err(unwrapped)?;
        self.bring(&data).await
    }

    /// Brings what differs from what was agreed on; everything else is as our handle has it.
    async fn bring(&self, data: &Data) -> session_store::Result<()> {
        let (agreed, sent) = {
            let state = self.state.lock();
            (state.agreed.clone(), state.sent)
        };
        if agreed.is_none() && sent {
            // It was emptied before anybody asked what was in it.
            self.ours.clear().await;
        }
        let agreed = agreed.unwrap_or_default();
        for (key, value) in data.iter().filter(|(key, value)| agreed.get(*key) != Some(value)) {
            self.ours.insert_value(key, value.clone()).await.map_err(outwards)?;
        }
        for key in agreed.keys().filter(|key| !data.contains_key(*key)) {
            self.ours.remove_value(key).await.map_err(outwards)?;
        }
        let chosen = self.attached().map(|session| session.expiry());
        let news = {
            let mut state = self.state.lock();
            state.agreed = Some(data.clone());
            chosen.filter(|chosen| *chosen != state.expiry).inspect(|chosen| state.expiry = *chosen)
        };
        if let Some(expiry) = news {
            self.ours.set_expiry(expiry.map(expiry_inwards));
        }
        Ok(())
    }

    /// Shows the other handle, which has had no id and has been shown nothing so far, what ours has, beside what is in it.
    async fn show(&self, data: &mut Data) -> session_store::Result<()> {
        let is_shown = self.state.lock().agreed.as_ref().is_some_and(|agreed| !agreed.is_empty());
        if !is_shown {
            let ours = look_at_ours(&self.ours).await.map_err(outwards)?;
            for (key, value) in &ours {
                data.entry(key.clone()).or_insert_with(|| value.clone());
            }
            self.state.lock().agreed = Some(ours);
        }
        Ok(())
    }

    /// Shows the other handle what was saved through it, with what only handles show.
    async fn show_saved(&self, data: &mut Data) -> session_store::Result<()> {
        let ours = look_at_ours(&self.ours).await.map_err(outwards)?;
        data.clone_from(&ours);
        self.state.lock().agreed = Some(ours);
        Ok(())
    }

    /// Gives the other handle what ours holds, behind what it has brought: all where it has no id, with which it would tell that it was emptied.
    async fn give(&self, session: &theirs::Session) -> session_store::Result<()> {
        if session.id().is_some() {
            return self.mark(session, HELD_MARK).await;
        }
        let agreed = self.state.lock().agreed.clone();
        let ours = look_at_ours(&self.ours).await.map_err(outwards)?;
        for (key, value) in &ours {
            session.insert_value(key, value.clone()).await.map_err(unwrapped)?;
        }
        for key in agreed.iter().flat_map(Data::keys).filter(|key| !ours.contains_key(*key)) {
            session.remove_value(key).await.map_err(unwrapped)?;
        }
        self.state.lock().agreed = Some(ours);
        Ok(())
    }

    /// Leaves a mark of ours in the other handle too, so that ours loses it when that one is emptied.
    async fn mark(&self, session: &theirs::Session, mark: &str) -> session_store::Result<()> {
        let is_shown = match &mut self.state.lock().agreed {
            Some(agreed) => {
                agreed.insert(mark.to_owned(), Json::Bool(true));
                true
            }
            // It comes with the rest when it is read.
            None => false,
        };
        if is_shown {
            session.insert_value(mark, Json::Bool(true)).await.map_err(unwrapped)?;
        }
        Ok(())
    }

    /// Lets the other handle know the session's own expiry, unless the application has set one through it.
    fn show_expiry(&self) {
        let (session, expiry) = (self.attached(), self.ours.expiry().map(expiry_outwards));
        let mut state = self.state.lock();
        if let Some(session) = session
            && session.expiry() == state.expiry
            && expiry != state.expiry
        {
            session.set_expiry(expiry);
            state.expiry = expiry;
        }
    }
}

#[async_trait]
impl OtherHandle for Bridge {
    async fn take_id(&self) {
        if let Some(session) = self.attached().filter(|session| session.id().is_none())
            && let Err(error) = session.save().await
        {
            // The change of the cart is done all the same, and the next save brings the id.
            tracing::debug!(%error, "the other handle does not learn of the session that a cart has begun");
        }
    }

    async fn bring(&self) {
        if let Some(session) = self.attached().filter(theirs::Session::is_modified)
            && (session.id().is_none() || self.state.lock().agreed.is_none())
            && let Err(error) = self.merge(&session).await
        {
            // The commit finds it again.
            tracing::debug!(%error, "our handle does not learn of what was changed through the other one");
        }
    }

    async fn share(&self) {
        if let Some(session) = self.attached()
            && let Err(error) = self.give(&session).await
        {
            tracing::debug!(%error, "the other handle does not show what ours does");
        }
    }

    fn has_id(&self) -> bool {
        self.attached().is_some_and(|session| session.id().is_some())
    }
}

#[async_trait]
impl SessionStore for Bridge {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        if let Some(id) = adopted() {
            self.show(&mut record.data).await?;
            record.id = Id(id.0);
            return Ok(());
        }
        self.save(record).await?;
        if let Some(id) = self.ours.id() {
            record.id = Id(id.0);
        }
        if look::is_under_way() { Ok(()) } else { self.show_saved(&mut record.data).await }
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        if look::shows(&record.data) || adopted().is_some() {
            return Ok(());
        }
        self.bring(&record.data).await?;
        self.ours.save().await.map_err(outwards)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let data = look_at_ours(&self.ours).await.map_err(outwards)?;
        self.state.lock().agreed = Some(data.clone());
        self.show_expiry();
        Ok(Some(Record { id: *id, data, expiry_date: self.ours.expiry_date() }))
    }

    async fn delete(&self, _id: &Id) -> session_store::Result<()> {
        if look::is_under_way() {
            return Ok(());
        }
        let done = match self.attached() {
            // `cycle_id` forgets the id before it calls, with the record locked; `flush` and `delete` after.
            Some(session) if session.id().is_none() => self.ours.cycle_id().await,
            // `flush` empties the record before it calls, `delete` does not. What was not modified was not emptied, and may not be read yet.
            Some(session) if session.is_modified() && look_at_theirs(&session).await.map_err(unwrapped)?.is_empty() => {
                self.state.lock().agreed = Some(Data::default());
                self.ours.flush().await
            }
            Some(session) => {
                if session.is_modified() {
                    // What was put into it before is of the session that ends.
                    self.merge(&session).await?;
                }
                self.ours.delete().await.map_err(outwards)?;
                return self.mark(&session, DESERTED_MARK).await;
            }
            None => self.ours.delete().await,
        };
        done.map_err(outwards)
    }
}

/// A handle without an id would take the one of the record: it is made to forget it.
async fn look_at_ours(session: &Session) -> Result<Data, session::Error> {
    look(async {
        let had_id = session.id().is_some();
        session.save().await?;
        if had_id { Ok(()) } else { session.cycle_id().await }
    })
    .await
}

async fn look_at_theirs(session: &theirs::Session) -> Result<Data, theirs::session::Error> {
    look(async {
        let had_id = session.id().is_some();
        session.save().await?;
        if had_id { Ok(()) } else { session.cycle_id().await }
    })
    .await
}

fn outwards(error: session::Error) -> session_store::Error {
    match error {
        session::Error::Store(error) => error_outwards(error),
        session::Error::SerdeJson(error) => session_store::Error::Encode(error.to_string()),
    }
}

fn unwrapped(error: theirs::session::Error) -> session_store::Error {
    match error {
        theirs::session::Error::Store(error) => error,
        theirs::session::Error::SerdeJson(error) => session_store::Error::Encode(error.to_string()),
    }
}
