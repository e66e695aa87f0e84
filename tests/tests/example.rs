//! The examples run as they say.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use end_to_end::cache_node::CacheNode;
use end_to_end::port::free_port;
use end_to_end::redis_server::RedisServer;
use end_to_end::server::{Server, Signal};
use end_to_end::visitor::Visitor;
use end_to_end::wait;

/// Built by `cargo build --examples`, next to this test's own folder.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = test.parent().unwrap().parent().unwrap().join("examples").join(name);
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
    let mut server = Server::spawn("ten_lines", Command::new(example("ten_lines"))).unwrap();
    server.listens_on("127.0.0.1:3000").await.unwrap();
    let visitor = Visitor::new();
    for visit in ["visit 1\n", "visit 2\n", "visit 3\n"] {
        let answer = visitor.get("http://127.0.0.1:3000/").await.unwrap().success().unwrap();
        assert_eq!(answer.text(), visit);
    }
    // Another process, the same session.
    drop(server);
    let mut server = Server::spawn("ten_lines", Command::new(example("ten_lines"))).unwrap();
    server.listens_on("127.0.0.1:3000").await.unwrap();
    let answer = visitor.get("http://127.0.0.1:3000/").await.unwrap().success().unwrap();
    assert_eq!(answer.text(), "visit 4\n");
}

/// One that tells where it listens; the address, without the slash at its end.
async fn start(name: &str, args: &[&str]) -> (Server, String) {
    let mut command = Command::new(example(name));
    command.args(args);
    let mut server = Server::spawn(name, command).unwrap();
    let url = server.line_with("http://").await.unwrap();
    (server, url.trim_end_matches('/').to_owned())
}

#[tokio::test]
async fn a_cart_comes_along_at_the_login() {
    let redis = RedisServer::start().await.unwrap();
    for store in [None, Some(redis.url())] {
        let (_server, url) = start("cart", &store.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let post = async |visitor: &Visitor, path: &str, fields: &[(&str, &str)]| {
            visitor.form(&format!("{url}{path}"), fields).await.unwrap().success().unwrap().text()
        };
        let cart = async |visitor: &Visitor| visitor.get(&format!("{url}/")).await.unwrap().success().unwrap().text();
        let (at_home, at_work) = (Visitor::new(), Visitor::new());
        assert_eq!(post(&at_home, "/add", &[("sku", "TEA-001"), ("quantity", "2")]).await, "2 in the cart\n");
        assert_eq!(post(&at_home, "/set", &[("sku", "TEA-001"), ("quantity", "3")]).await, "3 in the cart\n");
        post(&at_home, "/login", &[("user", "ada")]).await;
        for _ in 0..2 {
            post(&at_work, "/add", &[("sku", "CUP-001"), ("quantity", "1"), ("token", "one-form-sent-twice")]).await;
        }
        assert_eq!(cart(&at_work).await, "1 x CUP-001\n");
        post(&at_work, "/login", &[("user", "ada")]).await;
        for visitor in [&at_home, &at_work] {
            assert_eq!(cart(visitor).await, "1 x CUP-001\n3 x TEA-001\n");
        }
        post(&at_work, "/logout", &[]).await;
        assert_eq!(cart(&at_work).await, "");
        let refused = at_home.form(&format!("{url}/add"), &[("sku", "@"), ("quantity", "1")]).await.unwrap();
        assert_eq!(refused.status, 422);
    }
}

/// `cache-node cluster`, its ready line, and a command that tells its controller something.
async fn cluster(folder: &Path) -> (Server, String, impl Fn(&str) -> Server) {
    let dir = folder.to_str().unwrap().to_owned();
    let program = end_to_end::program::built("cache-node", "CACHE_NODE_BIN").unwrap();
    let mut command = Command::new(&program);
    command.args(["cluster", "--dir", &dir, "--replicas", "1", "--port", "0", "--reader-port", "0"]);
    command.args(["--sentinel-port", "0", "--http-port", "0"]);
    let mut cluster = Server::spawn("cluster", command).unwrap();
    let ready = cluster.line_with("cluster ready on ").await.unwrap();
    let tell = move |what: &str| {
        let mut command = Command::new(&program);
        command.args(["cluster", what, "--dir", &dir]);
        Server::spawn(what, command).unwrap()
    };
    (cluster, ready, tell)
}

/// The address that follows a word of the ready line.
fn address<'a>(ready: &'a str, word: &str) -> &'a str {
    let (_, rest) = ready.split_once(word).unwrap();
    rest.split([' ', ',', ')']).next().unwrap()
}

