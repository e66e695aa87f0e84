//! FAILOVER: a primary hands its role to a replica while clients write, between nodes and with a real Redis on either side; CLIENT PAUSE.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    Value, Wire,
    process::Binary,
    server::{Kind, Server},
    wait_until,
};

fn failover_state(server: &Server) -> String {
    server.info("master_failover_state")
}

fn signal(server: &Server, name: &str) {
    support::cluster::signal(name, server.process_id());
}

/// Starts a server and replicas of it, all of them up to date.
fn replicated(primary: Kind, replicas: &[Kind]) -> (Server, Vec<Server>) {
    let primary = Server::start(primary, &[]);
    let replicas: Vec<Server> = replicas.iter().map(|kind| Server::start(*kind, &[])).collect();
    for replica in &replicas {
        replica.follow(&primary);
        replica.wait_for_link();
    }
    wait_until_online(&primary, replicas.len());
    (primary, replicas)
}

/// The primary learns of a replica that has everything a little later than the replica itself.
fn wait_until_online(primary: &Server, replicas: usize) {
    let is_online = |number| primary.info(&format!("slave{number}")).contains("state=online");
    wait_until("the primary knows that its replicas are online", || (0..replicas).all(is_online));
}

fn hands_over(primary: Kind, replicas: [Kind; 2], names_target: bool) {
    hands_over_with(&[], primary, replicas, names_target);
}

fn hands_over_with(settings: &[&str], primary: Kind, replicas: [Kind; 2], names_target: bool) {
    let (old, replicas) = replicated(primary, &replicas);
    for setting in settings {
        assert_eq!(old.wire().run(setting), Value::ok());
    }
    // Whoever writes is told the truth: what was acknowledged is on the new primary.
    let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (is_over, acknowledged, mut wire) = (Arc::clone(&is_over), Arc::clone(&acknowledged), old.wire());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // No connection ends: what was written under the old primary is what the new one begins with.
                    let reply = wire.call(&["INCR", "counter"]);
                    if matches!(reply, Value::Integer(_)) {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert!(reply.is_error("READONLY"), "{reply:?}");
                        return;
                    }
                }
            })
        })
        .collect();
    wait_until("the writers write", || acknowledged.load(Ordering::Relaxed) > 200);
    let command = match names_target {
        true => format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 20000", replicas[0].address().port()),
        false => "FAILOVER".to_owned(),
    };
    assert_eq!(old.wire().run(&command), Value::ok());
    wait_until("the old primary is a replica", || old.info("role") == "slave");
    old.wait_for_link();
    assert_eq!(failover_state(&old), "no-failover");
    is_over.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let port: u16 = old.info("master_port").parse().unwrap();
    let new = replicas.iter().find(|replica| replica.address().port() == port).expect("one of its replicas");
    assert!(!names_target || std::ptr::eq(new, &raw const replicas[0]));
    assert_eq!(new.info("role"), "master");
    assert_eq!(new.wire().run("GET counter"), Value::bulk(&acknowledged.load(Ordering::Relaxed).to_string()));
    assert_eq!(new.number("sync_full"), 0, "the old primary went on with the stream");
    // Everyone follows the new one, the others by way of the old one.
    assert_eq!(new.wire().run("SET new 1"), Value::ok());
    for server in replicas.iter().chain([&old]) {
        wait_until("it is replicated", || server.wire().run("GET new") == Value::bulk("1"));
    }
    assert!(old.wire().run("SET old 1").is_error("READONLY"));
}

#[test]
fn a_node_hands_its_role_to_a_node() {
    hands_over(Kind::Node, [Kind::Node, Kind::Node], true);
    hands_over(Kind::Node, [Kind::Node, Kind::Node], false);
}

/// Each write waits for a replica, or for every one, and is answered although the role is given away meanwhile.
#[test]
fn a_node_that_waits_for_replicas_hands_its_role_over() {
    for (names_target, needed) in [(true, "any"), (false, "any"), (false, "all")] {
        let settings = ["CONFIG SET durability sync", &format!("CONFIG SET sync-replicas {needed}")];
        hands_over_with(&settings, Kind::Node, [Kind::Node, Kind::Node], names_target);
    }
}

#[test]
fn a_node_hands_its_role_to_redis() {
    hands_over(Kind::Node, [Kind::Redis, Kind::Node], true);
}

#[test]
fn redis_hands_its_role_to_a_node() {
    hands_over(Kind::Redis, [Kind::Node, Kind::Redis], true);
}

