//! The application that the tests visit.

use super::hold::pause;
use axum::{
    Extension, Json, Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use session_store::{CacheStore, Cart, CartError, Expiry, IdempotencyToken, Key, MergePolicy, Session, SessionExt as _};

pub fn router() -> Router {
    Router::new()
        .route("/plain", get(async || "plain"))
        .route("/extract", get(async |_: Session, _: Cart| "extracted"))
        .route("/get/{key}", get(read))
        .route("/set/{key}/{value}", post(write))
        .route("/set-and-fail/{key}/{value}", post(write_and_fail))
        .route("/slow-set/{ms}/{key}/{value}", post(slow_write).get(slow_write))
        .route("/slow-get/{ms}/{key}", get(slow_read))
        .route("/remove/{key}", post(remove))
        .route("/many/{count}", get(read_many))
        .route("/many/{set_to}/{value}/{removed_from}/{removed_to}/{id}", post(write_many))
        .route("/remember/{seconds}", post(remember))
        .route("/slow-count-and-remember/{ms}/{seconds}", post(slow_count_and_remember))
        .route("/forget/{seconds}", post(forget))
        .route("/until/{seconds}", post(until))
        .route("/save-twice/{value}", post(save_twice))
        .route("/slow-save-twice/{ms}", post(slow_save_twice))
        .route("/save-slowly/{ms}", post(save_slowly))
        .route("/update-slowly/{ms}", post(update_slowly))
        .route("/cycle", post(cycle))
        .route("/slow-cycle/{ms}", post(slow_cycle))
        .route("/cycle-and-fail", post(cycle_and_fail))
        .route("/login/{user}", post(log_in))
        .route("/login-blindly/{user}", post(log_in_blindly))
        .route("/login/{user}/{policy}", post(log_in_with))
        .route("/login-and-add/{user}/{sku}", post(log_in_and_add))
        .route("/login-here/{user}", post(log_in_without_new_id))
        .route("/log-out-elsewhere/{user}", post(log_out_elsewhere))
        .route("/logout", post(log_out))
        .route("/logout-and-fail", post(log_out_and_fail))
        .route("/relogin/{user}", post(relogin))
        .route("/read-and-relogin/{user}", post(read_and_relogin))
        .route("/cart", get(cart))
        .route("/page", get(page))
        .route("/cart/add/{sku}/{quantity}", post(add))
        .route("/cart/add/{sku}/{quantity}/{token}", post(add_once))
        .route("/cart/set/{sku}/{quantity}", post(set))
        .route("/cart/remove/{sku}", post(remove_line))
        .route("/cart/clear", post(clear))
        .route("/cart/clear-once/{token}", post(clear_once))
        .route("/cart/subtract/{sku}/{quantity}", post(subtract))
        .route("/cart/slow-add/{ms}/{sku}", post(slow_add))
        .route("/cart/add-slowly/{ms}/{sku}", post(add_slowly))
}

pub struct Failure(Response);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.0
    }
}

impl From<tower_sessions::session::Error> for Failure {
    fn from(error: tower_sessions::session::Error) -> Self {
        Self((StatusCode::BAD_GATEWAY, error.to_string()).into_response())
    }
}

