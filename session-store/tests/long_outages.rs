//! A node that is slow, one that is stopped for long, and one that is away for minutes while everybody goes on asking.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::time::{Duration, Instant};

use axum::Router;
use http::{Method, StatusCode};
use session_store::{BreakerState, CacheStore, CartLimits, SessionLayer};
use support::{Answer, Moment, PATIENCE, Visitor, app, default_store, each_process, send, slow_proxy::SlowProxy};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// The deadline, and what two busy cores may add.
const WITHIN_DEADLINE: Duration = Duration::from_millis(250 + 400);
/// What is promised is 100 ms after the node accepts again; the rest is for two busy cores.
const BACK_WITHIN: Duration = Duration::from_millis(100 + 400);

fn application(store: &CacheStore) -> Router {
    let limits = CartLimits { lines_max: 100, quantity_max: 1_000_000 };
    app::router().layer(SessionLayer::new(store.clone()).with_cart_limits(limits))
}

/// How often something was put into a cart, as its visitor knows it.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    confirmed: u32,
    /// Failed, and may have been done all the same.
    unknown: u32,
}

impl Count {
    fn note(&mut self, answer: &Answer) {
        match answer.status {
            StatusCode::OK => self.confirmed += 1,
            StatusCode::SERVICE_UNAVAILABLE => self.unknown += 1,
            other => panic!("{other}: {}", answer.body),
        }
    }

    fn check(self, cart: &str) {
        let there: u32 = cart.strip_prefix("TEA=").unwrap_or_else(|| panic!("{self:?}: {cart}")).parse().unwrap();
        assert!((self.confirmed..=self.confirmed + self.unknown).contains(&there), "{there} are there: {self:?}");
    }
}

/// What a node that is late half of the time may make of its breaker in these seconds: it closes with the first answer in time, and
/// after that needs eight in a row, then sixteen, and so on.
const OPENED_MAX: u32 = 4;
/// The longest proof that a breaker asks for, 128 answers with 40 ms in between, after one that is still late, and what two busy
/// cores may add.
const PROVED_WITHIN: Duration = Duration::from_millis(250 + 128 * 40 + 3_000);

