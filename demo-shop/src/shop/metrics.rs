//! `GET /metrics`: what the replica counts, as Prometheus reads it.

use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

use crate::shop::app::App;
use crate::shop::failure::Failure;

/// Upper bounds of the histograms, in seconds: from a store beside the replica to one that hangs until the deadline.
const BUCKETS_SECONDS: [f64; 11] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0];
/// Measured values wait in memory to be sorted into the buckets; when nobody asks for them, this is how long.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Installs the process's recorder; to be called before anything is counted.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&BUCKETS_SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot set up the metrics")?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// For those who ask the replica itself: what comes through a proxy comes from anywhere, and would be answered by another
/// replica each time.
pub(crate) async fn show(State(app): State<App>, headers: HeaderMap) -> Response {
    if headers.contains_key("x-forwarded-for") {
        return Failure::NotFound.into_response();
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")], app.metrics.render()).into_response()
}
