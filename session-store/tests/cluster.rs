//! A cluster of six real nodes: every operation, slots that move, a primary that dies.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Path,
    routing::{get, post},
};
use session_store::{
    BreakerState, CacheStore, Cart, Csrf, CsrfLayer, EncryptionKeys, NearCache, Session, SessionLayer,
    testing::{Fault, Faults},
};
use support::{
    Engine, Moment, Visitor,
    fleet::{Cluster, Security, until},
    hold::Hold,
    send,
    traffic::{Traffic, app_on, waiting_app},
};
use time::OffsetDateTime;
use tower_sessions::session::{Id, Record};

const PATIENCE: Duration = support::PATIENCE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_across_slots() {
    for (engine, security) in [(Engine::Redis, Security::Plain), (Engine::Valkey, Security::TlsAndAcl)] {
        let cluster = Cluster::start_of(engine, security).await;
        let (a, b) = (waiting_app(&cluster.url, PATIENCE).await, waiting_app(&cluster.url, PATIENCE).await);
        // Enough visitors that every pair of primaries has one whose session and cart are there.
        for i in 0..24 {
            let mut visitor = Visitor::default();
            visitor.post(&a, "/set/name/ada").await.ok();
            visitor.post(&b, "/cart/add/TEA/2").await.ok();
            let before = visitor.clone();
            visitor.post(&a, "/cycle").await.ok();
            assert_ne!(visitor.cookie, before.cookie);
            assert_eq!(visitor.get(&b, "/cart").await.ok().body, "TEA=2", "the cart has moved");
            assert_eq!(visitor.get(&b, "/get/name").await.ok().body, "ada");
            assert_eq!(before.clone().post(&b, "/set/name/eve").await.status, http::StatusCode::CONFLICT);

            let user = format!("/login/user-{i}");
            visitor.post(&a, &user).await.ok();
            visitor.post(&b, "/cart/add/CUP/1").await.ok();
            visitor.post(&a, "/cart/add/TEA/1").await.ok();
            assert_eq!(visitor.get(&b, "/cart").await.ok().body, "CUP=1,TEA=3");
            assert_eq!(visitor.get(&b, "/page").await.status, http::StatusCode::OK);

            let mut elsewhere = Visitor::default();
            elsewhere.post(&b, "/cart/add/TEA/4").await.ok();
            elsewhere.post(&b, &user).await.ok();
            assert_eq!(visitor.get(&a, "/cart").await.ok().body, "CUP=1,TEA=7", "both carts are one");
            visitor.post(&a, "/logout").await.ok();
            assert_eq!(visitor.get(&b, "/get/name").await.ok().body, "-");
            assert_eq!(elsewhere.get(&b, "/cart").await.ok().body, "CUP=1,TEA=7");
        }
        assert!(cluster.primaries().await.len() == 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_id_leads_to_what_was_encrypted_under_the_former_one() {
    let cluster = Cluster::start(Security::Plain).await;
    let store = support::connected(CacheStore::builder(&cluster.url).encryption(EncryptionKeys::new([7; 32]))).await;
    let app = app_on(store.clone(), PATIENCE);
    let mut visitor = Visitor::default();
    visitor.post(&app, "/set/name/ada").await.ok();
    visitor.post(&app, "/cart/add/TEA/2").await.ok();
    // Of the same keys, and it knows of nothing that the other one has seen.
    let other = support::connected(CacheStore::builder(&cluster.url).encryption(EncryptionKeys::new([7; 32]))).await;
    let other = app_on(other, PATIENCE);
    let mut owner = Visitor::default();
    owner.post(&other, "/cart/add/TEA/1").await.ok();
    owner.post(&other, "/login/user-1").await.ok();
    // A second one, since values and lines stay bound to where the session began.
    for (number, path) in ["/cycle", "/cycle", "/login/user-1", "/cycle"].into_iter().enumerate() {
        visitor.post(&app, path).await.ok();
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada", "after {path}");
        visitor.post(&other, "/cart/add/TEA/1").await.ok();
        let all = 3 + number + usize::from(number > 1);
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, format!("TEA={all}"), "after {path}");
    }
    assert_eq!(owner.get(&other, "/cart").await.ok().body, "TEA=7", "both carts are one");
    visitor.post(&app, "/set/name/grace").await.ok();
    assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "grace");
    assert_eq!(visitor.get(&app, "/get/user").await.ok().body, "user-1");

    // What made the tokens of the former id does not come along.
    let verify = async |csrf: Csrf, Path(token): Path<String>| csrf.verify(&token).await.unwrap().to_string();
    let routes = Router::new().route("/token", get(async |csrf: Csrf| csrf.token().await.unwrap()));
    let protected = routes.route("/verify/{token}", get(verify)).layer(CsrfLayer::new()).layer(SessionLayer::new(store.clone()));
    let token = visitor.get(&protected, "/token").await.ok().body;
    assert_eq!(visitor.get(&protected, &format!("/verify/{token}")).await.ok().body, "true");
    visitor.post(&app, "/cycle").await.ok();
    assert_eq!(visitor.get(&protected, &format!("/verify/{token}")).await.ok().body, "false");
    assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "grace");
    assert_eq!(store.quarantined(), 0);
}

