//! A WebSocket that shares the session with the pages: a message here is on the next page, and a logout there ends it here.
//!
//!     cargo run -p session-store --example websocket
//!     open http://127.0.0.1:3000/, in two windows
//!
//! Keeps its sessions in a node of its own, or in the store whose URL is given: `-- redis://127.0.0.1:6379`.
use axum::{
    Router,
    extract::{WebSocketUpgrade, ws::Message},
    response::{Html, Response},
    routing::{any, get, post},
};
use cache_node::{Config, Node};
use session_store::{CacheStore, Key, Session, SessionExt as _, SessionLayer, Unavailable};

const MESSAGES: Key<Vec<String>> = Key::new("messages");
/// Of more, the oldest are forgotten: a session is no log.
const MESSAGES_MAX: usize = 20;

const PAGE: &str = r#"<!doctype html><title>WebSocket</title>
<form id=say><input id=text autofocus> <button>say</button></form>
<form method=post action=/logout><button>log out</button></form>
<pre id=log>MESSAGES</pre>
<script>
const socket = new WebSocket(`ws://${location.host}/ws`), log = document.getElementById("log");
socket.onmessage = event => { log.textContent = event.data };
document.getElementById("say").onsubmit = event => {
  event.preventDefault();
  const text = document.getElementById("text");
  socket.send(text.value);
  text.value = "";
};
</script>"#;

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
    let app = Router::new().route("/", get(page)).route("/ws", any(socket)).route("/logout", post(log_out)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/", listener.local_addr()?);
    println!("open it in two windows of one browser: a message in one is on the other's next page");
    Ok(axum::serve(listener, app).await?)
}

/// Gives the visitor a session: on the WebSocket it would be too late for a cookie.
async fn page(session: Session) -> Result<Html<String>, Unavailable> {
    let messages = session.update(&MESSAGES, Option::unwrap_or_default).await?;
    let escaped = messages.join("\n").replace('&', "&amp;").replace('<', "&lt;");
    Ok(Html(PAGE.replace("MESSAGES", &escaped)))
}

async fn socket(session: Session, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(Message::Text(text))) = socket.recv().await {
            // What another window has said meanwhile is kept.
            let said = |messages: Option<Vec<String>>| {
                let mut messages = messages.unwrap_or_default();
                messages.push(text.to_string());
                messages.drain(..messages.len().saturating_sub(MESSAGES_MAX));
                messages
            };
            let answer = match session.update(&MESSAGES, said).await {
                Ok(messages) => messages.join("\n"),
                // The session ended in another window, or the store is out of reach.
                Err(error) => error.to_string(),
            };
            if socket.send(Message::text(answer)).await.is_err() {
                break;
            }
        }
    })
}

async fn log_out(session: Session) -> Result<&'static str, Unavailable> {
    session.flush().await?;
    Ok("Logged out.")
}
