//! What is lost on the way changes nothing, and counts once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use axum::Router;
use session_store::{
    CacheStore, SessionLayer,
    testing::{Fault, Faults, MemoryNode},
};
use support::{Server, Visitor, app, each_backend};

fn replica(store: CacheStore) -> Router {
    app::router()
        .route("/count", axum::routing::post(count))
        .layer(SessionLayer::new(store.clone()))
        .layer(axum::Extension(store))
}

async fn count(session: session_store::Session) -> Result<String, http::StatusCode> {
    use session_store::{Key, SessionExt as _};
    const COUNT: Key<u32> = Key::new("count");
    let counted = session.update(&COUNT, |count| count.unwrap_or(0) + 1).await;
    counted.map(|count| count.to_string()).map_err(|_| http::StatusCode::SERVICE_UNAVAILABLE)
}

/// A store whose answers are lost, and one that sees what became of it.
async fn pair(server: &Server, faults: &Faults) -> (Router, Router) {
    let settings = support::patient(server.url());
    let faulty = settings.clone().faults(faults.clone()).connect_lazy().unwrap();
    (replica(faulty), replica(settings.connect_lazy().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_counts_once() {
    each_backend(async |server| {
        let faults = Faults::seeded(1);
        let (faulty, sound) = pair(&server, &faults).await;
        let mut visitor = Visitor::default();
        assert_eq!(visitor.post(&sound, "/count").await.ok().body, "1");
        for (number, fault) in [Fault::Drop, Fault::Duplicate].into_iter().cycle().take(6).enumerate() {
            // The update reads, without a fault, and then commits.
            faults.next(Fault::Delay);
            faults.next(fault);
            assert_eq!(visitor.post(&faulty, "/count").await.ok().body, (number + 2).to_string(), "after a {fault}");
            assert_eq!(faults.count(fault), number as u64 / 2 + 1);
        }
        for (number, fault) in [Fault::Drop, Fault::Duplicate].into_iter().cycle().take(6).enumerate() {
            faults.next(fault);
            visitor.post(&faulty, "/cart/add/TEA/1").await.ok();
            assert_eq!(visitor.get(&sound, "/cart").await.ok().body, format!("TEA={}", number + 1), "after a {fault}");
        }
        // A session that was made and of which nobody heard is the visitor's all the same, under one id.
        let mut other = Visitor::default();
        faults.next(Fault::Drop);
        other.post(&faulty, "/set/color/blue").await.ok();
        assert_eq!(other.get(&sound, "/get/color").await.ok().body, "blue");
        assert_eq!(server.keys("shop:session:*").await.len(), 2);
        // So is a new id.
        faults.next(Fault::Delay);
        faults.next(Fault::Drop);
        other.post(&faulty, "/login-blindly/7").await.ok();
        assert_eq!(other.get(&sound, "/get/user").await.ok().body, "7");
        assert_eq!(other.get(&sound, "/get/color").await.ok().body, "blue");
    })
    .await;
}

#[tokio::test]
async fn under_faults_of_all_kinds_every_confirmed_change_counts_once() {
    let node = MemoryNode::new();
    let faults = Faults::seeded(4)
        .with(Fault::Drop, 0.2)
        .with(Fault::Error, 0.1)
        .with(Fault::Duplicate, 0.1)
        .with(Fault::Delay, 0.1)
        .with_delay_max(Duration::from_millis(2));
    let faulty = replica(node.builder().faults(faults.clone()).connect_lazy().unwrap());
    let sound = replica(node.store());
    let mut visitor = Visitor::default();
    visitor.post(&sound, "/count").await.ok();
    let (mut confirmed, mut unknown) = (1, 0);
    for _ in 0..300 {
        match visitor.post(&faulty, "/count").await.status.as_u16() {
            200 => confirmed += 1,
            _ => unknown += 1,
        }
    }
    let counted: u32 = visitor.post(&sound, "/count").await.ok().body.parse().unwrap();
    assert!((confirmed..=confirmed + unknown).contains(&(counted - 1)), "{counted} of {confirmed}, {unknown} unknown");
    assert!(unknown < 30, "three attempts in a row fail seldom: {unknown}");
    for fault in [Fault::Drop, Fault::Error, Fault::Duplicate, Fault::Delay] {
        assert!(faults.count(fault) > 10, "{fault} happened {} times", faults.count(fault));
    }
}

#[tokio::test]
async fn a_store_that_hangs_is_not_waited_for_beyond_the_deadline() {
    let faults = Faults::seeded(1);
    let settings = MemoryNode::new().builder().deadline(Duration::from_millis(100));
    let app = replica(settings.faults(faults.clone()).connect_lazy().unwrap());
    let mut visitor = Visitor::default();
    visitor.post_until_done(&app, "/set/color/blue").await;
    faults.next(Fault::Hang);
    let began = std::time::Instant::now();
    assert_eq!(visitor.get(&app, "/get/color").await.status, 503);
    assert!(began.elapsed() < Duration::from_secs(30), "a fault that hangs lasts a minute");
    assert_eq!(visitor.get_until_done(&app, "/get/color").await.body, "blue");
}
