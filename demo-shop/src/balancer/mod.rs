//! `demo-shop balance`: round robin over the replicas that answer.
//!
//! A small reverse proxy that makes the death of a replica invisible: a connection that is refused, or a request that
//! was certainly never sent, goes to the next replica whatever its method; a safe request goes there after any failure;
//! an unsafe one that may have been carried out is answered 502, and the client repeats it under its idempotency key.
//! Nothing is sticky. Not here on purpose: TLS, HTTP/2 and protocol upgrades, which belong to the proxy in front.

mod answers;
mod body;
mod client_stream;
mod forward;
mod headers;
mod limits;
mod probe;
mod replicas;
mod server;
mod status;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use tokio::net::TcpListener;

pub(crate) use replicas::{Replica, ReplicaSet};
pub(crate) use server::listen;
pub(crate) use status::{FleetStatus, NodeBoard, NodeStatus, State};

use crate::balancer::forward::{Forwarder, forward};

/// What `demo-shop balance` takes.
#[derive(Debug, Args)]
pub(crate) struct BalanceArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS", value_parser = crate::address::parse)]
    listen: SocketAddr,
    /// A replica as NAME=ADDRESS; once for each of them
    #[arg(long = "replica", required = true, value_name = "NAME=ADDRESS", value_parser = parse_replica)]
    replicas: Vec<(String, SocketAddr)>,
}

/// Runs the balancer alone, until SIGTERM or SIGINT.
pub(crate) async fn run(args: BalanceArgs) -> anyhow::Result<()> {
    let shutdown = crate::process::shutdown_signal()?;
    ensure_names_differ(&args.replicas)?;
    let listener = listen(args.listen).await?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let replicas = args.replicas.iter().map(|(name, address)| Arc::new(Replica::at(name, *address))).collect::<Vec<_>>();
    println!("balancer ready on {address} (pid {})", std::process::id());
    serve(listener, Arc::new(ReplicaSet::new(replicas)), Arc::default(), shutdown).await;
    Ok(())
}

/// Balances over `replicas` on `listener` until `shutdown` resolves, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    replicas: Arc<ReplicaSet>,
    nodes: Arc<NodeBoard>,
    shutdown: impl Future<Output = ()>,
) {
    let probes = probe::start(&replicas);
    let forwarder = Forwarder::new(Arc::clone(&replicas));
    let fleet = move || async move {
        let status = FleetStatus::of(&replicas, &nodes);
        ([("cache-control", "no-store"), ("x-served-by", "balancer")], Json(status))
    };
    let router = Router::new().route("/fleet.json", get(fleet)).fallback(forward).with_state(forwarder);
    server::serve(listener, router, shutdown).await;
    drop(probes);
}

fn ensure_names_differ(replicas: &[(String, SocketAddr)]) -> anyhow::Result<()> {
    let mut names = HashSet::new();
    match replicas.iter().find(|(name, _)| !names.insert(name)) {
        Some((name, _)) => anyhow::bail!("two replicas are called {name}: give each a name of its own"),
        None => Ok(()),
    }
}

fn parse_replica(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write it as A=127.0.0.1:8081"))?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(format!("`{name}` is no name of a replica; letters, digits, - and _ are"));
    }
    Ok((name.to_owned(), crate::address::parse(address)?))
}

#[cfg(test)]
mod tests {
    use crate::balancer::{ensure_names_differ, parse_replica};

    #[test]
    fn replicas_on_the_command_line() {
        assert_eq!(
            parse_replica("A=127.0.0.1:81"),
            Ok(("A".to_owned(), "127.0.0.1:81".parse().expect("an address of the test")))
        );
        assert!(parse_replica("127.0.0.1:81").is_err_and(|error| error.contains("no `=`")));
        assert!(parse_replica("=127.0.0.1:81").is_err());
        let [a, b] = ["A=127.0.0.1:81", "B=127.0.0.1:81"].map(|text| parse_replica(text).expect("a replica"));
        assert!(ensure_names_differ(&[a.clone(), b.clone()]).is_ok());
        assert!(ensure_names_differ(&[a.clone(), b, a]).is_err_and(|error| error.to_string().contains("called A")));
        assert!(parse_replica("A=somewhere").is_err_and(|error| error.contains("somewhere")));
    }
}