/// The keys of all primaries.
async fn keys(cluster: &Cluster, pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    for node in cluster.primaries().await {
        found.extend(cluster.nodes[node].ask::<Vec<String>>(&["KEYS", pattern]).await);
    }
    found
}

/// The extension of a session is sent with its read, to the same node; the list of its user's, which is on another one, is told behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_that_is_due_goes_along_with_the_read() {
    const IDLE_MS: i64 = 600_000;
    let cluster = Cluster::start(Security::Plain).await;
    let store = support::connected(CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8))).await;
    let expiry = session_store::Expiry::OnInactivity(time::Duration::milliseconds(IDLE_MS));
    let app = support::app::router().layer(SessionLayer::new(store).with_expiry(expiry));
    let at = Theirs(&cluster);
    let find = async |pattern: &str| keys(&cluster, pattern).await;
    let left = async |key: &str| match at.send(redis::cmd("PTTL").arg(key)).await {
        redis::Value::Int(left) => left,
        other => panic!("{key}: {other:?}"),
    };
    let expire = async |key: &str, ms: i64| drop(at.send(redis::cmd("PEXPIRE").arg(key).arg(ms)).await);
    for user in ["", "ada"] {
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        if !user.is_empty() {
            visitor.post(&app, &format!("/login/{user}")).await.ok();
        }
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let mut key = None;
        for found in find("*:session:*").await {
            if at.send(redis::cmd("HEXISTS").arg(&found).arg("@rev")).await == redis::Value::Int(1) {
                key = Some(found);
            }
        }
        let key = key.unwrap();
        // The node knows the script after this.
        expire(&key, IDLE_MS / 2).await;
        assert!(visitor.get(&app, "/get/name").await.ok().set_cookie().is_some());
        // A replica that has not seen it, and then sees when a touch is due.
        let store = support::connected(CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8))).await;
        let app = support::app::router().layer(SessionLayer::new(store).with_expiry(expiry));
        let lists = [find("*:user-sessions:*").await, find("*:cart:*").await].concat();
        assert_eq!(lists.len(), if user.is_empty() { 1 } else { 2 }, "{lists:?}");
        expire(&key, IDLE_MS - IDLE_MS / 16 + 2_500).await;
        assert!(visitor.get(&app, "/get/name").await.ok().set_cookie().is_none(), "it was due already");
        for list in &lists {
            expire(list, 60_000).await;
        }
        tokio::time::sleep(Duration::from_millis(2_600)).await;
        let hold = Hold::new();
        let slow = tokio::spawn({
            let (app, cookie, path) = (app.clone(), visitor.cookie.clone(), format!("/slow-get/{hold}/name"));
            async move { send(&app, http::Method::GET, &path, cookie.as_deref()).await }
        });
        hold.reached().await;
        assert!(left(&key).await > IDLE_MS - IDLE_MS / 16 + 2_500, "{user}: it is extended while the handler runs");
        for list in &lists {
            until(PATIENCE, "the list to be told", async || left(list).await > IDLE_MS).await;
        }
        hold.release();
        assert!(slow.await.unwrap().ok().set_cookie().is_some());
        visitor.post(&app, "/logout").await.ok();
        for list in lists {
            at.send(redis::cmd("DEL").arg(list)).await;
        }
    }

    // Of a visitor without a cart, while the slot of both moves: a command with both keys would have to be repeated until it has.
    let mut visitor = Visitor::default();
    visitor.post(&app, "/set/name/ada").await.ok();
    let (from, key) = 'found: {
        for node in cluster.primaries().await {
            for key in cluster.nodes[node].ask::<Vec<String>>(&["KEYS", "*:session:*"]).await {
                if cluster.nodes[node].ask::<i64>(&["HEXISTS", &key, "@rev"]).await == 1 {
                    break 'found (node, key);
                }
            }
        }
        panic!("there is no session");
    };
    // The node knows the script after this, and the application when the next touch is due.
    expire(&key, IDLE_MS / 2).await;
    assert!(visitor.get(&app, "/get/name").await.ok().set_cookie().is_some());
    expire(&key, IDLE_MS - IDLE_MS / 16 + 1_500).await;
    let store = support::connected(CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8))).await;
    let app = support::app::router().layer(SessionLayer::new(store).with_expiry(expiry));
    assert!(visitor.get(&app, "/get/name").await.ok().set_cookie().is_none(), "it was due already");
    cluster.begin_move(from, &key).await;
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    let answer = visitor.get(&app, "/get/name").await.ok();
    assert!(answer.body == "ada" && answer.set_cookie().is_some(), "{answer:?}");
    assert!(left(&key).await > IDLE_MS - IDLE_MS / 16 + 1_500);
    // Where the application hears that it is due only when it reads it.
    expire(&key, IDLE_MS / 2).await;
    let store = support::connected(CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8))).await;
    let app = support::app::router().layer(SessionLayer::new(store).with_expiry(expiry));
    assert!(visitor.get(&app, "/get/name").await.ok().set_cookie().is_some());
    assert!(left(&key).await > IDLE_MS / 2);
    // A change that is to extend it, too.
    expire(&key, IDLE_MS / 2).await;
    visitor.post(&app, "/set/color/blue").await.ok();
    assert!(left(&key).await > IDLE_MS / 2);

    // Of a user without a cart, while the slot of the list and of the cart moves.
    let known = find("*:session:*").await;
    let mut visitor = Visitor::default();
    visitor.post(&app, "/login/grace").await.ok();
    let key = find("*:session:*").await.into_iter().find(|key| !known.contains(key)).unwrap();
    let list = find("*:user-sessions:*").await.remove(0);
    let mut from = None;
    for node in cluster.primaries().await {
        if cluster.nodes[node].ask::<Vec<String>>(&["KEYS", &list]).await.len() == 1 {
            from = Some(node);
        }
    }
    cluster.begin_move(from.unwrap(), &list).await;
    expire(&list, 60_000).await;
    expire(&key, IDLE_MS / 2).await;
    let store = support::connected(CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8))).await;
    let app = support::app::router().layer(SessionLayer::new(store).with_expiry(expiry));
    assert!(visitor.get(&app, "/get/user").await.ok().set_cookie().is_some());
    until(PATIENCE, "the list to be told", async || left(&list).await > IDLE_MS).await;
}

