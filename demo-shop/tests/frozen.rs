//! A part of the shop is stopped for ten seconds while shoppers are at it, and goes on: nothing is lost, nothing is done twice, and it is
//! back at once.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking, and nobody reads its docs")]

mod fleet_support;
#[path = "shop/support.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod shop_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use end_to_end::postgres::Postgres;
use end_to_end::proc::descendants;
use end_to_end::server::{Signal, kill};
use end_to_end::traffic::Traffic;
use end_to_end::visitor::{Answer, Visitor};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fleet_support::{PATIENCE, Process, start};
use crate::shop_support::address_on;

const FROZEN: Duration = Duration::from_secs(10);
/// Beside the buyers, who share a cart with nobody.
const SHOPPERS: u64 = 3;
const BUYERS: u32 = 2;
/// What they buy, one piece each time, and nobody else does.
const BOUGHT: &str = "field-notebook";
/// Between two orders of one buyer, so that there are enough of it until the end.
const BUYERS_PAUSE: Duration = Duration::from_millis(150);
const PAUSE: Duration = Duration::from_millis(20);
/// What is promised is 100 ms after the node accepts again; the rest is for two busy cores that run three shops.
const BACK_WITHIN: Duration = Duration::from_millis(100 + 900);
/// Of an operation of the store 250 ms; the rest likewise.
const WITHIN_DEADLINE: Duration = Duration::from_millis(250 + 1_750);
/// After two late probes, 2.5 s; the rest likewise. Who waits for what is stopped takes nearly ten.
const NOTICED_WITHIN: Duration = Duration::from_millis(2_500 + 2_500);

/// A shop of two replicas, and everybody who is in it.
struct Busy {
    url: String,
    _process: Process,
    stock: i64,
    stop: Arc<AtomicBool>,
    traffic: Traffic,
    buyers: Vec<JoinHandle<(Visitor, usize)>>,
    readers: JoinHandle<Vec<Read>>,
    _data: tempfile::TempDir,
}

impl Busy {
    async fn start(more: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let arguments = ["up", "--replicas", "2", "--listen", "127.0.0.1:0", "--data", data.path().to_str().unwrap()];
        let process = start(&[&arguments[..], more].concat()).await;
        let url = format!("http://{}", process.address);
        let stop = Arc::new(AtomicBool::new(false));
        let skus = ["rice-bowl", "moss-vase", "echeveria"].map(str::to_owned);
        let traffic = Traffic::start(&url, &skus, SHOPPERS, 7);
        let stock = stock(&url).await;
        let buyers = (0..BUYERS).map(|_| tokio::spawn(buy(url.clone(), Arc::clone(&stop)))).collect();
        let readers = tokio::spawn(read(url.clone(), Arc::clone(&stop)));
        Self { url, _process: process, stock, stop, traffic, buyers, readers, _data: data }
    }

    /// The pid of the first process of this kind.
    async fn pid(&self, kind: &str) -> u32 {
        let fleet = Visitor::new().get(&format!("{}/fleet.json", self.url)).await.unwrap().to_json().unwrap();
        fleet[kind][0]["pid"].as_u64().and_then(|pid| pid.try_into().ok()).unwrap()
    }

    /// Stops these for as long as is said; what the readers met meanwhile. Everybody's ledger is right afterwards.
    async fn freeze(self, what: &str, pids: &[u32]) -> Met {
        sleep(Duration::from_secs(1)).await;
        let send = |signal| pids.iter().for_each(|pid| kill(*pid, signal));
        send(Signal::STOP);
        let began = Instant::now();
        sleep(FROZEN).await;
        send(Signal::CONT);
        let ended = Instant::now();
        sleep(Duration::from_secs(1)).await;
        self.stop.store(true, Ordering::SeqCst);

        let met = Met::of(&self.readers.await.unwrap(), began, ended);
        let (mut acknowledged, mut unanswered) = (0, 0);
        for mut shopper in self.traffic.stop().await.unwrap() {
            shopper.check(&self.url).await.unwrap();
            acknowledged += shopper.acknowledged;
            unanswered += shopper.unanswered;
        }
        let mut bought = 0;
        for buyer in self.buyers {
            let (visitor, orders) = buyer.await.unwrap();
            let history = visitor.get(&format!("{}/orders", self.url)).await.unwrap();
            assert_eq!(history.text().matches("href=\"/orders/").count(), orders, "{what}: each order is there once");
            assert!(visitor.cart(&self.url).await.unwrap().lines.is_empty(), "{what}: what was ordered has left the cart");
            bought += orders;
        }
        assert_eq!(self.stock - stock(&self.url).await, i64::try_from(bought).unwrap(), "{what}: each piece was sold once");
        println!("{what}: {met:?}; {acknowledged} changes acknowledged, {unanswered} unanswered, {bought} orders");
        met
    }
}

