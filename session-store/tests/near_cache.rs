//! The near cache on two replicas: what it serves is what was acknowledged, within a bound.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use session_store::{CacheStore, NearCache, NearCacheStatus, Session, SessionLayer, fresh_session};
use support::{
    Server, Visitor, app, each_process, each_server,
    fleet::{Security, Sentinels, until},
};

/// What a busy machine may take where microseconds are expected.
const PATIENCE: Duration = support::PATIENCE;
/// The bound of the tests that are not about it: a machine that is busy must not make everything a miss.
const STALENESS_MAX: Duration = Duration::from_secs(10);

struct Replica {
    app: Router,
    store: CacheStore,
}

impl Replica {
    async fn start(server: &Server, staleness_max: Duration) -> Self {
        Self::at(server.url(), staleness_max).await
    }

    async fn at(url: impl Into<String>, staleness_max: Duration) -> Self {
        let near = NearCache { staleness_max, ..NearCache::default() };
        let store = support::patient(url).near_cache(near).connect().await.unwrap();
        let fresh = async |session: Session| session.get::<String>("name").await.unwrap().unwrap_or_default();
        let routes = Router::new().route("/fresh", get(fresh)).route_layer(fresh_session()).merge(app::router());
        Self { app: routes.layer(SessionLayer::new(store.clone())), store }
    }

    fn near(&self) -> NearCacheStatus {
        self.store.near_cache_status().unwrap()
    }

    /// Reads until the answer comes from memory.
    async fn warm_up(&self, visitor: &mut Visitor, value: &str) {
        let (began, hits) = (Instant::now(), self.near().hits);
        while self.near().hits == hits {
            assert_eq!(visitor.get(&self.app, "/get/name").await.ok().body, value);
            assert!(began.elapsed() < PATIENCE, "{:?}", self.near());
        }
    }
}

#[tokio::test]
async fn a_change_on_one_replica_is_seen_on_the_other() {
    each_server(async |server| {
        let (a, b) = (Replica::start(&server, STALENESS_MAX).await, Replica::start(&server, STALENESS_MAX).await);
        let mut visitor = Visitor::default();
        visitor.post(&a.app, "/set/name/0").await.ok();
        b.warm_up(&mut visitor, "0").await;
        let mut seen_after = Vec::new();
        for turn in 1..=50 {
            visitor.post(&a.app, &format!("/set/name/{turn}")).await.ok();
            let acknowledged = Instant::now();
            // What this replica has committed it never serves stale.
            assert_eq!(visitor.get(&a.app, "/get/name").await.ok().body, turn.to_string());
            while visitor.get(&b.app, "/get/name").await.ok().body != turn.to_string() {
                assert!(acknowledged.elapsed() < STALENESS_MAX, "{:?}", b.near());
                tokio::task::yield_now().await;
            }
            seen_after.push(acknowledged.elapsed());
            b.warm_up(&mut visitor, &turn.to_string()).await;
        }
        seen_after.sort();
        println!("seen on the other replica after {:?} and at most {:?}, {:?}", seen_after[25], seen_after[49], b.near());
        // Told of it, and not found out when the bound was over.
        assert!(seen_after[25] < STALENESS_MAX / 10, "{seen_after:?}");
        assert!(b.near().invalidations >= 50 && b.near().hits >= 50, "{:?}", b.near());
    })
    .await;
}

#[tokio::test]
async fn a_logout_on_one_replica_is_seen_at_once_where_it_matters() {
    each_server(async |server| {
        let (a, b) = (Replica::start(&server, STALENESS_MAX).await, Replica::start(&server, STALENESS_MAX).await);
        for _ in 0..20 {
            let mut visitor = Visitor::default();
            visitor.post(&a.app, "/set/name/ada").await.ok();
            b.warm_up(&mut visitor, "ada").await;
            let mut other_tab = visitor.clone();
            visitor.post(&a.app, "/logout").await.ok();
            let misses = b.near().misses;
            assert_eq!(other_tab.get(&b.app, "/fresh").await.ok().body, "");
            assert_eq!(b.near().misses, misses, "the near cache was not even asked");
        }
    })
    .await;
}

#[tokio::test]
async fn unsafe_methods_read_from_the_store() {
    each_server(async |server| {
        let replica = Replica::start(&server, STALENESS_MAX).await;
        let mut visitor = Visitor::default();
        visitor.post(&replica.app, "/set/name/ada").await.ok();
        replica.warm_up(&mut visitor, "ada").await;
        let before = replica.near();
        visitor.post(&replica.app, "/set/name/bob").await.ok();
        assert_eq!(replica.near().hits, before.hits);
        assert_eq!(visitor.get(&replica.app, "/get/name").await.ok().body, "bob");
    })
    .await;
}

/// A change leaves the session's time as it is where the primary has just told that little of it has passed. What a copy says of it is from before.
#[tokio::test]
async fn what_a_copy_says_of_the_time_is_not_believed() {
    each_server(async |server| {
        let replica = Replica::start(&server, STALENESS_MAX).await;
        let mut visitor = Visitor::default();
        visitor.post(&replica.app, "/set/name/ada").await.ok();
        replica.warm_up(&mut visitor, "ada").await;
        let hits = replica.near().hits;
        for (method, path, extensions) in [("GET", "/slow-set/1/name/bob", 1), ("POST", "/set/name/cyd", 0)] {
            server.reset_commands().await;
            let answer =
                if method == "GET" { visitor.get(&replica.app, path).await } else { visitor.post(&replica.app, path).await };
            answer.ok();
            let calls = server.commands().await.into_iter().find(|(name, _)| name == "pexpire").map_or(0, |(_, calls)| calls);
            assert_eq!(calls, extensions, "{method} {path}");
        }
        assert_eq!(replica.near().hits, hits + 1, "the first of them has read from memory");
        assert_eq!(visitor.get(&replica.app, "/get/name").await.ok().body, "cyd");
    })
    .await;
}

