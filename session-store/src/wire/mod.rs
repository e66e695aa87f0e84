//! A connection that requests share: the requests that are there when the runtime has nothing else to do travel in one
//! write, their replies are found in the buffer that they arrived in, and whoever waits is woken.
//!
//! Why it is here and not taken from the client library (figures of one read, 64 connections): there the task that drives
//! a connection runs as soon as the first request has woken it, so that each request is a write of its own; each reply is
//! parsed into a tree with an allocation for every string; and a request is packed, sent through a channel, and answered
//! through another.

mod alarm;
mod ask;
mod driver;
mod frame;

use std::{collections::VecDeque, future::Future, io, sync::Arc, task::Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use redis::{Arg, Cmd, Pipeline, RedisError, RedisFuture, Value, aio::ConnectionLike};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Handle, RuntimeFlavor},
    time::Instant,
};

use self::{alarm::Alarm, driver::Driver};
pub(crate) use self::{
    ask::{Ask, Unanswered},
    frame::{Item, Malformed, Place, Reply, number},
};
use crate::{deadline::Deadline, metrics::Operation};

/// What is written before anybody waits for more room: above it, requests are refused.
const UNSENT_BYTES_MAX: usize = 64 << 20;

/// Told of every push of the server.
pub(crate) type OnPush = Box<dyn FnMut(Reply) + Send>;

/// What can be sent.
pub(crate) trait Packed: Sync {
    /// Appends the request as it is sent.
    fn pack(&self, out: &mut Vec<u8>);
    /// Replies that it gets.
    fn replies(&self) -> u32;
    /// What it is for.
    fn operation(&self) -> Operation {
        Operation::Read
    }
}

impl Packed for Cmd {
    fn pack(&self, out: &mut Vec<u8>) {
        self.write_packed_command(out);
    }

    fn replies(&self) -> u32 {
        1
    }

    fn operation(&self) -> Operation {
        match self.args_iter().next() {
            Some(Arg::Simple(name)) => Operation::of_command(name),
            _ => Operation::Other,
        }
    }
}

impl Packed for Pipeline {
    fn pack(&self, out: &mut Vec<u8>) {
        for command in self.cmd_iter() {
            command.write_packed_command(out);
        }
    }

    fn replies(&self) -> u32 {
        self.len() as u32
    }
}

/// One argument of a command.
pub(crate) trait Argument {
    /// Appends it as it is sent.
    fn pack(&self, out: &mut Vec<u8>);
}

impl<A: Argument + ?Sized> Argument for &A {
    fn pack(&self, out: &mut Vec<u8>) {
        (**self).pack(out);
    }
}

impl Argument for str {
    fn pack(&self, out: &mut Vec<u8>) {
        argument(out, self.as_bytes());
    }
}

impl Argument for String {
    fn pack(&self, out: &mut Vec<u8>) {
        argument(out, self.as_bytes());
    }
}

/// Appends a command as it is sent.
pub(crate) fn pack(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    length(out, b'*', arguments.len());
    for bytes in arguments {
        argument(out, bytes);
    }
}

/// One argument of it.
pub(crate) fn argument(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The length of what follows: of a command in arguments, of an argument in bytes.
pub(crate) fn length(out: &mut Vec<u8>, kind: u8, length: usize) {
    // As nearly all are.
    if length < 10 {
        return out.extend_from_slice(&[kind, b'0' + length as u8, b'\r', b'\n']);
    }
    if length < 100 {
        return out.extend_from_slice(&[kind, b'0' + (length / 10) as u8, b'0' + (length % 10) as u8, b'\r', b'\n']);
    }
    out.push(kind);
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut rest = length;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b"\r\n");
}

/// A handle on the connection. The last one closes it.
#[derive(Clone)]
pub(crate) struct Wire {
    owner: Arc<Owner>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state.lock().closed.get_or_insert(Closed { kind: io::ErrorKind::NotConnected, reason: "it was closed" });
        self.0.driver.wake();
        self.0.alarm.wake();
    }
}

struct Shared {
    // Held for a few instructions only, or for the copy of a request.
    state: Mutex<State>,
    driver: AtomicWaker,
    alarm: AtomicWaker,
    requests_max: usize,
    /// Whether the connection keeps the deadlines of those who ask.
    keeps_deadlines: bool,
}

