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
    nodes::{Node, role},
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
            Ok((wire, node)) => {
                has_complained = false;
                beat(&store, wire, node.is_primary_only(), &entries).await;
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
async fn connect(store: &Inner, entries: &Arc<Entries>) -> Result<(Wire, Arc<Node>), String> {
    let switches = entries.switches();
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
    entries.follow(switches, asked_us);
    Ok((wire, node))
}

/// Proves again and again that all changes have been told; returns when that does not succeed, or another node is to be followed.
async fn beat(store: &Weak<Inner>, mut wire: Wire, primary_only: bool, entries: &Entries) {
    let staleness_max = entries.settings().staleness_max;
    let ping = redis::cmd("PING");
    loop {
        sleep(staleness_max / BEATS_PER_STALENESS).await;
        if store.strong_count() == 0 || !entries.follows_the_right_one() {
            return;
        }
        let asked_us = entries.now_us();
        let sign_of_life = async {
            send(&wire, &ping).await?;
            // One that has become a replica hears of changes later than others are acknowledged.
            Ok::<_, RedisError>(!primary_only || role(&mut wire).await?.is_none_or(|role| role != b"slave"))
        };
        match timeout(staleness_max, sign_of_life).await {
            Ok(Ok(true)) => entries.prove(asked_us),
            Ok(Ok(false) | Err(_)) | Err(_) => return,
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
