//! What is seen from outside: metrics, and logs in which nobody is found.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use axum::{body::Body, extract::Path, routing::post};
use futures_util::stream;
use http::{Method, StatusCode};
use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use session_store::{CacheStore, CsrfLayer, EncryptionKeys, Expiry, NearCache, Session, SessionLayer};
use support::{
    Visitor, each_backend,
    hold::{Hold, pause},
    replica, replica_with, send,
};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// The process has one recorder and one log, so that only one test at a time may look at them.
static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(|| {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let log = Log::default();
    let spans = FmtSpan::NEW | FmtSpan::CLOSE;
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(spans)
        .with_writer(log.clone())
        .with_ansi(false)
        .init();
    Mutex::new(Seen { snapshotter, log })
});

struct Seen {
    snapshotter: Snapshotter,
    log: Log,
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Seen {
    /// Counters since the last call, gauges as they are, and of histograms the number of values; by name and labels.
    fn take(&self) -> HashMap<String, f64> {
        let mut taken = HashMap::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let name = name(&key);
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(values) => values.len() as f64,
            };
            if value != 0.0 {
                taken.insert(name, value);
            }
        }
        taken
    }
}

fn name(key: &CompositeKey) -> String {
    let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{} {}", key.key().name().strip_prefix("session_store_").unwrap(), labels.join(" ")).trim_end().to_owned()
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn operations_sessions_and_conflicts_are_counted_by_kind() {
    let seen = seen();
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        seen.take();
        visitor.post(&a, "/cart/add/TEA/1").await.ok();
        visitor.post(&b, "/login-blindly/ada").await.ok();
        visitor.get(&b, "/page").await.ok();
        let metrics = seen.take();
        for (name, value) in [
            ("operations_total operation=cart outcome=ok", 1.0),
            ("operations_total operation=read outcome=ok", 2.0),
            ("operations_total operation=rotate outcome=ok", 1.0),
            ("operation_duration_seconds operation=read", 2.0),
            ("sessions_created_total", 1.0),
            ("sessions_ended_total reason=rotated", 1.0),
            ("carts_merged_total", 1.0),
        ] {
            assert_eq!(metrics.get(name), Some(&value), "{name} in {metrics:?}");
        }
        assert_eq!(metrics.get("pool_in_use"), None, "nothing is in flight: {metrics:?}");
        assert_eq!(metrics.get("pool_waiting"), None, "{metrics:?}");
        assert_eq!(metrics.get("conflicts_total kind=session_ended"), None);

        let old = visitor.cookie.clone();
        visitor.post(&a, "/logout").await.ok();
        assert_eq!(send(&b, Method::POST, "/set/a/b", old.as_deref()).await.status, StatusCode::CONFLICT);
        let stale = Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA");
        send(&b, Method::GET, "/get/user", stale).await.ok();
        visitor.post(&a, "/login/ada").await.ok();
        support::patient_store(&server).await.sessions_of("ada").end_all().await.unwrap();
        let metrics = seen.take();
        for (name, value) in [
            ("sessions_ended_total reason=logout", 1.0),
            ("sessions_ended_total reason=expired", 1.0),
            ("sessions_ended_total reason=revoked", 1.0),
            ("conflicts_total kind=session_ended", 1.0),
        ] {
            assert_eq!(metrics.get(name), Some(&value), "{name} in {metrics:?}");
        }
    })
    .await;
}

