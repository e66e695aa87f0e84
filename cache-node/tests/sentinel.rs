//! Real Sentinels over nodes that know nothing of them: a manual failover, a killed primary, its return, and no acknowledged write lost.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use support::{Value, Wire, content::info, process::Binary};
use tempfile::TempDir;

/// How long a failover may take: Sentinels wait for each other.
const PATIENCE: Duration = Duration::from_secs(90);

fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A `redis-sentinel`; dropping it kills it.
struct Sentinel {
    process: Child,
    address: SocketAddr,
}

impl Sentinel {
    fn start(folder: &TempDir, primary: SocketAddr) -> Sentinel {
        let port = free_port();
        let file = folder.path().join(format!("sentinel-{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nprotected-mode no\nsentinel monitor shop 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds shop 1500\nsentinel failover-timeout shop 10000\nsentinel parallel-syncs shop 2\n",
            folder.path().display(),
            primary.port()
        );
        fs::write(&file, text).unwrap();
        let process = Command::new("redis-sentinel")
            .arg(&file)
            .stdout(fs::File::create(folder.path().join(format!("sentinel-{port}.log"))).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start redis-sentinel: {error}; run: apt-get install --no-install-recommends redis-sentinel")
            });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait_until("the Sentinel answers", || TcpStream::connect(address).is_ok());
        Sentinel { process, address }
    }

    fn run(&self, command: &str) -> Value {
        Wire::connect(self.address).run(command)
    }

    /// The port of the primary that clients are told.
    fn primary_port(&self) -> u16 {
        self.run("SENTINEL get-master-addr-by-name shop").elements()[1].text().parse().unwrap()
    }

    fn field(&self, name: &str) -> String {
        let fields = self.run("SENTINEL master shop");
        let position = fields.elements().iter().position(|field| *field == Value::bulk(name)).unwrap();
        fields.elements()[position + 1].text()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

/// Three nodes with configuration files, and three Sentinels.
struct Shop {
    nodes: Vec<Option<Binary>>,
    files: Vec<PathBuf>,
    ports: Vec<u16>,
    sentinels: Vec<Sentinel>,
    _folder: TempDir,
}

impl Shop {
    fn start(more: &str) -> Shop {
        let folder = TempDir::new().unwrap();
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let mut shop =
            Shop { nodes: Vec::new(), files: Vec::new(), ports: ports.clone(), sentinels: Vec::new(), _folder: folder };
        for (number, port) in ports.iter().enumerate() {
            let file = shop._folder.path().join(format!("node-{number}.conf"));
            let role = if number == 0 { String::new() } else { format!("replicaof 127.0.0.1 {}\n", ports[0]) };
            fs::write(&file, format!("# Node {number} of the shop.\nport {port}\n{more}{role}")).unwrap();
            shop.files.push(file);
            shop.nodes.push(None);
            shop.start_node(number);
        }
        for number in 1..3 {
            let mut wire = shop.wire(number);
            wait_until("the link is up", || info(&mut wire, "master_link_status") == "up");
        }
        let primary = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
        shop.sentinels = (0..3).map(|_| Sentinel::start(&shop._folder, primary)).collect();
        shop.wait_for_sentinels();
        shop
    }

    fn start_node(&mut self, number: usize) {
        self.nodes[number] = Some(Binary::start(&[self.files[number].to_str().unwrap()]));
    }

    fn wait_for_sentinels(&self) {
        for sentinel in &self.sentinels {
            wait_until("the Sentinels know everyone", || {
                sentinel.field("num-other-sentinels") == "2"
                    && sentinel.field("num-slaves") == "2"
                    && sentinel.field("flags") == "master"
            });
        }
    }

    fn wire(&self, number: usize) -> Wire {
        Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[number])))
    }

    /// The number of the node that every Sentinel names.
    fn agreed_primary(&self) -> Option<usize> {
        let ports: Vec<u16> = self.sentinels.iter().map(Sentinel::primary_port).collect();
        let is_agreed = ports.iter().all(|port| *port == ports[0]);
        is_agreed.then(|| self.ports.iter().position(|port| *port == ports[0]).unwrap())
    }

    fn wait_for_other_primary(&self, old: usize) -> usize {
        let mut new = old;
        wait_until("another one is primary", || {
            new = self.agreed_primary().unwrap_or(old);
            new != old
        });
        let mut wire = self.wire(new);
        wait_until("it knows", || info(&mut wire, "role") == "master");
        new
    }

    fn wait_for_replicas(&self, primary: usize, count: usize) {
        let mut wire = self.wire(primary);
        wait_until("the replicas follow it", || {
            let text = wire.run("INFO replication").text();
            text.lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count() == count
        });
    }
}

