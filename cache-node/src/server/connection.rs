//! One connection: read everything that has arrived, run it all, write one reply buffer.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time};

use crate::{
    command::{self, Context},
    node::Client,
    protocol::{Limits, Reply, RequestParser},
    server::{
        now,
        worker::{READ_BUFFER_BYTES, Worker, stamp},
    },
};

/// Bytes of replies after which the batch pauses until they are sent: a pipeline of reads of large values must not pile up.
const REPLY_BYTES_MAX: usize = 256 * 1024;

/// Capacity that the thread's reply buffer keeps between batches.
const REPLY_CAPACITY_KEPT: usize = 1024 * 1024;

/// Arguments of one request (Redis: 1024 * 1024).
const ARGUMENTS_MAX: usize = 1024 * 1024;

/// How long a client may take no bytes at all while replies wait for it.
const SEND_TIME_MAX: Duration = Duration::from_secs(60);

/// Why a connection ends.
enum End {
    /// The client closed, or the socket broke.
    Closed,
    /// QUIT, CLIENT KILL, a protocol error, or the node ends.
    Ours,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Closed
    }
}

/// Serves a connection until it ends, and takes it out of every registry.
pub(super) async fn serve(worker: &Worker, stream: TcpStream, client: Client) {
    let mut connection =
        Connection { worker, stream, client, parser: RequestParser::default(), pending: Vec::new(), outgoing: Vec::new() };
    // How it ended makes no difference to what is left to do.
    let _end = connection.run().await;
    command::leave(&worker.shared, &mut connection.client, now());
    worker.shared.clients.remove(connection.client.entry.id);
}

