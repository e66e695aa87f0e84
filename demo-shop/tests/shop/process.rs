//! Start and end of the process.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use end_to_end::server::{Server, Signal};
use end_to_end::visitor::Visitor;
use tempfile::TempDir;

use crate::support::{Shop, ready, spawn};

const END_MAX: Duration = Duration::from_secs(10);

async fn last_words(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-shop"));
    command.arg("serve").args(["--listen", "127.0.0.1:0"]).args(arguments);
    let mut server = Server::spawn("replica", command).unwrap();
    let status = server.ended(END_MAX).await.unwrap();
    // The reader of the pipe may be a moment behind the exit.
    tokio::time::sleep(Duration::from_millis(100)).await;
    (status.code(), server.log())
}

#[tokio::test]
async fn a_replica_tells_prometheus_what_it_counts_and_nobody_behind_a_proxy() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    visitor.add(shop.url(0), "tide-mug", 1).await.unwrap();
    visitor.get(&format!("{}/cart", shop.url(0))).await.unwrap().success().unwrap();
    let url = format!("{}/metrics", shop.url(0));
    let answer = visitor.get(&url).await.unwrap();
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    for line in [
        "# TYPE session_store_operations_total counter",
        "session_store_operations_total{operation=\"cart\",outcome=\"ok\"} 1",
        "session_store_sessions_created_total 1",
        "session_store_pool_in_use 0",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in:\n{text}");
    }
    assert!(text.contains("session_store_operation_duration_seconds_bucket{operation=\"read\",le=\"0.25\"}"), "{text}");
    for id in visitor.cookies().into_values() {
        assert!(!text.contains(&id));
    }
    let proxied = visitor.send(http::Method::GET, &url, &[("x-forwarded-for", "203.0.113.9")], Default::default()).await.unwrap();
    assert_eq!(proxied.status, http::StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_work_is_said_at_the_start() {
    for (arguments, words) in [
        (["--database", "mysql://x/y"], "give sqlite:FILE or postgres://"),
        (["--database", "sqlite::memory:"], "which replicas cannot share"),
        (["--database", "sqlite:/no/such/folder/shop.db"], "cannot open the database"),
        (["--database", "postgres://nobody@127.0.0.1:1/shop"], "Connection refused"),
        (["--cache", "http://127.0.0.1:6379"], "redis://"),
        (["--name", "a name"], "letters, digits"),
        (["--session-key", "short"], "at least 16"),
        (["--encryption-keys", "a5a5"], "key 1: it has 4 hexadecimal digits, and needs 64"),
        (["--encryption", "required"], "there is no key"),
    ] {
        let folder = TempDir::new().unwrap();
        let database = format!("sqlite:{}", folder.path().join("shop.db").display());
        let mut all = arguments.to_vec();
        if arguments[0] != "--database" {
            all.extend(["--database", &database]);
        }
        let (code, log) = last_words(&all).await;
        assert_eq!(code, Some(1), "{arguments:?}: {log}");
        assert!(log.contains(words), "{arguments:?}: {log}");
        assert!(!log.contains("a5a5"), "a key is shown: {log}");
    }
}

#[tokio::test]
async fn a_signal_ends_a_replica_after_its_requests() {
    let mut shop = Shop::start(1).await;
    let mut server = spawn("T", &shop.redis.url(), &shop.database, &["--test-hooks"]);
    let hooks = ready(&mut server).await;
    let visitor = Visitor::new();
    visitor.add(shop.url(0), "tide-mug", 1).await.unwrap();
    let slow = tokio::spawn(async move { visitor.form(&format!("{hooks}/api/slow-write?ms=600"), &[]).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal(Signal::TERM);
    assert!(slow.await.unwrap().unwrap().status.is_success(), "a request under way is finished");
    assert!(server.ended(END_MAX).await.unwrap().success());

    let idle = &mut shop.replicas[0].server;
    idle.signal(Signal::INT);
    assert!(idle.ended(END_MAX).await.unwrap().success());
}

#[test]
fn a_replica_ends_with_its_parent() {
    let folder = TempDir::new().unwrap();
    let database = format!("sqlite:{}", folder.path().join("shop.db").display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_demo-shop"))
        .args(["serve", "--listen", "127.0.0.1:0", "--with-parent", "--database", &database])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it lives as long as its parent");
    drop(child.stdin.take());
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(asked.elapsed() < END_MAX, "it outlives its parent");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn cookies_are_for_https_only_when_asked_for() {
    let shop = Shop::start(1).await;
    let mut server = spawn("S", &shop.redis.url(), &shop.database, &["--secure-cookies"]);
    let secure = ready(&mut server).await;
    let cookie = |url: String| async move {
        let added = Visitor::new().add(&url, "tide-mug", 1).await.unwrap();
        added.header("set-cookie").to_owned()
    };
    let plain = cookie(shop.url(0).to_owned()).await;
    assert!(!plain.contains("Secure") && !plain.contains("__Host-"), "{plain}");
    let secure = cookie(secure).await;
    assert!(secure.starts_with("__Host-") && secure.contains("Secure"), "{secure}");
    for cookie in [plain, secure] {
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && cookie.contains("Path=/"), "{cookie}");
    }
}
