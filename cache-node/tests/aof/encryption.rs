//! With encryption-key-file.

use std::{fs, path::PathBuf};

use crate::{
    DATABASES, fill, folder, last_increment, node, refusal, rewritten, settled,
    support::{
        self, Value, Wire,
        content::{Content, assert_same, content},
        process::Binary,
    },
    text,
};

#[test]
fn with_a_key_nothing_is_readable_without_it() {
    let (dir, keys) = (folder(), folder());
    let [key, other] = ["11", "22"].map(|byte| {
        let path = keys.path().join(byte);
        fs::write(&path, byte.repeat(32)).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let with_key = ["--encryption-key-file", &key, "--appendfsync", "always"];
    let mut expected = Content::new();
    for round in 0..3 {
        let mut node = node(dir.path(), &with_key);
        let mut wires = [Wire::connect(node.address)];
        assert_same(&format!("round {round}"), &expected, &content(&mut wires[0], DATABASES));
        fill(&mut wires, 60 + round, 400);
        assert_eq!(wires[0].run("SET secret \"the plain text of a customer\""), Value::ok());
        if round == 1 {
            assert_eq!(wires[0].run("SAVE"), Value::ok());
            assert!(!wires[0].run("BGREWRITEAOF").is_error("ERR"));
            rewritten(&mut wires[0], 1);
            fill(&mut wires, 70, 200);
            assert_eq!(wires[0].run("SET secret \"the plain text of a customer\""), Value::ok());
        }
        expected = settled(&mut wires[0]);
        node.process.kill().unwrap();
        node.process.wait().unwrap();
    }
    let log = dir.path().join("appendonlydir");
    let files: Vec<PathBuf> = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().chain([&dir.path().join("dump.rdb")]) {
        let bytes = fs::read(file).unwrap();
        assert!(!bytes.windows(10).any(|window| window == b"plain text"), "{}", file.display());
    }
    assert!(refusal(dir.path(), &[]).contains("it is encrypted: start with its key as encryption-key-file"));
    assert!(refusal(dir.path(), &["--encryption-key-file", &other]).contains("encrypted with another key"));
    // The last increment: cut, it is mended; changed, it is refused.
    let last = last_increment(dir.path());
    let whole = fs::read(&last).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&last, &changed).unwrap();
    assert!(refusal(dir.path(), &with_key).contains("was changed"));
    fs::write(&last, &whole[..whole.len() - 5]).unwrap();
    let mended = node(dir.path(), &with_key);
    support::wait_until("it says so", || mended.errors().contains("were taken away"));
    drop(mended);
    // The snapshot alone.
    fs::remove_dir_all(&log).unwrap();
    let node = Binary::start(&["--port", "0", "--dir", text(dir.path()), "--encryption-key-file", &key]);
    assert_eq!(Wire::connect(node.address).run("GET secret"), Value::bulk("the plain text of a customer"));
    drop(node);
    let (status, _, errors) = Binary::run(&["--port", "0", "--dir", text(dir.path())]);
    assert!(!status.success() && errors.contains("it is encrypted"), "{errors}");
}

/// Where the frames of an encrypted file end.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (24, Vec::new());
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        at += 8 + 24 + length as usize + 16;
        ends.push(at);
    }
    ends
}

#[test]
fn an_encrypted_log_that_was_cut_within_a_large_batch_ends_before_it() {
    let (dir, keys) = (folder(), folder());
    let key = keys.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let with_key = ["--encryption-key-file", text(&key), "--appendfsync", "always"];
    let mut first = node(dir.path(), &with_key);
    let mut wire = Wire::connect(first.address);
    assert_eq!(wire.run("SET before 1"), Value::ok());
    let path = last_increment(dir.path());
    let before = fs::metadata(&path).unwrap().len();
    assert_eq!(wire.call(&["SET", "large", &"v".repeat(900_000)]), Value::ok());
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    let bytes = fs::read(&path).unwrap();
    let ends: Vec<usize> = frame_ends(&bytes).into_iter().filter(|end| *end as u64 > before).collect();
    assert!(ends.len() > 2, "one batch in several frames: {ends:?}");
    // At the end of a frame and within the next one.
    for cut in ends[..ends.len() - 1].iter().flat_map(|end| [*end, *end + 1_000]) {
        fs::write(&path, &bytes[..cut]).unwrap();
        let (refused, _, errors) = Binary::run(
            &[&["--port", "0", "--dir", text(dir.path()), "--appendonly", "yes", "--aof-load-truncated", "no"], &with_key[..]]
                .concat(),
        );
        assert!(!refused.success() && errors.contains(&format!("truncate -s {before})")), "{errors}");
        let mut node = node(dir.path(), &with_key);
        assert_eq!(Wire::connect(node.address).run("MGET before large"), Value::Array(vec![Value::bulk("1"), Value::NullBulk]));
        support::wait_until("it says so", || node.errors().contains(&format!("it now ends at byte {before}")));
        assert!(node.end_by("TERM").success());
        // The next increment is not the one that is cut in the next round.
        let manifest = dir.path().join("appendonlydir/appendonly.aof.manifest");
        let named = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, named.lines().take(2).map(|line| line.to_owned() + "\n").collect::<String>()).unwrap();
    }
    fs::write(&path, &bytes).unwrap();
    let node = node(dir.path(), &with_key);
    assert_eq!(Wire::connect(node.address).run("STRLEN large"), Value::Integer(900_000));
}

#[test]
fn a_log_that_was_not_encrypted_is_from_the_next_start_on() {
    let (dir, keys) = (folder(), folder());
    let key = keys.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let with_key = ["--encryption-key-file", text(&key)];
    let mut plain = node(dir.path(), &[]);
    assert_eq!(Wire::connect(plain.address).run("SET before plain"), Value::ok());
    assert!(plain.end_by("TERM").success());
    let mut sealed = node(dir.path(), &with_key);
    let mut wire = Wire::connect(sealed.address);
    assert_eq!(wire.run("SET after hidden"), Value::ok());
    assert!(!wire.run("BGREWRITEAOF").is_error("ERR"));
    rewritten(&mut wire, 1);
    assert!(sealed.end_by("TERM").success());
    for entry in fs::read_dir(dir.path().join("appendonlydir")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"plain") && !bytes.windows(6).any(|window| window == b"hidden"));
    }
    let again = node(dir.path(), &with_key);
    assert_eq!(
        Wire::connect(again.address).run("MGET before after"),
        Value::Array(["plain", "hidden"].map(Value::bulk).to_vec())
    );
}
