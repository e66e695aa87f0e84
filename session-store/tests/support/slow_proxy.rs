//! A server that answers late: what it says waits a while on its way back.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Server;

/// Pieces of answers that are on their way at once.
const PIECES_MAX: usize = 10_000;
const PIECE_BYTES: usize = 64 << 10;
/// From the shortest to the longest.
const DELAYS_MS: RangeInclusive<u64> = 100..=400;

#[derive(Default)]
struct Delays {
    shortest_ms: AtomicU64,
    longest_ms: AtomicU64,
}

impl Delays {
    fn draw(&self, random: &mut StdRng) -> Duration {
        let shortest_ms = self.shortest_ms.load(Ordering::SeqCst);
        Duration::from_millis(random.random_range(shortest_ms..=self.longest_ms.load(Ordering::SeqCst).max(shortest_ms)))
    }
}

pub struct SlowProxy {
    pub port: u16,
    delays: Arc<Delays>,
    _accepting: JoinSet<()>,
}

impl SlowProxy {
    /// In front of this server, and fast until it is told to be [slow](Self::slow).
    pub async fn start(server: &Server, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port);
        let delays = Arc::<Delays>::default();
        let mut accepting = JoinSet::new();
        let slow = Arc::clone(&delays);
        accepting.spawn(async move {
            let (mut connections, mut number) = (JoinSet::new(), 0);
            while let Ok((client, _)) = listener.accept().await {
                number += 1;
                connections.spawn(carry(client, to, Arc::clone(&slow), StdRng::seed_from_u64(seed + number)));
            }
        });
        Self { port, delays, _accepting: accepting }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Each answer comes 100 to 400 ms late, and none before the one in front of it.
    pub fn slow(&self, is_slow: bool) {
        self.late_ms(if is_slow { DELAYS_MS } else { 0..=0 });
    }

    /// Each answer comes so many ms late, and none before the one in front of it.
    pub fn late_ms(&self, delays_ms: RangeInclusive<u64>) {
        self.delays.shortest_ms.store(*delays_ms.start(), Ordering::SeqCst);
        self.delays.longest_ms.store(*delays_ms.end(), Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, to: u16, delays: Arc<Delays>, random: StdRng) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    // Whoever ends first ends the others: they are dropped.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = receive(from_server, sender, delays, random) => {}
        () = deliver(to_client, receiver) => {}
    }
}

type Piece = (Instant, Vec<u8>);

async fn receive(mut from: OwnedReadHalf, sender: mpsc::Sender<Piece>, delays: Arc<Delays>, mut random: StdRng) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let due = Instant::now() + delays.draw(&mut random);
        if sender.send((due, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn deliver(mut to: OwnedWriteHalf, mut receiver: mpsc::Receiver<Piece>) {
    while let Some((due, piece)) = receiver.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
