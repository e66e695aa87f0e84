//! Events on a pub/sub channel of the node, for clients that have a connection to it anyway.
//!
//! As all of pub/sub it reaches those who listen at that moment. Whoever must miss nothing takes a webhook or `/v1/events`.

use std::sync::Arc;

use crate::{
    events::Follower,
    node::{EventKind, Shared},
};

/// The channel's name; a message is an event as `/v1/events` has it. Those of replicas are theirs: they hear of this node what it is to them.
const CHANNEL: &[u8] = b"__node__:events";

/// What a pattern must begin with to be sent events: one as `*` or `__key*` is for what Redis has as well.
const PREFIX: &[u8] = b"__node__";

/// Publishes until the task is aborted.
pub(super) async fn run(mut events: Follower<EventKind>, shared: Arc<Shared>) {
    let mut dropped = 0;
    while let Some(event) = events.next().await {
        if events.dropped() > dropped {
            dropped = events.dropped();
            tracing::warn!(dropped, "events came faster than they were published on the channel");
        }
        let message = serde_json::to_vec(&event).expect("an event has string keys and no floats");
        shared.pubsub.publish_own(PREFIX, CHANNEL, &message, shared.config().pubsub_buffer_limit);
    }
}
