//! Whether this replica is alive, and whether it can serve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::shop::app::App;

/// How long a dependency may take to answer a probe.
const CHECK_DEADLINE: Duration = Duration::from_secs(1);

/// The process answers: that is all it says.
pub(crate) async fn healthz(State(app): State<App>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "alive": true, "served_by": app.name, "pid": app.pid }))).into_response()
}

/// The store and the database answer too.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let store = check("store", &app.store_answers, app.store.ping());
    let database = check("database", &app.database_answers, app.database.ping());
    let (store, database) = tokio::join!(store, database);
    let ready = store.is_ok() && database.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let say = |outcome: Result<(), String>| outcome.err().unwrap_or_else(|| "ok".to_owned());
    let body = json!({ "ready": ready, "store": say(store), "database": say(database), "served_by": app.name });
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Asks within the deadline. Only a change is logged: probes come several times a second.
async fn check<E: std::fmt::Display>(
    name: &str,
    answered: &AtomicBool,
    asked: impl Future<Output = Result<(), E>>,
) -> Result<(), String> {
    // Addresses and user names are for the log, not for whoever asks.
    let (outcome, reason) = match tokio::time::timeout(CHECK_DEADLINE, asked).await {
        Ok(Ok(())) => (Ok(()), String::new()),
        Ok(Err(error)) => (Err("unavailable".to_owned()), error.to_string()),
        Err(_) => {
            let late = format!("no answer within {CHECK_DEADLINE:?}");
            (Err(late.clone()), late)
        }
    };
    let before = answered.swap(outcome.is_ok(), Ordering::Relaxed);
    match (before, outcome.is_ok()) {
        (true, false) => tracing::warn!(reason, "the {name} does not answer"),
        (false, true) => tracing::info!("the {name} answers again"),
        _ => {}
    }
    outcome
}
