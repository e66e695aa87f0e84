//! Real Sentinels, of Redis and of Valkey, over nodes that know nothing of them: a manual failover, a killed primary, its return, and no acknowledged write lost.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    Engine, Value, Wire,
    content::info,
    free_port,
    process::Binary,
    sentinel::{Directory, Sentinel, Shopper, wait_until},
};
use tempfile::TempDir;

const NAME: &str = "shop";

fn start_sentinel(engine: Engine, folder: &Path, primary: SocketAddr) -> Sentinel {
    let port = free_port();
    let file = folder.join(format!("sentinel-{port}.conf"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nprotected-mode no\nsentinel monitor {NAME} 127.0.0.1 {} 2\n\
         sentinel down-after-milliseconds {NAME} 1500\nsentinel failover-timeout {NAME} 6000\nsentinel parallel-syncs {NAME} 2\n",
        folder.display(),
        primary.port()
    );
    fs::write(&file, text).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let sentinel = Sentinel::start(Command::new(engine.program("sentinel")), &file, address, NAME);
    // It makes a former primary a replica four of these periods after that came back, and hears of it with the next INFO.
    for period in ["publish-period 500", "info-period 1000"] {
        assert_eq!(sentinel.run(&format!("SENTINEL DEBUG {period}")), Value::ok());
    }
    sentinel
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
    fn start(engine: Engine, more: &str) -> Shop {
        let folder = TempDir::new().unwrap();
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let mut shop =
            Shop { nodes: Vec::new(), files: Vec::new(), ports: ports.clone(), sentinels: Vec::new(), _folder: folder };
        for (number, port) in ports.iter().enumerate() {
            let file = shop._folder.path().join(format!("node-{number}.conf"));
            let dir = shop._folder.path().join(format!("data-{number}"));
            fs::create_dir(&dir).unwrap();
            let role = if number == 0 { String::new() } else { format!("replicaof 127.0.0.1 {}\n", ports[0]) };
            fs::write(&file, format!("# Node {number} of the shop.\nport {port}\ndir {}\n{more}{role}", dir.display())).unwrap();
            shop.files.push(file);
            shop.nodes.push(None);
            shop.start_node(number);
        }
        for number in 1..3 {
            let mut wire = shop.wire(number);
            wait_until("the link is up", || info(&mut wire, "master_link_status") == "up");
        }
        let primary = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
        shop.sentinels = (0..3).map(|_| start_sentinel(engine, shop._folder.path(), primary)).collect();
        shop.wait_for_sentinels();
        shop
    }

    fn start_node(&mut self, number: usize) {
        self.nodes[number] = Some(Binary::start(&[self.files[number].to_str().unwrap()]));
    }

    fn wait_for_sentinels(&self) {
        for sentinel in &self.sentinels {
            wait_until("the Sentinels know everyone", || sentinel.knows_all(2));
        }
    }

    fn wire(&self, number: usize) -> Wire {
        Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[number])))
    }

    /// The number of the node that every Sentinel names.
    fn agreed_primary(&self) -> Option<usize> {
        let ports: Vec<u16> = self.sentinels.iter().map(|sentinel| sentinel.primary().port()).collect();
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

/// What happens to a primary.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// A Sentinel is told to fail over.
    Retired,
    /// It is killed, and comes back as a replica.
    Killed,
}

#[test]
fn sentinels_of_redis_fail_over_by_hand_and_after_a_crash_and_no_acknowledged_write_is_lost() {
    fail_over(Engine::Redis, [Fate::Retired, Fate::Killed]);
}

#[test]
fn sentinels_of_valkey_fail_over_after_a_crash_and_by_hand_and_no_acknowledged_write_is_lost() {
    fail_over(Engine::Valkey, [Fate::Killed, Fate::Retired]);
}

/// Lines that each client has acknowledged before and behind each failover.
const WRITES_MIN: u64 = 80;

fn wait_for_writes(shoppers: &[Shopper]) {
    let before: Vec<u64> = shoppers.iter().map(Shopper::acknowledged).collect();
    wait_until("the clients write", || {
        shoppers.iter().zip(&before).all(|(shopper, before)| shopper.acknowledged() >= before + WRITES_MIN)
    });
}

fn fail_over(engine: Engine, fates: [Fate; 2]) {
    let mut shop = Shop::start(engine, "durability sync\nsync-replicas all\n");
    let addresses: Vec<SocketAddr> = shop.sentinels.iter().map(|sentinel| sentinel.address).collect();
    let directory = Directory { sentinels: addresses, name: NAME, password: None };
    let shoppers: Vec<Shopper> =
        (0..4).map(|number| Shopper::start(&format!("cart-{number}"), directory.clone(), || {})).collect();
    let mut primary = 0;
    for fate in fates {
        wait_for_writes(&shoppers);
        match fate {
            Fate::Retired => {
                shop.wait_for_sentinels();
                // Soon after another failover there is none: it is asked for again.
                wait_until("it is taken", || shop.sentinels[0].run("SENTINEL FAILOVER shop") == Value::ok());
            }
            Fate::Killed => shop.nodes[primary] = None,
        }
        let next = shop.wait_for_other_primary(primary);
        if fate == Fate::Killed {
            shop.start_node(primary);
        }
        shop.wait_for_replicas(next, 2);
        let mut old = shop.wire(primary);
        assert_eq!(info(&mut old, "role"), "slave");
        assert!(old.run("SET key value").is_error("READONLY"));
        let written = |number: usize| fs::read_to_string(&shop.files[number]).unwrap();
        wait_until("the new primary's file says so", || {
            written(next).starts_with("# Node ") && !written(next).contains("replicaof")
        });
        let follows = format!("replicaof 127.0.0.1 {}", shop.ports[next]);
        wait_until("the file of the old one says whom it follows", || written(primary).contains(&follows));
        primary = next;
    }
    wait_for_writes(&shoppers);
    let mut wire = shop.wire(primary);
    for shopper in shoppers {
        let key = shopper.key.clone();
        let (acknowledged, gap) = shopper.end();
        let found: HashSet<String> = wire.run(&format!("SMEMBERS {key}")).elements().iter().map(Value::text).collect();
        let lost = (1..=acknowledged).filter(|line| !found.contains(&line.to_string())).count();
        println!("{key}: {acknowledged} acknowledged, {lost} of them lost, longest gap {gap:?}");
        assert!(acknowledged >= 3 * WRITES_MIN, "{key}: only {acknowledged} writes were acknowledged");
        assert_eq!(lost, 0, "{key}: acknowledged writes that are lost");
    }
}
