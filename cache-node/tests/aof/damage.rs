//! Files that were cut off or changed.

use std::fs;

use crate::{
    last_increment, logged, node, refusal,
    support::{self, Value, Wire, wire::encode},
};

#[test]
fn an_end_that_was_cut_off_is_taken_away() {
    let whole = encode(&["SET", "c", "3"]);
    let transaction = [encode(&["MULTI"]), encode(&["SET", "c", "3"]), encode(&["SET", "d", "4"])].concat();
    let zeros = vec![0; 5_000];
    let tails: [&[u8]; 5] = [&whole[..1], &whole[..9], &whole[..whole.len() - 1], &transaction, &zeros];
    for tail in tails {
        let dir = logged(&["SET a 1", "SET b 2"]);
        let path = last_increment(dir.path());
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, [fs::read(&path).unwrap(), tail.to_vec()].concat()).unwrap();
        let refused = refusal(dir.path(), &["--aof-load-truncated", "no"]);
        assert!(
            refused.contains("appendonly.aof.1.incr.aof ends within a request")
                && refused.contains(&format!("truncate -s {length}")),
            "{refused}"
        );
        let mut mended = node(dir.path(), &["--aof-load-truncated", "yes"]);
        let mut wire = Wire::connect(mended.address);
        assert_eq!(wire.run("DBSIZE"), Value::Integer(2));
        let said = format!("its last {} bytes were taken away, and it now ends at byte {length}", tail.len());
        support::wait_until("it says so", || mended.errors().contains(&said) && mended.errors().contains("kind=LogRepaired"));
        wire.run("SET c 5");
        assert!(mended.end_by("TERM").success());
        let again = node(dir.path(), &["--aof-load-truncated", "no"]);
        assert_eq!(Wire::connect(again.address).run("MGET a b c"), Value::Array(["1", "2", "5"].map(Value::bulk).to_vec()));
    }
}

#[test]
fn a_damaged_middle_is_refused_with_its_place() {
    let dir = logged(&["SET a 1", "SET b 2", "SET c 3"]);
    let path = last_increment(dir.path());
    let good = fs::read(&path).unwrap();
    let second = good.windows(5).position(|window| window == b"\r\nb\r\n").unwrap();
    let start = good[..second].windows(3).rposition(|window| window == b"\n*3").unwrap() + 1;
    for (at, byte, what) in [
        (start, b'+', "a request begins with its number of arguments"),
        (start + 1, b'x', "invalid multibulk length"),
        (start + 4, b'x', "expected '$'"),
        // One digit more is a request that would be longer than the file: no end that was cut off.
        (start + 5, b'9', "whole ones stand behind it"),
        (start + 8, b'Q', "unknown command 'QET'"),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        if what.starts_with("whole") {
            bad.splice(at..at, *b"99");
        }
        fs::write(&path, &bad).unwrap();
        let refused = refusal(dir.path(), &[]);
        assert!(refused.contains(&format!("damaged at byte {start}")) && refused.contains(what), "{what}: {refused}");
        assert_eq!(fs::read(&path).unwrap(), bad, "nothing was changed");
    }
    fs::remove_file(&path).unwrap();
    assert!(refusal(dir.path(), &[]).contains("appendonly.aof.1.incr.aof"));
    fs::write(&path, &good).unwrap();
    let manifest = dir.path().join("appendonlydir/appendonly.aof.manifest");
    fs::write(&manifest, "file appendonly.aof.1.incr.aof seq x type i\n").unwrap();
    assert!(refusal(dir.path(), &[]).contains("appendonly.aof.manifest: line 1"));
}
