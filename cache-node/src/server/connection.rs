//! One connection: read everything that has arrived, run it all, write one reply buffer.

use std::{
    future::poll_fn,
    io,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time,
};

use bytes::BufMut as _;
use futures_util::FutureExt as _;

use crate::{
    command::{self, Context, REPLY_BYTES_MAX, REQUESTS_MAX, ScriptErrors},
    node::{Client, Hindrance},
    protocol::{Limits, ProtocolError, Reply, RequestParser, Requests},
    replication::{self, Deposed, Wait, serve_replica},
    server::{
        now,
        socket::Socket,
        worker::{READ_BUFFER_BYTES, Worker, stamp},
    },
};

/// Capacity that the thread's reply buffer keeps between batches.
const REPLY_CAPACITY_KEPT: usize = 1024 * 1024;

/// Arguments of one request (Redis: 1024 * 1024).
pub(super) const ARGUMENTS_MAX: usize = 1024 * 1024;

/// How long a client may take no bytes at all while replies wait for it.
const SEND_TIME_MAX: Duration = Duration::from_secs(60);

/// How long replies may wait until what was written before them is safe. Then the connection is closed: whether the write is kept is
/// not known, and that is what a closed connection says.
const BARRIER_TIME_MAX: Duration = Duration::from_secs(10);

/// How often a connection whose request waits looks whether its client is still there.
const GONE_LOOK: Duration = Duration::from_secs(1);

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

/// Why a batch came to its end.
pub(super) enum Stop {
    /// Every byte was consumed, or what is left is an unfinished request.
    Drained,
    /// [`REPLY_BYTES_MAX`] are waiting to be sent; requests are left.
    Paused,
    /// The connection ends once the replies are sent.
    End,
}

/// What a connection woke up for.
enum Turn {
    /// Messages, or the word to close.
    Outbox,
    /// Requests arrived, and were run up to this.
    Ran(Stop),
}

/// Serves a connection until it ends, and takes it out of every registry.
///
/// No `async fn`: that would keep its arguments beside the connection that they became. What an idle connection does not do is boxed
/// below for the same reason; ten thousand of them wait most of the time.
pub(super) fn serve(worker: Rc<Worker>, socket: Socket, client: Client) -> impl Future<Output = ()> {
    let mut connection = Connection { worker, socket, client, unfinished: None, late: None };
    async move {
        // How it ended makes no difference to what is left to do, but for a panic, whose replies are not to be trusted: its place is free again as
        // any other's is.
        let end = AssertUnwindSafe(connection.run()).catch_unwind().await;
        connection.worker.replies.send();
        if end.is_err() {
            tracing::error!("a connection ended by a panic");
            connection.client.sync = None;
            drop(connection.worker.replies.take_rest(connection.client.entry.id));
        } else if connection.socket.is_sending() || connection.worker.replies.has_rest(connection.client.entry.id) {
            Box::pin(connection.send_rest()).await;
        }
        let Connection { worker, socket, mut client, .. } = connection;
        if let Some(request) = client.sync.take()
            && let Ok(stream) = Box::pin(socket.into_tokio()).await
        {
            Box::pin(serve_replica(Arc::clone(&worker.shared), &stream, &client.entry, *request)).await;
        }
        command::leave(&worker.shared, &mut client, now());
        worker.shared.clients.remove(client.entry.id);
        worker.left();
    }
}

/// Replies that wait for the safety of what was written before them.
#[derive(Clone, Copy)]
struct Held {
    offset: u64,
    /// The epoch of the role in which it was written: in another one this offset is somewhere else.
    epoch: u64,
}

struct Connection {
    worker: Rc<Worker>,
    socket: Socket,
    client: Client,
    /// What an idle connection does not have: most requests arrive whole and are run from the thread's own buffer.
    unfinished: Option<Box<Unfinished>>,
    late: Option<Box<Late>>,
}

/// Replies that are not sent at once: the socket did not take them, or they wait for something.
#[derive(Default)]
struct Late {
    outgoing: Vec<u8>,
    /// The stream's offset that must be safe before `outgoing` is sent.
    held_for: Option<Held>,
}

