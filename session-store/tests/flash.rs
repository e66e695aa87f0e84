//! Flash messages: shown once, on whichever replica the redirect leads to.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use axum::{
    Router,
    extract::Path,
    response::Redirect,
    routing::{get, post},
};
use http::StatusCode;
use session_store::{FLASH_MESSAGES_MAX, FLASH_TEXT_BYTES_MAX, Flash, FlashLevel, Session, SessionLayer, Unavailable};
use support::{Server, Visitor, each_backend, meter::Meter, patient_store};

fn routes() -> Router {
    Router::new()
        .route("/say/{text}", post(say))
        .route("/say-long/{bytes}", post(say_long))
        .route("/messages", get(messages))
        .route(
            "/messages-and-fail",
            get(async |flash: Flash| (StatusCode::INTERNAL_SERVER_ERROR, messages(flash).await.unwrap())),
        )
        .route("/bye", post(bye))
}

async fn replica(server: &Server) -> Router {
    routes().layer(SessionLayer::new(patient_store(server).await))
}

async fn say(flash: Flash, session: Session, Path(text): Path<String>) -> Result<Redirect, Unavailable> {
    session.insert("said", &text).await?;
    flash.success(text).await?;
    Ok(Redirect::to("/messages"))
}

async fn say_long(flash: Flash, Path(bytes): Path<usize>) -> Result<(), Unavailable> {
    Ok(flash.push(FlashLevel::Warning, "x".repeat(bytes)).await?)
}

async fn messages(flash: Flash) -> Result<String, Unavailable> {
    let messages = flash.take().await?;
    Ok(messages.iter().map(|message| format!("{}:{}", message.level, message.text)).collect::<Vec<_>>().join(","))
}

/// The session ends, and the next one begins with the farewell.
async fn bye(session: Session, flash: Flash) -> Result<(), Unavailable> {
    session.flush().await?;
    Ok(flash.info("bye").await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_shown_once_on_another_replica() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        assert_eq!(visitor.get(&b, "/messages").await.ok().body, "");
        assert_eq!(visitor.post(&a, "/say/one").await.status, StatusCode::SEE_OTHER);
        visitor.post(&b, "/say/two").await;
        assert_eq!(visitor.get(&b, "/messages").await.ok().body, "success:one,success:two");
        assert_eq!(visitor.get(&a, "/messages").await.ok().body, "");
        let before = visitor.clone();
        visitor.post(&a, "/bye").await.ok();
        assert_ne!(visitor.cookie, before.cookie);
        assert_eq!(visitor.get(&b, "/messages").await.ok().body, "info:bye");
        assert_eq!(before.clone().get(&b, "/messages").await.ok().body, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_at_once_are_all_kept_and_each_is_handed_out_once() {
    each_backend(async |server| {
        let (a, b) = (replica(&server).await, replica(&server).await);
        let mut visitor = Visitor::default();
        visitor.post(&a, "/say/first").await;
        visitor.get(&a, "/messages").await.ok();
        for round in 0..10 {
            let (mut one, mut other) = (visitor.clone(), visitor.clone());
            let paths = [format!("/say/{round}a"), format!("/say/{round}b")];
            tokio::join!(one.post(&a, &paths[0]), other.post(&b, &paths[1]));
            let (mut one, mut other) = (visitor.clone(), visitor.clone());
            let (here, there) = tokio::join!(one.get(&a, "/messages"), other.get(&b, "/messages"));
            let both = format!("{},{}", here.ok().body, there.ok().body);
            let mut shown: Vec<_> = both.split(',').filter(|text| !text.is_empty()).collect();
            shown.sort_unstable();
            assert_eq!(shown, [format!("success:{round}a"), format!("success:{round}b")]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_bounded() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        for number in 0..=FLASH_MESSAGES_MAX {
            visitor.post(&app, &format!("/say/{number}")).await;
        }
        let shown = visitor.get(&app, "/messages").await.ok().body;
        assert_eq!(shown.split(',').count(), FLASH_MESSAGES_MAX);
        assert!(shown.starts_with("success:1,"), "the oldest one went: {shown}");
        visitor.post(&app, &format!("/say-long/{}", 10 * FLASH_TEXT_BYTES_MAX)).await.ok();
        let shown = visitor.get(&app, "/messages").await.ok().body;
        assert!(shown.ends_with('…') && shown.len() <= "warning:".len() + FLASH_TEXT_BYTES_MAX, "{}", shown.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_fails_takes_its_messages_with_it() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/say/one").await;
        assert_eq!(visitor.get(&app, "/messages-and-fail").await.body, "success:one");
        assert_eq!(visitor.get(&app, "/messages").await.ok().body, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_along_with_what_else_was_changed() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let app = routes().layer(SessionLayer::new(support::patient(meter.url()).connect().await.unwrap()));
        let mut visitor = Visitor::default();
        // From now on the store knows the scripts.
        for _ in 0..2 {
            visitor.post(&app, "/say/hello").await;
        }
        meter.take();
        visitor.post(&app, "/say/again").await;
        assert_eq!(meter.take(), 2, "one to read, and one for both changes");
        visitor.get(&app, "/messages").await.ok();
        assert_eq!(meter.take(), 2);
        visitor.get(&app, "/messages").await.ok();
        assert_eq!(meter.take(), 1, "there are none");
    })
    .await;
}
