//! The recipe's units under a live systemd: started as the recipe says, killed, stopped, and a machine that loses its power.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{fs, net::SocketAddr, net::TcpStream, path::Path};

use support::{PATIENCE, Value, Wire, content::info, http, network::in_own_network_as_root, systemd::Machine, wait_until, words};

const PASSWORD: &str = "of-the-test";

/// More than systemd would start again within ten seconds by its own default.
const KILLS: usize = 6;

fn recipe(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(file);
    let text = fs::read_to_string(path).unwrap().replace("CHANGE-ME", PASSWORD);
    // The host's own address beside the loopback, and the address of the node that is followed.
    text.replace("192.0.2.11 127.0.0.1", "127.0.0.1").replace("192.0.2.11", "127.0.0.1")
}

fn install_unit(machine: &Machine, file: &str) {
    machine.install(&format!("/etc/systemd/system/{file}"), 0o644, &recipe(&format!("systemd/{file}")));
    machine.run("systemctl daemon-reload");
}

/// What `systemctl show` tells.
fn shown(machine: &Machine, unit: &str, property: &str) -> String {
    machine.run(&format!("systemctl show -P {property} {unit}"))
}

/// A connection to what serves there, once it does.
fn served(port: u16) -> Wire {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut served = None;
    wait_until("it serves", || {
        let Ok(stream) = TcpStream::connect(address) else { return false };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut wire = Wire::over(stream);
        // The cluster has no password and says so, and PING is answered beside the loading.
        let answers = [format!("AUTH {PASSWORD}"), "DBSIZE".to_owned()].map(|request| {
            wire.send(&words(&request));
            wire.try_read()
        });
        let is_there = matches!(&answers[1], Ok(Value::Integer(_)));
        served = is_there.then_some(wire);
        is_there
    });
    served.unwrap()
}

/// Stops it as an operator would; it ends by itself within its time, with nothing of it left.
fn stop(machine: &Machine, unit: &str) {
    machine.run(&format!("systemctl stop {unit}"));
    let told = machine.run(&format!("systemctl show -p ActiveState,Result,ExecMainStatus {unit}"));
    for line in ["ActiveState=inactive", "Result=success", "ExecMainStatus=0"] {
        assert!(told.contains(line), "{unit}: {told}");
    }
    assert_eq!(machine.run("pgrep -c cache-node || true"), "0", "processes of {unit} stay");
}

/// The rights of a process of the unit are none.
fn assert_confined(machine: &Machine, process: &str) {
    let status = machine.run(&format!("cat /proc/{process}/status"));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_ne!(field("Uid:"), "0");
    assert_eq!((field("CapEff:").trim_matches('0'), &*field("NoNewPrivs:"), &*field("Seccomp:")), ("", "1", "2"));
}

#[test]
#[ignore = "boots a systemd of its own: `tests/run --long`"]
fn a_live_systemd_runs_the_units() {
    in_own_network_as_root("a_live_systemd_runs_the_units", || {
        let mut machine = Machine::start();
        a_node_that_stands_alone(&mut machine);
        a_cluster(&machine);
        a_node_under_sentinels(&machine);
    });
}

fn a_node_that_stands_alone(machine: &mut Machine) {
    const UNIT: &str = "cache-node@main";
    install_unit(machine, "cache-node@.service");
    machine.install("/etc/cache-node/main.conf", 0o600, &recipe("systemd/alone.conf"));
    machine.run(&format!("systemctl enable --now {UNIT}"));
    assert_eq!(shown(machine, UNIT, "StatusText"), "serves on 127.0.0.1:6379");
    assert_confined(machine, &shown(machine, UNIT, "MainPID"));
    assert_eq!(http::get(SocketAddr::from(([127, 0, 0, 1], 9121)), "/readyz", &[]).status, 200);

    // A replica is another instance.
    machine.install("/etc/cache-node/replica.conf", 0o600, &recipe("systemd/replica.conf"));
    machine.run("systemctl enable --now cache-node@replica");
    let mut wire = served(6379);
    assert_eq!(wire.run("SET kept 0"), Value::ok());
    let mut replica = served(6380);
    wait_until("the replica has it", || replica.run("GET kept") == Value::bulk("0"));

    // Confined as it is, it writes its files.
    assert_eq!(wire.run("BGSAVE"), Value::Simple("Background saving started".to_owned()));
    wait_until("a snapshot is there", || info(&mut wire, "rdb_saves") == "1");
    wire.run("BGREWRITEAOF");
    wait_until("a log is there", || info(&mut wire, "aof_rewrites") == "1");
    assert_eq!((&*info(&mut wire, "rdb_last_bgsave_status"), &*info(&mut wire, "aof_last_bgrewrite_status")), ("ok", "ok"));

    for kill in 1..=KILLS {
        assert_eq!(served(6379).run(&format!("SET kept {kill}")), Value::ok());
        machine.run(&format!("systemctl kill -s KILL {UNIT}"));
        wait_until("it is started again", || shown(machine, UNIT, "NRestarts") == kill.to_string());
        assert_eq!(served(6379).run("GET kept"), Value::bulk(&kill.to_string()));
    }
    machine.lose_power();
    assert_eq!(served(6379).run("GET kept"), Value::bulk(&KILLS.to_string()));
    let mut replica = served(6380);
    wait_until("the replica follows", || info(&mut replica, "master_link_status") == "up");

    assert_eq!(served(6379).run("SET kept stopped"), Value::ok());
    machine.run("systemctl disable --now cache-node@replica");
    stop(machine, UNIT);
    let journal = machine.run(&format!("journalctl --no-pager --output cat -u {UNIT}"));
    for line in ["cache-node ready on 127.0.0.1:6379", "SIGTERM: ending"] {
        assert!(journal.contains(line), "no {line:?} in the journal: {journal}");
    }
    machine.run(&format!("systemctl start {UNIT}"));
    assert_eq!(served(6379).run("GET kept"), Value::bulk("stopped"));
    machine.run(&format!("systemctl disable --now {UNIT}"));
}

