//! Typed keys are read and updated past the handle while it shows nothing yet: whatever is done through the handle before, meanwhile
//! or after must come out as if everything went through it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Extension, Router,
    extract::Path,
    routing::{get, post},
};
use futures_util::{FutureExt as _, future::join};
use http::{HeaderMap, Method, StatusCode, header::COOKIE};
use session_store::{CacheStore, EncryptionKeys, Key, Session, SessionExt as _, SessionLayer, Unavailable};
use support::{Answer, Server, Visitor, each_server, meter::Meter, patient_store, send};

const COUNT: Key<u64> = Key::new("count");
const NAME: Key<String> = Key::new("name");
/// Reserved names begin with it, so that this one is stored as another.
const ODD: Key<Vec<u8>> = Key::new("@v");

type Text = Result<String, Unavailable>;

async fn count(session: &Session) -> Result<u64, Unavailable> {
    Ok(session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?)
}

/// Everything that one request can see of the session.
async fn shown(session: &Session) -> Text {
    let typed = (session.read(&COUNT).await?, session.read(&NAME).await?, session.read(&ODD).await?);
    let by_handle = (session.get("count").await?, session.get("name").await?, session.get("@v").await?);
    assert_eq!(typed, by_handle);
    let again = (session.read(&COUNT).await?, session.read(&NAME).await?, session.read(&ODD).await?);
    assert_eq!(typed, again, "after the handle was given it too");
    Ok(format!("{typed:?}"))
}

async fn step(session: Session, Path(step): Path<String>) -> Text {
    match &*step {
        "seed" => {
            session.write(&COUNT, &1).await?;
            session.write(&NAME, &"Ada".to_owned()).await?;
            session.write(&ODD, &vec![7]).await?;
        }
        "show" => {}
        "update, then insert" => {
            count(&session).await?;
            session.write(&NAME, &"Bob".to_owned()).await?;
        }
        "insert, then update" => {
            session.write(&NAME, &"Cyd".to_owned()).await?;
            count(&session).await?;
        }
        "read, then update twice" => {
            let before = session.read(&COUNT).await?.unwrap();
            assert_eq!((count(&session).await?, count(&session).await?), (before + 1, before + 2));
        }
        "get, then update" => {
            let before = session.get::<u64>("count").await?.unwrap();
            assert_eq!(count(&session).await?, before + 1);
        }
        "update, then set back" => {
            let before = session.read(&COUNT).await?.unwrap();
            count(&session).await?;
            session.write(&COUNT, &before).await?;
        }
        "update beside insert" => {
            let (counted, written) = join(count(&session), session.insert("name", "Dan")).await;
            counted?;
            written?;
        }
        "update beside a new id" => {
            let (counted, cycled) = join(count(&session), session.cycle_id()).await;
            counted?;
            cycled?;
        }
        "updates beside each other" => {
            let (one, other) = join(count(&session), count(&session)).await;
            one?;
            other?;
        }
        "in a task" => {
            let session = session.clone();
            let task = tokio::spawn(async move { (session.read(&NAME).await.unwrap(), count(&session).await.unwrap()) });
            assert!(task.await.unwrap().0.is_some());
        }
        "remove" => {
            session.remove_value("name").await?;
        }
        "clear" => session.clear().await,
        "new id" => session.cycle_id().await?,
        _ => panic!("{step} is no step"),
    }
    shown(&session).await
}

fn router() -> Router {
    Router::new()
        .route("/step/{step}", post(step))
        .route("/name", get(async |session: Session| -> Text { Ok(session.read(&NAME).await?.unwrap_or_default()) }))
        .route("/count", get(async |session: Session| -> Text { Ok(session.read(&COUNT).await?.unwrap_or(0).to_string()) }))
        .route(
            "/name-as-number",
            get(async |session: Session| session.read(&Key::<u64>::new("name")).await.unwrap_err().to_string()),
        )
        .route("/update", post(async |session: Session| -> Text { Ok(count(&session).await?.to_string()) }))
        .route("/logout/{how}", post(logout))
        .route("/end", post(async |session: Session| -> Text { Ok(session.flush().await.map(|()| "bye".to_owned())?) }))
}

/// A logout at the same time as an update, of one handle.
async fn logout(session: Session, Path(how): Path<String>) -> Text {
    let leave = async {
        match &*how {
            "flush" => session.flush().await,
            _ => session.delete().await,
        }
    };
    let (left, _) = join(leave, session.update(&COUNT, |count| count.unwrap_or(0) + 1)).await;
    left?;
    Ok("bye".to_owned())
}

/// What others do while a request is running.
#[derive(Clone)]
struct Others {
    server: Arc<Server>,
    replica: Router,
}

