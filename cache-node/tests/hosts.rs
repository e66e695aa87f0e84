//! Three hosts as the recipe `three-hosts` sets them up, each with a node, a real Sentinel and a client: a cut network, a lost host, their
//! return. No acknowledged write is lost, and no two primaries acknowledge. And three pods as the recipe `kubernetes` starts them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{
    PATIENCE, Value, Wire,
    network::{self, Network, address, in_own_network},
    process::Binary,
    sentinel::{Directory, Sentinel, Shopper, wait_until},
};
use tempfile::TempDir;

const HOSTS: [&str; 3] = ["host-1", "host-2", "host-3"];
/// Where the test itself is: another host of the network, which is never cut off.
const OFFICE: &str = "office";
const NAME: &str = "carts";
const PASSWORD: &str = "of-the-test";

/// A host with what runs there; dropping it kills both.
struct Host {
    number: usize,
    node: Option<Binary>,
    sentinel: Option<Sentinel>,
    folder: PathBuf,
}

struct Site {
    network: Network,
    hosts: Vec<Host>,
    _folder: TempDir,
}

/// A file of the recipe as this host has it.
fn recipe(file: &str, number: usize, folder: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/three-hosts").join(file);
    let own = address(number).to_string();
    let text = fs::read_to_string(path).unwrap().replace("CHANGE-ME", PASSWORD);
    let lines = text.lines().map(|line| {
        let line = line.replace("/var/lib/cache-node-under-sentinel", folder.to_str().unwrap());
        if line.starts_with("bind ") || line.contains("announce-ip ") { line.replace("192.0.2.11", &own) } else { line }
    });
    let text: String = lines.map(|line| line + "\n").collect();
    if number > 0 { text.replace("#replicaof ", "replicaof ") } else { text }
}

/// Makes a host's `node.conf` and `sentinel.conf` in its folder.
type Prepare = fn(&Network, usize, &Path);

fn prepare_host(_: &Network, number: usize, folder: &Path) {
    for file in ["node.conf", "sentinel.conf"] {
        fs::write(folder.join(file), recipe(file, number, folder)).unwrap();
    }
}

impl Site {
    fn start(prepare: Prepare) -> Site {
        let folder = TempDir::new().unwrap();
        let network = Network::of(&[&HOSTS[..], &[OFFICE]].concat());
        network::enter(OFFICE);
        let hosts = (0..HOSTS.len()).map(|number| {
            let folder = folder.path().join(HOSTS[number]);
            fs::create_dir(&folder).unwrap();
            prepare(&network, number, &folder);
            Host { number, node: None, sentinel: None, folder }
        });
        let mut site = Site { hosts: hosts.collect(), network, _folder: folder };
        for number in 0..HOSTS.len() {
            site.start_node(number);
        }
        site.wait_for_replicas(0, 2);
        for number in 0..HOSTS.len() {
            site.start_sentinel(number);
        }
        site.wait_whole();
        site
    }

