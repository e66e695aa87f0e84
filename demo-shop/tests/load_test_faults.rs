//! The load test against a small shop that breaks its word in one way at a time: each way must be found, under its own
//! name, and a shop that keeps its word must pass.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking, and nobody reads its docs")]

mod fleet_support;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post, put};
use axum::{Form, Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a shop is tested at most.
const SECONDS_MAX: u32 = 32;

/// How the shop breaks its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Acknowledges every 100th change without making it.
    DropsUpdates,
    /// Forgets a whole cart now and then.
    ForgetsCarts,
    /// Shows another visitor's line now and then.
    MixesCarts,
    /// Adds twice now and then.
    CountsTwice,
    /// Brings a removed line back.
    Resurrects,
    /// Gives a new session now and then, with an empty cart.
    RenewsSessions,
    /// Answers a read from an old state now and then.
    ReadsStale,
    /// Leaves a line out of the cart's page now and then; the JSON is right.
    HidesLines,
    /// Fails every 20th change with a 502 after making it: honest, since the change counts once under its key.
    FailsAfterTheFact,
}

#[derive(Default, Clone)]
struct Cart {
    revision: u64,
    lines: BTreeMap<String, u32>,
    keys: HashSet<String>,
    removed: Option<(String, u32)>,
    /// One change ago.
    before: Option<(u64, BTreeMap<String, u32>)>,
}

struct Shop {
    fault: Fault,
    events: AtomicU64,
    sessions: AtomicU64,
    carts: Mutex<BTreeMap<String, Cart>>,
}

#[derive(Clone, Copy)]
enum Change {
    Add(u32),
    Set(u32),
}

impl Shop {
    /// Whether it is time for the fault, once in so many calls.
    fn strikes(&self, fault: Fault, every: u64) -> bool {
        self.fault == fault && self.events.fetch_add(1, Ordering::SeqCst) % every == every - 1
    }

    /// The visitor's session, and whether it is new.
    fn session(&self, headers: &HeaderMap) -> (String, bool) {
        let known = headers.get(header::COOKIE).and_then(|cookie| cookie.to_str().unwrap().strip_prefix("sid="));
        match known {
            Some(session) if !self.strikes(Fault::RenewsSessions, 200) => (session.to_owned(), false),
            _ => (format!("s{}", self.sessions.fetch_add(1, Ordering::SeqCst)), true),
        }
    }

    fn change(&self, headers: &HeaderMap, sku: &str, change: Change, key: Option<&str>, answer: Response) -> Response {
        let (session, is_new) = self.session(headers);
        let mut carts = self.carts.lock();
        let cart = carts.entry(session.clone()).or_default();
        let is_first_time = key.is_none_or(|key| cart.keys.insert(key.to_owned()));
        if is_first_time && !self.strikes(Fault::DropsUpdates, 100) {
            cart.before = Some((cart.revision, cart.lines.clone()));
            cart.revision += 1;
            match change {
                Change::Add(quantity) => {
                    let times = if self.strikes(Fault::CountsTwice, 100) { 2 } else { 1 };
                    *cart.lines.entry(sku.to_owned()).or_default() += quantity * times;
                }
                Change::Set(0) => cart.removed = cart.lines.remove(sku).map(|quantity| (sku.to_owned(), quantity)),
                Change::Set(quantity) => {
                    cart.lines.insert(sku.to_owned(), quantity);
                }
            }
        }
        if self.strikes(Fault::FailsAfterTheFact, 20) {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        let mut answer = answer;
        if is_new {
            let cookie = format!("sid={session}; Path=/; HttpOnly");
            answer.headers_mut().insert(header::SET_COOKIE, cookie.parse().unwrap());
        }
        answer
    }

    fn show(&self, headers: &HeaderMap) -> Response {
        let (session, is_new) = self.session(headers);
        let mut carts = self.carts.lock();
        let other = carts.values().rev().find_map(|cart| cart.lines.first_key_value()).map(|(sku, n)| (sku.clone(), *n));
        let cart = carts.entry(session.clone()).or_default();
        if self.strikes(Fault::ForgetsCarts, 150) {
            cart.lines.clear();
        }
        if self.fault == Fault::Resurrects
            && let Some((sku, quantity)) = cart.removed.clone()
            && self.strikes(Fault::Resurrects, 5)
        {
            cart.lines.entry(sku).or_insert(quantity);
        }
        let mut seen = cart.clone();
        if self.strikes(Fault::ReadsStale, 50)
            && let Some((revision, lines)) = cart.before.clone()
        {
            (seen.revision, seen.lines) = (revision, lines);
        }
        if self.strikes(Fault::MixesCarts, 50) {
            seen.lines.extend(other);
        }
        let lines: Vec<Value> = seen.lines.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
        let mut answer = Json(json!({ "revision": seen.revision, "lines": lines, "served_by": "A" })).into_response();
        if is_new {
            answer.headers_mut().insert(header::SET_COOKIE, format!("sid={session}; Path=/").parse().unwrap());
        }
        answer
    }
}

#[derive(Deserialize)]
struct Fields {
    sku: String,
    #[serde(default)]
    quantity: u32,
    #[serde(default)]
    token: String,
}

type AppState = State<Arc<Shop>>;

fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get("idempotency-key").map(|key| key.to_str().unwrap())
}

