//! Records that other software has written, and those that nobody can read.

use std::time::Duration;

use redis::{Pipeline, Value};
use time::OffsetDateTime;
use tower_sessions::session::{Id, Record};

use crate::{
    CacheStore, StoreError,
    backend::{GRACE_MS, Write, absolute, number_at},
    keys::Tag,
    metrics,
    record::{VERSION, bytes, corrupt, encode, integer, unreadable},
    scripts::{QUARANTINE, TAKE_OVER, reply},
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
                call.arg(write.policy.encode());
                absolute(&mut call, write.absolute_ms);
                call.arg("@v").arg(VERSION);
                write.version_field(&mut call);
            }
            None => {
                call.arg("").arg("");
            }
        }
        if integer(&self.script(&QUARANTINE, &call).await?[0])? == reply::OK {
            self.note_quarantined();
            metrics::quarantined();
            tracing::warn!(error = %why, "a session that cannot be read was put in quarantine");
        }
        Ok(())
    }

    /// Takes a session of tower-sessions-redis-store over, if there is one of this id; whether there may be a session of
    /// ours now.
    pub(crate) async fn take_over(&self, prefix: &str, id: &Id, tag: &Tag, write: &Write) -> Result<bool, StoreError> {
        if !self.scripts_cross_slots() {
            return Ok(false);
        }
        let key = format!("{prefix}{id}");
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("GET").arg(&key);
        // In this order: when theirs is gone because another request took it over, ours is there.
        pipeline.cmd("EXISTS").arg(self.keys().session(tag));
        let mut answers = self.pipeline(&pipeline).await?.into_iter();
        let (Some(there), Some(ours)) = (answers.next(), answers.next()) else {
            return Err(unreadable("the answer for a record is missing"));
        };
        let there = match there {
            Value::Nil => return Ok(integer(&ours)? == 1),
            value => bytes(value)?,
        };
        let record: Record = match rmp_serde::from_slice(&there) {
            Ok(record) => record,
            Err(error) => {
                // Left as it is: it is not ours, and goes when its time is over.
                let error = corrupt(&format!("a record of tower-sessions is not MessagePack of its layout: {error}"));
                tracing::debug!(%error, "a record was not taken over");
                return Ok(false);
            }
        };
        if record.id != *id || record.expiry_date <= OffsetDateTime::now_utc() {
            return Ok(false);
        }
        let mut call = TAKE_OVER.call(&[&self.keys().session(tag), &key]);
        call.arg(there).arg(write.policy.encode());
        absolute(&mut call, write.absolute_ms);
        call.arg("@v").arg(VERSION);
        for field in &*self.vault().seal(tag, &[], encode(&record.data)?.into())? {
            call.arg(&field.name[..]).arg(field.stored());
        }
        let answer = self.script(&TAKE_OVER, &call).await?;
        // Taken or gone: another request was faster, and did the same.
        Ok(integer(&answer[0])? != reply::OK || number_at(&answer, 1)? > 0)
    }
}
