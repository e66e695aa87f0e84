//! A new id: what requests in flight see of the old one, and who is left afterwards. On two replicas.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use http::{Method, StatusCode};
use support::{Visitor, each_backend, hold::Hold, meter::Meter, replica, send};

/// How long requests that were under way read what was there under the old id.
const GRACE_MS: i64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_reads_racing_a_login_none_is_lost() {
    each_backend(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        for round in 0..60 {
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/name/ada").await.ok();
            let old = visitor.cookie.clone().unwrap();
            let mut reads = tokio::task::JoinSet::new();
            for i in 0..8 {
                let (app, old) = (replicas[i % 2].clone(), old.clone());
                let path = if i < 4 { "/get/name".to_owned() } else { format!("/slow-get/{}/name", i * 2) };
                reads.spawn(async move { send(&app, Method::GET, &path, Some(&old)).await });
            }
            let login = visitor.post(&replicas[round % 2], &format!("/login/user{round}")).await.ok();
            assert_ne!(login.cookie().unwrap(), old);
            for answer in reads.join_all().await {
                assert_eq!(answer.clone().ok().body, "ada", "round {round}");
                assert_eq!(answer.set_cookie(), None, "round {round}: it could land after the login's cookie");
            }
            // As it was before the login, never with its rights.
            let late = send(&replicas[0], Method::GET, "/get/user", Some(&old)).await.ok();
            assert_eq!((&*late.body, late.set_cookie()), ("-", None));
            assert_eq!(visitor.get(&replicas[0], "/get/user").await.ok().body, format!("user{round}"));
        }
    })
    .await;
}

/// What is left of an old id is for those who read. With the session's time as the request leaves it, and as one that extends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_comes_after_a_new_id_or_a_logout_is_refused_and_brings_nothing_back() {
    each_backend(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut connection = server.connection().await;
        for (path, passed_ms) in ["/cycle", "/login/ada", "/logout"].into_iter().flat_map(|path| [(path, 0), (path, 1_200_000)]) {
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/name/ada").await.ok();
            let (old, key) = (visitor.cookie.clone(), server.keys("*:session:*").await.remove(0));
            let whole_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            redis::cmd("PEXPIRE").arg(&key).arg(whole_ms - passed_ms).exec_async(&mut connection).await.unwrap();
            let hold = Hold::new();
            let late = tokio::spawn({
                let (app, old, path) = (replicas[0].clone(), old.clone(), format!("/slow-set/{hold}/name/eve"));
                async move { send(&app, Method::POST, &path, old.as_deref()).await }
            });
            hold.reached().await;
            visitor.post(&replicas[1], path).await.ok();
            hold.release();
            assert_eq!(late.await.unwrap().status, StatusCode::CONFLICT, "{path}, {passed_ms} ms");
            let is_alive: bool = redis::cmd("HEXISTS").arg(&key).arg("@rev").query_async(&mut connection).await.unwrap();
            let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            assert!(!is_alive && left_ms <= GRACE_MS, "{path}, {passed_ms} ms: there for {left_ms} ms");
            let shown = if path == "/logout" { "-" } else { "ada" };
            assert_eq!(visitor.get(&replicas[1], "/get/name").await.ok().body, shown, "{path}, {passed_ms} ms");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_logins_at_once_one_session_is_left() {
    each_backend(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        for round in 0..30 {
            let mut visitor = Visitor::default();
            visitor.post(&replicas[0], "/set/name/ada").await.ok();
            let old = visitor.cookie.clone();
            let login = async |app| send(app, Method::POST, &format!("/login/user{round}"), old.as_deref()).await;
            let (a, b) = tokio::join!(login(&replicas[0]), login(&replicas[1]));
            let cookies: Vec<_> = [&a, &b].iter().filter_map(|answer| answer.cookie()).collect();
            let conflicts = [&a, &b].iter().filter(|answer| answer.status == StatusCode::CONFLICT).count();
            assert_eq!((cookies.len(), conflicts), (1, 1), "round {round}: {a:?} {b:?}");
            let mut live = 0;
            for key in server.keys("*:session:*").await {
                let mut connection = server.connection().await;
                let alive: bool = redis::cmd("HEXISTS").arg(&key).arg("@rev").query_async(&mut connection).await.unwrap();
                live += usize::from(alive);
            }
            assert_eq!(live, 1, "round {round}");
            redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
        }
    })
    .await;
}

/// Without it, whoever has an old id goes on reading for the rest of its grace what the user has closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_new_id_closes_what_was_readable_under_the_old_ones() {
    each_backend(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/login/ada").await.ok();
        visitor.post(&replicas[1], "/cart/add/TEA/1").await.ok();
        let mut old = Vec::new();
        for app in replicas.iter().cycle().take(3) {
            old.push(visitor.cookie.clone().unwrap());
            visitor.post(app, "/cycle").await.ok();
        }
        for cookie in &old {
            for app in &replicas {
                assert_eq!(send(app, Method::GET, "/page", Some(cookie)).await.ok().body, "ada:1");
            }
        }
        visitor.post(&replicas[0], "/logout").await.ok();
        for cookie in &old {
            for app in &replicas {
                for (path, nothing) in [("/page", "-:0"), ("/get/user", "-"), ("/cart", "")] {
                    let late = send(app, Method::GET, path, Some(cookie)).await.ok();
                    assert_eq!((&*late.body, late.set_cookie()), (nothing, None), "{path}");
                }
                let late = send(app, Method::POST, "/set/name/eve", Some(cookie)).await;
                assert_eq!((late.status, late.set_cookie()), (StatusCode::CONFLICT, None));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn only_reads_within_the_grace_look_at_the_new_id() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let store = support::patient(meter.url()).connect().await.unwrap();
        let app = support::app::router().layer(session_store::SessionLayer::new(store));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let old = visitor.cookie.clone();
        visitor.post(&app, "/cycle").await.ok();
        meter.take();
        visitor.get(&app, "/get/name").await.ok();
        assert_eq!(meter.take(), 1);
        assert_eq!(send(&app, Method::GET, "/get/name", old.as_deref()).await.ok().body, "ada");
        assert_eq!(meter.take(), 2);
    })
    .await;
}
