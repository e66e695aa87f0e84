//! Looks in the background whether a node is back, while its breaker is open: no user pays for finding out.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::RedisError;
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

/// How far the attempts that are under way have come, each counted until it ends.
#[derive(Debug, Default)]
struct Progress {
    /// Have reached the node.
    reached: AtomicUsize,
    /// Were answered in time, and go on asking: one answer is not enough of a node that has relapsed.
    proving: AtomicUsize,
}

async fn run(node: Weak<Node>) {
    let progress = Arc::<Progress>::default();
    let mut attempts = FuturesUnordered::new();
    let mut last_attempt: Option<Instant> = None;
    loop {
        {
            // Not held while waiting: a store that nobody uses any more is not probed for.
            let Some(node) = node.upgrade() else { return };
            if node.breaker.is_closed() {
                return;
            }
            let pause = if progress.reached.load(Ordering::Acquire) == 0 { PROBE_PAUSE } else { PROBE_PAUSE_REACHED };
            // One that proves that the node is back is over as soon as an answer is late: no other is needed beside it.
            let is_due = progress.proving.load(Ordering::Acquire) == 0 && last_attempt.is_none_or(|last| last.elapsed() >= pause);
            if is_due && attempts.len() < PROBES_MAX {
                last_attempt = Some(Instant::now());
                attempts.push(attempt(Arc::clone(&node.transport), Arc::downgrade(&node), Arc::clone(&progress)));
            }
        }
        tokio::select! {
            Some(ended) = attempts.next() => {
                let Some(node) = node.upgrade() else { return };
                match ended {
                    Ok(connection) => return node.recovered(connection),
                    Err(Failed { reason, is_gone }) => node.breaker.reopen(&reason, is_gone),
                }
            }
            () = sleep(PROBE_PAUSE) => {}
        }
    }
}

struct Failed {
    reason: String,
    /// Whether nobody listens at the address.
    is_gone: bool,
}

impl Failed {
    fn late(reason: String) -> Self {
        Self { reason, is_gone: false }
    }
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self { reason: reason(&error), is_gone: error.is_connection_refusal() }
    }
}

async fn attempt(transport: Arc<Transport>, node: Weak<Node>, progress: Arc<Progress>) -> Result<Connection, Failed> {
    let unused = || Failed::late("nobody uses the store any more".to_owned());
    let address = node.upgrade().ok_or_else(unused)?.address.clone();
    let has_reached = AtomicBool::new(false);
    // Until the attempt has ended, with what follows the connection.
    let mut counted = None;
    let watch = async {
        // `reached` is told by a flag, which is looked at whenever the attempt might have got further.
        let mut open = std::pin::pin!(transport.open(&address, &has_reached));
        std::future::poll_fn(|cx| {
            let polled = open.as_mut().poll(cx);
            if counted.is_none() && has_reached.load(Ordering::Acquire) {
                counted = Some(Counted::among(&progress.reached));
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
    let connection = opened.map_err(|_| Failed::late(format!("no answer within {} ms", patience.as_millis())))??;
    // A request would have no answer from a node that is slower than that, and open the breaker again.
    let mut wire = connection.wire.clone();
    let mut proving = None;
    for answers in 1_u32.. {
        let answered = timeout(transport.answer_within, redis::cmd("PING").exec_async(&mut wire)).await;
        answered
            .map_err(|_| Failed::late(format!("it answers, but not within {} ms", transport.answer_within.as_millis())))??;
        if answers >= node.upgrade().ok_or_else(unused)?.breaker.proof() {
            break;
        }
        proving.get_or_insert_with(|| Counted::among(&progress.proving));
        sleep(PROBE_PAUSE).await;
    }
    Ok(connection)
}

/// Counts an attempt, until it ends.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