impl Others {
    /// They set a value of the only session.
    async fn set(&self, field: &str, json: &str) {
        let mut connection = self.server.connection().await;
        let key = session_key(&mut connection).await;
        let revision: u64 = redis::cmd("HINCRBY").arg(&key).arg("@rev").arg(1).query_async(&mut connection).await.unwrap();
        let changed = &[field, json, "@tok", &format!("others{revision:02} ")];
        redis::cmd("HSET").arg(&key).arg(changed).exec_async(&mut connection).await.unwrap();
    }

    async fn is_live(&self) -> bool {
        let mut connection = self.server.connection().await;
        let key = session_key(&mut connection).await;
        redis::cmd("HEXISTS").arg(key).arg("@rev").query_async(&mut connection).await.unwrap()
    }
}

async fn session_key(connection: &mut redis::aio::MultiplexedConnection) -> String {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*session:*").query_async(connection).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.into_iter().next().unwrap()
}

/// One request, and others in its middle.
async fn beside(session: Session, headers: HeaderMap, Extension(others): Extension<Others>, Path(how): Path<String>) -> Text {
    match &*how {
        "a save" => {
            let save = async {
                session.insert("name", "Bob").await?;
                session.save().await
            };
            let (counted, saved) = join(count(&session), save).await;
            counted?;
            saved?;
            others.set("count", "10").await;
        }
        "an update that gives up" => {
            assert_eq!(session.get::<u64>("count").await?, Some(1));
            others.set("count", "\"ten\"").await;
            session.update(&COUNT, |count| count.unwrap_or(0) + 1).await.unwrap_err();
            session.insert("name", "Bob").await?;
        }
        "a load" => {
            assert_eq!(session.read(&COUNT).await?, Some(1));
            others.set("count", "10").await;
            session.load().await?;
            assert_eq!((session.get("count").await?, session.read(&COUNT).await?), (Some(10), Some(10)));
        }
        "a logout" => {
            others.set("name", "{damaged").await;
            assert_eq!(session.read(&COUNT).await?, Some(1));
            let cookie = headers[COOKIE].to_str().unwrap();
            send(&others.replica, Method::POST, "/end", Some(cookie)).await.ok();
            session.get::<String>("name").await.ok();
            assert!(!others.is_live().await, "a session that was ended lives again");
        }
        _ => panic!("{how} is nothing to do"),
    }
    Ok("done".to_owned())
}

/// Two other requests in the middle of one, in its task: one that is answered and one that panics.
async fn around(session: Session, headers: HeaderMap, Extension(others): Extension<Others>) -> Text {
    let cookie = headers[COOKIE].to_str().unwrap();
    others.set("name", "{damaged").await;
    assert_eq!(send(&others.replica, Method::GET, "/count", Some(cookie)).await.ok().body, "1");
    let panicking = send(&others.replica, Method::POST, "/step/none", Some(cookie));
    AssertUnwindSafe(panicking).catch_unwind().await.unwrap_err();
    Ok(session.read(&COUNT).await?.unwrap_or(0).to_string())
}

async fn replica(server: &Server) -> Router {
    router().layer(SessionLayer::new(patient_store(server).await))
}

async fn encrypted(server: &Server) -> Router {
    let store = CacheStore::builder(server.url()).prefix("secret").encryption(EncryptionKeys::new([7; 32]));
    router().layer(SessionLayer::new(store.deadline(std::time::Duration::from_secs(5)).connect().await.unwrap()))
}

async fn after(visitor: &mut Visitor, app: &Router, step: &str) -> String {
    let path = format!("/step/{}", step.replace(' ', "%20").replace(',', "%2C"));
    visitor.post(app, &path).await.ok().body
}

