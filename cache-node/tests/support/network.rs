//! Hosts that can be cut off from each other: network namespaces behind one bridge.

use std::{
    env,
    fs::File,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    process::{Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Says that the test runs where it may make namespaces.
const INSIDE: &str = "CACHE_NODE_TEST_INSIDE_OWN_NETWORK";

const NEEDED: &str = "this test needs network namespaces, which Linux gives to root, and to others where \
    /proc/sys/user/max_user_namespaces is not 0 and nothing else forbids it; a container has them with \
    --cap-add SYS_ADMIN --cap-add NET_ADMIN. Programs: apt-get install --no-install-recommends iproute2 util-linux";

/// The exit status of a test program in which a test failed.
const TEST_FAILED: i32 = 101;

/// Runs `body` as the only test of a process of its own, whose networks and mounts end with it, however it ends.
pub fn in_own_network(test: &str, body: fn()) {
    run_inside(test, body, &["unshare", "--user", "--map-root-user"]);
}

/// The same with root's rights outside of it as well, for whoever has sudo without a password.
pub fn in_own_network_as_root(test: &str, body: fn()) {
    run_inside(test, body, &["sudo", "-n", "env", &format!("{INSIDE}=1"), "unshare"]);
}

/// `others` is how who is not root runs unshare.
fn run_inside(test: &str, body: fn(), others: &[&str]) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let [program, arguments @ ..] = (if rustix::process::geteuid().is_root() { &["unshare"] } else { others }) else {
        unreachable!("a program is named");
    };
    let mut command = Command::new(program);
    command.args(arguments);
    // `ip` keeps the names of namespaces under /run.
    command.args(["--mount", "--net", "sh", "-ec", "mount -t tmpfs tmpfs /run; exec \"$@\"", "sh"]);
    let output = command
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}; {NEEDED}"));
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{out}{errors}");
    match output.status.code() {
        Some(0) => assert!(out.contains("1 passed"), "no test of the name {test} ran inside"),
        Some(TEST_FAILED) => panic!("it failed, see above"),
        _ => panic!("{}: {NEEDED}", output.status),
    }
}

/// Hosts by name, each with an address of 192.0.2.0/24.
#[derive(Debug)]
pub struct Network;

const SWITCH: &str = "switch";

impl Network {
    /// Hosts with the addresses 192.0.2.11, 192.0.2.12 and so on.
    pub fn of(hosts: &[&str]) -> Network {
        ip(&["netns", "add", SWITCH]);
        ip(&["-n", SWITCH, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", SWITCH, "link", "set", "bridge", "up"]);
        for (number, host) in hosts.iter().enumerate() {
            ip(&["netns", "add", host]);
            ip(&["-n", SWITCH, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host]);
            ip(&["-n", SWITCH, "link", "set", host, "master", "bridge"]);
            ip(&["-n", host, "address", "add", &format!("{}/24", address(number)), "dev", "eth0"]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
            ip(&["-n", host, "link", "set", "eth0", "up"]);
            Network.heal(host);
        }
        Network
    }

    /// Nothing goes to or from the host any more, and nobody is told.
    pub fn cut(&self, host: &str) {
        // At the switch: the host itself sees a link that is up, so that its sockets wait instead of failing.
        ip(&["-n", SWITCH, "link", "set", host, "nomaster"]);
    }

    pub fn heal(&self, host: &str) {
        ip(&["-n", SWITCH, "link", "set", host, "master", "bridge", "up"]);
    }

    /// A program on that host.
    pub fn command(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path(host))).arg(program);
        command
    }
}

/// The address of the host of that number, from 0.
pub fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 11 + u8::try_from(number).unwrap())
}

/// From now on the sockets of this thread, and of those that it starts, are that host's.
pub fn enter(host: &str) {
    let namespace = File::open(path(host)).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn path(host: &str) -> String {
    format!("/run/netns/{host}")
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap_or_else(|error| panic!("cannot run ip: {error}; {NEEDED}"));
    assert!(output.status.success(), "ip {arguments:?}: {}; {NEEDED}", String::from_utf8_lossy(&output.stderr));
}
