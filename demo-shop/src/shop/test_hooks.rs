//! Routes that only tests ask for (`--test-hooks`).

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use serde::Deserialize;
use serde_json::{Value, json};
use session_store::Session;

use crate::shop::failure::Failure;

const SLEEP_MS_MAX: u64 = 5_000;

#[derive(Debug, Deserialize)]
pub(crate) struct SlowWrite {
    #[serde(default)]
    ms: u64,
}

/// Loads the session, takes its time, writes to the session: what a logout may overtake.
pub(crate) async fn slow_write(session: Session, Query(asked): Query<SlowWrite>) -> Result<Json<Value>, Failure> {
    let before: Option<u64> = session.get("slow_writes").await?;
    tokio::time::sleep(Duration::from_millis(asked.ms.min(SLEEP_MS_MAX))).await;
    let now = before.unwrap_or(0) + 1;
    session.insert("slow_writes", now).await?;
    Ok(Json(json!({ "slow_writes": now })))
}
