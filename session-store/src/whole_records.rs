//! `tower_sessions::SessionStore` on the store itself, without our layer.

use async_trait::async_trait;
use time::OffsetDateTime;
use tower_sessions::{
    SessionStore,
    session::{Id, Record},
    session_store,
};

use crate::{
    CacheStore, StoreError,
    backend::{Committed, Write},
    encryption::BIND_FIELD,
    expiry::{ExpiryPolicy, from_unix_ms, unix_ms},
    keys::Tag,
    record::{decode, encode},
};

impl CacheStore {
    /// Where the session of this id is. A round trip only while there are former keys.
    async fn locate(&self, id: &Id) -> Result<Tag, StoreError> {
        let keys = self.keys();
        let found = match keys.has_former() {
            true => self.which_exists(&keys.session_tags(id).collect::<Vec<_>>()).await?,
            false => None,
        };
        Ok(found.unwrap_or_else(|| keys.session_tag(id)))
    }
}

/// For those who stay with `tower_sessions::SessionManagerLayer`: whole records instead of differences, and reads that
/// do not extend the idle timeout, because that layer does not tell the store of its policy.
///
/// ```no_run
/// # async fn example() -> Result<(), session_store::StoreError> {
/// use session_store::CacheStore;
/// use tower_sessions::SessionManagerLayer;
///
/// let store = CacheStore::connect("redis://127.0.0.1:6379").await?;
/// let layer = SessionManagerLayer::new(store);
/// # Ok(())
/// # }
/// ```
#[async_trait]
impl SessionStore for CacheStore {
    /// Draws an id of its own: one that came from outside is never adopted.
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let policy = ExpiryPolicy::At(unix_ms(record.expiry_date));
        let fields = encode(&record.data)?;
        let write = Write::bare(policy);
        record.id = self.create_session(&write, &fields.into()).await?.0;
        Ok(())
    }

    /// Replaces the record. One that was deleted meanwhile stays deleted, and the call fails.
    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let policy = ExpiryPolicy::At(unix_ms(record.expiry_date));
        let fields = encode(&record.data)?;
        let tag = self.locate(&record.id).await?;
        let bind_field = match self.vault().is_on() {
            true => self.read_field(&tag, BIND_FIELD).await?,
            false => None,
        };
        let binding = self.vault().binding(&tag, bind_field.as_deref())?;
        let fields = self.vault().seal(&binding, &[], fields.into())?;
        match self.replace_session(&tag, &Write::bare(policy), &fields).await? {
            Committed::Done { .. } => Ok(()),
            Committed::Gone | Committed::Ended | Committed::CartChanged | Committed::FieldChanged(_) => {
                Err(StoreError::SessionEnded.into())
            }
        }
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let tag = self.locate(id).await?;
        let read = self.read_session(&tag).await;
        let read = read.and_then(|stored| Ok((decode(&stored.fields)?, stored)));
        let (data, stored) = match read {
            Err(error) if error.is_corrupt() => {
                self.quarantine(&tag, None, &error).await?;
                return Ok(None);
            }
            read => read?,
        };
        if stored.revision.is_none() {
            return Ok(None);
        }
        let expires_at_ms = unix_ms(OffsetDateTime::now_utc()).saturating_add(stored.remaining_ms);
        Ok(Some(Record { id: *id, data, expiry_date: from_unix_ms(expires_at_ms) }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.end_session(&self.locate(id).await?, None).await?;
        Ok(())
    }
}
