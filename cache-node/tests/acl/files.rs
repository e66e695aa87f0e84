//! The ACL file, and users in the configuration.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    node,
    support::{Engine, RedisServer, Value, Wire, process::Binary},
};

const USERS: &str = "user default on nopass ~* &* +@all\n\nuser bob on #d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272 \
                     ~app:* resetchannels -@all +@read (%W~log:* +append)\n";

fn start(folder: &Path, more: &[&str]) -> Binary {
    let dir = folder.to_str().unwrap();
    Binary::start(&[&["--port", "0", "--dir", dir], more].concat())
}

#[test]
fn users_are_saved_loaded_and_read_by_valkey() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, USERS).unwrap();
    let node = start(folder.path(), &["--aclfile", "users.acl"]);
    let mut wire = Wire::connect(node.address);
    assert_eq!(wire.run("CONFIG GET aclfile").elements()[1].text(), "users.acl");
    assert_eq!(wire.run("ACL USERS").elements().len(), 2);
    let mut bob = Wire::connect(node.address);
    assert_eq!(bob.run("AUTH bob sesame"), Value::ok());
    assert!(bob.run("GET other").is_error("NOPERM") && bob.run("APPEND log:1 x") == Value::Integer(1));

    wire.run("ACL SETUSER ann on >secret ~* -@all +get");
    let listed = wire.run("ACL LIST");
    assert_eq!(wire.run("ACL SAVE"), Value::ok());
    wire.run("ACL DELUSER ann");
    assert_eq!(wire.run("ACL LOAD"), Value::ok());
    assert_eq!(wire.run("ACL LIST"), listed);
    // As in Redis: who comes from the file is another one.
    assert!(bob.is_closed());
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| !name.to_string_lossy().contains("temp")), "{files:?}");
    assert!(!fs::read_to_string(&file).unwrap().contains("secret"));

    let valkey = RedisServer::start_of(Engine::Valkey, &["--aclfile", file.to_str().unwrap()]);
    assert_eq!(Wire::connect(valkey.address).run("ACL LIST"), listed);
    drop(node);
    let node = start(folder.path(), &["--aclfile", file.to_str().unwrap()]);
    assert_eq!(Wire::connect(node.address).run("ACL LIST"), listed);
}

#[test]
fn a_damaged_file_changes_nothing_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    let name = file.to_str().unwrap();
    fs::write(&file, USERS).unwrap();
    let node = start(folder.path(), &["--aclfile", name]);
    let valkey_file = folder.path().join("valkey.acl");
    fs::write(&valkey_file, USERS).unwrap();
    let valkey = RedisServer::start_of(Engine::Valkey, &["--aclfile", valkey_file.to_str().unwrap()]);
    let mut wires = [node.address, valkey.address].map(Wire::connect);
    let listed = wires[0].run("ACL LIST");
    let damaged = [
        "user bob on\nuser ann on +nosuch",
        "# a comment\nuser bob on",
        "user bob on >x +@read\nuser bob off",
        "user bob on #123 !45",
        "user bob ~* ~x",
        "user",
        "usr bob on",
        "user b\tob on",
        "user bob (~x +get",
        "user bob on <secret",
        "\u{0}\u{1}user",
        "user bob on +config|get|x -nosuch +@nosuch",
    ];
    for text in damaged {
        fs::write(&file, text).unwrap();
        fs::write(&valkey_file, text).unwrap();
        let [ours, theirs] = wires.each_mut().map(|wire| wire.run("ACL LOAD").text());
        // Valkey tells the same of its own file; for it a zero is the end.
        assert!(text.starts_with('\0') || ours == theirs.replace("valkey.acl", "users.acl"), "{text}: {ours}\n{theirs}");
        assert_eq!(wires[0].run("ACL LIST"), listed, "{text}");
        let (status, _, error) = Binary::run(&["--port", "0", "--aclfile", name]);
        assert!(!status.success() && error.contains("users.acl:") | error.contains("found on line"), "{text}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    fs::remove_file(&file).unwrap();
    assert!(wires[0].run("ACL LOAD").text().contains("opening file"));
    let (status, _, error) = Binary::run(&["--port", "0", "--aclfile", name]);
    assert!(!status.success() && error.contains("users.acl"), "{error}");
    fs::write(&file, USERS).unwrap();
    assert_eq!(wires[0].run("ACL LOAD"), Value::ok());
}

#[test]
fn users_of_the_configuration_are_written_back_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.conf");
    let (name, text) = (
        file.to_str().unwrap(),
        "port 0\n# who may do what\nuser bob on >sesame ~app:* \"(~x -@all +get)\" +@read\nmaxclients 50\n",
    );
    fs::write(&file, text).unwrap();
    let start = || Binary::start(&[name]);
    let node = start();
    let mut wire = Wire::connect(node.address);
    assert_eq!(Wire::connect(node.address).run("AUTH bob sesame"), Value::ok());
    for line in ["ACL SETUSER ann on nopass +@all (~a -@all +get)", "ACL SETUSER default >secret", "CONFIG SET maxclients 60"] {
        assert_eq!(wire.run(line), Value::ok());
    }
    let listed = wire.run("ACL LIST");
    assert_eq!(wire.run("CONFIG REWRITE"), Value::ok());
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.starts_with("port 0\n# who may do what\nuser ann ") && written.contains("\nmaxclients 60\n"), "{written}");
    assert!(!written.contains("sesame") && !written.contains("secret"), "{written}");
    drop(node);
    let node = start();
    let mut wire = Wire::connect(node.address);
    assert!(wire.run("ACL LIST").is_error("NOAUTH"));
    assert_eq!(wire.run("AUTH secret"), Value::ok());
    assert_eq!(wire.run("ACL LIST"), listed);
    // Once more changes nothing.
    assert_eq!(wire.run("CONFIG REWRITE"), Value::ok());
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    drop(node);

    // The default user is left to requirepass where that says it all.
    fs::write(&file, "port 0\nrequirepass sesame\n").unwrap();
    let node = start();
    let mut wire = Wire::connect(node.address);
    wire.run("AUTH sesame");
    assert_eq!(wire.run("CONFIG REWRITE"), Value::ok());
    assert_eq!(fs::read_to_string(&file).unwrap(), "port 0\nrequirepass sesame\n");
}