#[test]
fn what_cannot_be_done_is_said_as_redis_says_it() {
    let refusals = [Kind::Node, Kind::Redis].map(|kind| {
        let (primary, replicas) = replicated(kind, &[Kind::Node]);
        let port = replicas[0].address().port();
        let alone = Server::start(kind, &[]);
        let mut refusals = vec![alone.wire().run("FAILOVER"), alone.wire().run("FAILOVER ABORT")];
        let replica = Server::start(kind, &[]);
        replica.follow(&primary);
        replica.wait_for_link();
        refusals.push(replica.wire().run("FAILOVER"));
        refusals.push(alone.wire().run(&format!("PSYNC {} 1 FAILOVER", "a".repeat(40))));
        refusals.push(replica.wire().run(&format!("PSYNC {} 1 FAILOVER", "a".repeat(40))));
        for command in [
            "FAILOVER TIMEOUT 0",
            "FAILOVER TIMEOUT x",
            "FAILOVER TIMEOUT",
            "FAILOVER TO 127.0.0.1",
            "FAILOVER TO 127.0.0.1 x",
            "FAILOVER TO 127.0.0.1 1",
            "FAILOVER NOW",
            "FAILOVER FORCE",
            "FAILOVER FORCE TIMEOUT 100",
            &format!("FAILOVER TO 127.0.0.1 {port} FORCE"),
            "FAILOVER FORCE FORCE",
            "FAILOVER ABORT ABORT",
        ] {
            refusals.push(primary.wire().run(command));
        }
        signal(&replicas[0], "STOP");
        primary.wire().run("SET behind 1");
        assert_eq!(primary.wire().run(&format!("FAILOVER TO 127.0.0.1 {port}")), Value::ok());
        refusals.push(primary.wire().run("FAILOVER"));
        refusals.push(primary.wire().run("REPLICAOF 127.0.0.1 1"));
        refusals.push(primary.wire().run("PSYNC ? -1"));
        refusals.push(primary.wire().run("FAILOVER ABORT"));
        refusals.push(primary.wire().run("FAILOVER ABORT"));
        signal(&replicas[0], "CONT");
        refusals
    });
    assert_eq!(refusals[0], refusals[1]);
    assert_eq!(refusals[0].iter().filter(|refusal| **refusal == Value::ok()).count(), 1, "{:?}", refusals[0]);
}

/// A replica that takes nothing: writes wait, reads do not, and when the time is up all is as before.
#[test]
fn a_failover_that_finds_nobody_lets_writes_go_on() {
    let (primary, replicas) = replicated(Kind::Node, &[Kind::Node]);
    let mut wire = primary.wire();
    signal(&replicas[0], "STOP");
    assert_eq!(wire.run("SET key before"), Value::ok());
    // Time for all that is looked at meanwhile, on a busy machine too.
    assert_eq!(wire.run("FAILOVER TIMEOUT 6000"), Value::ok());
    assert_eq!(failover_state(&primary), "waiting-for-sync");
    // What may write waits, also inline, in a pipeline, in a transaction or a script; what stands before it is answered.
    let requests: [&[u8]; 5] = [
        b"GET key\r\nSET key inline\r\nGET key\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*1\r\n$4\r\nEXEC\r\n",
        b"EVAL \"return redis.call('INCR','n')\" 0\r\n",
        b"PUBLISH channel message\r\n",
        b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n",
    ];
    let mut waiting = requests.map(|request| {
        let mut wire = primary.wire();
        wire.send_raw(request);
        wire
    });
    assert_eq!(waiting[0].read(), Value::bulk("before"));
    assert_eq!([waiting[1].read(), waiting[1].read()], [Value::ok(), Value::Simple("QUEUED".to_owned())]);
    for wire in &mut waiting {
        assert!(wire.is_silent(Duration::from_millis(50)));
    }
    assert_eq!(wire.run("GET key"), Value::bulk("before"));
    wait_until("the time is up", || failover_state(&primary) == "no-failover");
    assert_eq!([waiting[0].read(), waiting[0].read()], [Value::ok(), Value::bulk("inline")]);
    assert_eq!(waiting[1].read().elements().len(), 1);
    assert!(matches!(waiting[2].read(), Value::Integer(_)));
    assert_eq!(waiting[3].read(), Value::Integer(0));
    assert!([waiting[4].read(), waiting[4].read()].iter().all(|reply| matches!(reply, Value::Integer(_))));
    assert_eq!(wire.run("GET n"), Value::bulk("4"));
    assert_eq!(primary.info("role"), "master");
    signal(&replicas[0], "CONT");
}

