//! `demo-shop serve`: one stateless replica of the shop.
//!
//! ```text
//! headers ─► commit's answer gets the shop's face ─► SessionLayer ─► same origin ─► failures become pages ─► handler
//! ```

mod api;
mod app;
mod args;
mod assets;
mod catalogue;
mod database;
mod encryption;
mod failure;
mod filters;
mod headers;
mod html;
mod ids;
mod metrics;
mod pages;
mod passwords;
mod pictures;
mod probes;
mod routes;
mod shell;
mod test_hooks;
mod uncommitted;
mod visitor;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use session_store::{CacheStore, OutagePolicy, SessionLayer};
use tokio::net::TcpListener;
use tower_sessions::Expiry;
use tracing::{info, warn};

use crate::process;
use crate::shop::app::App;
pub(crate) use crate::shop::args::ServeArgs;
use crate::shop::database::Database;
pub(crate) use crate::shop::encryption::EncryptionArgs;

/// A visitor who does nothing for this long is forgotten. A guest's cart is lost with the session, so it is long.
const IDLE_TIMEOUT: time::Duration = time::Duration::days(14);
/// How long requests that are under way may take once the replica has been asked to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// Without a secret of its own a shop still starts; its store's keys are then as secret as this line.
const DEVELOPMENT_SESSION_KEY: &str = "demo-shop development key: never in production";
const SESSION_KEY_LENGTH_MIN: usize = 16;
/// A replica's name goes into a header and into pages.
const NAME_LENGTH_MAX: usize = 32;

/// Runs one replica until it is asked to end.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let shutdown = process::shutdown_signal()?;
    if args.with_parent {
        process::exit_with_parent();
    }
    check_name(&args.name)?;
    let database = Database::open(&args.database).await?;
    let metrics = metrics::install()?;
    let store = open_store(&args)?;
    if let Err(error) = store.ping().await {
        warn!(%error, "the store does not answer: pages are shown without sessions and carts until it does");
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: is another process there? Port 0 takes a free one", args.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;

    let app = App::new(args.name.clone(), store.clone(), database.clone(), metrics);
    let proxies = args.trusted_proxies;
    let sessions = SessionLayer::new(store)
        .with_secure(args.secure_cookies)
        .with_expiry(Expiry::OnInactivity(IDLE_TIMEOUT))
        .with_client_address(move |headers, extensions| headers::client_address(headers, extensions, proxies))
        // Every page knows what it can say without the store; `failure` gives the rest a face.
        .with_outage_policy(OutagePolicy::WithoutSession);
    let routes = routes::all(app, sessions, args.test_hooks);

    say_ready(&args.name, address)?;
    serve_until(listener, routes, shutdown).await?;
    database.close().await;
    info!("ended");
    Ok(())
}

async fn serve_until(
    listener: TcpListener,
    routes: axum::Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (asked, mut was_asked) = tokio::sync::watch::channel(false);
    let server =
        axum::serve(listener, routes.into_make_service_with_connect_info::<SocketAddr>()).with_graceful_shutdown(async move {
            shutdown.await;
            info!("ending: no new connections, requests under way are finished");
            asked.send_replace(true);
        });
    let overdue = async move {
        // The sender lives as long as the server; its end without a signal is the server's own end.
        if was_asked.wait_for(|asked| *asked).await.is_ok() {
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = server => ended.context("the server failed"),
        () = overdue => {
            warn!("requests were still under way after {DRAIN_TIMEOUT:?}");
            Ok(())
        }
    }
}

fn open_store(args: &ServeArgs) -> anyhow::Result<CacheStore> {
    let key = match &args.session_key {
        Some(key) if key.len() < SESSION_KEY_LENGTH_MIN => {
            bail!(
                "the session key has {} characters; it needs at least {SESSION_KEY_LENGTH_MIN} (openssl rand -hex 32)",
                key.len()
            )
        }
        Some(key) => key.as_bytes(),
        None => {
            warn!("no DEMO_SHOP_SESSION_KEY: using the development key, which everyone knows");
            DEVELOPMENT_SESSION_KEY.as_bytes()
        }
    };
    // Lazily: a replica starts without its store, says so on /readyz, and serves once the store is there.
    let mut builder = CacheStore::builder(&args.cache).prefix("shop").key(key);
    if let Some(keys) = args.encryption.keys()? {
        builder = builder.encryption(keys);
    }
    builder.connect_lazy().context("--cache")
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = (1..=NAME_LENGTH_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !fits {
        bail!("--name {name:?}: give 1 to {NAME_LENGTH_MAX} letters, digits, '-', '_' or '.'");
    }
    Ok(())
}

/// The one line that supervisors and scripts wait for.
fn say_ready(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "replica {name} ready on {address} (pid {})", std::process::id())
        .and_then(|()| stdout.flush())
        .context("cannot write the ready line")
}
