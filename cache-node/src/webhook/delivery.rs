//! The events of one target, one after the other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt as _;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{sync::watch, time::sleep};

use crate::{
    events::{Event, Follower, Kind},
    webhook::{
        limits::{DELAY_MAX, DELAY_MIN, TRIES_MAX},
        post::Post,
        tally::Tally,
    },
};

/// What tells one target.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) post: Post,
    /// The cluster that the events are of.
    pub(super) cluster: Option<String>,
    /// Names the process's life in the ids of events.
    pub(super) life: String,
    pub(super) tally: Arc<Tally>,
}

/// How the tries of one event ended.
enum End {
    Delivered,
    GivenUp,
    /// The receiver wants nothing more.
    Gone,
}

impl Delivery {
    /// Runs until nothing waits any more when `ending` says so. What a receiver that is gone is not told counts as failed.
    pub(super) async fn run(self, mut events: Follower<impl Kind>, mut ending: watch::Receiver<bool>) {
        let mut is_gone = false;
        loop {
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                _ = ending.wait_for(|is_ending| *is_ending) => None,
            };
            self.tally.dropped.store(events.dropped(), Ordering::Relaxed);
            let Some(event) = event else { return };
            let end = if is_gone { End::Gone } else { self.deliver(&event, &mut ending).await };
            match end {
                End::Delivered => self.tally.delivered.fetch_add(1, Ordering::Relaxed),
                End::GivenUp => self.tally.failed.fetch_add(1, Ordering::Relaxed),
                End::Gone => {
                    is_gone = true;
                    self.tally.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }

    async fn deliver(&self, event: &Event<impl Kind>, ending: &mut watch::Receiver<bool>) -> End {
        let id = format!("evt_{}_{}", self.life, event.id);
        let body = self.body(event);
        let mut delay = DELAY_MIN;
        for number in 1..=TRIES_MAX {
            // Whoever ends has time for one more try.
            let is_last = number == TRIES_MAX || *ending.borrow();
            let error = match self.post.send(&id, &body).await {
                Ok(()) => return End::Delivered,
                Err(error) => error,
            };
            self.tally.failed_tries.fetch_add(1, Ordering::Relaxed);
            let target = self.post.shown();
            if error.is_gone() {
                tracing::warn!(target, "the webhook's receiver is gone (410): it is told nothing more");
                return End::Gone;
            }
            if is_last {
                tracing::warn!(target, kind = ?event.kind, tries = number, %error, "an event was not delivered");
                return End::GivenUp;
            }
            tracing::debug!(target, kind = ?event.kind, tries = number, %error, "an event will be tried again");
            tokio::select! {
                () = sleep(jittered(delay)) => {}
                _ = ending.wait_for(|is_ending| *is_ending) => {}
            }
            delay = (delay * 2).min(DELAY_MAX);
        }
        End::GivenUp
    }

    fn body(&self, event: &Event<impl Kind>) -> Bytes {
        let nanoseconds = i128::from(event.unix_ms) * 1_000_000;
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok().and_then(|at| at.format(&Rfc3339).ok());
        let mut data = serde_json::json!({ "id": event.id, "text": event.text });
        if let Some(cluster) = &self.cluster {
            data["cluster"] = cluster.as_str().into();
        }
        if let Some(node) = &event.node {
            data["node"] = node.as_str().into();
        }
        let body = serde_json::json!({ "type": event.kind, "timestamp": at, "data": data });
        Bytes::from(body.to_string())
    }
}

/// Between half of `delay` and all of it, so that those who failed together do not come back together.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.5..=1.0))
}
