//! Rules drawn at random: a node takes, refuses and shows them as Valkey does, and permits the same.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    clear, node,
    support::{Engine, RedisServer, Value, Wire, process::Binary},
};

const SEED: u64 = 20_261_126;
const ROUNDS: usize = 300;
const RULES_MAX: usize = 7;

const RULES: &str = "on off nopass resetpass >p >q <p <q reset ~a* ~b? ~[ab]c ~* %R~a* %W~a* %RW~b* %r~c %w~c ~ %~x %RQ~x allkeys resetkeys &a* &b &* \
                     allchannels resetchannels clearselectors +get -get +GET +set -set +config -config +config|get -config|get +config|SET \
                     +select|0 +select|1 -select +object|freq -object +xadd -cluster|slots +cluster +nosuch +config|nosuch +get|x -get|x \
                     +@read -@read +@write -@write +@all -@all allcommands nocommands +@dangerous -@dangerous +@admin -@admin +@string \
                     -@connection +@pubsub -@slow +@fast +@nosuch +@keyspace -@scripting sanitize-payload skip-sanitize-payload (~a*-+get) \
                     (%R~b*-+@read-&c) (-+@all-~*) (nosuch) (+set nosuch #x !x";

const REQUESTS: [&str; 16] = [
    "get a1",
    "get bc",
    "set a1 v",
    "set a1 v get",
    "set b1 v",
    "mget a1 b1",
    "copy a1 b1",
    "config get x",
    "config set x y",
    "object freq a1",
    "select 0",
    "publish a1 x",
    "psubscribe a*",
    "eval x 1 a1",
    "keys *",
    "client id",
];

#[test]
fn rules_drawn_at_random_mean_the_same() {
    let pool: Vec<String> =
        RULES.split_whitespace().map(|rule| rule.replace('-', if rule.starts_with('(') { " " } else { "-" })).collect();
    let (node, valkey) = (node(), RedisServer::start_of(Engine::Valkey, &[]));
    let addresses = [node.addr(), valkey.address];
    addresses.into_iter().for_each(clear);
    let mut wires = addresses.map(Wire::connect);
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut taken, mut permitted) = (0, 0);
    for round in 0..ROUNDS {
        let name = format!("user{}", random.random_range(0..20));
        let count = random.random_range(1..=RULES_MAX);
        let rules: Vec<&str> = (0..count).map(|_| pool.choose(&mut random).unwrap().as_str()).collect();
        let request = [&["ACL", "SETUSER", &name], &rules[..]].concat();
        let mut requests = vec![request, vec!["ACL", "GETUSER", &name]];
        requests
            .extend(REQUESTS.iter().map(|line| [&["ACL", "DRYRUN", &name], &line.split(' ').collect::<Vec<_>>()[..]].concat()));
        for request in requests {
            let [ours, theirs] = wires.each_mut().map(|wire| wire.call(&request));
            assert_eq!(ours, theirs, "round {round} of seed {SEED}: {request:?} behind {rules:?}");
            taken += usize::from(request[1] == "SETUSER" && ours == Value::ok());
            permitted += usize::from(request[1] == "DRYRUN" && ours == Value::ok());
        }
    }
    assert_eq!(wires[0].run("ACL LIST"), wires[1].run("ACL LIST"));
    assert!(
        taken > ROUNDS / 4 && permitted > ROUNDS,
        "{taken} were taken, {permitted} requests permitted: too little to compare"
    );
}

/// Letters of names, patterns, passwords and arguments: what files split at, quote and trim, and blanks that are not ASCII's.
const LETTERS: [&str; 19] =
    ["a", "b", "*", "|", "\"", "'", "\\", "(", ")", " ", "\n", "\t", "#", ">", "~", "&", "\u{a0}", "\u{2003}", "é"];

#[test]
fn what_is_saved_is_loaded_again() {
    const USERS_DRAWN: usize = 400;
    let folder = tempfile::tempdir().unwrap();
    let [acl_file, conf_file] = ["users.acl", "node.conf"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&acl_file, "user default on nopass ~* &* +@all\n").unwrap();
    std::fs::write(&conf_file, "port 0\n").unwrap();
    let with_file = Binary::start(&["--port", "0", "--aclfile", &acl_file]);
    let with_lines = Binary::start(&[&conf_file]);
    let mut wires = [with_file.address, with_lines.address].map(Wire::connect);
    let mut random = StdRng::seed_from_u64(SEED);
    let mut taken = 0;
    for _ in 0..USERS_DRAWN {
        let word = |random: &mut StdRng| -> String {
            let count = random.random_range(0..5);
            (0..count).map(|_| *LETTERS.choose(random).unwrap()).collect()
        };
        let rule = |random: &mut StdRng| -> String {
            let begin = ["~", "%R~", "%W~", "&", "+select|", "+get|", "-", "+", "+@"].choose(random).unwrap();
            match random.random_range(0..4) {
                0 => ["+get", "-@read", "+@write", "+config|get", "-config"].choose(random).unwrap().to_string(),
                _ => format!("{begin}{}", word(random)),
            }
        };
        let mut rules = Vec::new();
        for _ in 0..random.random_range(1..4) {
            rules.push(match random.random_range(0..4) {
                0 => format!(">{}", word(&mut random)),
                1 => {
                    let inner: Vec<String> = (0..random.random_range(0..3)).map(|_| rule(&mut random)).collect();
                    format!("({})", inner.join(" "))
                }
                _ => rule(&mut random),
            });
        }
        let name = word(&mut random);
        let request = [&["ACL".to_owned(), "SETUSER".to_owned(), name], &rules[..]].concat();
        let [first, second] = wires.each_mut().map(|wire| wire.call(&request));
        assert_eq!(first, second, "{request:?}");
        taken += usize::from(first == Value::ok());
    }
    assert!(taken > USERS_DRAWN / 8, "{taken} were taken: too little to compare");
    let [with_file_listed, with_lines_listed] = wires.each_mut().map(|wire| wire.run("ACL LIST"));
    assert_eq!([wires[0].run("ACL SAVE"), wires[0].run("ACL LOAD")], [Value::ok(), Value::ok()]);
    assert_eq!(wires[0].run("ACL LIST"), with_file_listed);
    assert_eq!(wires[1].run("CONFIG REWRITE"), Value::ok());
    drop(with_lines);
    let with_lines = Binary::start(&[&conf_file]);
    assert_eq!(Wire::connect(with_lines.address).run("ACL LIST"), with_lines_listed);
}