/// Watches a breaker for as long as it lives.
async fn openings(store: CacheStore, opened: watch::Sender<u32>) {
    let mut was_open = false;
    loop {
        let is_open = store.status().nodes[0].breaker != BreakerState::Closed;
        opened.send_modify(|opened| *opened += u32::from(is_open && !was_open));
        was_open = is_open;
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_late_half_of_the_time_costs_the_deadline_at_most_and_does_not_flap() {
    each_process(async |server| {
        let proxy = SlowProxy::start(&server, 1).await;
        let store = default_store(proxy.url()).await;
        let app = application(&store);
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let mut count = Count::default();
        visitor.post_until_done(&app, "/cart/set/TEA/1").await;
        count.confirmed += 1;
        let opened = watch::Sender::new(0);
        let mut watching = JoinSet::new();
        watching.spawn(openings(store.clone(), opened.clone()));
        let (mut refused_at_once, mut late) = (0, 0);
        proxy.slow(true);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            let asked = Moment::now();
            let answer = visitor.post(&app, "/cart/add/TEA/1").await;
            assert!(asked.elapsed() < WITHIN_DEADLINE, "an answer took {:?}", asked.elapsed());
            count.note(&answer);
            let is_refused = answer.status != StatusCode::OK && asked.elapsed() < Duration::from_millis(100);
            refused_at_once += u32::from(is_refused);
            late += u32::from(answer.status != StatusCode::OK && !is_refused);
            let asked = Instant::now();
            let answer = send(&app, Method::GET, "/get/name", visitor.cookie.as_deref()).await;
            assert!(asked.elapsed() < WITHIN_DEADLINE, "an answer took {:?}", asked.elapsed());
            late += u32::from(answer.status != StatusCode::OK && asked.elapsed() >= Duration::from_millis(250));
            assert!(answer.body == "ada" || answer.status == StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
            assert_eq!(answer.set_cookie(), None, "an error is no empty session");
            sleep(Duration::from_millis(10)).await;
        }
        let times = *opened.borrow();
        println!("{count:?}, refused at once {refused_at_once}, late {late}, opened {times} times");
        assert!(late >= 3, "late answers open it: {late}");
        assert!((1..=OPENED_MAX).contains(&times), "it opened {times} times");
        assert!(refused_at_once > 0, "nobody is kept waiting while it is open");

        proxy.slow(false);
        let well = Moment::now();
        loop {
            let answer = visitor.post(&app, "/cart/add/TEA/1").await;
            count.note(&answer);
            if answer.status == StatusCode::OK {
                break;
            }
            assert!(well.elapsed() < PROVED_WITHIN, "not back after {:?}: {}", well.elapsed(), answer.body);
            sleep(Duration::from_millis(2)).await;
        }
        println!("back {:?} after it was well", well.elapsed());
        // A busy machine may be too slow for the deadline now and then.
        let (began, mut in_a_row) = (Instant::now(), 0);
        while in_a_row < 20 {
            let answer = visitor.post(&app, "/cart/add/TEA/1").await;
            count.note(&answer);
            in_a_row = if answer.status == StatusCode::OK { in_a_row + 1 } else { 0 };
            assert!(began.elapsed() < PATIENCE, "{count:?}");
        }
        assert_eq!(store.status().nodes[0].breaker, BreakerState::Closed);
        assert!(*opened.borrow() <= OPENED_MAX, "it opened {} times", *opened.borrow());
        count.check(&visitor.get_until_done(&app, "/cart").await.body);
    })
    .await;
}

/// Visitors who ask fifty times a second in all, whatever becomes of it.
struct Load {
    ends: watch::Sender<bool>,
    visitors: JoinSet<(Visitor, Count, Vec<Duration>)>,
}

const VISITORS: u32 = 25;
const REQUESTS_PER_SECOND: u32 = 50;

impl Load {
    async fn start(app: &Router) -> Self {
        let ends = watch::Sender::new(false);
        let mut visitors = JoinSet::new();
        for number in 0..VISITORS {
            let mut visitor = Visitor::default();
            visitor.post_until_done(app, "/set/name/ada").await;
            visitor.post_until_done(app, "/cart/set/TEA/1").await;
            visitors.spawn(ask(app.clone(), visitor, number, ends.subscribe()));
        }
        Self { ends, visitors }
    }

    /// What everybody was told is what is there; how long each request took.
    async fn finish(self, app: &Router) -> (Count, Vec<Duration>) {
        self.ends.send_replace(true);
        let (mut all, mut times) = (Count::default(), Vec::new());
        for (mut visitor, count, took) in self.visitors.join_all().await {
            count.check(&visitor.get_until_done(app, "/cart").await.body);
            assert_eq!(visitor.get_until_done(app, "/get/name").await.body, "ada", "its session is the one from before");
            all.confirmed += count.confirmed;
            all.unknown += count.unknown;
            times.extend(took);
        }
        times.sort();
        (all, times)
    }
}

/// Reads and additions in turn.
async fn ask(app: Router, visitor: Visitor, number: u32, mut ends: watch::Receiver<bool>) -> (Visitor, Count, Vec<Duration>) {
    let (mut count, mut took) = (Count { confirmed: 1, unknown: 0 }, Vec::new());
    let period = Duration::from_secs(1) * VISITORS / REQUESTS_PER_SECOND;
    sleep(period * number / VISITORS).await;
    let mut turns = interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0.. {
        tokio::select! {
            _ = turns.tick() => {}
            _ = ends.wait_for(|ends| *ends) => break,
        }
        let began = Moment::now();
        if turn % 2 == 0 {
            let answer = send(&app, Method::GET, "/get/name", visitor.cookie.as_deref()).await;
            assert!(answer.body == "ada" || answer.status == StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
            assert_eq!(answer.set_cookie(), None);
        } else {
            count.note(&send(&app, Method::POST, "/cart/add/TEA/1", visitor.cookie.as_deref()).await);
        }
        took.push(began.elapsed());
    }
    (visitor, count, took)
}

/// Asks every other millisecond; how long it took until it was served.
async fn until_served(app: &Router, visitor: &Visitor) -> Duration {
    let began = Moment::now();
    loop {
        let answer = send(app, Method::GET, "/get/name", visitor.cookie.as_deref()).await;
        if answer.status == StatusCode::OK {
            assert_eq!(answer.body, "ada");
            return began.elapsed();
        }
        assert!(began.elapsed() < BACK_WITHIN, "not back after {:?}: {}", began.elapsed(), answer.body);
        sleep(Duration::from_millis(2)).await;
    }
}

fn at(times: &[Duration], part: f64) -> Duration {
    times[((times.len() - 1) as f64 * part) as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_for_ten_seconds_is_back_at_once_with_everything() {
    each_process(async |server| {
        let store = default_store(server.url()).await;
        let app = application(&store);
        let mut visitor = Visitor::default();
        visitor.post_until_done(&app, "/set/name/ada").await;
        let load = Load::start(&app).await;
        sleep(Duration::from_secs(1)).await;
        server.signal("-STOP");
        sleep(Duration::from_secs(10)).await;
        server.signal("-CONT");
        let back = until_served(&app, &visitor).await;
        sleep(Duration::from_secs(1)).await;
        let (count, times) = load.finish(&app).await;
        println!("back after {back:?}, {count:?}, half within {:?}, slowest {:?}", at(&times, 0.5), at(&times, 1.0));
        assert!(count.confirmed > 20 && count.unknown > 100, "{count:?}");
        assert!(at(&times, 1.0) < WITHIN_DEADLINE, "{:?}", at(&times, 1.0));
        assert!(at(&times, 0.5) < Duration::from_millis(100), "half of them are refused at once: {:?}", at(&times, 0.5));
    })
    .await;
}

/// Three minutes for each: `tests/run --long` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes more than six minutes"]
async fn a_node_that_is_away_for_minutes_under_load_is_back_at_once_with_everything() {
    const AWAY: Duration = Duration::from_secs(180);
    each_process(async |mut server| {
        let store = default_store(server.url()).await;
        let app = application(&store);
        let mut visitor = Visitor::default();
        visitor.post_until_done(&app, "/set/name/ada").await;
        let load = Load::start(&app).await;
        sleep(Duration::from_secs(2)).await;
        let tasks = |moment| println!("{moment}: {} tasks live", tokio::runtime::Handle::current().metrics().num_alive_tasks());
        tasks("before");
        server.kill();
        sleep(AWAY).await;
        tasks("after three minutes");
        let node = store.status().nodes.remove(0);
        assert!(node.breaker != BreakerState::Closed && node.since > AWAY - Duration::from_secs(5), "{node:?}");
        server.restart().await;
        let back = until_served(&app, &visitor).await;
        sleep(Duration::from_secs(2)).await;
        let (count, times) = load.finish(&app).await;
        println!(
            "{} requests, back after {back:?}, {count:?}; half within {:?}, 99 of 100 within {:?}, slowest {:?}",
            times.len(),
            at(&times, 0.5),
            at(&times, 0.99),
            at(&times, 1.0)
        );
        assert!(times.len() as u32 > AWAY.as_secs() as u32 * REQUESTS_PER_SECOND * 8 / 10, "{} requests", times.len());
        assert!(at(&times, 0.99) < Duration::from_millis(100), "they are refused at once: {:?}", at(&times, 0.99));
    })
    .await;
}