/// By force the role goes over although something is missing; when the replica does not answer, that can be taken back.
#[test]
fn a_failover_by_force_can_be_taken_back() {
    let (primary, replicas) = replicated(Kind::Node, &[Kind::Node]);
    let mut wire = primary.wire();
    signal(&replicas[0], "STOP");
    assert_eq!(wire.run("SET key before"), Value::ok());
    let port = replicas[0].address().port();
    assert_eq!(wire.run(&format!("FAILOVER TO 127.0.0.1 {port} FORCE TIMEOUT 200")), Value::ok());
    wait_until("it is in progress", || failover_state(&primary) == "failover-in-progress");
    assert_eq!(primary.info("role"), "slave");
    let mut waiting = primary.wire();
    waiting.send(&["SET", "key", "behind"]);
    assert!(waiting.is_silent(Duration::from_millis(50)));
    assert_eq!(wire.run("FAILOVER ABORT"), Value::ok());
    assert_eq!(waiting.read(), Value::ok());
    assert_eq!((primary.info("role"), failover_state(&primary)), ("master".to_owned(), "no-failover".to_owned()));
    // And once more, with a replica that comes back to take the role.
    wait_until("it is online", || {
        signal(&replicas[0], "CONT");
        primary.wire().run("INFO replication").text().contains("state=online")
    });
    signal(&replicas[0], "STOP");
    assert_eq!(wire.run("SET key lost"), Value::ok());
    assert_eq!(wire.run(&format!("FAILOVER TO 127.0.0.1 {port} FORCE TIMEOUT 200")), Value::ok());
    wait_until("it is in progress", || failover_state(&primary) == "failover-in-progress");
    signal(&replicas[0], "CONT");
    wait_until("it is the primary", || replicas[0].info("role") == "master");
    primary.wait_for_link();
    assert_eq!(failover_state(&primary), "no-failover");
    let [old, new]: [Value; 2] = [&primary, &replicas[0]].map(|server| server.wire().run("GET key"));
    assert_eq!(old, new);
}

/// A way to `target` on which the answer to the first `PSYNC … FAILOVER` is lost. Gives its port.
fn proxy_that_loses_the_answer(target: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (is_asked, is_lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(target).unwrap());
            let (mut requests, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (asked, is_asked, is_lost) = (Arc::clone(&is_asked), Arc::clone(&is_asked), Arc::clone(&is_lost));
            thread::spawn(move || {
                forward(&mut requests, &mut server, |bytes| {
                    if bytes.windows(8).any(|word| word == b"FAILOVER") {
                        asked.store(true, Ordering::SeqCst);
                    }
                    true
                });
            });
            thread::spawn(move || {
                forward(&mut answers, &mut client, |_| !is_asked.load(Ordering::SeqCst) || is_lost.swap(true, Ordering::SeqCst));
            });
        }
    });
    port
}

/// Hands on what comes for as long as it is to pass; then both connections end.
fn forward(from: &mut TcpStream, to: &mut TcpStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut chunk = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk)
        && may_pass(&chunk[..length])
        && to.write_all(&chunk[..length]).is_ok()
    {}
    for stream in [from, to] {
        // The other side may have ended it.
        drop(stream.shutdown(Shutdown::Both));
    }
}

/// The replica has taken over, and the old primary does not get to know: it asks again, and there is one primary.
#[test]
fn a_failover_whose_answer_is_lost_is_gone_on_with() {
    for kind in [Kind::Node, Kind::Redis, Kind::Valkey] {
        let (primary, replica) = (Server::start(Kind::Node, &[]), Server::start(kind, &[]));
        let port = proxy_that_loses_the_answer(replica.address());
        assert_eq!(replica.wire().run(&format!("CONFIG SET replica-announce-port {port}")), Value::ok());
        replica.follow(&primary);
        replica.wait_for_link();
        wait_until_online(&primary, 1);
        assert_eq!(primary.wire().run("SET key before"), Value::ok());
        assert_eq!(primary.wire().run(&format!("FAILOVER TO 127.0.0.1 {port} TIMEOUT 20000")), Value::ok());
        wait_until("it is the primary", || replica.info("role") == "master");
        wait_until("the failover ends", || failover_state(&primary) == "no-failover");
        assert_eq!((primary.info("role"), replica.info("role")), ("slave".to_owned(), "master".to_owned()));
        primary.wait_for_link();
        assert_eq!(replica.number("sync_full"), 0, "the stream went on: {kind:?}");
        assert_eq!(replica.wire().run("SET key behind"), Value::ok());
        wait_until("it is replicated", || primary.wire().run("GET key") == Value::bulk("behind"));
    }
}