impl Shared {
    /// Tells all who wait.
    fn close(&self, closed: Closed) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(closed);
        state.unsent = Vec::new();
        let mut wakers = Vec::new();
        for index in 0..state.slots.len() {
            match std::mem::replace(&mut state.slots[index], Slot::Free) {
                Slot::Waiting { waker, .. } => {
                    state.slots[index] = Slot::Failed;
                    wakers.push(waker);
                }
                Slot::Late => state.slots[index] = Slot::Failed,
                Slot::Abandoned => state.free.push(index as u32),
                other => state.slots[index] = other,
            }
        }
        drop(state);
        self.alarm.wake();
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[derive(Default)]
struct State {
    /// Requests that the driver has not taken yet.
    unsent: Vec<u8>,
    /// Who waits for their replies, and for how many.
    asked: Vec<(u32, u32)>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The driver knows that there is something to send.
    is_driver_told: bool,
    /// When those are looked for whose deadline has passed. No later than the earliest of them.
    alarm_at: Option<Instant>,
    closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    kind: io::ErrorKind,
    reason: &'static str,
}

impl From<Closed> for RedisError {
    fn from(closed: Closed) -> Self {
        io::Error::new(closed.kind, closed.reason).into()
    }
}

enum Slot {
    Free,
    Waiting {
        waker: Waker,
        /// For the connection to keep.
        deadline: Option<Instant>,
    },
    /// Its deadline has passed, of which whoever waits has been told.
    Late,
    /// Nobody waits any more, and the reply is still to come.
    Abandoned,
    Answered(Reply),
    Failed,
}

impl State {
    /// Makes a slot free again; what was in it.
    fn release(&mut self, slot: u32) -> Slot {
        self.free.push(slot);
        std::mem::replace(&mut self.slots[slot as usize], Slot::Free)
    }

    fn send(
        &mut self,
        request: &dyn Packed,
        deadline: Option<Instant>,
        waker: Waker,
        requests_max: usize,
    ) -> Result<u32, Closed> {
        if let Some(closed) = self.closed {
            return Err(closed);
        }
        let full = Closed { kind: io::ErrorKind::TimedOut, reason: "too many requests wait for an answer on one connection" };
        if self.unsent.len() > UNSENT_BYTES_MAX {
            return Err(full);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() >= requests_max => return Err(full),
            None => {
                self.slots.push(Slot::Free);
                self.slots.len() as u32 - 1
            }
        };
        request.pack(&mut self.unsent);
        self.asked.push((slot, request.replies()));
        self.slots[slot as usize] = Slot::Waiting { waker, deadline };
        Ok(slot)
    }
}

impl Wire {
    /// A connection over a stream, and what drives it: to be spawned on this runtime. It ends with the connection.
    ///
    /// `requests_max`: requests without a reply at most, those included that nobody waits for any more.
    pub(crate) fn new<S>(stream: S, requests_max: usize, on_push: Option<OnPush>) -> (Self, impl Future<Output = ()> + Send)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Not on one thread: where an application has a runtime for each core, a handler that keeps its thread busy would hold up the
        // deadlines of the others' requests too.
        let runtime = Handle::try_current()
            .ok()
            .filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            driver: AtomicWaker::new(),
            alarm: AtomicWaker::new(),
            requests_max,
            keeps_deadlines: runtime.is_some(),
        });
        if let Some(runtime) = runtime {
            runtime.spawn(Alarm::new(Arc::clone(&shared)));
        }
        let driver = Driver::new(stream, Arc::clone(&shared), on_push);
        (Self { owner: Arc::new(Owner(shared)) }, driver)
    }

    /// Sends a request when it is first polled, and waits for its replies.
    pub(crate) fn ask<'a>(&'a self, request: &'a dyn Packed) -> Ask<'a> {
        Ask::new(&self.owner.0, request, None)
    }

    /// The same, and tells when the deadline has passed: itself, or by leaving it to [`Deadline::bound`].
    pub(crate) fn ask_until<'a>(&'a self, request: &'a dyn Packed, deadline: &'a Deadline) -> Ask<'a> {
        Ask::new(&self.owner.0, request, Some(deadline))
    }

    /// The value of a single reply; an error of the server is an error.
    async fn value(&self, command: &Cmd) -> Result<Value, RedisError> {
        let mut reply = self.ask(command).await?;
        reply.value().map_err(malformed)?.extract_error()
    }

    async fn values(&self, pipeline: &Pipeline, offset: usize, count: usize) -> Result<Vec<Value>, RedisError> {
        let mut reply = self.ask(pipeline).await?;
        let values = (0..offset + count).map(|_| reply.value().map_err(malformed));
        values.skip(offset).collect()
    }
}

