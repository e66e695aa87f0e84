//! Follows what the store says of changes, over a connection of its own, for as long as there is a store.

use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use redis::RedisError;
use tokio::time::{sleep, timeout};

use super::Entries;
use crate::{
    keys::Tag,
    store::Inner,
    wire::{Item, Malformed, OnPush, Reply, Wire},
};

/// From one attempt to connect to the next.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Signs of life asked for in the time after which nothing may be served without one.
const BEATS_PER_STALENESS: u32 = 4;

/// Runs until the last handle on the store is gone.
pub(crate) async fn follow(store: Weak<Inner>, entries: Arc<Entries>) {
    let mut has_complained = false;
    loop {
        let connected = match store.upgrade() {
            Some(store) => connect(&store, &entries).await,
            None => return,
        };
        match connected {
            Ok(wire) => {
                has_complained = false;
                beat(&store, &wire, &entries).await;
                entries.lose();
                tracing::debug!("the near cache was dropped, the connection that tells of changes ended");
            }
            Err(reason) if !has_complained => {
                has_complained = true;
                tracing::warn!(reason, "the near cache is not used: the store cannot be followed");
            }
            Err(_) => {}
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// A connection over which the store names every session that changes from now on.
async fn connect(store: &Inner, entries: &Arc<Entries>) -> Result<Wire, String> {
    let node = store.topology.node(None).await.map_err(|error| error.to_string())?;
    let on_push: OnPush = Box::new({
        let entries = Arc::clone(entries);
        move |push| {
            if take(&entries, push).is_err() {
                // Of a push that is not understood the worst is assumed.
                entries.drop_all();
            }
        }
    });
    let opened = async {
        let wire = node.open_pushed(&AtomicBool::new(false), on_push).await?;
        let asked_us = entries.now_us();
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg(&["TRACKING", "ON", "BCAST", "PREFIX"]).arg(store.keys.session_prefix());
        send(&wire, &tracking).await?;
        Ok::<_, RedisError>((wire, asked_us))
    };
    let (wire, asked_us) = match timeout(node.connect_timeout(), opened).await {
        Ok(opened) => opened.map_err(|error| error.to_string())?,
        Err(_) => return Err("it does not answer in time".to_owned()),
    };
    // What was read before nobody was told of.
    entries.drop_all();
    entries.prove(asked_us);
    Ok(wire)
}

/// Proves again and again that all changes have been told; returns when that does not succeed.
async fn beat(store: &Weak<Inner>, wire: &Wire, entries: &Entries) {
    let staleness_max = entries.settings().staleness_max;
    let ping = redis::cmd("PING");
    loop {
        sleep(staleness_max / BEATS_PER_STALENESS).await;
        if store.strong_count() == 0 {
            return;
        }
        let asked_us = entries.now_us();
        match timeout(staleness_max, send(wire, &ping)).await {
            Ok(Ok(())) => entries.prove(asked_us),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn send(wire: &Wire, command: &redis::Cmd) -> Result<(), RedisError> {
    let reply = wire.ask(command).await?;
    reply.error().map_or(Ok(()), Err)
}

/// `invalidate` and a list of keys, or null for all of them.
fn take(entries: &Entries, mut push: Reply) -> Result<(), Malformed> {
    let Item::List(_) = push.next()? else { return Ok(()) };
    if push.next()? != Item::String("invalidate".into()) {
        return Ok(());
    }
    match push.next()? {
        Item::List(keys) => {
            for _ in 0..keys {
                match push.next()? {
                    Item::String(key) => match Tag::of_key(&key) {
                        Some(tag) => entries.invalidate(&tag),
                        None => entries.drop_all(),
                    },
                    _ => entries.drop_all(),
                }
            }
        }
        _ => entries.drop_all(),
    }
    Ok(())
}
