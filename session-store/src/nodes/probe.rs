//! Looks in the background whether a node is back, while its breaker is open: no user pays for finding out.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};

use super::{Node, Transport, reason, transport::Connection};

/// From one attempt to the next, while none has reached the node.
const PROBE_PAUSE: Duration = Duration::from_millis(40);
/// From one attempt to the next, while one has reached the node and waits for its answer: a process that is stopped is not
/// to find thousands of them when it goes on, and the one that waits is answered first.
const PROBE_PAUSE_REACHED: Duration = Duration::from_millis(500);
/// Time for one attempt to reach the node. One that has reached it waits as long as others for the rest of a connection, and at least so
/// long too, so that a slow answer is told from none.
const PROBE_PATIENCE_MIN: Duration = Duration::from_secs(1);
/// Attempts under way at once. Packets of a black-holed address vanish, and the system repeats the first only after a
/// second: only a young attempt meets the address as soon as it answers.
const PROBES_MAX: usize = 25;

pub(super) fn start(node: &Arc<Node>) {
    tokio::spawn(run(Arc::downgrade(node)));
}

async fn run(node: Weak<Node>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let mut attempts = FuturesUnordered::new();
    let mut last_attempt: Option<Instant> = None;
    loop {
        {
            // Not held while waiting: a store that nobody uses any more is not probed for.
            let Some(node) = node.upgrade() else { return };
            if node.breaker.is_closed() {
                return;
            }
            let pause = if reached.load(Ordering::Acquire) == 0 { PROBE_PAUSE } else { PROBE_PAUSE_REACHED };
            let is_due = last_attempt.is_none_or(|last| last.elapsed() >= pause);
            if is_due && attempts.len() < PROBES_MAX {
                last_attempt = Some(Instant::now());
                attempts.push(attempt(Arc::clone(&node.transport), Arc::downgrade(&node), Arc::clone(&reached)));
            }
        }
        tokio::select! {
            Some(ended) = attempts.next() => {
                let Some(node) = node.upgrade() else { return };
                match ended {
                    Ok(connection) => return node.recovered(connection),
                    Err(reason) => node.breaker.reopen(&reason),
                }
            }
            () = sleep(PROBE_PAUSE) => {}
        }
    }
}

async fn attempt(transport: Arc<Transport>, node: Weak<Node>, reached: Arc<AtomicUsize>) -> Result<Connection, String> {
    let Some(address) = node.upgrade().map(|node| node.address.clone()) else {
        return Err(String::new());
    };
    let has_reached = AtomicBool::new(false);
    // Until the attempt has ended, with what follows the connection.
    let mut counted = Counted(None);
    let watch = async {
        // `reached` is told by a flag, which is looked at whenever the attempt might have got further.
        let mut open = std::pin::pin!(transport.open(&address, &has_reached));
        std::future::poll_fn(|cx| {
            let polled = open.as_mut().poll(cx);
            if counted.0.is_none() && has_reached.load(Ordering::Acquire) {
                reached.fetch_add(1, Ordering::AcqRel);
                counted.0 = Some(Arc::clone(&reached));
                if let Some(node) = node.upgrade() {
                    node.breaker.half_open();
                }
            }
            polled
        })
        .await
    };
    let mut watch = std::pin::pin!(watch);
    let mut patience = PROBE_PATIENCE_MIN;
    let mut opened = timeout(patience, watch.as_mut()).await;
    if opened.is_err() && has_reached.load(Ordering::Acquire) {
        patience = patience.max(transport.connect_timeout);
        opened = timeout(patience.saturating_sub(PROBE_PATIENCE_MIN), watch).await;
    }
    let connection = match opened {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(reason(&error)),
        Err(_) => return Err(format!("no answer within {} ms", patience.as_millis())),
    };
    // A request would have no answer from a node that is slower than that, and open the breaker again.
    let mut wire = connection.wire.clone();
    match timeout(transport.answer_within, redis::cmd("PING").exec_async(&mut wire)).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("it answers, but not within {} ms", transport.answer_within.as_millis())),
    }
}

/// Counts an attempt as one that has reached the node, until it ends.
struct Counted(Option<Arc<AtomicUsize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(reached) = &self.0 {
            reached.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