struct Connection<'a> {
    worker: &'a Worker,
    stream: TcpStream,
    client: Client,
    parser: RequestParser,
    /// Bytes that arrived and were not run yet: an unfinished request. Empty, and without an allocation, while idle.
    pending: Vec<u8>,
    /// Replies that the socket did not take at once.
    outgoing: Vec<u8>,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            let messages = self.client.entry.outbox.take();
            if !messages.is_empty() {
                self.send(&messages).await?;
                continue;
            }
            if self.client.entry.outbox.is_closing() {
                return Err(End::Ours);
            }
            self.wait().await?;
            self.read_and_run().await?;
        }
    }

    /// Waits until there is something to read, a message to send on, or the word to close.
    async fn wait(&self) -> Result<(), End> {
        let entry = &self.client.entry;
        let something = async {
            tokio::select! {
                readable = self.stream.readable() => readable,
                () = entry.outbox.woken() => Ok(()),
            }
        };
        match self.worker.config().timeout {
            // A subscriber is idle by nature.
            Some(idle_max) if !entry.is_subscriber() => time::timeout(idle_max, something).await.map_err(|_| End::Ours)??,
            _ => something.await?,
        }
        Ok(())
    }

    async fn read_and_run(&mut self) -> Result<(), End> {
        if self.pending.is_empty() {
            let run = {
                let scratch = &mut *self.worker.scratch.borrow_mut();
                match self.stream.try_read(&mut scratch.input) {
                    Ok(0) => return Err(End::Closed),
                    Ok(read) => {
                        self.worker.stats().received(read);
                        let (consumed, end) = run_batch(
                            self.worker,
                            &mut self.client,
                            &mut self.parser,
                            &scratch.input[..read],
                            &mut scratch.reply,
                        );
                        self.pending.extend_from_slice(&scratch.input[consumed..read]);
                        self.flush_or_keep(&mut scratch.reply)?;
                        end
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            };
            self.after_batch(run).await?;
        } else {
            self.read_more()?;
        }
        while !self.pending.is_empty() {
            let (consumed, run) = {
                let scratch = &mut *self.worker.scratch.borrow_mut();
                let (consumed, run) =
                    run_batch(self.worker, &mut self.client, &mut self.parser, &self.pending, &mut scratch.reply);
                self.flush_or_keep(&mut scratch.reply)?;
                (consumed, run)
            };
            self.pending.drain(..consumed);
            self.after_batch(run).await?;
            if consumed == 0 {
                break;
            }
        }
        if self.pending.is_empty() {
            // An idle connection keeps no buffers.
            self.pending = Vec::new();
            self.parser.shrink();
        }
        Ok(())
    }

    /// Appends to an unfinished request.
    fn read_more(&mut self) -> Result<(), End> {
        let limit = self.worker.config().client_query_buffer_limit;
        // A large argument's length is known: grow towards it as it really arrives, at most doubling, so that a client that only
        // announces 512 MB costs nothing.
        let wanted = self.parser.bytes_wanted().unwrap_or(0).saturating_sub(self.pending.len());
        let room = wanted.clamp(READ_BUFFER_BYTES, self.pending.len().max(READ_BUFFER_BYTES));
        self.pending.reserve(room);
        match self.stream.try_read_buf(&mut self.pending) {
            Ok(0) => Err(End::Closed),
            Ok(read) => {
                self.worker.stats().received(read);
                if self.pending.len() > limit { Err(End::Ours) } else { Ok(()) }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what the socket takes at once and keeps the rest.
    fn flush_or_keep(&mut self, reply: &mut Reply) -> Result<(), End> {
        if reply.is_empty() {
            return Ok(());
        }
        let sent = match self.stream.try_write(reply.bytes()) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        self.worker.stats().sent(reply.len());
        self.outgoing.extend_from_slice(&reply.bytes()[sent..]);
        reply.clear();
        reply.shrink_to(REPLY_CAPACITY_KEPT);
        Ok(())
    }

    async fn after_batch(&mut self, end: Option<End>) -> Result<(), End> {
        if !self.outgoing.is_empty() {
            let outgoing = std::mem::take(&mut self.outgoing);
            self.send(&outgoing).await?;
        }
        match end {
            Some(end) => Err(end),
            None => Ok(()),
        }
    }

    /// Sends all of `bytes`, however long the client takes, as long as it takes some.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let outbox = &self.client.entry.outbox;
                    tokio::select! {
                        writable = time::timeout(SEND_TIME_MAX, self.stream.writable()) => writable.map_err(|_| End::Ours)??,
                        // Messages that come meanwhile wait in the outbox, whose bound is its own; only the word to close counts here.
                        () = outbox.woken(), if !outbox.is_closing() => {}
                    }
                    if outbox.is_closing() {
                        return Err(End::Ours);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Runs every complete request of `bytes`, up to [`REPLY_BYTES_MAX`] of replies. Gives the bytes consumed, and how the connection
/// ends if it does.
fn run_batch(
    worker: &Worker,
    client: &mut Client,
    parser: &mut RequestParser,
    bytes: &[u8],
    reply: &mut Reply,
) -> (usize, Option<End>) {
    let config = worker.config();
    let limits = Limits { bulk_bytes_max: config.proto_max_bulk_len, arguments_max: ARGUMENTS_MAX };
    let now = stamp(client);
    let mut consumed = 0;
    reply.set_protocol(client.protocol());
    while consumed < bytes.len() && reply.len() < REPLY_BYTES_MAX {
        let is_authenticated = client.is_authenticated;
        let limits = if is_authenticated { limits } else { limits.unauthenticated() };
        let rest = &bytes[consumed..];
        let taken = match parser.parse(rest, limits, is_authenticated) {
            Ok(None) => break,
            Ok(Some(taken)) => taken,
            Err(error) => {
                reply.error(&format!("ERR {error}"));
                return (consumed, Some(End::Ours));
            }
        };
        let args = parser.args(rest);
        if args.len() > 0 {
            let mut context =
                Context { shared: &worker.shared, config: &config, client, scripts: &worker.scripts, stats: worker.stats(), now };
            command::execute(&mut context, args, reply);
        }
        consumed += taken;
        if client.closes_after_reply {
            return (consumed, Some(End::Ours));
        }
    }
    (consumed, None)
}
