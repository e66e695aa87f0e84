//! The session's life: cookie, fixation, rotation, logout, concurrent changes.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::Body,
    extract::Path,
    routing::{get, post},
};
use http::{Method, Request, StatusCode, header};
use session_store::{Cart, CartError, Flash, Key, Session, SessionExt as _, SessionLayer, StoreError, Unavailable};
use support::{Server, Visitor, each_backend, hold::Hold, replica, send, two_replicas, two_replicas_with};
use tower::ServiceExt as _;
use tower_sessions_014::Session as Other;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cookie_has_all_attributes_and_nobody_gets_one_for_nothing() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        for path in ["/plain", "/extract", "/get/name", "/cart", "/page"] {
            let answer = visitor.get(&app, path).await.ok();
            assert_eq!(answer.set_cookie(), None, "{path}");
        }
        assert_eq!(visitor.post(&app, "/remove/name").await.ok().set_cookie(), None);
        assert_eq!(server.keys("*").await, [""; 0]);

        let answer = visitor.post(&app, "/set/name/ada").await.ok();
        let cookie = answer.set_cookie().unwrap();
        assert!(cookie.starts_with("__Host-id="), "{cookie}");
        for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=1209600"] {
            assert!(cookie.split("; ").any(|part| part == attribute), "{attribute} in {cookie}");
        }
        assert_eq!(answer.headers[header::CACHE_CONTROL], "private");
        assert_eq!(answer.headers[header::VARY], "Cookie");

        assert_eq!(visitor.get(&replica(&server).await, "/get/name").await.ok().body, "ada");
        let keys = server.keys("*").await;
        assert_eq!(keys.len(), 1);
        let id = visitor.cookie.unwrap().split_once('=').unwrap().1.to_owned();
        assert!(!keys[0].contains(&id), "the id is not in the key");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_chosen_by_the_client_is_never_adopted() {
    each_backend(async |server| {
        let app = two_replicas(&server).await;
        for path in ["/set/name/ada", "/cart/add/TEA/1"] {
            let chosen = "__Host-id=AAAAAAAAAAAAAAAAAAAAAA";
            let mut visitor = Visitor { cookie: Some(chosen.to_owned()) };
            visitor.post(&app, path).await.ok();
            assert_ne!(visitor.cookie.as_deref().unwrap(), chosen, "{path}");
            let answer = send(&app, Method::GET, "/page", Some(chosen)).await.ok();
            assert_eq!(answer.body, "-:0");
            assert!(answer.removes_cookie());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_inserted_after_a_flush_belongs_to_a_new_id() {
    each_backend(async |server| {
        let app = two_replicas(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/secret/old").await.ok();
        let old = visitor.cookie.clone().unwrap();
        visitor.post(&app, "/relogin/eve").await.ok();
        assert_ne!(visitor.cookie.as_deref().unwrap(), old);
        assert_eq!(visitor.get(&app, "/get/user").await.body, "eve");
        assert_eq!(visitor.get(&app, "/get/secret").await.body, "-");
        let answer = send(&app, Method::GET, "/get/user", Some(&old)).await;
        assert_eq!(answer.body, "-");
    })
    .await;
}

/// What the handle still shows after `delete` is of a session that is over, whatever brings a new one about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_deleted_session_is_in_the_next_one() {
    const COUNT: Key<u32> = Key::new("count");
    let delete_and = async |session: Session, cart: Cart, flash: Flash, Path(step): Path<String>| {
        match step.split_once(',') {
            Some(("unread", _)) => {}
            Some(("read", _)) => drop(session.get::<String>("user").await?),
            _ => session.insert("seen", "now").await?,
        }
        session.delete().await?;
        for step in step.split(',') {
            match step {
                "unread" | "read" => {}
                "save" => session.save().await?,
                "update" => drop(session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?),
                "flash" => flash.info("You are logged out.").await?,
                "add" => drop(cart.add("TEA", 1).await.unwrap()),
                "login" => cart.log_in("eve").await.unwrap(),
                "cycle" => session.cycle_id().await?,
                "flush" => session.flush().await?,
                "insert" => session.insert("color", "blue").await?,
                _ => panic!("{step}"),
            }
        }
        Ok::<_, Unavailable>(())
    };
    let taken = async |flash: Flash| Ok::<_, Unavailable>(flash.take().await?.len().to_string());
    each_backend(async |server| {
        let routes = support::app::router().route("/delete-and/{step}", post(delete_and)).route("/taken", get(taken));
        let replica = async || routes.clone().layer(SessionLayer::new(support::patient_store(&server).await));
        let app = support::balanced([replica().await, replica().await]);
        for (step, is_there) in [
            ("save", false),
            ("save,insert", false),
            ("save,cycle", true),
            ("insert", false),
            ("update", true),
            ("update,update", true),
            ("update,save", true),
            ("update,cycle", true),
            ("flash", true),
            ("add", true),
            ("login", true),
            ("save,flush,insert", true),
            ("update,flush,insert", true),
            ("cycle", false),
            ("unread,cycle", false),
            ("read,cycle", false),
            ("cycle,insert", false),
            ("cycle,cycle", false),
            ("cycle,flush", false),
            ("cycle,flush,insert", true),
            ("unread,cycle,flush,insert", true),
            ("read,cycle,flush,insert", true),
            ("read,cycle,flush,insert,save", true),
            ("save,cycle,flush,insert", true),
            ("cycle,save,insert", true),
            ("cycle,save", true),
            ("cycle,save,cycle", true),
            ("cycle,update", true),
            ("cycle,flash", true),
            ("cycle,login", true),
            ("cycle,add", true),
            ("cycle,cycle,add,save", true),
        ] {
            let mut visitor = Visitor::default();
            visitor.post(&app, "/set/user/ada").await.ok();
            let former = visitor.cookie.clone();
            visitor.post(&app, &format!("/delete-and/{step}")).await.ok();
            assert_ne!(visitor.cookie, former, "{step}");
            assert_eq!(visitor.cookie.is_some(), is_there, "{step}");
            for key in ["user", "seen"] {
                assert_eq!(visitor.get(&app, &format!("/get/{key}")).await.ok().body, "-", "{key} after {step}");
            }
            let color = if step.contains("flush,insert") { "blue" } else { "-" };
            assert_eq!(visitor.get(&app, "/get/color").await.ok().body, color, "{step}");
            let messages = u32::from(step.ends_with("flash"));
            assert_eq!(visitor.get(&app, "/taken").await.ok().body, messages.to_string(), "{step}");
            let mut former = Visitor { cookie: former };
            assert_eq!(former.get(&app, "/get/user").await.ok().body, "-", "{step}");
        }
    })
    .await;
}

/// A handle that has shown nothing of the session when that was deleted shows nothing of it afterwards either, and what is put into it is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_in_behind_a_delete_begins_the_next_session() {
    const COUNT: Key<u32> = Key::new("count");
    let delete_and = async |session: Session, Path(calls): Path<String>| {
        for call in calls.split(',') {
            match call {
                "read" => assert_eq!(session.get::<String>("user").await?, None),
                // The read is under way when the session is deleted.
                "read-and-delete" => drop(tokio::join!(session.get::<String>("user"), session.delete())),
                "read-key" => assert_eq!(session.read(&COUNT).await?, None),
                "clear" => session.clear().await,
                "delete" => session.delete().await?,
                "insert" => session.insert("name", "eve").await?,
                "count" => assert_eq!(session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?, 1),
                "save" => session.save().await?,
                "cycle" => session.cycle_id().await?,
                _ => panic!("{call}"),
            }
        }
        Ok::<_, Unavailable>(())
    };
    let begin = async |session: Session| {
        session.insert("user", "ada").await?;
        session.insert("count", 5).await?;
        Ok::<_, Unavailable>(())
    };
    each_backend(async |server| {
        let routes = support::app::router().route("/begin", post(begin)).route("/delete-and/{calls}", post(delete_and));
        let app = routes.layer(SessionLayer::new(support::patient_store(&server).await));
        for (arrival, calls) in ["live", "never", "ended"].into_iter().flat_map(|arrival| {
            [
                "delete,insert,save",
                "delete,insert",
                "delete,read,insert",
                "delete,read-key,insert,count",
                "delete,count,insert",
                "delete,insert,save,count",
                "delete,save,insert",
                "delete,insert,cycle",
                "read-and-delete,insert",
                "delete,cycle,insert",
                "clear,delete,insert",
                "delete,clear,insert,save",
            ]
            .map(|calls| (arrival, calls))
            .into_iter()
            .chain((arrival != "live").then_some((arrival, "read,delete,insert,save")))
        }) {
            let case = format!("{arrival}: {calls}");
            let mut visitor = Visitor::default();
            visitor.post(&app, "/begin").await.ok();
            match arrival {
                "never" => visitor.cookie = Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
                "ended" => drop(send(&app, Method::POST, "/logout", visitor.cookie.as_deref()).await.ok()),
                _ => {}
            }
            let former = visitor.cookie.clone();
            visitor.post(&app, &format!("/delete-and/{calls}")).await.ok();
            assert_ne!(visitor.cookie, former, "{case}");
            assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "eve", "{case}");
            assert_eq!(visitor.get(&app, "/get/user").await.ok().body, "-", "{case}");
            assert_eq!(send(&app, Method::GET, "/get/user", former.as_deref()).await.ok().body, "-", "{case}: it is over");
        }
    })
    .await;
}

/// What is put into a handle after `flush` is the visitor's next session, whatever follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_a_flush_is_kept_under_a_new_id() {
    let flush_and_cycle = async |session: Session, Path(first): Path<String>| {
        match &*first {
            "insert" => session.insert("seen", "now").await?,
            "expiry" => session.set_expiry(Some(session_store::Expiry::OnInactivity(time::Duration::hours(1)))),
            _ => {}
        }
        session.flush().await?;
        // As it was before.
        session.insert("user", "ada").await?;
        session.cycle_id().await?;
        Ok::<_, Unavailable>(())
    };
    each_backend(async |server| {
        let routes = support::app::router().route("/flush-and-cycle/{first}", post(flush_and_cycle));
        let app = routes.layer(SessionLayer::new(support::patient_store(&server).await));
        for first in ["insert", "expiry", "nothing"] {
            let mut visitor = Visitor::default();
            visitor.post(&app, "/set/user/ada").await.ok();
            visitor.post(&app, "/set/color/blue").await.ok();
            let former = visitor.cookie.clone();
            visitor.post(&app, &format!("/flush-and-cycle/{first}")).await.ok();
            assert_ne!(visitor.cookie, former, "{first}");
            for (key, value) in [("user", "ada"), ("color", "-"), ("seen", "-")] {
                assert_eq!(visitor.get(&app, &format!("/get/{key}")).await.ok().body, value, "{key} after {first}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_id_keeps_everything_and_the_old_one_changes_nothing_more() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set/name/ada").await.ok();
        visitor.post(&b, "/cart/add/TEA/2").await.ok();
        let old = visitor.cookie.clone().unwrap();
        visitor.post(&b, "/cycle").await.ok();
        let new = visitor.cookie.clone().unwrap();
        assert_ne!(old, new);
        assert_eq!(visitor.get(&a, "/get/name").await.body, "ada");
        assert_eq!(visitor.get(&a, "/cart").await.body, "TEA=2");

        // A request that was under way sees what was there, does not lose the new cookie, and changes nothing.
        let late = send(&a, Method::GET, "/get/name", Some(&old)).await.ok();
        assert_eq!((&*late.body, late.set_cookie()), ("ada", None));
        for path in ["/set/name/eve", "/cart/add/TEA/1"] {
            let late = send(&a, Method::POST, path, Some(&old)).await;
            assert_eq!((late.status, late.set_cookie()), (StatusCode::CONFLICT, None), "{path}");
        }
        assert_eq!(visitor.get(&b, "/get/name").await.body, "ada");
        assert_eq!(visitor.get(&b, "/cart").await.body, "TEA=2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_after_the_rotation_loses_nothing() {
    each_backend(async |server| {
        let app = two_replicas(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        let answer = visitor.post(&app, "/cycle-and-fail").await;
        assert_eq!((answer.status, answer.set_cookie()), (StatusCode::INTERNAL_SERVER_ERROR, None));
        assert_eq!(visitor.get(&app, "/get/name").await.body, "ada");

        visitor.post(&app, "/set-and-fail/name/eve").await;
        assert_eq!(visitor.get(&app, "/get/name").await.body, "ada", "a failed request commits nothing");

        visitor.post(&app, "/logout-and-fail").await;
        assert_eq!(visitor.cookie, None, "a logout counts even so");
        assert_eq!(visitor.get(&app, "/get/name").await.body, "-");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_during_a_slow_write_stays_a_logout() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        for (method, path, status) in [
            (Method::POST, "/slow-set/HOLD/name/eve", StatusCode::CONFLICT),
            (Method::GET, "/slow-set/HOLD/name/eve", StatusCode::OK),
            (Method::POST, "/cart/slow-add/HOLD/TEA", StatusCode::CONFLICT),
        ] {
            let mut visitor = Visitor::default();
            visitor.post(&a, "/set/name/ada").await.ok();
            let old = visitor.cookie.clone().unwrap();
            let hold = Hold::new();
            let slow = tokio::spawn({
                let (a, old, method, path) = (a.clone(), old.clone(), method.clone(), path.replace("HOLD", &hold.to_string()));
                async move { send(&a, method, &path, Some(&old)).await }
            });
            hold.reached().await;
            let logout = visitor.post(&b, "/logout").await.ok();
            assert!(logout.removes_cookie());
            hold.release();
            let late = slow.await.unwrap();
            assert_eq!((late.status, late.set_cookie()), (status, None), "{path}");
            let answer = send(&b, Method::GET, "/page", Some(&old)).await.ok();
            assert_eq!(answer.body, "-:0");
            assert_eq!(send(&b, Method::GET, "/get/name", Some(&old)).await.body, "-");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_extends_a_session_brings_no_old_id_back() {
    each_backend(async |server| {
        let idle = session_store::Expiry::OnInactivity(time::Duration::seconds(60));
        let app = two_replicas_with(&server, |layer| layer.with_expiry(idle)).await;
        let mut connection = server.connection().await;
        for (method, path) in [
            (Method::GET, "/slow-get/HOLD/name"),
            (Method::POST, "/cart/add-slowly/HOLD/TEA"),
            (Method::POST, "/save-slowly/HOLD"),
            (Method::POST, "/update-slowly/HOLD"),
        ] {
            for end in ["/cycle", "/login/ada", "/logout"] {
                let mut visitor = Visitor::default();
                visitor.post(&app, "/set/name/ada").await.ok();
                let key = server.keys("*:session:*").await.remove(0);
                // Old enough for its time to be extended.
                redis::cmd("PEXPIRE").arg(&*key).arg(30_000).exec_async(&mut connection).await.unwrap();
                let hold = Hold::new();
                let slow = tokio::spawn({
                    let path = path.replace("HOLD", &hold.to_string());
                    let (app, cookie, method) = (app.clone(), visitor.cookie.clone(), method.clone());
                    async move { send(&app, method, &path, cookie.as_deref()).await }
                });
                hold.reached().await;
                visitor.post(&app, end).await.ok();
                hold.release();
                let late = slow.await.unwrap().ok();
                assert_eq!(late.set_cookie(), None, "{path} {end}: it would replace the cookie of the new id");
                let left: i64 = redis::cmd("PTTL").arg(&*key).query_async(&mut connection).await.unwrap();
                assert!(left <= 10_000, "{path} {end}: what is left of the old id is kept for {left} ms");
                redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_different_keys_at_the_same_time_keep_both() {
    each_backend(async |server| {
        let replicas = [replica(&server).await, replica(&server).await];
        let mut visitor = Visitor::default();
        visitor.post(&replicas[0], "/set/start/now").await.ok();
        let cookie = visitor.cookie.clone().unwrap();
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..40 {
            let (app, cookie) = (replicas[i % 2].clone(), cookie.clone());
            requests.spawn(async move {
                send(&app, Method::POST, &format!("/slow-set/50/key{i}/value{i}"), Some(&cookie)).await.ok();
            });
        }
        requests.join_all().await;
        for i in 0..40 {
            assert_eq!(visitor.get(&replicas[0], &format!("/get/key{i}")).await.body, format!("value{i}"));
        }
        assert_eq!(visitor.get(&replicas[0], "/get/start").await.body, "now");
        visitor.post(&replicas[1], "/remove/key7").await.ok();
        assert_eq!(visitor.get(&replicas[0], "/get/key7").await.body, "-");
        assert_eq!(visitor.get(&replicas[0], "/get/key8").await.body, "value8");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idle_timeout_is_extended_by_reads_and_really_ends() {
    each_backend(async |server| {
        // A busy machine may let it pass between two requests: once more with a longer one.
        for idle_seconds in [2, 8, 32] {
            if extends_and_ends(&server, idle_seconds).await {
                return;
            }
        }
        panic!("half a minute passed between two requests");
    })
    .await;
}

/// `false`: the machine let the whole idle timeout pass between two requests, or too much of it between two that touch it once.
async fn extends_and_ends(server: &Server, idle_seconds: u32) -> bool {
    let idle = Duration::from_secs(idle_seconds.into());
    let expiry = session_store::Expiry::OnInactivity(time::Duration::seconds(idle_seconds.into()));
    let app = two_replicas_with(server, |layer| layer.with_expiry(expiry)).await;
    let cookie_in_step = format!("Max-Age={idle_seconds}");
    let mut touched = Instant::now();
    let mut reader = Visitor::default();
    reader.post(&app, "/set/name/ada").await.ok();
    let mut shopper = Visitor::default();
    shopper.post(&app, "/cart/add/TEA/1").await.ok();
    let mut idler = Visitor::default();
    idler.post(&app, "/set/name/bob").await.ok();
    for _ in 0..5 {
        tokio::time::sleep(idle * 7 / 20).await;
        let asked = Instant::now();
        let answers = [reader.get(&app, "/get/name").await.ok(), shopper.post(&app, "/cart/add/TEA/1").await.ok()];
        if touched.elapsed() >= idle {
            return false;
        }
        touched = asked;
        assert_eq!(answers[0].body, "ada");
        for answer in answers {
            assert!(answer.set_cookie().unwrap().contains(&cookie_in_step), "the cookie keeps step");
        }
    }
    let answer = reader.get(&app, "/get/name").await.ok();
    let cart = shopper.get(&app, "/cart").await;
    // Of the sixteenth after which it is touched again the store allows itself a part.
    if touched.elapsed() >= idle / 20 {
        return false;
    }
    assert_eq!(answer.set_cookie(), None, "a touch is throttled");
    assert_eq!(cart.body, "TEA=6");

    let answer = idler.get(&app, "/get/name").await.ok();
    assert_eq!(answer.body, "-");
    assert!(answer.removes_cookie());
    tokio::time::sleep(idle + Duration::from_millis(200)).await;
    assert_eq!(reader.get(&app, "/get/name").await.body, "-");
    assert_eq!(server.keys("*:session:*").await, [""; 0]);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_of_its_own_lasts() {
    each_backend(async |server| {
        let app = two_replicas_with(&server, |layer| {
            layer.with_expiry(session_store::Expiry::OnInactivity(time::Duration::minutes(30)))
        })
        .await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        assert!(server.session_ttl().await <= 1_800_000);
        let answer = visitor.post(&app, "/remember/2592000").await.ok();
        assert!(answer.set_cookie().unwrap().contains("Max-Age=2592000"));
        assert!(server.session_ttl().await > 2_591_000_000);
        visitor.post(&app, "/set/name/bob").await.ok();
        visitor.get(&app, "/get/name").await.ok();
        assert!(server.session_ttl().await > 2_591_000_000, "the next write does not go back to the default");
        let answer = visitor.post(&app, "/cycle").await.ok();
        assert!(answer.set_cookie().unwrap().contains("Max-Age=2592000"), "nor does a new id");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explicit_save_is_not_repeated() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        let answer = visitor.post(&app, "/save-twice/one").await.ok();
        assert!(visitor.cookie.clone().unwrap().ends_with(&answer.body), "the handle knows the id");
        server.reset_commands().await;
        visitor.post(&app, "/save-twice/two").await.ok();
        let calls = server.commands().await;
        let scripts = calls.iter().find(|(name, _)| name == "evalsha").map_or(0, |(_, calls)| *calls);
        assert_eq!(scripts, 1, "{calls:?}");
        assert_eq!(visitor.get(&app, "/get/saved").await.body, "two");
    })
    .await;
}

/// Lua passes no more than some 8000 arguments to one command, so large sessions go in parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_thousands_of_keys_is_kept_whole() {
    each_backend(async |server| {
        let app = two_replicas_with(&server, |layer| layer).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/many/4500/a/0/0/same").await.ok();
        assert_eq!(visitor.get(&app, "/many/4500").await.ok().body, "4500*a");
        visitor.post(&app, "/many/1301/b/2999/4500/same").await.ok();
        assert_eq!(visitor.get(&app, "/many/4500").await.ok().body, "1301*b 1698*a 1501*-");
        let old = visitor.cookie.clone().unwrap();
        visitor.post(&app, "/many/601/c/1500/2501/new").await.ok();
        assert_ne!(visitor.cookie.as_deref().unwrap(), old);
        assert_eq!(visitor.get(&app, "/many/4500").await.ok().body, "601*c 700*b 199*a 1001*- 498*a 1501*-");
    })
    .await;
}

/// A cart that the request has begun, and a login that it has made, are of the session that ends. What is there afterwards is a cart, or no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_ends_what_the_request_has_begun() {
    const FRESH: [(&str, Option<&str>); 25] = [
        ("login,flush,add", Some("TEA=1")),
        ("login,flush,lines", None),
        ("add", Some("TEA=1")),
        ("add,insert", Some("TEA=1")),
        ("add,clear", Some("TEA=1")),
        ("add,cycle", Some("TEA=1")),
        ("add,flush", None),
        ("add,delete", None),
        ("add,insert,flush", None),
        ("insert,add,flush", None),
        ("insert,save,add,flush", None),
        ("add,save,flush", None),
        ("add,cycle,flush", None),
        ("add,flush,insert", Some("")),
        ("add,flush,add", Some("TEA=1")),
        ("add,flush,add,flush", None),
        ("login", Some("BOOK=1")),
        ("login,flush", None),
        ("login,insert,flush", None),
        ("insert,login,flush", None),
        ("login,flush,insert", Some("")),
        ("login,flush,login", Some("BOOK=1")),
        ("flush,login", Some("BOOK=1")),
        ("insert,cycle,login", Some("BOOK=1")),
        ("add,login,flush", None),
    ];
    const THERE: [(&str, Option<&str>); 24] = [
        ("login,cycle,flush,insert", Some("CUP=1")),
        ("login,cycle,insert", Some("BOOK=1,CUP=1")),
        ("login,clear", Some("BOOK=1,CUP=1")),
        ("login,clear,insert", Some("BOOK=1,CUP=1")),
        ("cycle,login,flush,add", Some("TEA=1")),
        ("cycle,flush,add", Some("TEA=1")),
        ("login", Some("BOOK=1,CUP=1")),
        ("cycle,login", Some("BOOK=1,CUP=1")),
        ("clear,login", Some("BOOK=1,CUP=1")),
        ("clear,cycle,login", Some("BOOK=1,CUP=1")),
        ("login,flush", None),
        ("login,delete", None),
        ("cycle,login,flush", None),
        ("login,cycle,flush", None),
        ("cycle,insert,login,flush", None),
        ("cycle,login,insert,flush", None),
        ("cycle,login,flush,insert", Some("CUP=1")),
        ("flush,login", Some("BOOK=1")),
        ("delete,login", Some("BOOK=1")),
        ("flush,login,flush", None),
        ("cycle", Some("CUP=1")),
        ("cycle,flush", None),
        ("read,cycle,flush", None),
        ("add,flush", None),
    ];
    let calls = async |session: Session, cart: Cart, Path(calls): Path<String>| {
        for call in calls.split(',') {
            match call {
                "add" => drop(cart.add("TEA", 1).await.unwrap()),
                "lines" => assert_eq!(cart.count().await.unwrap(), 0),
                "login" => cart.log_in("eve").await.unwrap(),
                "insert" => session.insert("seen", "now").await?,
                "read" => drop(session.get::<String>("seen").await?),
                "clear" => session.clear().await,
                "save" => session.save().await?,
                "cycle" => session.cycle_id().await?,
                "flush" => session.flush().await?,
                "delete" => session.delete().await?,
                _ => panic!("{call}"),
            }
        }
        Ok::<_, Unavailable>(())
    };
    each_backend(async |server| {
        let routes = support::app::router().route("/calls/{calls}", post(calls));
        let app = routes.layer(SessionLayer::new(support::patient_store(&server).await));
        let mut connection = server.connection().await;
        let fresh = ["new", "stale"].into_iter().flat_map(|arrival| FRESH.map(|case| (arrival, case)));
        for (arrival, (calls, cart)) in
            fresh.chain(["empty", "full"].into_iter().flat_map(|arrival| THERE.map(|case| (arrival, case))))
        {
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            let mut eve = Visitor::default();
            eve.post(&app, "/login/eve").await.ok();
            eve.post(&app, "/cart/add/BOOK/1").await.ok();
            let mut visitor = Visitor::default();
            match arrival {
                "stale" => visitor.cookie = Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
                "empty" => drop(visitor.post(&app, "/cart/add/CUP/1").await.ok()),
                "full" => {
                    visitor.post(&app, "/set/color/blue").await.ok();
                    visitor.post(&app, "/cart/add/CUP/1").await.ok();
                }
                _ => {}
            }
            let case = format!("{arrival}: {calls}");
            visitor.post(&app, &format!("/calls/{calls}")).await.ok();
            let shown = match &visitor.cookie {
                Some(_) => Some(visitor.get(&app, "/cart").await.ok()).filter(|answer| !answer.removes_cookie()),
                None => None,
            };
            assert_eq!(shown.map(|answer| answer.body).as_deref(), cart, "{case}");
            if !calls.contains("insert") {
                assert_eq!(
                    eve.get(&app, "/cart").await.ok().body.contains("CUP"),
                    cart.is_some_and(|cart| cart.contains("BOOK=1,CUP")),
                    "{case}"
                );
            }
            let mut live = 0;
            for key in server.keys("*:session:*").await {
                let alive: bool = redis::cmd("HEXISTS").arg(&key).arg("@rev").query_async(&mut connection).await.unwrap();
                live += usize::from(alive);
            }
            assert_eq!(live, 1 + usize::from(cart.is_some()), "{case}");
        }
    })
    .await;
}

/// A login that begins with a `flush` wants nothing of the session that the visitor came with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_no_conflict_with_the_end_of_the_session_by_another_request() {
    let slow = async |session: Session, cart: Cart, Path((ms, calls)): Path<(u64, String)>| {
        for call in calls.split(',') {
            match call {
                "read" => drop(session.get::<String>("name").await?),
                "lines" => drop(cart.lines().await.unwrap()),
                "set" => session.insert("name", "eve").await?,
                "save" => session.save().await?,
                "pause" => support::hold::pause(ms).await,
                "try" => drop(cart.add("TEA", 1).await.unwrap_err()),
                "flush" => session.flush().await?,
                "delete" => session.delete().await?,
                "insert" => session.insert("user", "eve").await?,
                "login" => cart.log_in("eve").await.unwrap(),
                "add" => drop(cart.add("CUP", 1).await.unwrap()),
                _ => panic!("{call}"),
            }
        }
        Ok::<_, Unavailable>(())
    };
    each_backend(async |server| {
        let routes = support::app::router().route("/slow/{ms}/{calls}", post(slow));
        let app = routes.layer(SessionLayer::new(support::patient_store(&server).await));
        for end in ["/logout", "/cycle", "/login/bob"] {
            for (calls, user, cart) in [
                ("read,pause,flush,insert", "eve", ""),
                ("read,set,pause,flush,insert,login", "eve", ""),
                ("lines,pause,flush,insert", "eve", ""),
                ("pause,read,flush,insert", "eve", ""),
                ("pause,read,flush,insert,save", "eve", ""),
                ("pause,lines,flush,insert", "eve", ""),
                ("pause,read,lines,flush,add", "-", "CUP=1"),
                ("pause,flush,insert", "eve", ""),
                ("read,pause,try,flush,insert", "eve", ""),
                ("pause,try,flush,insert", "eve", ""),
                ("read,pause,flush,add", "-", "CUP=1"),
                ("read,pause,flush,login,add", "-", "CUP=1"),
                ("read,pause,delete,add", "-", "CUP=1"),
                ("read,pause,flush", "-", ""),
                ("read,pause,delete", "-", ""),
                ("pause,read,delete", "-", ""),
                ("set,pause,delete", "-", ""),
                ("pause,delete,insert", "eve", ""),
            ] {
                redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
                let mut visitor = Visitor::default();
                visitor.post(&app, "/set/name/ada").await.ok();
                visitor.post(&app, "/cart/add/POT/1").await.ok();
                let former = visitor.cookie.clone();
                let hold = Hold::new();
                let late = tokio::spawn({
                    let (app, former, path) = (app.clone(), former.clone(), format!("/slow/{hold}/{calls}"));
                    async move { send(&app, Method::POST, &path, former.as_deref()).await }
                });
                hold.reached().await;
                visitor.post(&app, end).await.ok();
                hold.release();
                let late = late.await.unwrap().ok();
                let case = format!("{calls} beside {end}");
                let begins = user != "-" || !cart.is_empty();
                assert_eq!((late.removes_cookie(), late.cookie().is_some()), (!begins, true), "{case}: {late:?}");
                let mut eve = Visitor { cookie: late.cookie().filter(|_| begins) };
                assert_ne!(eve.cookie, former, "{case}");
                assert_eq!(eve.get(&app, "/get/user").await.ok().body, user, "{case}");
                assert_eq!(eve.get(&app, "/get/name").await.ok().body, "-", "{case}");
                assert_eq!(eve.get(&app, "/cart").await.ok().body, cart, "{case}");
                // The other request's session is as it was.
                let name = if end == "/logout" { "-" } else { "ada" };
                assert_eq!(visitor.get(&app, "/get/name").await.ok().body, name, "{case}");
                let refused = send(&app, Method::POST, "/set/name/eve", former.as_deref()).await;
                assert_eq!(refused.status, StatusCode::CONFLICT, "{case}: the id of before lives");
            }
        }
    })
    .await;
}

/// One session, whoever of a request's tasks begins it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_one_request_begin_one_session() {
    const COUNT: Key<u32> = Key::new("count");
    let both = async |session: Session, cart: Cart, Path(first): Path<String>| {
        let update = async || session.update(&COUNT, |count| count.unwrap_or(0) + 1).await.unwrap();
        let add = async || cart.add("TEA", 1).await.unwrap().quantity;
        if first == "update" {
            assert_eq!(tokio::join!(update(), add(), add()).0, 1);
        } else {
            assert_eq!(tokio::join!(add(), update(), add()).1, 1);
        }
    };
    let count = async |session: Session| session.get::<u32>("count").await.unwrap().unwrap_or_default().to_string();
    each_backend(async |server| {
        let routes = support::app::router().route("/both/{first}", post(both)).route("/count", get(count));
        let app = routes.layer(SessionLayer::new(support::patient_store(&server).await));
        for (first, cookie) in
            ["update", "add"].into_iter().flat_map(|first| [(first, None), (first, Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA"))])
        {
            redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
            let mut visitor = Visitor { cookie: cookie.map(str::to_owned) };
            visitor.post(&app, &format!("/both/{first}")).await.ok();
            let seen = (visitor.get(&app, "/cart").await.ok().body, visitor.get(&app, "/count").await.ok().body);
            assert_eq!(seen, ("TEA=2".to_owned(), "1".to_owned()), "{first} first, {cookie:?}");
            assert_eq!(server.keys("*:session:*").await.len(), 1, "{first} first, {cookie:?}");
        }
    })
    .await;
}

/// A future that the handler keeps and polls no more holds what others of the request wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_request_waits_for_ever() {
    let keep_saving = async |session: Session, cart: Cart, Path(then): Path<String>| {
        session.insert("name", "ada").await?;
        let mut saving = Box::pin(session.save());
        assert!(futures_util::poll!(&mut saving).is_pending(), "the store answers later");
        let refused = match &*then {
            "add" => cart.add("TEA", 1).await.map(drop),
            _ => cart.log_in("eve").await,
        };
        assert!(matches!(refused, Err(CartError::Unavailable(StoreError::Contended { .. }))), "{refused:?}");
        saving.await?;
        cart.add("CUP", 1).await.unwrap();
        Ok::<_, Unavailable>(())
    };
    let keep_adding = async |session: Session, cart: Cart| {
        let mut adding = Box::pin(cart.add("CUP", 1));
        assert!(futures_util::poll!(&mut adding).is_pending(), "the store answers later");
        session.insert("name", "ada").await?;
        session.save().await.unwrap_err();
        adding.await.unwrap();
        Ok::<_, Unavailable>(())
    };
    let keep_for_ever = async |session: Session| {
        session.insert("name", "ada").await?;
        let mut saving = Box::pin(async move { session.save().await });
        assert!(futures_util::poll!(&mut saving).is_pending(), "the store answers later");
        std::mem::forget(saving);
        Ok::<_, Unavailable>(())
    };
    let keep_beside = async move |session: Session, other: Other| {
        other.insert("other", 1).await.unwrap();
        keep_for_ever(session).await
    };
    each_backend(async |server| {
        let routes =
            support::app::router().route("/keep-saving/{then}", post(keep_saving)).route("/keep-adding", post(keep_adding));
        let layer = SessionLayer::new(support::patient_store(&server).await);
        let app = &routes.route("/keep-for-ever", post(keep_for_ever)).layer(layer.clone());
        let app_of_014 = &Router::new().route("/keep-beside", post(keep_beside)).layer(layer.with_tower_sessions_014());
        let kept = async |path: &str| {
            let mut visitor = Visitor::default();
            let wait = tokio::time::timeout(Duration::from_secs(20), visitor.post(app, path));
            wait.await.unwrap_or_else(|_| panic!("{path} waits")).ok();
            assert_eq!(visitor.get(app, "/get/name").await.ok().body, "ada", "{path}");
            assert_eq!(visitor.get(app, "/cart").await.ok().body, "CUP=1", "{path}");
        };
        let left = async |app: &Router, path: &str| {
            let request = Request::post(path).body(Body::empty()).unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(20), app.clone().oneshot(request));
            assert_eq!(answer.await.expect("the request ends").unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        };
        tokio::join!(
            kept("/keep-saving/add"),
            kept("/keep-saving/login"),
            kept("/keep-adding"),
            left(app, "/keep-for-ever"),
            left(app_of_014, "/keep-beside")
        );
    })
    .await;
}

/// The names of the marks that handles get are not the application's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_may_call_its_keys_as_it_likes() {
    const KEYS: [&str; 3] = ["@held", "@deserted", "@"];
    let log_in = async |session: Session, cart: Cart| {
        cart.log_in("eve").await.unwrap();
        for key in KEYS {
            session.insert(key, key).await.unwrap();
        }
    };
    let shown = async |session: Session| {
        let mut count = 0;
        for key in KEYS {
            count += usize::from(session.get::<String>(key).await.unwrap().as_deref() == Some(key));
        }
        count.to_string()
    };
    each_backend(async |server| {
        let routes = support::app::router().route("/log-in", post(log_in)).route("/shown", get(shown));
        let app = routes.layer(SessionLayer::new(support::patient_store(&server).await));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/log-in").await.ok();
        assert_eq!(visitor.get(&app, "/shown").await.ok().body, KEYS.len().to_string());
    })
    .await;
}