/// CLIENT PAUSE by the same means, beside a real Redis.
#[test]
fn a_pause_has_requests_wait_until_its_end() {
    for kind in [Kind::Node, Kind::Redis] {
        let server = Server::start(kind, &[]);
        let mut wire = server.wire();
        for (command, expected) in [
            ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
            ("CLIENT PAUSE -1", "ERR timeout is negative"),
            ("CLIENT PAUSE 1 READ", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ] {
            assert_eq!(wire.run(command), Value::Error(expected.to_owned()), "{kind:?}");
        }
        assert_eq!(wire.run("CLIENT UNPAUSE"), Value::ok());
        assert_eq!(wire.run("CLIENT PAUSE 0"), Value::ok());
        assert_eq!(wire.run("SET key 1"), Value::ok());
        // Writes wait, until they may go on.
        assert_eq!(wire.run("CLIENT PAUSE 100000 WRITE"), Value::ok());
        let mut waiting = server.wire();
        waiting.send_raw(b"GET key\r\nINCR key\r\nGET key\r\n");
        assert_eq!(waiting.read(), Value::bulk("1"));
        assert!(waiting.is_silent(Duration::from_millis(100)));
        assert_eq!(wire.run("GET key"), Value::bulk("1"));
        assert_eq!(wire.run("CLIENT UNPAUSE"), Value::ok());
        assert_eq!([waiting.read(), waiting.read()], [Value::Integer(2), Value::bulk("2")]);
        // All wait until the time is over; the later end holds.
        let paused = Instant::now();
        assert_eq!(wire.run("CLIENT PAUSE 400 WRITE"), Value::ok());
        assert_eq!(wire.run("CLIENT PAUSE 10"), Value::ok());
        assert_eq!(waiting.run("GET key"), Value::bulk("2"));
        assert!(paused.elapsed() >= Duration::from_millis(390), "{kind:?}: {:?}", paused.elapsed());
        assert_eq!(waiting.run("INCR key"), Value::Integer(3));
        // A client that goes away meanwhile is no one's concern, and its place is free.
        assert_eq!(wire.run("CLIENT PAUSE 100000 WRITE"), Value::ok());
        waiting.send(&["INCR", "key"]);
        let name = format!(" addr={} ", waiting.stream.local_addr().unwrap());
        assert!(wire.run("CLIENT LIST").text().contains(&name));
        drop(waiting);
        wait_until("it is seen to be gone", || !wire.run("CLIENT LIST").text().contains(&name));
        assert_eq!(wire.run("CLIENT UNPAUSE"), Value::ok());
        assert_eq!(wire.run("INCR key"), Value::Integer(4), "{kind:?}");
    }
}

/// Over and over under load, with logs: every acknowledged write is there, once, and after a restart as well.
#[test]
fn a_role_that_goes_back_and_forth_loses_nothing() {
    const ROUNDS: usize = 12;
    let more = ["--appendonly", "yes", "--repl-backlog-size", "16mb"];
    let nodes = [Server::start(Kind::Node, &more), Server::start(Kind::Node, &more)];
    nodes[1].follow(&nodes[0]);
    nodes[1].wait_for_link();
    let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let addresses = [nodes[0].address(), nodes[1].address()];
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (is_over, acknowledged) = (Arc::clone(&is_over), Arc::clone(&acknowledged));
            thread::spawn(move || {
                let mut unknown = 0;
                for turn in 0.. {
                    let mut wire = Wire::connect(addresses[turn % 2]);
                    loop {
                        if is_over.load(Ordering::Relaxed) {
                            return unknown;
                        }
                        wire.send(&["INCR", "counter"]);
                        match wire.try_read() {
                            Ok(Value::Integer(_)) => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Ok(reply) => {
                                assert!(reply.is_error("READONLY"), "{reply:?}");
                                break;
                            }
                            // Whether it was written nobody knows.
                            Err(_) => {
                                unknown += 1;
                                break;
                            }
                        };
                    }
                }
                unreachable!("it ends when it is over");
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let (old, new) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        let before = acknowledged.load(Ordering::Relaxed);
        wait_until("the writers write", || acknowledged.load(Ordering::Relaxed) > before + 50);
        assert_eq!(old.wire().run("FAILOVER TIMEOUT 20000"), Value::ok());
        wait_until("the role is handed over", || new.info("role") == "master" && old.info("master_link_status") == "up");
    }
    is_over.store(true, Ordering::Relaxed);
    let unknown: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let primary = &nodes[ROUNDS % 2];
    let counter = |server: &Server| server.wire().run("GET counter").text().parse::<i64>().unwrap();
    let found = counter(primary);
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&found),
        "{acknowledged} acknowledged, {unknown} open, {found} found"
    );
    wait_until("the replica has it", || counter(&nodes[(ROUNDS + 1) % 2]) == found);
    assert_eq!(nodes[0].number("sync_full") + nodes[1].number("sync_full"), 1, "every other time the stream went on");
    for server in nodes {
        let Server::Node(mut node, folder) = server else { panic!("a node") };
        assert!(node.end_by("TERM").success(), "{}", node.errors());
        let again = Binary::start(&["--port", "0", "--dir", folder.path().to_str().unwrap(), "--appendonly", "yes"]);
        assert_eq!(Wire::connect(again.address).run("GET counter"), Value::bulk(&found.to_string()));
    }
}
