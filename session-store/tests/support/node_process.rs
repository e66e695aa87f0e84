//! Our own node as a process: this very test, started once more. A package has no way to another one's binary.

use crate::support::server::{Backend, NODE_ARGUMENTS, Server};

#[test]
fn this_test_is_a_node_when_it_is_started_as_one() {
    if let Ok(arguments) = std::env::var(NODE_ARGUMENTS) {
        let arguments = std::iter::once("cache-node").chain(arguments.split('\n'));
        let ended = cache_node::cli::run(arguments.map(Into::into));
        panic!("the node has ended by itself: {ended:?}");
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let server = Server::start(Backend::CacheNodeProcess).await;
        let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut server.connection().await).await.unwrap();
        assert!(info.contains("aof_enabled:1"), "{info}");
    });
}
