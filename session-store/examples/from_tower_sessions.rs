//! Moves an application from tower-sessions-redis-store to this layer, without a visitor losing the session.
//!
//!     cargo run -p session-store --example from_tower_sessions
//!
//! Runs both on a node of its own, one after the other, and shows what one visitor sees.
use axum::{Router, body::Body, http::Request, routing::get};
use cache_node::{Config, Node};
use http_body_util::BodyExt as _;
use session_store::{CacheStore, Session, SessionLayer, Unavailable};
use tower::ServiceExt as _;
use tower_sessions_014::{Session as TheirSession, SessionManagerLayer};
use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{ClientLike as _, Config as FredConfig, Pool},
};

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let node = Node::spawn(Config::for_test()).await?;
    let url = format!("redis://{}", node.addr());

    // Until yesterday.
    let pool = Pool::new(FredConfig::from_url(&url)?, None, None, None, 1)?;
    pool.init().await?;
    let before = Router::new().route("/", get(their_visits)).layer(SessionManagerLayer::new(RedisStore::new(pool)));
    let (body, cookie) = visit(&before, "").await?;
    println!("tower-sessions: {body}, cookie {}", name(&cookie));
    let (body, _) = visit(&before, &cookie).await?;
    println!("tower-sessions: {body}");

    // From today on. The second argument is the name of the old cookie; the line can go when the old sessions have expired.
    let layer = SessionLayer::new(CacheStore::connect(url).await?).with_tower_sessions_records("", "id");
    let after = Router::new().route("/", get(visits)).layer(layer);
    let (body, cookie) = visit(&after, &cookie).await?;
    println!("session-store:  {body}, cookie {}", name(&cookie));
    let (body, _) = visit(&after, &cookie).await?;
    println!("session-store:  {body}");
    Ok(())
}

async fn their_visits(session: TheirSession) -> Result<String, String> {
    let visits = session.get::<u32>("visits").await.map_err(|error| error.to_string())?.unwrap_or(0) + 1;
    session.insert("visits", visits).await.map_err(|error| error.to_string())?;
    Ok(format!("visit {visits}"))
}

async fn visits(session: Session) -> Result<String, Unavailable> {
    let visits = session.get::<u32>("visits").await?.unwrap_or(0) + 1;
    session.insert("visits", visits).await?;
    Ok(format!("visit {visits}"))
}

/// One request of the visitor, with the cookie that there was, and the answer with the cookie that there is.
async fn visit(app: &Router, cookie: &str) -> Result<(String, String), Error> {
    let request = Request::get("/").header("cookie", cookie).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let set = match response.headers().get("set-cookie") {
        Some(set) => set.to_str()?.split(';').next().unwrap_or_default().to_owned(),
        None => cookie.to_owned(),
    };
    let body = response.into_body().collect().await?.to_bytes();
    Ok((String::from_utf8(body.to_vec())?, set))
}

fn name(cookie: &str) -> &str {
    cookie.split('=').next().unwrap_or_default()
}
