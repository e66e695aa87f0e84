//! Records that nobody can read.

use std::time::Duration;

use crate::{
    CacheStore, StoreError,
    backend::{GRACE_MS, Write, absolute},
    encryption::BIND_FIELD,
    keys::Tag,
    metrics,
    record::{VERSION, integer},
    scripts::{QUARANTINE, reply},
};

/// How long a record that cannot be read is kept aside, for whoever wants to know why.
///
/// ```
/// assert_eq!(session_store::QUARANTINE_TTL.as_secs(), 7 * 24 * 3_600);
/// ```
pub const QUARANTINE_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

impl CacheStore {
    /// Moves a record that cannot be read to `<prefix>:quarantine:{tag}`. `write`: what an empty session in its place is to be
    /// like.
    pub(crate) async fn quarantine(&self, tag: &Tag, write: Option<&Write>, why: &StoreError) -> Result<(), StoreError> {
        let _changes = self.changes(tag);
        let mut call = QUARANTINE.call(&[&self.keys().session(tag), &self.keys().quarantine(tag)]);
        call.arg(QUARANTINE_TTL.as_millis().to_string()).arg(GRACE_MS);
        match write {
            Some(write) => {
                call.arg(write.policy.encode().as_bytes());
                absolute(&mut call, write.absolute_ms);
                call.arg("@v").arg(VERSION);
                write.version_field(&mut call);
                if let Some(bind) = self.sound_bind_field(tag).await {
                    call.arg(BIND_FIELD).arg(bind);
                }
            }
            None => {
                call.arg("").arg("");
            }
        }
        if integer(&self.script(&call).await?[0])? == reply::OK {
            self.note_quarantined();
            metrics::quarantined();
            tracing::warn!(error = %why, "a session that cannot be read was put in quarantine");
        }
        Ok(())
    }

    /// What the lines of the cart are bound to, where the session still tells it: the empty one must, too.
    async fn sound_bind_field(&self, tag: &Tag) -> Option<Vec<u8>> {
        if !self.vault().is_on() {
            return None;
        }
        let stored = self.read_field(tag, BIND_FIELD).await.ok()??;
        self.vault().binding(tag, Some(&stored)).is_ok().then_some(stored)
    }
}