#[tokio::test]
async fn everything_is_dropped_when_the_connection_that_tells_of_changes_ends() {
    each_server(async |server| {
        let replica = Replica::start(&server, STALENESS_MAX).await;
        let mut visitor = Visitor::default();
        visitor.post(&replica.app, "/set/name/ada").await.ok();
        replica.warm_up(&mut visitor, "ada").await;
        let drops = replica.near().drops;
        // The one among the connections that is told.
        let mut admin = server.connection().await;
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin).await.unwrap();
        let told = list.lines().find(|line| line.contains(" flags=t")).expect("one connection is told of changes");
        let id = told.split_once("id=").unwrap().1.split(' ').next().unwrap();
        let killed: i64 = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut admin).await.unwrap();
        assert_eq!(killed, 1);
        let began = Instant::now();
        while replica.near().drops == drops {
            assert!(began.elapsed() < PATIENCE, "{:?}", replica.near());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(replica.near().entries, 0);
        assert_eq!(visitor.get(&replica.app, "/get/name").await.ok().body, "ada");
        // And it is there again by itself.
        replica.warm_up(&mut visitor, "ada").await;
    })
    .await;
}

#[tokio::test]
async fn an_emptied_store_empties_the_near_cache() {
    each_server(async |server| {
        let replica = Replica::start(&server, STALENESS_MAX).await;
        let mut visitor = Visitor::default();
        visitor.post(&replica.app, "/set/name/ada").await.ok();
        replica.warm_up(&mut visitor, "ada").await;
        redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
        let began = Instant::now();
        while visitor.clone().get(&replica.app, "/get/name").await.ok().body == "ada" {
            assert!(began.elapsed() < STALENESS_MAX);
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_older_than_the_bound_is_served_while_the_store_hangs() {
    each_process(async |server| {
        let staleness_max = Duration::from_millis(400);
        let near = NearCache { staleness_max, ..NearCache::default() };
        // One that a busy machine does not reach.
        let deadline = Duration::from_secs(3);
        let store = support::connected(CacheStore::builder(server.url()).deadline(deadline).near_cache(near)).await;
        let app = app::router().layer(SessionLayer::new(store.clone()));
        let replica = Replica { app, store };
        let mut visitor = Visitor::default();
        visitor.post(&replica.app, "/set/name/ada").await.ok();
        replica.warm_up(&mut visitor, "ada").await;
        server.signal("-STOP");
        let stopped = Instant::now();
        // When the last one was asked for that was served: how long anything takes is for the machine to say.
        let (mut last, mut asked) = (Duration::ZERO, Duration::ZERO);
        while visitor.get(&replica.app, "/get/name").await.status.is_success() {
            last = asked;
            asked = stopped.elapsed();
        }
        let proven_ago = replica.near().proven_ago;
        server.signal("-CONT");
        println!("served from memory for {last:?}");
        assert!(last <= staleness_max + Duration::from_millis(50), "{last:?}");
        assert!(proven_ago.is_none_or(|ago| ago > staleness_max), "{proven_ago:?}");
        replica.warm_up(&mut visitor, "ada").await;
    })
    .await;
}

/// Over TLS, as a user with few rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_that_sentinels_name_is_followed_to_the_next_one() {
    let mut fleet = Sentinels::start(Security::TlsAndAcl).await;
    let (a, b) = (Replica::at(&fleet.url, STALENESS_MAX).await, Replica::at(&fleet.url, STALENESS_MAX).await);
    let mut visitor = Visitor::default();
    visitor.post(&a.app, "/set/name/before").await.ok();
    b.warm_up(&mut visitor, "before").await;
    let node = |replica: &Replica| replica.store.status().nodes[0].address.clone();
    let former = node(&b);
    let drops = b.near().drops;

    // It hangs, is deposed, and goes on as if nothing had happened, until somebody tells it.
    fleet.primary().await.signal("-STOP");
    until(PATIENCE, "both know another primary", async || node(&a) != former && node(&b) != former).await;
    fleet.nodes.iter().find(|node| former.ends_with(&format!(":{}", node.store_port))).unwrap().signal("-CONT");
    for turn in 0..20 {
        visitor.post(&a.app, &format!("/set/name/{turn}")).await.ok();
        let acknowledged = Instant::now();
        while visitor.get(&b.app, "/get/name").await.ok().body != turn.to_string() {
            assert!(acknowledged.elapsed() < STALENESS_MAX, "{:?}", b.near());
            tokio::task::yield_now().await;
        }
        b.warm_up(&mut visitor, &turn.to_string()).await;
    }
    assert!(b.near().drops > drops, "{:?}", b.near());

    // Asked for: the former one lives on as a replica, and would go on telling of what it hears.
    fleet.until_settled().await;
    let former = node(&b);
    let drops = b.near().drops;
    fleet.fail_over().await;
    until(PATIENCE, "both know another primary", async || node(&a) != former && node(&b) != former).await;
    visitor.post(&a.app, "/set/name/after").await.ok();
    let acknowledged = Instant::now();
    while visitor.get(&b.app, "/get/name").await.ok().body != "after" {
        assert!(acknowledged.elapsed() < STALENESS_MAX, "{:?}", b.near());
        tokio::task::yield_now().await;
    }
    b.warm_up(&mut visitor, "after").await;
    assert!(b.near().drops > drops, "{:?}", b.near());
}
