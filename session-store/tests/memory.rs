//! The node in memory: what applications test with is what they run with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use axum::Router;
use session_store::{CacheStoreBuilder, Expiry, SessionLayer, testing::MemoryNode};
use support::{Visitor, app};

fn replica(settings: CacheStoreBuilder) -> Router {
    let layer = SessionLayer::new(settings.connect_lazy().unwrap());
    app::router().layer(layer.with_expiry(Expiry::OnInactivity(time::Duration::minutes(16))))
}

#[tokio::test]
async fn replicas_share_it_and_time_passes_at_once() {
    let node = MemoryNode::new();
    let (a, b) = (replica(node.builder()), replica(node.builder()));
    let mut visitor = Visitor::default();
    visitor.post(&a, "/set/color/blue").await.ok();
    assert_eq!(visitor.get(&b, "/get/color").await.ok().body, "blue");
    for _ in 0..4 {
        node.advance(Duration::from_secs(15 * 60));
        assert_eq!(visitor.get(&b, "/get/color").await.ok().body, "blue", "a read extends its time");
    }
    node.advance(Duration::from_secs(17 * 60));
    assert_eq!(visitor.get(&a, "/get/color").await.ok().body, "-");
}

#[tokio::test]
async fn a_node_that_is_stopped_is_an_outage_and_keeps_what_it_has() {
    let node = MemoryNode::new();
    let app = replica(node.builder().deadline(Duration::from_millis(100)));
    let mut visitor = Visitor::default();
    visitor.post_until_done(&app, "/set/color/blue").await;
    node.stop();
    assert_eq!(visitor.get(&app, "/get/color").await.status, 503);
    node.start();
    // The breaker closes when a probe has found it.
    let began = tokio::time::Instant::now();
    loop {
        let answer = visitor.get(&app, "/get/color").await;
        if answer.status == 200 {
            assert_eq!(answer.body, "blue");
            break;
        }
        assert!(began.elapsed() < support::PATIENCE, "it does not come back: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