/// How often sessions were read from the replica that this endpoint leads to.
async fn reads(reader: &str) -> u64 {
    let client = redis::Client::open(format!("redis://{reader}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = |line: &str| line.strip_prefix("cmdstat_hgetall:calls=")?.split(',').next()?.parse().ok();
    info.lines().find_map(calls).unwrap_or(0)
}

#[tokio::test]
async fn the_reader_of_a_cluster_serves_reads_and_nobody_sees_less_than_he_was_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut cluster, ready, tell) = cluster(folder.path()).await;
    let (primary, reader) = (address(&ready, "ready on "), address(&ready, "reader "));
    let store = format!("redis://{primary}?reader={reader}");
    let ((_a, a), (_b, b)) = (start("sentinel", &[&store]).await, start("sentinel", &[&store]).await);
    let visitor = Visitor::new();
    let visit = async |url: &str| visitor.get(&format!("{url}/")).await.unwrap().success().unwrap().text();
    let number = async |url: &str| visitor.get(&format!("{url}/visits")).await.unwrap().success().unwrap().text();
    let mut visits = 0;
    let mut told_and_read = async |rounds| {
        for _ in 0..rounds {
            visits += 1;
            assert_eq!(visit(&a).await, format!("visit {visits}\n"));
            for url in [&b, &a] {
                assert_eq!(number(url).await, format!("{visits} visits\n"));
            }
        }
        visits
    };
    let visits = told_and_read(30).await;
    // A change of the last two seconds is looked for on the primary.
    let before = reads(reader).await;
    wait::until("a read from the replica", Duration::from_secs(20), || async {
        assert_eq!(number(&b).await, format!("{visits} visits\n"));
        (reads(reader).await > before).then_some(())
    })
    .await
    .unwrap();
    // The endpoints lead to other nodes after a failover.
    let failover = tell("failover");
    assert_eq!(told_and_read(30).await, 60);
    wait::until("a read from the other replica", Duration::from_secs(30), || async {
        assert_eq!(number(&b).await, "60 visits\n");
        let before = reads(reader).await;
        assert_eq!(number(&b).await, "60 visits\n");
        (reads(reader).await > before).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", failover.log()));
    cluster.signal(Signal::TERM);
    cluster.ended(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn sentinels_lead_to_the_primary_through_a_failover() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut cluster, ready, tell) = cluster(folder.path()).await;
    let sentinel = address(&ready, "sentinel ");
    let (_server, url) = start("sentinel", &[&format!("redis+sentinel://{sentinel}/mymaster")]).await;
    let visitor = Visitor::new();
    let visit = async || visitor.get(&format!("{url}/")).await.unwrap().success().unwrap().text();
    let nodes = async || visitor.get(&format!("{url}/store")).await.unwrap().success().unwrap().text();
    assert_eq!(visit().await, "visit 1\n");
    let before = nodes().await;
    let mut visits = 1;
    // The cluster is ready with its primary; a replica that has not copied it yet takes nothing over.
    let failover = loop {
        let mut failover = tell("failover");
        for _ in 0..20 {
            visits += 1;
            assert_eq!(visit().await, format!("visit {visits}\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let is_done = failover.ended(Duration::from_secs(20)).await.unwrap().success();
        if is_done {
            break failover;
        }
        assert!(failover.log().contains("no replica has the data yet"), "{}", failover.log());
        assert!(visits < 400, "no replica came to have the data");
    };
    let failed_over = wait::until("another primary", Duration::from_secs(20), || async {
        visit().await;
        (nodes().await.split(' ').next() != before.split(' ').next()).then_some(())
    });
    failed_over.await.unwrap_or_else(|error| panic!("{error}: {}", failover.log()));
    cluster.signal(Signal::TERM);
    cluster.ended(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_asked_where_a_key_is() {
    // Left to itself the bus takes the port 10,000 above, where the kernel's outgoing connections are.
    let buses = [(); 3].map(|()| free_port().to_string());
    let mut nodes = Vec::new();
    for bus in &buses {
        nodes.push(RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", bus]).await.unwrap());
    }
    for (number, node) in nodes.iter().enumerate() {
        let client = redis::Client::open(node.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut ask = async |words: &str| {
            let mut words = words.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                command.arg(word);
            });
            command.query_async::<String>(&mut connection).await.unwrap()
        };
        ask(["CLUSTER ADDSLOTSRANGE 0 5460", "CLUSTER ADDSLOTSRANGE 5461 10922", "CLUSTER ADDSLOTSRANGE 10923 16383"][number])
            .await;
        ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
        ask(&format!("CLUSTER MEET {} {}", nodes[0].address().replace(':', " "), buses[0])).await;
    }
    wait::until("the nodes to be a cluster", Duration::from_secs(20), || async {
        for node in &nodes {
            let mut connection = redis::Client::open(node.url()).ok()?.get_multiplexed_async_connection().await.ok()?;
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await.ok()?;
            let is_ok = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3");
            is_ok.then_some(())?;
        }
        Some(())
    })
    .await
    .unwrap();
    let (_server, url) = start("cluster", &[&format!("redis+cluster://{},{}", nodes[0].address(), nodes[1].address())]).await;
    let visitor = Visitor::new();
    for number in 1..=5 {
        let answer = visitor.get(&format!("{url}/")).await.unwrap().success().unwrap();
        assert_eq!(answer.text(), format!("visit {number}\n"));
    }
    for _ in 0..20 {
        let answer = Visitor::new().get(&format!("{url}/")).await.unwrap().success().unwrap();
        assert_eq!(answer.text(), "visit 1\n");
    }
    let told = visitor.get(&format!("{url}/store")).await.unwrap().success().unwrap().text();
    assert_eq!(told.lines().count(), 3, "{told}");
}

#[tokio::test]
async fn an_example_that_needs_a_store_says_which() {
    for name in ["sentinel", "cluster"] {
        let mut server = Server::spawn(name, Command::new(example(name))).unwrap();
        let status = server.ended(Duration::from_secs(10)).await.unwrap();
        assert!(!status.success());
        assert!(server.log().contains(&format!("redis+{name}://")), "{}", server.log());
    }
}
