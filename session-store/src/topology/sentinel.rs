//! The primary that the Sentinels name.
//!
//! Each Sentinel is listened to by a task of its own: it says `+switch-master` within milliseconds of a failover, and is
//! asked again and again in case that was missed. Sentinels say so only when all other replicas have followed, a second or
//! more after the promotion, and what the old primary takes until then is lost. So the replica that they select is looked
//! at until it is the primary. Of two answers the one of the later configuration epoch counts, so that
//! a Sentinel that was cut off leads nobody back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use parking_lot::{Mutex, RwLock};
use redis::aio::PubSub;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{Replicas, first, recovered};
use crate::{
    StoreError,
    nodes::{Address, Connection, Node, NodeStatus, Transport, role},
};

/// How often a Sentinel is asked although it said nothing.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Between two questions to one Sentinel, however many operations want to know.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// Until a Sentinel that cannot be reached is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// For one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a replica that was selected is looked at, and how often.
const PROMOTED_WITHIN: Duration = Duration::from_secs(10);
const PROMOTED_PAUSE: Duration = Duration::from_millis(5);
/// For the very first answer of any Sentinel, before the operation that waits for it says what is wrong.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Sentinel {
    shared: Arc<Shared>,
    started: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    name: String,
    sentinels: Vec<Address>,
    /// To the Sentinels.
    questions: Transport,
    /// To the primary.
    requests: Arc<Transport>,
    /// To its replicas, when reads may go to them.
    reads: Option<Arc<Transport>>,
    sockets: usize,
    primary: RwLock<Option<Primary>>,
    replicas: RwLock<Replicas>,
    changed: Notify,
    /// Counts how often another primary took the place of one, ahead of the first request to it.
    switches: Arc<AtomicU64>,
    /// Counts how often somebody wanted to know.
    wanted: watch::Sender<u64>,
    /// What the latest attempt to ask a Sentinel ended with.
    problem: Mutex<Option<String>>,
}

#[derive(Debug, Clone)]
struct Primary {
    node: Arc<Node>,
    epoch: u64,
    /// Seen to be the primary before any Sentinel has said so; its epoch is the one that is expected.
    is_foreseen: bool,
}

impl Sentinel {
    /// `reads`: to the replicas, when reads may go to them.
    pub(crate) fn new(
        sentinels: Vec<Address>,
        name: String,
        questions: Transport,
        requests: Transport,
        reads: Option<Transport>,
        sockets: usize,
    ) -> Self {
        let shared = Shared {
            reads: reads.map(Arc::new),
            replicas: RwLock::default(),
            name,
            sentinels,
            questions,
            requests: Arc::new(requests),
            sockets,
            primary: RwLock::new(None),
            changed: Notify::new(),
            switches: Arc::default(),
            wanted: watch::Sender::new(0),
            problem: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), started: AtomicBool::new(false) }
    }

    pub(super) async fn node(&self) -> Result<Arc<Node>, StoreError> {
        if let Some(node) = self.shared.node() {
            return Ok(node);
        }
        self.start();
        let primary = || self.shared.node();
        first(&self.shared.changed, FIRST_ANSWER_WITHIN, primary).await.ok_or_else(|| {
            let problem = self.shared.problem.lock().clone();
            let addresses: Vec<_> = self.shared.sentinels.iter().map(ToString::to_string).collect();
            StoreError::Connect {
                address: format!("the Sentinels {}", addresses.join(", ")),
                reason: problem
                    .unwrap_or_else(|| "none has answered yet; are they running, and are the addresses right?".to_owned()),
            }
        })
    }

    pub(super) fn is_primary(&self, node: &Arc<Node>) -> bool {
        self.shared.primary.read().as_ref().is_some_and(|primary| Arc::ptr_eq(&primary.node, node))
    }

    pub(super) async fn recovered(&self) {
        recovered(&self.shared.changed, || self.shared.node()).await;
    }

    pub(super) fn refresh(&self) {
        self.shared.wanted.send_modify(|wanted| *wanted += 1);
    }

    pub(super) fn nodes(&self) -> Vec<NodeStatus> {
        self.shared.primary.read().iter().map(|primary| primary.node.status()).collect()
    }

    pub(super) fn replicas(&self) -> Vec<NodeStatus> {
        self.shared.replicas.read().status()
    }

    pub(super) fn has_replicas(&self) -> bool {
        self.shared.reads.is_some()
    }

    pub(super) fn switches(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.switches)
    }

    pub(super) fn replica(&self) -> Option<Arc<Node>> {
        self.shared.replicas.read().pick()
    }

    /// Not before the first operation: a store can be made where no runtime is yet.
    fn start(&self) {
        if !self.started.swap(true, Ordering::AcqRel) {
            for sentinel in &self.shared.sentinels {
                tokio::spawn(listen(Arc::downgrade(&self.shared), sentinel.clone()));
            }
        }
    }
}

impl Shared {
    fn node(&self) -> Option<Arc<Node>> {
        self.primary.read().as_ref().map(|primary| Arc::clone(&primary.node))
    }

