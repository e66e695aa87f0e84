//! The primary of a key's slot.
//!
//! Every request of this library is on one slot, so that a map of slots and a redirection are all there is to it. redis-rs'
//! own cluster client has one connection for each node and a queue of its own before it, whose waits no deadline of ours
//! would bound.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::{Mutex, RwLock};
use redis::Value;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Replicas, first, recovered,
    slots::{SLOTS, Slot},
};
use crate::{
    StoreError,
    nodes::{Address, Node, NodeStatus, Transport},
};

/// How often the map is read although nothing was wrong.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// The same where reads go to replicas: nothing fails when there is a new one.
const REFRESH_REPLICAS_EVERY: Duration = Duration::from_secs(5);
/// Between two readings of the map, however many operations want it; also until the next one while something is wrong.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);
/// For the answer of one node.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Nodes that are asked at once, of which the one with the latest epoch counts.
const ASKED_MAX: usize = 5;
/// For the very first map, before the operation that waits for it says what is wrong.
const FIRST_MAP_WITHIN: Duration = Duration::from_millis(200);
/// A slot that no node has.
const NOBODY: u16 = u16::MAX;

#[derive(Debug)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    started: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    seeds: Vec<Address>,
    transport: Arc<Transport>,
    /// To replicas, when reads may go to them.
    reads: Option<Arc<Transport>>,
    sockets: usize,
    map: RwLock<Map>,
    changed: Notify,
    wanted: Arc<Notify>,
    /// How often the map has changed.
    switches: Arc<AtomicU64>,
    /// What the latest reading of the map ended with.
    problem: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Map {
    nodes: Vec<Arc<Node>>,
    /// Where copies are: asked for the map when no primary answers.
    replicas: Vec<Address>,
    /// Those of each node, in the order of the nodes, when reads may go to them.
    copies: Vec<Replicas>,
    /// Indices into the nodes.
    slots: Box<[u16]>,
    epoch: u64,
}

impl Map {
    fn node(&self, slot: Option<Slot>) -> Option<Arc<Node>> {
        let node = match slot {
            Some(slot) => self.nodes.get(usize::from(self.slots[usize::from(slot.0)])),
            // A sign of life: of a node that is not known to be away, if there is one.
            None => self.nodes.iter().find(|node| node.is_closed()).or(self.nodes.first()),
        };
        node.cloned()
    }
}

impl Cluster {
    /// `reads`: to the replicas, when reads may go to them.
    pub(crate) fn new(seeds: Vec<Address>, transport: Transport, reads: Option<Transport>, sockets: usize) -> Self {
        let slots = vec![NOBODY; SLOTS].into();
        let shared = Shared {
            seeds,
            transport: Arc::new(transport),
            reads: reads.map(Arc::new),
            sockets,
            map: RwLock::new(Map { nodes: Vec::new(), replicas: Vec::new(), copies: Vec::new(), slots, epoch: 0 }),
            changed: Notify::new(),
            wanted: Arc::default(),
            switches: Arc::default(),
            problem: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), started: AtomicBool::new(false) }
    }

    pub(super) async fn node(&self, slot: Option<Slot>) -> Result<Arc<Node>, StoreError> {
        if let Some(node) = self.shared.map.read().node(slot) {
            return Ok(node);
        }
        self.start();
        self.shared.wanted.notify_one();
        let node = || self.shared.map.read().node(slot);
        first(&self.shared.changed, FIRST_MAP_WITHIN, node).await.ok_or_else(|| {
            let addresses: Vec<_> = self.shared.seeds.iter().map(ToString::to_string).collect();
            let problem = self.shared.problem.lock().clone();
            StoreError::Connect {
                address: format!("the cluster at {}", addresses.join(", ")),
                reason: problem.unwrap_or_else(|| "no node has said yet which slots it has".to_owned()),
            }
        })
    }

    /// The nodes that requests are sent to, and the epoch of the map.
    pub(super) fn primaries(&self) -> (Vec<Arc<Node>>, u64) {
        let map = self.shared.map.read();
        (map.nodes.clone(), map.epoch)
    }

    pub(super) fn switches(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.switches)
    }

    pub(super) fn has_replicas(&self) -> bool {
        self.shared.reads.is_some()
    }

    pub(super) fn replica(&self, slot: Slot) -> Option<Arc<Node>> {
        let map = self.shared.map.read();
        // A node that a redirection has named has none until the map is read again.
        map.copies.get(usize::from(map.slots[usize::from(slot.0)]))?.pick()
    }

    pub(super) async fn recovered(&self, slot: Option<Slot>) {
        recovered(&self.shared.changed, || self.shared.map.read().node(slot)).await;
    }

    pub(super) fn refresh(&self) {
        self.shared.wanted.notify_one();
    }

    pub(super) fn redirected(&self, slot: Slot, to: Address, moved: bool) -> Arc<Node> {
        let mut map = self.shared.map.write();
        let index = map.nodes.iter().position(|node| *node.address() == to).unwrap_or_else(|| {
            map.nodes.push(Node::new(to, Arc::clone(&self.shared.transport), self.shared.sockets));
            self.shared.switches.fetch_add(1, Ordering::AcqRel);
            map.nodes.len() - 1
        });
        if moved {
            self.shared.switches.fetch_add(1, Ordering::AcqRel);
            map.slots[usize::from(slot.0)] = u16::try_from(index).unwrap_or(NOBODY);
            self.refresh();
        }
        Arc::clone(&map.nodes[index])
    }

    pub(super) fn nodes(&self) -> Vec<NodeStatus> {
        self.shared.map.read().nodes.iter().map(|node| node.status()).collect()
    }

    pub(super) fn replicas(&self) -> Vec<NodeStatus> {
        self.shared.map.read().copies.iter().flat_map(Replicas::status).collect()
    }

    /// Not before the first operation: a store can be made where no runtime is yet.
    fn start(&self) {
        if !self.started.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep(Arc::downgrade(&self.shared)));
        }
    }
}

