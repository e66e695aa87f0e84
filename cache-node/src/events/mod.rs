//! What happened: a ring that is read later, and a channel that is followed. What kinds of events there are says whoever has them: a node, or
//! the controller of a cluster.

mod pace;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use pace::Pace;

/// Events that are kept for `/v1/events`.
pub(crate) const EVENTS_KEPT_MAX: usize = 1_000;

/// Events that a slow follower may lag behind before it misses some.
pub(crate) const EVENTS_BEHIND_MAX: usize = 256;

/// Bytes of an event's text; what stands behind them is left out.
const TEXT_BYTES_MAX: usize = 1_024;

/// The kinds of events that somebody has. Their names are those of their variants.
pub(crate) trait Kind: Copy + Debug + Ord + Serialize + Send + Sync + 'static {
    /// Whether somebody may have to do something; it is a warning in the log then.
    fn is_alarm(self) -> bool;
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event<K> {
    /// Counts from 1 in the life of the process.
    pub(crate) id: u64,
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
    pub(crate) kind: K,
    /// The node that it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// For people.
    pub(crate) text: String,
}

/// The events of a process's life. Keeps the last [`EVENTS_KEPT_MAX`].
#[derive(Debug)]
pub(crate) struct Events<K> {
    /// Names the process's life, in each of which ids begin at 1.
    life: String,
    /// The node of events that name none.
    own_node: Option<String>,
    ring: Mutex<Ring<K>>,
    pace: Mutex<Pace<K>>,
    followers: broadcast::Sender<Event<K>>,
}

#[derive(Debug)]
struct Ring<K> {
    kept: VecDeque<Event<K>>,
    last_id: u64,
    /// Those that the ring has no room for any more.
    dropped: u64,
    counts: BTreeMap<K, u64>,
}

/// How many events there were in the process's life.
#[derive(Clone, Debug)]
pub(crate) struct EventCounts<K> {
    pub(crate) by_kind: BTreeMap<K, u64>,
    /// Those that `/v1/events` has no more.
    pub(crate) dropped: u64,
}

impl<K: Kind> EventCounts<K> {
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn of(&self, kind: K) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }
}

impl<K: Kind> Events<K> {
    /// None yet. `own_node`: what those happen to that name no other.
    pub(crate) fn new(own_node: Option<String>) -> Events<K> {
        let ring = Ring { kept: VecDeque::new(), last_id: 0, dropped: 0, counts: BTreeMap::new() };
        let life = format!("{:016x}", rand::random::<u64>());
        let pace = Mutex::new(Pace::new());
        Events { life, own_node, ring: Mutex::new(ring), pace, followers: broadcast::Sender::new(EVENTS_BEHIND_MAX) }
    }

    /// Makes ids unique together with them: another one in each life of the process.
    #[cfg(feature = "webhooks")]
    pub(crate) fn life(&self) -> &str {
        &self.life
    }

    /// Keeps, logs and sends an event. Waits for the ring, which is held for some copies, and for standard error, as every line of the log
    /// does: any thread may call it, whatever it has locked.
    pub(crate) fn add(&self, kind: K, node: Option<&str>, text: impl Into<String>) {
        let text = text.into();
        log(kind, node, &text);
        self.push(kind, node, text, 1);
    }

    /// As [`Events::add`], where nobody says how often it happens: of a kind that comes and goes again and again only the first are told in a
    /// minute. All are logged and counted; [`Events::tell_held`] tells the rest.
    pub(crate) fn add_paced(&self, kind: K, text: impl Into<String>) {
        let text = text.into();
        log(kind, None, &text);
        if self.pace.lock().admits(kind, &text, Instant::now()) {
            self.push(kind, None, text, 1);
        } else {
            *self.ring.lock().counts.entry(kind).or_default() += 1;
        }
    }

    /// Tells what [`Events::add_paced`] held, in one for each kind: once a minute, and, when it `is_end`, at once.
    pub(crate) fn tell_held(&self, is_end: bool) {
        let due = self.pace.lock().due(Instant::now(), is_end);
        for (kind, text) in due {
            log(kind, None, &text);
            self.push(kind, None, text, 0);
        }
    }

    /// `count`: how many it stands for that are not counted yet.
    fn push(&self, kind: K, node: Option<&str>, mut text: String, count: u64) {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let node = node.or(self.own_node.as_deref()).map(str::to_owned);
        let mut ring = self.ring.lock();
        ring.last_id += 1;
        *ring.counts.entry(kind).or_default() += count;
        let event = Event { id: ring.last_id, unix_ms: unix_ms(), kind, node, text };
        if ring.kept.len() == EVENTS_KEPT_MAX {
            ring.kept.pop_front();
            ring.dropped += 1;
        }
        ring.kept.push_back(event.clone());
        // Sent below the lock, so that followers see the order of the ring. Nobody may be following.
        let sent = self.followers.send(event);
        drop(sent);
    }

    /// The kept events with an id above `after`, oldest first.
    pub(crate) fn since(&self, after: u64) -> Vec<Event<K>> {
        self.ring.lock().kept.iter().filter(|event| event.id > after).cloned().collect()
    }

    pub(crate) fn counts(&self) -> EventCounts<K> {
        let ring = self.ring.lock();
        EventCounts { by_kind: ring.counts.clone(), dropped: ring.dropped }
    }

