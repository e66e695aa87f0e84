//! A whole shop as real processes: what dies comes back, and nothing outlives its supervisor.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking, and nobody reads its docs")]

mod fleet_support;
#[path = "shop/support.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod shop_support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;

use end_to_end::visitor::{Answer, Visitor};

use crate::fleet_support::{Http, PATIENCE, Process, ask, get, http, post, start};
use crate::shop_support::{registration, text_of};

/// A shop of three replicas with its own cache node and a data folder that is thrown away.
struct Shop {
    process: Process,
    _data: tempfile::TempDir,
}

async fn shop() -> Shop {
    let data = tempfile::tempdir().unwrap();
    Shop { process: shop_in(data.path()).await, _data: data }
}

async fn shop_in(folder: &Path) -> Process {
    start(&["up", "--listen", "127.0.0.1:0", "--data", folder.to_str().unwrap()]).await
}

async fn fleet(client: &Http, address: SocketAddr) -> Value {
    get(client, address, "/fleet.json").await.unwrap().json()
}

/// The pids of the replicas and nodes, of those that have one.
fn pids(fleet: &Value) -> Vec<u32> {
    let processes = ["replicas", "nodes"].map(|kind| fleet[kind].as_array().unwrap().clone()).concat();
    processes.iter().filter_map(|process| process["pid"].as_u64()).map(|pid| pid.try_into().unwrap()).collect()
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Whether the process runs; one that ended and was not yet collected by its parent does not.
fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X'])
}