/// Reads the session, and saves it behind the head of the answer, when it may go on.
async fn save_late(session: Session, Path(hold): Path<u64>) -> Body {
    session.get::<String>("name").await.unwrap();
    Body::from_stream(stream::once(async move {
        pause(hold).await;
        // More than a sixteenth of the idle timeout: a touch is due.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let saved = session.save().await.map_or_else(|error| error.to_string(), |()| "saved".to_owned());
        Ok::<_, std::io::Error>(saved)
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn a_session_that_is_gone_is_a_conflict_for_a_cart_and_for_a_body() {
    let seen = seen();
    each_backend(async |server| {
        let idle = Expiry::OnInactivity(time::Duration::seconds(8));
        let layer = SessionLayer::new(support::patient_store(&server).await).with_expiry(idle);
        let app = support::app::router().route("/save-late/{hold}", post(save_late)).layer(layer);
        for (path, status) in [("/cart/slow-add/HOLD/TEA", StatusCode::CONFLICT), ("/save-late/HOLD", StatusCode::OK)] {
            let mut visitor = Visitor::default();
            visitor.post(&app, "/set/name/ada").await.ok();
            seen.take();
            let hold = Hold::new();
            let slow = tokio::spawn({
                let path = path.replace("HOLD", &hold.to_string());
                let (app, cookie) = (app.clone(), visitor.cookie.clone());
                async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
            });
            hold.reached().await;
            redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
            hold.release();
            let answer = slow.await.unwrap();
            assert_eq!((answer.status, answer.body.contains("session ended")), (status, true), "{path}: {answer:?}");
            assert_eq!(seen.take().get("conflicts_total kind=session_ended"), Some(&1.0), "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn a_pool_that_is_too_small_and_a_store_that_is_away_show() {
    let seen = seen();
    support::each_process(async |mut server| {
        let store = support::patient(server.url()).pool_size(1).connect().await.unwrap();
        seen.take();
        let pings = (0..50).map(|_| store.ping());
        futures_util::future::join_all(pings).await.into_iter().for_each(Result::unwrap);
        let metrics = seen.take();
        assert_eq!(metrics["operations_total operation=ping outcome=ok"], 50.0);
        assert!(metrics["pool_wait_seconds"] >= 40.0, "{metrics:?}");
        assert_eq!((metrics.get("pool_in_use"), metrics.get("pool_waiting")), (None, None), "{metrics:?}");

        server.kill();
        for _ in 0..3 {
            store.ping().await.unwrap_err();
        }
        let metrics = seen.take();
        let address = format!("127.0.0.1:{}", server.port);
        assert_eq!(metrics[&format!("breaker_open node={address}")], 1.0, "{metrics:?}");
        assert_eq!(metrics[&format!("breaker_opened_total node={address}")], 1.0);
        assert!(metrics.contains_key("operations_total operation=ping outcome=breaker_open"), "{metrics:?}");
        server.restart().await;
        let began = std::time::Instant::now();
        while store.ping().await.is_err() {
            assert!(began.elapsed() < support::PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(seen.take().get(&format!("breaker_open node={address}")), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn nobody_is_found_in_the_log_and_a_stale_cookie_is_no_warning() {
    let seen = seen();
    each_backend(async |server| {
        let app = replica_with(&server, |layer| layer.with_client_address(|_, _| "203.0.113.77".parse().ok())).await;
        let mut visitor = Visitor::default();
        seen.log.take();
        let mut secrets = vec!["zanzibar".to_owned(), "kirsch-torte".to_owned(), "once-upon".to_owned(), "203.0.113".to_owned()];
        for (method, path) in [
            (Method::POST, "/cart/add/kirsch-torte/2/once-upon"),
            (Method::POST, "/set/password/zanzibar"),
            (Method::GET, "/page"),
            (Method::POST, "/login/zanzibar"),
            (Method::GET, "/get/password"),
            (Method::POST, "/set/password/zanzibar-2"),
            (Method::POST, "/cycle"),
            (Method::POST, "/log-out-elsewhere/zanzibar"),
            (Method::POST, "/logout"),
        ] {
            secrets.extend(visitor.cookie.as_deref().map(|cookie| cookie.split_once('=').unwrap().1.to_owned()));
            // What the store calls things is no business of a log either.
            let keys = server.keys("*").await;
            secrets.extend(keys.iter().map(|key| key.split_once('{').unwrap().1.split('}').next().unwrap().to_owned()));
            if method == Method::GET {
                visitor.get(&app, path).await.ok()
            } else {
                visitor.post(&app, path).await.ok()
            };
        }
        secrets.sort();
        secrets.dedup();
        assert!(secrets.len() > 8, "{secrets:?}");
        let log = seen.log.take();
        assert!(log.contains("store operation") && log.contains("operation=\"rotate\""), "the log is there: {log}");
        for secret in &secrets {
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{secret}");
        }

        // Cookies of sessions that are gone, or never were: read and written.
        for cookie in [
            format!("__Host-id={}", secrets.iter().find(|secret| secret.len() == 22).unwrap()),
            "__Host-id=AAAAAAAAAAAAAAAAAAAAAA".into(),
        ] {
            for (method, path) in
                [(Method::GET, "/get/a"), (Method::GET, "/page"), (Method::POST, "/set/a/b"), (Method::POST, "/cycle")]
            {
                send(&app, method, path, Some(&cookie)).await;
            }
        }
        let log = seen.log.take();
        let is_span = |line: &str| line.ends_with(": new") || line.contains(": close time.busy");
        let is_loud = |line: &&str| [" WARN ", " ERROR ", " INFO "].iter().any(|level| line.contains(level)) && !is_span(line);
        let loud = log.lines().find(is_loud);
        assert_eq!(loud, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn the_near_cache_is_seen() {
    let seen = seen();
    each_backend(async |server| {
        let patience = support::LONG_DEADLINE;
        let near = NearCache { staleness_max: patience, ..NearCache::default() };
        let store = CacheStore::builder(server.url()).deadline(patience).near_cache(near).connect().await.unwrap();
        let app = support::app::router().layer(SessionLayer::new(store.clone()));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/0").await.ok();
        seen.take();
        let status = || store.near_cache_status().unwrap();
        let began = std::time::Instant::now();
        while status().hits == 0 {
            assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "0");
            assert!(began.elapsed() < patience, "{:?}", status());
        }
        let mut taken = seen.take();
        assert_eq!(taken.get("near_cache_reads_total outcome=hit"), Some(&1.0));
        assert!(taken.get("near_cache_reads_total outcome=miss").is_some_and(|misses| *misses >= 1.0), "{taken:?}");
        // The size is told with the next sign of life.
        while !taken.contains_key("near_cache_entries") {
            assert!(began.elapsed() < 2 * patience, "{taken:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            taken = seen.take();
        }
        assert_eq!(taken["near_cache_entries"], 1.0);
        assert!(taken["near_cache_bytes"] > 0.0);
        visitor.post(&app, "/set/name/1").await.ok();
        let mut invalidations = 0.0;
        while invalidations == 0.0 {
            assert!(began.elapsed() < 3 * patience, "{:?}", status());
            tokio::time::sleep(Duration::from_millis(1)).await;
            invalidations += seen.take().get("near_cache_invalidations_total").unwrap_or(&0.0);
        }
        let mut connection = server.connection().await;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        let mut drops = 0.0;
        while drops == 0.0 {
            assert!(began.elapsed() < 3 * patience, "{:?}", status());
            tokio::time::sleep(Duration::from_millis(20)).await;
            drops += seen.take().get("near_cache_drops_total").unwrap_or(&0.0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn a_forged_request_is_counted() {
    let seen = seen();
    each_backend(async |server| {
        let store = support::patient_store(&server).await;
        let app = support::app::router().layer(CsrfLayer::new()).layer(SessionLayer::new(store));
        seen.take();
        assert_eq!(send(&app, Method::POST, "/set/name/ada", None).await.status, StatusCode::FORBIDDEN);
        send(&app, Method::GET, "/get/name", None).await.ok();
        assert_eq!(seen.take().get("csrf_refused_total"), Some(&1.0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::await_holding_lock, reason = "the tests take turns, each in a runtime of its own")]
async fn a_line_of_a_cart_that_no_key_opens_is_counted_and_told() {
    let seen = seen();
    each_backend(async |server| {
        let replica = async |key: u8| {
            let keys = EncryptionKeys::new([key; 32]);
            let store = support::patient(server.url()).encryption(keys).connect().await.unwrap();
            support::app::router().layer(SessionLayer::new(store))
        };
        let (app, other) = (replica(1).await, replica(2).await);
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/SECRET-TEA/1").await.ok();
        visitor.get(&app, "/cart").await.ok();
        assert_eq!(seen.take().get("cart_lines_unreadable_total"), None);
        // The page shows the session and the cart, which comes along with it.
        for path in ["/cart", "/page"] {
            seen.log.0.lock().unwrap().clear();
            assert_eq!(visitor.get(&other, path).await.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(seen.take()["cart_lines_unreadable_total"], 1.0, "{path}");
            let log = String::from_utf8(seen.log.0.lock().unwrap().clone()).unwrap();
            assert_eq!(log.matches("a line of a cart cannot be read, and stays as it is").count(), 1, "{path}: {log}");
            assert!(log.contains("WARN") && !log.contains("SECRET"), "{log}");
        }
    })
    .await;
}
