//! The sessions of a user: listed without telling who they are, ended everywhere, and bounded.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use axum::{Extension, Router, body::Body, routing::post};
use http::{Method, Request, StatusCode, header};
use session_store::{CacheStore, Cart, Session, SessionLayer, UserSession, UserSessions};
use support::{Server, Visitor, each_backend, hold::Hold, replica_with, send, two_replicas_with};
use tower::ServiceExt as _;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

fn with_addresses(layer: SessionLayer) -> SessionLayer {
    layer.with_client_address(|headers, _| headers.get("x-forwarded-for")?.to_str().ok()?.parse().ok())
}

async fn two_replicas(server: &Server) -> [Router; 2] {
    [replica_with(server, with_addresses).await, replica_with(server, with_addresses).await]
}

/// Logs in on a device of its own.
async fn log_in(app: &Router, user: &str, user_agent: &str, address: &str) -> Visitor {
    let request = Request::post(format!("/login/{user}"))
        .header(header::USER_AGENT, user_agent)
        .header("x-forwarded-for", address)
        .body(Body::empty())
        .unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    Visitor { cookie: Some(cookie.split(';').next().unwrap().to_owned()) }
}

async fn sessions(server: &Server, user: &str) -> UserSessions {
    support::patient_store(server).await.sessions_of(user)
}

