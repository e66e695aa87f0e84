//! WAITAOF: a client waits until what it wrote is on disk, here and on replicas.

use std::time::{Duration, Instant};

use crate::{
    folder, node,
    support::{Value, Wire, cluster::signal as signal_process, content::info, process::Binary, wait_until},
    text,
};

fn counts(local: i64, replicas: i64) -> Value {
    Value::Array(vec![Value::Integer(local), Value::Integer(replicas)])
}

/// What WAITAOF answers, and how long it took.
fn waitaof(wire: &mut Wire, arguments: &str) -> (Value, Duration) {
    let asked = Instant::now();
    (wire.run(&format!("WAITAOF {arguments}")), asked.elapsed())
}

fn signal(node: &Binary, name: &str) {
    signal_process(name, node.process.id());
}

#[test]
fn waitaof_tells_where_a_write_is_on_disk() {
    const QUICK: Duration = Duration::from_millis(300);
    let folders = [folder(), folder(), folder()];
    let primary = node(folders[0].path(), &["--appendfsync", "everysec"]);
    let port = primary.address.port().to_string();
    let mut wire = Wire::connect(primary.address);
    assert_eq!(wire.run("SET key 0"), Value::ok());
    let (reply, _) = waitaof(&mut wire, "1 0 20000");
    assert_eq!(reply, counts(1, 0), "no replica is there yet");
    let with_log = node(folders[1].path(), &["--appendfsync", "everysec", "--replicaof", "127.0.0.1", &port]);
    let without = Binary::start(&["--port", "0", "--dir", text(folders[2].path()), "--replicaof", "127.0.0.1", &port]);
    for replica in [&with_log, &without] {
        wait_until("the link is up", || info(&mut Wire::connect(replica.address), "master_link_status") == "up");
    }
    for round in 0..3 {
        assert_eq!(wire.run(&format!("SET key {round}")), Value::ok());
        let (reply, took) = waitaof(&mut wire, "1 1 20000");
        assert_eq!((reply, took < Duration::from_secs(19)), (counts(1, 1), true));
    }
    // A replica without a log has nothing on disk.
    let (reply, took) = waitaof(&mut wire, "1 2 300");
    assert_eq!((reply, took >= QUICK), (counts(1, 1), true));
    // One that hangs confirms nothing more.
    signal(&with_log, "STOP");
    assert_eq!(wire.run("SET key hung"), Value::ok());
    let (reply, took) = waitaof(&mut wire, "0 1 300");
    assert_eq!((reply.elements()[1].clone(), took >= QUICK), (Value::Integer(0), true));
    assert_eq!(waitaof(&mut wire, "1 0 20000").0, counts(1, 0));
    signal(&with_log, "CONT");
    assert_eq!(waitaof(&mut wire, "1 1 20000").0, counts(1, 1));
    // Nobody brings it to disk.
    assert_eq!(wire.run("CONFIG SET appendfsync no"), Value::ok());
    assert_eq!(wire.run("SET key handed-over"), Value::ok());
    let (reply, took) = waitaof(&mut wire, "1 0 300");
    assert_eq!((reply.elements()[0].clone(), took >= QUICK), (Value::Integer(0), true));
    assert_eq!(wire.run("CONFIG SET appendfsync always"), Value::ok());
    assert_eq!(waitaof(&mut wire, "1 1 20000").0, counts(1, 1));
    // What the connection has not written it need not wait for.
    assert_eq!(waitaof(&mut Wire::connect(primary.address), "1 1 20000").0, counts(1, 2));
    assert_eq!(wire.run("CONFIG SET appendonly no"), Value::ok());
    wait_until("the log has ended", || info(&mut wire, "aof_enabled") == "0" && wire.run("WAITAOF 1 0 0").is_error("ERR"));
    assert_eq!(wire.run("SET key last"), Value::ok());
    assert_eq!(waitaof(&mut wire, "0 1 20000").0, counts(0, 1));
}
