//! The same suite on every store, database and balancer: three replicas, no affinity.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use end_to_end::scenario;
use end_to_end::site::{Balancer, Database, Site, Store};

macro_rules! suite {
    ($name:ident, $store:expr, $database:expr, $balancer:expr) => {
        mod $name {
            use super::{Balancer, Database, Site, Store, scenario};

            async fn site() -> Site {
                Site::start($store, $database, $balancer).await.unwrap()
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn one_cart_on_every_replica() {
                scenario::one_cart_on_every_replica(&site().await).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn concurrent_adds_are_exact() {
                scenario::concurrent_adds_are_exact(&site().await).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn logout_outlives_a_slow_write() {
                scenario::logout_outlives_a_slow_write(&site().await).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_form_sent_twice_is_one_order() {
                scenario::a_form_sent_twice_is_one_order(&site().await).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn login_merges_the_cart() {
                scenario::login_merges_the_cart(&site().await).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn an_outage_of_the_store_loses_nothing() {
                scenario::an_outage_of_the_store_loses_nothing(&site().await).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn carts_survive_every_replica() {
                scenario::carts_survive_every_replica(&mut site().await).await.unwrap();
            }
        }
    };
}

suite!(cache_node, Store::CacheNode, Database::Sqlite, Balancer::Own);
suite!(redis, Store::Redis, Database::Sqlite, Balancer::Own);
suite!(nginx, Store::CacheNode, Database::Sqlite, Balancer::Nginx);
suite!(valkey_and_postgres, Store::Valkey, Database::Postgres, Balancer::Own);
