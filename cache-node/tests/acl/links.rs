//! Who else logs in: libraries, redis-cli, replicas; and what is told of passwords.

use std::process::Command;

use redis::Commands as _;

use crate::{
    node,
    support::{
        Value, Wire,
        process::Binary,
        server::{Kind, Server},
        wait_until,
    },
};

#[test]
fn a_library_and_redis_cli_log_in_with_a_user() {
    let node = node();
    let address = node.addr();
    assert_eq!(Wire::connect(address).run("ACL SETUSER bob on >sesame ~app:* -@all +@read +@write +@connection"), Value::ok());
    let client = redis::Client::open(format!("redis://bob:sesame@{address}/?protocol=resp3")).unwrap();
    let mut connection = client.get_connection().unwrap();
    let () = connection.set("app:1", "value").unwrap();
    assert_eq!(connection.get::<_, String>("app:1").unwrap(), "value");
    let error = connection.get::<_, String>("other").unwrap_err();
    assert_eq!((error.code(), error.detail()), (Some("NOPERM"), Some("No permissions to access a key")));
    let wrong = redis::Client::open(format!("redis://bob:wrong@{address}/")).unwrap();
    assert!(wrong.get_connection().is_err_and(|error| error.kind() == redis::ErrorKind::AuthenticationFailed));

    let port = address.port().to_string();
    let run = |words: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-p", &port, "--user", "bob", "--pass", "sesame", "--no-auth-warning"])
            .args(words)
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).trim().to_owned()
    };
    assert_eq!(run(&["GET", "app:1"]), "value");
    assert_eq!(run(&["ACL", "LIST"]), "NOPERM User bob has no permissions to run the 'acl|list' command");
}

/// What comes over the link is not looked at: a replica's own users do not count there.
#[test]
fn a_replica_logs_in_as_its_user_and_is_told_what_it_may_not_do() {
    for kind in [Kind::Node, Kind::Redis] {
        let primary = Server::start(kind, &[]);
        let mut wire = primary.wire();
        for line in
            ["ACL SETUSER default resetpass >sesame", "ACL SETUSER copier on >word -@all +ping +replconf", "SET key value"]
        {
            assert_eq!(wire.run(line), Value::ok(), "{line}");
        }
        let port = primary.address().port().to_string();
        let node = Binary::start(&[
            "--port",
            "0",
            "--masteruser",
            "copier",
            "--masterauth",
            "word",
            "--replicaof",
            "127.0.0.1",
            &port,
            "--user",
            "default on nopass ~none -@all +@read +info +acl",
        ]);
        wait_until("the log says it", || node.errors().contains("NOPERM"));
        assert!(!node.errors().contains("word"), "{}", node.errors());
        assert_eq!(wire.run("ACL SETUSER copier +psync"), Value::ok());
        let mut replica = Wire::connect(node.address);
        wait_until("the link is up", || replica.run("INFO replication").text().contains("master_link_status:up"));
        wait_until("the key is there", || replica.run("DBSIZE") == Value::Integer(1));
        assert_eq!(wire.run("SET other value"), Value::ok());
        wait_until("the stream is applied", || replica.run("DBSIZE") == Value::Integer(2));
        // Users are each node's own.
        assert_eq!(replica.run("ACL USERS").elements().len(), 1);
        assert!(replica.run("GET key").is_error("NOPERM"));
    }
}

#[test]
fn no_password_is_shown() {
    let node = Binary::start(&[
        "--port",
        "0",
        "--loglevel",
        "debug",
        "--slowlog-log-slower-than",
        "0",
        "--slowlog-redact-arguments",
        "no",
    ]);
    let mut wire = Wire::connect(node.address);
    for line in [
        "ACL SETUSER bob on >s3cr3t",
        "ACL SETUSER bob <s3cr3t nosuch",
        "AUTH bob s3cr3t",
        "ACL GETUSER bob",
        "ACL SETUSER bob >s3cr3t2 +@all",
    ] {
        wire.run(line);
    }
    let log = format!("{:?}", Wire::connect(node.address).run("SLOWLOG GET -1"));
    assert!(log.contains("SETUSER") && log.contains("(redacted)") && !log.contains("s3cr3t"), "{log}");
    assert!(!node.errors().contains("s3cr3t"), "{}", node.errors());
}
