//! The store stops, hangs and comes back: fast errors, nothing lost, nothing overwritten.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode, header};
use session_store::{CacheStore, SessionLayer, StoreError};
use support::{
    Moment, PATIENCE, Visitor, default_replica, each_process, hold::Hold, moment, patient, port::free_port, replica, send,
    until_it_answers,
};

/// The deadline, and what two busy cores may add.
const WITHIN_DEADLINE: Duration = Duration::from_millis(250 + 400);
/// What is promised is 100 ms after the node accepts again; the rest is for two busy cores.
const BACK_WITHIN: Duration = Duration::from_millis(100 + 400);
/// A refusal takes microseconds; the rest is for two busy cores.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Waits until requests are served again: they are refused at once until then, never kept waiting.
async fn until_back(app: &axum::Router, cookie: Option<&str>) {
    let began = Moment::now();
    loop {
        let asked = Moment::now();
        // Something is sent with or without a session.
        let answer = send(app, Method::GET, "/cart", cookie.or(Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA"))).await;
        if answer.status == StatusCode::OK {
            break;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(asked.elapsed() < AT_ONCE, "a refusal took {:?}", asked.elapsed());
        assert!(began.elapsed() < BACK_WITHIN, "not back after {:?}: {}", began.elapsed(), answer.body);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_store_is_an_error_at_once_and_is_back_at_once() {
    each_process(async |mut server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/cart/add/TEA/2").await.ok();
        let cookie = visitor.cookie.clone();

        server.kill();
        for _ in 0..20 {
            for (method, path, status) in [
                (Method::GET, "/plain", StatusCode::OK),
                (Method::GET, "/extract", StatusCode::OK),
                (Method::GET, "/get/name", StatusCode::SERVICE_UNAVAILABLE),
                (Method::POST, "/set/name/eve", StatusCode::SERVICE_UNAVAILABLE),
                (Method::GET, "/cart", StatusCode::SERVICE_UNAVAILABLE),
                (Method::POST, "/cart/add/TEA/1", StatusCode::SERVICE_UNAVAILABLE),
                (Method::POST, "/logout", StatusCode::SERVICE_UNAVAILABLE),
            ] {
                let began = Moment::now();
                let answer = send(&app, method, path, cookie.as_deref()).await;
                assert_eq!((answer.status, answer.set_cookie()), (status, None), "{path}: {}", answer.body);
                assert!(began.elapsed() < AT_ONCE, "{path} took {:?}", began.elapsed());
            }
        }
        // A visitor without a session: nothing to read, so that only the commit fails.
        let answer = send(&app, Method::POST, "/set/name/eve", None).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        assert!(answer.body.contains("try again"), "{}", answer.body);

        server.restart().await;
        until_back(&app, cookie.as_deref()).await;
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=2");
        assert_eq!(visitor.cookie, cookie);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_before_the_commit_makes_it_a_503() {
    each_process(async |mut server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let cookie = visitor.cookie.clone();
        let hold = Hold::new();
        let slow = tokio::spawn({
            let (app, path) = (app.clone(), format!("/slow-set/{hold}/name/eve"));
            async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
        });
        hold.reached().await;
        server.kill();
        hold.release();
        let answer = slow.await.unwrap();
        assert_eq!((answer.status, answer.set_cookie()), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        server.restart().await;
        until_back(&app, visitor.cookie.as_deref()).await;
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_store_is_answered_within_the_deadline() {
    each_process(async |server| {
        let app = default_replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post_until_done(&app, "/set/name/ada").await;
        server.signal("-STOP");
        let began = Moment::now();
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..200 {
            let (app, cookie) = (app.clone(), visitor.cookie.clone());
            requests.spawn(async move {
                let path = if i % 2 == 0 { "/get/name" } else { "/cart" };
                let began = Moment::now();
                let answer = send(&app, Method::GET, path, cookie.as_deref()).await;
                assert!(answer.status.is_server_error(), "{path}: {}", answer.body);
                assert!(began.elapsed() < WITHIN_DEADLINE, "{path} took {:?}", began.elapsed());
            });
        }
        requests.join_all().await;
        assert!(began.elapsed() < 2 * WITHIN_DEADLINE);
        for _ in 0..4 {
            visitor.get(&app, "/get/name").await;
        }
        server.signal("-CONT");
        until_back(&app, visitor.cookie.as_deref()).await;
        assert_eq!(visitor.get_until_done(&app, "/get/name").await.body, "ada");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_goes_on_when_the_client_goes_away() {
    each_process(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let hold = Hold::new();
        let request = tokio::spawn({
            let (app, cookie, path) = (app.clone(), visitor.cookie.clone(), format!("/slow-set/{hold}/name/late"));
            async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
        });
        hold.reached().await;
        server.signal("-STOP");
        hold.release();
        // By then the handler is done, and its commit waits for the store.
        moment::sleep(Duration::from_millis(700)).await;
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        server.signal("-CONT");
        let began = Moment::now();
        while visitor.get(&app, "/get/name").await.ok().body != "late" {
            assert!(began.elapsed() < PATIENCE, "the commit was dropped");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// What a replica says that does not serve what is old (MASTERDOWN), as after a failover that left it without a primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_lost_its_primary_is_an_outage_and_no_empty_session() {
    each_process(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/name/ada").await.ok();
        visitor.post(&replicas[1], "/cart/add/TEA/2").await.ok();
        let cookie = visitor.cookie.clone();
        let mut admin = server.connection().await;
        let nobody = free_port();
        redis::cmd("CONFIG").arg(&["SET", "replica-serve-stale-data", "no"]).exec_async(&mut admin).await.unwrap();
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(nobody).exec_async(&mut admin).await.unwrap();
        for _ in 0..10 {
            for (app, method, path) in [
                (&replicas[0], Method::GET, "/get/name"),
                (&replicas[1], Method::GET, "/cart"),
                (&replicas[0], Method::POST, "/set/name/eve"),
            ] {
                let began = Moment::now();
                let answer = send(app, method, path, cookie.as_deref()).await;
                assert_eq!(
                    (answer.status, answer.set_cookie()),
                    (StatusCode::SERVICE_UNAVAILABLE, None),
                    "{path}: {}",
                    answer.body
                );
                assert!(began.elapsed() < WITHIN_DEADLINE, "{path} took {:?}", began.elapsed());
            }
        }
        redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut admin).await.unwrap();
        for app in &replicas {
            until_back(app, cookie.as_deref()).await;
            assert_eq!(visitor.get(app, "/get/name").await.ok().body, "ada");
            assert_eq!(visitor.get(app, "/cart").await.ok().body, "TEA=2");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_replaced_unseen_and_every_change_counts_once() {
    each_process(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let cookie = visitor.cookie.clone();
        let mut killer = server.connection().await;
        let rounds = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&rounds);
        let breaking = tokio::spawn(async move {
            for _ in 0..10 {
                redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec_async(&mut killer).await.unwrap();
                // Longer than a change takes, however busy the machine is: retries are bounded.
                let before = done.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(80)).await;
                while done.load(Ordering::SeqCst) == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let mut added = 1;
        while !breaking.is_finished() {
            let mut requests = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let (app, cookie) = (app.clone(), cookie.clone());
                requests.spawn(async move { send(&app, Method::POST, "/cart/add/TEA/1", cookie.as_deref()).await });
            }
            for answer in requests.join_all().await {
                // Refused by the limit in a fast run, never by the broken connection.
                if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
                    answer.ok();
                    added += 1;
                }
            }
            rounds.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, format!("TEA={added}"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_connected_to_says_why() {
    let unused = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let began = Moment::now();
    let error = patient(format!("redis://{unused}")).connect().await.unwrap_err();
    assert!(began.elapsed() < AT_ONCE);
    let text = error.to_string();
    assert!(text.contains("connection refused; start the store") && text.contains(&unused.to_string()), "{text}");

    // Something that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let began = Moment::now();
    let error = CacheStore::connect(&url).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { .. } | StoreError::Connect { .. }), "{error}");
    assert!(began.elapsed() < WITHIN_DEADLINE);

    for (url, part) in [
        ("127.0.0.1:6379", "no scheme"),
        ("http://127.0.0.1", "`http://`"),
        ("redis://:secret@:99999", "redis://[user:password@]host"),
    ] {
        let error = CacheStore::connect(url).await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidUrl { .. }), "{error}");
        assert!(error.to_string().contains(part) && !error.to_string().contains("secret"), "{error}");
    }

    each_process(async |server| {
        let mut admin = server.connection().await;
        redis::cmd("CONFIG").arg(&["SET", "requirepass", "sesame"]).exec_async(&mut admin).await.unwrap();
        let error = patient(server.url()).connect().await.unwrap_err();
        assert!(error.to_string().contains("redis://:password@host:port"), "{error}");
        let with = |password| format!("redis://:{password}@127.0.0.1:{}", server.port);
        let error = patient(with("mellon")).connect().await.unwrap_err();
        assert!(error.to_string().contains("does not accept the user name and password"), "{error}");
        patient(with("sesame")).connect().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lazy_store_finds_its_server_later() {
    each_process(async |mut server| {
        server.kill();
        let store = patient(server.url()).connect_lazy().unwrap();
        let app = support::app::router().layer(SessionLayer::new(store.clone()));
        assert!(store.ping().await.is_err());
        server.restart().await;
        until_back(&app, None).await;
        until_it_answers(&store).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let status = store.pool_status();
        assert_eq!((status.in_use, status.waiting), (0, 0));
        assert!(status.size >= 1 && status.size <= status.size_max);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_node_may_go_and_come_back() {
    let mut config = cache_node::Config::for_test();
    config.port = free_port();
    let node = cache_node::Node::spawn(config).await.unwrap();
    let address = node.addr();
    let store = patient(format!("redis://{address}")).connect().await.unwrap();
    let app = support::app::router().layer(SessionLayer::new(store));
    let mut visitor = Visitor::default();
    visitor.post(&app, "/set/name/ada").await.ok();
    let cookie = visitor.cookie.clone();
    node.shutdown().await.unwrap();
    for _ in 0..5 {
        let began = Moment::now();
        let answer = visitor.get(&app, "/get/name").await;
        assert_eq!((answer.status, answer.set_cookie()), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    assert_eq!(visitor.cookie, cookie);
    let mut config = cache_node::Config::for_test();
    config.port = address.port();
    let node = cache_node::Node::spawn(config).await.unwrap();
    until_back(&app, cookie.as_deref()).await;
    // It keeps nothing on disk: the session is gone, and the visitor gets another one.
    visitor.post(&app, "/set/name/bob").await.ok();
    assert_ne!(visitor.cookie, cookie);
    assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "bob");
    node.shutdown().await.unwrap();
}