/// What the readers met while something was stopped.
#[derive(Debug)]
struct Met {
    reads: usize,
    served: usize,
    slowest: Duration,
    /// From the moment in which it went on to the first cart that was read.
    back: Duration,
}

impl Met {
    fn of(reads: &[Read], began: Instant, ended: Instant) -> Self {
        let during: Vec<_> = reads.iter().filter(|read| read.at >= began && read.at < ended).collect();
        let afterwards = reads.iter().filter(|read| read.is_served && read.at + read.took >= ended);
        Met {
            reads: during.len(),
            served: during.iter().filter(|read| read.is_served).count(),
            slowest: during.iter().map(|read| read.took).max().unwrap(),
            back: afterwards.map(|read| read.at + read.took - ended).min().unwrap(),
        }
    }
}

async fn stock(url: &str) -> i64 {
    let products: Value = Visitor::new().get(&format!("{url}/api/products")).await.unwrap().to_json().unwrap();
    let all = products["products"].as_array().unwrap();
    all.iter().find(|product| product["sku"] == BOUGHT).unwrap()["stock"].as_i64().unwrap()
}

/// Asks until there is an answer that is no outage.
async fn patiently<F: Future<Output = anyhow::Result<Answer>>>(mut ask: impl FnMut() -> F) -> Answer {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if let Ok(answer) = &answer
            && !answer.status.is_server_error()
        {
            return answer.clone();
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
        sleep(PAUSE).await;
    }
}

/// Orders one piece after the other, each by one form which is sent until it has its order.
async fn buy(url: String, stop: Arc<AtomicBool>) -> (Visitor, usize) {
    let visitor = Visitor::new();
    let (checkout_url, mut bought) = (format!("{url}/checkout"), 0);
    while !stop.load(Ordering::SeqCst) {
        let key = format!("{:032x}", rand::random::<u128>());
        let body = serde_json::json!({ "sku": BOUGHT, "quantity": 1 });
        let headers = [("idempotency-key", key.as_str())];
        let lines = format!("{url}/api/cart/lines");
        patiently(|| visitor.json(Method::POST, &lines, &headers, &body)).await.success().unwrap();
        let page = patiently(|| visitor.get(&checkout_url)).await;
        let form = address_on(&page);
        let fields: Vec<(&str, &str)> = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = patiently(|| visitor.form(&checkout_url, &fields)).await;
        let is_ordered = answer.header("location").starts_with("/orders/") || answer.text().contains("id=\"order-id\"");
        assert!(is_ordered, "after {bought}: {} {:?}: {}", answer.status, answer.headers, answer.text());
        bought += 1;
        sleep(BUYERS_PAUSE).await;
    }
    (visitor, bought)
}

struct Read {
    at: Instant,
    took: Duration,
    is_served: bool,
}

/// Looks at the cart again and again, and does not wait for the answer before the next time.
async fn read(url: String, stop: Arc<AtomicBool>) -> Vec<Read> {
    let mut reads = tokio::task::JoinSet::new();
    let visitor = Visitor::new();
    patiently(|| visitor.add(&url, "rice-bowl", 1)).await;
    while !stop.load(Ordering::SeqCst) {
        let (visitor, url) = (visitor.clone(), format!("{url}/api/cart"));
        reads.spawn(async move {
            let at = Instant::now();
            let is_served = visitor.get(&url).await.is_ok_and(|answer| answer.status == StatusCode::OK);
            Read { at, took: at.elapsed(), is_served }
        });
        sleep(PAUSE).await;
    }
    reads.join_all().await
}

async fn a_node() {
    let busy = Busy::start(&[]).await;
    let pid = busy.pid("nodes").await;
    let met = busy.freeze("the cache node", &[pid]).await;
    assert!(met.slowest < WITHIN_DEADLINE, "{met:?}");
    assert!(met.back < BACK_WITHIN, "{met:?}");
}

async fn a_replica() {
    let busy = Busy::start(&[]).await;
    let pid = busy.pid("replicas").await;
    let met = busy.freeze("a replica", &[pid]).await;
    assert_eq!(met.served, met.reads, "the other one serves all of them: {met:?}");
    assert!(met.slowest < NOTICED_WITHIN, "{met:?}");
}

async fn the_database() {
    let postgres = Postgres::start().await.unwrap();
    let busy = Busy::start(&["--database", postgres.url()]).await;
    let server = postgres.server.pid();
    let met = busy.freeze("the database", &[vec![server], descendants(server)].concat()).await;
    assert_eq!(met.served, met.reads, "a cart needs no database: {met:?}");
    assert!(met.slowest < NOTICED_WITHIN, "{met:?}");
}

/// At once, each in a shop of its own: they wait more than they compute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_for_ten_seconds_costs_no_cart_and_no_order_and_is_back_at_once() {
    tokio::join!(a_node(), a_replica(), the_database());
}
