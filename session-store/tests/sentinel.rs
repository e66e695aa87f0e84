//! Three real Sentinels: a failover that is asked for, and one after a crash, under traffic.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use session_store::BreakerState;
use support::{
    Engine, Moment, Visitor, default_store,
    fleet::{Security, Sentinels, free_port, until},
    patient,
    traffic::{Traffic, app_on},
};

const PATIENCE: Duration = support::PATIENCE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_under_traffic_and_no_visitor_sees_an_error() {
    for (engine, security) in [(Engine::Valkey, Security::Plain), (Engine::Redis, Security::TlsAndAcl)] {
        let mut fleet = Sentinels::start_of(engine, security).await;
        let store = default_store(&fleet.url).await;
        assert_eq!(store.status().topology, "sentinel");
        let app = app_on(store.clone(), PATIENCE);

        // Asked for: the old primary lives on as a replica, and says READONLY.
        let before = fleet.primary().await.store_port;
        let traffic = Traffic::start(&app, 16).await;
        fleet.fail_over().await;
        let began = Instant::now();
        while fleet.primary().await.store_port == before {
            assert!(began.elapsed() < PATIENCE, "nobody else is the primary");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Sentinel does not stop writes before it promotes: what the old primary took meanwhile is lost. How long that is depends on
        // Sentinel and on how busy the machine is.
        let summary = traffic.finish(Some((Instant::now(), Duration::from_secs(60)))).await;
        assert!(summary.confirmed > 100 && summary.lost < summary.confirmed / 5, "{summary:?}");
        assert_ne!(fleet.primary().await.store_port, before);

        // A crash, which loses all that no replica has.
        fleet.until_settled().await;
        let began = Moment::now();
        let traffic = Traffic::start(&app, 16).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let victim = fleet.primary().await;
        let address = format!("127.0.0.1:{}", victim.store_port);
        until(PATIENCE, "the store knows it", async || store.status().nodes[0].address == address).await;
        let lost_at = Instant::now();
        victim.kill();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let summary = traffic.finish(Some((lost_at, Duration::from_millis(500) + began.stalled()))).await;
        assert!(summary.confirmed > 100 && summary.slowest > Duration::from_millis(500), "{summary:?}");
        let node = store.status().nodes.remove(0);
        assert_ne!(node.address, address);
        until(PATIENCE, "the store is well", async || store.status().nodes[0].breaker == BreakerState::Closed).await;

        // It comes back, and is told that it is a replica; nobody is led to it.
        let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
        fleet.nodes.iter_mut().find(|node| node.store_port == port).unwrap().start();
        let traffic = Traffic::start(&app, 4).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let summary = traffic.finish(None).await;
        assert!(summary.slowest < Duration::from_secs(1), "{summary:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_that_answers_is_enough_and_a_hung_primary_is_left() {
    let mut fleet = Sentinels::start(Security::Plain).await;
    let dead = format!("127.0.0.1:{}", free_port());
    let alive = format!("127.0.0.1:{}", fleet.sentinels[2].port);
    let store = default_store(format!("redis+sentinel://{dead},{alive}/main")).await;
    let app = app_on(store.clone(), PATIENCE);
    let mut visitor = Visitor::default();
    visitor.post(&app, "/cart/add/TEA/1").await.ok();
    fleet.primary().await.signal("-STOP");
    visitor.post(&app, "/cart/add/TEA/1").await.ok();
    assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    let hosts = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}")).join(",");
    let began = Moment::now();
    let error = patient(format!("redis+sentinel://{hosts}/main")).connect().await.unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(error.contains("the Sentinels 127.0.0.1:") && error.contains("connection refused"), "{error}");

    let fleet = Sentinels::start(Security::Plain).await;
    let error = patient(fleet.url.replace("/main", "/other")).connect().await.unwrap_err().to_string();
    assert!(error.contains("by the name `other`"), "{error}");
}
