//! The 21 faults that a user of tower-sessions 0.15 can hit, in order. Where it takes a few requests, the fault is shown with
//! its own layer and memory store first; ours must not have it on any backend. Those that need more are tested in other files, and
//! the list at the end sees to it that these tests are there.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::{
    fmt, io,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::Path,
    routing::{get, post},
};
use futures_util::{FutureExt as _, future::BoxFuture, stream};
use http::{Method, StatusCode, header};
use serde::{Deserialize, Deserializer, de};
use session_store::{Expiry, Key, NearCache, QUIET_LOGS, Session, SessionExt as _, SessionLayer};
use support::{
    PATIENCE, Server, Visitor, default_replica, each_backend, each_process, hold::Hold, meter::Meter, patient_store, replica,
    send, their_store::their_store,
};
use time::Duration as Time;
use tower_sessions::{
    CachingSessionStore, MemoryStore, SessionManagerLayer, SessionStore,
    session::{Id, Record},
    session_store as contract,
};
use tower_sessions_014 as theirs;
use tracing::{Dispatch, Subscriber, span, subscriber::NoSubscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::MakeWriter,
    layer::{Context, SubscriberExt as _},
};

fn router() -> Router {
    support::app::router()
        .route("/stream", get(streamed))
        .route("/first-login", get(first_login))
        .route("/remove-nothing", post(async |session: Session| drop(session.remove_value("nothing").await.unwrap())))
}

/// Their memory store, which notes what it is asked for, and is slow or out of order on demand.
#[derive(Debug, Clone, Default)]
struct Watched {
    store: MemoryStore,
    asked: Arc<Mutex<Vec<&'static str>>>,
    saves_take: Duration,
    fails: bool,
}

impl Watched {
    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl SessionStore for Watched {
    async fn create(&self, record: &mut Record) -> contract::Result<()> {
        self.note("create");
        self.store.create(record).await
    }

    async fn save(&self, record: &Record) -> contract::Result<()> {
        self.note("save");
        tokio::time::sleep(self.saves_take).await;
        if self.fails {
            return Err(contract::Error::Backend("it is away".to_owned()));
        }
        self.store.save(record).await
    }

    async fn load(&self, id: &Id) -> contract::Result<Option<Record>> {
        self.note("load");
        self.store.load(id).await
    }

    async fn delete(&self, id: &Id) -> contract::Result<()> {
        self.note("delete");
        self.store.delete(id).await
    }
}

/// As published: their layer on their Redis store.
async fn their_redis_app(server: &Server) -> Router {
    let read = async |session: theirs::Session, Path(key): Path<String>| match session.get::<String>(&key).await {
        Ok(value) => (StatusCode::OK, value.unwrap_or_else(|| "-".to_owned())),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    };
    let write =
        async |session: theirs::Session, Path((key, value)): Path<(String, String)>| session.insert(&key, value).await.unwrap();
    let routes = Router::new().route("/get/{key}", get(read)).route("/set/{key}/{value}", post(write));
    routes.layer(theirs::SessionManagerLayer::new(their_store(server).await))
}

async fn streamed(session: Session) -> Body {
    Body::from_stream(stream::once(async move {
        session.insert("while", "streaming").await.unwrap();
        Ok::<_, io::Error>("done")
    }))
}

async fn first_login(session: Session) {
    session.cycle_id().await.unwrap();
    session.insert("user", "ada").await.unwrap();
}

/// Two replicas over one store.
struct Replicas([Router; 2]);

impl Replicas {
    /// As its documentation sets it up.
    fn theirs() -> Self {
        let layer = SessionManagerLayer::new(MemoryStore::default()).with_expiry(Expiry::OnInactivity(Time::minutes(30)));
        Self([router().layer(layer.clone()), router().layer(layer)])
    }

