//! No middleware at all: each handler asks the store itself, over one multiplexed connection. Two requests at once lose a change, an id is what
//! the client says, and nothing is retried, bounded or extended: what any middleware does comes on top of this.

use std::fmt::Display;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use serde_json::{Map, Value};

use crate::content::{Line, READ_KEY, Sku, WRITE_KEY, seed};

const COOKIE: &str = "id=";
const KEPT_S: i64 = 1_209_600;

type Answer<T> = Result<T, (StatusCode, String)>;

pub(crate) async fn routes(store: &str) -> anyhow::Result<Router> {
    let connection = redis::Client::open(store)?.get_multiplexed_async_connection().await?;
    let routes = Router::new()
        .route("/plain", get(async || "plain"))
        .route("/seed", get(seeded))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/cart/add", get(add))
        .route("/cart", get(lines))
        .with_state(connection);
    Ok(routes)
}

async fn seeded(State(mut store): State<MultiplexedConnection>) -> Answer<impl IntoResponse> {
    let id = format!("{:032x}", rand::random::<u128>());
    let record: Map<String, Value> = seed().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    save(&mut store, &id, &record).await?;
    Ok(([(header::SET_COOKIE, format!("{COOKIE}{id}; Path=/; HttpOnly"))], "seeded"))
}

async fn read(State(mut store): State<MultiplexedConnection>, headers: HeaderMap) -> Answer<String> {
    let record = load(&mut store, id(&headers)?).await?;
    Ok(record.get(READ_KEY).and_then(Value::as_str).unwrap_or_default().to_owned())
}

async fn write(State(mut store): State<MultiplexedConnection>, headers: HeaderMap) -> Answer<String> {
    let id = id(&headers)?;
    let mut record = load(&mut store, id).await?;
    let count = record.get(WRITE_KEY).and_then(Value::as_u64).unwrap_or(0) + 1;
    record.insert(WRITE_KEY.to_owned(), count.into());
    save(&mut store, id, &record).await?;
    Ok(count.to_string())
}

async fn add(State(mut store): State<MultiplexedConnection>, headers: HeaderMap, Query(line): Query<Sku>) -> Answer<String> {
    let cart = format!("cart:{}", id(&headers)?);
    let (quantity,): (u64,) = redis::pipe()
        .hincr(&cart, line.sku, 1)
        .expire(&cart, KEPT_S)
        .ignore()
        .query_async(&mut store)
        .await
        .map_err(unavailable)?;
    Ok(quantity.to_string())
}

async fn lines(State(mut store): State<MultiplexedConnection>, headers: HeaderMap) -> Answer<Json<Vec<Line>>> {
    let lines: Vec<(String, u32)> = store.hgetall(format!("cart:{}", id(&headers)?)).await.map_err(unavailable)?;
    Ok(Json(lines.into_iter().map(|(sku, quantity)| Line { sku, quantity }).collect()))
}

async fn load(store: &mut MultiplexedConnection, id: &str) -> Answer<Map<String, Value>> {
    let record: Option<Vec<u8>> = store.get(format!("session:{id}")).await.map_err(unavailable)?;
    record.map_or_else(|| Ok(Map::new()), |record| serde_json::from_slice(&record).map_err(unavailable))
}

async fn save(store: &mut MultiplexedConnection, id: &str, record: &Map<String, Value>) -> Answer<()> {
    let record = serde_json::to_vec(record).map_err(unavailable)?;
    let kept = u64::try_from(KEPT_S).map_err(unavailable)?;
    store.set_ex(format!("session:{id}"), record, kept).await.map_err(unavailable)
}

fn id(headers: &HeaderMap) -> Answer<&str> {
    let cookies = headers.get(header::COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let id = cookies.split("; ").find_map(|cookie| cookie.strip_prefix(COOKIE));
    id.ok_or_else(|| (StatusCode::UNAUTHORIZED, "no cookie: ask /seed for one\n".to_owned()))
}

#[allow(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn unavailable(error: impl Display) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}