/// A new id leaves the former cart for the grace. The last step of a touch of the former session, which comes late, does not keep it for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_that_a_new_id_overtakes_does_not_keep_the_former_cart() {
    const GRACE_MS: i64 = 10_000;
    const DELAY_MAX: Duration = Duration::from_secs(1);
    let cluster = Cluster::start(Security::Plain).await;
    let at = Theirs(&cluster);
    let find = async |pattern: &str| keys(&cluster, pattern).await;
    let faults = Faults::seeded(1).with_delay_max(DELAY_MAX);
    let replica = async |faults| {
        let builder = CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8)).faults(faults);
        support::app::router().layer(SessionLayer::new(support::connected(builder).await))
    };
    let (app, slow) = (replica(Faults::seeded(1)).await, replica(faults.clone()).await);
    let mut visitor = Visitor::default();
    visitor.post(&app, "/set/name/ada").await.ok();
    visitor.post(&app, "/cart/add/TEA/1").await.ok();
    let (session, cart) = (find("*:session:*").await.remove(0), find("*:cart:*").await.remove(0));
    at.send(redis::cmd("PEXPIRE").arg(session).arg(100_000)).await;
    // Each operation of this replica takes up to a second from now on, the last step of its touch too.
    drop(faults.with(Fault::Delay, 1.0));
    let mut former = visitor.clone();
    assert!(former.get(&slow, "/get/name").await.ok().set_cookie().is_some());
    visitor.post(&app, "/cycle").await.ok();
    // The step, and what it may look at behind it.
    tokio::time::sleep(3 * DELAY_MAX).await;
    let redis::Value::Int(left) = at.send(redis::cmd("PTTL").arg(cart)).await else { panic!("PTTL is a number") };
    assert!(left <= GRACE_MS, "{left} ms");
}

