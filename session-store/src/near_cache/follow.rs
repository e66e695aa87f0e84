//! Follows what the store says of changes, over a connection of its own, for as long as there is a store.

use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use futures_util::future::try_join_all;
use redis::RedisError;
use tokio::time::{sleep, timeout};

use super::Entries;
use crate::{
    keys::Tag,
    nodes::{Node, role},
    store::Inner,
    topology::health,
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
            Ok(followed) => {
                has_complained = false;
                beat(&store, followed, &entries).await;
                entries.lose();
                tracing::debug!("the near cache was dropped, a connection that tells of changes ended");
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

/// The connections over which changes are told.
struct Followed {
    nodes: Vec<(Wire, Arc<Node>)>,
    /// Of the cluster's map.
    epoch: Option<u64>,
}

/// Connections over which the store names every session that changes from now on: one to each node that has sessions.
async fn connect(store: &Inner, entries: &Arc<Entries>) -> Result<Followed, String> {
    // Before the nodes are asked for: what changes from here on is seen when all are connected.
    let switches = entries.switches();
    let (nodes, epoch) = store.topology.primaries().await.map_err(|error| error.to_string())?;
    let asked_us = entries.now_us();
    let nodes = try_join_all(nodes.into_iter().map(|node| track(store, entries, node))).await?;
    let mut followed = Followed { nodes, epoch };
    if epoch.is_some() && !followed.is_alive().await.map_err(|error| error.to_string())? {
        store.topology.refresh();
        return Err("the nodes of the cluster do not agree".to_owned());
    }
    entries.follow(switches, asked_us);
    Ok(followed)
}

async fn track(store: &Inner, entries: &Arc<Entries>, node: Arc<Node>) -> Result<(Wire, Arc<Node>), String> {
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
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg(&["TRACKING", "ON", "BCAST", "PREFIX"]).arg(store.keys.session_prefix());
        send(&wire, &tracking).await?;
        Ok::<_, RedisError>(wire)
    };
    match timeout(node.connect_timeout(), opened).await {
        Ok(opened) => Ok((opened.map_err(|error| error.to_string())?, node)),
        Err(_) => Err("it does not answer in time".to_owned()),
    }
}

/// Proves again and again that all changes have been told; returns when that does not succeed, or another node is to be followed.
async fn beat(store: &Weak<Inner>, mut followed: Followed, entries: &Entries) {
    let staleness_max = entries.settings().staleness_max;
    loop {
        sleep(staleness_max / BEATS_PER_STALENESS).await;
        if store.strong_count() == 0 || !entries.follows_the_right_one() {
            return;
        }
        let asked_us = entries.now_us();
        match timeout(staleness_max, followed.is_alive()).await {
            Ok(Ok(true)) => entries.prove(asked_us),
            Ok(Ok(false) | Err(_)) | Err(_) => {
                if let Some(store) = store.upgrade() {
                    store.topology.refresh();
                }
                return;
            }
        }
    }
}

impl Followed {
    /// Whether each node gives a sign of life, and is still the one that takes the changes.
    async fn is_alive(&mut self) -> Result<bool, RedisError> {
        let epoch = self.epoch;
        let asked = self.nodes.iter_mut().map(|(wire, node)| async move {
            match epoch {
                Some(epoch) => agrees(wire, epoch).await,
                None => is_primary(wire, node).await,
            }
        });
        Ok(try_join_all(asked).await?.into_iter().all(|is_alive| is_alive))
    }
}

async fn is_primary(wire: &mut Wire, node: &Node) -> Result<bool, RedisError> {
    send(wire, &redis::cmd("PING")).await?;
    // One that has become a replica hears of changes later than others are acknowledged.
    Ok(!node.is_primary_only() || role(wire).await?.is_none_or(|role| role != b"slave"))
}

/// Whether a node of a cluster has heard of nothing that is not in the map. A replica takes over with the votes of most primaries, who have
/// heard of its epoch by then: where all of them are asked, one has, and so nobody else takes the changes of a session that is served.
async fn agrees(wire: &mut Wire, epoch: u64) -> Result<bool, RedisError> {
    let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(wire).await?;
    // With RESP3 it is a text that says of which form it is.
    Ok(health(info.strip_prefix("txt:").unwrap_or(&info)) == (true, epoch))
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