/// A client that adds one line after the other to its cart and remembers how many were acknowledged, as clients of Sentinels do: it asks them for the primary, and retries.
struct Shopper {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(String, u64, Duration)>,
}

impl Shopper {
    fn start(number: usize, sentinels: Vec<SocketAddr>) -> Shopper {
        let is_over = Arc::new(AtomicBool::new(false));
        let key = format!("cart-{number}");
        let thread = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let (mut acknowledged, mut gap, mut last) = (0, Duration::ZERO, Instant::now());
                let mut wire: Option<Wire> = None;
                while !is_over.load(Ordering::Relaxed) {
                    wire = wire.or_else(|| primary(&sentinels));
                    let Some(connection) = &mut wire else {
                        thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    // Whether a write whose answer did not come was done is not known: it is written again, as the same.
                    let next = (acknowledged + 1).to_string();
                    match try_call(connection, &["SADD", &key, &next]) {
                        Some(Value::Integer(_)) => {
                            acknowledged += 1;
                            gap = gap.max(last.elapsed());
                            last = Instant::now();
                            thread::sleep(Duration::from_millis(2));
                        }
                        _ => {
                            wire = None;
                            thread::sleep(Duration::from_millis(20));
                        }
                    }
                }
                (key, acknowledged, gap)
            }
        });
        Shopper { is_over, thread }
    }
}

fn primary(sentinels: &[SocketAddr]) -> Option<Wire> {
    let answer = sentinels.iter().find_map(|address| {
        let mut wire = try_connect(*address)?;
        try_call(&mut wire, &["SENTINEL", "get-master-addr-by-name", "shop"])
    })?;
    let port = answer.elements().get(1)?.text().parse().ok()?;
    let mut wire = try_connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    // As clients do: Sentinels may be behind.
    let role = try_call(&mut wire, &["ROLE"])?;
    (role.elements().first() == Some(&Value::bulk("master"))).then_some(wire)
}

fn try_connect(address: SocketAddr) -> Option<Wire> {
    let probe = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    drop(probe);
    let wire = Wire::connect(address);
    wire.stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    Some(wire)
}

fn try_call(wire: &mut Wire, arguments: &[&str]) -> Option<Value> {
    use std::io::Write as _;
    wire.stream.write_all(&support::wire::encode(arguments)).ok()?;
    wire.try_read().ok()
}

#[test]
fn three_sentinels_fail_over_by_hand_and_after_a_crash_and_no_acknowledged_write_is_lost() {
    let mut shop = Shop::start("durability sync\nsync-replicas all\n");
    let addresses: Vec<SocketAddr> = shop.sentinels.iter().map(|sentinel| sentinel.address).collect();
    let shoppers: Vec<Shopper> = (0..4).map(|number| Shopper::start(number, addresses.clone())).collect();
    // Told to.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(shop.sentinels[0].run("SENTINEL FAILOVER shop"), Value::ok());
    let first = shop.wait_for_other_primary(0);
    shop.wait_for_replicas(first, 2);
    shop.wait_for_sentinels();
    let written = fs::read_to_string(&shop.files[first]).unwrap();
    assert!(written.starts_with("# Node ") && !written.contains("replicaof"), "{written}");
    assert!(fs::read_to_string(&shop.files[0]).unwrap().contains(&format!("replicaof 127.0.0.1 {}", shop.ports[first])));
    // Killed, twice: the old primary comes back as a replica.
    let mut primary = first;
    for _ in 0..2 {
        thread::sleep(Duration::from_secs(1));
        shop.nodes[primary] = None;
        let next = shop.wait_for_other_primary(primary);
        shop.start_node(primary);
        shop.wait_for_replicas(next, 2);
        let mut old = shop.wire(primary);
        assert_eq!(info(&mut old, "role"), "slave");
        assert!(old.run("SET key value").is_error("READONLY"));
        primary = next;
        shop.wait_for_sentinels();
    }
    thread::sleep(Duration::from_secs(1));
    shoppers.iter().for_each(|shopper| shopper.is_over.store(true, Ordering::Relaxed));
    let mut wire = shop.wire(primary);
    for shopper in shoppers {
        let (key, acknowledged, gap) = shopper.thread.join().unwrap();
        let found: HashSet<String> = wire.run(&format!("SMEMBERS {key}")).elements().iter().map(Value::text).collect();
        let lost = (1..=acknowledged).filter(|line| !found.contains(&line.to_string())).count();
        println!("{key}: {acknowledged} acknowledged, {lost} of them lost, longest gap {gap:?}");
        assert!(acknowledged > 200, "{key}: only {acknowledged} writes were acknowledged");
        assert_eq!(lost, 0, "{key}: acknowledged writes that are lost");
    }
}
