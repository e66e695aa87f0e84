//! `session.update`: a value that starts from the one in the store, however many are at it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Path, routing::post};
use http::{Method, StatusCode};
use session_store::{Key, Session, SessionExt as _, SessionLayer, StoreError, UPDATE_ATTEMPTS_MAX, Unavailable, UpdateError};
use support::{Server, Visitor, each_process, each_server, meter::Meter, patient_store, send};
use tower_sessions::{MemoryStore, SessionManagerLayer};

const NAME: Key<String> = Key::new("name");

type Text = Result<String, Unavailable>;

fn router() -> Router {
    support::app::router()
        .route("/count/{key}", post(count))
        .route("/count", post(async |session: Session| count(session, Path(String::new())).await))
        .route("/count-and-more/{step}", post(count_and_more))
        .route("/count-at-once/{tasks}", post(count_at_once))
        .route("/shout", post(async |session: Session| -> Text { Ok(session.update(&NAME, |name| name.unwrap() + "!").await?) }))
}

async fn replica(server: &Server) -> Router {
    router().layer(SessionLayer::new(patient_store(server).await))
}

async fn count(session: Session, Path(key): Path<String>) -> Text {
    Ok(session.update(&Key::<u64>::named(key), |count| count.unwrap_or(0) + 1).await?.to_string())
}

/// Updates of one handle at the same time, in tasks of their own and in one.
async fn count_at_once(session: Session, Path(tasks): Path<usize>) -> Result<String, Unavailable> {
    const COUNT: Key<u64> = Key::new("count");
    let update = async |session: Session| session.update(&COUNT, |count| count.unwrap_or(0) + 1).await.unwrap();
    let mut counts = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let session = session.clone();
        counts.spawn(async move { session.update(&COUNT, |count| count.unwrap_or(0) + 1).await.unwrap() });
    }
    let own = futures_util::future::join_all((0..tasks).map(|_| update(session.clone()))).await;
    Ok(format!("{}", own.len() + counts.join_all().await.len()))
}

