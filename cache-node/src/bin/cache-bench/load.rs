//! The load generator: one thread, non-blocking sockets, every reply checked.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    affinity,
    reply::{Protocol, scan},
    statistic::milliseconds,
};

/// No reply for so long while some are owed: the server hangs.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// One read takes up to this much.
const READ_BYTES: usize = 256 * 1024;
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// A fixed pace that shares its core looks at its sockets and its schedule this often, and latencies are as coarse; the kernel adds about
/// as much again.
const FIXED_PACE_NAP: Duration = Duration::from_micros(50);
/// Latencies above this are counted as this.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// What one reply must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// For the traffic's own use: which kind of request it was.
    pub(crate) kind: u8,
    /// For the traffic's own use: which key it was about.
    pub(crate) key: u32,
    /// Whether this reply is the last of its operation: a HSET with an EXPIRE behind it is one operation of two replies.
    pub(crate) is_last: bool,
}

/// Requests and the answers to them.
pub(crate) trait Traffic {
    /// Appends one operation to `out` and what its replies must be to `expected`, in order. `false` when there are no more.
    fn next(&mut self, connection: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool;
    /// Whether the reply is right.
    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool;
}

/// When a connection sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// `depth` operations in one write, the next ones when all are answered.
    Batch,
    /// Always `depth` operations under way: a new one for each that is answered.
    Refill,
    /// So many operations a second over all connections, at fixed times, whether or not the server keeps up: nothing that the server
    /// does delays a request, so no latency is omitted.
    Fixed(f64),
}

/// How a load runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) depth: usize,
    pub(crate) pace: Pace,
    /// No new operation after so long; `None` until the traffic has no more.
    pub(crate) duration: Option<Duration>,
}

/// What a load measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the write of an operation to the read of its last reply.
    pub(crate) latency: Histogram<u64>,
    /// Operations of the connection that was served least, over those of the one served most: 1 when all get the same.
    pub(crate) evenness: f64,
    /// Nanoseconds by which a load of fixed pace was late itself, for each operation that it sent. It reads as late as it sends: no
    /// latency below this says anything about the server.
    pub(crate) own_lateness: Histogram<u64>,
}

impl Outcome {
    /// Of replies, p99, p99.9 and the longest; of the load's own lateness, p99 and the longest; in ms.
    pub(crate) fn delays(&self) -> [f64; 5] {
        [
            milliseconds(self.latency.value_at_quantile(0.99)),
            milliseconds(self.latency.value_at_quantile(0.999)),
            milliseconds(self.latency.max()),
            milliseconds(self.own_lateness.value_at_quantile(0.99)),
            milliseconds(self.own_lateness.max()),
        ]
    }
}

/// Open connections to one server.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    protocol: Protocol,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    /// The beginning of a reply whose rest has not arrived.
    tail: Vec<u8>,
    expected: VecDeque<Expected>,
    /// When the operations under way were sent, and how many at a time.
    sent: VecDeque<(Instant, u32)>,
    under_way: usize,
    /// Operations of this run that are answered.
    answered: u64,
}

struct Progress {
    operations: u64,
    latency: Histogram<u64>,
}

impl Load {
    /// Opens `connections` connections.
    ///
    /// # Errors
    /// When the address is not of this machine, or the server refuses.
    pub(crate) fn connect(addr: SocketAddr, protocol: Protocol, connections: usize) -> Result<Load> {
        ensure!(addr.ip().is_loopback(), "{addr} is no loopback address: cache-bench loads only servers that it started itself");
        let poll = Poll::new()?;
        let connections = (0..connections).map(|index| Connection::open(&poll, index, addr)).collect::<Result<_>>()?;
        Ok(Load { poll, events: Events::with_capacity(EVENTS_MAX), protocol, connections, buffer: vec![0; READ_BYTES] })
    }