    /// What `GET /v1/events` answers to this query: the events behind `after=ID`, or all that are kept. With `life=` of an earlier page the id
    /// counts in that life alone: after a restart all events are new. `last_id` is that of the latest event, 0 for none.
    ///
    /// # Errors
    /// When `after` is no number.
    pub(crate) fn page(&self, query: Option<&str>) -> Result<serde_json::Value, &'static str> {
        let value_of = |name: &str| query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(name));
        let after = match value_of("after=") {
            None => 0,
            Some(number) => number.parse().map_err(|_| "after must be the id of an event, such as after=17")?,
        };
        let after = if value_of("life=").is_some_and(|life| life != self.life) { 0 } else { after };
        let ring = self.ring.lock();
        let events: Vec<&Event<K>> = ring.kept.iter().filter(|event| event.id > after).collect();
        Ok(serde_json::json!({ "life": self.life, "last_id": ring.last_id, "events": events }))
    }

    /// All events, those included that were kept before this call, for one who reads them at his own pace.
    pub(crate) fn replay(&self) -> Follower<K> {
        // Followed first: what comes in between is seen twice and told once.
        let events = self.followers.subscribe();
        Follower { kept: self.since(0).into(), events, last_id: 0, dropped: 0 }
    }

    /// Events from now on.
    #[cfg(feature = "cluster")]
    pub(crate) fn follow(&self) -> broadcast::Receiver<Event<K>> {
        self.followers.subscribe()
    }
}

/// Reads events. [`EVENTS_BEHIND_MAX`] wait for it; then the oldest are dropped, and counted.
#[derive(Debug)]
pub(crate) struct Follower<K> {
    kept: VecDeque<Event<K>>,
    events: broadcast::Receiver<Event<K>>,
    last_id: u64,
    dropped: u64,
}

impl<K: Kind> Follower<K> {
    /// The next event; `None` when there will be none.
    pub(crate) async fn next(&mut self) -> Option<Event<K>> {
        loop {
            let event = match self.kept.pop_front() {
                Some(event) => event,
                None => match self.events.recv().await {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        self.dropped += count;
                        continue;
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            if event.id > self.last_id {
                self.last_id = event.id;
                return Some(event);
            }
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn log(kind: impl Kind, node: Option<&str>, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    if kind.is_alarm() {
        tracing::warn!(?kind, node, "{text}");
    } else {
        tracing::info!(?kind, node, "{text}");
    }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::{EVENTS_BEHIND_MAX, EVENTS_KEPT_MAX, Events, Kind, TEXT_BYTES_MAX};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
    enum Sort {
        Started,
        Failed,
        Other,
    }

    impl Kind for Sort {
        fn is_alarm(self) -> bool {
            self == Sort::Failed
        }
    }

    #[tokio::test]
    async fn a_slow_follower_misses_the_oldest_and_knows_how_many() {
        let events = Events::new(None);
        events.add(Sort::Started, None, "before");
        let mut follower = events.replay();
        for number in 0..EVENTS_BEHIND_MAX + 7 {
            events.add(Sort::Failed, Some("node-1"), number.to_string());
        }
        assert_eq!(follower.next().await.map(|event| (event.id, event.text)), Some((1, "before".to_owned())));
        assert_eq!(follower.next().await.map(|event| event.text), Some("7".to_owned()));
        assert_eq!(follower.dropped(), 7);
    }

    #[test]
    fn the_ring_keeps_the_latest() {
        let events = Events::new(None);
        for number in 0..EVENTS_KEPT_MAX + 5 {
            events.add(Sort::Failed, Some("node-1"), number.to_string());
        }
        let kept = events.since(0);
        assert_eq!((kept.len(), kept[0].id), (EVENTS_KEPT_MAX, 6));
        assert_eq!(events.since(EVENTS_KEPT_MAX as u64 + 4).len(), 1);
        let counts = events.counts();
        assert_eq!((counts.dropped, counts.of(Sort::Failed)), (5, EVENTS_KEPT_MAX as u64 + 5));
        assert_eq!(counts.of(Sort::Other), 0);
    }

    #[test]
    fn a_page_has_what_is_behind_an_id_and_texts_have_an_end() {
        let events = Events::new(Some("web-1:6379".to_owned()));
        events.add(Sort::Started, None, "é".repeat(TEXT_BYTES_MAX));
        events.add(Sort::Failed, Some("node-2"), "second");
        let all = events.page(None).expect("no query");
        assert_eq!(all["events"][0]["text"].as_str().map(str::len), Some(TEXT_BYTES_MAX));
        assert_eq!((&all["events"][0]["node"], &all["events"][0]["kind"]), (&"web-1:6379".into(), &"Started".into()));
        let behind = events.page(Some("x=1&after=1")).expect("a number");
        assert_eq!((behind["events"].as_array().map(Vec::len), &behind["events"][0]["node"]), (Some(1), &"node-2".into()));
        // The id of another life says nothing about this one.
        let page = |query: &str| events.page(Some(query)).expect("a number");
        let ours = all["life"].as_str().expect("a text");
        assert_eq!(page(&format!("after=2&life={ours}"))["events"].as_array().map(Vec::len), Some(0));
        assert_eq!(page("after=40")["last_id"], 2);
        assert_eq!(page("after=40&life=ffff")["events"].as_array().map(Vec::len), Some(2));
        assert_ne!(Events::<Sort>::new(None).page(None).expect("no query")["life"], all["life"]);
        assert!(events.page(Some("after=one")).is_err_and(|error| error.contains("after=17")));
    }
}
