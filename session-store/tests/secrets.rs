//! What the store and the cookie reveal, and keys that change while the shop is open.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "secrets/cart_keys.rs"]
mod cart_keys;
#[path = "secrets/carts.rs"]
mod carts;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Router, extract::Path, routing::post};
use http::{Method, StatusCode};
use session_store::{CacheStoreBuilder, CookieKeys, EncryptionKeys, Key, Session, SessionExt as _, SessionLayer, Unavailable};
use support::{Server, Visitor, app, each_backend, hold::Hold, meter::Meter, send};
use tower_sessions::SessionStore as _;

const OLD: [u8; 32] = *b"32 bytes that were there before.";
const NEW: [u8; 32] = *b"32 bytes that are new this month";

fn router() -> Router {
    let count = async |session: Session, Path(key): Path<String>| -> Result<String, Unavailable> {
        Ok(session.update(&Key::<u64>::named(key), |count| count.unwrap_or(0) + 1).await?.to_string())
    };
    app::router().route("/count/{key}", post(count))
}

fn builder(url: &str) -> CacheStoreBuilder {
    support::patient(url)
}

async fn replica(
    server: &Server,
    store: impl FnOnce(CacheStoreBuilder) -> CacheStoreBuilder,
    layer: impl FnOnce(SessionLayer) -> SessionLayer,
) -> Router {
    router().layer(layer(SessionLayer::new(store(builder(&server.url())).connect().await.unwrap())))
}

fn encrypted(builder: CacheStoreBuilder) -> CacheStoreBuilder {
    builder.key(OLD).encryption(EncryptionKeys::new(OLD))
}

/// Everything that is in the store: names, fields, values.
async fn dump(server: &Server) -> Vec<u8> {
    let mut connection = server.connection().await;
    let mut dump = Vec::new();
    for key in server.keys("*").await {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
        let parts: Vec<Vec<u8>> = match &*kind {
            "hash" => redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap(),
            "string" => {
                let value: Option<Vec<u8>> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                value.into_iter().collect()
            }
            "set" => redis::cmd("SMEMBERS").arg(&key).query_async(&mut connection).await.unwrap(),
            "zset" => redis::cmd("ZRANGE").arg(&key).arg(&["0", "-1"]).query_async(&mut connection).await.unwrap(),
            // Its time was over meanwhile.
            "none" => Vec::new(),
            other => panic!("{key} is a {other}"),
        };
        dump.extend(key.into_bytes());
        for part in parts {
            dump.push(b'\n');
            dump.extend(part);
        }
        dump.push(b'\n');
    }
    dump
}