/// Keeps the map up to date as long as there is a store that uses it.
async fn keep(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let outcome = strong.read().await;
        let all_is_well = match outcome {
            Ok(()) => {
                *strong.problem.lock() = None;
                let map = strong.map.read();
                map.nodes.iter().all(|node| node.is_closed()) && !map.slots.contains(&NOBODY)
            }
            Err(problem) => {
                *strong.problem.lock() = Some(problem);
                false
            }
        };
        // The map is not held while waiting: a store that nobody uses any more closes its connections.
        let wanted = Arc::clone(&strong.wanted);
        let every = if strong.reads.is_some() { REFRESH_REPLICAS_EVERY } else { REFRESH_EVERY };
        drop(strong);
        sleep(REFRESH_PAUSE).await;
        if all_is_well {
            let _ = timeout(every, wanted.notified()).await;
        }
    }
}

impl Shared {
    async fn read(&self) -> Result<(), String> {
        let asked = self.to_ask();
        let mut answers: FuturesUnordered<_> = asked.iter().map(|node| timeout(ANSWER_WITHIN, ask(node))).collect();
        let mut best: Option<Answer> = None;
        let mut problem = "no node is known".to_owned();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Ok(answer)) if best.as_ref().is_none_or(|best| best.rank() < answer.rank()) => best = Some(answer),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => problem = error,
                Err(_) => problem = format!("no answer within {} ms", ANSWER_WITHIN.as_millis()),
            }
        }
        drop(answers);
        self.take(best.ok_or(problem)?);
        Ok(())
    }

    /// Nodes that answer, then the addresses of the URL and of replicas.
    fn to_ask(&self) -> Vec<Arc<Node>> {
        let map = self.map.read();
        let mut asked: Vec<_> = map.nodes.iter().filter(|node| node.is_closed()).take(ASKED_MAX).cloned().collect();
        for address in self.seeds.iter().chain(&map.replicas) {
            if asked.len() < ASKED_MAX && !map.nodes.iter().any(|node| node.address() == address) {
                asked.push(Node::new(address.clone(), Arc::clone(&self.transport), 1));
            }
        }
        asked
    }

    fn take(&self, answer: Answer) {
        let mut map = self.map.write();
        if answer.epoch < map.epoch {
            return;
        }
        let known: HashMap<Address, Arc<Node>> =
            map.nodes.iter().map(|node| (node.address().clone(), Arc::clone(node))).collect();
        let mut next = Map {
            nodes: Vec::new(),
            replicas: answer.replicas,
            copies: Vec::new(),
            slots: vec![NOBODY; SLOTS].into(),
            epoch: answer.epoch,
        };
        let known_copies: Vec<_> = map.copies.iter().flat_map(Replicas::nodes).cloned().collect();
        for Range { from, to, primary: address, replicas } in answer.ranges {
            let index = next.nodes.iter().position(|node| *node.address() == address).unwrap_or_else(|| {
                let node = known.get(&address).cloned();
                next.nodes.push(node.unwrap_or_else(|| Node::new(address, Arc::clone(&self.transport), self.sockets)));
                if let Some(reads) = &self.reads {
                    let make = |address| Node::new(address, Arc::clone(reads), self.sockets);
                    next.copies.push(Replicas::at(&replicas, &known_copies, make));
                }
                next.nodes.len() - 1
            });
            if from <= to && usize::from(to) < SLOTS {
                next.slots[usize::from(from)..=usize::from(to)].fill(u16::try_from(index).unwrap_or(NOBODY));
            }
        }
        let addresses = |map: &Map| {
            let mut addresses: Vec<_> = map.nodes.iter().map(|node| node.address().to_string()).collect();
            addresses.sort();
            addresses.join(", ")
        };
        let (before, after) = (addresses(&map), addresses(&next));
        let changed = map.slots != next.slots || before != after;
        if changed {
            self.switches.fetch_add(1, Ordering::AcqRel);
        }
        *map = next;
        drop(map);
        if before != after {
            tracing::info!(before, after, "the cluster has other primaries");
        }
        if changed {
            self.changed.notify_waiters();
        }
    }
}