    /// Closes connection `index` and opens another in its place. Between two runs, when nothing is under way.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) fn replace(&mut self, index: usize, addr: SocketAddr) -> Result<()> {
        self.connections[index] = Connection::open(&self.poll, index, addr)?;
        Ok(())
    }

    /// Sends and receives until the plan's time is over or the traffic ends, and every reply is there.
    ///
    /// # Errors
    /// When a reply is wrong, a connection ends or the server falls silent.
    pub(crate) fn run(&mut self, traffic: &mut dyn Traffic, plan: Plan) -> Result<Outcome> {
        let mut progress = Progress { operations: 0, latency: histogram() };
        self.connections.iter_mut().for_each(|connection| connection.answered = 0);
        let start = Instant::now();
        let deadline = plan.duration.map(|duration| start + duration);
        let is_over = |now: Instant| deadline.is_some_and(|deadline| now >= deadline);
        let mut has_more = true;
        let mut schedule = Schedule::new(plan.pace, start);
        if schedule.is_none() {
            for index in 0..self.connections.len() {
                has_more = has_more && self.connections[index].fill(index, traffic, plan.depth, start);
                self.connections[index].flush()?;
            }
        }
        let has_own_core = affinity::is_kept();
        let mut heard = start;
        let mut now = start;
        loop {
            if let Some(schedule) = &mut schedule {
                has_more = has_more && !is_over(now) && schedule.send_due(&mut self.connections, traffic, deadline)?;
            }
            if self.connections.iter().all(|connection| connection.under_way == 0) && (!has_more || is_over(now)) {
                break;
            }
            let timeout = match &schedule {
                None => Duration::from_secs(1),
                // Never asleep, so never woken late. What else this program has to do on the core goes first.
                Some(_) if has_own_core => {
                    thread::yield_now();
                    Duration::ZERO
                }
                // A finer clock than epoll's milliseconds. Turning without a pause would take a core from the server.
                Some(_) => {
                    thread::sleep(FIXED_PACE_NAP);
                    Duration::ZERO
                }
            };
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            now = Instant::now();
            if !self.events.is_empty() {
                heard = now;
            } else if now.duration_since(heard) > SILENCE_MAX
                && self.connections.iter().any(|connection| connection.under_way > 0)
            {
                bail!("no reply for {} s", SILENCE_MAX.as_secs());
            }
            for event in &self.events {
                let index = event.token().0;
                let connection = &mut self.connections[index];
                if event.is_readable() {
                    let answered = connection.receive(self.protocol, &mut self.buffer, traffic, &mut progress)?;
                    let refill = match plan.pace {
                        Pace::Batch => connection.under_way == 0,
                        Pace::Refill => answered > 0,
                        Pace::Fixed(_) => false,
                    };
                    if refill && has_more {
                        now = Instant::now();
                        if !is_over(now) {
                            has_more = connection.fill(index, traffic, plan.depth, now);
                        }
                    }
                }
                connection.flush()?;
            }
        }
        let counts = || self.connections.iter().map(|connection| connection.answered);
        let evenness = counts().min().unwrap_or(0) as f64 / counts().max().unwrap_or(0).max(1) as f64;
        let own_lateness = schedule.map_or_else(histogram, |schedule| schedule.lateness);
        Ok(Outcome {
            operations: progress.operations,
            elapsed: start.elapsed(),
            latency: progress.latency,
            evenness,
            own_lateness,
        })
    }
}

impl Connection {
    fn open(poll: &Poll, index: usize, addr: SocketAddr) -> Result<Connection> {
        let stream = std::net::TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection {
            stream,
            out: Vec::new(),
            written: 0,
            tail: Vec::new(),
            expected: VecDeque::new(),
            sent: VecDeque::new(),
            under_way: 0,
            answered: 0,
        })
    }

    /// Adds operations until `depth` are under way. `false` when the traffic has no more.
    fn fill(&mut self, index: usize, traffic: &mut dyn Traffic, depth: usize, now: Instant) -> bool {
        let mut added = 0;
        let mut has_more = true;
        while self.under_way < depth {
            has_more = traffic.next(index, &mut self.out, &mut |expected| self.expected.push_back(expected));
            if !has_more {
                break;
            }
            self.under_way += 1;
            added += 1;
        }
        if added > 0 {
            self.sent.push_back((now, added));
        }
        has_more
    }

    fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot write to the server"),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what has arrived and checks each whole reply. The number of operations that were answered.
    fn receive(
        &mut self,
        protocol: Protocol,
        buffer: &mut Vec<u8>,
        traffic: &mut dyn Traffic,
        progress: &mut Progress,
    ) -> Result<usize> {
        let mut answered = 0;
        loop {
            let kept = self.tail.len();
            if buffer.len() < kept + READ_BYTES / 2 {
                buffer.resize(kept + READ_BYTES, 0);
            }
            buffer[..kept].copy_from_slice(&self.tail);
            let read = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot read from the server"),
            };
            let now = Instant::now();
            let mut bytes = &buffer[..kept + read];
            while let Some(length) = scan(protocol, bytes)? {
                let (reply, rest) = bytes.split_at(length);
                bytes = rest;
                let Some(expected) = self.expected.pop_front() else {
                    bail!("a reply that nothing asked for: {}", excerpt(reply))
                };
                ensure!(traffic.check(expected, reply), "a wrong reply: {} (to {expected:?})", excerpt(reply));
                if expected.is_last {
                    answered += 1;
                    self.answered(now, progress);
                }
            }
            self.tail.clear();
            self.tail.extend_from_slice(bytes);
            // A read that did not fill its buffer has taken all there was; epoll tells of what comes next.
            if read < buffer.len() - kept {
                break;
            }
        }
        Ok(answered)
    }

    fn answered(&mut self, now: Instant, progress: &mut Progress) {
        self.under_way -= 1;
        self.answered += 1;
        progress.operations += 1;
        if let Some((sent, count)) = self.sent.front_mut() {
            progress.latency.saturating_record(now.saturating_duration_since(*sent).as_nanos() as u64);
            *count -= 1;
            if *count == 0 {
                self.sent.pop_front();
            }
        }
    }
}

