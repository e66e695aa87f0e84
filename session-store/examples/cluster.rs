//! Sessions behind a cluster: each key is asked for at the node that has its slot, also while slots move.
//!
//!     for port in 7000 7001 7002; do
//!       redis-server --port $port --cluster-enabled yes --cluster-config-file nodes-$port.conf --save "" --daemonize yes
//!     done
//!     redis-cli --cluster create 127.0.0.1:7000 127.0.0.1:7001 127.0.0.1:7002 --cluster-yes
//!     cargo run -p session-store --example cluster -- redis+cluster://127.0.0.1:7000,127.0.0.1:7001
//!     curl -c jar -b jar http://ADDRESS/
//!     curl http://ADDRESS/store
//!
//! Some of the nodes are enough: they tell of the others.
use std::time::Duration;

use axum::{Extension, Router, routing::get};
use session_store::{CacheStore, Key, OutagePolicy, Session, SessionExt as _, SessionLayer, Unavailable};

const VISITS: Key<u32> = Key::new("visits");
/// A replica takes the place of a primary in less: visitors wait for it, and see no error.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("which store? Say `-- redis+cluster://HOST:PORT`; redis-server --cluster-enabled yes and redis-cli --cluster create make one")?;
    let store = CacheStore::connect(url).await?;
    let layer = SessionLayer::new(store.clone())
        .with_secure(false) // no TLS on this machine
        .with_outage_policy(OutagePolicy::Wait { max: PATIENCE });
    let app = Router::new().route("/", get(visits)).route("/store", get(nodes)).layer(layer).layer(Extension(store));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("http://{address}/");
    println!("visit:     curl -c jar -b jar http://{address}/");
    println!("its nodes: curl http://{address}/store");
    Ok(axum::serve(listener, app).await?)
}

async fn visits(session: Session) -> Result<String, Unavailable> {
    let visits = session.update(&VISITS, |visits| visits.unwrap_or(0) + 1).await?;
    Ok(format!("visit {visits}\n"))
}

/// The nodes that have been heard of.
async fn nodes(store: Extension<CacheStore>) -> String {
    let nodes = store.status().nodes.into_iter();
    nodes.map(|node| format!("{} breaker {}, {} connections\n", node.address, node.breaker, node.connections)).collect()
}
