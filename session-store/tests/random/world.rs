//! A store of one kind with two replicas, and the visitor.

use std::collections::BTreeMap;

use axum::Router;
use http::StatusCode;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use session_store::{
    CacheStoreBuilder, EncryptionKeys, Expiry, SessionLayer,
    testing::{Fault, Faults, MemoryNode},
};

use super::{
    IDLE_S, LATE_MS, REQUESTS,
    model::{Handle, Model},
    requests::{Answer, Draws, Job, Op, handle, send},
    support::{self, Server, server::Backend},
};

/// One kind of store, with its replicas and the visitor.
struct World {
    server: Option<Server>,
    replicas: Vec<(Router, Faults)>,
    asked_for: u64,
    cookie: Option<String>,
    /// The numbers of the ids in cookies.
    ids: BTreeMap<String, u32>,
    model: Model,
    trace: Vec<String>,
}

impl World {
    async fn new(builder: CacheStoreBuilder, server: Option<Server>, seed: u64) -> Self {
        let mut replicas = Vec::new();
        for _ in 0..2 {
            let faults = Faults::seeded(seed);
            let mut builder = builder.clone().faults(faults.clone());
            if seed.is_multiple_of(3) {
                builder = builder.encryption(EncryptionKeys::new([7; 32]));
            }
            let mut layer = SessionLayer::new(support::connected(builder).await)
                .with_expiry(Expiry::OnInactivity(time::Duration::seconds(IDLE_S)));
            if seed.is_multiple_of(2) {
                layer = layer.with_absolute_timeout(time::Duration::hours(24));
            }
            replicas.push((Router::new().fallback(handle).layer(layer), faults));
        }
        Self { server, replicas, asked_for: 0, cookie: None, ids: BTreeMap::new(), model: Model::default(), trace: Vec::new() }
    }

    /// The next operation of this replica meets it, unless one of before waits for its operation still.
    fn ask_for(&mut self, replica: usize, fault: Fault) {
        let met: u64 =
            self.replicas.iter().flat_map(|(_, faults)| [Fault::Drop, Fault::Duplicate].map(|fault| faults.count(fault))).sum();
        if met == self.asked_for {
            self.asked_for += 1;
            self.replicas[replica].1.next(fault);
        }
    }

    async fn send(&self, replica: usize, job: &Job) -> Answer {
        send(self.replicas[replica].0.clone(), self.cookie.clone(), job.clone()).await
    }

    /// What an answer has, as the model says, and its cookie.
    fn settle(&mut self, case: &str, handle: &mut Handle, sent: Option<u32>, answer: &Answer) {
        self.model.finish(handle);
        let is_new = handle.base.filter(|base| Some(*base) != sent && !handle.is_lost);
        let cookie = match (&answer.cookie, is_new) {
            (Some(cookie), Some(id)) => {
                let known = self.ids.insert(cookie.clone(), id);
                assert_eq!(known, None, "{case}: the id was there before");
                self.cookie = Some(cookie.clone());
                format!("new {id}")
            }
            (Some(cookie), None) => {
                let known = self.ids.get(cookie).copied();
                assert!(
                    known.is_some() && known == sent,
                    "{case}: a cookie of another id, {handle:?} {:?} {:#?}",
                    self.model,
                    self.trace
                );
                self.cookie = Some(cookie.clone());
                "same".to_owned()
            }
            (None, _) if answer.is_removed => {
                self.cookie = None;
                "removed".to_owned()
            }
            (None, is_new) => {
                assert_eq!(
                    is_new, None,
                    "{case}: there is no cookie of the new id, {handle:?} {:?} {:#?}",
                    self.model, self.trace
                );
                "none".to_owned()
            }
        };
        if !handle.is_late {
            let status = if handle.is_lost { StatusCode::CONFLICT } else { StatusCode::OK };
            assert_eq!(answer.status, status, "{case}: {} {handle:?} {:?} {:#?}", answer.body, self.model, self.trace);
            if let Some(said) = handle.said.as_ref().filter(|_| !handle.is_lost) {
                assert_eq!(answer.body, said.join(" "), "{case}");
            }
        }
        self.trace.push(format!("{case}: {} {} {cookie}", answer.status, answer.body));
    }

    fn sent(&self) -> Option<u32> {
        self.cookie.as_ref().map(|cookie| self.ids[cookie])
    }

