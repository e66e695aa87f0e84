//! Events on a pub/sub channel of the primary, for clients that have a connection to it anyway.
//!
//! As all of pub/sub it reaches those who listen at that moment. Whoever must miss nothing takes a webhook or `/v1/events`.

use std::{net::SocketAddr, sync::Arc};

use tokio::{sync::watch, time::timeout};

use crate::cluster::{
    events::{Event, Follower},
    limits::{CALL_MAX, PRIMARY_WAIT_MAX},
    link::{Link, LinkError},
    view::View,
};

/// The channel's name; a message is an event as `/v1/events` has it.
pub(super) const CHANNEL: &str = "__cluster__:events";

/// Publishes until the task is aborted.
pub(super) async fn run(mut events: Follower, mut view: watch::Receiver<Arc<View>>) {
    while let Some(event) = events.next().await {
        // A failover's events come while nobody is the primary: the next one tells them.
        let waiting = async { view.wait_for(|view| view.primary.is_some()).await.ok().and_then(|view| view.primary) };
        let Ok(Some(address)) = timeout(PRIMARY_WAIT_MAX, waiting).await else { continue };
        if let Err(error) = publish(address, &event).await {
            tracing::debug!(kind = ?event.kind, %error, "an event was not published");
        }
    }
}

async fn publish(primary: SocketAddr, event: &Event) -> Result<(), LinkError> {
    let message = serde_json::to_string(event).expect("an event has string keys and no floats");
    Link::open(primary).await?.call(&["PUBLISH", CHANNEL, &message], CALL_MAX).await?;
    Ok(())
}