/// What has several keys, of which some are of nothing, no node serves while their slot moves. It waits for the end of the move, within its
/// deadline; past that it is an outage of this one visitor, of whom nothing was changed, and the node goes on to serve the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_several_keys_waits_for_the_end_of_its_slots_move() {
    let cluster = Cluster::start(Security::Plain).await;
    let app = async |deadline| {
        let store = support::connected(CacheStore::builder(&cluster.url).deadline(deadline)).await;
        (support::app::router().layer(SessionLayer::new(store.clone())), store)
    };
    // The only session that is none of the past, and where it is.
    let find = async || {
        for node in cluster.primaries().await {
            for key in cluster.nodes[node].ask::<Vec<String>>(&["KEYS", "*:session:*"]).await {
                if cluster.nodes[node].ask::<i64>(&["HEXISTS", &key, "@rev"]).await == 1 {
                    return (node, key);
                }
            }
        }
        panic!("there is no session");
    };
    let refusals = async |node: usize| -> u64 {
        let told: String = cluster.nodes[node].ask(&["INFO", "errorstats"]).await;
        let count = told.lines().find_map(|line| line.strip_prefix("errorstat_TRYAGAIN:count="));
        count.map_or(0, |count| count.trim().parse().unwrap())
    };
    let (patient, store) = app(support::LONG_DEADLINE).await;
    let mut visitor = Visitor::default();
    visitor.post(&patient, "/set/name/ada").await.ok();
    visitor.post(&patient, "/cart/add/TEA/1").await.ok();
    for (path, cart) in [("/cart/add/TEA/1", "TEA=2"), ("/cycle", "TEA=2"), ("/login/ada", "TEA=2"), ("/cycle", "TEA=2")] {
        let (from, key) = find().await;
        let before = refusals(from).await;
        let moving = cluster.begin_move(from, &key).await;
        let change = tokio::spawn({
            let (app, cookie) = (patient.clone(), visitor.cookie.clone());
            async move { send(&app, http::Method::POST, path, cookie.as_deref()).await }
        });
        until(PATIENCE, "the node refuses it for now", async || refusals(from).await > before).await;
        assert!(!change.is_finished(), "{path}");
        cluster.end_move(&moving).await;
        let answer = change.await.unwrap().ok();
        visitor.cookie = answer.cookie().or(visitor.cookie);
        assert_eq!(visitor.get(&patient, "/cart").await.ok().body, cart, "{path}");
        assert_eq!(visitor.get(&patient, "/get/name").await.ok().body, "ada", "{path}");
    }

    // The cart of a user whose account is deleted does not wait.
    let mut of_user = None;
    for node in cluster.primaries().await {
        for key in cluster.nodes[node].ask::<Vec<String>>(&["KEYS", "*:cart-merged:*"]).await {
            of_user = Some((node, key));
        }
    }
    let (from, key) = of_user.unwrap();
    let moving = cluster.begin_move(from, &key).await;
    assert_eq!(store.carts().of_user("ada").await.unwrap().count(), 2);
    store.carts().forget_user("ada").await.unwrap();
    cluster.end_move(&moving).await;
    assert_eq!(store.carts().of_user("ada").await.unwrap().revision, 0);

    // What has keys that are all there is served, and whole: a key that is made anew within a script would be the other node's.
    visitor.post(&patient, "/logout").await.ok();
    visitor.post(&patient, "/cart/add/TEA/1/first").await.ok();
    let added: serde_json::Value =
        serde_json::from_str(&visitor.post(&patient, "/cart/add/CUP/2/second").await.ok().body).unwrap();
    let (from, key) = find().await;
    let moving = cluster.begin_move(from, &key).await;
    let cleared = visitor.post(&patient, "/cart/clear-once/third").await.ok().body;
    let cleared: serde_json::Value = serde_json::from_str(&cleared).unwrap();
    assert_eq!(cleared["revision"].as_u64(), added["revision"].as_u64().map(|revision| revision + 1));
    assert_eq!(visitor.get(&patient, "/cart").await.ok().body, "");
    cluster.end_move(&moving).await;
    visitor.post(&patient, "/set/name/ada").await.ok();

    // Whoever wants to log out need not wait for it.
    let former = visitor.clone();
    assert_eq!(former.clone().get(&patient, "/get/name").await.ok().body, "ada");
    let (from, key) = find().await;
    let moving = cluster.begin_move(from, &key).await;
    visitor.post(&patient, "/logout").await.ok();
    assert_eq!(former.clone().get(&patient, "/get/name").await.ok().body, "-");
    cluster.end_move(&moving).await;
    assert_eq!(former.clone().get(&patient, "/get/name").await.ok().body, "-");

    let mut guest = Visitor::default();
    guest.post(&patient, "/cart/add/CUP/1").await.ok();
    let (from, key) = find().await;
    let moving = cluster.begin_move(from, &key).await;
    let (hasty, store) = app(Duration::from_millis(250)).await;
    let changes = (0..32).map(|_| {
        let mut guest = guest.clone();
        let hasty = hasty.clone();
        async move { guest.post(&hasty, "/cart/add/CUP/1").await }
    });
    let answers = futures_util::future::join_all(changes).await;
    assert!(answers.iter().all(|answer| answer.status == http::StatusCode::SERVICE_UNAVAILABLE), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.body.contains("TRYAGAIN")), "it is said why: {answers:?}");
    let status = store.status();
    assert!(status.nodes.iter().all(|node| node.breaker == BreakerState::Closed), "{status:?}");
    cluster.end_move(&moving).await;
    assert_eq!(guest.get(&patient, "/cart").await.ok().body, "CUP=1", "nothing was changed");
    guest.post(&patient, "/cart/add/CUP/1").await.ok();
    assert_eq!(guest.get(&patient, "/cart").await.ok().body, "CUP=2");
}

/// An application on a cluster with a near cache.
struct Near {
    app: Router,
    store: CacheStore,
}

impl Near {
    const STALENESS_MAX: Duration = Duration::from_secs(5);

    async fn start(cluster: &Cluster) -> Self {
        let near = NearCache { staleness_max: Self::STALENESS_MAX, age_max: Duration::from_secs(600), ..NearCache::default() };
        let settings = CacheStore::builder(&cluster.url).deadline(Duration::from_secs(8)).near_cache(near);
        let store = support::connected(settings).await;
        Self { app: app_on(store.clone(), PATIENCE), store }
    }

    /// Reads until what is read comes from memory.
    async fn warm_up(&self, visitors: &mut [Visitor], value: &str) {
        for visitor in visitors {
            let (hits, began) = (|| self.store.near_cache_status().unwrap().hits, Instant::now());
            let before = hits();
            while hits() == before {
                assert_eq!(visitor.get_until_done(&self.app, "/get/name").await.body, value);
                assert!(began.elapsed() < PATIENCE, "{:?}", self.store.near_cache_status());
            }
        }
    }
}