/// The processes of the unit beside its first one.
fn nodes(machine: &Machine, unit: &str) -> Vec<String> {
    let group = shown(machine, unit, "ControlGroup");
    let main = shown(machine, unit, "MainPID");
    let mut nodes: Vec<String> =
        machine.run(&format!("cat /sys/fs/cgroup{group}/cgroup.procs")).lines().map(str::to_owned).collect();
    nodes.retain(|process| *process != main);
    nodes.sort();
    nodes
}

fn a_cluster(machine: &Machine) {
    const UNIT: &str = "cache-node-cluster";
    const FOLDER: &str = "/var/lib/cache-node-cluster";
    install_unit(machine, "cache-node-cluster.service");
    machine.run(&format!("systemctl enable --now {UNIT}"));
    let before = nodes(machine, UNIT);
    assert_eq!(before.len(), 3);
    before.iter().for_each(|process| assert_confined(machine, process));
    assert_eq!(served(6379).run("SET kept backed-up"), Value::ok());
    let told = machine.run(&format!("cache-node cluster backup --dir {FOLDER}"));
    let (_, snapshot) = told.rsplit_once(' ').unwrap();

    assert_eq!(served(6379).run("SET kept controller"), Value::ok());
    machine.run(&format!("systemctl kill --kill-whom=main -s KILL {UNIT}"));
    wait_until("the controller is started again", || shown(machine, UNIT, "NRestarts") == "1");
    assert_eq!(served(6379).run("GET kept"), Value::bulk("controller"));
    assert_eq!(nodes(machine, UNIT), before, "it takes the nodes over");

    machine.run(&format!("kill -KILL {}", before[0]));
    wait_until("the node is replaced", || {
        let now = nodes(machine, UNIT);
        now.len() == 3
            && now != before
            && machine.run(&format!("cache-node cluster status --dir {FOLDER}")).matches(" serving ").count() == 3
    });
    assert_eq!(served(6379).run("SET kept all"), Value::ok());
    machine.run(&format!("systemctl kill -s KILL {UNIT}"));
    wait_until("all are started again", || shown(machine, UNIT, "NRestarts") == "2");
    assert_eq!(served(6379).run("GET kept"), Value::bulk("all"));

    machine.run(&format!("cache-node cluster restore --dir {FOLDER} {snapshot}"));
    assert_eq!(served(6379).run("GET kept"), Value::bulk("backed-up"));
    stop(machine, UNIT);
    machine.run(&format!("systemctl start {UNIT}"));
    assert_eq!(served(6379).run("GET kept"), Value::bulk("backed-up"));
    machine.run(&format!("systemctl disable --now {UNIT}"));
}

fn a_node_under_sentinels(machine: &Machine) {
    const UNIT: &str = "cache-node-under-sentinel";
    install_unit(machine, "cache-node-under-sentinel.service");
    machine.install("/etc/cache-node/node.conf", 0o600, &recipe("three-hosts/node.conf"));
    machine.run(&format!("systemctl enable --now {UNIT}"));
    assert_confined(machine, &shown(machine, UNIT, "MainPID"));
    // What Sentinels do with it.
    let mut wire = served(6379);
    assert_eq!(wire.run("REPLICAOF 192.0.2.12 6379"), Value::ok());
    assert_eq!(wire.run("CONFIG REWRITE"), Value::ok());
    machine.run(&format!("systemctl kill -s KILL {UNIT}"));
    wait_until("it is started again", || shown(machine, UNIT, "NRestarts") == "1");
    assert_eq!(info(&mut served(6379), "master_host"), "192.0.2.12");
    stop(machine, UNIT);
}
