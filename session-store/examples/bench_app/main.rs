//! An application with fixed routes under different session middlewares, and the comparison of them.
//!
//! | route | what it does |
//! |---|---|
//! | `GET /plain` | asks for nothing |
//! | `GET /seed` | puts about 300 bytes into the session, and sets its cookie |
//! | `GET /read` | reads one key of the session |
//! | `GET /write` | adds one to a counter in the session, and answers with it |
//! | `GET /cart/add?sku=N` | adds one of an item to the cart, and answers with the line's quantity |
//! | `GET /cart` | the lines of the cart as JSON |
//!
//! All of them are GET so that any load generator can send them. An application should not change anything in one.

mod by_hand;
mod compare;
mod content;
mod mode;
mod ours;
mod plain;
#[cfg(test)]
mod routes_test;
mod theirs;

use std::{convert::Infallible, future::ready, net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    serve::{IncomingStream, Listener, ListenerExt as _},
};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tower::{Layer, Service, service_fn};

use crate::mode::{App, Mode};

/// Of every mode alike. While the store is asked, what a request has allocated lies there with that of all others under way, for which the C
/// library's lists of seven blocks of a size are too short.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "Examples:
  cargo run --release -p session-store --example bench_app -- --mode ours
  cargo run --release -p session-store --example bench_app -- --listen 127.0.0.1:7301 --store redis://127.0.0.1:6379 --mode plain
  cargo run --release -p session-store --example bench_app -- compare --quick

  curl -c jar -b jar http://127.0.0.1:7301/seed
  curl -c jar -b jar http://127.0.0.1:7301/write
  curl -c jar -b jar 'http://127.0.0.1:7301/cart/add?sku=7'
  curl -c jar -b jar http://127.0.0.1:7301/cart";

#[derive(Debug, Parser)]
#[command(name = "bench_app", about = "Serves fixed routes under a session middleware", after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7301")]
    listen: SocketAddr,
    /// URL of the store
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    store: String,
    /// Session middleware
    #[arg(long, value_enum, default_value_t = Mode::Ours)]
    mode: Mode,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures all modes in turns, and prints what they cost
    Compare(compare::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Compare(compare)) => compare::run(compare),
        None => serve(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(options: &Options) -> Result<()> {
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    serve_on(listener, options.mode, &options.store).await
}

async fn serve_on(listener: TcpListener, mode: Mode, store: &str) -> Result<()> {
    let app = mode::app(mode, store).await.with_context(|| format!("mode {mode}, store {store}"))?;
    println!("{mode} on http://{}", listener.local_addr()?);
    // Without it, answers of a keep-alive connection wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            eprintln!("bench_app: a connection keeps Nagle's algorithm: {error}");
        }
    });
    match app {
        App::Inside(router) => axum::serve(listener, router).await?,
        App::Around(layer, router) => axum::serve(listener, each_connection(layer, router)).await?,
        App::AroundTheirs(layer, router) => axum::serve(listener, each_connection(layer, router)).await?,
    }
    Ok(())
}

/// A service for each connection: what axum makes of a router, and the layer around it.
fn each_connection<L, T>(
    layer: L,
    router: Router,
) -> impl for<'a> Service<IncomingStream<'a, T>, Response = L::Service, Error = Infallible, Future: Send> + Send + 'static
where
    L: Layer<Router> + Send + 'static,
    L::Service: Send,
    T: Listener,
{
    service_fn(move |_: IncomingStream<'_, T>| ready(Ok(layer.layer(router.clone().with_state(())))))
}
