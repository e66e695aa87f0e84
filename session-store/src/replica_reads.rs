//! Reads of sessions from replicas: opt-in, and never behind what the visitor has changed.
//!
//! A replica is a hint: one that does not answer soon, has no such session, or is behind what the client has seen leaves the read to
//! the primary. Its answer is used for nothing but reading; every write, and the decision that there is no session, are the primary's.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    CacheStore,
    backend::SessionRead,
    deadline::Deadline,
    error::is_not_serving,
    keys::{Name, Tag},
    metrics::{self, InFlight, Operation, ReplicaRead},
    nodes::{Failure, is_broken},
    record::StoredSession,
    topology::Slot,
    wire::{Reply, Unanswered},
};

/// A replica has this part of the deadline, so that one that hangs leaves the primary the rest of the visitor's patience.
const DEADLINE_PARTS: u32 = 4;

/// What a replica is waited for.
pub(crate) fn replica_deadline(deadline: Duration) -> Duration {
    deadline / DEADLINE_PARTS
}

impl CacheStore {
    pub(crate) fn reads_replicas(&self) -> bool {
        self.inner.topology.has_replicas()
    }

    /// The session as a replica has it, if it is there at this revision or a later one.
    pub(crate) async fn read_session_from_replica(&self, tag: &Tag, revision_min: u64) -> Option<StoredSession> {
        let key = self.keys().session(tag);
        let read = async {
            let mut reply = self.ask_replica(key).await?;
            let mut stored = StoredSession::parse(&mut reply).ok()?;
            self.open(tag, &mut stored).ok()?;
            Some(stored)
        };
        let (outcome, stored) = match read.await {
            None => (ReplicaRead::Failed, None),
            Some(stored) => match stored.revision {
                None => (ReplicaRead::Missing, None),
                Some(revision) if revision < revision_min => (ReplicaRead::Behind, None),
                Some(_) => (ReplicaRead::Served, Some(stored)),
            },
        };
        metrics::replica_read(outcome);
        stored
    }

    async fn ask_replica(&self, key: Name<'_>) -> Option<Reply> {
        let topology = &self.inner.topology;
        let node = topology.replica(Slot::of_key(key.to_string().as_bytes()))?;
        let (began, within) = (Instant::now(), replica_deadline(self.inner.deadline));
        // Outside of the attempt, so that it is still known when the attempt is dropped.
        let mut origin = None;
        let deadline = Deadline::at(began + within);
        let asked = deadline.bound(async {
            let mut place = self.inner.pool.take().await.ok()?;
            let _in_flight = InFlight::begin();
            let (handle, from) = place.handle(&node, began).await.ok()?;
            let origin = origin.insert(from);
            let read = SessionRead { session: key, cart: None, extension: None };
            let asked = handle.connection.wire.ask_until(&read, &deadline).await;
            let error = match asked {
                Ok(reply) => match reply.error() {
                    None => {
                        origin.answered();
                        return Some(reply);
                    }
                    Some(error) => error,
                },
                Err(Unanswered::Closed(error)) => error,
                Err(Unanswered::Late) => {
                    origin.unanswered(began, within);
                    return None;
                }
            };
            if is_broken(&error) {
                origin.broke();
                return None;
            }
            origin.answered();
            if error.code().is_some_and(is_not_serving) {
                origin.broke();
                node.failed(Failure::NotServing, error.detail().unwrap_or(error.category()));
            }
            // Its slot has moved, or it is no replica any more.
            topology.refresh();
            None
        });
        let reply = asked.await.unwrap_or_else(|| {
            if let Some(origin) = &origin {
                origin.unanswered(began, within);
            }
            None
        })?;
        Operation::Read.ended(began.elapsed(), None);
        Some(reply)
    }
}
