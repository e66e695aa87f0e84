//! A cluster of cache nodes in place of one: its controller is a child of the supervisor, and tells of its nodes over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::balancer::{NodeBoard, NodeStatus, State};
use crate::fleet::limits::{CLUSTER_ANSWER_BYTES_MAX, CLUSTER_ANSWER_TIMEOUT, CLUSTER_LOOK_PERIOD, CLUSTER_REPLICAS};

/// The command line of the controller. The endpoints keep the ports that they had, so that the replicas find them again.
pub(crate) fn arguments(folder: &str, listen: SocketAddr) -> Vec<String> {
    let (port, replicas) = (listen.port().to_string(), CLUSTER_REPLICAS.to_string());
    let words = ["node", "cluster", "start", "--with-parent", "--dir", folder, "--replicas", &replicas, "--durability", "sync"];
    let ports = ["--port", &port, "--reader-port", "0", "--sentinel-port", "0", "--http-port", "0", "--node-argument", "node"];
    words.into_iter().chain(ports).map(str::to_owned).collect()
}

/// Keeps the board of nodes as the controller sees them. Its task ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Looker(watch::Sender<Option<SocketAddr>>);

impl Looker {
    pub(crate) fn start(board: Arc<NodeBoard>) -> Self {
        let (sender, address) = watch::channel(None);
        tokio::spawn(look(address, board));
        Self(sender)
    }

    /// From now on at the controller that said this when it was ready.
    pub(crate) fn look_at(&self, ready_line: &str) {
        let address = http_address(ready_line);
        if address.is_none() {
            tracing::warn!("the controller of the cache nodes does not say where it tells of them: {}", ready_line.trim_end());
        }
        self.0.send_replace(address);
    }
}

/// The address in `… http 127.0.0.1:9379, …`.
fn http_address(ready_line: &str) -> Option<SocketAddr> {
    let (_, rest) = ready_line.split_once(" http ")?;
    rest.split([',', ' ', ')']).next()?.parse().ok()
}

async fn look(mut address: watch::Receiver<Option<SocketAddr>>, board: Arc<NodeBoard>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let known = *address.borrow_and_update();
        if let Some(known) = known {
            // While the controller is away, what it last said stands: its nodes go on.
            match timeout(CLUSTER_ANSWER_TIMEOUT, ask(&client, known)).await {
                Ok(Ok(nodes)) => board.replace(nodes),
                Ok(Err(error)) => tracing::debug!("no word of the cache nodes: {error:#}"),
                Err(_) => tracing::debug!("no word of the cache nodes within {CLUSTER_ANSWER_TIMEOUT:?}"),
            }
        }
        tokio::select! {
            changed = address.changed() => if changed.is_err() { return },
            () = sleep(CLUSTER_LOOK_PERIOD) => {}
        }
    }
}

/// What is read of `/v1/nodes`.
#[derive(Debug, Deserialize)]
struct Answer {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    role: String,
    state: String,
    address: String,
    pid: Option<u32>,
}

async fn ask(client: &Client<HttpConnector, Body>, address: SocketAddr) -> anyhow::Result<Vec<NodeStatus>> {
    let request = Request::get(format!("http://{address}/v1/nodes")).body(Body::empty())?;
    let body = client.request(request).await?.into_body();
    let bytes = Limited::new(body, CLUSTER_ANSWER_BYTES_MAX).collect().await.map_err(|error| anyhow::anyhow!(error))?;
    let answer: Answer = serde_json::from_slice(&bytes.to_bytes())?;
    Ok(answer.nodes.into_iter().map(Node::status).collect())
}

impl Node {
    fn status(self) -> NodeStatus {
        let state = match self.state.as_str() {
            "serving" => State::Up,
            "starting" | "syncing" => State::Starting,
            "silent" => State::Silent,
            _ => State::Down,
        };
        NodeStatus { name: self.name, role: self.role, pid: self.pid, address: self.address, state }
    }
}

#[cfg(test)]
mod tests {
    use crate::fleet::cluster::http_address;

    #[test]
    fn where_a_controller_tells_of_its_nodes() {
        let line =
            "cache-node cluster ready on 127.0.0.1:1 (reader 127.0.0.1:2, sentinel 127.0.0.1:3, http 127.0.0.1:4, pid 5, dir /d)";
        assert_eq!(http_address(line), "127.0.0.1:4".parse().ok());
        assert_eq!(http_address("cache-node ready on 127.0.0.1:1 (pid 5)"), None);
    }
}