/// The map as one node sees it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    is_ok: bool,
    epoch: u64,
    ranges: Vec<Range>,
    replicas: Vec<Address>,
}

/// Slots that one primary has.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    from: u16,
    to: u16,
    primary: Address,
    replicas: Vec<Address>,
}

impl Answer {
    /// A node that is cut off says that the cluster is down, or is behind.
    fn rank(&self) -> (bool, u64, usize) {
        (self.is_ok, self.epoch, self.ranges.len())
    }
}

async fn ask(node: &Arc<Node>) -> Result<Answer, String> {
    let mut handle = node.handle(0).await.map_err(|error| error.to_string())?;
    let mut pipeline = redis::pipe();
    pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let (info, slots): (String, Vec<Value>) =
        pipeline.query_async(&mut handle.connection.wire).await.map_err(|error| format!("{}: {error}", node.address()))?;
    parse(&info, slots, node.address()).ok_or_else(|| format!("{}: CLUSTER SLOTS has an unknown form", node.address()))
}

/// Whether the cluster is whole, as a node says in CLUSTER INFO, and the latest epoch that it has heard of.
pub(crate) fn health(info: &str) -> (bool, u64) {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let epoch = field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    (field("cluster_state") == Some("ok"), epoch)
}

fn parse(info: &str, slots: Vec<Value>, asked: &Address) -> Option<Answer> {
    let (is_ok, epoch) = health(info);
    let mut answer = Answer { is_ok, epoch, ranges: Vec::new(), replicas: Vec::new() };
    for range in slots {
        let Value::Array(range) = range else { return None };
        let mut parts = range.into_iter();
        let (Value::Int(from), Value::Int(to)) = (parts.next()?, parts.next()?) else { return None };
        let primary = address(parts.next()?, asked)?;
        let replicas: Vec<_> = parts.filter_map(|replica| address(replica, asked)).collect();
        answer.replicas.extend(replicas.iter().cloned());
        answer.ranges.push(Range { from: u16::try_from(from).ok()?, to: u16::try_from(to).ok()?, primary, replicas });
    }
    answer.replicas.sort_by_key(ToString::to_string);
    answer.replicas.dedup();
    Some(answer)
}

fn address(node: Value, asked: &Address) -> Option<Address> {
    let Value::Array(node) = node else { return None };
    let mut parts = node.into_iter();
    let host: Option<String> = redis::from_redis_value(parts.next()?).ok()?;
    let Value::Int(port) = parts.next()? else { return None };
    Address::of_parts(host.as_deref().unwrap_or_default(), u16::try_from(port).ok()?, asked)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{Range, parse};
    use crate::nodes::Address;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString(b"id".to_vec())])
    }

    #[test]
    fn a_map_is_read() {
        let slots = vec![
            Value::Array(vec![Value::Int(0), Value::Int(8_191), node("a", 1), node("b", 2)]),
            Value::Array(vec![Value::Int(8_192), Value::Int(16_383), node("", 3), node("b", 2)]),
        ];
        let info = "cluster_state:ok\r\ncluster_current_epoch:7\r\n";
        let answer = parse(info, slots, &Address::tcp("asked", 9)).expect("it has the form of CLUSTER SLOTS");
        assert!(answer.is_ok);
        assert_eq!(answer.epoch, 7);
        let range = |from, to, primary| Range { from, to, primary, replicas: vec![Address::tcp("b", 2)] };
        assert_eq!(answer.ranges, [range(0, 8_191, Address::tcp("a", 1)), range(8_192, 16_383, Address::tcp("asked", 3))]);
        assert_eq!(answer.replicas, [Address::tcp("b", 2)]);
        assert_eq!(parse("", vec![Value::Int(1)], &Address::tcp("asked", 9)), None);
    }
}
