//! `io-uring yes`: the tests of clients, pipelines and hostile clients once more, what only this backend can do wrong, and a machine that
//! refuses it.
#![cfg(target_os = "linux")]
#![allow(clippy::duplicate_mod, reason = "each file that is run once more brings its own `support`")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

#[path = "client_commands.rs"]
mod client_commands;
#[path = "hostile.rs"]
mod hostile;
#[path = "pipelines.rs"]
mod pipelines;
mod support;

use std::{
    io::{ErrorKind, Write as _},
    net::Shutdown,
    thread,
    time::Duration,
};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use support::{
    Value, Wire,
    content::info,
    process::Binary,
    server::{Kind, Server},
    wait_until,
    wire::encode,
};

const MB: usize = 1024 * 1024;

fn node(more: &[&str]) -> Binary {
    Binary::start(&[&["--port", "0", "--io-threads", "1"], more].concat())
}

/// What these tests say about io_uring they say only where there is one.
#[test]
fn it_serves_unless_the_log_tells_why_not() {
    let node = node(&[]);
    match info(&mut Wire::connect(node.address), "multiplexing_api").as_str() {
        "io_uring" => assert!(!node.errors().contains("io-uring yes is refused"), "{}", node.errors()),
        other => {
            wait_until(&format!("the log tells why it is {other}"), || node.errors().contains("io-uring yes is refused"));
            eprintln!("io_uring is refused here, so these tests ran without it: {}", node.errors());
        }
    }
}

#[test]
fn a_machine_that_forbids_it_is_named_in_the_log_and_served_without() {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let forbidden = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(forbidden, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    // Of this thread and the processes that it starts.
    let starting = thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        node(&[])
    });
    let node = starting.join().unwrap();
    let mut wire = Wire::connect(node.address);
    assert_eq!(info(&mut wire, "multiplexing_api"), "epoll");
    assert_eq!((wire.run("SET a b"), wire.run("GET a")), (Value::ok(), Value::bulk("b")));
    wait_until("the log tells", || node.errors().contains("kernel.io_uring_disabled or the seccomp profile"));
    assert_eq!(node.errors().matches("io-uring yes is refused").count(), 1, "{}", node.errors());
    assert_eq!(wire.run("CONFIG GET io-uring"), Value::Array(vec![Value::bulk("io-uring"), Value::bulk("yes")]));
}

#[test]
fn large_values_arrive_whole_at_a_client_that_reads_late_and_has_closed_its_half() {
    const COUNT: usize = 24;
    let node = node(&[]);
    let value: Vec<u8> = (0..MB).map(|place| (place % 251) as u8).collect();
    let mut wire = Wire::connect(node.address);
    assert_eq!(wire.call(&[b"SET".as_slice(), b"large", &value]), Value::ok());
    wire.send_raw(&encode(&["GET", "large"]).repeat(COUNT));
    wire.stream.shutdown(Shutdown::Write).unwrap();
    // Meanwhile the node has sent what the socket holds, and waits for room.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(Wire::connect(node.address).run("PING"), Value::Simple("PONG".to_owned()));
    for number in 0..COUNT {
        assert!(wire.read() == Value::Bulk(value.clone()), "reply {number}");
    }
    assert!(wire.is_closed());
}

/// Its replies travel in requests that outlive it, if only for a moment.
#[test]
fn a_connection_that_ends_sends_what_it_has_begun() {
    let node = node(&[]);
    for _ in 0..200 {
        let mut wire = Wire::connect(node.address);
        wire.send_raw(&[encode(&["SET", "a", "b"]), encode(&["GET", "a"]), encode(&["QUIT"])].concat());
        assert_eq!((wire.read(), wire.read(), wire.read()), (Value::ok(), Value::bulk("b"), Value::ok()));
        assert!(wire.is_closed());
    }
    wait_until("the sockets are closed", || node.open_files() < 40);
}

