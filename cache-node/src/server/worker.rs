//! Worker threads: each has a current-thread runtime, and a connection stays on the thread that it was given to.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    panic::AssertUnwindSafe,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use smallvec::SmallVec;
use tokio::{
    runtime,
    sync::mpsc,
    task::{LocalSet, coop::unconstrained, spawn_local},
    time,
};

use crate::{
    config::Config,
    keyspace::{HashedKey, Keyspace, Now, READ_AHEAD_MAX},
    node::{Client, ClientEntry, Shared},
    protocol::{Reply, RequestParser, Requests, key_at_front},
    script::Interpreter,
    server::{
        connection, now,
        socket::{Ring, Socket, may_have_rings},
        turn_replies::TurnReplies,
    },
    stats::WorkerStats,
};

/// What a client is told that is one too many, in Redis's words.
pub(crate) const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// Accepted connections that wait for a thread; beyond that the acceptor waits, and the kernel's backlog holds the rest.
const HANDOVER_MAX: usize = 1024;

/// Pause after a failed accept (no file descriptors left): long enough not to spin, short enough to be back soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often each thread looks for expired keys and for the word to stop.
const TICK: Duration = Duration::from_millis(50);

/// Slices of moving entries together per tick and shard: memory comes back within seconds and nobody notices.
const COMPACT_SLICES_PER_TICK: usize = 10;

/// Time that connections have to send what is still to be sent when the node ends.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Times that a thread asks its ring for more before it looks at its other sockets and its timers.
const RING_TURNS_MAX: usize = 8;

/// Bytes read at once: shared by all connections of a thread, so that an idle one holds no buffer.
pub(super) const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What the connections of one thread share.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    index: usize,
    pub(super) scripts: Interpreter,
    /// Borrowed only between awaits.
    pub(super) scratch: RefCell<Scratch>,
    config: RefCell<(u64, Arc<Config>)>,
    connections: Cell<usize>,
    pub(super) replies: TurnReplies,
    /// Replies of this turn wait for the log.
    pub(super) has_held: Cell<bool>,
    /// With `io-uring yes`, where the machine allows it.
    ring: OnceCell<Rc<Ring>>,
}

/// Buffers for the batch that runs right now.
pub(super) struct Scratch {
    pub(super) input: Box<[u8]>,
    pub(super) reply: Reply,
    pub(super) parser: RequestParser,
    pub(super) requests: Requests,
}

struct Accepted {
    stream: TcpStream,
    address: SocketAddr,
    admission: Admission,
}

/// A place among `maxclients`; goes back when the connection does not come to be.
struct Admission {
    shared: Arc<Shared>,
    is_used: bool,
}

impl Admission {
    fn new(shared: &Arc<Shared>, maxclients: usize) -> Option<Admission> {
        shared.clients.let_in(maxclients).then(|| Admission { shared: Arc::clone(shared), is_used: false })
    }

    fn use_for(mut self, entry: &Arc<ClientEntry>) {
        self.is_used = true;
        self.shared.clients.add(entry);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_used {
            self.shared.clients.give_up();
        }
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Worker {
        let config = (shared.config_version(), shared.config());
        let scratch = Scratch {
            input: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            reply: Reply::default(),
            parser: RequestParser::default(),
            requests: Requests::default(),
        };
        Worker {
            shared,
            index,
            scripts: Interpreter::default(),
            scratch: RefCell::new(scratch),
            config: RefCell::new(config),
            connections: Cell::new(0),
            replies: TurnReplies::default(),
            has_held: Cell::new(false),
            ring: OnceCell::new(),
        }
    }

    pub(super) fn stats(&self) -> &WorkerStats {
        &self.shared.workers[self.index]
    }

    /// Makes the ring of this thread; on its runtime.
    fn use_ring(&self) {
        match Ring::new() {
            Ok(ring) => drop(self.ring.set(Rc::new(ring))),
            Err(error) => tracing::warn!(thread = self.index, %error, "no ring; its connections are served without one"),
        }
    }

    /// A connection ended.
    pub(super) fn left(&self) {
        self.connections.set(self.connections.get() - 1);
    }

    /// The configuration in force; a lock is taken only after CONFIG SET.
    pub(super) fn config(&self) -> Arc<Config> {
        let version = self.shared.config_version();
        let mut cached = self.config.borrow_mut();
        if cached.0 != version {
            *cached = (version, self.shared.config());
        }
        Arc::clone(&cached.1)
    }
}

/// Starts the worker threads; the first one also accepts.
pub(super) fn start_all(shared: &Arc<Shared>, listeners: Vec<TcpListener>) -> io::Result<Vec<JoinHandle<()>>> {
    let count = shared.workers.len();
    shared.has_rings.store(shared.config().io_uring && may_have_rings(), Ordering::Release);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(HANDOVER_MAX)).unzip();
    let mut listeners = Some(listeners);
    let mut senders = Some(senders);
    let mut threads = Vec::with_capacity(count);
    for (index, receiver) in receivers.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        let accepting = listeners.take().zip(senders.take());
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let name = format!("cache-node-{index}");
        let thread = thread::Builder::new().name(name).spawn(move || run(shared, index, &runtime, receiver, accepting))?;
        threads.push(thread);
    }
    Ok(threads)
}