#[test]
fn wrong_users_of_the_configuration_start_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.conf");
    let cases = [
        ("user bob on\nuser bob off", "node.conf, line 2: user: expected one line for each user, and 'bob' has two"),
        ("user bob on +nosuch", "node.conf, line 1: user: expected rules as ACL SETUSER takes them: '+nosuch': Unknown command"),
        ("user bob on <secret", "'<(hidden)': The password"),
        ("user bob (~a", "'(~a' is not"),
        ("user bob \"(>secret ~a)\"", "'((hidden)'"),
        ("user", "expected a name and rules"),
        ("user bob on\naclfile users.acl", "and not in both"),
    ];
    for (text, expected) in cases {
        fs::write(&file, text).unwrap();
        let (status, _, error) = Binary::run(&["--port", "0", file.to_str().unwrap()]);
        assert!(!status.success() && error.contains(expected) && !error.contains("secret"), "{text}: {error}");
    }
    let node = Binary::start(&["--port", "0", "--user", "bob on >sesame ~a* +@all", "--user", "default off"]);
    let mut wire = Wire::connect(node.address);
    assert!(wire.run("PING").is_error("NOAUTH"));
    assert_eq!(wire.run("AUTH bob sesame"), Value::ok());
    assert_eq!(wire.run("ACL USERS").elements().len(), 2);
}

