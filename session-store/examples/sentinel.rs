//! Sessions behind Sentinels: the layer follows their primary through a failover.
//!
//!     cargo run --release -p cache-node -- cluster --dir /tmp/carts
//!     cargo run -p session-store --example sentinel -- redis+sentinel://127.0.0.1:26379/mymaster
//!     curl -c jar -b jar http://ADDRESS/
//!     curl http://ADDRESS/store
//!     cargo run --release -p cache-node -- cluster failover --dir /tmp/carts
//!     curl -c jar -b jar http://ADDRESS/
//!
//! `/visits` tells their number without counting. With `?read_from=replicas` behind the name it may be read from a replica, and still is never
//! less than what the visitor was told. So it is with one node whose replicas have an address: `redis://127.0.0.1:6379?reader=127.0.0.1:6380`.
//!
//! Three Sentinels of Redis are named in the same way: `redis+sentinel://host1:26379,host2:26379,host3:26379/NAME`. `cache-node cluster`
//! answers what clients ask Sentinels.
use std::time::Duration;

use axum::{Extension, Router, routing::get};
use session_store::{CacheStore, Key, OutagePolicy, Session, SessionExt as _, SessionLayer, Unavailable};

const VISITS: Key<u32> = Key::new("visits");
/// A failover takes less: visitors wait for it, and see no error.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("which store? Say `-- redis+sentinel://127.0.0.1:26379/mymaster`; `cache-node cluster --dir FOLDER` makes one and prints its URL")?;
    let store = CacheStore::connect(url).await?;
    let layer = SessionLayer::new(store.clone())
        .with_secure(false) // no TLS on this machine
        .with_outage_policy(OutagePolicy::Wait { max: PATIENCE });
    let app = Router::new().route("/", get(visits)).route("/visits", get(number)).route("/store", get(nodes));
    let app = app.layer(layer).layer(Extension(store));
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

async fn number(session: Session) -> Result<String, Unavailable> {
    Ok(format!("{} visits\n", session.read(&VISITS).await?.unwrap_or(0)))
}

/// Where requests go at the moment.
async fn nodes(store: Extension<CacheStore>) -> String {
    let nodes = store.status().nodes.into_iter();
    nodes.map(|node| format!("{} breaker {}, {} connections\n", node.address, node.breaker, node.connections)).collect()
}