#[tokio::test]
async fn the_handle_and_typed_keys_show_the_same_after_every_step() {
    each_server(async |server| {
        for [one, other] in
            [[replica(&server).await, replica(&server).await], [encrypted(&server).await, encrypted(&server).await]]
        {
            let mut visitor = Visitor::default();
            let steps = [
                ("seed", "(Some(1), Some(\"Ada\"), Some([7]))"),
                ("show", "(Some(1), Some(\"Ada\"), Some([7]))"),
                ("update, then insert", "(Some(2), Some(\"Bob\"), Some([7]))"),
                ("insert, then update", "(Some(3), Some(\"Cyd\"), Some([7]))"),
                ("read, then update twice", "(Some(5), Some(\"Cyd\"), Some([7]))"),
                ("get, then update", "(Some(6), Some(\"Cyd\"), Some([7]))"),
                ("update, then set back", "(Some(6), Some(\"Cyd\"), Some([7]))"),
                ("update beside insert", "(Some(7), Some(\"Dan\"), Some([7]))"),
                ("updates beside each other", "(Some(9), Some(\"Dan\"), Some([7]))"),
                ("update beside a new id", "(Some(10), Some(\"Dan\"), Some([7]))"),
                ("in a task", "(Some(11), Some(\"Dan\"), Some([7]))"),
                ("new id", "(Some(11), Some(\"Dan\"), Some([7]))"),
                ("remove", "(Some(11), None, Some([7]))"),
                ("clear", "(None, None, None)"),
                ("show", "(None, None, None)"),
            ];
            for (number, (step, expected)) in steps.into_iter().enumerate() {
                let (here, there) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
                let before = visitor.cookie.clone();
                assert_eq!(after(&mut visitor, here, step).await, expected, "{step}");
                if step.contains("new id") {
                    assert_ne!(visitor.cookie, before, "{step}");
                }
                assert_eq!(after(&mut visitor, there, "show").await, expected, "the other replica after {step}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_update_does_not_undo_the_logout_beside_it() {
    each_server(async |server| {
        let app = replica(&server).await;
        for how in ["flush", "delete"] {
            for _ in 0..20 {
                let mut visitor = Visitor::default();
                after(&mut visitor, &app, "seed").await;
                let old = visitor.cookie.clone();
                visitor.post(&app, &format!("/logout/{how}")).await.ok();
                let late = send(&app, Method::GET, "/name", old.as_deref()).await.ok();
                assert_eq!(late.body, "", "{how}: the session lives on");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_others_do_meanwhile_is_neither_undone_nor_unseen() {
    each_server(async |server| {
        let server = Arc::new(server);
        let others = Others { server: Arc::clone(&server), replica: replica(&server).await };
        let app = router().route("/beside/{how}", post(beside)).layer(Extension(others));
        let app = app.layer(SessionLayer::new(patient_store(&server).await));
        for (how, stored) in
            [("a save", Some("10")), ("an update that gives up", Some("\"ten\"")), ("a load", Some("10")), ("a logout", None)]
        {
            let mut connection = server.connection().await;
            redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
            let mut visitor = Visitor::default();
            after(&mut visitor, &app, "seed").await;
            visitor.post(&app, &format!("/beside/{}", how.replace(' ', "%20"))).await.ok();
            let key = session_key(&mut connection).await;
            let now: Option<String> = redis::cmd("HGET").arg(key).arg("count").query_async(&mut connection).await.unwrap();
            assert_eq!(now.as_deref(), stored, "{how}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_is_at_hand_again_when_others_in_its_task_are_over() {
    each_server(async |server| {
        let server = Arc::new(server);
        let others = Others { server: Arc::clone(&server), replica: replica(&server).await };
        let app = router().route("/around", get(around)).layer(Extension(others));
        let app = app.layer(SessionLayer::new(patient_store(&server).await));
        let mut visitor = Visitor::default();
        after(&mut visitor, &app, "seed").await;
        // The handle would have found the other value damaged, and the visitor had a clean session.
        assert_eq!(visitor.get(&app, "/around").await.ok().body, "1");
    })
    .await;
}

#[tokio::test]
async fn reading_by_key_costs_one_round_trip_and_the_handle_none_more() {
    each_server(async |server| {
        let meter = Meter::before(server.port).await;
        let app = router().layer(SessionLayer::new(CacheStore::connect(meter.url()).await.unwrap()));
        let mut visitor = Visitor::default();
        for step in ["seed", "get, then update", "seed"] {
            // The second has the store learn the scripts.
            after(&mut visitor, &app, step).await;
        }
        meter.take();
        assert_eq!(visitor.get(&app, "/name").await.ok().body, "Ada");
        assert_eq!(meter.take(), 1, "by key");
        after(&mut visitor, &app, "show").await;
        assert_eq!(meter.take(), 1, "by key and by the handle");
        assert_eq!(visitor.post(&app, "/update").await.ok().body, "2");
        assert_eq!(meter.take(), 2, "one to read, one to set");
        after(&mut visitor, &app, "read, then update twice").await;
        assert_eq!(meter.take(), 3, "what was updated is not read again, through the handle neither");
        Visitor::default().get(&app, "/name").await.ok();
        assert_eq!(meter.take(), 0, "a visitor without a session");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_by_key_is_the_handles_matter() {
    each_server(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        after(&mut visitor, &app, "seed").await;
        let error = visitor.get(&app, "/name-as-number").await.ok().body;
        assert!(error.contains("invalid type"), "{error}");
        assert_eq!(visitor.get(&app, "/name").await.ok().body, "Ada", "it is as it was");

        let mut connection = server.connection().await;
        let session = session_key(&mut connection).await;
        redis::cmd("HSET").arg(session).arg("name").arg("{damaged").exec_async(&mut connection).await.unwrap();
        assert_eq!(visitor.get(&app, "/count").await.ok().body, "1", "what is whole is shown");
        let answer: Answer = visitor.get(&app, "/name").await;
        assert_eq!(
            (answer.status, &*answer.body),
            (StatusCode::OK, ""),
            "it is in quarantine, and the visitor has a clean session"
        );
        assert_eq!(visitor.get(&app, "/count").await.ok().body, "0");
    })
    .await;
}
