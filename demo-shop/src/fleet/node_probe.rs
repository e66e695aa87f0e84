//! Whether the cache node that stands alone answers: a process that hangs runs, and serves nobody.
//!
//! The nodes of a cluster are probed by their controller.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::balancer::NodeBoard;
use crate::fleet::limits::{NODE_PROBE_PERIOD, NODE_PROBE_TIMEOUT, NODE_PROBE_TIMEOUTS_MAX};

/// Notes on the board whether the node of that name answers, until the task is aborted.
pub(crate) async fn watch(board: Arc<NodeBoard>, name: String, address: SocketAddr) {
    let mut ticks = interval(NODE_PROBE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut misses = 0_u32;
    loop {
        ticks.tick().await;
        let answers = timeout(NODE_PROBE_TIMEOUT, ping(address)).await.is_ok_and(|answer| answer.is_ok());
        misses = if answers { 0 } else { misses.saturating_add(1) };
        // A late answer may only mean that the machine is busy.
        if answers || misses >= NODE_PROBE_TIMEOUTS_MAX {
            board.note_answer(&name, answers);
        }
    }
}

/// Any answer is a sign of life, an error too: the node says LOADING while it reads its log.
async fn ping(address: SocketAddr) -> std::io::Result<()> {
    let mut node = TcpStream::connect(address).await?;
    node.write_all(b"PING\r\n").await?;
    node.read_u8().await.map(drop)
}
