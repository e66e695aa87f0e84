//! What the conformance suite says of this library, and of what tower-sessions has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use async_trait::async_trait;
use session_store::{
    SessionLayer,
    testing::{MemoryNode, Report, conformance, conformance_of_layer},
};
use support::{Engine, Server, gate::Pair, patient_store, server::Backend};
use tower_sessions::{
    MemoryStore, SessionStore,
    session::{Id, Record},
    session_store as theirs,
};
use tower_sessions_014::{SessionStore as _, session as session_014};
use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{Builder, ClientLike as _, Config, Pool},
};

/// What `SessionManagerLayer` of tower-sessions does not hold, whatever the store.
const OF_THEIR_LAYER: [&str; 6] = [
    "changes_at_the_same_time_are_kept",
    "a_new_id_logs_nobody_out",
    "an_error_after_a_new_id_loses_nothing",
    "of_two_new_ids_one_lives",
    "reads_extend_the_idle_timeout",
    "an_expiry_of_its_own_lasts",
];

#[track_caller]
fn assert_failed(report: &Report, expected: &[&str]) {
    let mut expected = expected.to_vec();
    let mut failed = report.failed();
    expected.sort_unstable();
    failed.sort_unstable();
    assert_eq!(failed, expected, "\n{report}");
}

#[tokio::test]
async fn this_layer_passes_on_the_node_in_memory() {
    let node = MemoryNode::new();
    let replica = async |expiry| SessionLayer::new(node.store()).with_expiry(expiry);
    let report = conformance_of_layer(replica).with_time(|time| node.advance(time)).run().await;
    assert_eq!(report.checks.len(), 15);
    report.assert_all_passed();
}

// A test for each: most of it is waiting, and so they wait together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_layer_passes_on_redis() {
    this_layer_passes_on(Backend::Real(Engine::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_layer_passes_on_valkey() {
    this_layer_passes_on(Backend::Real(Engine::Valkey)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_layer_passes_on_a_cache_node() {
    this_layer_passes_on(Backend::CacheNode).await;
}

async fn this_layer_passes_on(backend: Backend) {
    let server = Server::start(backend).await;
    let replica = async |expiry| SessionLayer::new(patient_store(&server).await).with_expiry(expiry);
    conformance_of_layer(replica).run().await.assert_all_passed();
}

/// Beside the session's cookie there is another one, with what the visitor has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_layer_passes_with_a_replica_to_read_from() {
    let pair = Pair::start().await;
    let replica = async |expiry| {
        let store = support::patient(pair.url()).connect().await.unwrap();
        SessionLayer::new(store).with_expiry(expiry)
    };
    conformance_of_layer(replica).run().await.assert_all_passed();
}

/// What is lost is what the layer of tower-sessions loses, of which the store is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_store_under_their_layer_has_the_faults_of_that_layer() {
    let node = MemoryNode::new();
    let report = conformance(async || node.store()).with_time(|time| node.advance(time)).run().await;
    assert_eq!(report.checks.len(), 19);
    assert_failed(&report, &OF_THEIR_LAYER);
    let server = Server::start(Backend::Real(Engine::usual())).await;
    let report = conformance(async || patient_store(&server).await).run().await;
    assert_failed(&report, &OF_THEIR_LAYER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_store_in_memory_has_more() {
    let store = MemoryStore::default();
    let report = conformance(async || store.clone()).run().await;
    let of_the_store =
        ["a_logout_is_final", "a_dead_session_gets_no_cookie", "an_id_ends_with_its_session", "a_deleted_record_stays_deleted"];
    assert_failed(&report, &[&OF_THEIR_LAYER[..], &of_the_store].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_store_on_redis_has_more_too() {
    let server = Server::start(Backend::Real(Engine::usual())).await;
    let pool = Builder::from_config(Config::from_url(&server.url()).unwrap()).build_pool(2).unwrap();
    pool.init().await.unwrap();
    let report = conformance(async || Theirs(RedisStore::new(pool.clone()))).run().await;
    // A taken id is an error of its client's, which expects a boolean.
    let of_the_store = ["an_id_ends_with_its_session", "a_taken_id_is_not_overwritten"];
    assert_failed(&report, &[&OF_THEIR_LAYER[..], &of_the_store].concat());
}

/// The published store, which is written for version 0.14, under the layer of version 0.15.
#[derive(Debug, Clone)]
struct Theirs(RedisStore<Pool>);

fn to_014(record: &Record) -> session_014::Record {
    session_014::Record { id: session_014::Id(record.id.0), data: record.data.clone(), expiry_date: record.expiry_date }
}

fn of_014(record: session_014::Record) -> Record {
    Record { id: Id(record.id.0), data: record.data, expiry_date: record.expiry_date }
}

#[allow(clippy::needless_pass_by_value, reason = "map_err hands it over")]
fn error(error: tower_sessions_014::session_store::Error) -> theirs::Error {
    theirs::Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for Theirs {
    async fn create(&self, record: &mut Record) -> theirs::Result<()> {
        let mut created = to_014(record);
        self.0.create(&mut created).await.map_err(error)?;
        *record = of_014(created);
        Ok(())
    }

    async fn save(&self, record: &Record) -> theirs::Result<()> {
        self.0.save(&to_014(record)).await.map_err(error)
    }

    async fn load(&self, id: &Id) -> theirs::Result<Option<Record>> {
        Ok(self.0.load(&session_014::Id(id.0)).await.map_err(error)?.map(of_014))
    }

    async fn delete(&self, id: &Id) -> theirs::Result<()> {
        self.0.delete(&session_014::Id(id.0)).await.map_err(error)
    }
}