    async fn visit(&mut self, case: &str, draws: &mut Draws) {
        let outer = draws.0.random_range(0..2);
        let pauses = draws.chance(0.5);
        let ops = draws.ops(pauses);
        let within = draws.ops(false);
        for replica in [outer, 1 - outer] {
            if draws.chance(0.3) {
                let fault = if draws.chance(0.7) { Fault::Drop } else { Fault::Duplicate };
                self.ask_for(replica, fault);
            }
        }
        let case = format!("{case}, {ops:?}{}", if pauses { format!(" with {within:?}") } else { String::new() });
        let sent = self.sent();
        let mut handle = self.model.begin(sent);
        let (first, rest) = ops.split_at(ops.iter().position(|op| *op == Op::Pause).unwrap_or(ops.len()));
        let job = Job::new(ops.clone());
        let running = tokio::spawn(send(self.replicas[outer].0.clone(), self.cookie.clone(), job.clone()));
        first.iter().for_each(|op| self.model.carry_out(&mut handle, *op));
        if pauses {
            assert!(!handle.is_lost, "{case}: nobody else has changed anything");
            job.held.acquire().await.unwrap().forget();
            let inner = Job::new(within.clone());
            let answer = self.send(1 - outer, &inner).await;
            let mut within_handle = self.model.begin(sent);
            within.iter().for_each(|op| self.model.carry_out(&mut within_handle, *op));
            self.settle(&format!("{case}, within"), &mut within_handle, sent, &answer);
            job.released.add_permits(1);
        }
        let answer = running.await.unwrap();
        rest.iter().for_each(|op| self.model.carry_out(&mut handle, *op));
        self.settle(&case, &mut handle, sent, &answer);
        self.look(&case, outer).await;
    }

    /// What is there, seen by another request.
    async fn look(&mut self, case: &str, replica: usize) {
        let ops = vec![Op::Get("a"), Op::Get("b"), Op::Get("c"), Op::Get("count"), Op::Lines];
        let answer = self.send(replica, &Job::new(ops.clone())).await;
        match self.sent().filter(|sent| self.model.live.contains_key(sent)) {
            Some(sent) => {
                let mut handle = self.model.begin(Some(sent));
                ops.iter().for_each(|op| self.model.carry_out(&mut handle, *op));
                let said = handle.said.unwrap().join(" ");
                assert_eq!((answer.status, answer.body), (StatusCode::OK, said), "{case}: {:?}", self.model);
            }
            // The visitor begins anew.
            None => self.cookie = None,
        }
        self.assert_times(case).await;
    }

    /// The time of each session is that of its own policy.
    async fn assert_times(&self, case: &str) {
        let Some(server) = &self.server else { return };
        let mut connection = server.connection().await;
        let mut found = Vec::new();
        for key in server.keys("*:session:*").await {
            let (policy, revision): (Option<String>, Option<u64>) =
                redis::cmd("HMGET").arg(&key).arg(&["@expiry", "@rev"]).query_async(&mut connection).await.unwrap();
            let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
            if revision.is_none() {
                assert!(left_ms <= 10_000, "{case}: what is over is kept for {left_ms} ms");
                continue;
            }
            let idle_ms: i64 = policy.unwrap()[1..].parse().unwrap();
            // One without an end would be there for ever.
            let at_least_ms = (idle_ms - idle_ms / 16 - LATE_MS).max(1);
            assert!((at_least_ms..=idle_ms).contains(&left_ms), "{case}: {left_ms} ms of {idle_ms} are left");
            found.push(idle_ms / 1_000);
        }
        for live in self.model.live.values() {
            assert!(found.contains(&live.idle_s), "{case}: {found:?}, and not {:?}\n{:#?}", self.model, self.trace);
        }
    }
}

pub async fn trace(backend: Option<Backend>, seed: u64) -> Vec<String> {
    let mut world = match backend {
        None => World::new(MemoryNode::new().builder(), None, seed).await,
        Some(backend) => {
            let server = Server::start(backend).await;
            World::new(support::patient(server.url()), Some(server), seed).await
        }
    };
    let mut draws = Draws(StdRng::seed_from_u64(seed));
    for number in 0..REQUESTS {
        world.visit(&format!("request {number} of seed {seed} on {backend:?}"), &mut draws).await;
    }
    world.trace.into_iter().map(|line| line.replace(&format!("{backend:?}"), "it")).collect()
}
