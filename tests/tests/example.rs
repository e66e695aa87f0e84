//! The example that adds the layer to a router runs as the README says.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use end_to_end::cache_node::CacheNode;
use end_to_end::server::Server;
use end_to_end::visitor::Visitor;

/// Built by `cargo build --examples`, next to this test's own folder.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = test.parent().unwrap().parent().unwrap().join("examples/ten_lines");
    assert!(file.is_file(), "{} is not built; run: cargo build --workspace --examples", file.display());
    file
}

#[tokio::test]
async fn the_example_runs() {
    // The addresses in the example are those a reader would use, so they must be free here.
    for address in ["127.0.0.1:6379", "127.0.0.1:3000"] {
        let free = TcpListener::bind(address);
        assert!(free.is_ok(), "the example uses {address}; end what listens there, then run the tests again");
    }
    let _node = CacheNode::start_on(6379, &[]).await.unwrap();
    let mut server = Server::spawn("ten_lines", Command::new(example())).unwrap();
    server.listens_on("127.0.0.1:3000").await.unwrap();
    let visitor = Visitor::new();
    for visit in ["visit 1\n", "visit 2\n", "visit 3\n"] {
        let answer = visitor.get("http://127.0.0.1:3000/").await.unwrap().success().unwrap();
        assert_eq!(answer.text(), visit);
    }
    // Another process, the same session.
    drop(server);
    let mut server = Server::spawn("ten_lines", Command::new(example())).unwrap();
    server.listens_on("127.0.0.1:3000").await.unwrap();
    let answer = visitor.get("http://127.0.0.1:3000/").await.unwrap().success().unwrap();
    assert_eq!(answer.text(), "visit 4\n");
}
