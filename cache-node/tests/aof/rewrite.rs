//! Rewriting: asked for, by size, at run time, over and over.

use std::fs;

use crate::{
    DATABASES, assert_loaded_by_all, fill, folder, node, rewritten, settled,
    support::{
        self, Value, Wire,
        content::{assert_same, content},
        process::Binary,
    },
    text,
};

#[test]
fn a_rewrite_under_load_loses_nothing_and_real_servers_read_it() {
    for preamble in ["yes", "no"] {
        let dir = folder();
        let mut node = node(dir.path(), &["--aof-use-rdb-preamble", preamble]);
        let mut wires = [Wire::connect(node.address), Wire::connect(node.address)];
        for round in 0..3 {
            fill(&mut wires, 20 + round, 700);
            assert_eq!(wires[0].run("BGREWRITEAOF"), Value::Simple("Background append only file rewriting started".to_owned()));
            fill(&mut wires, 30 + round, 300);
            rewritten(&mut wires[0], round + 1);
        }
        let expected = settled(&mut wires[0]);
        assert!(node.end_by("TERM").success());
        let files: Vec<String> = fs::read_dir(dir.path().join("appendonlydir"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let base = if preamble == "yes" { "appendonly.aof.4.base.rdb" } else { "appendonly.aof.4.base.aof" };
        assert!(files.len() == 3 && files.iter().any(|name| name == base), "{files:?}");
        assert_loaded_by_all(preamble, dir.path(), &expected);
        let again = self::node(dir.path(), &[]);
        assert_same("the node", &expected, &content(&mut Wire::connect(again.address), DATABASES));
    }
}

#[test]
fn a_log_is_rewritten_when_it_has_grown() {
    let dir = folder();
    let node = node(dir.path(), &["--auto-aof-rewrite-min-size", "100kb", "--auto-aof-rewrite-percentage", "100"]);
    let mut wire = Wire::connect(node.address);
    let value = "v".repeat(10_000);
    let mut written = 0;
    support::wait_until("it is much smaller than what was written", || {
        assert_eq!(wire.call(&["SET", "one", &value]), Value::ok());
        written += value.len() as u64;
        let info = wire.run("INFO persistence").text();
        let size = info.lines().find_map(|line| line.strip_prefix("aof_current_size:")).unwrap();
        !info.contains("aof_rewrites:0") && size.parse::<u64>().unwrap() * 3 < written
    });
}

#[test]
fn a_log_begins_and_ends_while_the_node_runs() {
    let dir = folder();
    let mut node = Binary::start(&["--port", "0", "--dir", text(dir.path()), "--appendfsync", "always"]);
    let mut wires = [Wire::connect(node.address), Wire::connect(node.address)];
    fill(&mut wires, 41, 800);
    assert_eq!(wires[0].run("CONFIG SET appendonly yes"), Value::ok());
    fill(&mut wires, 42, 300);
    rewritten(&mut wires[0], 1);
    fill(&mut wires, 43, 300);
    let expected = settled(&mut wires[0]);
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let mut node = self::node(dir.path(), &[]);
    let mut wires = [Wire::connect(node.address)];
    assert_same("begun at run time", &expected, &content(&mut wires[0], DATABASES));
    assert_eq!(wires[0].run("CONFIG SET appendonly no"), Value::ok());
    support::wait_until("it ended", || !wires[0].run("INFO persistence").text().contains("aof_current_size"));
    wires[0].run("FLUSHALL");
    wires[0].run("SET later 1");
    assert_eq!(wires[0].run("CONFIG SET appendonly yes"), Value::ok());
    rewritten(&mut wires[0], 1);
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let again = self::node(dir.path(), &[]);
    assert_eq!(Wire::connect(again.address).run("KEYS *"), Value::Array(vec![Value::bulk("later")]));
}

#[test]
fn a_snapshot_becomes_the_base_of_the_first_log() {
    let dir = folder();
    let mut node = Binary::start(&["--port", "0", "--dir", text(dir.path())]);
    let mut wires = [Wire::connect(node.address)];
    fill(&mut wires, 51, 800);
    let expected = settled(&mut wires[0]);
    assert_eq!(wires[0].run("SAVE"), Value::ok());
    assert!(node.end_by("TERM").success());
    for _ in 0..2 {
        let mut node = self::node(dir.path(), &[]);
        assert_same("with the log", &expected, &content(&mut Wire::connect(node.address), DATABASES));
        node.process.kill().unwrap();
        node.process.wait().unwrap();
        // The log alone has everything now.
        drop(fs::remove_file(dir.path().join("dump.rdb")));
    }
}

#[test]
fn many_quick_rewrites_count_every_write_once() {
    let dir = folder();
    let mut node = node(dir.path(), &["--appendfsync", "no"]);
    let address = node.address;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let counters: Vec<_> = (0..3)
        .map(|number| {
            let is_over = std::sync::Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut wire = Wire::connect(address);
                let mut count = 0;
                // Twice would be once too often: that is how a write shows that is in a base and behind it as well.
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    count += 1;
                    assert_eq!(wire.run(&format!("INCR counter-{number}")), Value::Integer(count));
                }
                count
            })
        })
        .collect();
    let mut wire = Wire::connect(address);
    for round in 1..=30 {
        assert!(!wire.run("BGREWRITEAOF").is_error("ERR"));
        rewritten(&mut wire, round);
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let counts: Vec<i64> = counters.into_iter().map(|counter| counter.join().unwrap()).collect();
    assert!(node.end_by("TERM").success());
    let again = self::node(dir.path(), &[]);
    let mut wire = Wire::connect(again.address);
    for (number, count) in counts.iter().enumerate() {
        assert_eq!(wire.run(&format!("GET counter-{number}")), Value::bulk(&count.to_string()));
    }
}
