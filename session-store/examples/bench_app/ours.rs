//! The handlers on `SessionLayer`.

use axum::{Json, Router, extract::Query, routing::get};
use session_store::{Cart, Key, Session, SessionExt as _, Unavailable};

use crate::content::{Line, READ_KEY, Sku, WRITE_KEY, seed};

const NAME: Key<String> = Key::new(READ_KEY);
const COUNT: Key<u64> = Key::new(WRITE_KEY);

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/plain", get(async || "plain"))
        .route("/seed", get(seeded))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/cart/add", get(add))
        .route("/cart", get(lines))
}

async fn seeded(session: Session) -> Result<&'static str, Unavailable> {
    for (key, value) in seed() {
        session.insert_value(key, value).await?;
    }
    Ok("seeded")
}

async fn read(session: Session) -> Result<String, Unavailable> {
    Ok(session.read(&NAME).await?.unwrap_or_default())
}

async fn write(session: Session) -> Result<String, Unavailable> {
    // Right also when others count at the same time.
    let count = session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?;
    Ok(count.to_string())
}

async fn add(cart: Cart, Query(line): Query<Sku>) -> Result<String, Unavailable> {
    Ok(cart.add(&line.sku, 1).await?.quantity.to_string())
}

async fn lines(cart: Cart) -> Result<Json<Vec<Line>>, Unavailable> {
    let lines = cart.lines().await?;
    Ok(Json(lines.into_iter().map(|line| Line { sku: line.sku, quantity: line.quantity }).collect()))
}
