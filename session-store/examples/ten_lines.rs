//! The layer on a router: visits are counted, whichever replica answers.
use axum::{Router, routing::get};
use session_store::{CacheStore, Session, SessionLayer, Unavailable};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = CacheStore::connect("redis://127.0.0.1:6379").await?;
    let layer = SessionLayer::new(store).with_secure(false); // no TLS on this machine
    let app = Router::new().route("/", get(visits)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app).await?)
}

async fn visits(session: Session) -> Result<String, Unavailable> {
    let visits = session.get::<u32>("visits").await?.unwrap_or(0) + 1;
    session.insert("visits", visits).await?;
    Ok(format!("visit {visits}\n"))
}