/// What SAVE acknowledged is in the file, whoever saves beside it.
#[test]
fn users_that_are_saved_at_once_are_all_in_the_file() {
    const ROUNDS: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, USERS).unwrap();
    let node = start(folder.path(), &["--aclfile", "users.acl", "--io-threads", "2"]);
    // It comes back readable by its owner alone.
    fs::remove_file(&file).unwrap();
    let savers: Vec<_> = (0..4)
        .map(|saver| {
            let (mut wire, file) = (Wire::connect(node.address), file.clone());
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let name = format!("user-{saver}-{round}");
                    assert_eq!(wire.run(&format!("ACL SETUSER {name} on")), Value::ok());
                    assert_eq!(wire.run("ACL SAVE"), Value::ok());
                    assert!(fs::read_to_string(&file).unwrap().contains(&format!("user {name} on")), "{name}");
                }
            })
        })
        .collect();
    savers.into_iter().for_each(|saver| saver.join().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Options win over the file, also over what CONFIG REWRITE wrote of them.
#[test]
fn a_node_starts_again_with_the_users_of_its_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.conf");
    fs::write(&file, "port 0\nuser ann on nopass ~a +get\n").unwrap();
    let arguments = [file.to_str().unwrap(), "--user", "bob on >sesame ~a* -@all +get", "--user", "ann on nopass ~b +get"];
    let node = Binary::start(&arguments);
    let mut wire = Wire::connect(node.address);
    let listed = wire.run("ACL LIST");
    wire.run("ACL SETUSER bob +set");
    assert_eq!(wire.run("CONFIG REWRITE"), Value::ok());
    drop(node);
    let node = Binary::start(&arguments);
    assert_eq!(Wire::connect(node.address).run("ACL LIST"), listed);
    drop(node);
    let (status, _, error) = Binary::run(&["--port", "0", "--user", "bob on", "--user", "bob off"]);
    assert!(!status.success() && error.contains("'bob' has two"), "{error}");
}

#[test]
fn what_no_file_could_hold_is_refused() {
    let node = node();
    let mut wire = Wire::connect(node.addr());
    let refused = [
        ["bob", "+select|0\nuser evil on nopass ~* +@all"],
        ["bob", "+select|0 1"],
        ["bob", r#"(~"a\"b" +@all)"#],
        ["bob", "(~\"a'b\" +get)"],
        ["bob", "(~a) +get)"],
        ["bob", "(+select|\"0\\n1\")"],
        ["", "on"],
    ];
    for [name, rule] in refused {
        let reply = wire.call(&["ACL", "SETUSER", name, rule]);
        let text = reply.text();
        assert!(reply.is_error("ERR") && (text.contains("yntax error") || text.contains("empty")), "{name} {rule}: {text}");
    }
    let refused = wire.call(&["ACL", "SETUSER", "bob", "(~a) +get)"]).text();
    assert!(refused.contains("no file could hold it"), "{refused}");
    assert_eq!(wire.run("ACL USERS").elements().len(), 1);
}

#[test]
fn so_many_rules_are_taken_at_once() {
    const RULES_MAX: usize = 4_096;
    let node = node();
    let mut wire = Wire::connect(node.addr());
    let patterns: Vec<String> = (0..=RULES_MAX).map(|at| format!("~{at}")).collect();
    let mut set = |rules: &[String]| wire.call(&[&["ACL".to_owned(), "SETUSER".to_owned(), "bob".to_owned()], rules].concat());
    assert_eq!(set(&patterns[1..]), Value::ok());
    for many in [patterns.clone(), vec![format!("({})", patterns.join(" "))]] {
        let text = set(&many).text();
        assert!(text.contains("takes 4096 rules at once"), "{text}");
    }
}

/// Reading a pipe would not end.
#[test]
fn what_is_no_file_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, USERS).unwrap();
    let node = start(folder.path(), &["--aclfile", "users.acl"]);
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut wire = Wire::connect(node.address);
    let text = wire.run("ACL LOAD").text();
    assert!(text.contains("no regular file"), "{text}");
    assert_eq!(wire.run("ACL USERS").elements().len(), 2);
}

/// As the nodes of `cluster start` are.
#[test]
fn a_node_whose_users_nobody_else_has_takes_no_changes() {
    let node = Binary::start(&["--port", "0", "--acl-changes", "no"]);
    let mut wire = Wire::connect(node.address);
    for line in ["ACL SETUSER bob on", "ACL DELUSER bob", "ACL LOAD"] {
        let text = wire.run(line).text();
        assert!(text.contains("takes no changes of users") && text.contains("aclfile"), "{line}: {text}");
    }
    assert_eq!(wire.run("ACL USERS").elements().len(), 1);
    for name in ["requirepass", "REQUIREPASS", "masterauth", "masteruser"] {
        let text = wire.run(&format!("CONFIG SET maxclients 77 {name} secret")).text();
        assert!(text.contains("takes no changes of passwords") && text.contains("Sentinels"), "{name}: {text}");
    }
    assert_ne!(wire.run("CONFIG GET maxclients").elements()[1], Value::bulk("77"), "all of them or none");
    assert_eq!(Wire::connect(node.address).run("PING").text(), "PONG");
}