#[test]
fn a_connection_whose_request_waits_is_not_read_ahead_of_without_bound() {
    let node = node(&["--client-query-buffer-limit", "1gb"]);
    let mut other = Wire::connect(node.address);
    assert_eq!(other.run("CLIENT PAUSE 60000 WRITE"), Value::ok());
    let mut wire = Wire::connect(node.address);
    let request = encode(&[b"SET".as_slice(), b"key", &[b'x'; 100_000]]);
    let before = node.resident_bytes();
    wire.stream.set_nonblocking(true).unwrap();
    let (mut sent, mut refusals) = (0, 0);
    while refusals < 20 {
        assert!(sent < 64 * MB, "the node takes everything");
        match wire.stream.write(&request[sent % request.len()..]) {
            Ok(count) => (sent, refusals) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * MB, "{sent} bytes sent, the node grew by {grown}");
    // It goes on where it stood.
    wire.stream.set_nonblocking(false).unwrap();
    assert_eq!(other.run("CLIENT UNPAUSE"), Value::ok());
    wire.send_raw(&request[sent % request.len()..]);
    for _ in 0..sent / request.len() + 1 {
        assert_eq!(wire.read(), Value::ok());
    }
}

/// More connections at once than there are buffers, each with more in one go than a buffer holds.
#[test]
fn buffers_that_run_out_come_back() {
    const CONNECTIONS: usize = 400;
    let node = node(&[]);
    let request = encode(&[b"ECHO".as_slice(), &[b'e'; 20_000]]);
    let mut wires: Vec<Wire> = (0..CONNECTIONS).map(|_| Wire::connect(node.address)).collect();
    for _ in 0..3 {
        for wire in &mut wires {
            wire.send_raw(&request[..request.len() - 1]);
        }
        for wire in &mut wires {
            wire.send_raw(&request[request.len() - 1..]);
        }
        for wire in &mut wires {
            assert!(wire.read() == Value::Bulk(vec![b'e'; 20_000]));
        }
    }
}

#[test]
fn a_replica_follows_and_confirms() {
    let (primary, replica) = (Server::start(Kind::Node, &[]), Server::start(Kind::Node, &[]));
    let mut wire = primary.wire();
    assert_eq!(wire.run("SET before 1"), Value::ok());
    replica.follow(&primary);
    replica.wait_for_link();
    assert_eq!((wire.run("SET after 2"), wire.run("WAIT 1 20000")), (Value::ok(), Value::Integer(1)));
    let mut copy = replica.wire();
    assert_eq!((copy.run("GET before"), copy.run("GET after")), (Value::bulk("1"), Value::bulk("2")));
}

/// Whatever its socket is doing, and whether it is of those that the kernel holds something of.
#[test]
fn a_killed_connection_ends_whatever_it_is_doing() {
    let node = node(&[]);
    let mut admin = Wire::connect(node.address);
    let value = vec![b'v'; MB];
    assert_eq!(admin.call(&[b"SET".as_slice(), b"large", &value]), Value::ok());
    let before = node.open_files();
    let named = |name: &str| {
        let mut wire = Wire::connect(node.address);
        assert_eq!(wire.run(&format!("CLIENT SETNAME {name}")), Value::ok());
        wire
    };
    let idle = named("idle");
    let mut deaf = named("deaf");
    deaf.send_raw(&encode(&["GET", "large"]).repeat(50));
    let mut half = named("half");
    half.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000\r\nbegun");
    let mut listening = named("listening");
    listening.run("SUBSCRIBE news");
    let mut waiting = named("waiting");
    waiting.send(&["WAIT", "3", "0"]);
    let mut blocked = named("postponed");
    assert_eq!(admin.run("CLIENT PAUSE 60000 WRITE"), Value::ok());
    blocked.send(&["SET", "a", "b"]);
    // Until each of them has begun what it is to be killed in.
    for (name, sign) in [("deaf", "cmd=get"), ("waiting", "cmd=wait"), ("listening", "cmd=subscribe")] {
        wait_until(name, || admin.run("CLIENT LIST").text().lines().any(|line| line.contains(name) && line.contains(sign)));
    }
    thread::sleep(Duration::from_millis(50));
    let list = admin.run("CLIENT LIST").text();
    let ids: Vec<&str> =
        list.lines().filter(|line| !line.contains(" name= ")).map(|line| line.split([' ', '=']).nth(1).unwrap()).collect();
    assert_eq!(ids.len(), 6, "{list}");
    for id in ids {
        assert_eq!(admin.run(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
    }
    for (name, mut wire) in
        [("idle", idle), ("half", half), ("listening", listening), ("waiting", waiting), ("postponed", blocked)]
    {
        assert!(wire.is_closed(), "{name}");
    }
    wait_until("the sockets are closed, also of the one that reads nothing", || node.open_files() == before);
    assert_eq!((admin.run("CLIENT UNPAUSE"), admin.run("EXISTS a")), (Value::ok(), Value::Integer(0)));
    assert_eq!(admin.run("CLIENT LIST").text().lines().count(), 1);
}

/// Messages come from other threads, while the subscriber's own replies are under way.
#[test]
fn messages_and_replies_of_a_subscriber_are_whole_and_in_their_order() {
    const MESSAGES: usize = 2_000;
    const PUBLISHERS: usize = 3;
    let node = Binary::start(&["--port", "0", "--io-threads", "2"]);
    let mut subscriber = Wire::connect(node.address);
    assert!(matches!(subscriber.run("HELLO 3"), Value::Map(_)));
    subscriber.send(&["SUBSCRIBE", "news"]);
    subscriber.read();
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut wire = Wire::connect(node.address);
                for number in 0..MESSAGES {
                    // Some that are more than the socket takes at once.
                    let length = if number % 100 == 0 { 40_000 } else { 10 };
                    let message = format!("{publisher} {number} {}", "m".repeat(length));
                    assert_eq!(wire.call(&["PUBLISH", "news", &message]), Value::Integer(1));
                }
            });
        }
        let (mut next, mut asked, mut answered) = ([0; PUBLISHERS], 0, 0);
        while next != [MESSAGES; PUBLISHERS] || answered < asked {
            if asked < MESSAGES && asked - answered < 10 {
                subscriber.send(&["ECHO", &asked.to_string()]);
                asked += 1;
            }
            match subscriber.read() {
                Value::Bulk(echo) => {
                    assert_eq!(echo, answered.to_string().into_bytes());
                    answered += 1;
                }
                push => {
                    let text = push.elements()[2].text();
                    let [publisher, number, rest] = text.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
                    let publisher: usize = publisher.parse().unwrap();
                    assert_eq!(number.parse(), Ok(next[publisher]));
                    assert!(rest.bytes().all(|byte| byte == b'm') && [10, 40_000].contains(&rest.len()));
                    next[publisher] += 1;
                }
            }
        }
    });
}