type Accepting = (Vec<TcpListener>, Vec<mpsc::Sender<Accepted>>);

fn run(
    shared: Arc<Shared>,
    index: usize,
    runtime: &runtime::Runtime,
    receiver: mpsc::Receiver<Accepted>,
    accepting: Option<Accepting>,
) {
    let worker = Rc::new(Worker::new(shared, index));
    worker.stats().begin();
    let tasks = LocalSet::new();
    tasks.block_on(runtime, async {
        if worker.shared.has_rings.load(Ordering::Acquire) {
            worker.use_ring();
        }
        if let Some((listeners, senders)) = accepting {
            let next = Rc::new(AtomicUsize::new(0));
            for listener in listeners {
                spawn_local(accept(Rc::clone(&worker), listener, senders.clone(), Rc::clone(&next)));
            }
        }
        spawn_local(serve_all(Rc::clone(&worker), receiver));
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while !worker.shared.is_stopping.load(Ordering::Acquire) {
            ticks.tick().await;
            upkeep(&worker).await;
        }
        drain(&worker).await;
    });
}

/// Removes expired keys of this thread's share of the shards, gives memory back, and evicts when `maxmemory` was lowered. Connections get their turn
/// between slices.
async fn upkeep(worker: &Worker) {
    let shared = &worker.shared;
    let step = shared.workers.len();
    for shard in (worker.index..shared.keyspace.shard_count()).step_by(step) {
        while shared.keyspace.expire_slice(shard, now(), &**shared) {
            tokio::task::yield_now().await;
        }
        while shared.keyspace.free_slice(shard) {
            tokio::task::yield_now().await;
        }
        while shared.keyspace.release_slice(shard) {
            tokio::task::yield_now().await;
        }
    }
    for shard in (worker.index..shared.keyspace.shard_count()).step_by(step) {
        let mut slices = 0;
        while slices < COMPACT_SLICES_PER_TICK && shared.keyspace.compact_slice(shard) {
            slices += 1;
            tokio::task::yield_now().await;
        }
        while shared.keyspace.release_slice(shard) {
            tokio::task::yield_now().await;
        }
    }
    let config = worker.config();
    if worker.index == 0 {
        shared.replication.tick(shared, now());
        shared.keyspace.free_discarded();
    }
    if worker.index == 0 && config.maxmemory > 0 {
        shared.keyspace.evict_to(config.maxmemory, config.maxmemory_policy, config.maxmemory_samples, now(), &**shared);
    }
}

/// Waits for the connections, which were told to end, to finish what they are doing.
async fn drain(worker: &Worker) {
    const LOOK: Duration = Duration::from_millis(5);
    let started = time::Instant::now();
    while worker.connections.get() > 0 && started.elapsed() < DRAIN_TIME_MAX {
        worker.shared.clients.close_all();
        time::sleep(LOOK).await;
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, senders: Vec<mpsc::Sender<Accepted>>, next: Rc<AtomicUsize>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if worker.shared.is_stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream.into_std() else { continue };
        let Some(accepted) = admit(&worker, stream, address) else { continue };
        let turn = next.fetch_add(1, Ordering::Relaxed) % senders.len();
        if senders[turn].send(accepted).await.is_err() {
            return;
        }
    }
}

/// Refuses a connection with the reason, or lets it in.
fn admit(worker: &Worker, stream: TcpStream, address: SocketAddr) -> Option<Accepted> {
    let shared = &worker.shared;
    let config = worker.config();
    let is_open = || shared.acl.default_user().needs_no_password;
    let refusal = if let Some(refusal) = refusal(&config, is_open, address.ip()) {
        refusal
    } else if let Some(admission) = Admission::new(shared, config.maxclients) {
        shared.counters.connections.fetch_add(1, Ordering::Relaxed);
        return Some(Accepted { stream, address, admission });
    } else {
        shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
        MAX_CLIENTS
    };
    shared.counters.rejected_connections.fetch_add(1, Ordering::Relaxed);
    // The socket's buffer is empty: this small write never waits. A client that has gone already does not matter.
    let sent = (&stream).write_all(refusal);
    drop(sent);
    None
}

/// Why a host may not come in, in the protocol's words. `is_open`: whether the default user needs no password.
fn refusal(config: &Config, is_open: impl FnOnce() -> bool, host: IpAddr) -> Option<&'static [u8]> {
    // An IPv4 host on an IPv6 socket is the host that it is.
    if !config.protected_mode || host.to_canonical().is_loopback() || !is_open() {
        return None;
    }
    // requirepass does not count with an ACL file.
    Some(if config.aclfile.is_some() {
        b"-DENIED cache-node is running in protected mode because the default user of its ACL file needs no password. In this mode \
          connections are only accepted from the loopback interface. To accept other hosts, give it a password or turn it off in that \
          file and load it with ACL LOAD from this machine (resetpass off), or, if the network is trusted, start with \
          --protected-mode no.\r\n"
            .as_slice()
    } else {
        b"-DENIED cache-node is running in protected mode because no password is set. In this mode connections are only accepted from \
          the loopback interface. To accept other hosts, set a password with --requirepass (or CONFIG SET requirepass from this \
          machine), or, if the network is trusted, start with --protected-mode no.\r\n"
    })
}