/// What the peer sent cannot be understood: nothing after it can, either.
pub(crate) fn malformed(error: Malformed) -> RedisError {
    io::Error::new(io::ErrorKind::InvalidData, error).into()
}

/// For the client library's commands, where speed does not matter.
impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.value(cmd))
    }

    fn req_packed_commands<'a>(&'a mut self, pipeline: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.values(pipeline, offset, count))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// Those who wait for the replies of what was sent, in order.
type InFlight = VecDeque<(u32, u32)>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use futures_util::{
        FutureExt as _,
        future::{join, join_all},
    };
    use redis::{Pipeline, RedisError, cmd};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        net::TcpStream,
        time::Instant,
    };

    use super::{Item, Unanswered, Wire};
    use crate::deadline::Deadline;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_request_gets_its_own_reply_also_when_others_are_dropped() {
        let node = cache_node::Node::spawn(cache_node::Config::for_test()).await.unwrap();
        let (wire, driver) = Wire::new(TcpStream::connect(node.addr()).await.unwrap(), 100_000, None);
        let driver = tokio::spawn(driver);
        let tasks = (0..64_usize).map(|task| {
            let wire = wire.clone();
            tokio::spawn(async move {
                for turn in 0..200 {
                    let value = vec![b'x'; (task * turn * 7) % 5_000];
                    let mut set = cmd("SET");
                    set.arg(task).arg(&value);
                    if turn % 3 == 0 {
                        // Sent, and never waited for.
                        wire.ask(&set).now_or_never();
                        continue;
                    }
                    let mut pipeline = Pipeline::new();
                    pipeline.add_command(set).cmd("GET").arg(task);
                    let mut reply = wire.ask(&pipeline).await.unwrap();
                    assert_eq!(reply.next().unwrap(), Item::String("OK".into()));
                    assert_eq!(reply.next().unwrap(), Item::String(value.into()));
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        drop(wire);
        driver.await.unwrap();
        node.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn all_who_wait_are_told_when_the_connection_ends() {
        for (answer, answered) in [(&b""[..], 0), (b"HTTP/1.1 400 Bad Request\r\n", 0), (b"+OK\r\n*2\r\n:1\r\n", 1)] {
            let (here, mut there) = duplex(64);
            let (wire, driver) = Wire::new(here, 100, None);
            tokio::spawn(driver);
            let ping = cmd("PING");
            let asked = join_all((0..10).map(|_| wire.ask(&ping)));
            let serve = async {
                let mut request = [0; 14];
                there.read_exact(&mut request).await.unwrap();
                there.write_all(answer).await.unwrap();
                drop(there);
            };
            let (answers, ()) = join(asked, serve).await;
            assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), answered);
            assert!(matches!(answers.last().unwrap(), Err(Unanswered::Closed(_))));
            assert!(matches!(wire.ask(&ping).await, Err(Unanswered::Closed(_))), "and so is who comes later");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waits_is_told_at_the_deadline_and_the_reply_that_comes_later_is_nobody_elses() {
        let (here, mut there) = duplex(1 << 20);
        let (wire, driver) = Wire::new(here, 100, None);
        tokio::spawn(driver);
        let ping = cmd("PING");
        let began = Instant::now();
        let until = |ms| Deadline::at(began + Duration::from_millis(ms));
        // The last that is sent has the earliest, as one that waited for its turn before.
        let deadlines = [until(120), until(200), until(60_000), until(40)];
        let late = |index: usize| {
            let (wire, ping, deadline) = (&wire, &ping, &deadlines[index]);
            async move { (deadline.bound(wire.ask_until(ping, deadline)).await, began.elapsed()) }
        };
        let mut patient = Box::pin(late(2));
        let three = join(join(late(0), late(1)), async {
            assert!(patient.as_mut().now_or_never().is_none());
            late(3).await
        });
        let (((first, first_after), (second, second_after)), (earliest, earliest_after)) = three.await;
        for (answer, after, deadline) in [(earliest, earliest_after, 40), (first, first_after, 120), (second, second_after, 200)]
        {
            // `Some`: by the connection, and not by the timer of `bound`.
            assert!(matches!(answer, Some(Err(Unanswered::Late))), "{answer:?}");
            assert!(after >= Duration::from_millis(deadline), "{after:?} for {deadline} ms");
        }
        // All four replies come now: only one is waited for.
        let mut requests = [0; 4 * 14];
        there.read_exact(&mut requests).await.unwrap();
        there.write_all(b"+1\r\n+2\r\n+3\r\n+4\r\n").await.unwrap();
        assert_eq!(patient.await.0.unwrap().unwrap().next().unwrap(), Item::String("3".into()));
        let next = join(wire.ask(&ping), async {
            there.read_exact(&mut [0; 14]).await.unwrap();
            there.write_all(b"+5\r\n").await.unwrap();
        });
        assert_eq!(next.await.0.unwrap().next().unwrap(), Item::String("5".into()));
        let state = wire.owner.0.state.lock();
        assert_eq!(state.free.len(), state.slots.len(), "no slot is left behind");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_who_asks_and_then_computes_holds_up_no_deadline_but_his_own() {
        const BUSY: Duration = Duration::from_millis(800);
        // Of the busy one: later than the other's, and earlier.
        for deadline_ms in [500, 30] {
            let (here, _there) = duplex(1 << 20);
            let (wire, driver) = Wire::new(here, 100, None);
            tokio::spawn(driver);
            let busy = wire.clone();
            let waits = tokio::spawn(async move {
                let began = Instant::now();
                let (ping, deadline) = (cmd("PING"), Deadline::at(began + Duration::from_millis(100)));
                let answer = deadline.bound(wire.ask_until(&ping, &deadline)).await;
                assert!(matches!(answer, Some(Err(Unanswered::Late))), "{answer:?}");
                began.elapsed()
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            let busy = tokio::spawn(async move {
                let (ping, deadline) = (cmd("PING"), Deadline::at(Instant::now() + Duration::from_millis(deadline_ms)));
                assert!(busy.ask_until(&ping, &deadline).now_or_never().is_none());
                std::thread::sleep(BUSY);
            });
            let waited = waits.await.unwrap();
            assert!(waited < BUSY / 2, "{waited:?}");
            busy.await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_request_at_a_time_leaves_at_once_and_several_wait_a_turn_for_each_other() {
        let (here, mut there) = duplex(1 << 20);
        let (wire, driver) = Wire::new(here, 100, None);
        let mut driver = Box::pin(driver);
        let ping = cmd("PING");
        let mut arrived = [0; 100];
        for _ in 0..3 {
            let mut alone = Box::pin(wire.ask(&ping));
            assert!(alone.as_mut().now_or_never().is_none());
            assert!(driver.as_mut().now_or_never().is_none());
            assert_eq!(there.read(&mut arrived).now_or_never().unwrap().unwrap(), 14, "within one look at the driver");
            there.write_all(b"+PONG\r\n").await.unwrap();
            assert!(driver.as_mut().now_or_never().is_none());
            assert!(alone.now_or_never().unwrap().is_ok());
        }
        let mut several: Vec<_> = (0..3).map(|_| Box::pin(wire.ask(&ping))).collect();
        assert!(several[0].as_mut().now_or_never().is_none());
        assert!(driver.as_mut().now_or_never().is_none());
        assert_eq!(there.read(&mut arrived).now_or_never().unwrap().unwrap(), 14);
        // While one is under way the next waits for those behind it.
        assert!(several[1].as_mut().now_or_never().is_none());
        assert!(driver.as_mut().now_or_never().is_none());
        assert!(there.read(&mut arrived).now_or_never().is_none());
        assert!(several[2].as_mut().now_or_never().is_none());
        assert!(driver.as_mut().now_or_never().is_none());
        assert_eq!(there.read(&mut arrived).now_or_never().unwrap().unwrap(), 28);
    }

    #[tokio::test]
    async fn on_a_runtime_of_one_thread_a_request_has_its_own_timer() {
        let (here, _there) = duplex(1 << 20);
        let (wire, driver) = Wire::new(here, 100, None);
        tokio::spawn(driver);
        let (ping, deadline) = (cmd("PING"), Deadline::at(Instant::now() + Duration::from_millis(20)));
        assert!(deadline.bound(wire.ask_until(&ping, &deadline)).await.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_never_answers_is_not_asked_without_end() {
        let (here, _there) = duplex(1 << 20);
        let (wire, driver) = Wire::new(here, 100, None);
        tokio::spawn(driver);
        let ping = cmd("PING");
        for _ in 0..100 {
            assert!(wire.ask(&ping).now_or_never().is_none());
        }
        let error = RedisError::from(wire.ask(&ping).await.unwrap_err());
        assert!(error.to_string().contains("too many requests"), "{error}");
    }
}
