//! `demo-shop up`: one command, and nothing that dies takes a cart with it or stays behind.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::time::Duration;

use end_to_end::postgres::Postgres;
use end_to_end::proc;
use end_to_end::redis_server::RedisServer;
use end_to_end::server::{Signal, kill};
use end_to_end::shop::{Shop, ShopOptions};
use end_to_end::site::skus;
use end_to_end::traffic::Traffic;
use end_to_end::visitor::Visitor;
use end_to_end::wait;

/// How long the processes of a shop may take to end after their supervisor.
const END_MAX: Duration = Duration::from_secs(10);

/// SIGKILL to each replica in turn under traffic.
async fn every_replica_can_die(shop: &Shop) {
    let skus = skus(shop.url()).await.unwrap();
    let traffic = Traffic::start(shop.url(), &skus, 12, 11);
    let names: Vec<_> = shop.fleet().await.unwrap().replicas.iter().map(|replica| replica.name.clone()).collect();
    assert_eq!(names.len(), 3);
    for name in &names {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let pid = shop.kill_replica(name).await.unwrap();
        shop.replaced(name, pid).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut shoppers = traffic.stop().await.unwrap();
    let fleet = shop.fleet().await.unwrap();
    for shopper in &mut shoppers {
        shopper.check(shop.url()).await.unwrap();
        for replica in fleet.up() {
            shopper.check(&replica.url()).await.unwrap();
        }
        assert_eq!(shopper.served_by.len(), 3, "served by {:?}", shopper.served_by);
    }
    let acknowledged: u64 = shoppers.iter().map(|shopper| shopper.acknowledged).sum();
    assert!(acknowledged > 200, "only {acknowledged} changes were acknowledged: not much of a test");
}

#[tokio::test(flavor = "multi_thread")]
async fn carts_survive_every_replica_with_everything_embedded() {
    let shop = Shop::start(&ShopOptions::default()).await.unwrap();
    every_replica_can_die(&shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn carts_survive_every_replica_with_redis_and_postgres() {
    let redis = RedisServer::start().await.unwrap();
    let postgres = Postgres::start().await.unwrap();
    let options = ShopOptions { cache: Some(redis.url()), database: Some(postgres.url().to_owned()), ..ShopOptions::default() };
    let shop = Shop::start(&options).await.unwrap();
    every_replica_can_die(&shop).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: usize = redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert!(keys >= 12, "the carts are somewhere else: Redis has {keys} keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_node_that_dies_is_started_again() {
    let shop = Shop::start(&ShopOptions::default()).await.unwrap();
    let skus = skus(shop.url()).await.unwrap();
    let old = shop.fleet().await.unwrap().nodes[0].clone();
    kill(old.pid.unwrap(), Signal::KILL);
    wait::until("a new cache node", Duration::from_secs(15), || async {
        let fleet = shop.fleet().await.ok()?;
        fleet.nodes.iter().any(|node| node.state == "up" && node.pid != old.pid).then_some(())
    })
    .await
    .unwrap();
    let visitor = Visitor::new();
    let added = wait::until("the shop to take an order again", Duration::from_secs(10), || async {
        visitor.add(shop.url(), &skus[0], 1).await.ok()
    });
    added.await.unwrap();
    assert!(!visitor.cart(shop.url()).await.unwrap().lines.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_told_to_end_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut shop = Shop::start(&ShopOptions::default()).await.unwrap();
        let processes = proc::descendants(shop.server.pid());
        assert!(processes.len() >= 4, "three replicas and a node: {processes:?}");
        shop.server.signal(signal);
        let status = shop.server.ended(END_MAX).await.unwrap();
        assert!(status.success(), "{signal:?}: {status}\n{}", shop.server.log());
        none_is_left(&processes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_killed_leaves_nothing() {
    let mut shop = Shop::start(&ShopOptions::default()).await.unwrap();
    let processes = proc::descendants(shop.server.pid());
    assert!(processes.len() >= 4, "three replicas and a node: {processes:?}");
    shop.server.signal(Signal::KILL);
    shop.server.ended(END_MAX).await.unwrap();
    none_is_left(&processes).await;
}

async fn none_is_left(processes: &[u32]) {
    let gone = wait::until("the end of every process", END_MAX, || async {
        processes.iter().all(|&pid| !proc::is_alive(pid)).then_some(())
    });
    if let Err(error) = gone.await {
        let left: Vec<_> = processes
            .iter()
            .filter(|&&pid| proc::is_alive(pid))
            .map(|&pid| {
                kill(pid, Signal::KILL);
                format!("{pid} {}", proc::command_line(pid))
            })
            .collect();
        panic!("{error}; left behind: {left:?}");
    }
}