    async fn ours(server: &Server) -> Self {
        let layer = async || {
            let layer = SessionLayer::new(patient_store(server).await).with_expiry(Expiry::OnInactivity(Time::minutes(30)));
            router().layer(layer)
        };
        Self([layer().await, layer().await])
    }
}

/// Whether the fault shows: with theirs it must, with ours it must not.
async fn shows_with_theirs_alone(fault: impl AsyncFn(&Replicas) -> bool) {
    assert!(fault(&Replicas::theirs()).await, "it does not show with tower-sessions: the test is of no use");
    each_backend(async |server| assert!(!fault(&Replicas::ours(&server).await).await, "it shows")).await;
}

/// A request while another one, with HOLD in its path, is held in its handler, and the answer of that one.
async fn during(slow: (&Router, Method, &'static str), cookie: Option<String>, other: impl AsyncFnOnce()) -> support::Answer {
    let hold = Hold::new();
    let (app, method, path) = (slow.0.clone(), slow.1, slow.2.replace("HOLD", &hold.to_string()));
    let slow = tokio::spawn(async move { send(&app, method, &path, cookie.as_deref()).await });
    hold.reached().await;
    other().await;
    hold.release();
    slow.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_01_two_requests_both_answer_200_and_one_change_is_gone() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/start/now").await.ok();
        let cookie = visitor.cookie.clone();
        let slow = during((a, Method::POST, "/slow-set/HOLD/first/1"), cookie, async || {
            visitor.clone().post(b, "/set/second/2").await.ok();
        });
        slow.await.ok();
        visitor.get(a, "/get/first").await.body != "1" || visitor.get(a, "/get/second").await.body != "2"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_02_a_save_after_a_logout_brings_a_cookie_or_the_session_back() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/name/ada").await.ok();
        let cookie = visitor.cookie.clone();
        let late = during((a, Method::POST, "/slow-set/HOLD/name/eve"), cookie.clone(), async || {
            visitor.clone().post(b, "/logout").await.ok();
        })
        .await;
        let alive = send(b, Method::GET, "/get/name", cookie.as_deref()).await.body != "-";
        late.set_cookie().is_some() || alive || late.status == StatusCode::OK
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_03_a_request_in_flight_during_a_login_logs_the_user_out() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/name/ada").await.ok();
        let old = visitor.cookie.clone();
        visitor.post(b, "/cycle").await.ok();
        let late = send(a, Method::GET, "/get/name", old.as_deref()).await;
        late.removes_cookie() || late.body != "ada"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_04_an_error_after_cycle_id_loses_the_session() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/name/ada").await.ok();
        visitor.post(a, "/cycle-and-fail").await;
        visitor.get(b, "/get/name").await.body != "ada"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_05_flush_and_insert_keep_the_old_id() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/name/ada").await.ok();
        let old = visitor.cookie.clone();
        visitor.post(b, "/relogin/eve").await.ok();
        send(a, Method::GET, "/get/user", old.as_deref()).await.body == "eve"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_06_set_expiry_does_not_last() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/remember/2592000").await.ok();
        let next = visitor.post(b, "/set/name/ada").await.ok();
        // No cookie is as good as the one that there is.
        next.set_cookie().is_some_and(|cookie| !cookie.contains("Max-Age=2592000"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_07_reads_do_not_extend_the_idle_timeout() {
    let expiry = |idle: Duration| Expiry::OnInactivity(Time::try_from(idle).unwrap());
    // Whether a session ended that was read in time. `None`: a busy machine let the whole idle timeout pass between two reads.
    let fault = async |[a, b]: [Router; 2], idle: Duration| {
        let mut visitor = Visitor::default();
        let mut touched = Instant::now();
        visitor.post(&a, "/set/name/ada").await.ok();
        for _ in 0..2 {
            tokio::time::sleep(idle * 3 / 5).await;
            let asked = Instant::now();
            let is_there = visitor.get(&b, "/get/name").await.ok().body == "ada";
            if !is_there {
                return (touched.elapsed() < idle).then_some(true);
            }
            touched = asked;
        }
        let is_there = visitor.get(&a, "/get/name").await.ok().body == "ada";
        (is_there || touched.elapsed() < idle).then_some(!is_there)
    };
    let idle = Duration::from_secs(3);
    let layer = SessionManagerLayer::new(MemoryStore::default()).with_expiry(expiry(idle));
    let theirs = fault([router().layer(layer.clone()), router().layer(layer)], idle);
    let ours = each_backend(async |server| {
        let mut shows = None;
        for idle in [idle, 4 * idle, 16 * idle] {
            let layer = async || router().layer(SessionLayer::new(patient_store(&server).await).with_expiry(expiry(idle)));
            shows = fault([layer().await, layer().await], idle).await;
            if shows.is_some() {
                break;
            }
        }
        assert_eq!(shows, Some(false), "it shows");
    });
    assert_ne!(tokio::join!(theirs, ours).0, Some(false), "it does not show with tower-sessions: the test is of no use");
}

#[tokio::test]
async fn fault_08_to_extend_the_timeout_a_record_is_read_and_written_where_nothing_was_touched() {
    let watched = Watched::default();
    let theirs = router().layer(SessionManagerLayer::new(watched.clone()).with_always_save(true));
    let mut visitor = Visitor::default();
    visitor.post(&theirs, "/set/name/ada").await.ok();
    watched.take();
    visitor.get(&theirs, "/plain").await.ok();
    assert_eq!(watched.take(), ["load", "save"]);
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let ours = router().layer(SessionLayer::new(support::patient(meter.url()).connect().await.unwrap()));
        let mut visitor = Visitor::default();
        visitor.post(&ours, "/set/name/ada").await.ok();
        meter.take();
        visitor.get(&ours, "/plain").await.ok();
        assert_eq!(meter.take(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_09_who_stays_active_is_logged_in_for_ever() {
    let fault = async |Replicas([a, b]): &Replicas| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/name/ada").await.ok();
        for app in [a, b, a, b, a] {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if visitor.get(app, "/get/name").await.ok().body != "ada" {
                return false;
            }
            // A login too begins no new life.
            visitor.post(app, "/cycle").await.ok();
        }
        true
    };
    let ours = each_backend(async |server| {
        let layer = SessionLayer::new(patient_store(&server).await).with_absolute_timeout(Time::seconds(2));
        assert!(!fault(&Replicas([router().layer(layer.clone()), router().layer(layer)])).await, "it shows");
    });
    let theirs = Replicas::theirs();
    assert!(tokio::join!(fault(&theirs), ours).0, "it does not show with tower-sessions: the test is of no use");
}

#[tokio::test]
async fn fault_10_what_is_saved_is_saved_again_and_nothing_is_written_at_full_length() {
    let watched = Watched::default();
    let theirs = router().layer(SessionManagerLayer::new(watched.clone()));
    let mut visitor = Visitor::default();
    visitor.post(&theirs, "/save-twice/1").await.ok();
    assert_eq!(watched.take(), ["create", "save"]);
    visitor.post(&theirs, "/remove-nothing").await.ok();
    assert_eq!(watched.take(), ["load", "save"]);
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let ours = router().layer(SessionLayer::new(support::patient(meter.url()).connect().await.unwrap()));
        // After this the server knows the script.
        Visitor::default().post(&ours, "/save-twice/1").await.ok();
        meter.take();
        let mut visitor = Visitor::default();
        visitor.post(&ours, "/save-twice/1").await.ok();
        assert_eq!(meter.take(), 1);
        server.reset_commands().await;
        visitor.post(&ours, "/remove-nothing").await.ok();
        assert_eq!(meter.take(), 1);
        let commands = server.commands().await;
        assert!(!commands.iter().any(|(name, _)| name.starts_with("eval")), "it was read, and not written: {commands:?}");
    })
    .await;
}

#[tokio::test]
async fn fault_11_the_first_login_deletes_what_was_never_there() {
    let watched = Watched::default();
    let theirs = router().layer(SessionManagerLayer::new(watched.clone()));
    Visitor::default().get(&theirs, "/first-login").await.ok();
    assert_eq!(watched.take(), ["delete", "create"], "there was no session, and none was asked for");
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let app = router().layer(SessionLayer::new(support::patient(meter.url()).connect().await.unwrap()));
        // After this the server knows the script.
        Visitor::default().get(&app, "/first-login").await.ok();
        server.reset_commands().await;
        meter.take();
        Visitor::default().get(&app, "/first-login").await.ok();
        assert_eq!(meter.take(), 1);
        let commands = server.commands().await;
        assert!(!commands.iter().any(|(name, _)| ["del", "unlink", "hgetall"].contains(&&**name)), "{commands:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_12_a_payload_that_cannot_be_read_is_an_error_for_ever() {
    each_backend(async |server| {
        let (theirs, ours) = (their_redis_app(&server).await, replica(&server).await);
        let mut connection = server.connection().await;
        for (app, is_theirs) in [(&theirs, true), (&ours, false)] {
            let mut visitor = Visitor::default();
            visitor.post(app, "/set/name/ada").await.ok();
            let key = server.keys("*").await.into_iter().find(|key| key.contains(":session:") != is_theirs).unwrap();
            redis::cmd("SET").arg(key).arg("neither of them wrote this").exec_async(&mut connection).await.unwrap();
            for _ in 0..2 {
                let answer = visitor.get(app, "/get/name").await;
                assert_eq!(answer.status == StatusCode::BAD_GATEWAY, is_theirs, "{}", answer.body);
                assert!(!answer.removes_cookie(), "theirs leads nowhere, and ours to a session");
            }
            if !is_theirs {
                visitor.post(app, "/set/name/bob").await.ok();
                assert_eq!(visitor.get(app, "/get/name").await.ok().body, "bob");
            }
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_13_a_store_that_hangs_hangs_the_request() {
    each_process(async |server| {
        let (theirs, ours) = (their_redis_app(&server).await, default_replica(&server).await);
        let mut visitors = [Visitor::default(), Visitor::default()];
        for (app, visitor) in [&theirs, &ours].into_iter().zip(&mut visitors) {
            visitor.post_until_done(app, "/set/name/ada").await;
        }
        let [their_visitor, our_visitor] = &mut visitors;
        server.signal("-STOP");
        let within = Duration::from_secs(4);
        let (theirs, ours) = tokio::join!(
            tokio::time::timeout(within, their_visitor.get(&theirs, "/get/name")),
            tokio::time::timeout(within, our_visitor.get(&ours, "/get/name")),
        );
        server.signal("-CONT");
        assert!(theirs.is_err(), "theirs answers");
        assert!(ours.unwrap().status.is_server_error());
    })
    .await;
}

/// A client goes away while its commit is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_14_the_client_goes_away_and_its_change_is_dropped() {
    // The client goes away when `is_under_way`.
    let broken_off = async |app: &Router, visitor: &Visitor, is_under_way: &dyn Fn() -> BoxFuture<'static, bool>| {
        let (app, cookie) = (app.clone(), visitor.cookie.clone());
        let request = tokio::spawn(async move { send(&app, Method::POST, "/set/name/late", cookie.as_deref()).await });
        let began = Instant::now();
        while !is_under_way().await {
            assert!(began.elapsed() < PATIENCE, "nothing is saved");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        request.abort();
        let _ = request.await;
    };
    let watched = Watched { saves_take: 2 * PATIENCE, ..Watched::default() };
    let theirs = router().layer(SessionManagerLayer::new(watched.clone()));
    let mut visitor = Visitor::default();
    visitor.post(&theirs, "/set/name/ada").await.ok();
    let asked = Arc::clone(&watched.asked);
    let is_saving = move || std::future::ready(asked.lock().unwrap().contains(&"save")).boxed();
    broken_off(&theirs, &visitor, &is_saving).await;
    assert_eq!(visitor.get(&theirs, "/get/name").await.ok().body, "ada");
    // Each answer of the store is late, so that the request is broken off while its commit is under way.
    each_backend(async |server| {
        let proxy = support::slow_proxy::SlowProxy::start(&server, 1).await;
        let store = support::patient(proxy.url()).connect().await.unwrap();
        let ours = router().layer(SessionLayer::new(store));
        let mut visitor = Visitor::default();
        // The store knows the script of a commit from then on.
        for name in ["bob", "ada"] {
            visitor.post(&ours, &format!("/set/name/{name}")).await.ok();
        }
        server.reset_commands().await;
        proxy.late_ms(500..=500);
        let client = redis::Client::open(server.url()).unwrap();
        let is_committing = move || {
            let client = client.clone();
            async move {
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
                info.lines().any(|line| line.starts_with("cmdstat_evalsha:calls=") && !line.contains(":calls=0,"))
            }
            .boxed()
        };
        broken_off(&ours, &visitor, &is_committing).await;
        proxy.late_ms(0..=0);
        assert_eq!(visitor.get(&ours, "/get/name").await.ok().body, "late");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_15_a_failed_save_makes_an_empty_500_of_the_answer() {
    let mut visitor = Visitor::default();
    let watched = Watched::default();
    visitor.post(&router().layer(SessionManagerLayer::new(watched.clone())), "/set/name/ada").await.ok();
    let theirs = router().layer(SessionManagerLayer::new(Watched { fails: true, ..watched }));
    let answer = visitor.post(&theirs, "/set/name/eve").await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::INTERNAL_SERVER_ERROR, ""));
    each_process(async |mut server| {
        let ours = default_replica(&server).await;
        server.kill();
        // Nothing to be read, so that only the commit fails.
        let answer = Visitor::default().post(&ours, "/set/name/eve").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers.contains_key(header::RETRY_AFTER) && answer.body.contains("try again"), "{}", answer.body);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_the_store_shows_ids_and_records_have_no_version() {
    each_backend(async |server| {
        let (theirs, ours) = (their_redis_app(&server).await, replica(&server).await);
        let mut connection = server.connection().await;
        for (app, is_theirs) in [(&theirs, true), (&ours, false)] {
            let mut visitor = Visitor::default();
            visitor.post(app, "/set/name/ada").await.ok();
            let id = visitor.cookie.unwrap().split_once('=').unwrap().1.to_owned();
            let keys = server.keys("*").await;
            assert_eq!(keys.iter().any(|key| key.contains(&id)), is_theirs, "{keys:?}");
            let version: Option<Option<u32>> = redis::cmd("HGET").arg(&keys[0]).arg("@v").query_async(&mut connection).await.ok();
            assert_eq!(version.flatten().is_none(), is_theirs);
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_16_changes_made_while_a_body_streams_are_lost() {
    shows_with_theirs_alone(async |Replicas([a, b])| {
        let mut visitor = Visitor::default();
        visitor.post(a, "/set/name/ada").await.ok();
        visitor.get(a, "/stream").await.ok();
        visitor.get(b, "/get/while").await.body != "streaming"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_no_vary_and_no_cache_control() {
    shows_with_theirs_alone(async |Replicas([a, _])| {
        let mut visitor = Visitor::default();
        let changed = visitor.post(a, "/set/name/ada").await.ok();
        let read = visitor.get(a, "/get/name").await.ok();
        let is_safe = |answer: &support::Answer| {
            answer.headers.get(header::VARY).is_some_and(|vary| vary == "Cookie")
                && answer.headers.get(header::CACHE_CONTROL).is_some_and(|cache| cache == "private")
        };
        ![changed, read].iter().all(is_safe)
    })
    .await;
}

/// What the application says of caching stands, except that the cookie is never stored with it.
#[tokio::test]
async fn fault_18_what_the_application_says_of_caching_stands() {
    each_backend(async |server| {
        let app: Router = Router::new()
            .route(
                "/{cache}",
                get(async |session: Session, Path(cache): Path<String>| {
                    session.insert("page", &cache).await.unwrap();
                    [(header::CACHE_CONTROL, cache), (header::VARY, "Accept, cookie".to_owned())]
                }),
            )
            .route("/untouched", get(async |_: Session| ""))
            .layer(SessionLayer::new(patient_store(&server).await));
        for (path, expected) in [
            ("/no-store", vec!["no-store"]),
            ("/public,max-age=9", vec!["public,max-age=9", "no-cache=\"set-cookie\""]),
            ("/max-age=9,%20private", vec!["max-age=9, private"]),
        ] {
            let answer = Visitor::default().get(&app, path).await.ok();
            assert!(answer.set_cookie().is_some());
            assert_eq!(answer.headers.get_all(header::CACHE_CONTROL).iter().collect::<Vec<_>>(), expected);
            assert_eq!(answer.headers.get_all(header::VARY).iter().collect::<Vec<_>>(), ["Accept, cookie"]);
        }
        let answer = Visitor::default().get(&app, "/untouched").await.ok();
        assert!(!answer.headers.contains_key(header::VARY) && !answer.headers.contains_key(header::CACHE_CONTROL));
    })
    .await;
}

/// Ours is the near cache: what one replica commits, the other one is told of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_19_what_a_replica_has_cached_is_never_invalidated() {
    let shared = MemoryStore::default();
    let layer = || SessionManagerLayer::new(CachingSessionStore::new(MemoryStore::default(), shared.clone()));
    let theirs = [router().layer(layer()), router().layer(layer())];
    // Changed on the first replica after the second has served it from memory; how long that one goes on with what it had.
    let stale_for = async |[a, b]: [Router; 2], serves_from_memory: &dyn Fn() -> bool, at_most: Duration| {
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set/name/ada").await.ok();
        let began = Instant::now();
        for reads in 0.. {
            assert_eq!(visitor.get(&b, "/get/name").await.ok().body, "ada");
            if reads > 0 && serves_from_memory() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "it serves nothing from memory");
        }
        visitor.post(&a, "/set/name/eve").await.ok();
        let changed = Instant::now();
        while visitor.get(&b, "/get/name").await.ok().body == "ada" {
            if changed.elapsed() > at_most {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Some(changed.elapsed())
    };
    assert_eq!(stale_for(theirs, &|| true, Duration::from_secs(2)).await, None);
    each_backend(async |server| {
        let replica = async || {
            let store = support::patient(server.url()).near_cache(NearCache::default());
            let store = store.connect().await.unwrap();
            (router().layer(SessionLayer::new(store.clone())), store)
        };
        let ((a, _), (b, store)) = (replica().await, replica().await);
        let has_hit = || store.near_cache_status().is_some_and(|near| near.hits > 0);
        assert!(stale_for([a, b], &has_hit, PATIENCE).await.is_some());
    })
    .await;
}

/// Counts the spans that the handle opens.
struct Spans(Arc<AtomicU32>);

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let is_the_handles = attributes.metadata().target().starts_with("tower_sessions_core");
        self.0.fetch_add(u32::from(is_the_handles), Ordering::Relaxed);
    }
}

/// What a test that sees to its own spans and lines is in need of: as long as there is one dispatcher alone, a place in the code that
/// another test comes to first is asked for by that test's thread, which has none, and is off for everybody from then on.
fn keep_another_dispatcher() {
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&ANOTHER);
}

/// A value that knows how it came: as a string of its own, which is what a copy of the JSON in the handle has, or as a part of the bytes
/// that were received.
struct Arrived {
    is_copy: bool,
}

impl<'de> Deserialize<'de> for Arrived {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct How;
        impl de::Visitor<'_> for How {
            type Value = Arrived;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, _: &str) -> Result<Arrived, E> {
                Ok(Arrived { is_copy: false })
            }

            fn visit_string<E>(self, _: String) -> Result<Arrived, E> {
                Ok(Arrived { is_copy: true })
            }
        }
        deserializer.deserialize_str(How)
    }
}

/// Spans of the handle while this path is asked for, and the answer.
async fn spans(app: &Router, visitor: &mut Visitor, path: &str, directive: Option<&str>) -> (u32, String) {
    keep_another_dispatcher();
    let count = Arc::<AtomicU32>::default();
    let mut filter = EnvFilter::new("info");
    if let Some(directive) = directive {
        filter = filter.add_directive(directive.parse().unwrap());
    }
    let subscriber = tracing_subscriber::registry().with(filter).with(Spans(Arc::clone(&count)));
    let guard = tracing::subscriber::set_default(subscriber);
    let body = visitor.get(app, path).await.ok().body;
    drop(guard);
    (count.load(Ordering::Relaxed), body)
}

/// `Session::get` is tower-sessions' own, under our layer too: there the span can only be silenced, and the copy stays. A typed key is
/// read without either.
#[tokio::test]
async fn fault_20_every_access_opens_a_span_and_copies_the_value() {
    const NAME: Key<Arrived> = Key::new("name");
    let how = |arrived: Option<Arrived>| arrived.unwrap().is_copy.to_string();
    let routes = router()
        .route("/by-get", get(async move |session: Session| how(session.get("name").await.unwrap())))
        .route("/by-key", get(async move |session: Session| how(session.read(&NAME).await.unwrap())));
    let theirs = routes.clone().layer(SessionManagerLayer::new(MemoryStore::default()));
    let mut visitor = Visitor::default();
    visitor.post(&theirs, "/set/name/ada").await.ok();
    let (count, is_copy) = spans(&theirs, &mut visitor, "/by-get", None).await;
    assert!(count > 0 && is_copy == "true", "{count} spans, copied: {is_copy}");
    each_backend(async |server| {
        let ours = routes.clone().layer(SessionLayer::new(patient_store(&server).await));
        let mut visitor = Visitor::default();
        visitor.post(&ours, "/set/name/ada").await.ok();
        assert_eq!(spans(&ours, &mut visitor, "/by-key", None).await, (0, "false".to_owned()));
        let (count, is_copy) = spans(&ours, &mut visitor, "/by-get", None).await;
        assert!(count > 0 && is_copy == "true", "it is no other handle: {count} spans, copied: {is_copy}");
        assert_eq!(spans(&ours, &mut visitor, "/by-get", Some(QUIET_LOGS)).await.0, 0);
    })
    .await;
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What is logged about a visitor who comes back after the session has ended, at `info` with this directive beside it.
async fn logged(app: &Router, directive: Option<&str>) -> String {
    keep_another_dispatcher();
    let lines = Lines::default();
    let mut filter = EnvFilter::new("info");
    if let Some(directive) = directive {
        filter = filter.add_directive(directive.parse().unwrap());
    }
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    for name in ["id", "__Host-id"] {
        send(app, Method::GET, "/get/name", Some(&format!("{name}=AAAAAAAAAAAAAAAAAAAAAA"))).await.ok();
        send(app, Method::POST, "/set/name/ada", Some(&format!("{name}=AAAAAAAAAAAAAAAAAAAAAA"))).await.ok();
    }
    drop(guard);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

/// The line is one of the handle's, which is theirs: with the directive that we give it is gone, and none of ours is added.
#[tokio::test]
async fn fault_21_a_warning_for_every_stale_cookie() {
    let theirs = Replicas::theirs();
    assert!(logged(&theirs.0[0], None).await.contains("WARN"));
    each_backend(async |server| {
        let ours = Replicas::ours(&server).await;
        assert!(!logged(&ours.0[0], None).await.contains("session_store"), "ours adds nothing");
        assert_eq!(logged(&ours.0[0], Some(QUIET_LOGS)).await, "");
    })
    .await;
}

enum Proof {
    /// A test of this file, whose name begins with the fault's number.
    Here,
    /// Tests of other files.
    In(&'static [(&'static str, &'static str)]),
    /// What of it is not ours to mend, and why.
    Left(&'static str),
}
use Proof::{Here, In, Left};

const CART: &str = include_str!("cart.rs");
const DEPLOYS: &str = include_str!("deploys.rs");
const EXPIRY: &str = include_str!("expiry.rs");
const OUTAGE: &str = include_str!("outage.rs");
const OUTAGE_POLICY: &str = include_str!("outage_policy.rs");
const ROTATION: &str = include_str!("rotation.rs");
const ROUND_TRIPS: &str = include_str!("round_trips.rs");
const SECRETS: &str = include_str!("secrets.rs");
const SESSION: &str = include_str!("session.rs");
const STREAMING: &str = include_str!("streaming.rs");

const FAULTS: [(&str, &[Proof]); 21] = [
    (
        "01: of two requests at once one change is gone",
        &[
            Here,
            In(&[
                (SESSION, "changes_of_different_keys_at_the_same_time_keep_both"),
                (CART, "two_hundred_adds_at_once_over_two_replicas_are_exact"),
            ]),
        ],
    ),
    ("02: a save after a logout", &[Here, In(&[(SESSION, "a_logout_during_a_slow_write_stays_a_logout")])]),
    ("03: a request in flight logs out", &[Here, In(&[(ROTATION, "of_eight_reads_racing_a_login_none_is_lost")])]),
    ("04: an error after cycle_id", &[Here, In(&[(SESSION, "an_error_after_the_rotation_loses_nothing")])]),
    ("05: flush and insert", &[Here, In(&[(SESSION, "what_is_inserted_after_a_flush_belongs_to_a_new_id")])]),
    ("06: set_expiry does not last", &[Here, In(&[(SESSION, "an_expiry_of_its_own_lasts")])]),
    ("07: reads do not extend", &[Here, In(&[(SESSION, "the_idle_timeout_is_extended_by_reads_and_really_ends")])]),
    ("08: always_save costs two commands", &[Here, In(&[(ROUND_TRIPS, "none_untouched_one_to_read_one_to_commit")])]),
    ("09: no absolute timeout", &[Here, In(&[(EXPIRY, "the_absolute_timeout_is_put_off_by_nothing")])]),
    (
        "10: saved twice, or for nothing",
        &[Here, In(&[(SESSION, "an_explicit_save_is_not_repeated"), (ROUND_TRIPS, "none_untouched_one_to_read_one_to_commit")])],
    ),
    ("11: a needless DEL at the first login", &[Here]),
    (
        "12: a corrupt payload is an error for ever",
        &[Here, In(&[(DEPLOYS, "an_unreadable_record_is_put_in_quarantine_and_the_visitor_gets_a_clean_session_once")])],
    ),
    ("13: a hung store hangs the request", &[Here, In(&[(OUTAGE, "a_hung_store_is_answered_within_the_deadline")])]),
    (
        "14: the client goes away",
        &[
            Here,
            In(&[
                (OUTAGE, "a_commit_goes_on_when_the_client_goes_away"),
                (STREAMING, "what_was_changed_until_the_client_went_away_is_saved"),
            ]),
        ],
    ),
    (
        "15: a failed save replaces the answer by an empty 500",
        &[
            Here,
            In(&[
                (OUTAGE, "a_store_that_dies_before_the_commit_makes_it_a_503"),
                (OUTAGE_POLICY, "without_session_the_handler_decides_and_no_change_is_said_to_be_kept"),
            ]),
        ],
    ),
    ("16: changes made while a body streams", &[Here, In(&[(STREAMING, "changes_made_while_a_body_streams_are_saved")])]),
    (
        "17: the id is the key, and the format has no version",
        &[
            Here,
            In(&[
                (SECRETS, "a_dump_of_the_store_holds_no_id_and_no_value"),
                (DEPLOYS, "a_record_of_a_later_layout_is_an_error_and_stays"),
            ]),
        ],
    ),
    (
        "18: one signing key, no Vary, no Cache-Control",
        &[Here, In(&[(SECRETS, "a_cookie_under_a_former_key_is_renewed_and_a_forged_one_never_reaches_the_store")])],
    ),
    // Without a near cache nothing can be stale: what one replica commits the other one reads.
    (
        "19: the caching store never invalidates",
        &[Here, In(&[(SESSION, "a_new_id_keeps_everything_and_the_old_one_changes_nothing_more")])],
    ),
    (
        "20: a deep clone and a span for every access",
        &[
            Left(
                "`Session::get` is an inherent method of `tower_sessions::Session`, whose fields are private: it enters a span of level info, \
                 takes the record that it loaded once, and clones the value in it before it is deserialised. A store behind the handle is \
                 asked for nothing by then, so that neither it nor a commit can notice; an extractor or a wrapper could only give \
                 another type, which axum-login and all who take a `Session` would not take. The span is gone with `QUIET_LOGS`",
            ),
            Here,
        ],
    ),
    ("21: a warning for every stale cookie", &[Here]),
];

#[test]
fn every_fault_has_its_test() {
    let here = include_str!("faults.rs");
    let is_test = |file: &str, name: &str| file.contains(&format!("]\nasync fn {name}"));
    for (number, (fault, proofs)) in FAULTS.iter().enumerate() {
        assert!(fault.starts_with(&format!("{:02}:", number + 1)), "{fault}");
        assert!(!proofs.is_empty(), "{fault}");
        for proof in *proofs {
            match proof {
                Here => assert!(is_test(here, &format!("fault_{}_", &fault[..2])), "{fault}"),
                In(tests) => {
                    for (file, name) in *tests {
                        assert!(is_test(file, &format!("{name}()")), "{fault}: {name}");
                    }
                }
                Left(why) => println!("{fault}: {why}"),
            }
        }
    }
}
