//! Old and new versions side by side, records of other software, and records that nobody can read.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::collections::HashMap;

use axum::{Router, routing::get};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use session_store::{CacheStore, SessionLayer};
use support::{
    Server, Visitor, app, balanced, each_backend, hold::Hold, meter::Meter, patient_store, replica, replica_with, send,
    their_store::their_store,
};
use tower_sessions_014 as theirs;

type Data = HashMap<String, Value>;

/// Version 1: one field in place of two.
fn whole_name(data: &mut Data) {
    if let (Some(first), Some(last)) = (data.remove("first"), data.remove("last")) {
        data.insert("name".to_owned(), json!(format!("{} {}", first.as_str().unwrap(), last.as_str().unwrap())));
    }
}

/// Version 2: another name. What a replica of version 1 has written since is the more recent value.
fn rename(data: &mut Data) {
    if let Some(name) = data.remove("name") {
        data.insert("full_name".to_owned(), name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_once_and_in_order() {
    each_backend(async |server| {
        let old = replica(&server).await;
        let new = replica_with(&server, |layer| layer.with_migration(whole_name).with_migration(rename)).await;
        let mut visitor = Visitor::default();
        visitor.post(&old, "/set/first/Ada").await.ok();
        visitor.post(&old, "/set/last/Byron").await.ok();
        visitor.post(&old, "/cart/add/TEA/1").await.ok();
        let cookie = visitor.cookie.clone();
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (app, cookie) = (new.clone(), cookie.clone());
            reads.spawn(async move { send(&app, Method::GET, "/get/full_name", cookie.as_deref()).await });
        }
        for answer in reads.join_all().await {
            assert_eq!(answer.ok().body, "Ada Byron");
        }
        let key = server.keys("*:session:*").await.remove(0);
        let mut connection = server.connection().await;
        let stored: HashMap<String, String> = redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap();
        assert_eq!((&*stored["@d"], &*stored["full_name"], &*stored["@rev"]), ("2", "\"Ada Byron\"", "3"), "{stored:?}");
        assert!(!stored.contains_key("first") && !stored.contains_key("name"));
        assert_eq!(visitor.get(&new, "/cart").await.ok().body, "TEA=1");

        // A new session is of the version of its replica from the start, whichever way it begins.
        for path in ["/set/first/Eve", "/cart/add/TEA/1"] {
            let mut visitor = Visitor::default();
            visitor.post(&new, path).await.ok();
            visitor.post(&new, "/set/last/Adams").await.ok();
            assert_eq!(visitor.get(&new, "/get/last").await.ok().body, "Adams");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_new_replicas_alternate_on_one_session() {
    each_backend(async |server| {
        let old = replica_with(&server, |layer| layer.with_migration(whole_name)).await;
        let new = replica_with(&server, |layer| layer.with_migration(whole_name).with_migration(rename)).await;
        let mut visitor = Visitor::default();
        visitor.post(&old, "/set/name/Ada").await.ok();
        for round in 0..5 {
            // What each of them writes, the other one keeps.
            visitor.post(&new, &format!("/set/new{round}/kept")).await.ok();
            visitor.post(&old, &format!("/set/old{round}/kept")).await.ok();
            visitor.post(&old, &format!("/set/name/Ada{round}")).await.ok();
            assert_eq!(visitor.get(&old, "/get/name").await.ok().body, format!("Ada{round}"));
            assert_eq!(visitor.get(&new, "/get/full_name").await.ok().body, format!("Ada{round}"));
            for key in ["new", "old"] {
                for app in [&old, &new] {
                    assert_eq!(visitor.get(app, &format!("/get/{key}{round}")).await.ok().body, "kept");
                }
            }
            visitor.post(if round % 2 == 0 { &old } else { &new }, "/cycle").await.ok();
        }
    })
    .await;
}

/// A migration that is written while others change what it makes would undo their change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_time_of_the_migration_are_kept() {
    each_backend(async |server| {
        let old = replica(&server).await;
        let layer = |layer: SessionLayer| layer.with_migration(whole_name).with_migration(rename);
        let new = [replica_with(&server, layer).await, replica_with(&server, layer).await];
        for round in 0..10 {
            let mut visitor = Visitor::default();
            visitor.post(&old, "/set/name/before").await.ok();
            let mut requests = tokio::task::JoinSet::new();
            for i in 0..8 {
                let (app, cookie) = (new[i % 2].clone(), visitor.cookie.clone());
                let path = if i == 0 { "/set/full_name/after".to_owned() } else { format!("/slow-set/{i}/key{i}/value") };
                requests.spawn(async move { send(&app, Method::POST, &path, cookie.as_deref()).await.ok() });
            }
            requests.join_all().await;
            assert_eq!(visitor.get(&new[0], "/get/full_name").await.ok().body, "after", "round {round}");
            for i in 1..8 {
                assert_eq!(visitor.get(&new[1], &format!("/get/key{i}")).await.ok().body, "value");
            }
        }
    })
    .await;
}

/// Its cookie could land after the one of the id that followed, or after its removal at the logout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_migrates_a_session_sends_no_cookie_of_one_that_ended_meanwhile() {
    each_backend(async |server| {
        let old = replica(&server).await;
        let new = replica_with(&server, |layer| layer.with_migration(rename)).await;
        let mut connection = server.connection().await;
        for (path, touch_is_due) in [("/logout", false), ("/cycle", false), ("/logout", true)] {
            let mut visitor = Visitor::default();
            visitor.post(&old, "/set/name/Ada").await.ok();
            let key = server.keys("*:session:*").await.remove(0);
            if touch_is_due {
                redis::cmd("EXPIRE").arg(&key).arg(600_000).exec_async(&mut connection).await.unwrap();
            }
            let hold = Hold::new();
            let slow = tokio::spawn({
                let (app, cookie, path) = (new.clone(), visitor.cookie.clone(), format!("/slow-get/{hold}/full_name"));
                async move { send(&app, Method::GET, &path, cookie.as_deref()).await.ok() }
            });
            hold.reached().await;
            let is_migrated: bool = redis::cmd("HEXISTS").arg(&key).arg("@d").query_async(&mut connection).await.unwrap();
            assert!(is_migrated, "{path}");
            visitor.post(&old, path).await.ok();
            hold.release();
            let late = slow.await.unwrap();
            assert_eq!((&*late.body, late.set_cookie()), ("Ada", None), "{path}");
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_migrated_session_costs_nothing_more() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let store = support::patient(meter.url()).connect().await.unwrap();
        let old = app::router().layer(SessionLayer::new(store.clone()));
        let new = app::router().layer(SessionLayer::new(store).with_migration(whole_name));
        // The store knows the scripts from then on.
        let mut earlier = Visitor::default();
        earlier.post(&old, "/set/name/ada").await.ok();
        earlier.get(&new, "/get/name").await.ok();
        let mut visitor = Visitor::default();
        visitor.post(&old, "/set/name/bob").await.ok();
        for round_trips in [2, 1, 1] {
            meter.take();
            visitor.get(&new, "/get/name").await.ok();
            assert_eq!(meter.take(), round_trips);
        }
    })
    .await;
}

async fn spoil(server: &Server, how: &[&str]) -> String {
    let key = server.keys("*:session:*").await.remove(0);
    let mut connection = server.connection().await;
    if let [field, value] = how {
        redis::cmd("HSET").arg(&[&*key, field, value]).exec_async(&mut connection).await.unwrap();
    } else {
        redis::cmd("SET").arg(&*key).arg("a string").exec_async(&mut connection).await.unwrap();
    }
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_record_is_put_in_quarantine_and_the_visitor_gets_a_clean_session_once() {
    each_backend(async |server| {
        let stores = [patient_store(&server).await, patient_store(&server).await];
        let app = balanced(stores.clone().map(|store| app::router().layer(SessionLayer::new(store))));
        let mut connection = server.connection().await;
        let mut count = 0;
        for how in [&["name", "{not json"][..], &["@expiry", "?"], &["@rev", "many"], &["@v", "one"], &[]] {
            for (method, path) in [(Method::GET, "/get/name"), (Method::POST, "/set/other/new"), (Method::GET, "/page")] {
                let mut visitor = Visitor::default();
                visitor.post(&app, "/set/name/ada").await.ok();
                visitor.post(&app, "/cart/add/TEA/2").await.ok();
                let before = visitor.cookie.clone();
                let key = spoil(&server, how).await;
                let mut requests = tokio::task::JoinSet::new();
                for _ in 0..4 {
                    let (app, cookie, method) = (app.clone(), visitor.cookie.clone(), method.clone());
                    requests.spawn(async move { send(&app, method, path, cookie.as_deref()).await.ok() });
                }
                for answer in requests.join_all().await {
                    assert!(!answer.removes_cookie(), "{how:?} {path}");
                }
                count += 1;
                let quarantined: u64 = stores.iter().map(CacheStore::quarantined).sum();
                assert_eq!(quarantined, count, "{how:?} {path}: once for all requests of both replicas");
                let aside = server.keys("*:quarantine:*").await;
                assert_eq!(aside.len(), 1, "{how:?} {path}");
                let ttl: i64 = redis::cmd("TTL").arg(&aside[0]).query_async(&mut connection).await.unwrap();
                assert!((604_000..=604_800).contains(&ttl), "{ttl}");
                // The session is empty, and works; the cart is still there.
                assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "-");
                visitor.post(&app, "/set/name/bob").await.ok();
                assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "bob");
                assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=2");
                assert_eq!(visitor.cookie, before);
                assert_eq!(server.keys("*:session:*").await, [key]);
                redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            }
        }
    })
    .await;
}

/// While a later version is being rolled out, a replica of this one must not put its records away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_later_layout_is_an_error_and_stays() {
    each_backend(async |server| {
        let store = patient_store(&server).await;
        let app: Router = app::router().layer(SessionLayer::new(store.clone()));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let key = spoil(&server, &["@v", "99"]).await;
        spoil(&server, &["@expiry", "in another form"]).await;
        for (method, path) in [(Method::GET, "/get/name"), (Method::POST, "/set/name/eve")] {
            let answer = send(&app, method, path, visitor.cookie.as_deref()).await;
            assert_eq!((answer.status, answer.set_cookie()), (StatusCode::BAD_GATEWAY, None));
            assert!(answer.body.contains("update this process"), "{}", answer.body);
        }
        let kept: String = redis::cmd("HGET").arg(&[&*key, "name"]).query_async(&mut server.connection().await).await.unwrap();
        assert_eq!((&*kept, store.quarantined()), ("\"ada\"", 0));
    })
    .await;
}

/// An application on the published store and layer.
async fn their_app(server: &Server) -> Router {
    let session = async |session: theirs::Session| {
        let visits = session.get::<u32>("visits").await.unwrap().unwrap_or(0) + 1;
        session.insert("visits", visits).await.unwrap();
        session.insert("name", json!({"first": "Ada", "years": [1815, 1852]})).await.unwrap();
        session.insert("@odd", "kept").await.unwrap();
        visits.to_string()
    };
    Router::new().route("/", get(session)).layer(theirs::SessionManagerLayer::new(their_store(server).await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_tower_sessions_redis_store_are_taken_over() {
    each_backend(async |server| {
        let theirs = their_app(&server).await;
        let layer = |layer: SessionLayer| layer.with_tower_sessions_records("", "id");
        let ours = [replica_with(&server, layer).await, replica_with(&server, layer).await];
        for (method, path) in [
            (Method::GET, "/get/@odd"),
            (Method::POST, "/set/visits/three"),
            (Method::POST, "/cart/add/TEA/1"),
            (Method::POST, "/cycle"),
            (Method::GET, "/page"),
        ] {
            let mut visitor = Visitor::default();
            visitor.get(&theirs, "/").await.ok();
            assert_eq!(visitor.get(&theirs, "/").await.ok().body, "2");
            let their_cookie = visitor.cookie.clone().unwrap();
            assert!(their_cookie.starts_with("id="));
            let answer = send(&ours[0], method.clone(), path, Some(&their_cookie)).await.ok();
            let cookie = answer.cookie().unwrap();
            assert!(cookie.starts_with("__Host-id="), "{path}: the visitor gets our cookie");
            assert_eq!(cookie.ends_with(&their_cookie), path != "/cycle", "{path}: for the id that there was");
            let mut visitor = Visitor { cookie: Some(cookie) };
            assert_eq!(visitor.get(&ours[1], "/get/@odd").await.ok().body, "kept", "{path}");
            assert_eq!(
                server.keys("*").await.iter().filter(|key| !key.contains(':')).count(),
                0,
                "{path}: the old record is gone"
            );
            // Whoever still has the old cookie has the session, and after a logout nobody has.
            visitor.post(&ours[0], "/logout").await.ok();
            let late = send(&ours[1], Method::GET, "/get/@odd", Some(&their_cookie)).await.ok();
            assert_eq!(late.body, "-", "{path}");
        }

        // A logout is what happens first: nothing is left to come back.
        let mut visitor = Visitor::default();
        visitor.get(&theirs, "/").await.ok();
        visitor.post(&ours[0], "/logout").await.ok();
        assert_eq!(server.keys("*").await.iter().filter(|key| !key.contains(':')).count(), 0);

        // Eight requests at once take it over once, and an id that nobody gave out is not adopted.
        let mut visitor = Visitor::default();
        visitor.get(&theirs, "/").await.ok();
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..8 {
            let (app, cookie) = (ours[i % 2].clone(), visitor.cookie.clone());
            requests.spawn(async move { send(&app, Method::POST, &format!("/set/k{i}/v"), cookie.as_deref()).await.ok() });
        }
        requests.join_all().await;
        for i in 0..8 {
            assert_eq!(send(&ours[0], Method::GET, &format!("/get/k{i}"), visitor.cookie.as_deref()).await.body, "v");
        }
        let chosen = "id=AAAAAAAAAAAAAAAAAAAAAA";
        let answer = send(&ours[0], Method::POST, "/set/name/eve", Some(chosen)).await.ok();
        assert!(!answer.cookie().unwrap().ends_with(chosen));
    })
    .await;
}

/// The version before leaves the tokens of a session under the id that it has given up, by which a change knows that nothing is other than it has read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_behind_a_new_id_by_the_version_before_is_refused() {
    const GIVEN_UP: &str = "
        redis.call('HDEL', KEYS[1], '@rev')
        redis.call('HSET', KEYS[1], '@ended', 'AAAAAAAAAAAAAAAAAAAAAA')
        return redis.call('PEXPIRE', KEYS[1], 10000)";
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut connection = server.connection().await;
        for (passed_ms, key) in [(0, "name"), (0, "other"), (1_200_000, "name"), (1_200_000, "other")] {
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            visitor.post(&app, "/set/name/ada").await.ok();
            let session = server.keys("*:session:*").await.remove(0);
            let whole_ms: i64 = redis::cmd("PTTL").arg(&session).query_async(&mut connection).await.unwrap();
            redis::cmd("PEXPIRE").arg(&session).arg(whole_ms - passed_ms).exec_async(&mut connection).await.unwrap();
            let hold = Hold::new();
            let late = tokio::spawn({
                let (app, mut visitor, path) = (app.clone(), visitor.clone(), format!("/slow-set/{hold}/{key}/eve"));
                async move { visitor.post(&app, &path).await }
            });
            hold.reached().await;
            redis::cmd("EVAL").arg(GIVEN_UP).arg(1).arg(&session).exec_async(&mut connection).await.unwrap();
            hold.release();
            assert_eq!(late.await.unwrap().status, StatusCode::CONFLICT, "{key}, {passed_ms} ms");
            let is_alive: bool = redis::cmd("HEXISTS").arg(&session).arg("@rev").query_async(&mut connection).await.unwrap();
            let left_ms: i64 = redis::cmd("PTTL").arg(&session).query_async(&mut connection).await.unwrap();
            assert!(!is_alive && left_ms <= 10_000, "{key}, {passed_ms} ms: there for {left_ms} ms");
        }
    })
    .await;
}