/// An update after each of the other things that a request can do.
async fn count_and_more(session: Session, Path(step): Path<String>) -> Result<String, Unavailable> {
    const COUNT: Key<u64> = Key::new("count");
    match &*step {
        "insert" => session.insert("other", "kept").await?,
        "insert-same" => session.write(&COUNT, &100).await?,
        "cycle" => session.cycle_id().await?,
        "flush" => session.flush().await?,
        _ => {}
    }
    let first = session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?;
    let second = session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?;
    assert_eq!(session.read(&COUNT).await?, Some(second), "the handle shows it");
    if step == "undo" {
        session.write(&COUNT, &first).await?;
    }
    Ok(format!("{first} {second}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_at_once_over_two_replicas_are_exact() {
    exact_updates(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fifty trials take minutes"]
async fn updates_at_once_over_two_replicas_are_exact_fifty_times() {
    exact_updates(50).await;
}

async fn exact_updates(trials: usize) {
    each_server(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        for keys in [1, 200].repeat(trials) {
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/start/now").await.ok();
            let cookie = visitor.cookie.clone().unwrap();
            let mut requests = tokio::task::JoinSet::new();
            for i in 0..400 {
                let (app, cookie) = (replicas[i % 2].clone(), cookie.clone());
                requests.spawn(async move {
                    send(&app, Method::POST, &format!("/count/n{}", i / 2 % keys), Some(&cookie)).await.ok().body
                });
            }
            let mut answers: Vec<u64> = requests.join_all().await.iter().map(|body| body.parse().unwrap()).collect();
            answers.sort_unstable();
            let each = 400 / keys as u64;
            let expected: Vec<u64> = (1..=each).flat_map(|n| std::iter::repeat_n(n, keys)).collect();
            assert_eq!(answers, expected, "each answer is a step of its own");
            for key in 0..keys {
                let answer = visitor.post(&replicas[0], &format!("/count/n{key}")).await.ok();
                assert_eq!(answer.body, (each + 1).to_string());
            }
            assert_eq!(visitor.get(&replicas[1], "/get/start").await.ok().body, "now");
        }
    })
    .await;
}

/// No name is taken for the lack of one, nor for a field of the layer's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_at_once_of_keys_with_odd_names_are_exact() {
    each_server(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/start/now").await.ok();
        let cookie = visitor.cookie.clone().unwrap();
        for path in ["/count", "/count/@", "/count/@rev", "/count/@@"] {
            let mut requests = tokio::task::JoinSet::new();
            for i in 0..60 {
                let (app, cookie) = (replicas[i % 2].clone(), cookie.clone());
                requests.spawn(async move { send(&app, Method::POST, path, Some(&cookie)).await.ok().body });
            }
            let mut answers: Vec<u64> = requests.join_all().await.iter().map(|body| body.parse().unwrap()).collect();
            answers.sort_unstable();
            assert_eq!(answers, (1..=60).collect::<Vec<_>>(), "{path}");
        }
    })
    .await;
}

/// Somebody else is faster each time: the bound is on attempts, and what was lost is not half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_comes_too_late_every_time_gives_up_and_changes_nothing() {
    each_server(async |server| {
        let (url, calls) = (server.url(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&calls);
        let lose = move |session: Session| {
            let (url, counted) = (url.clone(), Arc::clone(&counted));
            async move {
                let mut other = redis::Client::open(url).unwrap().get_connection().unwrap();
                let keys: Vec<String> = redis::cmd("KEYS").arg("*:session:*").query(&mut other).unwrap();
                session.insert("beside", "it").await.unwrap();
                let late = |n: Option<u64>| {
                    let call = counted.fetch_add(1, Ordering::SeqCst);
                    redis::cmd("HINCRBY").arg(&keys[0]).arg(&["n", "10"]).exec(&mut other).unwrap();
                    // Another commit, of the same revision: as when a replica that lacked one has taken its primary's place.
                    redis::cmd("HSET").arg(&keys[0]).arg("@tok").arg(format!("other{call:03} ")).exec(&mut other).unwrap();
                    n.unwrap_or(0) + 1
                };
                let lost = session.update(&Key::new("n"), late).await.unwrap_err();
                let gave_up = matches!(lost, UpdateError::Store(StoreError::Contended { attempts: UPDATE_ATTEMPTS_MAX }));
                assert!(gave_up, "{lost}");
                // Answered as a failure, so that nothing else of the request is committed either.
                Unavailable::from(lost)
            }
        };
        let app = router().route("/lose", post(lose)).layer(SessionLayer::new(patient_store(&server).await));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/count/n").await.ok();
        let lost = visitor.post(&app, "/lose").await;
        assert!(lost.status.is_server_error() || lost.status == StatusCode::CONFLICT, "{}", lost.status);
        assert_eq!(calls.load(Ordering::SeqCst), UPDATE_ATTEMPTS_MAX);
        assert_eq!(visitor.get(&app, "/get/beside").await.ok().body, "-");
        assert_eq!(visitor.post(&app, "/count/n").await.ok().body, (1 + 10 * UPDATE_ATTEMPTS_MAX + 1).to_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_handle_at_once_are_exact_too() {
    each_server(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/count/count").await.ok();
        let mut counted = 1;
        for _ in 0..5 {
            let mut requests = tokio::task::JoinSet::new();
            for i in 0..8 {
                let (app, cookie) = (replicas[i % 2].clone(), visitor.cookie.clone());
                requests.spawn(async move {
                    send(&app, Method::POST, "/count-at-once/4", cookie.as_deref()).await.ok().body.parse::<usize>().unwrap()
                });
            }
            counted += requests.join_all().await.iter().sum::<usize>();
        }
        assert_eq!(counted, 321);
        assert_eq!(visitor.post(&replicas[0], "/count/count").await.ok().body, "322");
    })
    .await;
}

/// An update whose answer was lost is repeated, and found to be done: by then the value is not the expected one any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_make_no_update_count_twice() {
    each_process(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/count/n").await.ok();
        let cookie = visitor.cookie.clone();
        let mut killer = server.connection().await;
        let rounds = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&rounds);
        let breaking = tokio::spawn(async move {
            for _ in 0..12 {
                redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec_async(&mut killer).await.unwrap();
                // Longer than an update takes, however busy the machine is: retries are bounded.
                let before = done.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(80)).await;
                while done.load(Ordering::SeqCst) == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let mut counted = 1;
        while !breaking.is_finished() {
            let mut requests = tokio::task::JoinSet::new();
            for i in 0..8 {
                let (app, cookie) = (replicas[i % 2].clone(), cookie.clone());
                requests.spawn(async move { send(&app, Method::POST, "/count/n", cookie.as_deref()).await.ok() });
            }
            counted += requests.join_all().await.len();
            rounds.fetch_add(1, Ordering::SeqCst);
        }
        assert_eq!(visitor.post(&replicas[0], "/count/n").await.ok().body, (counted + 1).to_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_goes_with_whatever_else_the_request_does() {
    each_server(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        assert_eq!(visitor.post(&app, "/count-and-more/new").await.ok().body, "1 2", "a visitor without a session gets one");
        assert_eq!(visitor.post(&app, "/count-and-more/again").await.ok().body, "3 4");
        assert_eq!(visitor.post(&app, "/count-and-more/insert").await.ok().body, "5 6");
        assert_eq!(visitor.get(&app, "/get/other").await.ok().body, "kept");
        let old = visitor.cookie.clone();
        assert_eq!(visitor.post(&app, "/count-and-more/cycle").await.ok().body, "7 8");
        assert_ne!(visitor.cookie, old);
        assert_eq!(visitor.get(&app, "/get/other").await.ok().body, "kept");
        assert_eq!(visitor.post(&app, "/count-and-more/insert-same").await.ok().body, "101 102");
        assert_eq!(visitor.post(&app, "/count-and-more/undo").await.ok().body, "103 104");
        assert_eq!(visitor.post(&app, "/count-and-more/again").await.ok().body, "104 105", "what was inserted last stays");
        let old = visitor.cookie.clone();
        assert_eq!(visitor.post(&app, "/count-and-more/flush").await.ok().body, "1 2", "it belongs to the next session");
        assert_ne!(visitor.cookie, old);
        assert_eq!(visitor.get(&app, "/get/other").await.ok().body, "-");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_a_session_that_ended_is_a_conflict() {
    each_server(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/count/n").await.ok();
        let old = visitor.cookie.clone();
        for end in ["/cycle", "/logout"] {
            visitor.post(&b, end).await.ok();
            let late = send(&a, Method::POST, "/count/n", old.as_deref()).await;
            assert_eq!((late.status, late.set_cookie()), (StatusCode::CONFLICT, None), "{end}: {}", late.body);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_another_type_is_an_error_and_stays() {
    each_server(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/n/text").await.ok();
        assert_eq!(visitor.post(&app, "/count/n").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(visitor.get(&app, "/get/n").await.ok().body, "text");
        visitor.post(&app, "/set/name/ada").await.ok();
        assert_eq!(visitor.post(&app, "/shout").await.ok().body, "ada!");
    })
    .await;
}

#[tokio::test]
async fn an_update_costs_what_a_change_costs() {
    each_server(async |server| {
        let meter = Meter::before(server.port).await;
        let store = support::patient(meter.url()).connect().await.unwrap();
        let app = router().layer(SessionLayer::new(store));
        let mut visitor = Visitor::default();
        for _ in 0..2 {
            visitor.post(&app, "/count/n").await.ok();
        }
        meter.take();
        visitor.post(&app, "/count/n").await.ok();
        assert_eq!(meter.take(), 2, "one to read, one to set");
        Visitor::default().post(&app, "/count/n").await.ok();
        assert_eq!(meter.take(), 1, "a new session");
    })
    .await;
}

#[tokio::test]
async fn a_session_of_another_layer_is_told_so() {
    let update = async |session: Session| {
        let error = session.update(&Key::<u64>::new("n"), |n| n.unwrap_or(0) + 1).await.unwrap_err();
        assert!(matches!(error, UpdateError::OtherLayer), "{error:?}");
        error.to_string()
    };
    let app: Router = Router::new().route("/", post(update)).layer(SessionManagerLayer::new(MemoryStore::default()));
    let answer = Visitor::default().post(&app, "/").await.ok();
    assert!(answer.body.contains("session_store::SessionLayer"), "{}", answer.body);
}
