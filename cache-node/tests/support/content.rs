//! What a node or a Redis holds, read by commands.

use std::{collections::BTreeMap, time::SystemTime};

use super::{Value, Wire, words};

/// Databases and keys with their types, values and the moments at which they go.
pub type Content = BTreeMap<(usize, String), String>;

/// Reads the first `databases` databases; the connection is in the first one then.
pub fn content(wire: &mut Wire, databases: usize) -> Content {
    let mut content = Content::new();
    for db in 0..databases {
        assert_eq!(wire.run(&format!("SELECT {db}")), Value::ok());
        for key in wire.run("KEYS *").elements() {
            let Value::Bulk(key) = key else { panic!("{key:?} is no key") };
            let kind = wire.call(&[b"TYPE", &key[..]]).text();
            let (read, is_ordered) = match kind.as_str() {
                "string" => ("GET KEY", true),
                "hash" => ("HGETALL KEY", false),
                "set" => ("SMEMBERS KEY", false),
                "zset" => ("ZRANGE KEY 0 -1 WITHSCORES", true),
                // Its time came between.
                "none" => continue,
                _ => ("LRANGE KEY 0 -1", true),
            };
            let request: Vec<Vec<u8>> =
                words(read).into_iter().map(|word| if word == b"KEY" { key.clone() } else { word }).collect();
            let mut value = wire.call(&request);
            if !is_ordered {
                let elements = value.elements_mut().unwrap();
                let width = if kind == "hash" { 2 } else { 1 };
                let mut groups: Vec<Vec<Value>> = elements.chunks(width).map(<[Value]>::to_vec).collect();
                groups.sort();
                *elements = groups.concat();
            }
            if kind == "zset"
                && let Some(elements) = value.elements_mut()
            {
                // Redis 7.0 prints doubles with %.17g.
                for score in elements.iter_mut().skip(1).step_by(2) {
                    *score = Value::bulk(&format!("{:?}", score.text().parse::<f64>().unwrap()));
                }
            }
            let goes_at = wire.call(&[b"PEXPIRETIME", &key[..]]);
            content.insert((db, key.escape_ascii().to_string()), format!("{kind} {value:?} until {goes_at:?}"));
        }
    }
    wire.run("SELECT 0");
    content
}

/// Whether what was read of a key says that its time has come by now.
fn is_over(read: &str) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let goes_at = read.rsplit_once(" until Integer(").and_then(|(_, end)| end.strip_suffix(')')?.parse::<u128>().ok());
    goes_at.is_some_and(|goes_at| goes_at <= now.as_millis())
}

/// Fails with the first differences. A key whose time has come since it was read may be gone.
pub fn assert_same(what: &str, expected: &Content, found: &Content) {
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| match (expected.get(*key), found.get(*key)) {
            (Some(expected), None) => !is_over(expected),
            (expected, found) => expected != found,
        })
        .map(|key| format!("{key:?}\n  expected {:?}\n  found    {:?}", expected.get(key), found.get(key)))
        .collect();
    assert!(differing.is_empty(), "{what}: {} keys differ:\n{}", differing.len(), differing[..differing.len().min(5)].join("\n"));
}

/// A field of INFO.
pub fn info(wire: &mut Wire, field: &str) -> String {
    let text = wire.run("INFO everything").text();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in INFO")).to_owned()
}
