//! COMMAND tells of subcommands what Redis tells.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use support::{
    Value, Wire,
    server::{Kind, Server},
};

const CONTAINERS: [&str; 10] =
    ["acl", "client", "command", "config", "latency", "memory", "object", "pubsub", "script", "slowlog"];

/// Subcommands whose rows differ, with the reason.
const OTHERWISE: [&str; 3] = [
    // It is told to replicas that wait for their primary: here they refuse all of SCRIPT.
    "script|load",
    // A script that runs holds the thread that would be asked.
    "script|kill",
    // 7.0 takes one argument more at the least.
    "command|getkeys",
];

/// Name, arity, flags, keys and categories of a row and of those within it, by name.
fn rows(row: &Value, rows_by_name: &mut BTreeMap<String, Vec<Value>>) {
    let fields = row.elements();
    assert_eq!(fields.len(), 10, "{row:?}");
    let mut told = fields[..7].to_vec();
    for set in [2, 6] {
        let mut names = told[set].elements().to_vec();
        names.sort();
        told[set] = Value::Set(names);
    }
    rows_by_name.insert(fields[0].text(), told);
    fields[9].elements().iter().for_each(|row| rows(row, rows_by_name));
}

#[test]
fn subcommands_are_listed_as_by_redis() {
    let [ours, theirs] = [Kind::Node, Kind::Redis].map(|kind| {
        let server = Server::start(kind, &[]);
        let mut wire = server.wire();
        let mut rows_by_name = BTreeMap::new();
        for container in CONTAINERS {
            rows(&wire.run(&format!("COMMAND INFO {container}")).elements()[0], &mut rows_by_name);
        }
        (rows_by_name, wire, server)
    });
    let (ours, mut wire, _server) = ours;
    let (theirs, mut redis, _redis_server) = theirs;
    assert!(ours.len() > 60, "{:?}", ours.keys());
    for (name, row) in ours.iter().filter(|(name, _)| !OTHERWISE.contains(&name.as_str())) {
        // Some came with 7.2.
        let Some(known) = theirs.get(name) else { continue };
        assert_eq!(row, known, "{name}");
        let since = |wire: &mut Wire| {
            let docs = wire.run(&format!("COMMAND DOCS {name}"));
            let fields = docs.elements()[1].elements();
            let at = |key: &str| fields.iter().step_by(2).position(|field| field.text() == key).unwrap();
            fields[2 * at("since") + 1].text()
        };
        assert_eq!(since(&mut wire), since(&mut redis), "{name}");
    }
    for wire in [&mut wire, &mut redis] {
        let one = wire.run("COMMAND INFO CONFIG|get config|nope get|x config|get|x nope");
        let has_row: Vec<bool> = one.elements().iter().map(|row| matches!(row, Value::Array(_))).collect();
        assert_eq!(has_row, [true, false, false, false, false], "{one:?}");
        assert_eq!(one.elements()[0].elements()[0].text(), "config|get");
        let docs = wire.run("COMMAND DOCS memory nope");
        let fields = docs.elements()[1].elements();
        let within = fields.iter().step_by(2).position(|field| field.text() == "subcommands").unwrap();
        assert!(fields[2 * within + 1].elements().iter().step_by(2).any(|name| name.text() == "memory|usage"), "{docs:?}");
        let listed: Vec<String> = wire.run("COMMAND LIST").elements().iter().map(Value::text).collect();
        assert!(listed.contains(&"config|get".to_owned()) && listed.contains(&"get".to_owned()));
    }
    for filter in
        ["PATTERN CONFIG|*", "pattern hget*", "ACLCAT hash", "ACLCAT nope", "MODULE nope", "NOPE x", "PATTERN", "PATTERN a b"]
    {
        let listed = [&mut wire, &mut redis].map(|wire| match wire.run(&format!("COMMAND LIST FILTERBY {filter}")) {
            Value::Array(mut names) => {
                names.sort();
                Value::Array(names)
            }
            other => other,
        });
        assert_eq!(listed[0], listed[1], "{filter}");
    }
    assert_eq!(wire.run("COMMAND COUNT").integer() as usize, wire.run("COMMAND").elements().len());
}
