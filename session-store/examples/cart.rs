//! A cart without a database: lines are added and changed, and what a visitor has put in comes along at the login.
//!
//!     cargo run -p session-store --example cart
//!     curl -c jar -b jar http://ADDRESS/add -d sku=TEA-001 -d quantity=2
//!     curl -c jar -b jar http://ADDRESS/set -d sku=TEA-001 -d quantity=3
//!     curl -c jar -b jar http://ADDRESS/login -d user=ada
//!     curl -c jar -b jar http://ADDRESS/
//!
//! Keeps carts in a node of its own, or in the store whose URL is given: `-- redis://127.0.0.1:6379`.
use axum::{
    Form, Router,
    routing::{get, post},
};
use cache_node::{Config, Node};
use serde::Deserialize;
use session_store::{CacheStore, Cart, IdempotencyToken, Session, SessionLayer, Unavailable};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A node in this process, unless there is a store. It ends with the process.
    let (url, _node) = match std::env::args().nth(1) {
        Some(url) => (url, None),
        None => {
            let node = Node::spawn(Config::for_test()).await?;
            (format!("redis://{}", node.addr()), Some(node))
        }
    };
    let layer = SessionLayer::new(CacheStore::connect(url).await?).with_secure(false); // no TLS on this machine
    let app = Router::new()
        .route("/", get(show))
        .route("/add", post(add))
        .route("/set", post(set))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("http://{address}/");
    println!("add:    curl -c jar -b jar http://{address}/add -d sku=TEA-001 -d quantity=2");
    println!("log in: curl -c jar -b jar http://{address}/login -d user=ada");
    println!("look:   curl -c jar -b jar http://{address}/");
    Ok(axum::serve(listener, app).await?)
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: u32,
    /// From a hidden field: a form that is sent twice counts once.
    token: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

async fn show(cart: Cart) -> Result<String, Unavailable> {
    let cart = cart.snapshot().await?;
    Ok(cart.lines.iter().map(|line| format!("{} x {}\n", line.quantity, line.sku)).collect())
}

async fn add(cart: Cart, Form(line): Form<Line>) -> Result<String, Unavailable> {
    let cart = match line.token.map(|token| IdempotencyToken::parse(&token)) {
        Some(Ok(token)) => cart.with_token(token),
        Some(Err(_)) | None => cart,
    };
    Ok(format!("{} in the cart\n", cart.add(&line.sku, line.quantity).await?.quantity))
}

async fn set(cart: Cart, Form(line): Form<Line>) -> Result<String, Unavailable> {
    Ok(format!("{} in the cart\n", cart.set_quantity(&line.sku, line.quantity).await?.quantity))
}

/// The password is somebody else's business; `examples/login.rs` shows it.
async fn log_in(session: Session, cart: Cart, Form(Login { user }): Form<Login>) -> Result<String, Unavailable> {
    // A new id, the user's name, and one cart out of two: a single step of the store.
    session.cycle_id().await?;
    session.insert("user", &user).await?;
    cart.log_in(&user).await?;
    Ok(format!("Welcome, {user}.\n"))
}

/// The cart waits for the user's next login.
async fn log_out(session: Session) -> Result<&'static str, Unavailable> {
    session.flush().await?;
    Ok("Goodbye.\n")
}
