//! Serving a replica: from where it can go on, or a snapshot first; then the stream, and what it confirms.

use std::{
    future::poll_fn,
    io::{self, Write},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    thread,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time,
};

use crate::{
    keyspace::Now,
    node::{ClientEntry, EventKind, Shared},
    persistence::{self, write_snapshot},
    protocol::{Limits, RequestParser},
    replication::{PrimaryAddress, Replica, ReplicaState, SyncRequest},
    server::now,
};

/// Bytes that are sent at once: others of the thread wait for as long as the kernel copies them.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks of a snapshot that wait for the socket; then the walk waits.
const CHUNKS_WAITING_MAX: usize = 32;

/// How often a replica that waits for its snapshot is told that this node lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A replica that takes no bytes for so long is closed, beside `repl-timeout`.
const SEND_TIME_MAX: Duration = Duration::from_secs(60);

/// How long the end of the node waits for a replica to confirm everything, and how often it looks.
const END_TIME_MAX: Duration = Duration::from_secs(1);
const END_LOOK: Duration = Duration::from_millis(20);

/// How long a replica may take to load its snapshot.
const LOADING_TIME_MAX: Duration = Duration::from_secs(600);

/// What a replica sends: REPLCONF ACK, nothing larger.
const LIMITS: Limits = Limits { bulk_bytes_max: 1024, arguments_max: 16 };

/// Serves the replica behind `stream` until it goes away, falls too far behind, or is closed.
pub(crate) async fn serve(shared: Arc<Shared>, stream: &TcpStream, client: &Arc<ClientEntry>, request: SyncRequest) {
    let replica = Arc::new(Replica::new(Arc::clone(client), request.hints.clone(), now()));
    client.is_replica.store(true, Ordering::Relaxed);
    let epoch = shared.replication.epoch();
    shared.replication.replicas.add(&replica);
    let mut session = Session {
        shared: &shared,
        stream,
        replica: &replica,
        incoming: Vec::new(),
        parser: RequestParser::default(),
        has_confirmed: false,
    };
    let PrimaryAddress { host, port } = replica.place();
    let address = format!("{host}:{port}");
    let outcome = session.run(&request).await;
    let now = now();
    // One that was silent was waited for already, and one of an earlier role does not count.
    let grace = shared.config().sync_grace;
    let is_same_role = shared.replication.epoch() == epoch;
    let counts_on = is_same_role && replica.lag(now) < grace;
    let forgotten_at = counts_on.then(|| Now { unix_ms: now.unix_ms + grace.as_millis() as u64 });
    shared.replication.replicas.remove(&replica, &shared.journal, forgotten_at);
    shared.replication.judge(&shared, now);
    // One that comes and goes without ever having its data is not one that was lost; and who ends, or follows another node now, loses all.
    let was_there = is_same_role && replica.state() == ReplicaState::Online && !shared.is_stopping.load(Ordering::Acquire);
    match outcome {
        Ok(()) if was_there => shared.tell(EventKind::ReplicaLost, format!("the replica {address} was closed")),
        Err(error) if was_there => shared.tell(EventKind::ReplicaLost, format!("the replica {address} was lost: {error}")),
        Ok(()) => tracing::info!(replica = %address, "replica closed"),
        Err(error) => tracing::warn!(replica = %address, %error, "replica lost"),
    }
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    stream: &'a TcpStream,
    replica: &'a Arc<Replica>,
    incoming: Vec<u8>,
    parser: RequestParser,
    has_confirmed: bool,
}

