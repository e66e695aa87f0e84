//! Which replicas are alive.
//!
//! The probe asks `/healthz` and not `/readyz`: readiness fails as soon as the store or the database is out of reach,
//! on every replica at once. Taking all of them out of the rotation would hide the shop's own pages, which say that
//! the cart is out of reach for a moment and that nothing is lost, behind a bare "no replica".

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::balancer::limits::{CONNECT_TIMEOUT, PROBE_INTERVAL, PROBE_TIMEOUT, PROBE_TIMEOUTS_MAX};
use crate::balancer::replicas::{Replica, ReplicaSet};

/// Starts one task for each replica. Dropping the set ends them.
pub(crate) fn start(replicas: &ReplicaSet) -> JoinSet<()> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // A new connection for every probe: it is the connecting that a dead process fails at.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let mut probes = JoinSet::new();
    for replica in replicas.iter() {
        probes.spawn(watch(Arc::clone(replica), client.clone()));
    }
    probes
}

async fn watch(replica: Arc<Replica>, client: Client<HttpConnector, Body>) {
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = replica.probe_wanted() => {}
        }
        let Some(address) = replica.address() else {
            continue;
        };
        match probe(&client, address).await {
            Probe::Alive => replica.mark_up(address),
            Probe::Refused => replica.mark_down(address),
            Probe::Silent if replica.count_probe_timeout() >= PROBE_TIMEOUTS_MAX => replica.mark_silent(address),
            Probe::Silent => {}
        }
    }
}

enum Probe {
    Alive,
    /// Nobody listens, or what listens says that it is not well.
    Refused,
    /// No answer in time.
    Silent,
}

async fn probe(client: &Client<HttpConnector, Body>, address: SocketAddr) -> Probe {
    let request = Request::get(format!("http://{address}/healthz"))
        .header(header::USER_AGENT, "demo-shop-balancer")
        .body(Body::empty())
        .expect("a socket address makes a valid URI");
    match timeout(PROBE_TIMEOUT, client.request(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Probe::Alive,
        Ok(Ok(_) | Err(_)) => Probe::Refused,
        Err(_) => Probe::Silent,
    }
}
