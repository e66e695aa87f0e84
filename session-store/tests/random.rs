//! Requests drawn at random: of one visitor, to two replicas, some of them within another one, with answers of the store lost and operations done
//! twice. In memory, on a real server and on our node they come out the same, and as a simple model says.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests fail by panicking, and share their parts")]

#[path = "random/model.rs"]
mod model;
#[path = "random/requests.rs"]
mod requests;
mod support;
#[path = "random/world.rs"]
mod world;

use std::ops::Range;

use support::{Engine, server::Backend};
use world::trace;

/// Those of each run, and of the one that looks further.
const SEEDS: Range<u64> = 0..24;
const MORE_SEEDS: Range<u64> = 24..400;
/// Requests of each seed, those within others not counted.
const REQUESTS: usize = 20;
const IDLE_S: i64 = 1_800;
/// What a busy machine may need between a commit and a look at its time.
const LATE_MS: i64 = 60_000;

async fn come_out_the_same(seeds: Range<u64>) {
    for seed in seeds {
        let in_memory = trace(None, seed).await;
        for backend in [Backend::Real(Engine::usual()), Backend::CacheNode] {
            let there = trace(Some(backend), seed).await;
            for (here, there) in there.iter().zip(&in_memory) {
                assert_eq!(here, there, "on {backend:?}, and in memory");
            }
            assert_eq!(there.len(), in_memory.len(), "on {backend:?}, and in memory");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_drawn_at_random_come_out_the_same_everywhere_and_as_a_model_says() {
    come_out_the_same(SEEDS).await;
}

#[ignore = "takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_more_requests_drawn_at_random_come_out_the_same() {
    come_out_the_same(MORE_SEEDS).await;
}
