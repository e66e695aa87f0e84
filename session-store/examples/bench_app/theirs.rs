//! The handlers on tower-sessions 0.14 with its own layer, the way its documentation writes them.

use axum::{Json, Router, extract::Query, http::StatusCode, routing::get};
use tower_sessions_014::{Session, session::Error};

use crate::content::{Line, READ_KEY, Sku, WRITE_KEY, seed};

/// There are no carts: the lines are a value of the session.
const CART_KEY: &str = "cart";

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/plain", get(async || "plain"))
        .route("/seed", get(seeded))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/cart/add", get(add))
        .route("/cart", get(lines))
}

async fn seeded(session: Session) -> Result<&'static str, (StatusCode, String)> {
    for (key, value) in seed() {
        session.insert_value(key, value).await.map_err(unavailable)?;
    }
    Ok("seeded")
}

async fn read(session: Session) -> Result<String, (StatusCode, String)> {
    Ok(session.get::<String>(READ_KEY).await.map_err(unavailable)?.unwrap_or_default())
}

async fn write(session: Session) -> Result<String, (StatusCode, String)> {
    let count = session.get::<u64>(WRITE_KEY).await.map_err(unavailable)?.unwrap_or(0) + 1;
    session.insert(WRITE_KEY, count).await.map_err(unavailable)?;
    Ok(count.to_string())
}

async fn add(session: Session, Query(Sku { sku }): Query<Sku>) -> Result<String, (StatusCode, String)> {
    let mut lines = session.get::<Vec<Line>>(CART_KEY).await.map_err(unavailable)?.unwrap_or_default();
    let quantity = match lines.iter_mut().find(|line| line.sku == sku) {
        Some(line) => {
            line.quantity += 1;
            line.quantity
        }
        None => {
            lines.push(Line { sku, quantity: 1 });
            1
        }
    };
    session.insert(CART_KEY, lines).await.map_err(unavailable)?;
    Ok(quantity.to_string())
}

async fn lines(session: Session) -> Result<Json<Vec<Line>>, (StatusCode, String)> {
    Ok(Json(session.get(CART_KEY).await.map_err(unavailable)?.unwrap_or_default()))
}

#[allow(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn unavailable(error: Error) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}