fn holds(dump: &[u8], what: &str) -> bool {
    dump.windows(what.len()).any(|window| window == what.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_the_store_holds_no_id_and_no_value() {
    each_backend(async |server| {
        let app = replica(&server, encrypted, |layer| layer).await;
        let mut visitor = Visitor::default();
        let (mut secrets, mut ids) = (Vec::new(), 0);
        for path in ["/set/name/ada-lovelace", "/login/user-4711", "/cycle", "/set/note/analytical-engine", "/count/visits"] {
            visitor.post(&app, path).await.ok();
            secrets.push(visitor.cookie.clone().unwrap().split_once('=').unwrap().1.to_owned());
        }
        secrets.extend(["ada-lovelace", "user-4711", "analytical-engine"].map(str::to_owned));
        let dump = dump(&server).await;
        let holds_bytes = |bytes: &[u8]| dump.windows(bytes.len()).any(|window| window == bytes);
        for secret in secrets {
            assert!(!holds(&dump, &secret), "{secret}");
            // An id in another form would do as well.
            if let Ok(id) = secret.parse::<tower_sessions::session::Id>() {
                let hex = format!("{:032x}", id.0);
                assert!(
                    !holds(&dump, &hex) && !holds(&dump, &hex.to_uppercase()) && !holds(&dump, &id.0.to_string()),
                    "{secret}"
                );
                assert!(!holds_bytes(&id.0.to_le_bytes()) && !holds_bytes(&id.0.to_be_bytes()), "{secret}");
                ids += 1;
            }
        }
        assert_eq!(ids, 5);
        assert!(holds(&dump, "\nnote\n"), "the dump is of what was written");
        assert_eq!(visitor.get(&app, "/get/note").await.ok().body, "analytical-engine");
        assert_eq!(visitor.get(&app, "/get/user").await.ok().body, "user-4711");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_updates_and_new_ids_work_on_encrypted_values() {
    each_backend(async |server| {
        let replicas = [replica(&server, encrypted, |layer| layer).await, replica(&server, encrypted, |layer| layer).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/start/now").await.ok();
        for round in 0..3 {
            let mut requests = tokio::task::JoinSet::new();
            for i in 0..40 {
                let (app, cookie) = (replicas[i % 2].clone(), visitor.cookie.clone());
                let path = match i % 4 {
                    0 | 1 => "/count/visits".to_owned(),
                    _ => format!("/slow-set/20/key{i}/value{round}"),
                };
                requests.spawn(async move { send(&app, Method::POST, &path, cookie.as_deref()).await.ok() });
            }
            requests.join_all().await;
            for i in (0..40).filter(|i| i % 4 > 1) {
                assert_eq!(visitor.get(&replicas[1], &format!("/get/key{i}")).await.ok().body, format!("value{round}"));
            }
            visitor.post(&replicas[0], "/cycle").await.ok();
        }
        assert_eq!(visitor.post(&replicas[1], "/count/visits").await.ok().body, "61");
        assert_eq!(visitor.get(&replicas[1], "/get/start").await.ok().body, "now");

        // What has not changed is not written.
        server.reset_commands().await;
        visitor.post(&replicas[0], "/set/start/now").await.ok();
        assert!(!server.commands().await.iter().any(|(name, _)| name.starts_with("eval")), "{:?}", server.commands().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_moved_or_forged_is_not_believed() {
    each_backend(async |server| {
        let store = encrypted(builder(&server.url()));
        let store = store.encryption(EncryptionKeys::new(OLD).only_encrypted()).connect().await.unwrap();
        let app: Router = router().layer(SessionLayer::new(store.clone()));
        let mut connection = server.connection().await;
        for forgery in ["another field", "another session", "another whole session", "plain"] {
            let mut admin = Visitor::default();
            admin.post(&app, "/set/role/admin").await.ok();
            admin.post(&app, "/cycle").await.ok();
            let theirs = server.keys("*:session:*").await;
            let mut eve = Visitor::default();
            eve.post(&app, "/set/role/guest").await.ok();
            eve.post(&app, "/set/note/admin").await.ok();
            let own = server.keys("*:session:*").await.into_iter().find(|key| !theirs.contains(key)).unwrap();
            // The note is gone with the rest of a session that was put in quarantine.
            let rounds = if forgery == "another field" { 1 } else { theirs.len() };
            for from in &theirs[..rounds] {
                let source = if forgery == "another field" { (&own, "note") } else { (from, "role") };
                let value: Option<Vec<u8>> =
                    redis::cmd("HGET").arg(source.0).arg(source.1).query_async(&mut connection).await.unwrap();
                let value = if forgery == "plain" { Some(b"\"admin\"".to_vec()) } else { value };
                if forgery == "another whole session" {
                    redis::cmd("COPY").arg(from).arg(&own).arg("REPLACE").exec_async(&mut connection).await.unwrap();
                } else {
                    redis::cmd("HSET").arg(&own).arg("role").arg(value.unwrap()).exec_async(&mut connection).await.unwrap();
                }
                assert_ne!(eve.get(&app, "/get/role").await.body, "admin", "{forgery}");
                assert_ne!(eve.get(&app, "/get/role").await.body, "admin", "{forgery}");
            }
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        }
        assert!(store.quarantined() > 0);
    })
    .await;
}

/// A replica that has not got the key is an error, and puts nothing away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_the_key_spoils_nothing() {
    each_backend(async |server| {
        let app = replica(&server, encrypted, |layer| layer).await;
        let without = replica(&server, |builder| builder.key(OLD), |layer| layer).await;
        let other = replica(&server, |builder| builder.key(OLD).encryption(EncryptionKeys::new(NEW)), |layer| layer).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        for app in [&without, &other] {
            let answer = send(app, Method::GET, "/get/name", visitor.cookie.as_deref()).await;
            assert_eq!((answer.status, answer.set_cookie()), (StatusCode::BAD_GATEWAY, None), "{}", answer.body);
        }
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_keys_change_under_load_and_nobody_is_logged_out() {
    each_backend(async |server| {
        let with = async |keys: [(&[u8; 32], &[u8; 32]); 3]| {
            let [(key, former), (encryption, read), (cookie, accepted)] = keys;
            let store = |builder: CacheStoreBuilder| {
                builder.key(*key).former_key(*former).user_key(OLD).encryption(EncryptionKeys::new(*encryption).and_read(*read))
            };
            replica(&server, store, |layer| layer.with_signed_cookie(CookieKeys::new(cookie).and_accept(accepted))).await
        };
        let before = || replica(&server, encrypted, |layer| layer.with_signed_cookie(CookieKeys::new(&OLD)));
        let prepared = with([(&OLD, &NEW); 3]).await;
        let changed = with([(&NEW, &OLD); 3]).await;
        // At each stage of the roll-out some replicas are one stage behind.
        let stages = [
            [before().await, before().await],
            [before().await, prepared.clone()],
            [prepared.clone(), prepared.clone()],
            [prepared, changed.clone()],
            [changed.clone(), changed],
        ];
        let stage = AtomicUsize::new(0);
        let shoppers = (0..8).map(async |number: usize| {
            let mut visitor = Visitor::default();
            let user = format!("user{number}");
            visitor.post(&stages[0][0], &format!("/login/{user}")).await.ok();
            let mut sum = 0;
            let mut rounds = 0;
            while stage.load(Ordering::SeqCst) < stages.len() {
                let app = &stages[stage.load(Ordering::SeqCst).min(stages.len() - 1)][rounds % 2];
                assert_eq!(visitor.get(app, "/get/user").await.ok().body, user);
                sum += 1;
                assert_eq!(visitor.post(app, "/count/n").await.ok().body, sum.to_string());
                // A line holds 99.
                if rounds < 90 {
                    visitor.post(app, "/cart/add/TEA/1").await.ok();
                }
                if rounds % 7 == 6 && number < 4 {
                    visitor.post(app, "/cycle").await.ok();
                }
                rounds += 1;
                tokio::task::yield_now().await;
            }
            let last = &stages[stages.len() - 1][0];
            assert_eq!(visitor.get(last, "/cart").await.ok().body, format!("TEA={}", rounds.min(90)));
            visitor.post(last, "/logout").await.ok();
            assert_eq!(visitor.get(last, "/get/user").await.ok().body, "-");
        });
        let roll_out = async {
            for next in 1..=stages.len() {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                stage.store(next, Ordering::SeqCst);
            }
        };
        tokio::join!(futures_util::future::join_all(shoppers), roll_out);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_key_costs_a_round_trip_once_and_a_logout_is_found_everywhere() {
    each_backend(async |server| {
        let before = replica(&server, |builder| builder.key(OLD), |layer| layer).await;
        for (method, path) in [
            (Method::GET, "/get/name"),
            (Method::POST, "/set/name/bob"),
            (Method::POST, "/cart/add/TEA/1"),
            (Method::POST, "/cycle"),
            (Method::POST, "/logout"),
        ] {
            let meter = Meter::before(server.port).await;
            let store = builder(meter.url()).key(NEW).former_key(OLD).connect().await.unwrap();
            let app = router().layer(SessionLayer::new(store.clone()));
            let mut fresh = Visitor::default();
            fresh.post(&app, "/set/name/eve").await.ok();
            meter.take();
            fresh.get(&app, "/get/name").await.ok();
            assert_eq!(meter.take(), 1, "what is under the new key costs nothing more");

            let mut visitor = Visitor::default();
            visitor.post(&before, "/set/name/ada").await.ok();
            let old = visitor.cookie.clone();
            visitor.post(&before, "/cart/add/CUP/1").await.ok();
            let first = if method == Method::GET { visitor.get(&app, path).await } else { visitor.post(&app, path).await };
            first.ok();
            if path == "/logout" {
                for app in [&app, &before] {
                    assert_eq!(send(app, Method::GET, "/page", old.as_deref()).await.ok().body, "-:0");
                }
            } else {
                let count = if path.starts_with("/cart") { 2 } else { 1 };
                assert_eq!(visitor.get(&app, "/page").await.ok().body, format!("-:{count}"), "{path}");
                meter.take();
                let name = visitor.get(&app, "/get/name").await.ok();
                assert_eq!(name.body, if path.starts_with("/set") { "bob" } else { "ada" });
                assert_eq!(meter.take(), 1, "{path}: the second time it is remembered");
            }
        }

        // The same without the layer.
        let old = builder(&server.url()).key(OLD).connect().await.unwrap();
        let new = builder(&server.url()).key(NEW).former_key(OLD).connect().await.unwrap();
        let mut record = tower_sessions::session::Record {
            id: tower_sessions::session::Id(1),
            data: [("a".to_owned(), serde_json::json!(1))].into(),
            expiry_date: time::OffsetDateTime::now_utc() + time::Duration::hours(1),
        };
        old.create(&mut record).await.unwrap();
        record.data.insert("b".to_owned(), serde_json::json!(2));
        new.save(&record).await.unwrap();
        assert_eq!(new.load(&record.id).await.unwrap().unwrap().data, record.data);
        new.delete(&record.id).await.unwrap();
        assert_eq!(old.load(&record.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_under_a_former_key_is_renewed_and_a_forged_one_never_reaches_the_store() {
    each_backend(async |server| {
        let plain = replica(&server, |builder| builder, |layer| layer).await;
        for protect in [SessionLayer::with_signed_cookie, SessionLayer::with_encrypted_cookie] {
            let layer = |keys: CookieKeys| replica(&server, |builder| builder, move |layer| protect(layer, keys));
            let lenient = layer(CookieKeys::new(&OLD).and_accept_plain()).await;
            let old = layer(CookieKeys::new(&OLD)).await;
            let new = layer(CookieKeys::new(&NEW).and_accept(&OLD)).await;
            let mut visitor = Visitor::default();
            visitor.post(&plain, "/set/name/ada").await.ok();
            let id = visitor.cookie.clone().unwrap().split_once('=').unwrap().1.to_owned();
            let mut seen = Vec::new();
            for app in [&lenient, &new] {
                let answer = visitor.get(app, "/get/name").await.ok();
                assert_eq!(answer.body, "ada");
                assert!(answer.set_cookie().unwrap().contains("Max-Age=1209"), "{answer:?}");
                assert_eq!(visitor.get(app, "/get/name").await.ok().set_cookie(), None, "once");
                seen.push(visitor.cookie.clone().unwrap());
            }
            assert_ne!(seen[0], seen[1]);
            assert_eq!(send(&old, Method::GET, "/get/name", Some(&seen[0])).await.body, "ada");
            server.reset_commands().await;
            let mut forged = seen[1].clone();
            forged.pop();
            for cookie in [&seen[1], &format!("__Host-id={id}"), &forged] {
                assert_eq!(send(&old, Method::GET, "/get/name", Some(cookie)).await.ok().body, "-");
            }
            assert_eq!(server.commands().await, []);
        }
    })
    .await;
}

/// The renewed cookie could land after the one of the id that followed, or after its removal at the logout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_is_not_renewed_for_a_session_that_ended_meanwhile() {
    each_backend(async |server| {
        let layer = |keys: CookieKeys| replica(&server, |builder| builder, move |layer| layer.with_signed_cookie(keys));
        let old = layer(CookieKeys::new(&OLD)).await;
        let new = layer(CookieKeys::new(&NEW).and_accept(&OLD)).await;
        for path in ["/logout", "/cycle"] {
            let mut visitor = Visitor::default();
            visitor.post(&old, "/set/name/ada").await.ok();
            let hold = Hold::new();
            let slow = tokio::spawn({
                let (app, cookie, path) = (new.clone(), visitor.cookie.clone(), format!("/slow-get/{hold}/name"));
                async move { send(&app, Method::GET, &path, cookie.as_deref()).await.ok() }
            });
            hold.reached().await;
            visitor.post(&old, path).await.ok();
            hold.release();
            let late = slow.await.unwrap();
            assert_eq!((&*late.body, late.set_cookie()), ("ada", None), "{path}");
        }
    })
    .await;
}