/// Serves the connections of this thread, all in one task. In a task of its own each would take 200 bytes more: tokio aligns tasks to
/// 128 bytes, and the allocator leaves as much again between what is aligned so.
async fn serve_all(worker: Rc<Worker>, mut receiver: mpsc::Receiver<Accepted>) {
    let mut connections = FuturesUnordered::new();
    let serving = poll_fn(|cx| {
        while let Poll::Ready(Some(accepted)) = receiver.poll_recv(cx) {
            // One that panics is one connection less.
            connections.extend(connection_of(&worker, accepted).map(|serving| AssertUnwindSafe(serving).catch_unwind()));
        }
        let ring = worker.ring.get();
        for _ in 0..RING_TURNS_MAX {
            if let Some(ring) = ring {
                ring.turn(cx);
                ring.look_at_arrived(READ_AHEAD_MAX, |arrived| read_ahead(&worker.shared.keyspace, arrived));
            }
            while let Poll::Ready(Some(ended)) = connections.poll_next_unpin(cx) {
                if ended.is_err() {
                    tracing::error!("a connection ended by a panic");
                }
            }
            worker.replies.send();
            // Once for all connections that had something to say.
            if worker.has_held.take() {
                worker.shared.log_writer.write_waiting(&worker.shared);
            }
            if !ring.is_some_and(|ring| ring.has_more()) {
                return Poll::<()>::Pending;
            }
        }
        // Goes on when the runtime has looked at its sockets and timers.
        let yielding = pin!(tokio::task::yield_now()).poll(cx);
        debug_assert!(yielding.is_pending());
        Poll::Pending
    });
    // tokio's budget is for one connection: many of them would run out of it together and be polled in vain.
    unconstrained(serving).await;
}

/// Reads ahead what single requests of several connections ask for, as those of a pipeline do for themselves. It is a guess, of database 0.
fn read_ahead(keyspace: &Keyspace, arrived: &mut dyn Iterator<Item = &[u8]>) {
    let keys = arrived.filter_map(key_at_front).map(|key| keyspace.hashed(key));
    keyspace.read_ahead(&keys.collect::<SmallVec<[HashedKey<'_>; READ_AHEAD_MAX]>>(), 0);
}

/// A connection that was accepted, as what serves it. `None`: it is gone already.
fn connection_of(worker: &Rc<Worker>, accepted: Accepted) -> Option<impl Future<Output = ()>> {
    let Accepted { stream, address, admission } = accepted;
    let config = worker.config();
    let socket = socket2::SockRef::from(&stream);
    let prepared = socket.set_tcp_nodelay(true).and_then(|()| match config.tcp_keepalive {
        Some(interval) => socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(interval).with_interval(interval)),
        None => Ok(()),
    });
    let local_address = stream.local_addr().ok()?;
    let socket = prepared.and_then(|()| Socket::new(stream, worker.ring.get())).ok()?;
    let shared = &worker.shared;
    let entry = Arc::new(ClientEntry::new(shared.clients.next_id(), address, local_address, now()));
    admission.use_for(&entry);
    if shared.is_stopping.load(Ordering::Acquire) {
        entry.outbox.close();
    }
    let client = Client::new(entry, &shared.acl);
    let worker = Rc::clone(worker);
    worker.connections.set(worker.connections.get() + 1);
    Some(connection::serve(worker, socket, client))
}

/// The time for a batch, also stamped on the connection.
pub(super) fn stamp(client: &Client) -> Now {
    let now = now();
    client.entry.last_active_ms.store(now.unix_ms, Ordering::Relaxed);
    now
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::refusal;
    use crate::Config;

    #[test]
    fn protected_mode_refuses_other_hosts_while_there_is_no_password() {
        let protected = Config::default();
        let host = |text: &str| -> IpAddr { text.parse().expect("an address") };
        for local in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(refusal(&protected, || true, host(local)).is_none(), "{local}");
        }
        for other in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0"] {
            assert!(refusal(&protected, || true, host(other)).is_some_and(|text| text.starts_with(b"-DENIED")), "{other}");
            assert!(refusal(&protected, || false, host(other)).is_none(), "{other}");
            let with_file = Config { aclfile: Some("users.acl".into()), ..Config::default() };
            let text = refusal(&with_file, || true, host(other)).expect("nobody of this host");
            assert!(text.windows(8).any(|word| word == b"ACL LOAD") && !text.windows(11).any(|word| word == b"requirepass"));
            let open = Config { protected_mode: false, ..Config::default() };
            assert!(refusal(&open, || true, host(other)).is_none(), "{other}");
        }
    }
}