fn form(action: &str, sku: &str, token: u64) -> String {
    format!(
        "<form method=\"post\" action=\"{action}\"><input type=\"hidden\" name=\"sku\" value=\"{sku}\">\
         <input type=\"hidden\" name=\"token\" value=\"t{token}\"></form>"
    )
}

async fn open(fault: Fault) -> SocketAddr {
    let shop = Arc::new(Shop { fault, events: AtomicU64::new(0), sessions: AtomicU64::new(0), carts: Mutex::default() });
    static TOKEN: AtomicU64 = AtomicU64::new(0);
    let redirected = || Redirect::to("/cart").into_response();
    let acknowledged = || StatusCode::OK.into_response();
    let router = Router::new()
        .route("/", get(|| async { Html("home") }))
        .route(
            "/api/products",
            get(|| async {
                let products: Vec<Value> = (0..40).map(|number| json!({ "sku": format!("sku-{number:02}") })).collect();
                Json(json!({ "products": products }))
            }),
        )
        .route(
            "/products/{sku}",
            get(|Path(sku): Path<String>| async move { Html(form("/cart/add", &sku, TOKEN.fetch_add(1, Ordering::SeqCst))) }),
        )
        .route("/api/cart", get(|shop: AppState, headers: HeaderMap| async move { shop.show(&headers) }))
        .route(
            "/cart",
            get(|shop: AppState, headers: HeaderMap| async move {
                let (session, _) = shop.session(&headers);
                let Cart { revision, mut lines, .. } = shop.carts.lock().get(&session).cloned().unwrap_or_default();
                if shop.strikes(Fault::HidesLines, 20) {
                    lines.pop_first();
                }
                let shown: String = lines
                    .iter()
                    .map(|(sku, quantity)| format!("<li class=\"line\" data-sku=\"{sku}\" data-quantity=\"{quantity}\"></li>"))
                    .collect();
                let forms = lines.keys().flat_map(|sku| {
                    ["/cart/update", "/cart/remove"].map(|action| form(action, sku, TOKEN.fetch_add(1, Ordering::SeqCst)))
                });
                Html(format!("{shown}{}<b id=\"cart-revision\">{revision}</b>", forms.collect::<String>()))
            }),
        )
        .route(
            "/api/cart/lines",
            post(move |shop: AppState, headers: HeaderMap, Json(fields): Json<Fields>| async move {
                shop.change(&headers, &fields.sku, Change::Add(fields.quantity), key(&headers), acknowledged())
            }),
        )
        .route(
            "/api/cart/lines/{sku}",
            put(move |shop: AppState, Path(sku): Path<String>, headers: HeaderMap, Json(body): Json<Value>| async move {
                let quantity = u32::try_from(body["quantity"].as_u64().unwrap()).unwrap();
                shop.change(&headers, &sku, Change::Set(quantity), key(&headers), acknowledged())
            })
            .delete(move |shop: AppState, Path(sku): Path<String>, headers: HeaderMap| async move {
                shop.change(&headers, &sku, Change::Set(0), key(&headers), acknowledged())
            }),
        )
        .route(
            "/cart/add",
            post(move |shop: AppState, headers: HeaderMap, Form(fields): Form<Fields>| async move {
                shop.change(&headers, &fields.sku, Change::Add(fields.quantity), Some(&fields.token), redirected())
            }),
        )
        .route(
            "/cart/update",
            post(move |shop: AppState, headers: HeaderMap, Form(fields): Form<Fields>| async move {
                shop.change(&headers, &fields.sku, Change::Set(fields.quantity), Some(&fields.token), redirected())
            }),
        )
        .route(
            "/cart/remove",
            post(move |shop: AppState, headers: HeaderMap, Form(fields): Form<Fields>| async move {
                shop.change(&headers, &fields.sku, Change::Set(0), Some(&fields.token), redirected())
            }),
        )
        .with_state(shop);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Tests a shop with that fault; the exit code and the report. On a busy machine it takes longer until enough was done.
async fn test(fault: Fault) -> (i32, Value) {
    let mut seconds = 4;
    loop {
        let (code, report) = test_for(seconds, fault).await;
        let is_enough = count(&report, "acknowledged") > 500 && count(&report, "carts_compared") > 200;
        if code != 0 || is_enough || seconds >= SECONDS_MAX {
            return (code, report);
        }
        seconds *= 2;
    }
}

/// How many operations of the run that was.
fn count(report: &Value, operations: &str) -> u64 {
    report["runs"][0]["operations"][operations].as_u64().unwrap()
}

async fn test_for(seconds: u32, fault: Fault) -> (i32, Value) {
    let address = open(fault).await;
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let target = format!("http://{address}");
    let status = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop"))
        .args([
            "load-test",
            "--target",
            &target,
            "--shoppers",
            "30",
            "--duration",
            &format!("{seconds}s"),
            "--think-time",
            "20ms",
        ])
        .args(["--seed", "1", "--json"])
        .arg(&json)
        .kill_on_drop(true)
        .status()
        .await
        .unwrap();
    let report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    (status.code().unwrap(), report)
}

/// The losses that are not zero.
fn losses(report: &Value) -> BTreeMap<String, u64> {
    let losses = report["runs"][0]["losses"].as_object().unwrap();
    losses.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap())).filter(|(_, count)| *count > 0).collect()
}