async fn until(what: &str, limit: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_no_read_and_comes_back_under_its_name() {
    let shop = shop().await;
    let address = shop.process.address;
    let client = http();
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
            tokio::spawn(async move {
                let client = http();
                let path = if reader % 2 == 0 { "/" } else { "/api/cart" };
                while !stop.load(Ordering::SeqCst) {
                    let answer = get(&client, address, path).await.unwrap();
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for place in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = fleet(&client, address).await["replicas"][place].clone();
        let pid = before["pid"].as_u64().unwrap();
        send(pid.try_into().unwrap(), Signal::KILL);
        let mut after = Value::Null;
        until("the replica is back", PATIENCE, async || {
            after = fleet(&client, address).await["replicas"][place].clone();
            after["state"] == "up" && after["pid"].as_u64() != Some(pid)
        })
        .await;
        assert_eq!((&after["name"], &after["address"]), (&before["name"], &before["address"]));
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(reads.load(Ordering::SeqCst) > 100);
}

#[tokio::test]
async fn a_cart_lives_through_the_death_of_every_replica() {
    let shop = shop().await;
    let client = http();
    let address = shop.process.address;
    let answer = post(&client, address, "/api/cart/lines", r#"{"sku":"tide-mug","quantity":2}"#).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let before = fleet(&client, address).await;
    for replica in before["replicas"].as_array().unwrap() {
        send(replica["pid"].as_u64().unwrap().try_into().unwrap(), Signal::KILL);
    }
    until("the cart is read again", PATIENCE, async || {
        let request = Request::get(format!("http://{address}/api/cart")).header("cookie", &cookie);
        let answer = ask(&client, request.body(Body::empty()).unwrap()).await.unwrap();
        // Until a replica is back the balancer says 503; an empty cart is never right.
        answer.status == StatusCode::OK && {
            assert_eq!(answer.json()["lines"], serde_json::json!([{ "sku": "tide-mug", "quantity": 2 }]));
            true
        }
    })
    .await;
}

#[tokio::test]
async fn a_killed_cache_node_comes_back_at_its_address_with_what_it_held() {
    let shop = shop().await;
    let client = http();
    let address = shop.process.address;
    let answer = post(&client, address, "/api/cart/lines", r#"{"sku":"tide-mug","quantity":2}"#).await.unwrap();
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let before = fleet(&client, address).await["nodes"][0].clone();
    assert_eq!((before["name"].as_str(), before["role"].as_str()), (Some("node-1"), Some("primary")));
    let pid = before["pid"].as_u64().unwrap();
    send(pid.try_into().unwrap(), Signal::KILL);
    until("the node is back and the shop is ready", PATIENCE, async || {
        let after = fleet(&client, address).await["nodes"][0].clone();
        after["state"] == "up"
            && after["pid"].as_u64() != Some(pid)
            && after["address"] == before["address"]
            && get(&client, address, "/readyz").await.unwrap().status == StatusCode::OK
    })
    .await;
    let request = Request::get(format!("http://{address}/api/cart")).header("cookie", &cookie);
    let cart = ask(&client, request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(cart.json()["lines"], serde_json::json!([{ "sku": "tide-mug", "quantity": 2 }]), "with what it held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_nodes_keeps_the_cart_through_the_death_of_its_primary_and_of_the_supervisor() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["up", "--cluster", "--replicas", "1", "--listen", "127.0.0.1:0", "--data", data.path().to_str().unwrap()];
    let shop = start(&arguments).await;
    let client = http();
    let answer = post(&client, shop.address, "/api/cart/lines", r#"{"sku":"tide-mug","quantity":2}"#).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let holds_the_cart = async |address: SocketAddr| {
        let request = Request::get(format!("http://{address}/api/cart")).header("cookie", &cookie);
        let answer = ask(&client, request.body(Body::empty()).unwrap()).await.unwrap();
        // While there is no primary the shop says 503; an empty cart is never right.
        answer.status == StatusCode::OK && {
            assert_eq!(answer.json()["lines"], serde_json::json!([{ "sku": "tide-mug", "quantity": 2 }]));
            true
        }
    };
    let nodes = async || fleet(&client, shop.address).await["nodes"].as_array().unwrap().clone();
    until("three nodes are up", PATIENCE, async || {
        let nodes = nodes().await;
        nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "up")
    })
    .await;
    let primary = nodes().await.into_iter().find(|node| node["role"] == "primary").unwrap();
    send(primary["pid"].as_u64().unwrap().try_into().unwrap(), Signal::KILL);
    until("the primary is another process and all are up", PATIENCE, async || {
        let nodes = nodes().await;
        nodes.iter().all(|node| node["state"] == "up" && node["pid"] != primary["pid"])
    })
    .await;
    until("the cart is read again", PATIENCE, async || holds_the_cart(shop.address).await).await;

    let pids = pids(&fleet(&client, shop.address).await);
    assert_eq!(pids.len(), 4);
    send(shop.pid, Signal::KILL);
    // The next one waits until the nodes of the killed one have ended.
    let shop = start(&arguments).await;
    let left: Vec<u32> = pids.into_iter().filter(|pid| is_running(*pid)).collect();
    assert!(left.is_empty(), "{left:?} outlived their supervisor; {}", fleet(&client, shop.address).await);
    until("the cart is read again", PATIENCE, async || holds_the_cart(shop.address).await).await;
}

#[tokio::test]
async fn a_process_that_hangs_is_said_to_give_no_answer_and_to_be_up_when_it_goes_on() {
    let shop = shop().await;
    let client = http();
    for kind in ["nodes", "replicas"] {
        let process = async || fleet(&client, shop.process.address).await[kind][0].clone();
        let pid = process().await["pid"].clone();
        let number = pid.as_u64().unwrap().try_into().unwrap();
        send(number, Signal::STOP);
        until(&format!("one of the {kind} is said to hang"), PATIENCE, async || process().await["state"] == "not answering")
            .await;
        assert_eq!(process().await["pid"], pid, "it runs");
        send(number, Signal::CONT);
        until(&format!("one of the {kind} is up"), PATIENCE, async || process().await["state"] == "up").await;
    }
}

/// Asks until the store has answered in time, which it does not always on a machine without a core to spare.
async fn patiently(mut ask: impl AsyncFnMut() -> anyhow::Result<Answer>) -> Answer {
    let start = Instant::now();
    loop {
        let answer = ask().await.unwrap();
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

async fn visitor_of(shop: &str, email: Option<String>) -> Visitor {
    let visitor = Visitor::new();
    if let Some(email) = email {
        let form = registration(&visitor, shop, &email).await;
        let answer = patiently(async || Ok(form.send(&visitor, shop).await)).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/account"), "{}", answer.text());
    }
    visitor
}

/// Raises a line until the shop is gone; gives the visitor and what it was told is in its cart.
async fn shop_until_gone(shop: String, visitor: Visitor, changes: Arc<AtomicU64>) -> (Visitor, u32) {
    let mut told = 0;
    // Nobody listens when the supervisor is gone. Until then an outage is no reason to give up.
    loop {
        let body = serde_json::json!({ "sku": "tide-mug", "quantity": told + 1 });
        match visitor.json(Method::PUT, &format!("{shop}/api/cart/lines/tide-mug"), &[], &body).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                told += 1;
                changes.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => assert!(answer.status.is_server_error(), "{}", answer.text()),
            Err(_) => return (visitor, told),
        }
        // A line holds a hundred: not so fast that a visitor is done before the end.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_once_keeps_every_acknowledged_cart_and_login() {
    const VISITORS: usize = 6;
    /// Of all of them, before everything is killed: fewer than one line holds.
    const CHANGES: u64 = 90;
    let data = tempfile::tempdir().unwrap();
    let mut visitors: Vec<(Visitor, u32)> = Vec::new();
    for round in 0..3 {
        let shop = shop_in(data.path()).await;
        let url = format!("http://{}", shop.address);
        for (visitor, told) in &visitors {
            let cart = patiently(async || visitor.get(&format!("{url}/api/cart")).await).await.to_json().unwrap();
            let line = cart["lines"].as_array().unwrap().iter().find(|line| line["sku"] == "tide-mug");
            let found = line.map_or(0, |line| line["quantity"].as_u64().unwrap());
            assert!(found >= u64::from(*told), "{told} was acknowledged, {found} is there");
        }
        for (visitor, _) in visitors.iter().skip(1).step_by(2) {
            let account = patiently(async || visitor.get(&format!("{url}/account")).await).await;
            assert_eq!(text_of(&account, "session-state"), "signed in");
        }
        visitors.clear();
        let changes = Arc::new(AtomicU64::new(0));
        let mut those_who_shop = Vec::new();
        for number in 0..VISITORS {
            let email = (number % 2 == 1).then(|| format!("visitor-{round}-{number}@example.com"));
            those_who_shop.push(visitor_of(&url, email).await);
        }
        let shop_for = |visitor| tokio::spawn(shop_until_gone(url.clone(), visitor, Arc::clone(&changes)));
        let shoppers: Vec<_> = those_who_shop.into_iter().map(shop_for).collect();
        until("all of them are shopping", PATIENCE, async || changes.load(Ordering::SeqCst) >= CHANGES).await;
        let mut pids = pids(&fleet(&http(), shop.address).await);
        pids.push(shop.pid);
        pids.iter().for_each(|pid| send(*pid, Signal::KILL));
        for shopper in shoppers {
            visitors.push(shopper.await.unwrap());
        }
        assert!(visitors.iter().filter(|(_, told)| *told > 0).count() > VISITORS / 2, "nobody was told anything");
    }
}

#[tokio::test]
async fn nothing_outlives_a_killed_supervisor() {
    let shop = shop().await;
    let pids = pids(&fleet(&http(), shop.process.address).await);
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| is_running(*pid)));
    send(shop.process.pid, Signal::KILL);
    until("every child ended", PATIENCE, async || !pids.iter().any(|pid| is_running(*pid))).await;
}

#[tokio::test]
async fn a_signal_ends_everything_within_five_seconds() {
    const WITHIN: Duration = Duration::from_secs(5);
    const TRIES_MAX: usize = 3;
    for signal in [Signal::TERM, Signal::INT] {
        let mut took = Vec::new();
        // A busy machine may need longer, yet not each time.
        while took.len() < TRIES_MAX && took.last().is_none_or(|took| *took >= WITHIN) {
            let mut shop = shop().await;
            let pids = pids(&fleet(&http(), shop.process.address).await);
            let start = Instant::now();
            send(shop.process.pid, signal);
            let status = shop.process.child.wait().await.unwrap();
            took.push(start.elapsed());
            assert!(status.success(), "{status}");
            assert!(!pids.iter().any(|pid| is_running(*pid)));
        }
        assert!(took.last() < Some(&WITHIN), "{took:?}");
    }
}

#[tokio::test]
async fn a_data_folder_in_use_is_a_clear_error() {
    let shop = shop().await;
    let folder = shop._data.path().to_str().unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop"))
        .args(["up", "--listen", "127.0.0.1:0", "--data", folder])
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--data"), "{error}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_beside_the_ready_line() {
    let data = tempfile::tempdir().unwrap();
    let unused = SocketAddr::from(([127, 0, 0, 1], end_to_end::port::free_port()));
    let mut shop = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop"))
        .args(["up", "--listen", "127.0.0.1:0", "--replicas", "1", "--data", data.path().to_str().unwrap()])
        .args(["--cache", &format!("redis://{unused}")])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(shop.stdout.take().unwrap()).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said += &line;
        if line.contains("Ctrl-C") {
            break;
        }
    }
    assert!(said.contains("shop ready") && said.contains("WARNING") && said.contains("connection refused"), "{said}");
    send(shop.id().unwrap(), Signal::TERM);
    shop.wait().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_cannot_start_is_a_clear_error_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop"))
        .args(["up", "--listen", "127.0.0.1:0", "--data", folder, "--database", "nonsense:nowhere"])
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("replica A") && error.contains("nonsense"), "{error}");
}
