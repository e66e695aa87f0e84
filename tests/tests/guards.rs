//! The tests' own tools: a server that a test starts is gone when its guard is, and a missing program is an error.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::time::Duration;

use end_to_end::postgres::Postgres;
use end_to_end::proc;
use end_to_end::program;
use end_to_end::redis_server::RedisServer;
use end_to_end::site::{Balancer, Database, Site, Store};
use end_to_end::traffic::Traffic;

#[tokio::test]
async fn a_dropped_guard_leaves_no_process() {
    let redis = RedisServer::start().await.unwrap();
    let postgres = Postgres::start().await.unwrap();
    let mut pids = vec![redis.server.pid(), postgres.server.pid()];
    assert!(pids.iter().all(|&pid| proc::is_alive(pid)));
    // One of them may be the process that made the database, which ends by itself.
    pids.extend(proc::descendants(postgres.server.pid()));
    assert!(pids.len() > 2, "PostgreSQL has workers: {pids:?}");
    drop((redis, postgres));
    let left: Vec<_> = pids.into_iter().filter(|&pid| proc::is_alive(pid)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[tokio::test]
async fn a_panic_leaves_no_process() {
    let task = tokio::spawn(async {
        let redis = RedisServer::start().await.unwrap();
        let pid = redis.server.pid();
        if proc::is_alive(pid) {
            std::panic::panic_any(pid);
        }
    });
    let pid = *task.await.unwrap_err().into_panic().downcast::<u32>().unwrap();
    assert!(!proc::is_alive(pid));
}

#[test]
fn a_missing_program_is_an_error_that_names_its_package() {
    let error = program::installed("no-such-server", "its-package").unwrap_err().to_string();
    assert!(error.contains("apt-get install --no-install-recommends its-package"), "{error}");
    let error = program::built("no-such-binary", "NO_SUCH_VARIABLE").unwrap_err().to_string();
    assert!(error.contains("cargo build --release -p no-such-binary"), "{error}");
}

/// Traffic, then one change behind the shop's back; every shopper's ledger must notice.
async fn ledgers_notice(change: &str) {
    let site = Site::start(Store::Redis, Database::Sqlite, Balancer::Own).await.unwrap();
    let skus = site.skus().await.unwrap();
    let traffic = Traffic::start(site.url(), &skus[..3], 3, 5);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut shoppers = traffic.stop().await.unwrap();
    let client = redis::Client::open(site.store_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for shopper in &mut shoppers {
        shopper.check(site.url()).await.unwrap();
    }
    let changed: i64 = redis::cmd("EVAL").arg(change).arg(0).arg(&skus[..3]).query_async(&mut connection).await.unwrap();
    assert!(changed >= 3, "the script changed {changed} carts");
    for shopper in &mut shoppers {
        let error = shopper.check(site.url()).await.expect_err("a cart was changed and its ledger did not notice");
        assert!(error.to_string().contains("in the cart"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_line_is_noticed() {
    ledgers_notice(
        "local n = 0
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if redis.call('TYPE', key).ok == 'hash' then
                for _, sku in ipairs(ARGV) do n = n + redis.call('HDEL', key, sku) end
            end
        end
        return n",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_counted_twice_is_noticed() {
    ledgers_notice(
        "local n = 0
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if redis.call('TYPE', key).ok == 'hash' then
                for _, sku in ipairs(ARGV) do
                    if redis.call('HEXISTS', key, sku) == 1 then
                        redis.call('HINCRBY', key, sku, 1)
                        n = n + 1
                    end
                end
            end
        end
        return n",
    )
    .await;
}
