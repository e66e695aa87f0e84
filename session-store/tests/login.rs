//! axum-login and axum-messages as they are published, which ask the request for the session of tower-sessions 0.14, on two
//! replicas; and what the two handles of one request have in common.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::convert::Infallible;

use axum::{
    Extension, Router,
    body::Body,
    extract::Path,
    http::StatusCode,
    routing::{get, post},
};
use axum_login::{AuthManager, AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend};
use axum_messages::{Messages, MessagesManagerLayer};
use session_store::{CacheStore, Cart, Session, SessionLayer};
use support::{
    Server, Visitor, each_backend,
    hold::{Hold, pause},
    meter::Meter,
    patient_store,
};
use tower_sessions_014::{Expiry as OtherExpiry, Session as Other, SessionManagerLayer};

#[derive(Debug, Clone)]
struct User(String);

impl AuthUser for User {
    type Id = String;

    fn id(&self) -> String {
        self.0.clone()
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[derive(Clone)]
struct Everybody;

impl AuthnBackend for Everybody {
    type User = User;
    type Credentials = String;
    type Error = Infallible;

    async fn authenticate(&self, name: String) -> Result<Option<User>, Infallible> {
        Ok(Some(User(name)))
    }

    async fn get_user(&self, name: &String) -> Result<Option<User>, Infallible> {
        Ok(Some(User(name.clone())))
    }
}

type Auth = AuthSession<Everybody>;

fn routes() -> Router {
    Router::new()
        .route("/me", get(me))
        .route("/login/{user}", post(log_in))
        .route("/login-and-fail/{user}", post(log_in_and_fail))
        .route("/logout", post(log_out))
        .route("/everywhere/{user}", post(log_out_everywhere))
        .route("/say/{text}", post(say))
        .route("/messages", get(messages))
        .route("/cart", get(async |cart: Cart| cart.count().await.unwrap().to_string()))
        .route("/cart/add", post(async |cart: Cart| cart.add("TEA", 1).await.unwrap().count.to_string()))
        .route("/get/{key}", get(async |ours: Session, Path(key): Path<String>| shown(ours.get(&key).await.unwrap())))
        .route("/get-other/{key}", get(async |theirs: Other, Path(key): Path<String>| shown(theirs.get(&key).await.unwrap())))
        .route("/set/{key}/{value}", post(write))
        .route("/set-other/{key}/{value}", post(write_other))
        .route("/both", post(both))
        .route("/other/{what}", post(other))
        .route("/stream/{value}", post(stream))
        .route("/late/{value}", post(late))
}

/// Changes the session while the body is sent.
async fn stream(theirs: Other, Path(value): Path<String>) -> Body {
    theirs.get::<String>("old").await.unwrap();
    Body::from_stream(futures_util::stream::once(async move {
        theirs.insert("streamed", value).await.unwrap();
        Ok::<_, Infallible>("sent")
    }))
}

/// Changes the session after others have had the time to end it.
async fn late(theirs: Other, Path(value): Path<String>) {
    theirs.get::<String>("old").await.unwrap();
    pause(value.parse().unwrap()).await;
    theirs.insert("late", value).await.unwrap();
}

async fn replica(server: &Server) -> Router {
    let store = patient_store(server).await;
    routes()
        .layer(MessagesManagerLayer)
        .layer(tower::layer::layer_fn(|inner| AuthManager::new(inner, Everybody, "axum-login.data")))
        .layer(SessionLayer::new(store.clone()).with_tower_sessions_014())
        .layer(Extension(store))
}

/// Without anything that asks for the session by itself.
async fn bare_replica(server: &Server) -> Router {
    routes().layer(SessionLayer::new(patient_store(server).await).with_tower_sessions_014())
}

fn shown(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

async fn me(auth: Auth) -> String {
    shown(auth.user.map(|user| user.0))
}

async fn log_in(mut auth: Auth, cart: Cart, Path(user): Path<String>) -> Result<(), StatusCode> {
    let user = auth.authenticate(user).await.unwrap().unwrap();
    auth.login(&user).await.unwrap();
    // Another login was faster, and the session has ended.
    cart.log_in(&user.0).await.map_err(|_| StatusCode::CONFLICT)
}

async fn log_in_and_fail(auth: Auth, cart: Cart, user: Path<String>) -> StatusCode {
    log_in(auth, cart, user).await.unwrap();
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn log_out(mut auth: Auth) {
    auth.logout().await.unwrap();
}

async fn log_out_everywhere(Extension(store): Extension<CacheStore>, Path(user): Path<String>) -> String {
    store.sessions_of(&user).end_all().await.unwrap().to_string()
}

async fn say(messages: Messages, Path(text): Path<String>) -> axum::response::Redirect {
    messages.info(text);
    axum::response::Redirect::to("/messages")
}

async fn messages(messages: Messages) -> String {
    messages.map(|message| message.to_string()).collect::<Vec<_>>().join(",")
}

async fn write(ours: Session, Path((key, value)): Path<(String, String)>) {
    ours.insert(&key, value).await.unwrap();
}

async fn write_other(theirs: Other, Path((key, value)): Path<(String, String)>) {
    theirs.insert(&key, value).await.unwrap();
}

/// What is not saved yet is there for the other handle when that one is first asked, and both are committed.
async fn both(ours: Session, theirs: Other) -> String {
    ours.insert("ours", "1").await.unwrap();
    ours.insert("shared", "ours").await.unwrap();
    let seen = shown(theirs.get("ours").await.unwrap());
    theirs.insert("theirs", "2").await.unwrap();
    theirs.insert("shared", "theirs").await.unwrap();
    theirs.remove::<String>("old").await.unwrap();
    ours.insert("late", "3").await.unwrap();
    seen
}

async fn other(ours: Session, theirs: Other, Path(what): Path<String>) -> String {
    match &*what {
        "cycle" => theirs.cycle_id().await.unwrap(),
        "flush" => theirs.flush().await.unwrap(),
        "delete" => theirs.delete().await.unwrap(),
        "clear" => theirs.clear().await,
        "expire" => theirs.set_expiry(Some(OtherExpiry::OnInactivity(time::Duration::seconds(100)))),
        "save" => {
            theirs.insert("saved", "1").await.unwrap();
            theirs.save().await.unwrap();
            assert_eq!(theirs.id().map(|id| id.0), ours.id().map(|id| id.0));
            assert!(theirs.id().is_some());
        }
        "flush-and-set" => {
            theirs.get::<String>("old").await.unwrap();
            theirs.flush().await.unwrap();
            theirs.insert("new", "1").await.unwrap();
        }
        "ours-flush-and-set" => {
            theirs.get::<String>("old").await.unwrap();
            ours.flush().await.unwrap();
            theirs.insert("new", "1").await.unwrap();
        }
        "expiry" => {
            theirs.get::<String>("old").await.unwrap();
            return format!("{:?}", theirs.expiry());
        }
        _ => panic!("{what}"),
    }
    String::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_counts_on_the_other_replica_until_the_logout() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/cart/add").await.ok();
        let anonymous = visitor.clone();
        assert_eq!(visitor.get(&b, "/me").await.ok().body, "-");
        visitor.post(&a, "/login/ada").await.ok();
        assert_ne!(visitor.cookie, anonymous.cookie, "a login gives a new id");
        assert_eq!(visitor.get(&b, "/me").await.ok().body, "ada");
        assert_eq!(visitor.get(&b, "/cart").await.ok().body, "1");
        assert_eq!(anonymous.clone().get(&b, "/me").await.ok().body, "-", "the id from before the login has no rights");
        let logged_in = visitor.clone();
        assert!(visitor.post(&b, "/logout").await.ok().removes_cookie());
        assert_eq!(logged_in.clone().get(&a, "/me").await.ok().body, "-");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_somebody_else_has_set_is_not_logged_in() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut attacker = Visitor::default();
        attacker.post(&a, "/set/key/value").await.ok();
        let mut victim = attacker.clone();
        victim.post(&b, "/login/ada").await.ok();
        assert_eq!(victim.get(&a, "/me").await.ok().body, "ada");
        assert_eq!(attacker.get(&b, "/me").await.ok().body, "-");
        let made_up = format!("__Host-id={}", tower_sessions::session::Id::default());
        let mut planted = Visitor { cookie: Some(made_up.clone()) };
        planted.post(&a, "/login/ada").await.ok();
        assert_ne!(planted.cookie, Some(made_up.clone()));
        assert_eq!(Visitor { cookie: Some(made_up) }.get(&b, "/me").await.ok().body, "-");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logins_at_once_leave_one_session() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        for _ in 0..10 {
            let mut visitor = Visitor::default();
            visitor.post(&a, "/set/key/value").await.ok();
            let (mut one, mut other) = (visitor.clone(), visitor.clone());
            tokio::join!(one.post(&a, "/login/ada"), other.post(&b, "/login/ada"));
            let mut logged_in = 0;
            for mut visitor in [one, other] {
                logged_in += usize::from(visitor.get(&a, "/me").await.body == "ada");
            }
            assert_eq!(logged_in, 1);
            assert_eq!(visitor.post(&b, "/everywhere/ada").await.ok().body, "1");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_out_everywhere_ends_the_logins() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let (mut home, mut work) = (Visitor::default(), Visitor::default());
        home.post(&a, "/login/ada").await.ok();
        work.post(&b, "/login/ada").await.ok();
        assert_eq!(Visitor::default().post(&a, "/everywhere/ada").await.ok().body, "2");
        assert_eq!(home.get(&b, "/me").await.ok().body, "-");
        assert_eq!(work.get(&a, "/me").await.ok().body, "-");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_fails_changes_nothing() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set/key/value").await.ok();
        let before = visitor.cookie.clone();
        assert_eq!(visitor.post(&a, "/login-and-fail/ada").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(visitor.cookie, before);
        assert_eq!(visitor.get(&b, "/me").await.ok().body, "-");
        assert_eq!(visitor.get(&b, "/get/key").await.ok().body, "value");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_shown_once_after_the_redirect() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        assert_eq!(visitor.post(&a, "/say/saved").await.status, StatusCode::SEE_OTHER);
        assert_eq!(visitor.get(&b, "/messages").await.ok().body, "saved");
        assert_eq!(visitor.get(&a, "/messages").await.ok().body, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_handles_are_one_session() {
    each_backend(async |server| {
        let (a, b) = (bare_replica(&server).await, bare_replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set-other/old/0").await.ok();
        assert_eq!(visitor.get(&b, "/get/old").await.ok().body, "0");
        assert_eq!(visitor.post(&b, "/both").await.ok().body, "1");
        for (key, value) in [("ours", "1"), ("theirs", "2"), ("shared", "theirs"), ("old", "-"), ("late", "3")] {
            assert_eq!(visitor.get(&a, &format!("/get/{key}")).await.ok().body, value, "{key}");
            assert_eq!(visitor.get(&a, &format!("/get-other/{key}")).await.ok().body, value, "{key}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_handle_ends_and_renews_as_ours_does() {
    each_backend(async |server| {
        let (a, b) = (bare_replica(&server).await, bare_replica(&server).await);
        let begun = async || {
            let mut visitor = Visitor::default();
            visitor.post(&a, "/set/old/0").await.ok();
            visitor
        };
        let mut visitor = begun().await;
        let before = visitor.clone();
        visitor.post(&b, "/other/cycle").await.ok();
        assert_ne!(visitor.cookie, before.cookie);
        assert_eq!(visitor.get(&a, "/get/old").await.ok().body, "0");
        for end in ["flush", "delete"] {
            let mut visitor = begun().await;
            let before = visitor.clone();
            assert!(visitor.post(&b, &format!("/other/{end}")).await.ok().removes_cookie(), "{end}");
            assert_eq!(before.clone().get(&a, "/get/old").await.ok().body, "-", "{end}");
        }
        for end in ["flush-and-set", "ours-flush-and-set"] {
            let mut visitor = begun().await;
            let before = visitor.clone();
            visitor.post(&b, &format!("/other/{end}")).await.ok();
            assert_ne!(visitor.cookie, before.cookie, "{end}");
            assert_eq!(visitor.get(&a, "/get/old").await.ok().body, "-", "{end}");
            assert_eq!(visitor.get(&a, "/get/new").await.ok().body, "1", "{end}");
        }
        let mut visitor = begun().await;
        visitor.post(&b, "/other/clear").await.ok();
        assert_eq!(visitor.get(&a, "/get/old").await.ok().body, "-");
        let mut visitor = begun().await;
        let answer = visitor.post(&b, "/other/expire").await.ok();
        assert!(answer.set_cookie().unwrap().contains("Max-Age=100") || answer.set_cookie().unwrap().contains("Max-Age=99"));
        assert!(visitor.post(&a, "/other/expiry").await.ok().body.contains("100"));
        let mut visitor = Visitor::default();
        visitor.post(&b, "/other/save").await.ok();
        assert_eq!(visitor.get(&a, "/get/saved").await.ok().body, "1");
    })
    .await;
}

/// What was changed through the other handle, and is not saved, comes to ours at the commit, after all that ours has done by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_handles_do_in_one_request_is_done_in_the_order_of_the_commit() {
    let steps = async |ours: Session, theirs: Other, Path(steps): Path<String>| {
        for step in steps.split(',') {
            match step {
                "ours-set" => ours.insert("shared", "ours").await.unwrap(),
                "theirs-set" => theirs.insert("shared", "theirs").await.unwrap(),
                "theirs-save" => theirs.save().await.unwrap(),
                "ours-flush" => ours.flush().await.unwrap(),
                "theirs-flush" => theirs.flush().await.unwrap(),
                "theirs-read" => drop(theirs.get::<String>("old").await.unwrap()),
                "theirs-delete" => theirs.delete().await.unwrap(),
                "theirs-cycle" => theirs.cycle_id().await.unwrap(),
                _ => panic!("{step}"),
            }
        }
    };
    each_backend(async |server| {
        let all = || routes().route("/steps/{steps}", post(steps));
        let replica = async || all().layer(SessionLayer::new(patient_store(&server).await).with_tower_sessions_014());
        let (a, b) = (replica().await, replica().await);
        for (steps, shared) in [
            ("theirs-set,ours-set", "theirs"),
            ("ours-set,theirs-set", "theirs"),
            ("theirs-set,theirs-save,ours-set", "ours"),
            // A logout through their handle reaches ours at once.
            ("ours-set,theirs-flush", "-"),
            ("theirs-set,theirs-flush", "-"),
            ("theirs-set,theirs-save,ours-flush", "-"),
            // What follows it is of the next session.
            ("theirs-flush,ours-set", "ours"),
            ("ours-flush,theirs-set", "theirs"),
            // One through ours does not know what theirs has not saved, which begins the next session.
            ("theirs-set,ours-flush", "theirs"),
            ("theirs-set,ours-flush,theirs-flush", "-"),
            // Of the last of these our handle is not told.
            ("theirs-read,theirs-delete,theirs-cycle,theirs-flush,theirs-set", "theirs"),
            ("theirs-delete,theirs-cycle,theirs-flush,theirs-set", "theirs"),
            ("theirs-delete,theirs-cycle,theirs-flush", "-"),
            ("theirs-delete,theirs-set", "theirs"),
            ("theirs-delete,theirs-set,theirs-save", "theirs"),
            ("theirs-read,theirs-delete,theirs-cycle,theirs-set", "-"),
        ] {
            let mut visitor = Visitor::default();
            visitor.post(&a, "/set/old/0").await.ok();
            visitor.post(&a, "/set/shared/before").await.ok();
            let before = visitor.clone();
            visitor.post(&b, &format!("/steps/{steps}")).await.ok();
            assert_eq!(visitor.get(&a, "/get/shared").await.ok().body, shared, "{steps}");
            if steps.contains("flush") {
                assert_ne!(visitor.cookie, before.cookie, "{steps}");
                assert_eq!(visitor.cookie.is_some(), shared != "-", "{steps}");
                for mut visitor in [visitor, before] {
                    assert_eq!(visitor.get(&a, "/get/old").await.ok().body, "-", "{steps}: nothing of the ended session is left");
                }
            }
        }
    })
    .await;
}

/// No version tells its store of a `flush` without an id: the session that a cart begins gives one to both handles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_handle_ends_what_a_cart_has_begun_as_ours_does() {
    let steps = async |ours: Session, theirs: Other, cart: Cart, Path((handle, steps)): Path<(String, String)>| {
        for step in steps.split(',') {
            match (step, &*handle) {
                ("add", _) => drop(cart.add("TEA", 1).await.unwrap()),
                ("login", _) => cart.log_in("eve").await.unwrap(),
                ("lines", _) => drop(cart.lines().await.unwrap()),
                ("ours-set", _) => ours.insert("ours", "1").await.unwrap(),
                ("set", "ours") => ours.insert("new", "1").await.unwrap(),
                ("set", _) => theirs.insert("new", "1").await.unwrap(),
                ("read", "ours") => drop(ours.get_value("ours").await.unwrap()),
                ("read", _) => drop(theirs.get_value("ours").await.unwrap()),
                ("clear", "ours") => ours.clear().await,
                ("clear", _) => theirs.clear().await,
                ("save", "ours") => ours.save().await.unwrap(),
                ("save", _) => theirs.save().await.unwrap(),
                ("delete", "ours") => ours.delete().await.unwrap(),
                ("delete", _) => theirs.delete().await.unwrap(),
                ("flush", "ours") => ours.flush().await.unwrap(),
                ("flush", _) => theirs.flush().await.unwrap(),
                ("cycle", "ours") => ours.cycle_id().await.unwrap(),
                ("cycle", _) => theirs.cycle_id().await.unwrap(),
                _ => panic!("{step}"),
            }
        }
    };
    each_backend(async |server| {
        let all = routes().route("/steps/{handle}/{steps}", post(steps));
        let app = all.layer(SessionLayer::new(patient_store(&server).await).with_tower_sessions_014());
        let mut connection = server.connection().await;
        for (arrival, steps, shown) in [
            ("new", "add,flush", None),
            ("new", "set,add,flush", None),
            ("new", "add,set,flush", None),
            ("new", "add,delete", None),
            ("new", "add,cycle,flush", None),
            ("new", "ours-set,add,flush", None),
            ("new", "ours-set,add,cycle,flush", None),
            ("new", "add,flush,set", Some("0 - 1")),
            ("new", "add,flush,add", Some("1 - -")),
            ("new", "add,flush,add,flush", None),
            ("new", "add", Some("1 - -")),
            ("new", "add,clear", Some("1 - -")),
            ("new", "ours-set,add,clear", Some("1 - -")),
            ("new", "add,set", Some("1 - 1")),
            ("new", "set,add,ours-set", Some("1 1 1")),
            ("new", "add,cycle,set", Some("1 - 1")),
            ("there", "flush,add", Some("1 - -")),
            ("there", "flush,add,flush", None),
            ("there", "flush,add,set", Some("1 - 1")),
            ("ended", "read,flush,set", Some("0 - 1")),
            ("ended", "read,flush,add", Some("1 - -")),
            ("new", "login,flush", None),
            ("new", "read,login,flush", None),
            ("new", "ours-set,login,flush", None),
            ("new", "login,add,flush", None),
            ("new", "login,cycle,flush", None),
            ("new", "login,flush,login,flush", None),
            ("new", "flush,login", Some("0 - - eve")),
            ("new", "set,login", Some("0 - 1 eve")),
            ("new", "login,flush,add", Some("1 - -")),
            ("new", "login,flush,set", Some("0 - 1")),
            ("new", "save,cycle,flush", None),
            ("there", "cycle,login,flush", None),
            ("there", "read,login,cycle,flush", None),
            ("there", "cycle,login,lines,flush", None),
            ("there", "cycle,login,lines,delete", None),
            ("there", "clear,login,cycle", Some("0 - - eve")),
            ("there", "cycle,flush,add", Some("1 - -")),
            ("there", "cycle,clear,add", Some("1 - -")),
            ("there", "clear,set,delete", None),
            ("stale", "clear,add,cycle", Some("1 - -")),
            ("stale", "cycle,login,flush", None),
        ] {
            for handle in ["ours", "theirs"] {
                let case = format!("{arrival}: {steps} by {handle}");
                redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
                let mut visitor = Visitor::default();
                match arrival {
                    "new" => {}
                    "stale" => visitor.cookie = Some("__Host-id=AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
                    _ => drop(visitor.post(&app, "/set/ours/0").await.ok()),
                }
                if arrival == "ended" {
                    visitor.clone().post(&app, "/steps/ours/flush").await.ok();
                }
                visitor.post(&app, &format!("/steps/{handle}/{steps}")).await.ok();
                let mut seen = None;
                if visitor.cookie.is_some() {
                    let mut parts = Vec::new();
                    for path in ["/cart", "/get/ours", "/get/new"] {
                        parts.push(visitor.get(&app, path).await.ok().body);
                    }
                    seen = Some(parts.join(" "));
                }
                let mut live = 0;
                for key in server.keys("*:session:*").await {
                    let (revision, owner): (Option<u64>, Option<String>) =
                        redis::cmd("HMGET").arg(&key).arg(&["@rev", "@owner"]).query_async(&mut connection).await.unwrap();
                    live += u32::from(revision.is_some());
                    if owner.filter(|_| revision.is_some()).is_some() {
                        seen.iter_mut().for_each(|seen| *seen += " eve");
                    }
                }
                assert_eq!(seen.as_deref(), shown, "{case}");
                assert_eq!(live, u32::from(shown.is_some()), "{case}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_handle_streams_and_loses_as_ours_does() {
    each_backend(async |server| {
        let (a, b) = (bare_replica(&server).await, bare_replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/set/old/0").await.ok();
        assert_eq!(visitor.post(&a, "/stream/yes").await.ok().body, "sent");
        assert_eq!(visitor.get(&b, "/get/streamed").await.ok().body, "yes");
        let (mut slow, mut quick) = (visitor.clone(), visitor.clone());
        let hold = Hold::new();
        let path = format!("/late/{hold}");
        let end = async {
            hold.reached().await;
            quick.post(&b, "/other/flush").await.ok();
            hold.release();
        };
        let (late, ()) = tokio::join!(slow.post(&a, &path), end);
        assert_eq!(late.status, StatusCode::CONFLICT);
        assert_eq!(late.set_cookie(), None);
        assert_eq!(visitor.get(&b, "/get/late").await.ok().body, "-");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_handles_cost_one_read_and_one_commit() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let app =
            routes().layer(SessionLayer::new(support::patient(meter.url()).connect().await.unwrap()).with_tower_sessions_014());
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/old/0").await.ok();
        // From now on the store knows the script of such a commit.
        visitor.post(&app, "/both").await.ok();
        visitor.post(&app, "/set/old/1").await.ok();
        meter.take();
        visitor.post(&app, "/both").await.ok();
        assert_eq!(meter.take(), 2);
    })
    .await;
}

/// Those who keep the layer of 0.14 can have the store alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_serves_the_layer_of_the_other_version() {
    each_backend(async |server| {
        let replica = async || {
            let sessions = SessionManagerLayer::new(patient_store(&server).await);
            Router::new()
                .route("/me", get(me))
                .route("/login/{user}", post(async |mut auth: Auth, Path(user)| auth.login(&User(user)).await.unwrap()))
                .layer(AuthManagerLayerBuilder::new(Everybody, sessions).build())
        };
        let (a, b) = (replica().await, replica().await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/login/ada").await.ok();
        assert_eq!(visitor.get(&b, "/me").await.ok().body, "ada");
    })
    .await;
}