/// Each visitor writes on one of them, and sees it on the other soon, whatever that one has in memory.
async fn write_and_see(a: &Near, b: &Near, visitors: &mut [Visitor], value: &str) {
    for visitor in visitors {
        visitor.post_until_done(&a.app, &format!("/set/name/{value}")).await;
        let acknowledged = Instant::now();
        loop {
            let asked = Instant::now();
            if visitor.get_until_done(&b.app, "/get/name").await.body == value {
                break;
            }
            assert!(asked - acknowledged <= Near::STALENESS_MAX, "{:?}", b.store.near_cache_status());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_follows_each_primary_through_a_failover_and_moving_slots() {
    let mut cluster = Cluster::start(Security::Plain).await;
    let (a, b) = (Near::start(&cluster).await, Near::start(&cluster).await);
    let mut visitors = vec![Visitor::default(); 12];
    for visitor in &mut visitors {
        visitor.post(&a.app, "/set/name/0").await.ok();
    }
    b.warm_up(&mut visitors, "0").await;
    write_and_see(&a, &b, &mut visitors, "1").await;
    b.warm_up(&mut visitors, "1").await;
    assert!(b.store.near_cache_status().unwrap().invalidations >= visitors.len() as u64, "{:?}", b.store.near_cache_status());

    // A primary that goes, and whose replica takes over.
    let first = cluster.primaries().await[0];
    cluster.nodes[first].kill();
    write_and_see(&a, &b, &mut visitors, "2").await;
    cluster.until_ok().await;
    b.warm_up(&mut visitors, "2").await;
    assert!(b.store.near_cache_status().unwrap().drops > 0);

    // One that hands over while it goes on, and is a replica then.
    cluster.nodes[first].start();
    cluster.until_ok().await;
    let is_replica =
        async || cluster.nodes[first].ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up");
    until(PATIENCE, "it to be a replica", is_replica).await;
    b.warm_up(&mut visitors, "2").await;
    let mut connection = cluster.nodes[first].connection().await;
    let began = Instant::now();
    let mut value = 2;
    while !cluster.primaries().await.contains(&first) {
        assert!(began.elapsed() < PATIENCE, "it does not take over");
        // It gives up after five seconds, and is asked again.
        let _ = redis::cmd("CLUSTER").arg("FAILOVER").query_async::<String>(&mut connection).await;
        for _ in 0..20 {
            value += 1;
            write_and_see(&a, &b, &mut visitors, &value.to_string()).await;
        }
    }
    cluster.until_ok().await;
    b.warm_up(&mut visitors, &value.to_string()).await;

    // Slots that move from one to another.
    let primaries = cluster.primaries().await;
    let moving = async {
        cluster.reshard(primaries[0], primaries[1], 2_000).await;
    };
    let is_moved = AtomicBool::new(false);
    let writing = async {
        value += 1;
        while !is_moved.load(Ordering::Acquire) {
            write_and_see(&a, &b, &mut visitors, &value.to_string()).await;
            value += 1;
        }
        (value - 1).to_string()
    };
    let (last, ()) = tokio::join!(writing, async {
        moving.await;
        is_moved.store(true, Ordering::Release);
    });
    b.warm_up(&mut visitors, &last).await;
}

/// A cluster to which records are written as tower-sessions-redis-store does.
struct Theirs<'a>(&'a Cluster);

impl Theirs<'_> {
    /// On whichever node has the slot: the others refuse it.
    async fn send(&self, command: &redis::Cmd) -> redis::Value {
        for node in self.0.primaries().await {
            let mut connection = self.0.nodes[node].connection().await;
            if let Ok(answer) = command.query_async(&mut connection).await {
                return answer;
            }
        }
        panic!("no node takes it");
    }

    async fn create(&self, id: Id, name: &str) {
        self.send(redis::cmd("SET").arg(id.to_string()).arg(Self::record(id, name)).arg("EX").arg(3_600)).await;
    }

    /// What a replica with the old software does that has the session still: it changes what is there, and nothing else.
    async fn save(&self, id: Id, name: &str) -> bool {
        let mut command = redis::cmd("SET");
        command.arg(id.to_string()).arg(Self::record(id, name)).arg("XX").arg("EX").arg(3_600);
        self.send(&command).await != redis::Value::Nil
    }

    /// What a replica with the old software does when the visitor logs out there.
    async fn end(&self, id: Id) -> bool {
        self.send(redis::cmd("DEL").arg(id.to_string())).await == redis::Value::Int(1)
    }

    async fn is_there(&self, id: Id) -> bool {
        self.send(redis::cmd("EXISTS").arg(id.to_string())).await == redis::Value::Int(1)
    }

    fn record(id: Id, name: &str) -> Vec<u8> {
        let data = HashMap::from([("name".to_owned(), serde_json::json!(name)), ("@odd".to_owned(), serde_json::json!("kept"))]);
        let expiry_date = OffsetDateTime::now_utc() + time::Duration::hours(1);
        rmp_serde::to_vec(&Record { id, data, expiry_date }).unwrap()
    }
}

/// Their record and ours are on different nodes, where no script can make one of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_tower_sessions_redis_store_are_taken_over() {
    let cluster = Cluster::start(Security::Plain).await;
    let theirs = Theirs(&cluster);
    let replica = async || {
        let store = CacheStore::builder(&cluster.url)
            .deadline(support::LONG_DEADLINE)
            .encryption(EncryptionKeys::new([7; 32]))
            .connect()
            .await;
        support::app::router().layer(SessionLayer::new(store.unwrap()).with_tower_sessions_records("", "id"))
    };
    let (a, b) = (replica().await, replica().await);
    for i in 0..8 {
        let id = Id(i128::MAX - i);
        theirs.create(id, "ada").await;
        // Eight requests at once over two replicas, each of which may be the one that takes it over.
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..8 {
            let (app, mut visitor) = ([a.clone(), b.clone()][i % 2].clone(), Visitor { cookie: Some(format!("id={id}")) });
            requests.spawn(async move { visitor.post(&app, &format!("/set/key{i}/value")).await.ok() });
        }
        requests.join_all().await;
        assert!(!theirs.is_there(id).await);
        let mut visitor = Visitor { cookie: Some(format!("id={id}")) };
        for i in 0..8 {
            assert_eq!(visitor.get(&b, &format!("/get/key{i}")).await.ok().body, "value");
        }
        assert!(!theirs.save(id, "eve").await, "the old software does not bring it back");
        assert_eq!(visitor.get(&a, "/get/name").await.ok().body, "ada");
        assert_eq!(visitor.get(&a, "/get/@odd").await.ok().body, "kept");
        visitor.post(&a, "/cart/add/TEA/1").await.ok();
        visitor.post(&b, "/cycle").await.ok();
        assert_eq!(visitor.get(&a, "/get/name").await.ok().body, "ada");
        visitor.post(&a, "/logout").await.ok();
        let late = Visitor { cookie: Some(format!("id={id}")) }.get(&b, "/get/name").await.ok();
        assert_eq!(late.body, "-", "nothing comes back");
    }
    // An id that nobody gave out, and a record that is none of theirs.
    let (chosen, strange) = (Id(7), Id(8));
    theirs.send(redis::cmd("SET").arg(strange.to_string()).arg("?")).await;
    for id in [chosen, strange] {
        let mut visitor = Visitor { cookie: Some(format!("id={id}")) };
        assert_eq!(visitor.get(&a, "/get/name").await.ok().body, "-");
        visitor.post(&a, "/set/name/eve").await.ok();
        assert!(!visitor.cookie.unwrap().ends_with(&id.to_string()));
    }
    assert!(theirs.is_there(strange).await, "what is not theirs is left alone");
}