    fn start_node(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let mut command = self.network.command(HOSTS[host.number], env!("CARGO_BIN_EXE_cache-node"));
        command.arg(host.folder.join("node.conf")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        host.node = Some(Binary::start_by(&mut command));
    }

    fn start_sentinel(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let command = self.network.command(HOSTS[host.number], "redis-sentinel");
        host.sentinel = Some(Sentinel::start(command, &host.folder.join("sentinel.conf"), sentinel_address(number), NAME));
    }

    /// The host of the primary that the Sentinels of these hosts agree on.
    fn primary_of(&self, hosts: &[usize]) -> Option<usize> {
        let told: HashSet<SocketAddr> =
            hosts.iter().filter_map(|host| self.hosts[*host].sentinel.as_ref()).map(Sentinel::primary).collect();
        let [told] = told.into_iter().collect::<Vec<_>>()[..] else { return None };
        (0..HOSTS.len()).find(|number| node_address(*number) == told)
    }

    /// Waits until these hosts have another primary than that one, which takes writes.
    fn wait_for_other_primary(&self, old: usize, hosts: &[usize]) -> usize {
        let mut new = old;
        wait_until("another primary", || {
            new = self.primary_of(hosts).unwrap_or(old);
            new != old
        });
        wait_until("it knows that it is one", || try_info(new, "role").as_deref() == Some("master"));
        new
    }

    fn wait_for_replicas(&self, primary: usize, count: usize) {
        wait_until("the replicas follow the primary", || {
            let online = (0..count).filter_map(|replica| try_info(primary, &format!("slave{replica}")));
            online.filter(|line| line.contains("state=online")).count() == count
        });
    }

    /// Waits until three Sentinels know a primary with two replicas, and each other.
    fn wait_whole(&self) -> usize {
        for host in &self.hosts {
            wait_until("the Sentinels know everyone", || host.sentinel.as_ref().unwrap().knows_all(2));
        }
        let primary = self.primary_of(&[0, 1, 2]).expect("they agree");
        self.wait_for_replicas(primary, 2);
        primary
    }

    fn others(&self, host: usize) -> Vec<usize> {
        (0..HOSTS.len()).filter(|other| *other != host).collect()
    }
}

fn node_address(number: usize) -> SocketAddr {
    SocketAddr::from((address(number), 6379))
}

fn sentinel_address(number: usize) -> SocketAddr {
    SocketAddr::from((address(number), 26_379))
}

/// What INFO says there, unless the connection breaks: a node that changes its role may end it, and one whose network is mended is not
/// reached at once.
fn try_info(number: usize, field: &str) -> Option<String> {
    let stream = TcpStream::connect_timeout(&node_address(number), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut wire = Wire::over(stream);
    wire.stream.write_all(format!("AUTH {PASSWORD}\r\nINFO everything\r\n").as_bytes()).ok()?;
    wire.try_read().ok()?;
    let text = wire.try_read().ok()?.text();
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
}

fn wire(number: usize) -> Wire {
    let mut wire = Wire::connect(node_address(number));
    assert_eq!(wire.run(&format!("AUTH {PASSWORD}")), Value::ok());
    wire
}

/// A client on each host, which asks that host's Sentinel first, as one whose network is cut can do.
fn shoppers() -> Vec<Shopper> {
    let on_host = |number: usize| {
        let sentinels = (0..HOSTS.len()).map(|other| sentinel_address((number + other) % HOSTS.len())).collect();
        let directory = Directory { sentinels, name: NAME, password: Some(PASSWORD) };
        Shopper::start(&format!("cart-of-{}", HOSTS[number]), directory, move || network::enter(HOSTS[number]))
    };
    (0..HOSTS.len()).map(on_host).collect()
}

/// The lines of a cart on that host, and how many of the acknowledged ones it lacks.
fn cart(number: usize, key: &str, acknowledged: u64) -> (HashSet<u64>, usize) {
    let members = wire(number).run(&format!("SMEMBERS {key}"));
    let found: HashSet<u64> = members.elements().iter().map(|line| line.text().parse().unwrap()).collect();
    let lost = (1..=acknowledged).filter(|line| !found.contains(line)).count();
    (found, lost)
}

/// Waits until each of these has had another write acknowledged; gives how long that took.
fn wait_for_writes(shoppers: &[Shopper], of: &[usize]) -> Duration {
    let started = Instant::now();
    let before: Vec<u64> = shoppers.iter().map(Shopper::acknowledged).collect();
    // Two: the answer to the first may have been on its way.
    wait_until("writes are acknowledged", || of.iter().all(|host| shoppers[*host].acknowledged() > before[*host] + 1));
    started.elapsed()
}

/// Lines that each client has acknowledged before anything happens.
const WRITES_MIN: u64 = 50;

/// How many lines are acknowledged when no more are: answers that were on their way have come.
fn settled(shopper: &Shopper) -> u64 {
    let mut acknowledged = shopper.acknowledged();
    wait_until("no more is acknowledged", || {
        thread::sleep(Duration::from_secs(1));
        let before = std::mem::replace(&mut acknowledged, shopper.acknowledged());
        before == acknowledged
    });
    acknowledged
}

fn three_hosts() {
    let mut site = Site::start(prepare_host);
    let shoppers = shoppers();
    wait_until("each client writes", || shoppers.iter().all(|shopper| shopper.acknowledged() > WRITES_MIN));

    // The primary's host is cut off, with a client that still reaches it and a Sentinel that still names it.
    let deposed = site.primary_of(&[0, 1, 2]).unwrap();
    let majority = site.others(deposed);
    site.network.cut(HOSTS[deposed]);
    let at_the_cut = settled(&shoppers[deposed]);
    let primary = site.wait_for_other_primary(deposed, &majority);
    let gap = wait_for_writes(&shoppers, &majority);
    println!("cut off: {} takes writes {gap:?} after it is the primary", HOSTS[primary]);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(shoppers[deposed].acknowledged(), at_the_cut, "the deposed primary acknowledged to those who still reach it");
    let role = site
        .network
        .command(HOSTS[deposed], "redis-cli")
        .args(["-h", "127.0.0.1", "--no-auth-warning"])
        .args(["-a", PASSWORD, "ROLE"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&role.stdout).starts_with("master"), "it still takes itself for the primary: {role:?}");
    site.network.heal(HOSTS[deposed]);
    wait_until("the deposed primary follows", || try_info(deposed, "role").as_deref() == Some("slave"));
    wait_for_writes(&shoppers, &[0, 1, 2]);
    assert_eq!(site.wait_whole(), primary, "the return of a host moves nothing");

    // The primary's host is lost with all that runs there, and comes back.
    let (lost, left) = (primary, site.others(primary));
    site.network.cut(HOSTS[lost]);
    site.hosts[lost].node = None;
    site.hosts[lost].sentinel = None;
    let primary = site.wait_for_other_primary(lost, &left);
    wait_for_writes(&shoppers, &left);
    thread::sleep(Duration::from_secs(1));
    site.network.heal(HOSTS[lost]);
    site.start_node(lost);
    site.start_sentinel(lost);
    wait_until("the lost host's node follows", || try_info(lost, "role").as_deref() == Some("slave"));
    wait_for_writes(&shoppers, &[0, 1, 2]);
    assert_eq!(site.wait_whole(), primary, "the return of a host moves nothing");

    // A replica's host is cut off: nobody else is moved, and writes go on once it no longer counts.
    let cut = site.others(primary)[0];
    let rest = site.others(cut);
    site.network.cut(HOSTS[cut]);
    let gap = wait_for_writes(&shoppers, &rest);
    println!("a replica cut off: writes go on after {gap:?}");
    assert_eq!(site.primary_of(&rest), Some(primary));
    site.network.heal(HOSTS[cut]);
    wait_for_writes(&shoppers, &[0, 1, 2]);
    assert_eq!(site.wait_whole(), primary);

    let ended: Vec<(String, u64, Duration)> = shoppers
        .into_iter()
        .map(|shopper| {
            let key = shopper.key.clone();
            let (acknowledged, gap) = shopper.end();
            (key, acknowledged, gap)
        })
        .collect();
    // A line whose acknowledgement did not come may be on its way to the others.
    wait_until("all have the same", || {
        let offsets: HashSet<_> = (0..HOSTS.len()).map(|number| try_info(number, "master_repl_offset")).collect();
        offsets.len() == 1 && !offsets.contains(&None)
    });
    for (key, acknowledged, gap) in ended {
        let mut seen = Vec::new();
        for (number, host) in HOSTS.iter().enumerate() {
            let (found, lost) = cart(number, &key, acknowledged);
            println!("{key} on {host}: {acknowledged} acknowledged, {lost} of them lost, longest gap {gap:?}");
            assert_eq!(lost, 0, "{key}: acknowledged writes that {host} lacks");
            // At most the one line whose answer nobody waited for is there unacknowledged.
            assert!(found.len() as u64 <= acknowledged + 1, "{key}: lines that nobody wrote");
            seen.push(found);
        }
        assert!(seen.iter().all(|found| *found == seen[0]), "{key} is not the same everywhere");
    }
}

#[test]
fn a_cut_network_and_a_lost_host_lose_no_acknowledged_write_and_make_no_second_primary() {
    in_own_network("a_cut_network_and_a_lost_host_lose_no_acknowledged_write_and_make_no_second_primary", three_hosts);
}

const DOMAIN: &str = "cache-node.shop.svc.cluster.local";

/// What stands under a name in the manifest's ConfigMap.
fn config_map(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/kubernetes/cache-node.yaml");
    let manifest = fs::read_to_string(path).unwrap();
    let (_, rest) = manifest.split_once(&format!("\n  {name}: |\n")).unwrap();
    rest.lines()
        .map_while(|line| line.strip_prefix("    ").or(line.is_empty().then_some(line)))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What the manifest's init container does in the pod of that number.
fn prepare_pod(network: &Network, number: usize, folder: &Path) {
    let (config, secrets) = (folder.with_extension("config"), folder.with_extension("secrets"));
    fs::create_dir_all(&config).unwrap();
    fs::create_dir_all(&secrets).unwrap();
    for file in ["node.conf", "sentinel.conf", "first-start.sh"] {
        fs::write(config.join(file), config_map(file)).unwrap();
    }
    fs::write(secrets.join("password"), PASSWORD).unwrap();
    fs::write(secrets.join("encryption.key"), "0123456789abcdef".repeat(4)).unwrap();
    let output = network
        .command(HOSTS[number], "sh")
        .arg(config.join("first-start.sh"))
        .env("POD_NAME", format!("cache-node-{number}"))
        .env("DOMAIN", DOMAIN)
        // The Service leads to any of them; here to one that the test never lets down.
        .env("SENTINEL_SERVICE", format!("cache-node-2.{DOMAIN}"))
        .env("CONFIG", &config)
        .env("SECRETS", &secrets)
        .env("DATA", folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The cluster's name service.
fn name_pods() {
    let hosts: String = (0..HOSTS.len()).map(|number| format!("{} cache-node-{number}.{DOMAIN}\n", address(number))).collect();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("hosts");
    fs::write(&file, format!("127.0.0.1 localhost\n{hosts}")).unwrap();
    let mounted = Command::new("mount").arg("--bind").arg(&file).arg("/etc/hosts").status().unwrap();
    assert!(mounted.success());
}

fn three_pods() {
    name_pods();
    let mut site = Site::start(prepare_pod);
    let shoppers = shoppers();
    wait_for_writes(&shoppers, &[0, 1, 2]);
    assert_eq!(site.primary_of(&[0, 1, 2]), Some(0));
    // The pod is gone with its volume. Another one takes its name: an empty one, which must not be the primary.
    site.hosts[0].node = None;
    site.hosts[0].sentinel = None;
    let primary = site.wait_for_other_primary(0, &[1, 2]);
    wait_for_writes(&shoppers, &[1, 2]);
    let folder = site.hosts[0].folder.clone();
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    prepare_pod(&site.network, 0, &folder);
    let written = fs::read_to_string(folder.join("node.conf")).unwrap();
    assert!(written.contains(&format!("replicaof cache-node-{primary}.{DOMAIN} 6379")), "{written}");
    site.start_node(0);
    site.start_sentinel(0);
    wait_until("it has the data", || try_info(0, "master_link_status").as_deref() == Some("up"));
    // A pod that only restarts keeps its files.
    let before = fs::read_to_string(folder.join("node.conf")).unwrap();
    prepare_pod(&site.network, 0, &folder);
    assert_eq!(fs::read_to_string(folder.join("node.conf")).unwrap(), before);
    for shopper in shoppers {
        let key = shopper.key.clone();
        let (acknowledged, gap) = shopper.end();
        println!("{key}: {acknowledged} acknowledged, longest gap {gap:?}");
        assert_eq!(cart(primary, &key, acknowledged).1, 0, "{key}: acknowledged writes that are lost");
    }
}

#[test]
fn the_pods_of_the_manifest_find_each_other_and_an_empty_one_is_no_primary() {
    in_own_network("the_pods_of_the_manifest_find_each_other_and_an_empty_one_is_no_primary", three_pods);
}