impl From<CartError> for Failure {
    fn from(error: CartError) -> Self {
        let status = match &error {
            CartError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            CartError::SessionEnded => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self((status, error.to_string()).into_response())
    }
}

type Text = Result<String, Failure>;

async fn read(session: Session, Path(key): Path<String>) -> Text {
    Ok(session.get::<String>(&key).await?.unwrap_or_else(|| "-".to_owned()))
}

async fn write(session: Session, Path((key, value)): Path<(String, String)>) -> Text {
    session.insert(&key, &value).await?;
    Ok(value)
}

/// How many of the keys 0 to `count` have which value, in order of the keys: "2*a 1*- ".
async fn read_many(session: Session, Path(count): Path<usize>) -> Text {
    let mut text = String::new();
    let mut run = (0, String::new());
    for number in 0..count {
        let value = session.get::<String>(&number.to_string()).await?.unwrap_or_else(|| "-".to_owned());
        if run.0 > 0 && run.1 != value {
            text += &format!("{}*{} ", run.0, run.1);
            run.0 = 0;
        }
        run = (run.0 + 1, value);
    }
    Ok(text + &format!("{}*{}", run.0, run.1))
}

async fn write_many(
    session: Session,
    Path((set_to, value, removed_from, removed_to, id)): Path<(usize, String, usize, usize, String)>,
) -> Text {
    if id == "new" {
        session.cycle_id().await?;
    }
    for number in 0..set_to {
        session.insert(&number.to_string(), &value).await?;
    }
    for number in removed_from..removed_to {
        session.remove::<String>(&number.to_string()).await?;
    }
    Ok(value)
}

async fn write_and_fail(session: Session, Path((key, value)): Path<(String, String)>) -> Result<StatusCode, Failure> {
    session.insert(&key, &value).await?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

async fn slow_write(session: Session, Path((ms, key, value)): Path<(u64, String, String)>) -> Text {
    let before = session.get::<String>(&key).await?.unwrap_or_else(|| "-".to_owned());
    pause(ms).await;
    session.insert(&key, &value).await?;
    Ok(before)
}

async fn slow_read(session: Session, Path((ms, key)): Path<(u64, String)>) -> Text {
    let value = session.get::<String>(&key).await?.unwrap_or_else(|| "-".to_owned());
    pause(ms).await;
    Ok(value)
}

async fn remove(session: Session, Path(key): Path<String>) -> Text {
    Ok(session.remove::<String>(&key).await?.unwrap_or_else(|| "-".to_owned()))
}

async fn remember(session: Session, Path(seconds): Path<i64>) -> Text {
    session.insert("remember", "me").await?;
    session.set_expiry(Some(Expiry::OnInactivity(time::Duration::seconds(seconds))));
    Ok(String::new())
}

/// Chooses after a commit of its own.
async fn slow_count_and_remember(session: Session, Path((ms, seconds)): Path<(u64, i64)>) -> Text {
    session.get::<String>("name").await?;
    pause(ms).await;
    session.update(&Key::<u32>::new("count"), |count| count.unwrap_or(0) + 1).await.unwrap();
    session.set_expiry(Some(Expiry::OnInactivity(time::Duration::seconds(seconds))));
    Ok(String::new())
}

async fn until(session: Session, Path(seconds): Path<i64>) -> Text {
    session.insert("remember", "until").await?;
    let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    session.set_expiry(Some(Expiry::AtDateTime(end)));
    Ok(String::new())
}

/// Sets the time before anything was read.
async fn forget(session: Session, Path(seconds): Path<i64>) -> Text {
    session.set_expiry(Some(Expiry::OnInactivity(time::Duration::seconds(seconds))));
    session.remove_value("remember").await?;
    Ok(String::new())
}

async fn save_twice(session: Session, Path(value): Path<String>) -> Text {
    session.insert("saved", &value).await?;
    session.save().await?;
    Ok(session.id().unwrap().to_string())
}

/// Two commits, after what others have done meanwhile.
async fn slow_save_twice(session: Session, Path(ms): Path<u64>) -> Text {
    session.get::<String>("saved").await?;
    pause(ms).await;
    session.insert("saved", "once").await?;
    session.save().await?;
    session.insert("saved", "twice").await?;
    Ok(String::new())
}

async fn save_slowly(session: Session, Path(ms): Path<u64>) -> Text {
    session.insert("saved", "slowly").await?;
    session.save().await?;
    pause(ms).await;
    Ok(String::new())
}

async fn update_slowly(session: Session, Path(ms): Path<u64>) -> Text {
    session.update(&Key::<u32>::new("count"), |count| count.unwrap_or(0) + 1).await.unwrap();
    pause(ms).await;
    Ok(String::new())
}

async fn cycle(session: Session) -> Text {
    session.cycle_id().await?;
    Ok(String::new())
}

async fn slow_cycle(session: Session, Path(ms): Path<u64>) -> Text {
    session.get::<String>("user").await?;
    pause(ms).await;
    session.cycle_id().await?;
    Ok(String::new())
}

async fn cycle_and_fail(session: Session) -> Result<StatusCode, Failure> {
    session.cycle_id().await?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

async fn log_in(session: Session, cart: Cart, Path(user): Path<String>) -> Text {
    session.cycle_id().await?;
    session.insert("user", &user).await?;
    cart.log_in(&user).await?;
    Ok(show(&cart).await?)
}

/// Without a look at the cart afterwards.
async fn log_in_blindly(session: Session, cart: Cart, Path(user): Path<String>) -> Text {
    session.cycle_id().await?;
    session.insert("user", &user).await?;
    cart.log_in(&user).await?;
    Ok(String::new())
}

async fn log_in_with(session: Session, cart: Cart, Path((user, policy)): Path<(String, String)>) -> Text {
    let policy = match &*policy {
        "sum" => MergePolicy::Sum,
        "max" => MergePolicy::Max,
        "keep" => MergePolicy::Keep,
        _ => panic!("{policy}"),
    };
    session.cycle_id().await?;
    session.insert("user", &user).await?;
    cart.log_in_with(&user, policy).await?;
    Ok(show(&cart).await?)
}

async fn log_in_and_add(session: Session, cart: Cart, Path((user, sku)): Path<(String, String)>) -> Text {
    session.cycle_id().await?;
    session.insert("user", &user).await?;
    cart.log_in(&user).await?;
    cart.add(&sku, 1).await?;
    Ok(show(&cart).await?)
}

/// An application that does not give a new id at login.
async fn log_in_without_new_id(session: Session, cart: Cart, Path(user): Path<String>) -> Text {
    session.insert("user", &user).await?;
    cart.log_in(&user).await?;
    Ok(String::new())
}

async fn log_out_elsewhere(session: Session, Extension(store): Extension<CacheStore>, Path(user): Path<String>) -> Text {
    Ok(store.sessions_of(&user).end_all_but(&session).await.unwrap().to_string())
}

async fn log_out(session: Session) -> Text {
    session.flush().await?;
    Ok(String::new())
}

async fn log_out_and_fail(session: Session) -> Result<StatusCode, Failure> {
    session.flush().await?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Logout and login in one request: the fixation fault of `flush` and a later `insert`.
async fn relogin(session: Session, Path(user): Path<String>) -> Text {
    session.flush().await?;
    session.insert("user", &user).await?;
    Ok(String::new())
}

async fn read_and_relogin(session: Session, user: Path<String>) -> Text {
    session.get::<String>("user").await?;
    relogin(session, user).await
}

async fn show(cart: &Cart) -> Result<String, CartError> {
    let cart = cart.snapshot().await?;
    Ok(cart.lines.iter().map(|line| format!("{}={}", line.sku, line.quantity)).collect::<Vec<_>>().join(","))
}

async fn cart(cart: Cart) -> Text {
    Ok(show(&cart).await?)
}

async fn page(session: Session, cart: Cart) -> Text {
    let user = session.get::<String>("user").await?.unwrap_or_else(|| "-".to_owned());
    Ok(format!("{user}:{}", cart.count().await?))
}

fn change(change: session_store::CartChange) -> Json<serde_json::Value> {
    Json(serde_json::json!({
        "revision": change.revision, "quantity": change.quantity, "lines": change.lines, "count": change.count,
        "applied": change.applied,
    }))
}

type Changed = Result<Json<serde_json::Value>, Failure>;

async fn add(cart: Cart, Path((sku, quantity)): Path<(String, u32)>) -> Changed {
    Ok(change(cart.add(&sku, quantity).await?))
}

async fn add_once(cart: Cart, Path((sku, quantity, token)): Path<(String, u32, String)>) -> Changed {
    Ok(change(cart.with_token(IdempotencyToken::parse(&token).unwrap()).add(&sku, quantity).await?))
}

async fn set(cart: Cart, Path((sku, quantity)): Path<(String, u32)>) -> Changed {
    Ok(change(cart.set_quantity(&sku, quantity).await?))
}

async fn remove_line(cart: Cart, Path(sku): Path<String>) -> Changed {
    Ok(change(cart.remove(&sku).await?))
}

async fn clear(cart: Cart) -> Changed {
    Ok(change(cart.clear().await?))
}

async fn clear_once(cart: Cart, Path(token): Path<String>) -> Changed {
    Ok(change(cart.with_token(IdempotencyToken::parse(&token).unwrap()).clear().await?))
}

async fn subtract(cart: Cart, Path((sku, quantity)): Path<(String, u32)>) -> Changed {
    Ok(change(cart.subtract(&[(&sku, quantity)]).await?))
}

async fn slow_add(session: Session, cart: Cart, Path((ms, sku)): Path<(u64, String)>) -> Changed {
    session.get::<String>("user").await?;
    pause(ms).await;
    Ok(change(cart.add(&sku, 1).await?))
}

async fn add_slowly(cart: Cart, Path((ms, sku)): Path<(u64, String)>) -> Changed {
    let added = cart.add(&sku, 1).await?;
    pause(ms).await;
    Ok(change(added))
}
