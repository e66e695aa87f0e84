//! The recipes as files: the units are right for systemd and their commands do what they say, the manifest fits Kubernetes' schema.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use support::{PATIENCE, Value, Wire, cluster::signal, content::info, wait_until};
use tempfile::TempDir;

const UNITS: [&str; 3] = ["cache-node@.service", "cache-node-under-sentinel.service", "cache-node-cluster.service"];
const PASSWORD: &str = "of-the-test";

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
}

/// A unit, with the program that is tested in place of the installed one.
fn unit(name: &str) -> String {
    let text = fs::read_to_string(recipes().join("systemd").join(name)).unwrap();
    assert!(text.contains("/usr/local/bin/cache-node"), "{name}");
    text.replace("/usr/local/bin/cache-node", env!("CARGO_BIN_EXE_cache-node"))
}

#[test]
fn systemd_takes_the_units_and_finds_them_confined() {
    let folder = TempDir::new().unwrap();
    for name in UNITS {
        let path = folder.path().join(name.replace('@', "@main"));
        fs::write(&path, unit(name)).unwrap();
        for arguments in [&["verify", "--man=no"][..], &["security", "--offline=yes", "--threshold=20"]] {
            let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().unwrap_or_else(|error| {
                panic!("cannot run systemd-analyze: {error}; run: apt-get install --no-install-recommends systemd")
            });
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{name} {arguments:?}: {said}");
        }
    }
}

/// A service as systemd would run it, by the lines of its unit.
struct Service {
    process: Child,
    notify: UnixDatagram,
    address: SocketAddr,
}

impl Service {
    /// Starts it with `config` as its credential and `more` behind its command, and waits until it tells systemd that it is ready.
    fn start(name: &str, folder: &Path, config: &str, more: &str) -> Service {
        let (credentials, state) = (folder.join("credentials"), folder.join("state"));
        fs::create_dir_all(&credentials).unwrap();
        fs::create_dir_all(&state).unwrap();
        fs::write(credentials.join("node.conf"), config).unwrap();
        let socket = folder.join("notify");
        drop(fs::remove_file(&socket));
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let command = |line: &str| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("exec {line}"));
            command.env("CREDENTIALS_DIRECTORY", &credentials).env("STATE_DIRECTORY", &state).env("NOTIFY_SOCKET", &socket);
            command.stdin(Stdio::null());
            command
        };
        let unit = unit(name);
        let lines = |key: &str| unit.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect::<Vec<_>>();
        for line in lines("ExecStartPre=") {
            assert!(command(&line).status().unwrap().success(), "{line}");
        }
        let [line] = &lines("ExecStart=")[..] else { panic!("{name} has one command") };
        let mut process = command(&format!("{line} {more}")).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let (_, rest) = ready.split_once(" ready on ").unwrap_or_else(|| panic!("{name}: no address in {ready:?}"));
        let service = Service { process, notify, address: rest.split(' ').next().unwrap().parse().unwrap() };
        assert!(service.told().lines().any(|line| line == "READY=1"));
        service
    }

    /// What it tells systemd next.
    fn told(&self) -> String {
        let mut message = [0; 4096];
        let length = self.notify.recv(&mut message).expect("it tells systemd how it is");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    fn wire(&self) -> Wire {
        let mut wire = Wire::connect(self.address);
        assert_eq!(wire.run(&format!("AUTH {PASSWORD}")), Value::ok());
        wire
    }

    /// As `systemctl stop`.
    fn stop(mut self) {
        signal("TERM", self.process.id());
        assert_eq!(self.told().trim_end(), "STOPPING=1");
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

/// A recipe's configuration, on a free port of this machine.
fn config(file: &str) -> String {
    let text = fs::read_to_string(recipes().join(file)).unwrap().replace("CHANGE-ME", PASSWORD);
    let lines = text.lines().map(|line| match line.split_once(' ') {
        Some((name @ ("port" | "metrics-port"), _)) => format!("{name} 0\n"),
        Some(("bind", _)) => "bind 127.0.0.1\n".to_owned(),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn a_node_and_its_replica_run_by_their_unit_and_keep_their_data() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let alone = Service::start(UNITS[0], first.path(), &config("systemd/alone.conf"), "");
    assert_eq!(alone.wire().run("SET cart mugs"), Value::ok());
    let follows = format!("127.0.0.1 {}", alone.address.port());
    let replica = config("systemd/replica.conf").replace("192.0.2.11 6379", &follows);
    assert!(replica.contains(&follows));
    let replica = Service::start(UNITS[0], second.path(), &replica, "");
    let mut wire = replica.wire();
    wait_until("the replica follows", || info(&mut wire, "master_link_status") == "up");
    wait_until("the replica has the data", || wire.run("GET cart") == Value::bulk("mugs"));
    replica.stop();
    alone.stop();
    let again = Service::start(UNITS[0], first.path(), &config("systemd/alone.conf"), "");
    assert_eq!(again.wire().run("GET cart"), Value::bulk("mugs"));
    again.stop();
}

#[test]
fn under_sentinels_the_unit_keeps_the_file_that_they_change() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let text = config("three-hosts/node.conf").replace("/var/lib/cache-node-under-sentinel", state.to_str().unwrap());
    let node = Service::start(UNITS[1], folder.path(), &text, "");
    let mut wire = node.wire();
    assert_eq!(wire.run("REPLICAOF 192.0.2.12 6379"), Value::ok());
    assert_eq!(wire.run("CONFIG REWRITE"), Value::ok());
    node.stop();
    let node = Service::start(UNITS[1], folder.path(), &text, "");
    assert_eq!(info(&mut node.wire(), "master_host"), "192.0.2.12");
    node.stop();
}

#[test]
fn the_clusters_unit_is_ready_when_the_cluster_takes_writes() {
    let folder = TempDir::new().unwrap();
    let ports = "--port 0 --reader-port 0 --sentinel-port 0 --http-port 0";
    let cluster = Service::start(UNITS[2], folder.path(), "", ports);
    assert_eq!(Wire::connect(cluster.address).run("PING"), Value::Simple("PONG".to_owned()));
    cluster.stop();
}

#[test]
fn the_manifest_fits_the_schema_of_kubernetes() {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/output/kubernetes-validate/bin/kubernetes-validate");
    let program = if installed.exists() { installed } else { PathBuf::from("kubernetes-validate") };
    let manifest = recipes().join("kubernetes/cache-node.yaml");
    let output = Command::new(&program).arg("--strict").arg(&manifest).output().unwrap_or_else(|error| {
        panic!(
            "cannot run {}: {error}; ./tests/run unit installs it, or: \
             python3 -m venv tests/output/kubernetes-validate && \
             tests/output/kubernetes-validate/bin/pip install kubernetes-validate",
            program.display()
        )
    });
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    let documents = fs::read_to_string(manifest).unwrap().split("\n---\n").count();
    assert_eq!(said.matches(" passed for resource ").count(), documents, "{said}");
}