impl Session<'_> {
    async fn run(&mut self, request: &SyncRequest) -> io::Result<()> {
        let replication = &self.shared.replication;
        if replication.primary().is_some() && !replication.has_stream() {
            return self.send(b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n").await;
        }
        let counters = &replication.counters;
        if let Some((id, offset)) = &request.wanted {
            // Held before it is looked for, so that it does not go away between.
            replication.replicas.moved(self.replica, *offset, &self.shared.journal);
            if replication.can_go_on(self.shared, id, *offset) {
                counters.sync_partial_ok.fetch_add(1, Ordering::Relaxed);
                tracing::info!(replica = %self.replica.client.address, offset, "replica goes on");
                let id = replication.ids().id;
                let reply = if request.hints.has_psync2 { format!("+CONTINUE {id}\r\n") } else { "+CONTINUE\r\n".to_owned() };
                self.send(reply.as_bytes()).await?;
                self.come_online();
                return self.send_stream(*offset).await;
            }
            replication.replicas.moved(self.replica, u64::MAX, &self.shared.journal);
            counters.sync_partial_err.fetch_add(1, Ordering::Relaxed);
        }
        counters.sync_full.fetch_add(1, Ordering::Relaxed);
        let offset = self.send_snapshot(request).await?;
        self.send_stream(offset).await
    }

    /// Sends the whole data, and gives the stream's offset behind it.
    async fn send_snapshot(&mut self, request: &SyncRequest) -> io::Result<u64> {
        let is_streamed = request.hints.reads_eof && self.shared.config().repl_diskless_sync;
        let (chunks, mut receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (begun, mut has_begun) = oneshot::channel();
        let (shared, replica) = (Arc::clone(self.shared), Arc::clone(self.replica));
        thread::Builder::new()
            .name("cache-node-sync".to_owned())
            .spawn(move || make_snapshot(&shared, &replica, is_streamed, begun, Chunks { sender: chunks, chunk: Vec::new() }))?;
        // Another snapshot may be under way.
        let begun = loop {
            match time::timeout(SIGN_OF_LIFE, &mut has_begun).await {
                Ok(Ok(begun)) => break begun,
                Ok(Err(_)) => return Err(io::Error::other("the snapshot could not be made")),
                Err(_) if request.is_old => {}
                Err(_) => self.send(b"\n").await?,
            }
        };
        tracing::info!(replica = %self.replica.client.address, offset = begun.offset, "sending a snapshot to a replica");
        if !request.is_old {
            self.send(format!("+FULLRESYNC {} {}\r\n", begun.id, begun.offset).as_bytes()).await?;
        }
        let mark = is_streamed.then(super::new_id);
        if let Some(mark) = &mark {
            self.send(format!("$EOF:{mark}\r\n").as_bytes()).await?;
        }
        loop {
            let next = match time::timeout(SIGN_OF_LIFE, receiver.recv()).await {
                Ok(next) => next,
                // While the file is made.
                Err(_) if mark.is_none() => {
                    self.send(b"\n").await?;
                    continue;
                }
                Err(_) => {
                    self.check_closing()?;
                    continue;
                }
            };
            match next {
                Some(Chunk::Bytes(bytes)) => {
                    self.send(&bytes).await?;
                    // The next one may be there already, and the socket take it: others of this thread have their turn.
                    tokio::task::yield_now().await;
                }
                Some(Chunk::Length(length)) => self.send(format!("${length}\r\n").as_bytes()).await?,
                Some(Chunk::End) => break,
                None => return Err(io::Error::other("the snapshot was not finished")),
            }
        }
        if let Some(mark) = mark {
            self.send(mark.as_bytes()).await?;
            self.first_confirmation().await?;
        }
        self.come_online();
        Ok(begun.offset)
    }

    /// Waits until the replica has loaded its snapshot. Redis looks for the mark at the very end of what it has read: the stream must not
    /// come in one go with it.
    async fn first_confirmation(&mut self) -> io::Result<()> {
        let deadline = time::Instant::now() + self.shared.config().repl_timeout.max(LOADING_TIME_MAX);
        while !self.has_confirmed {
            tokio::select! {
                ready = self.stream.readable() => ready?,
                () = closing(&self.replica.client) => return Err(io::Error::other("it was closed")),
                () = time::sleep_until(deadline) => return Err(io::Error::other("it did not load its snapshot in time")),
            }
            self.take_confirmations()?;
        }
        Ok(())
    }

    /// Sends the stream from `offset` on, and takes what the replica confirms.
    async fn send_stream(&mut self, offset: u64) -> io::Result<()> {
        let journal = &self.shared.journal;
        let mut position = offset;
        let mut outgoing: Vec<u8> = Vec::new();
        let mut sent = 0;
        let mut blocked_since: Option<time::Instant> = None;
        // The node ends: the replica is to have everything, so that it can go on with the next start.
        let mut ends_at: Option<time::Instant> = None;
        loop {
            let is_sent = sent == outgoing.len() && position == journal.offset();
            if ends_at.is_some_and(|at| (is_sent && self.has_everything()) || time::Instant::now() >= at) {
                return Ok(());
            }
            let grown = journal.grown();
            if sent == outgoing.len() {
                sent = 0;
                outgoing = journal.read_from(position, CHUNK_BYTES).ok_or_else(|| {
                    io::Error::other("it fell further behind than the stream is kept for it; it will begin with a snapshot")
                })?;
                position += outgoing.len() as u64;
            }
            if sent < outgoing.len() {
                match self.stream.try_write(&outgoing[sent..]) {
                    Ok(count) => {
                        sent += count;
                        blocked_since = None;
                        if sent == outgoing.len() {
                            self.shared.replication.replicas.moved(self.replica, position, journal);
                        }
                        // Others of this thread have their turn.
                        tokio::task::yield_now().await;
                        self.take_confirmations()?;
                        if !self.shared.is_stopping.load(Ordering::Acquire) {
                            self.check_closing()?;
                        }
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let since = *blocked_since.get_or_insert_with(time::Instant::now);
                        if since.elapsed() > SEND_TIME_MAX {
                            return Err(io::Error::other("it takes no bytes"));
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            let is_blocked = sent < outgoing.len();
            tokio::select! {
                () = grown, if !is_blocked => {}
                ready = self.stream.writable(), if is_blocked => ready?,
                ready = self.stream.readable() => {
                    ready?;
                    self.take_confirmations()?;
                }
                () = closing(&self.replica.client), if ends_at.is_none() => {
                    if !self.shared.is_stopping.load(Ordering::Acquire) {
                        return Ok(());
                    }
                    ends_at = Some(time::Instant::now() + END_TIME_MAX);
                }
                () = time::sleep(SIGN_OF_LIFE), if is_blocked => {}
                () = time::sleep(END_LOOK), if ends_at.is_some() => {}
            }
        }
    }

    fn come_online(&self) {
        self.replica.come_online(now());
        self.shared.replication.replicas.came_back(self.replica);
        self.shared.replication.judge(self.shared, now());
        let PrimaryAddress { host, port } = self.replica.place();
        self.shared.tell(EventKind::ReplicaConnected, format!("the replica {host}:{port} has the data and is sent the stream"));
    }

    /// Whether a replica that was sent everything has it, and nobody is left who writes more. One that confirms only now and then gets it
    /// from the system.
    fn has_everything(&self) -> bool {
        let shared = self.shared;
        let is_last = shared.clients.len() <= shared.replication.replicas.all().len();
        is_last && (!self.replica.hints.confirms || self.replica.confirmed() >= shared.journal.offset())
    }

    fn check_closing(&self) -> io::Result<()> {
        if self.replica.client.outbox.is_closing() { Err(io::Error::other("it was closed")) } else { Ok(()) }
    }

    /// Reads what has come: REPLCONF ACK.
    fn take_confirmations(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("it closed the connection")),
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut taken = 0;
        let invalid = |error: crate::protocol::ProtocolError| io::Error::other(error.to_string());
        while let Some(length) = self.parser.parse(&self.incoming[taken..], LIMITS, true).map_err(invalid)? {
            let args = self.parser.args(&self.incoming[taken..]);
            taken += length;
            let number = |index| args.get(index).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
            let is_word = |index, word: &[u8]| args.get(index).is_some_and(|text| text.eq_ignore_ascii_case(word));
            if is_word(0, b"REPLCONF")
                && is_word(1, b"ACK")
                && let Some(offset) = number(2)
            {
                let synced = if is_word(3, b"FACK") { number(4) } else { None };
                // Nobody has what was not sent.
                let offset = offset.min(self.shared.journal.offset());
                self.has_confirmed = true;
                self.replica.confirm(offset, synced, now());
                self.shared.replication.confirmed(self.shared, offset, now());
            }
            // An empty line is a sign of life while it loads its snapshot.
        }
        self.incoming.drain(..taken);
        Ok(())
    }

    /// Sends all of `bytes`; what the replica sends meanwhile is read.
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        ready = self.stream.writable() => ready?,
                        () = closing(&self.replica.client) => return Err(io::Error::other("it was closed")),
                        () = time::sleep(SEND_TIME_MAX) => return Err(io::Error::other("it takes no bytes")),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Completes when the connection is to be closed.
async fn closing(client: &ClientEntry) {
    poll_fn(|cx| {
        client.outbox.register(cx.waker());
        if client.outbox.is_closing() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A snapshot's moment.
struct Begun {
    id: String,
    offset: u64,
}

enum Chunk {
    Length(u64),
    Bytes(Vec<u8>),
    /// Everything was sent: without it something went wrong.
    End,
}

/// Writes a snapshot into the channel, on a thread of its own.
fn make_snapshot(shared: &Shared, replica: &Replica, is_streamed: bool, begun: oneshot::Sender<Begun>, mut chunks: Chunks) {
    let cut = || {
        shared.replication.open_backlog(shared);
        if shared.replication.primary().is_none() {
            // The replica has selected none.
            shared.journal.forget_database();
        }
        let offset = shared.journal.offset();
        shared.replication.replicas.moved(replica, offset, &shared.journal);
        let id = shared.replication.ids().id;
        let aux = shared.replication.position(shared).map_or_else(Vec::new, |position| position.fields());
        // Nobody listens any more when the replica has gone.
        drop(begun.send(Begun { id, offset }));
        aux
    };
    let outcome = if is_streamed {
        write_snapshot(shared, &shared.saver.turn(), &mut chunks, cut, Clone::clone).and_then(|_| chunks.flush())
    } else {
        persistence::with_temporary(&shared.config(), |file| {
            write_snapshot(shared, &shared.saver.turn(), file, cut, Clone::clone).map(|(_, written)| written.bytes)
        })
        .and_then(|(length, mut file)| {
            chunks.send(Chunk::Length(length))?;
            io::copy(&mut file, &mut chunks)?;
            chunks.flush()
        })
    };
    if let Err(error) = outcome.and_then(|()| chunks.send(Chunk::End)) {
        tracing::warn!(%error, "a snapshot for a replica was given up");
    }
}

/// A channel as a writer.
struct Chunks {
    sender: mpsc::Sender<Chunk>,
    chunk: Vec<u8>,
}

impl Chunks {
    fn send(&self, chunk: Chunk) -> io::Result<()> {
        self.sender.blocking_send(chunk).map_err(|_| io::Error::other("the replica has gone"))
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.send(Chunk::Bytes(chunk))
    }
}