/// Requests are dropped at any point, as a process that dies would, while the old software still writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_that_is_broken_off_anywhere_loses_and_doubles_nothing() {
    let cluster = Cluster::start(Security::Plain).await;
    let theirs = Theirs(&cluster);
    let store = CacheStore::builder(&cluster.url).deadline(support::LONG_DEADLINE).connect().await.unwrap();
    let app = support::app::router().layer(SessionLayer::new(store).with_tower_sessions_records("", "id"));
    // The nodes know the scripts, and there are connections.
    for i in 0..24 {
        theirs.create(Id(i), "ada").await;
        Visitor { cookie: Some(format!("id={}", Id(i))) }.get(&app, "/get/name").await.ok();
    }
    let (mut broken_off, mut adopted_by_the_next, mut ended) = (0, 0, 0);
    let mut round = 0_u64;
    // How long a step takes is for the machine to say.
    while round < 40 || (round < 800 && adopted_by_the_next.min(ended) < 4) {
        round += 1;
        let id = Id(1_000 + i128::from(round));
        theirs.create(id, "0").await;
        let request = tokio::spawn({
            let (app, mut visitor) = (app.clone(), Visitor { cookie: Some(format!("id={id}")) });
            async move { visitor.get(&app, "/get/name").await }
        });
        // Each round a little later: a step takes some tenths of a millisecond.
        tokio::time::sleep(Duration::from_micros(150 * (round % 80))).await;
        request.abort();
        let is_broken_off = request.await.is_err();
        broken_off += u32::from(is_broken_off);
        // The old software goes on with the session, or ends it, if it is still there.
        let (is_theirs, then) =
            if round.is_multiple_of(2) { (theirs.save(id, "1").await, "1") } else { (theirs.end(id).await, "-") };
        let expected = if is_theirs { then } else { "0" };
        adopted_by_the_next += u32::from(is_broken_off && !is_theirs);
        ended += u32::from(expected == "-");
        let mut visitor = Visitor { cookie: Some(format!("id={id}")) };
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, expected, "round {round}");
        assert!(!theirs.is_there(id).await, "round {round}");
        visitor.post(&app, "/logout").await.ok();
        assert_eq!(Visitor { cookie: Some(format!("id={id}")) }.get(&app, "/get/name").await.ok().body, "-");
    }
    println!("{broken_off} of {round} were broken off, {adopted_by_the_next} after the removal, {ended} were ended before");
    assert!(broken_off > 5 && adopted_by_the_next > 3 && ended > 3, "{broken_off} {adopted_by_the_next} {ended}");

    // Placed, and not removed by one of us: the old software has ended it, or it has expired there.
    for node in cluster.primaries().await {
        let mut connection = cluster.nodes[node].connection().await;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
    }
    for (id, removed_by_us) in [(Id(5_000), false), (Id(5_001), true)] {
        theirs.create(id, "ada").await;
        let mut visitor = Visitor { cookie: Some(format!("id={id}")) };
        assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
        let mut found = 0;
        for node in cluster.primaries().await {
            let mut connection = cluster.nodes[node].connection().await;
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
            found += keys.len();
            for key in keys {
                assert!(key.contains(":session:"), "{key} is left");
                // As it is between the steps.
                redis::cmd("HDEL").arg(&key).arg("@rev").exec_async(&mut connection).await.unwrap();
                redis::cmd("HSET").arg(&key).arg("@placed").arg(1).exec_async(&mut connection).await.unwrap();
            }
        }
        assert_eq!(found, 1, "nothing is left of the one before");
        if removed_by_us {
            theirs.send(redis::cmd("SET").arg(format!("shop:taken-over:{{{id}}}")).arg(1).arg("PX").arg(60_000)).await;
        }
        let mut visitor = Visitor { cookie: Some(format!("id={id}")) };
        let name = visitor.get(&app, "/get/name").await.ok().body;
        assert_eq!(name, if removed_by_us { "ada" } else { "-" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_new_ids_at_once_one_lives_and_no_addition_is_lost() {
    let cluster = Cluster::start(Security::Plain).await;
    let app = waiting_app(&cluster.url, PATIENCE).await;
    for _ in 0..10 {
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..12 {
            let (app, mut visitor) = (app.clone(), visitor.clone());
            let path = if i % 4 == 0 { "/cycle" } else { "/cart/add/TEA/1" };
            requests.spawn(async move {
                let answer = visitor.post(&app, path).await;
                (path, answer.status, visitor.cookie)
            });
        }
        let answers = requests.join_all().await;
        let new: Vec<_> = answers.iter().filter(|(path, status, _)| *path == "/cycle" && status.is_success()).collect();
        assert_eq!(new.len(), 1, "{answers:?}");
        let added = answers.iter().filter(|(path, status, _)| *path != "/cycle" && status.is_success()).count();
        let mut winner = Visitor { cookie: new[0].2.clone() };
        assert_eq!(winner.get(&app, "/cart").await.ok().body, format!("TEA={}", added + 1), "{answers:?}");
        assert_eq!(winner.get(&app, "/get/name").await.ok().body, "ada");
    }
    // Records that lost are removed: ten live sessions, and marks of ended ones.
    let mut live = 0;
    for node in cluster.primaries().await {
        let mut connection = cluster.nodes[node].connection().await;
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:session:*").query_async(&mut connection).await.unwrap();
        for key in keys {
            let revision: Option<u64> = redis::cmd("HGET").arg(key).arg("@rev").query_async(&mut connection).await.unwrap();
            live += usize::from(revision.is_some());
        }
    }
    assert_eq!(live, 10);
}

/// As when a replica that lacked a commit, or a change of the cart, has taken its primary's place between two steps of a new id: what comes after
/// has the same revision as what was copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_id_brings_what_was_changed_between_its_steps_at_the_same_revision() {
    const CHANGE: &str = "
        if redis.call('HEXISTS', KEYS[1], '@rev') == 0 then return 0 end
        if ARGV[1] == 'session' then redis.call('HSET', KEYS[1], 'name', '\"eve\"', '@tok', 'another1 ') end
        if ARGV[1] == 'cart' then redis.call('HSET', KEYS[2], 'TEA', 2, '@', '1 1 2') end
        if ARGV[1] == 'tokens' then redis.call('SET', KEYS[3], 'another2 ') end
        return 1";
    let cluster = Cluster::start(Security::Plain).await;
    let at = Theirs(&cluster);
    let faults = Faults::seeded(1).with_delay_max(Duration::from_millis(800));
    let builder = CacheStore::builder(&cluster.url).deadline(Duration::from_secs(20)).faults(faults.clone());
    let app = support::app::router().layer(SessionLayer::new(support::connected(builder).await));
    for (what, name, shown) in [("session", "eve", "TEA=1"), ("cart", "ada", "TEA=2"), ("tokens", "ada", "TEA=1")] {
        // The last step may come sooner than the change: then that is refused, and nothing is seen.
        let mut attempts = 0;
        loop {
            for node in cluster.primaries().await {
                cluster.nodes[node].ask::<()>(&["FLUSHALL"]).await;
            }
            let mut visitor = Visitor::default();
            visitor.post(&app, "/cart/add/TEA/1").await.ok();
            visitor.post(&app, "/set/name/ada").await.ok();
            let session = keys(&cluster, "*:session:*").await.remove(0);
            let key = |kind: &str| session.replace(":session:", kind);
            drop(faults.clone().with(Fault::Delay, 1.0));
            let cycle = tokio::spawn({
                let (app, mut visitor) = (app.clone(), visitor.clone());
                async move { (visitor.post(&app, "/cycle").await.ok(), visitor) }
            });
            until(PATIENCE, "the copy", async || keys(&cluster, "*:session:*").await.len() > 1).await;
            let mut change = redis::cmd("EVAL");
            change.arg(CHANGE).arg(3).arg(&session).arg(key(":cart:")).arg(key(":cart-tokens:")).arg(what);
            let is_made = at.send(&change).await == redis::Value::Int(1);
            drop(faults.clone().with(Fault::Delay, 0.0));
            let (_, mut visitor) = cycle.await.unwrap();
            attempts += 1;
            if !is_made {
                assert!(attempts < 20, "the last step was sooner each time");
                continue;
            }
            assert_eq!(visitor.get(&app, "/get/name").await.ok().body, name, "{what}");
            assert_eq!(visitor.get(&app, "/cart").await.ok().body, shown, "{what}");
            if what == "tokens" {
                let moved = keys(&cluster, "*:cart-tokens:*").await.into_iter().find(|moved| *moved != key(":cart-tokens:"));
                let tokens = at.send(redis::cmd("GET").arg(moved.unwrap())).await;
                assert_eq!(tokens, redis::Value::BulkString(b"another2 ".to_vec()));
            }
            break;
        }
    }
}

/// As when a replica that lacked the cart's last change has taken its primary's place between the merge and the commit of a login, and another change
/// has been made there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_brings_what_was_put_into_the_cart_behind_the_merge_at_the_same_revision() {
    const CHANGE: &str = "redis.call('DEL', KEYS[1]) return redis.call('HSET', KEYS[1], 'CUP', 1, '@', '1 1 1')";
    let slow_login = async |session: Session, cart: Cart, Path((ms, id)): Path<(u64, String)>| {
        if id == "new" {
            session.cycle_id().await.unwrap();
        }
        cart.log_in("ada").await.unwrap();
        support::hold::pause(ms).await;
    };
    let cluster = Cluster::start(Security::Plain).await;
    let at = Theirs(&cluster);
    let builder = CacheStore::builder(&cluster.url).deadline(Duration::from_secs(20));
    let routes = support::app::router().route("/slow-login/{ms}/{id}", post(slow_login));
    let app = routes.layer(SessionLayer::new(support::connected(builder).await));
    for id in ["new", "the-same"] {
        for node in cluster.primaries().await {
            cluster.nodes[node].ask::<()>(&["FLUSHALL"]).await;
        }
        let mut visitor = Visitor::default();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        let anonymous = keys(&cluster, "*:cart:*").await.remove(0);
        let hold = Hold::new();
        let login = tokio::spawn({
            let (app, mut visitor, path) = (app.clone(), visitor.clone(), format!("/slow-login/{hold}/{id}"));
            async move {
                visitor.post(&app, &path).await.ok();
                visitor
            }
        });
        hold.reached().await;
        at.send(redis::cmd("EVAL").arg(CHANGE).arg(1).arg(&anonymous)).await;
        hold.release();
        let mut visitor = login.await.unwrap();
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, "CUP=1,TEA=1", "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_traffic_and_a_primary_dies_and_no_visitor_sees_an_error() {
    // Valkey waits for the replicas with each slot.
    for (engine, security, slots) in [(Engine::Valkey, Security::Plain, 100), (Engine::Redis, Security::TlsAndAcl, 1_500)] {
        let mut cluster = Cluster::start_of(engine, security).await;
        let store = support::default_store(&cluster.url).await;
        let app = app_on(store.clone(), PATIENCE);

        let traffic = Traffic::start(&app, 16).await;
        let primaries = cluster.primaries().await;
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            cluster.reshard(primaries[from], primaries[to], slots).await;
        }
        let summary = traffic.finish(None).await;
        assert!(summary.confirmed > 100 && summary.lost == 0, "{summary:?}");

        let began = Moment::now();
        let traffic = Traffic::start(&app, 16).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let victim = cluster.primaries().await[1];
        let lost_at = Instant::now();
        cluster.nodes[victim].kill();
        tokio::time::sleep(Duration::from_secs(6)).await;
        let summary = traffic.finish(Some((lost_at, Duration::from_millis(500) + began.stalled()))).await;
        assert!(summary.confirmed > 100 && summary.slowest > Duration::from_millis(500), "{summary:?}");
        until(PATIENCE, "the store has three nodes that are well", async || {
            let status = store.status();
            status.nodes.len() == 3 && status.nodes.iter().all(|node| node.breaker == BreakerState::Closed)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_there_says_so() {
    let hosts = [support::fleet::free_port(), support::fleet::free_port()].map(|port| format!("127.0.0.1:{port}")).join(",");
    let began = Moment::now();
    let error = support::patient(format!("redis+cluster://{hosts}")).connect().await.unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(error.contains(&hosts.replace(',', ", ")) && error.contains("connection refused"), "{error}");

    let node = support::Server::start(support::server::Backend::Real(Engine::usual())).await;
    let error = support::patient(format!("redis+cluster://127.0.0.1:{}", node.port)).connect().await.unwrap_err().to_string();
    assert!(error.contains("cluster support disabled"), "{error}");
}