    /// Takes the addresses of the replicas that a Sentinel named.
    fn take_replicas(&self, addresses: &[Address]) {
        let Some(transport) = &self.reads else { return };
        let mut replicas = self.replicas.write();
        if replicas.nodes().iter().map(|node| node.address()).eq(addresses) {
            return;
        }
        let make = |address| Node::new(address, Arc::clone(transport), self.sockets);
        *replicas = Replicas::at(addresses, replicas.nodes(), make);
    }

    /// Takes what a Sentinel said. `news`: it said so by itself just now.
    fn take(&self, answer: &Answer, news: bool) {
        *self.problem.lock() = None;
        let mut primary = self.primary.write();
        if let Some(known) = &mut *primary {
            // One that was foreseen may not come to pass; otherwise nobody is led back by a Sentinel that is behind.
            let epoch_min = known.epoch - u64::from(known.is_foreseen);
            let is_later = answer.epoch > known.epoch
                || (answer.epoch == known.epoch && news)
                || (answer.epoch >= epoch_min && !known.node.is_closed());
            if *known.node.address() == answer.address {
                known.epoch = known.epoch.max(answer.epoch);
                known.is_foreseen = false;
                return;
            }
            if !is_later {
                return;
            }
        }
        match &*primary {
            None => tracing::info!(primary = %answer.address, "the Sentinels named the primary"),
            Some(known) => {
                tracing::warn!(from = %known.node.address(), to = %answer.address, "the Sentinels named another primary");
                // Before anybody is led to it: from then on, what the former one tells is not believed.
                self.switches.fetch_add(1, Ordering::AcqRel);
            }
        }
        let node = Node::new(answer.address.clone(), Arc::clone(&self.requests), self.sockets);
        *primary = Some(Primary { node, epoch: answer.epoch, is_foreseen: answer.is_foreseen });
        drop(primary);
        self.changed.notify_waiters();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    address: Address,
    epoch: u64,
    is_foreseen: bool,
}

/// Listens to one Sentinel as long as there is a store that wants to know.
async fn listen(shared: Weak<Shared>, sentinel: Address) {
    while let Some(strong) = shared.upgrade() {
        let connected = timeout(ANSWER_WITHIN, connect(&strong, &sentinel)).await;
        let wanted = strong.wanted.subscribe();
        drop(strong);
        let problem = match connected {
            Ok(Ok((connection, news))) => follow(&shared, &sentinel, connection, news, wanted).await,
            Ok(Err(problem)) => problem,
            Err(_) => format!("no answer within {} ms", ANSWER_WITHIN.as_millis()),
        };
        let Some(strong) = shared.upgrade() else { return };
        tracing::debug!(%sentinel, problem, "a Sentinel does not answer");
        *strong.problem.lock() = Some(format!("{sentinel}: {problem}"));
        drop(strong);
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn connect(shared: &Shared, sentinel: &Address) -> Result<(Connection, PubSub), String> {
    let transport = &shared.questions;
    let connection = transport.open(sentinel, &AtomicBool::new(false)).await.map_err(|error| crate::nodes::reason(&error))?;
    let news = async {
        let stream = transport.stream(sentinel, &AtomicBool::new(false)).await?;
        let mut news = PubSub::new(&transport.login, stream).await?;
        news.subscribe(&["+switch-master", "+selected-slave"][..]).await?;
        Ok::<_, redis::RedisError>(news)
    };
    Ok((connection, news.await.map_err(|error| error.to_string())?))
}

/// Returns what went wrong.
async fn follow(
    shared: &Weak<Shared>,
    sentinel: &Address,
    mut connection: Connection,
    mut news: PubSub,
    mut wanted: watch::Receiver<u64>,
) -> String {
    let mut messages = news.on_message();
    let mut is_news = false;
    loop {
        let Some(strong) = shared.upgrade() else { return String::new() };
        let (name, wants_replicas) = (strong.name.clone(), strong.reads.is_some());
        drop(strong);
        let asked = timeout(ANSWER_WITHIN, async {
            let answer = ask(&mut connection, &name, sentinel).await?;
            let replicas = if wants_replicas { ask_replicas(&mut connection, &name, sentinel).await? } else { Vec::new() };
            Ok::<_, String>((answer, replicas))
        });
        let asked = asked.await;
        let Some(strong) = shared.upgrade() else { return String::new() };
        match asked {
            Ok(Ok((answer, replicas))) => {
                strong.take(&answer, is_news);
                strong.take_replicas(&replicas);
            }
            Ok(Err(problem)) => return problem,
            Err(_) => return format!("no answer within {} ms", ANSWER_WITHIN.as_millis()),
        }
        drop(strong);
        sleep(ASK_PAUSE).await;
        is_news = tokio::select! {
            message = messages.next() => match message {
                Some(message) if message.get_channel_name() == "+selected-slave" => {
                    if let Some(replica) = selected(&message.get_payload::<String>().unwrap_or_default(), &name, sentinel) {
                        tokio::spawn(promoted(shared.clone(), replica));
                    }
                    false
                }
                Some(_) => true,
                None => return "the connection broke".to_owned(),
            },
            // The sender lives as long as the store, which is looked for above.
            _ = wanted.changed() => false,
            () = sleep(POLL_EVERY) => false,
        };
    }
}

/// The replica that was selected to become the primary of this name: `slave <name> <ip> <port> @ <primary> <ip> <port>`.
fn selected(payload: &str, name: &str, sentinel: &Address) -> Option<Address> {
    let words: Vec<_> = payload.split_ascii_whitespace().collect();
    match words[..] {
        [_, _, ip, port, "@", primary, ..] if primary == name => Address::of_parts(ip, port.parse().ok()?, sentinel),
        _ => None,
    }
}

/// Takes a replica for the primary as soon as it says that it is.
async fn promoted(shared: Weak<Shared>, replica: Address) {
    let look = async {
        let mut transport = Transport::clone(&*shared.upgrade()?.requests);
        transport.primary_only = false;
        // With the order to become the primary, Sentinel has all connections closed.
        'connections: loop {
            if let Ok(mut connection) = transport.open(&replica, &AtomicBool::new(false)).await {
                while let Ok(Some(role)) = role(&mut connection.wire).await {
                    if role == b"master" {
                        break 'connections;
                    }
                    sleep(PROMOTED_PAUSE).await;
                }
            }
            sleep(PROMOTED_PAUSE).await;
        }
        let shared = shared.upgrade()?;
        let epoch = shared.primary.read().as_ref().map_or(0, |known| known.epoch) + 1;
        let is_news = shared.primary.read().as_ref().is_none_or(|known| *known.node.address() != replica);
        if is_news {
            shared.take(&Answer { address: replica.clone(), epoch, is_foreseen: true }, true);
        }
        Some(())
    };
    // Whatever comes of it: the Sentinels say in the end who the primary is.
    let _ = timeout(PROMOTED_WITHIN, look).await;
}

async fn ask(connection: &mut Connection, name: &str, sentinel: &Address) -> Result<Answer, String> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("MASTER").arg(name);
    let fields: HashMap<String, String> =
        command.query_async(&mut connection.wire).await.map_err(|error| match error.detail() {
            Some(detail) if detail.contains("No such master") => {
                format!("it watches no primary by the name `{name}`; the name in the URL is the one of `sentinel monitor`")
            }
            _ => error.to_string(),
        })?;
    answer(&fields, sentinel).ok_or_else(|| "its answer has no address".to_owned())
}

async fn ask_replicas(connection: &mut Connection, name: &str, sentinel: &Address) -> Result<Vec<Address>, String> {
    let mut command = redis::cmd("SENTINEL");
    // As Redis before 5 understands it too.
    command.arg("SLAVES").arg(name);
    let replicas: Vec<HashMap<String, String>> =
        command.query_async(&mut connection.wire).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = replicas.iter().filter_map(|fields| replica(fields, sentinel)).collect();
    addresses.sort_by_key(ToString::to_string);
    Ok(addresses)
}

/// The address of a replica that hears its primary, as far as the Sentinel knows.
fn replica(fields: &HashMap<String, String>, sentinel: &Address) -> Option<Address> {
    let is_away = |flag: &str| matches!(flag, "s_down" | "o_down" | "disconnected" | "master_down");
    let is_up = !fields.get("flags")?.split(',').any(is_away) && fields.get("master-link-status")? == "ok";
    is_up.then(|| Address::of_parts(fields.get("ip")?, fields.get("port")?.parse().ok()?, sentinel)).flatten()
}

fn answer(fields: &HashMap<String, String>, sentinel: &Address) -> Option<Answer> {
    let address = Address::of_parts(fields.get("ip")?, fields.get("port")?.parse().ok()?, sentinel)?;
    let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Some(Answer { address, epoch, is_foreseen: false })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{replica, selected};
    use crate::nodes::Address;

    #[test]
    fn replicas_that_hear_nothing_are_left_out() {
        let fields = |flags: &str, link: &str| {
            let fields = [("ip", "10.0.0.2"), ("port", "6380"), ("flags", flags), ("master-link-status", link)];
            HashMap::from(fields.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        let sentinel = Address::tcp("s", 1);
        assert_eq!(replica(&fields("slave", "ok"), &sentinel), Some(Address::tcp("10.0.0.2", 6380)));
        for (flags, link) in [("s_down,slave", "ok"), ("slave,disconnected", "ok"), ("slave", "err")] {
            assert_eq!(replica(&fields(flags, link), &sentinel), None, "{flags} {link}");
        }
        assert_eq!(replica(&HashMap::new(), &sentinel), None);
    }

    #[test]
    fn what_sentinels_say_is_read() {
        let sentinel = Address::tcp("s", 1);
        let payload = "slave 10.0.0.2:6380 10.0.0.2 6380 @ main 10.0.0.1 6379";
        assert_eq!(selected(payload, "main", &sentinel), Some(Address::tcp("10.0.0.2", 6380)));
        for payload in [payload.replace("main", "other").as_str(), "", "slave x y z @ main 1 2", "slave 10.0.0.2:6380"] {
            assert_eq!(selected(payload, "main", &sentinel), None, "{payload}");
        }
    }
}