/// Bytes that arrived and were not run yet, and how far they were parsed.
#[derive(Default)]
struct Unfinished {
    bytes: Vec<u8>,
    parser: RequestParser,
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            let turn = match self.worker.config().timeout {
                // A subscriber is idle by nature.
                Some(idle_max) if !self.client.entry.is_subscriber() => {
                    Box::pin(time::timeout(idle_max, poll_fn(|cx| self.poll_turn(cx)))).await.map_err(|_| End::Ours)??
                }
                _ => poll_fn(|cx| self.poll_turn(cx)).await?,
            };
            match turn {
                Turn::Outbox => {
                    let messages = self.client.entry.outbox.take();
                    Box::pin(self.send(&messages)).await?;
                    if self.client.entry.outbox.is_closing() {
                        return Err(End::Ours);
                    }
                }
                Turn::Ran(Stop::Drained) if self.late.is_none() => {}
                Turn::Ran(stop) => Box::pin(self.finish_batch(stop)).await?,
            }
        }
    }

    /// Waits for requests, a message to send on, or the word to close; runs the requests in the same go. One poll does it all: a
    /// read that filled less than the buffer leaves nothing to read, and the next one is not tried before the kernel says so.
    fn poll_turn(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Turn, End>> {
        let outbox = &self.client.entry.outbox;
        // Registered before the look, so that nothing slips through between.
        outbox.register(cx.waker());
        if outbox.has_something() {
            return Poll::Ready(Ok(Turn::Outbox));
        }
        if let Some(rest) = self.worker.replies.take_rest(self.client.entry.id) {
            self.late.get_or_insert_default().outgoing = rest;
            return Poll::Ready(Ok(Turn::Ran(Stop::Drained)));
        }
        let stop = match self.unfinished {
            None => ready!(self.poll_fresh(cx))?,
            Some(_) => ready!(self.poll_more(cx))?,
        };
        Poll::Ready(Ok(Turn::Ran(stop)))
    }

    /// Reads into the thread's buffer and runs what is there.
    fn poll_fresh(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Stop, End>> {
        let worker = Rc::clone(&self.worker);
        let worker = &*worker;
        let scratch = &mut *worker.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch.input);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(End::Closed));
        }
        worker.stats().received(bytes.len());
        let (written, epoch) = (self.client.written_offset, worker.shared.replication.epoch());
        // Between requests already, unless a command panicked: what it left was begun by another client.
        scratch.parser.reset();
        let (consumed, stop) =
            run_batch(worker, &mut self.client, &mut scratch.parser, &mut scratch.requests, bytes, &mut scratch.reply);
        if consumed < bytes.len() {
            let parser = std::mem::take(&mut scratch.parser);
            self.unfinished = Some(Box::new(Unfinished { bytes: bytes[consumed..].to_vec(), parser }));
        }
        self.hold_if_written_since(written, epoch);
        self.flush_or_keep(&mut scratch.reply)?;
        Poll::Ready(Ok(stop))
    }

    /// Appends to an unfinished request, and runs what is complete by then.
    fn poll_more(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Stop, End>> {
        let worker = Rc::clone(&self.worker);
        let worker = &*worker;
        let Some(Unfinished { bytes, parser }) = self.unfinished.as_deref_mut() else { return Poll::Ready(Ok(Stop::Drained)) };
        // A large argument's length is known: grow towards it as it really arrives, at most doubling, so that a client that only
        // announces 512 MB costs nothing.
        let wanted = parser.bytes_wanted().unwrap_or(0).saturating_sub(bytes.len());
        let room = wanted.clamp(READ_BUFFER_BYTES, bytes.len().max(READ_BUFFER_BYTES));
        bytes.reserve(room);
        let mut limited = bytes.limit(room);
        let read = ready!(self.socket.poll_read_more(cx, &mut limited))?;
        if read == 0 {
            return Poll::Ready(Err(End::Closed));
        }
        worker.stats().received(read);
        if bytes.len() > worker.config().client_query_buffer_limit {
            return Poll::Ready(Err(End::Ours));
        }
        Poll::Ready(self.run_unfinished())
    }

    /// Runs the complete requests among the bytes that were kept.
    fn run_unfinished(&mut self) -> Result<Stop, End> {
        let worker = Rc::clone(&self.worker);
        let worker = &*worker;
        let Some(Unfinished { bytes, parser }) = self.unfinished.as_deref_mut() else { return Ok(Stop::Drained) };
        let scratch = &mut *worker.scratch.borrow_mut();
        let (written, epoch) = (self.client.written_offset, worker.shared.replication.epoch());
        let (consumed, stop) = run_batch(worker, &mut self.client, parser, &mut scratch.requests, bytes, &mut scratch.reply);
        if consumed == bytes.len() {
            self.unfinished = None;
        } else {
            bytes.drain(..consumed);
        }
        self.hold_if_written_since(written, epoch);
        self.flush_or_keep(&mut scratch.reply)?;
        Ok(stop)
    }

    /// Replies of a batch that wrote, or found its change made, wait until that is as safe as `durability` promises; those of others do not. `offset` and `epoch`:
    /// before the batch.
    fn hold_if_written_since(&mut self, offset: u64, epoch: u64) {
        let shared = &self.worker.shared;
        let written = self.client.written_offset;
        let barrier = &shared.journal.barrier;
        let is_safe = || barrier.is_reached(written) && (shared.replication.epoch() == epoch || !barrier.promises_something());
        if written != offset && !is_safe() {
            self.late.get_or_insert_default().held_for = Some(Held { offset: written, epoch });
            self.worker.has_held.set(true);
        }
    }

    /// Sends what the socket takes at once, or at the turn's end, and keeps the rest.
    fn flush_or_keep(&mut self, reply: &mut Reply) -> Result<(), End> {
        if reply.is_empty() {
            return Ok(());
        }
        let is_held = self.late.as_ref().is_some_and(|late| late.held_for.is_some());
        let length = reply.len();
        let outcome = if is_held { Ok(0) } else { self.send_in_turn(reply) };
        if let Ok(sent) = outcome {
            self.worker.stats().sent(length);
            if sent < length {
                self.late.get_or_insert_default().outgoing.extend_from_slice(&reply.bytes()[sent..]);
            }
        }
        // Also when the socket broke: the buffer is the thread's, and the next to use it is another client.
        reply.clear();
        reply.shrink_to(REPLY_CAPACITY_KEPT);
        outcome.map(drop).map_err(End::from)
    }

    /// Gives how many bytes are the turn's, or the socket's. Where all are the turn's, the reply may be empty then.
    fn send_in_turn(&self, reply: &mut Reply) -> io::Result<usize> {
        let Some(stream) = self.socket.tokio() else { return self.try_send(reply.bytes()) };
        let (replies, entry, length) = (&self.worker.replies, &self.client.entry, reply.len());
        if replies.take(stream, entry, reply) {
            return Ok(length);
        }
        replies.send();
        if replies.has_rest(entry.id) { Ok(0) } else { self.try_send(reply.bytes()) }
    }

    /// Gives how many bytes the socket took.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            outcome => outcome,
        }
    }

    /// Sends what is left of the replies, and goes on with a batch that paused for them.
    async fn finish_batch(&mut self, stop: Stop) -> Result<(), End> {
        let mut stop = stop;
        loop {
            if let Some(late) = self.late.take() {
                if let Some(held) = late.held_for {
                    if self.worker.replies.has_rest(self.client.entry.id) {
                        self.flush().await?;
                    }
                    self.wait_until_safe(held).await?;
                }
                self.send(&late.outgoing).await?;
            }
            if let Some(wait) = self.client.wait.take() {
                // What stands before it does not wait with it, also when the socket takes no more at the moment.
                self.flush().await?;
                self.wait_for(*wait).await?;
                continue;
            }
            match stop {
                Stop::Drained => return Ok(()),
                Stop::End => return Err(End::Ours),
                Stop::Paused => {
                    if std::mem::take(&mut self.client.is_postponed) {
                        self.flush().await?;
                        self.wait_until_resumed().await?;
                    }
                    // A client that takes replies as fast as they are made must not keep the thread.
                    tokio::task::yield_now().await;
                    stop = self.run_unfinished()?;
                }
            }
        }
    }

    /// WAIT: answers when it is over.
    async fn wait_for(&mut self, wait: Wait) -> Result<(), End> {
        let shared = &self.worker.shared;
        let outcome = tokio::select! {
            outcome = replication::wait(shared, wait) => outcome,
            () = self.closing() => return Err(End::Ours),
            // Without a time limit of its own it would keep its place for ever.
            () = self.gone() => return Err(End::Closed),
        };
        let mut reply = Reply::new(self.client.protocol());
        if let Err(Deposed) = outcome {
            reply.error(Deposed::TEXT);
            self.send(reply.bytes()).await?;
            return Err(End::Ours);
        }
        wait.answer(shared, &mut reply);
        self.late.get_or_insert_default().outgoing.extend_from_slice(reply.bytes());
        Ok(())
    }

    /// Waits until a request that waits may be looked at again. CLIENT PAUSE and FAILOVER have their own time limits.
    async fn wait_until_resumed(&self) -> Result<(), End> {
        let shared = &self.worker.shared;
        let changed = shared.pause.changed();
        if shared.gate.has(Hindrance::Paused) {
            tokio::select! {
                () = changed => {}
                () = self.closing() => return Err(End::Ours),
                () = self.gone() => return Err(End::Closed),
            }
        }
        Ok(())
    }

    /// Completes when the client has closed, also behind what it sent before that, as far as the kernel takes it: behind more, the end has not
    /// arrived, and the place is free when the kernel of the client's machine gives up.
    async fn gone(&self) {
        loop {
            time::sleep(GONE_LOOK).await;
            if poll_fn(|cx| Poll::Ready(self.socket.has_ended(cx))).await {
                return;
            }
        }
    }

    /// Completes when this connection is to be closed.
    async fn closing(&self) {
        let outbox = &self.client.entry.outbox;
        poll_fn(|cx| {
            outbox.register(cx.waker());
            if outbox.is_closing() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits until what was written before `offset` may be acknowledged.
    async fn wait_until_safe(&self, held: Held) -> Result<(), End> {
        let shared = &self.worker.shared;
        shared.replication.ask_to_confirm(shared);
        let mut reached = pin!(shared.journal.barrier.reached(held.offset));
        let outcome = poll_fn(|cx| {
            if reached.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            // When the node ends, the log is written first and the reply goes out.
            self.poll_closing(cx).map(Err)
        });
        time::timeout(BARRIER_TIME_MAX, outcome).await.map_err(|_| End::Ours)??;
        // Deposed meanwhile: whether its successor has the write is not known, unless it was given the role with all there was.
        if shared.replication.keeps(held.epoch, held.offset) { Ok(()) } else { Err(End::Ours) }
    }

    /// Waits until the kernel has what was handed over, as long as it takes some.
    async fn send_rest(&mut self) {
        // The connection ends whether it could or not.
        let _sent = self.flush().await;
        if self.socket.is_sending() {
            let sent = time::timeout(SEND_TIME_MAX, poll_fn(|cx| self.poll_writable(cx))).await;
            drop(sent);
        }
    }

    /// Sends all that the turn has for this connection.
    async fn flush(&mut self) -> Result<(), End> {
        self.worker.replies.send();
        match self.worker.replies.take_rest(self.client.entry.id) {
            Some(rest) => self.send_all(&rest).await,
            None => Ok(()),
        }
    }

    /// Sends all of `bytes` behind what the turn has for this connection.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.flush().await?;
        self.send_all(bytes).await
    }

    /// Sends all of `bytes`, however long the client takes, as long as it takes some.
    async fn send_all(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket.try_write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waited = time::timeout(SEND_TIME_MAX, poll_fn(|cx| self.poll_writable(cx))).await;
                    waited.map_err(|_| End::Ours)??;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until the socket takes more. Messages that come meanwhile stay in the outbox, whose bound is its own; only the word to
    /// close counts here, and when the node ends that is for after the replies.
    fn poll_writable(&self, cx: &mut TaskContext<'_>) -> Poll<Result<(), End>> {
        if let Poll::Ready(end) = self.poll_closing(cx) {
            return Poll::Ready(Err(end));
        }
        self.socket.poll_write_ready(cx).map_err(End::from)
    }

    /// Ready when this connection is to be closed now, and not because the node ends: then its replies go out first.
    fn poll_closing(&self, cx: &mut TaskContext<'_>) -> Poll<End> {
        let outbox = &self.client.entry.outbox;
        outbox.register(cx.waker());
        let is_ours = outbox.is_closing() && !self.worker.shared.is_stopping.load(Ordering::Acquire);
        if is_ours { Poll::Ready(End::Ours) } else { Poll::Pending }
    }
}

/// Runs every complete request of `bytes`, up to [`REPLY_BYTES_MAX`] of replies. Gives the bytes consumed, and why it stopped.
pub(super) fn run_batch(
    worker: &Worker,
    client: &mut Client,
    parser: &mut RequestParser,
    requests: &mut Requests,
    bytes: &[u8],
    reply: &mut Reply,
) -> (usize, Stop) {
    let now = stamp(client);
    let mut consumed = 0;
    // Empty already, unless a command panicked: what it left was for another client.
    reply.clear();
    reply.set_protocol(client.protocol());
    loop {
        // Each time: CONFIG SET or ACL SETUSER may have been among the requests before, or come from another connection.
        let config = worker.config();
        if !client.goes_on(&worker.shared) {
            return (consumed, Stop::End);
        }
        let limits = Limits { bulk_bytes_max: config.proto_max_bulk_len, arguments_max: ARGUMENTS_MAX };
        let is_authenticated = client.is_authenticated;
        let limits = if is_authenticated { limits } else { limits.unauthenticated() };
        // AUTH changes what the next request may be, so a stranger's requests are taken one by one.
        let count_max = if is_authenticated { REQUESTS_MAX } else { 1 };
        let (found, next) = gather(parser, requests, &bytes[consumed..], limits, is_authenticated, count_max);
        let stats = worker.stats();
        let scripts = &worker.scripts;
        let mut context = Context {
            shared: &worker.shared,
            config,
            client,
            scripts,
            stats,
            now,
            is_full: false,
            is_in_exec: false,
            script_errors: ScriptErrors::default(),
        };
        let done = command::execute_all(&mut context, &bytes[consumed..], requests, reply);
        let is_ending = context.client.closes_after_reply;
        if done < requests.len() || is_ending || context.client.wait.is_some() {
            let stop = if is_ending { Stop::End } else { Stop::Paused };
            // What was found behind is found again: the parser starts anew.
            parser.reset();
            return (consumed + requests.bytes_of(done), stop);
        }
        let start = consumed;
        consumed += found;
        match next {
            Next::Nothing => return (consumed, Stop::Drained),
            Next::Error(error) => {
                reply.error(&format!("ERR {error}"));
                return (consumed, Stop::End);
            }
            Next::Inline(length) => {
                let args = parser.args(&bytes[start..]);
                if args.len() > 0 {
                    if command::is_postponed(&mut context, args) {
                        parser.reset();
                        return (consumed - length, Stop::Paused);
                    }
                    if context.client.goes_on(&worker.shared) {
                        command::execute(&mut context, args, reply);
                    }
                }
            }
            Next::More => {}
        }
        if client.closes_after_reply {
            return (consumed, Stop::End);
        }
        if client.wait.is_some() {
            return (consumed, Stop::Paused);
        }
        if reply.len() >= REPLY_BYTES_MAX && consumed < bytes.len() {
            return (consumed, Stop::Paused);
        }
    }
}

/// What stands behind the requests that were gathered.
pub(super) enum Next {
    /// Nothing, or an unfinished request.
    Nothing,
    /// An inline command of so many bytes, which the parser holds.
    Inline(usize),
    /// Perhaps more requests.
    More,
    Error(ProtocolError),
}

/// Finds up to `count_max` requests. Gives the bytes that they took, an inline command behind them included.
pub(super) fn gather(
    parser: &mut RequestParser,
    requests: &mut Requests,
    bytes: &[u8],
    limits: Limits,
    is_authenticated: bool,
    count_max: usize,
) -> (usize, Next) {
    requests.clear();
    let mut found = 0;
    while requests.len() < count_max {
        if found == bytes.len() {
            return (found, Next::Nothing);
        }
        if parser.is_between()
            && let Some(length) = requests.push_plain(bytes, found, limits)
        {
            found += length;
            continue;
        }
        match parser.parse(&bytes[found..], limits, is_authenticated) {
            Ok(None) => return (found, Next::Nothing),
            Ok(Some(length)) => {
                if parser.is_inline() {
                    return (found + length, Next::Inline(length));
                }
                // An empty array is answered by nothing.
                if parser.args(&bytes[found..]).len() > 0 {
                    requests.push(parser, found, length);
                }
                found += length;
            }
            Err(error) => return (found, Next::Error(error)),
        }
    }
    (found, Next::More)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use crate::{Config, Node, command::PANIC};

    #[test]
    fn a_connection_that_panics_leaves_its_place_free() {
        const CLIENTS_MAX: usize = 3;
        let node = Node::start(Config { maxclients: CLIENTS_MAX, ..Config::for_test() }).expect("it starts");
        let ask = |request: &[u8]| {
            let mut stream = TcpStream::connect(node.addr()).expect("it listens");
            stream.write_all(request).expect("it reads");
            let mut answer = [0; 4096];
            let length = stream.read(&mut answer).expect("it answers or closes");
            String::from_utf8_lossy(&answer[..length]).into_owned()
        };
        for _ in 0..3 * CLIENTS_MAX {
            let subscribed = ask(&[b"SUBSCRIBE news\r\nUNSUBSCRIBE\r\n", PANIC, b"\r\n"].concat());
            assert!(!subscribed.contains("max number of clients"), "{subscribed}");
        }
        let mut rest = String::new();
        // The last one is gone a moment behind its end.
        for _ in 0..100 {
            rest = ask(b"INFO clients\r\n");
            if rest.contains("connected_clients:1\r\n") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(rest.contains("connected_clients:1\r\n"), "{rest}");
    }
}
