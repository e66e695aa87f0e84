//! The breaker of a node: opens, refuses at once, probes by itself, closes.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::{
    collections::HashSet,
    net::TcpListener,
    time::{Duration, Instant},
};

use session_store::{BreakerState, CacheStore, StoreError};
use support::{
    Moment, PATIENCE, connected, default_store, each_backend, each_process, moment, on_redis, patient, port::free_port,
    slow_proxy::SlowProxy, until_it_answers,
};

/// What is promised is 5 ms; the rest is for two busy cores.
const REFUSED_WITHIN: Duration = Duration::from_millis(5 + 100);
/// What is promised is 100 ms; the rest is for two busy cores.
const BACK_WITHIN: Duration = Duration::from_millis(100 + 400);

fn breaker(store: &CacheStore) -> BreakerState {
    store.status().nodes[0].breaker
}

async fn until(state: BreakerState, store: &CacheStore, within: Duration) {
    let began = Moment::now();
    while breaker(store) != state {
        assert!(began.elapsed() < within, "{:?} after {:?}", store.status(), began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Operations at once, over and over, each answered at once or refused at once.
async fn load(store: &CacheStore, clients: usize, time: Duration) -> usize {
    let until = Moment::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let mut refused = 0;
            while until.elapsed() < time {
                let began = Moment::now();
                if let Err(error) = store.ping().await {
                    assert!(matches!(error, StoreError::BreakerOpen { .. }), "{error}");
                    assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
                    refused += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            refused
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_refused_at_once_and_is_back_at_once_under_load() {
    each_process(async |mut server| {
        let store = default_store(server.url()).await;
        assert_eq!(breaker(&store), BreakerState::Closed);
        server.kill();
        let began = Moment::now();
        store.ping().await.unwrap_err();
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        until(BreakerState::Open, &store, REFUSED_WITHIN).await;
        let node = store.status().nodes.remove(0);
        assert!(node.reason.unwrap().contains("connection refused"));
        assert!(load(&store, 32, Duration::from_secs(2)).await > 1_000);
        server.restart().await;
        until(BreakerState::Closed, &store, BACK_WITHIN).await;
        until_it_answers(&store).await;
        assert_eq!(store.status().nodes[0].reason, None);
    })
    .await;
}

/// What is held against a node ends with its process: that it was away a moment ago delays no return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_over_and_over_is_refused_and_back_as_fast_as_promised_each_time() {
    each_process(async |mut server| {
        let store = CacheStore::connect(server.url()).await.unwrap();
        let mut backs = Vec::new();
        for _ in 0..5 {
            server.kill();
            store.ping().await.unwrap_err();
            until(BreakerState::Open, &store, REFUSED_WITHIN).await;
            let mut refusals = Vec::new();
            for _ in 0..100 {
                let asked = Instant::now();
                store.ping().await.unwrap_err();
                refusals.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            refusals.sort();
            assert!(refusals[50] < Duration::from_millis(5), "half of them are refused within {:?}", refusals[50]);
            server.restart().await;
            let back = Instant::now();
            until(BreakerState::Closed, &store, BACK_WITHIN).await;
            backs.push(back.elapsed());
            store.ping().await.unwrap();
        }
        println!("back after {backs:?}");
        // Not all of them on a busy machine, but a delay that is ours would be in each.
        assert!(backs.iter().min().unwrap() < &Duration::from_millis(100), "{backs:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_is_probed_by_one_connection_and_is_back_at_once() {
    each_process(async |server| {
        let store = default_store(server.url()).await;
        server.signal("-STOP");
        let began = Moment::now();
        while breaker(&store) == BreakerState::Closed {
            let asked = Moment::now();
            store.ping().await.unwrap_err();
            assert!(asked.elapsed() < Duration::from_millis(250 + 400), "{:?}", asked.elapsed());
            assert!(began.elapsed() < Duration::from_secs(4), "the breaker stays closed");
        }
        until(BreakerState::HalfOpen, &store, Duration::from_secs(1)).await;
        load(&store, 32, Duration::from_secs(3)).await;
        server.signal("-CONT");
        until(BreakerState::Closed, &store, BACK_WITHIN).await;
        until_it_answers(&store).await;
        // Those of the probes went with them; what the store uses is two connections, and this one.
        let began = Instant::now();
        loop {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut server.connection().await).await.unwrap();
            if clients.lines().count() <= 3 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{clients}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_shorter_than_an_outage_is_over_at_once() {
    each_process(async |server| {
        let store = default_store(server.url()).await;
        for _ in 0..3 {
            server.signal("-STOP");
            // Longer than a deadline, shorter than what opens the breaker: a long pause, not an outage.
            let slow = store.ping().await.unwrap_err();
            assert!(slow.is_outage());
            server.signal("-CONT");
            let began = Moment::now();
            while store.ping().await.is_err() {
                assert!(began.elapsed() < BACK_WITHIN, "{:?}", store.status());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
}

/// A request would wait for its deadline, and get nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_later_than_the_deadline_is_not_taken_for_one_that_is_back() {
    each_backend(async |server| {
        let proxy = SlowProxy::start(&server, 1).await;
        let store = default_store(proxy.url()).await;
        proxy.late_ms(500..=600);
        let began = Moment::now();
        while breaker(&store) == BreakerState::Closed {
            store.ping().await.unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(10), "the breaker stays closed");
        }
        let opened = Instant::now();
        while opened.elapsed() < Duration::from_secs(4) {
            assert_ne!(breaker(&store), BreakerState::Closed, "it closed after {:?}", opened.elapsed());
            let asked = Moment::now();
            let error = store.ping().await.unwrap_err();
            assert!(matches!(error, StoreError::BreakerOpen { .. }), "{error}");
            assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let reason = store.status().nodes.remove(0).reason.unwrap();
        assert!(reason.contains("not within 250 ms"), "{reason}");

        proxy.late_ms(0..=0);
        // What is under way comes late still, and the next attempt half a second after it.
        until(BreakerState::Closed, &store, Duration::from_secs(4)).await;
        until_it_answers(&store).await;
    })
    .await;
}

/// A port whose system answers no attempt to connect: the queue of those who wait to be accepted is full.
struct BlackHole {
    listener: TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], free_port())).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            waiting.push(stream);
        }
        assert!(!waiting.is_empty() && waiting.len() < 16, "{} connections", waiting.len());
        Self { listener, _waiting: waiting }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.listener.local_addr().unwrap())
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }
}

/// The attempts to connect to this port that the system has under way, by the ports that they come from: its table of
/// connections names them, with 02 for those that wait for an answer.
fn attempts_under_way(port: u16) -> HashSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!("0100007F:{port:04X}");
    let attempts = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (from, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        (remote == to && state == "02").then(|| from.to_owned())
    });
    attempts.collect()
}

/// Attempts begun within this time to connect to each of the ports; the most that were under way at once.
async fn attempts<const N: usize>(ports: [u16; N], time: Duration) -> ([usize; N], usize) {
    let mut seen = ports.map(|_| HashSet::new());
    let before = ports.map(attempts_under_way);
    let mut most = 0;
    let began = Instant::now();
    while began.elapsed() < time {
        for (port, seen) in ports.iter().zip(&mut seen) {
            let under_way = attempts_under_way(*port);
            most = most.max(under_way.len());
            seen.extend(under_way);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (std::array::from_fn(|i| seen[i].difference(&before[i]).count()), most)
}

/// However long one may take for a connection, an attempt is begun every 40 ms, or half as often on two busy cores, and no more than
/// 25 are under way: if each of those lasted as long as a connection may take, eight a second would be begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_holed_address_is_answered_within_the_deadline_then_at_once_and_its_return_is_seen() {
    const WATCHED: Duration = Duration::from_secs(3);
    const BEGUN_MIN: usize = 3 * 25 / 2;
    const BEGUN_MAX: usize = 3 * 25 + 5;
    let holes = [BlackHole::new(), BlackHole::new()];
    let store = CacheStore::builder(holes[0].url()).connect_lazy().unwrap();
    // One that takes its time for a connection, and looks whether the node is back as often as the other.
    let patient = CacheStore::builder(holes[1].url()).connect_timeout(WATCHED).connect_lazy().unwrap();
    patient.ping().await.unwrap_err();
    let began = Moment::now();
    store.ping().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(250 + 400), "{:?}", began.elapsed());
    until(BreakerState::Open, &store, Duration::from_secs(1)).await;
    load(&store, 16, Duration::from_secs(2)).await;
    assert_ne!(breaker(&store), BreakerState::Closed);
    until(BreakerState::Open, &patient, Duration::from_secs(10)).await;
    let ports = [holes[0].port(), holes[1].port()];
    // Between the times at which the system repeats the packets of the first attempts.
    moment::sleep(Duration::from_millis(1_200)).await;
    let began = Moment::now();
    let (begun, most) = attempts(ports, WATCHED).await;
    // While the machine stands still nothing is begun.
    let begun_min = BEGUN_MIN.saturating_sub(BEGUN_MAX * began.stalled().as_millis() as usize / WATCHED.as_millis() as usize);
    println!("attempts begun in {WATCHED:?}: {begun:?}, {most} at once");
    assert!(begun.iter().all(|begun| (begun_min..=BEGUN_MAX).contains(begun)), "attempts begun in {WATCHED:?}: {begun:?}");
    assert!(most <= 25, "{most} at once");

    drop(holes);
    let mut nodes = Vec::new();
    for port in ports {
        let mut config = cache_node::Config::for_test();
        config.port = port;
        nodes.push(cache_node::Node::spawn(config).await.unwrap());
    }
    until(BreakerState::Closed, &store, BACK_WITHIN).await;
    until(BreakerState::Closed, &patient, BACK_WITHIN).await;
    until_it_answers(&store).await;
    until_it_answers(&patient).await;
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_loading_is_waited_for_in_the_background() {
    on_redis(async |mut server| {
        let mut admin = server.connection().await;
        redis::cmd("DEBUG").arg(&["POPULATE", "2000", "k", "1000"]).exec_async(&mut admin).await.unwrap();
        redis::cmd("BGREWRITEAOF").exec_async(&mut admin).await.unwrap();
        let began = Instant::now();
        loop {
            let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut admin).await.unwrap();
            if ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_rewrites:1"].iter().all(|field| info.contains(field))
            {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{info}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let store = default_store(server.url()).await;
        server.kill();
        store.ping().await.unwrap_err();
        // 2 ms for each key: about four seconds.
        server.restart_slowly(2_000);
        let mut seen_loading = false;
        let began = Instant::now();
        while breaker(&store) != BreakerState::Closed {
            let asked = Moment::now();
            let error = store.ping().await;
            assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
            seen_loading |= error.is_err_and(|error| error.to_string().contains("loading"));
            assert!(began.elapsed() < PATIENCE, "{:?}", store.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(seen_loading);
        until_it_answers(&store).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_operations_wait_for_the_pool() {
    each_process(async |server| {
        let store = connected(CacheStore::builder(server.url()).pool_size(1).waiting_max(2)).await;
        server.signal("-STOP");
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let store = store.clone();
            tasks.spawn(async move { store.ping().await.unwrap_err() });
        }
        let full = tasks.join_all().await.into_iter().filter(|error| matches!(error, StoreError::PoolFull { waiting_max: 2 }));
        assert!(full.count() >= 5);
        server.signal("-CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_may_wait_free_places_are_still_used() {
    each_process(async |server| {
        let store = connected(CacheStore::builder(server.url()).pool_size(1).waiting_max(0)).await;
        for _ in 0..3 {
            until_it_answers(&store).await;
        }
        server.signal("-STOP");
        let pings = futures_util::future::join_all((0..5).map(|_| store.ping())).await;
        let full = pings.iter().filter(|ping| matches!(ping, Err(StoreError::PoolFull { waiting_max: 0 })));
        assert_eq!(full.count(), 4, "{pings:?}");
        server.signal("-CONT");
    })
    .await;
}

/// The ids of the connections whose last command was a ping: those of the store.
async fn pinging(admin: &mut redis::aio::MultiplexedConnection) -> Vec<String> {
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(admin).await.unwrap();
    let clients = clients.lines().filter(|line| line.contains("cmd=ping"));
    clients.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_replaced_and_nobody_notices() {
    each_process(async |server| {
        let store = patient(server.url()).sockets(1).connection_age_max(Duration::from_secs(1)).connect().await.unwrap();
        let mut admin = server.connection().await;
        // The connection with which the test saw the server start takes a moment to go.
        let mut before = pinging(&mut admin).await;
        let began = Instant::now();
        while before.len() != 1 {
            assert!(began.elapsed() < PATIENCE, "{before:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            before = pinging(&mut admin).await;
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            store.ping().await.unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        // So does the former one.
        let mut after = pinging(&mut admin).await;
        let began = Instant::now();
        while after.len() != 1 {
            assert!(began.elapsed() < PATIENCE, "{after:?}");
            store.ping().await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            after = pinging(&mut admin).await;
        }
        assert_ne!(before, after);
    })
    .await;
}

/// Few operations at once use the first connection alone.
#[tokio::test]
async fn an_old_connection_goes_also_where_nobody_asks_over_it() {
    each_process(async |server| {
        let store = patient(server.url()).sockets(2).connection_age_max(Duration::from_secs(1)).connect().await.unwrap();
        let mut admin = server.connection().await;
        for outcome in futures_util::future::join_all((0..24).map(|_| store.ping())).await {
            outcome.unwrap();
        }
        assert_eq!(store.status().nodes[0].connections, 2);
        let first = pinging(&mut admin).await;
        assert!(first.len() >= 2, "{first:?}");
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let began = Instant::now();
        loop {
            store.ping().await.unwrap();
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin).await.unwrap();
            if !first.iter().any(|id| clients.lines().any(|line| line.starts_with(&format!("{id} ")))) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{first:?} in {clients}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_old_connection_goes_also_where_several_places_have_it() {
    each_process(async |server| {
        let store = patient(server.url()).sockets(1).connection_age_max(Duration::from_secs(1)).connect().await.unwrap();
        let mut admin = server.connection().await;
        // Two operations at once, which have a place each, then one at a time.
        let (one, other) = tokio::join!(store.ping(), store.ping());
        one.unwrap();
        other.unwrap();
        assert_eq!(store.pool_status().size, 2);
        let first = pinging(&mut admin).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let began = Instant::now();
        loop {
            for _ in 0..10 {
                store.ping().await.unwrap();
            }
            let clients = pinging(&mut admin).await;
            // Another than the one that both places had.
            if clients.len() == 1 && !first.contains(&clients[0]) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{clients:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
