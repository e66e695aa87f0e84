//! The tests' own tools: a server that a test starts is gone when its guard is, and a missing program is an error.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use end_to_end::postgres::Postgres;
use end_to_end::proc;
use end_to_end::program;
use end_to_end::redis_server::RedisServer;

#[tokio::test]
async fn a_dropped_guard_leaves_no_process() {
    let redis = RedisServer::start().await.unwrap();
    let postgres = Postgres::start().await.unwrap();
    let mut pids = vec![redis.server.pid(), postgres.server.pid()];
    pids.extend(proc::descendants(postgres.server.pid()));
    assert!(pids.len() > 2, "PostgreSQL has workers: {pids:?}");
    assert!(pids.iter().all(|&pid| proc::is_alive(pid)));
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