async fn finds(fault: Fault, name: &str) {
    let (code, report) = test(fault).await;
    assert_eq!(code, 1, "{:?}", losses(&report));
    assert_eq!(report["verdict"], "failed");
    assert!(losses(&report).contains_key(name), "{fault:?}: {:?}", losses(&report));
    assert!(!report["runs"][0]["examples"].as_array().unwrap().is_empty());
}

async fn passes(fault: Fault) -> Value {
    let (code, report) = test(fault).await;
    assert_eq!((code, losses(&report)), (0, BTreeMap::new()));
    assert_eq!(report["verdict"], "passed");
    let operations = &report["runs"][0]["operations"];
    assert!(count(&report, "acknowledged") > 500 && count(&report, "carts_compared") > 200, "{operations}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_keeps_its_word_passes() {
    passes(Fault::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_after_the_fact_are_repeated_and_nothing_is_counted_twice() {
    let report = passes(Fault::FailsAfterTheFact).await;
    assert!(report["runs"][0]["errors"]["status_5xx"].as_u64().unwrap() > 10);
    assert!(report["runs"][0]["operations"]["repeated"].as_u64().unwrap() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_updates_are_found() {
    finds(Fault::DropsUpdates, "lost_updates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_carts_are_found() {
    finds(Fault::ForgetsCarts, "lost_carts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_up_carts_are_found() {
    finds(Fault::MixesCarts, "mix_ups").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn double_counting_is_found() {
    finds(Fault::CountsTwice, "duplicates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_back_are_found() {
    finds(Fault::Resurrects, "resurrected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_sessions_are_found() {
    finds(Fault::RenewsSessions, "new_sessions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_leaves_out_a_line_is_found() {
    finds(Fault::HidesLines, "lost_updates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_are_found() {
    finds(Fault::ReadsStale, "stale_reads").await;
}

#[tokio::test]
async fn what_cannot_be_tested_is_no_loss() {
    let address = open(Fault::None).await;
    let target = format!("http://{address}");
    for (arguments, reason) in [
        (vec!["--target", "http://127.0.0.1:1"], "nothing answers"),
        (vec!["--target", "https://127.0.0.1:1"], "only http"),
        (vec!["--target", &target, "--kill-replica-every", "1s"], "/fleet.json"),
        (vec!["--target", &target, "--kill-replica-every", "9s", "--duration", "10s"], "nothing would fail"),
        (vec!["--target", &target, "--freeze-node-every", "9s", "--duration", "10s"], "a shorter --freeze-node-every"),
        (vec!["--target", &target, "--kill-node-every", "1s"], "/fleet.json"),
        (vec!["--target", &target, "--cluster"], "--cluster"),
        (vec!["--target", &target, "--json", "/nowhere/report.json"], "/nowhere/report.json"),
        (vec!["--target", &target, "--replicas", "2"], "--replicas"),
        (vec!["--duration", "30"], "30s"),
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop"))
            .arg("load-test")
            .args(&arguments)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
}
