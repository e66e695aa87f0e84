//! A real `redis-sentinel` or `valkey-sentinel`, and a client that finds its primary as clients of Sentinels do.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Value, Wire, wire::encode};

/// How long a failover may take: Sentinels wait for each other.
const PATIENCE: Duration = Duration::from_secs(90);

/// As [`super::wait_until`], as long as Sentinels may take.
pub fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A Sentinel; dropping it kills it.
#[derive(Debug)]
pub struct Sentinel {
    process: Child,
    pub address: SocketAddr,
    /// What it calls the primary and its replicas.
    name: &'static str,
}

impl Sentinel {
    /// Starts `command`, which is the Sentinel itself or runs it elsewhere, with the configuration in `file`.
    pub fn start(mut command: Command, file: &Path, address: SocketAddr, name: &'static str) -> Sentinel {
        let process = command
            .arg(file)
            .stdout(fs::File::create(file.with_extension("log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {:?}: {error}; run ./tests/run, which installs it", command.get_program())
            });
        wait_until("the Sentinel answers", || TcpStream::connect(address).is_ok());
        Sentinel { process, address, name }
    }

    pub fn run(&self, command: &str) -> Value {
        Wire::connect(self.address).run(command)
    }

    /// The primary that clients are told.
    pub fn primary(&self) -> SocketAddr {
        told(&self.run(&format!("SENTINEL get-master-addr-by-name {}", self.name))).unwrap()
    }

    /// Whether it knows the primary to be well, `replicas` of it and as many other Sentinels. Each replica must have told it that it is one:
    /// of a former primary that came back a Sentinel has to hear so itself, and makes it a replica once more if it is promoted before.
    pub fn knows_all(&self, replicas: usize) -> bool {
        let master = self.run(&format!("SENTINEL master {}", self.name));
        let there = self.run(&format!("SENTINEL replicas {}", self.name));
        let is_replica = |replica: &Value| field(replica, "role-reported") == "slave" && field(replica, "flags") == "slave";
        field(&master, "num-other-sentinels") == replicas.to_string()
            && field(&master, "flags") == "master"
            && there.elements().len() == replicas
            && there.elements().iter().all(is_replica)
    }
}

/// A field of what a Sentinel tells of an instance.
fn field(instance: &Value, name: &str) -> String {
    let position = instance.elements().iter().position(|field| *field == Value::bulk(name)).unwrap();
    instance.elements()[position + 1].text()
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

/// A client that adds one line after the other to its cart and remembers how many were acknowledged. It asks the Sentinels for the
/// primary, and tries again.
#[derive(Debug)]
pub struct Shopper {
    pub key: String,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Duration>,
}

/// Where a [`Shopper`] asks.
#[derive(Clone, Debug)]
pub struct Directory {
    pub sentinels: Vec<SocketAddr>,
    pub name: &'static str,
    pub password: Option<&'static str>,
}

impl Shopper {
    /// Starts one whose thread calls `enter` first.
    pub fn start(key: &str, directory: Directory, enter: impl FnOnce() + Send + 'static) -> Shopper {
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (is_over, acknowledged, key) = (Arc::clone(&is_over), Arc::clone(&acknowledged), key.to_owned());
            move || {
                enter();
                let (mut gap, mut last) = (Duration::ZERO, Instant::now());
                let mut wire: Option<Wire> = None;
                while !is_over.load(Ordering::Relaxed) {
                    wire = wire.or_else(|| primary(&directory));
                    let Some(connection) = &mut wire else {
                        thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    // Whether a write whose answer did not come was done is not known: it is written again, as the same.
                    let next = (acknowledged.load(Ordering::Relaxed) + 1).to_string();
                    match try_call(connection, &["SADD", &key, &next]) {
                        Some(Value::Integer(_)) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
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
                gap
            }
        });
        Shopper { key: key.to_owned(), is_over, acknowledged, thread }
    }

    /// How many lines were acknowledged so far: 1, 2, 3 and so on.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it; gives the last acknowledged line, and the longest time from one acknowledgement to the next.
    pub fn end(self) -> (u64, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let gap = self.thread.join().unwrap();
        (self.acknowledged.load(Ordering::Relaxed), gap)
    }
}

fn primary(directory: &Directory) -> Option<Wire> {
    let answer = directory.sentinels.iter().find_map(|address| {
        let mut wire = try_connect(*address)?;
        try_call(&mut wire, &["SENTINEL", "get-master-addr-by-name", directory.name])
    })?;
    let mut wire = try_connect(told(&answer)?)?;
    if let Some(password) = directory.password {
        try_call(&mut wire, &["AUTH", password])?;
    }
    // As clients do: Sentinels may be behind.
    let role = try_call(&mut wire, &["ROLE"])?;
    (role.elements().first() == Some(&Value::bulk("master"))).then_some(wire)
}

/// An address in a Sentinel's answer.
fn told(answer: &Value) -> Option<SocketAddr> {
    let Value::Array(parts) = answer else { return None };
    let port = parts.get(1)?.text().parse().ok()?;
    // A name, where Sentinels tell names.
    (parts.first()?.text().as_str(), port).to_socket_addrs().ok()?.next()
}

fn try_connect(address: SocketAddr) -> Option<Wire> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    Some(Wire::over(stream))
}

fn try_call(wire: &mut Wire, arguments: &[&str]) -> Option<Value> {
    wire.stream.write_all(&encode(arguments)).ok()?;
    wire.try_read().ok()
}
