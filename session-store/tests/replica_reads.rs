//! Reads from replicas: a visitor sees what he has changed, however far the replica is behind, and whatever becomes of it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    middleware::{Next, from_fn},
    routing::get,
};
use cache_node::{Config, Node};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use session_store::{BreakerState, CacheStore, CacheStoreBuilder, Expiry, NearCache, Session, SessionLayer, fresh_session};
use support::{
    Engine, app,
    fleet::{Cluster, Process, Security, Sentinels, until},
    gate::Pair,
};
use tower::ServiceExt as _;

const PATIENCE: Duration = support::PATIENCE;

/// A browser that has both cookies, and whose changes may have been long ago.
#[derive(Debug, Clone, Default)]
struct Browser {
    session: String,
    seen: String,
}

impl Browser {
    async fn send(&mut self, app: &Router, method: Method, path: &str) -> String {
        let cookie = [&*self.session, &*self.seen].into_iter().filter(|cookie| !cookie.is_empty()).collect::<Vec<_>>().join("; ");
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        for set in response.headers().get_all(header::SET_COOKIE) {
            let set = set.to_str().unwrap();
            let pair = if set.contains("Max-Age=0") { "" } else { set.split(';').next().unwrap() };
            let kept = if set.starts_with("__Host-id-seen=") { &mut self.seen } else { &mut self.session };
            pair.clone_into(kept);
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn get(&mut self, app: &Router, path: &str) -> String {
        self.send(app, Method::GET, path).await
    }

    async fn post(&mut self, app: &Router, path: &str) -> String {
        self.send(app, Method::POST, path).await
    }

    /// As if the last change had been long ago: only its revision counts.
    fn aged(&self) -> Self {
        let seen = self.seen.rsplit_once('.').map_or_else(String::new, |(revision, _)| format!("{revision}.0"));
        Self { seen, ..self.clone() }
    }

    /// As another browser that has stolen the session's cookie, or one that keeps no others.
    fn without_seen(&self) -> Self {
        Self { seen: String::new(), ..self.clone() }
    }
}

async fn replica_of_app(url: &str) -> (Router, CacheStore) {
    replica_of_app_on(CacheStore::builder(url)).await
}

async fn replica_of_app_on(builder: CacheStoreBuilder) -> (Router, CacheStore) {
    let store = support::connected(builder.deadline(Duration::from_secs(8))).await;
    let fresh = async |session: Session| session.get::<String>("name").await.unwrap().unwrap_or_default();
    let reloaded = async |session: Session| {
        session.insert("name", "reloaded").await.unwrap();
        session.save().await.unwrap();
        session.load().await.unwrap();
        session.get::<String>("name").await.unwrap().unwrap_or_default()
    };
    let routes = Router::new().route("/fresh", get(fresh)).route_layer(fresh_session());
    let routes = routes.route("/reloaded", get(reloaded)).merge(app::router());
    (routes.layer(SessionLayer::new(store.clone())), store)
}

/// How often sessions were read there.
async fn reads(node: &Process) -> u64 {
    reads_in(&node.ask::<String>(&["INFO", "commandstats"]).await)
}

fn reads_in(info: &str) -> u64 {
    let calls = |line: &str| line.strip_prefix("cmdstat_hgetall:calls=")?.split(',').next()?.parse().ok();
    info.lines().find_map(calls).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_sees_his_own_changes_while_the_replica_is_behind() {
    let pair = Pair::start().await;
    let ((a, _), (b, _)) = (replica_of_app(&pair.url()).await, replica_of_app(&pair.url()).await);
    let mut browser = Browser::default();
    browser.post(&a, "/set/name/0").await;
    assert!(browser.seen.starts_with("__Host-id-seen="), "{browser:?}");
    pair.until_in_step().await;

    // In step: the replica serves, and the primary is not asked.
    let before = (reads(&pair.primary).await, reads(&pair.replica).await);
    for app in [&a, &b] {
        assert_eq!(browser.aged().get(app, "/get/name").await, "0");
    }
    assert_eq!((reads(&pair.primary).await, reads(&pair.replica).await), (before.0, before.1 + 2));

    // Behind: each change is seen on both replicas of the application, at once and later.
    pair.shut();
    for turn in 1..=20 {
        browser.post(&a, &format!("/set/name/{turn}")).await;
        let before = reads(&pair.replica).await;
        assert_eq!(browser.get(&b, "/get/name").await, turn.to_string());
        assert_eq!(reads(&pair.replica).await, before, "a change of a moment ago is looked for on the primary");
        assert_eq!(browser.aged().get(&b, "/get/name").await, turn.to_string());
        assert_eq!(reads(&pair.replica).await, before + 1, "an old one on the replica first");
    }
    // A session that the replica has not heard of.
    let mut other = Browser::default();
    other.post(&a, "/set/name/new").await;
    assert_eq!(other.aged().get(&b, "/get/name").await, "new");
    assert_eq!(other.without_seen().get(&b, "/get/name").await, "new");
    // One that got a new id.
    other.post(&a, "/cycle").await;
    assert_eq!(other.aged().get(&b, "/get/name").await, "new");
    // Within a request.
    assert_eq!(browser.aged().get(&b, "/reloaded").await, "reloaded");

    pair.open().await;
    let before = (reads(&pair.primary).await, reads(&pair.replica).await);
    assert_eq!(browser.aged().get(&b, "/get/name").await, "reloaded");
    assert_eq!((reads(&pair.primary).await, reads(&pair.replica).await), (before.0, before.1 + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_keeps_what_the_primary_says_and_never_what_a_replica_does() {
    let pair = Pair::start().await;
    // A busy machine must not make everything a miss.
    let near = NearCache { staleness_max: Duration::from_secs(20), age_max: Duration::from_secs(600), ..NearCache::default() };
    let app = async || replica_of_app_on(CacheStore::builder(pair.url()).near_cache(near)).await;
    let ((a, _), (b, store)) = (app().await, app().await);
    let near = || store.near_cache_status().unwrap();
    let mut browser = Browser::default();
    browser.post(&a, "/set/name/0").await;
    pair.until_in_step().await;
    let asked = async || (reads(&pair.primary).await, reads(&pair.replica).await);

    // What the replica answers is not kept, also when everything else is ready to.
    until(PATIENCE, "the store is followed", async || {
        assert_eq!(browser.aged().get(&b, "/get/name").await, "0");
        near().proven_ago.is_some()
    })
    .await;
    let before = asked().await;
    assert_eq!(browser.aged().get(&b, "/get/name").await, "0");
    assert_eq!((asked().await, near().entries), ((before.0, before.1 + 1), 0));

    // What the primary answers is: right after a change, which is read there. From then on nobody is asked.
    pair.shut();
    for turn in 1..=20 {
        browser.post(&a, &format!("/set/name/{turn}")).await;
        // Whether this replica has been told of the change or not, the visitor sees it.
        assert_eq!(browser.aged().get(&b, "/get/name").await, turn.to_string());
        let hits = near().hits;
        assert_eq!(browser.get(&b, "/get/name").await, turn.to_string());
        assert_eq!(near().hits, hits, "a change of a moment ago is looked for on the primary");
        until(PATIENCE, "it is kept", async || {
            let before = asked().await;
            assert_eq!(browser.aged().get(&b, "/get/name").await, turn.to_string());
            asked().await == before
        })
        .await;
    }
    assert!(near().hits >= 20 && near().entries == 1, "{:?}", near());

    // Where the revision is not enough, neither has it: the primary does.
    let ahead = Browser { seen: browser.seen.replace(".", "9."), ..browser.clone() };
    let before = asked().await;
    assert_eq!(ahead.aged().get(&b, "/get/name").await, "20");
    assert_eq!(asked().await, (before.0 + 1, before.1 + 1));
    // Nor has it for whom the primary is to be asked.
    let before = asked().await;
    assert_eq!(browser.aged().get(&b, "/fresh").await, "20");
    assert_eq!(browser.without_seen().get(&b, "/get/name").await, "20");
    assert_eq!(asked().await, (before.0 + 2, before.1));
    // A logout on the other one ends what is kept here, and the replica has not heard of it.
    let other_tab = browser.clone();
    browser.post(&a, "/logout").await;
    assert_eq!(other_tab.aged().get(&b, "/fresh").await, "");
    until(PATIENCE, "it is told", async || near().entries == 0).await;
    pair.open().await;
}

/// A session whose time is to be extended is read where that can be done; and where its cookie says nothing of the time, none is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_with_which_a_touch_goes_along_goes_to_the_primary() {
    const IDLE_MS: i64 = 14 * 24 * 3_600_000;
    const DUE_AFTER_MS: i64 = 3_600_000;
    let pair = Pair::start().await;
    let replica = async || {
        let store = support::connected(CacheStore::builder(pair.url()).deadline(Duration::from_secs(8))).await;
        app::router().layer(SessionLayer::new(store).with_expiry(Expiry::OnSessionEnd))
    };
    let app = replica().await;
    let mut browser = Browser::default();
    browser.post(&app, "/set/name/ada").await;
    let key = pair.primary.ask::<Vec<String>>(&["KEYS", "*:session:*"]).await.remove(0);
    let expire = async |ms: i64| assert_eq!(pair.primary.ask::<i64>(&["PEXPIRE", &key, &ms.to_string()]).await, 1);
    // The script is known after this.
    expire(IDLE_MS / 2).await;
    browser.get(&app, "/get/name").await;
    let reads = async || (reads(&pair.primary).await, reads(&pair.replica).await);
    let mut due_in = Duration::from_secs(3);
    let (app, before) = loop {
        let (app, began) = (replica().await, Instant::now());
        expire(IDLE_MS - DUE_AFTER_MS + i64::try_from(due_in.as_millis()).unwrap()).await;
        pair.until_in_step().await;
        let before = reads().await;
        assert_eq!(browser.aged().get(&app, "/get/name").await, "ada");
        // A machine may stand still until it is due, or for longer than a replica is waited for.
        if began.elapsed() < due_in / 2 {
            assert_eq!(reads().await, (before.0, before.1 + 1), "it is seen on the replica, and not due yet");
            break (app, before);
        }
        due_in *= 2;
        assert!(due_in < PATIENCE, "a machine that does nothing");
    };
    tokio::time::sleep(due_in + Duration::from_millis(100)).await;
    let mut reader = browser.aged();
    assert_eq!(reader.get(&app, "/get/name").await, "ada");
    assert_eq!(reads().await, (before.0 + 1, before.1 + 1));
    assert_eq!(reader.session, browser.session);
    assert!(pair.primary.ask::<i64>(&["PTTL", &key]).await > IDLE_MS - 600_000);
    pair.until_in_step().await;
    assert_eq!(browser.aged().get(&app, "/get/name").await, "ada");
    assert_eq!(reads().await, (before.0 + 1, before.1 + 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_safe_reads_may_be_behind_and_none_where_it_matters() {
    let pair = Pair::start().await;
    let (app, _) = replica_of_app(&pair.url()).await;
    let mut browser = Browser::default();
    browser.post(&app, "/set/name/old").await;
    let mut other = browser.aged();
    pair.until_in_step().await;
    pair.shut();
    browser.post(&app, "/set/name/new").await;
    // This is what is promised to nobody else but the visitor himself.
    assert_eq!(other.get(&app, "/get/name").await, "old");
    assert_eq!(other.get(&app, "/fresh").await, "new");
    assert_eq!(other.post(&app, "/slow-set/0/name/newer").await, "new", "the value before, from the primary");
    assert_eq!(other.get(&app, "/page").await, "-:0", "with a cart, the primary is read");
    // After a logout nothing is left of the cookies, and the primary knows that the session has ended.
    let before = browser.clone();
    browser.post(&app, "/logout").await;
    assert_eq!((&*browser.session, &*browser.seen), ("", ""));
    assert_eq!(before.without_seen().get(&app, "/fresh").await, "");
    pair.open().await;
    assert_eq!(before.without_seen().get(&app, "/get/name").await, "-");
}

/// What was changed before replicas were read, or where they are not, has left nothing with the client that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_sees_his_own_changes_while_reads_from_replicas_are_switched_on() {
    let pair = Pair::start().await;
    let (on, _) = replica_of_app(&pair.url()).await;
    let (off, _) = replica_of_app(&format!("redis://127.0.0.1:{}", pair.primary.port)).await;
    let mut browser = Browser::default();
    browser.post(&off, "/set/name/old").await;
    pair.until_in_step().await;
    pair.shut();
    browser.post(&off, "/set/name/new").await;
    assert_eq!(browser.seen, "");
    assert_eq!(browser.without_seen().get(&on, "/get/name").await, "new");
    assert_eq!(Browser { seen: "__Host-id-seen=?".to_owned(), ..browser.clone() }.get(&on, "/get/name").await, "new");

    // The first answer tells of what it shows; what asks nothing of the session brings no cookie.
    browser.get(&on, "/get/name").await;
    assert_eq!(browser.seen.rsplit_once('.').unwrap().0, "__Host-id-seen=2");
    let told = browser.clone();
    browser.get(&on, "/get/name").await;
    browser.get(&off, "/get/name").await;
    assert_eq!(browser.seen, told.seen);
    let before = reads(&pair.replica).await;
    assert_eq!(browser.aged().get(&on, "/get/name").await, "new");
    assert_eq!(reads(&pair.replica).await, before + 1, "from now on the replica is asked");
    pair.open().await;

    // A change where replicas are not read.
    pair.shut();
    browser = browser.aged();
    browser.post(&off, "/set/name/newest").await;
    assert_eq!(browser.seen, "");
    assert_eq!(browser.get(&on, "/get/name").await, "newest");
    assert_eq!(browser.aged().get(&on, "/get/name").await, "newest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_serves_while_the_replica_is_hung_or_gone() {
    let mut pair = Pair::start().await;
    let (app, store) = replica_of_app(&pair.url()).await;
    let mut browser = Browser::default();
    browser.post(&app, "/set/name/ada").await;
    pair.until_in_step().await;
    assert_eq!(browser.aged().get(&app, "/get/name").await, "ada");
    let breaker = || store.status().replicas[0].breaker;
    assert_eq!(breaker(), BreakerState::Closed);

    pair.replica.signal("-STOP");
    // After a few that were not answered it is not asked any more.
    until(PATIENCE, "the replica is given up", async || {
        assert_eq!(browser.aged().get(&app, "/get/name").await, "ada");
        breaker() != BreakerState::Closed
    })
    .await;
    assert_eq!(store.status().nodes[0].breaker, BreakerState::Closed);
    pair.replica.signal("-CONT");
    until(PATIENCE, "the replica is asked again", async || breaker() == BreakerState::Closed).await;

    pair.replica.kill();
    for _ in 0..8 {
        assert_eq!(browser.aged().get(&app, "/get/name").await, "ada");
    }
    pair.replica.start();
    pair.until_in_step().await;
    until(PATIENCE, "the replica is asked again", async || breaker() == BreakerState::Closed).await;
    let before = reads(&pair.replica).await;
    assert_eq!(browser.aged().get(&app, "/get/name").await, "ada");
    assert_eq!(reads(&pair.replica).await, before + 1);
}

/// Reads until a replica has served one, and tells how many reads all nodes but the primary have had.
async fn until_served(app: &Router, browser: &Browser, replicas: impl AsyncFn() -> u64, value: &str) {
    let before = replicas().await;
    until(PATIENCE, "a replica serves", async || {
        assert_eq!(browser.aged().get(app, "/get/name").await, value);
        replicas().await > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_that_sentinels_name_are_read_before_and_after_a_failover() {
    let mut fleet = Sentinels::start(Security::Plain).await;
    let (app, store) = replica_of_app(&format!("{}?read_from=replicas", fleet.url)).await;
    let mut browser = Browser::default();
    browser.post(&app, "/set/name/ada").await;
    let primary = fleet.primary().await.port;
    let others = async |primary| {
        let mut sum = 0;
        for node in fleet.nodes.iter().filter(|node| node.port != primary) {
            sum += reads(node).await;
        }
        sum
    };
    until_served(&app, &browser, async || others(primary).await, "ada").await;
    assert_eq!(store.status().replicas.len(), 2);
    assert_eq!(store.status().nodes.len(), 1);

    fleet.fail_over().await;
    until(PATIENCE, "the failover is over", async || {
        let (_, port): (String, u16) = fleet.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await;
        port != primary
    })
    .await;
    fleet.until_settled().await;
    let primary = {
        let (_, port): (String, u16) = fleet.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await;
        port
    };
    browser.post(&app, "/set/name/lovelace").await;
    until_served(&app, &browser, async || others(primary).await, "lovelace").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_of_a_cluster_are_read() {
    for (engine, security) in [(Engine::Valkey, Security::Plain), (Engine::Redis, Security::TlsAndAcl)] {
        let cluster = Cluster::start_of(engine, security).await;
        until(PATIENCE, "each primary is known to have a replica", async || {
            let ranges: Vec<Vec<redis::Value>> = cluster.nodes[0].ask(&["CLUSTER", "SLOTS"]).await;
            ranges.iter().all(|range| range.len() == 4)
        })
        .await;
        let separator = if cluster.url.contains('?') { '&' } else { '?' };
        let (app, store) = replica_of_app(&format!("{}{separator}read_from=replicas", cluster.url)).await;
        let primaries = cluster.primaries().await;
        let replicas = async || {
            let mut sum = 0;
            for (_, node) in cluster.nodes.iter().enumerate().filter(|(at, _)| !primaries.contains(at)) {
                sum += reads(node).await;
            }
            sum
        };
        for _ in 0..3 {
            let mut browser = Browser::default();
            browser.post(&app, "/set/name/ada").await;
            until_served(&app, &browser, replicas, "ada").await;
        }
        // A node that has not heard of each replica yet may have told of the others.
        until(PATIENCE, "all replicas are known", async || store.status().replicas.len() == 3).await;
        assert_eq!(store.status().nodes.len(), 3);
    }
}

/// A layer outside of `fresh_session` that reads the session, and one that changes it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_outside_of_fresh_session_is_read_again() {
    let pair = Pair::start().await;
    let (app, store) = replica_of_app(&pair.url()).await;
    let fresh = async |session: Session| session.get::<String>("name").await.unwrap().unwrap_or_default();
    let outer = async |session: Session, request: axum::extract::Request, next: Next| {
        let found: Option<String> = session.get("name").await.unwrap();
        assert_eq!(found.as_deref(), Some("old"), "the outer layer reads from the replica");
        if request.uri().path().ends_with("changed") {
            session.insert("seen_by", "outer").await.unwrap();
        }
        next.run(request).await
    };
    let routes = Router::new().route("/fresh", get(fresh)).route("/fresh/changed", get(fresh)).route_layer(fresh_session());
    let read_before = routes.layer(from_fn(outer)).layer(SessionLayer::new(store));
    let mut browser = Browser::default();
    browser.post(&app, "/set/name/old").await;
    pair.until_in_step().await;
    pair.shut();
    let mut other = browser.aged();
    let mut third = other.clone();
    browser.post(&app, "/set/name/new").await;
    assert_eq!(other.get(&read_before, "/fresh").await, "new");
    assert_eq!(other.get(&read_before, "/fresh/changed").await, "new");
    assert_eq!(browser.get(&app, "/get/seen_by").await, "outer");
    assert_eq!(browser.get(&app, "/get/name").await, "new");
    browser.post(&app, "/logout").await;
    assert_eq!(third.get(&read_before, "/fresh").await, "");
}

/// Made of what a replica has, a migration would undo what was changed since, and a sound session would be put in quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_has_is_no_ground_for_a_migration_or_for_quarantine() {
    let pair = Pair::start().await;
    let (old, store) = replica_of_app(&pair.url()).await;
    let rename = |data: &mut HashMap<String, serde_json::Value>| {
        if let Some(name) = data.remove("name") {
            data.insert("full_name".to_owned(), name);
        }
    };
    let new: Router = app::router().layer(SessionLayer::new(store.clone()).with_migration(rename));
    let mut browser = Browser::default();
    browser.post(&old, "/set/name/before").await;
    let mut other = browser.aged();
    pair.until_in_step().await;
    pair.shut();
    browser.post(&old, "/set/name/after").await;
    assert_eq!(other.get(&old, "/get/name").await, "before", "the replica is behind");
    assert_eq!(other.get(&new, "/get/full_name").await, "after");
    assert_eq!(browser.post(&new, "/slow-set/0/full_name/later").await, "after");
    pair.open().await;

    let mut browser = Browser::default();
    browser.post(&old, "/set/name/first").await;
    let keys: Vec<String> = pair.primary.ask(&["KEYS", "*:session:*"]).await;
    let mut key = None;
    for candidate in keys {
        let name: Option<String> = pair.primary.ask(&["HGET", &candidate, "name"]).await;
        key = key.or(name.is_some_and(|name| name == "\"first\"").then_some(candidate));
    }
    let key = key.unwrap();
    let put = async |name: &str| pair.primary.ask::<i64>(&["HSET", &key, "name", name]).await;
    put("{not json").await;
    pair.until_in_step().await;
    pair.shut();
    put("\"sound\"").await;
    let before = reads(&pair.replica).await;
    assert_eq!(browser.aged().get(&old, "/get/name").await, "sound");
    assert_eq!((reads(&pair.replica).await, store.quarantined()), (before + 1, 0));
    // Nor is the replica asked again for what it does not know to be away.
    put("{not json").await;
    assert_eq!(browser.aged().get(&old, "/get/name").await, "-");
    assert_eq!((reads(&pair.replica).await, store.quarantined()), (before + 2, 1));
}

/// The reader of `cache-node cluster` leads to nodes as this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_our_own_node_is_read() {
    let primary = Node::spawn(Config::for_test()).await.unwrap();
    let mut config = Config::for_test();
    config.set("replicaof", &["127.0.0.1", &primary.addr().port().to_string()]).unwrap();
    let replica = Node::spawn(config).await.unwrap();
    let (app, _) = replica_of_app(&format!("redis://{}?reader={}", primary.addr(), replica.addr())).await;
    let mut browser = Browser::default();
    browser.post(&app, "/set/name/ada").await;
    let client = redis::Client::open(format!("redis://{}", replica.addr())).unwrap();
    let replicas = async || {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        reads_in(&redis::cmd("INFO").arg("commandstats").query_async::<String>(&mut connection).await.unwrap())
    };
    until_served(&app, &browser, replicas, "ada").await;
    browser.post(&app, "/set/name/lovelace").await;
    assert_eq!(browser.get(&app, "/get/name").await, "lovelace");
    assert_eq!(browser.aged().get(&app, "/get/name").await, "lovelace");
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let refused = |builder: CacheStoreBuilder| builder.connect_lazy().unwrap_err().to_string();
    let one = || CacheStore::builder("redis://127.0.0.1:6379");
    assert!(refused(one().read_from_replicas()).contains("`reader`"));
    assert!(refused(one().reader("a b")).contains("cannot be one"));
    assert!(refused(CacheStore::builder("redis+cluster://h").reader("h:1")).contains("read_from_replicas"));
}