async fn devices(sessions: &UserSessions) -> Vec<String> {
    let mut devices: Vec<_> = sessions.list().await.unwrap().into_iter().map(|session| session.device).collect();
    devices.sort();
    devices
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_by_classes_and_without_ids() {
    each_backend(async |server| {
        let [a, b] = two_replicas(&server).await;
        let before = time::OffsetDateTime::now_utc() - time::Duration::seconds(60);
        let home = log_in(&a, "ada", FIREFOX, "203.0.113.77").await;
        log_in(&b, "ada", "curl/8.17.0", "2001:db8:12:3456::9").await;
        log_in(&b, "bob", FIREFOX, "198.51.100.1").await;
        let list = sessions(&server, "ada").await.list().await.unwrap();
        let mut shown: Vec<_> = list.iter().map(|session| (&*session.device, session.network.as_deref())).collect();
        shown.sort_unstable();
        assert_eq!(shown, [("Firefox on Linux", Some("203.0.113.0/24")), ("curl", Some("2001:db8:12::/48"))]);
        for UserSession { created_at, logged_in_at, last_seen_at, handle, .. } in &list {
            assert!(before < *created_at && created_at <= logged_in_at && logged_in_at <= last_seen_at);
            let id = home.cookie.as_deref().unwrap().split_once('=').unwrap().1;
            assert!(
                !id.contains(&handle.to_string()) && server.keys("*").await.iter().all(|key| !key.contains(&handle.to_string()))
            );
        }
        let shown = format!("{list:?}");
        for secret in ["203.0.113.77", "3456", home.cookie.as_deref().unwrap().split_once('=').unwrap().1] {
            assert!(!shown.contains(secret), "{secret}");
        }
        for fields in server.keys("*:session:*").await {
            let stored: Vec<String> =
                redis::cmd("HGETALL").arg(&fields).query_async(&mut server.connection().await).await.unwrap();
            assert!(!stored.iter().any(|value| value.contains("203.0.113.77") || value.contains("3456")), "{stored:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ended_is_ended_on_every_replica() {
    each_backend(async |server| {
        let replicas = two_replicas(&server).await;
        let sessions = sessions(&server, "ada").await;
        let mut visitors = Vec::new();
        for user_agent in ["curl/8", FIREFOX, "Safari/1 iPhone"] {
            let mut visitor = log_in(&replicas[0], "ada", user_agent, "203.0.113.1").await;
            for app in &replicas {
                assert_eq!(visitor.get(app, "/get/user").await.ok().body, "ada");
            }
            visitors.push(visitor);
        }
        let curl = sessions.list().await.unwrap().into_iter().find(|session| session.device == "curl").unwrap();
        // A request of it is under way.
        let hold = Hold::new();
        let slow = tokio::spawn({
            let (app, cookie, path) = (replicas[1].clone(), visitors[0].cookie.clone(), format!("/slow-set/{hold}/user/eve"));
            async move { send(&app, Method::POST, &path, cookie.as_deref()).await }
        });
        hold.reached().await;
        assert!(sessions.end(&curl.handle).await.unwrap());
        assert!(!sessions.end(&curl.handle).await.unwrap(), "it is gone");
        assert!(!sessions.end(&"made-up".parse().unwrap()).await.unwrap());
        hold.release();
        let late = slow.await.unwrap();
        assert_eq!((late.status, late.set_cookie()), (StatusCode::CONFLICT, None));
        for app in &replicas {
            assert_eq!(send(app, Method::GET, "/get/user", visitors[0].cookie.as_deref()).await.ok().body, "-");
            assert_eq!(send(app, Method::GET, "/get/user", visitors[1].cookie.as_deref()).await.ok().body, "ada");
        }
        assert_eq!(devices(&sessions).await, ["Firefox on Linux", "Safari on iPhone"]);

        let answer = visitors[1].post(&replicas[1], "/log-out-elsewhere/ada").await.ok();
        assert_eq!(answer.body, "1");
        assert_eq!(visitors[1].get(&replicas[0], "/get/user").await.ok().body, "ada");
        assert_eq!(visitors[2].get(&replicas[0], "/get/user").await.ok().body, "-");
        assert_eq!(devices(&sessions).await, ["Firefox on Linux"]);

        assert_eq!(sessions.end_all().await.unwrap(), 1);
        assert_eq!(visitors[1].get(&replicas[1], "/get/user").await.ok().body, "-");
        assert_eq!(devices(&sessions).await, [""; 0]);
        assert_eq!(server.keys("*:user-sessions:*").await, [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_follows_new_ids_logouts_and_other_users() {
    each_backend(async |server| {
        let [a, b] = two_replicas(&server).await;
        let (ada, bob) = (sessions(&server, "ada").await, sessions(&server, "bob").await);
        let mut visitor = log_in(&a, "ada", FIREFOX, "203.0.113.1").await;
        let first = ada.list().await.unwrap();
        visitor.post(&b, "/cycle").await.ok();
        let second = ada.list().await.unwrap();
        assert_eq!(second.len(), 1);
        assert_ne!(first[0].handle, second[0].handle);
        assert_eq!((first[0].logged_in_at, first[0].created_at), (second[0].logged_in_at, second[0].created_at));

        // Somebody else logs in with the same browser: what Ada ends is not theirs.
        visitor.post(&a, "/login-here/bob").await.ok();
        assert_eq!((ada.list().await.unwrap().len(), bob.list().await.unwrap().len()), (0, 1));
        assert_eq!(ada.end_all().await.unwrap(), 0);
        assert_eq!(visitor.get(&b, "/get/user").await.ok().body, "bob");

        // A logout on a replica that does not know whose session it is.
        visitor.post(&replica_with(&server, with_addresses).await, "/logout").await.ok();
        assert_eq!(bob.list().await.unwrap().len(), 0);
        assert_eq!(server.keys("*:user-sessions:*").await, [""; 0], "what ended unseen has left the list");
    })
    .await;
}

/// A session that gets new ids all the time cannot run away from "log out everywhere".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_gets_a_new_id_meanwhile_is_ended_too() {
    each_backend(async |server| {
        let [a, b] = two_replicas(&server).await;
        let sessions = sessions(&server, "ada").await;
        for _ in 0..10 {
            let mut visitor = log_in(&a, "ada", FIREFOX, "203.0.113.1").await;
            let runner = tokio::spawn({
                let b = b.clone();
                async move {
                    for _ in 0..3 {
                        visitor.post(&b, "/cycle").await;
                    }
                    visitor
                }
            });
            sessions.end_all().await.unwrap();
            let mut visitor = runner.await.unwrap();
            sessions.end_all().await.unwrap();
            assert_eq!(visitor.get(&a, "/get/user").await.ok().body, "-");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_bounded_and_ends_by_itself() {
    each_backend(async |server| {
        let few = |layer: SessionLayer| with_addresses(layer).with_user_sessions_max(3);
        let replicas = [replica_with(&server, few).await, replica_with(&server, few).await];
        let sessions = sessions(&server, "ada").await;
        let mut visitors = Vec::new();
        for i in 0..6 {
            visitors.push(log_in(&replicas[i % 2], "ada", FIREFOX, "203.0.113.1").await);
            assert!(sessions.list().await.unwrap().len() <= 3);
        }
        let mut alive = Vec::new();
        for visitor in &mut visitors {
            alive.push(visitor.get(&replicas[0], "/get/user").await.ok().body == "ada");
        }
        assert_eq!(alive, [false, false, false, true, true, true], "the oldest were ended");

        // Logouts that nobody told the list of do not cost the others their sessions.
        let elsewhere = replica_with(&server, few).await;
        for _ in 0..5 {
            let mut visitor = log_in(&replicas[0], "eve", FIREFOX, "203.0.113.1").await;
            visitor.post(&elsewhere, "/logout").await.ok();
        }
        let mut stays = log_in(&replicas[0], "eve", FIREFOX, "203.0.113.1").await;
        for _ in 0..2 {
            log_in(&replicas[1], "eve", FIREFOX, "203.0.113.1").await;
        }
        assert_eq!(stays.get(&replicas[1], "/get/user").await.ok().body, "eve");

        // Sessions that expire while nobody runs: the list ends with the last of them.
        for seconds in [1, 4, 16] {
            let idle = std::time::Duration::from_secs(seconds);
            let expiry = session_store::Expiry::OnInactivity(time::Duration::try_from(idle).unwrap());
            let app = replica_with(&server, |layer| few(layer).with_expiry(expiry)).await;
            let began = std::time::Instant::now();
            log_in(&app, "kim", FIREFOX, "203.0.113.1").await;
            let list = server.keys("*:user-sessions:*").await;
            let is_late = began.elapsed() >= idle;
            // The list believes in a session for a sixteenth longer.
            tokio::time::sleep(idle * 6 / 5).await;
            assert_eq!(server.keys("*:user-sessions:*").await.len(), 2);
            // On a busy machine it may have ended before it was looked for.
            if !is_late {
                assert_eq!(list.len(), 3);
                break;
            }
            assert!(seconds < 16, "it has ended before it could be seen");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_changed_without_a_pause_stays_on_the_list_and_keeps_its_cart() {
    each_backend(async |server| {
        // Each change extends the session, so that no touch is ever due.
        let seconds = |layer: SessionLayer| {
            layer
                .with_expiry(session_store::Expiry::OnInactivity(time::Duration::seconds(3)))
                .with_cart_ttl(time::Duration::seconds(3))
        };
        let app = two_replicas_with(&server, seconds).await;
        let mut visitor = log_in(&app, "ada", FIREFOX, "203.0.113.1").await;
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let began = std::time::Instant::now();
        for turn in 0.. {
            visitor.post(&app, &format!("/set/turn/{turn}")).await.ok();
            if began.elapsed() > std::time::Duration::from_secs(5) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        let sessions = sessions(&server, "ada").await;
        assert_eq!(sessions.list().await.unwrap().len(), 1);
        assert!(visitor.get(&app, "/cart").await.ok().body.contains("TEA"));
        sessions.end_all().await.unwrap();
        assert_ne!(visitor.get(&app, "/get/user").await.ok().body, "ada");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_session_carries_its_cart_and_its_entry_along() {
    each_backend(async |server| {
        let minute = |layer: SessionLayer| {
            layer
                .with_expiry(session_store::Expiry::OnInactivity(time::Duration::seconds(60)))
                .with_cart_ttl(time::Duration::seconds(90))
        };
        let app = two_replicas_with(&server, minute).await;
        let mut connection = server.connection().await;
        for (login, request) in [
            (false, (Method::GET, "/get/user")),
            (false, (Method::POST, "/set/a/b")),
            (true, (Method::GET, "/get/user")),
            (true, (Method::POST, "/set/a/b")),
        ] {
            let mut visitor = Visitor::default();
            visitor.post(&app, "/cart/add/TEA/1").await.ok();
            if login {
                visitor.post(&app, "/login/ada").await.ok();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            // As if 50 seconds had passed.
            for key in server.keys("*").await {
                redis::cmd("PEXPIRE").arg(&key).arg(10_000).exec_async(&mut connection).await.unwrap();
            }
            send(&app, request.0, request.1, visitor.cookie.as_deref()).await.ok();
            let mut longest = std::collections::HashMap::new();
            for key in server.keys("*").await {
                let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
                let kind = key.split(':').nth(1).unwrap().to_owned();
                let known: &mut i64 = longest.entry(kind).or_default();
                *known = left.max(*known);
            }
            assert!(longest["session"] > 50_000, "{longest:?}");
            assert!(longest["cart"] > 80_000, "{longest:?}");
            assert_eq!(longest.get("user-sessions").is_some_and(|left| *left > 50_000), login, "{longest:?}");
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_no_empty_list() {
    let store = CacheStore::builder("redis://127.0.0.1:1").connect_lazy().unwrap();
    store.sessions_of("ada").list().await.unwrap_err();
    store.sessions_of("ada").end_all().await.unwrap_err();
}

/// The handle of a visitor whose former session is over goes on showing its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_begun_with_a_stale_cookie_is_not_among_the_others() {
    let log_in = async |session: Session, cart: Cart, Extension(store): Extension<CacheStore>| {
        session.insert("user", "ada").await.unwrap();
        cart.log_in("ada").await.unwrap();
        session.save().await.unwrap();
        let ended = store.sessions_of("ada").end_all_but(&session).await.unwrap();
        format!("{ended} {}", store.sessions_of("ada").handle_of(&session).unwrap())
    };
    each_backend(async |server| {
        let store = support::patient_store(&server).await;
        let routes = support::app::router().route("/log-in-here-alone", post(log_in));
        let app = routes.layer(SessionLayer::new(store.clone())).layer(Extension(store));
        Visitor::default().post(&app, "/login/ada").await.ok();
        let mut visitor = Visitor { cookie: Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA".to_owned()) };
        let here = sessions(&server, "ada").await;
        let said = visitor.post(&app, "/log-in-here-alone").await.ok().body;
        let left: Vec<_> = here.list().await.unwrap().iter().map(|session| session.handle.to_string()).collect();
        assert_eq!((said, left.len()), (format!("1 {}", left.concat()), 1));
        assert_eq!(visitor.get(&app, "/get/user").await.ok().body, "ada");
    })
    .await;
}