/// When the operations of a fixed pace are due.
struct Schedule {
    start: Instant,
    interval: Duration,
    sent: u32,
    connection: usize,
    /// Nanoseconds between the time that an operation was due and that at which it was sent.
    lateness: Histogram<u64>,
}

impl Schedule {
    fn new(pace: Pace, start: Instant) -> Option<Schedule> {
        let Pace::Fixed(rate) = pace else { return None };
        Some(Schedule { start, interval: Duration::from_secs_f64(1.0 / rate), sent: 0, connection: 0, lateness: histogram() })
    }

    /// Sends all that is due before the deadline, in turns over the connections. `false` when the traffic has no more.
    fn send_due(&mut self, connections: &mut [Connection], traffic: &mut dyn Traffic, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let due = self.start + self.interval * self.sent;
            let now = Instant::now();
            if due > now || deadline.is_some_and(|deadline| due >= deadline) {
                return Ok(true);
            }
            self.connection = (self.connection + 1) % connections.len();
            let connection = &mut connections[self.connection];
            let depth = connection.under_way + 1;
            // From now, not from when it was due: a load that was late itself must not blame the server.
            if !connection.fill(self.connection, traffic, depth, now) {
                return Ok(false);
            }
            connection.flush()?;
            self.lateness.saturating_record(now.duration_since(due).as_nanos() as u64);
            self.sent += 1;
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3).expect("the bounds are in order")
}

fn excerpt(reply: &[u8]) -> String {
    const SHOWN: usize = 200;
    let shown = reply[..reply.len().min(SHOWN)].escape_ascii().to_string();
    if reply.len() > SHOWN { format!("'{shown}...' of {} bytes", reply.len()) } else { format!("'{shown}'") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use std::time::Duration;

    use super::{Load, Pace, Plan};
    use crate::{content::Content, reply::Protocol, workload::string::Strings};

    const TURN: Duration = Duration::from_millis(100);
    const TURNS_MAX: usize = 20;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_pace_gets_right_replies_and_a_missing_key_fails_the_run() {
        let node = cache_node::Node::spawn(cache_node::Config::for_test()).await.unwrap();
        let addr = node.addr();
        tokio::task::spawn_blocking(move || {
            let content = Content::new("session", 1_000, 1);
            let mut load = Load::connect(addr, Protocol::Resp, 4).unwrap();
            let plan = |depth, pace, duration| Plan { depth, pace, duration };
            let mut reads = Strings::load(&content, Protocol::Resp, 1);
            let error = load.run(&mut reads, plan(1, Pace::Batch, Some(TURN))).unwrap_err().to_string();
            assert!(error.starts_with("a wrong reply: '$-1"), "{error}");

            let mut load = Load::connect(addr, Protocol::Resp, 4).unwrap();
            let filled = load.run(&mut Strings::fill(&content, Protocol::Resp), plan(16, Pace::Batch, None)).unwrap();
            assert_eq!((filled.operations, filled.latency.len()), (1_000, 1_000));
            for pace in [Pace::Batch, Pace::Refill, Pace::Fixed(2_000.0)] {
                // On a busy machine a turn may be over before much was done.
                let is_much_done = (0..TURNS_MAX).any(|_| {
                    let outcome = load.run(&mut reads, plan(16, pace, Some(TURN))).unwrap();
                    assert_eq!(outcome.operations, outcome.latency.len());
                    assert!(outcome.elapsed >= TURN, "{pace:?}: {outcome:?}");
                    if matches!(pace, Pace::Fixed(_)) {
                        assert!(outcome.operations <= 201, "no faster than asked for: {}", outcome.operations);
                    }
                    outcome.operations >= 100
                });
                assert!(is_much_done, "{pace:?}: less than 100 operations in each of {TURNS_MAX} turns");
            }
        })
        .await
        .unwrap();
        node.shutdown().await.unwrap();
    }

    #[test]
    fn other_machines_are_not_loaded() {
        let error = Load::connect("192.0.2.1:6379".parse().unwrap(), Protocol::Resp, 1).err().unwrap().to_string();
        assert!(error.contains("no loopback address"), "{error}");
    }
}
