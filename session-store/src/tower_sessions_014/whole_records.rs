//! The store for the layers of tower-sessions 0.14, as [`CacheStore`] is one for those of today.

use async_trait::async_trait;
use tower_sessions::session;
use tower_sessions_core_014::{
    SessionStore,
    session::{Id, Record},
    session_store,
};

use super::error_outwards;
use crate::CacheStore;

/// For those who stay with `SessionManagerLayer` of tower-sessions 0.14, with what that means: whole records, and reads that do not
/// extend the idle timeout.
#[async_trait]
impl SessionStore for CacheStore {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let mut ours = inwards(record);
        tower_sessions::SessionStore::create(self, &mut ours).await.map_err(error_outwards)?;
        record.id = Id(ours.id.0);
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        tower_sessions::SessionStore::save(self, &inwards(record)).await.map_err(error_outwards)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let found = tower_sessions::SessionStore::load(self, &session::Id(id.0)).await.map_err(error_outwards)?;
        Ok(found.map(|record| Record { id: Id(record.id.0), data: record.data, expiry_date: record.expiry_date }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        tower_sessions::SessionStore::delete(self, &session::Id(id.0)).await.map_err(error_outwards)
    }
}

fn inwards(record: &Record) -> session::Record {
    session::Record { id: session::Id(record.id.0), data: record.data.clone(), expiry_date: record.expiry_date }
}
