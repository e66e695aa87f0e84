//! What becomes of requests while the store is away, by the policy of the layer and of the route.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

#[path = "support/node_process.rs"]
mod node_process;
mod support;

use std::time::{Duration, Instant};

use axum::{
    Router,
    routing::{get, post},
};
use http::{Method, StatusCode, header};
use session_store::{Available, Cart, CartError, OutagePolicy, Session, SessionLayer, SessionUnavailable, outage_policy};
use support::{Moment, PATIENCE, Server, Visitor, default_store, each_process, patient_store, send};

const WAIT: OutagePolicy = OutagePolicy::Wait { max: PATIENCE };

fn routes() -> Router {
    Router::new()
        .route("/set/{name}", post(set))
        // What one must not do, and what everybody does.
        .route("/careless", get(async |session: Session| visits(&session).await.unwrap_or(0).to_string()))
        .route("/home", get(home))
        .route("/cart", get(cart))
        .route("/add/{sku}", post(add))
}

async fn visits(session: &Session) -> Option<u32> {
    session.get("visits").await.ok().flatten()
}

async fn set(session: Session, axum::extract::Path(name): axum::extract::Path<String>) -> Result<&'static str, SetError> {
    session.insert("name", name).await.map_err(SetError)?;
    Ok("set")
}

struct SetError(tower_sessions::session::Error);

impl axum::response::IntoResponse for SetError {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::BAD_GATEWAY, self.0.to_string()).into_response()
    }
}

async fn home(session: Result<Available, SessionUnavailable>) -> String {
    match session {
        Ok(Available(session)) => {
            format!("hello {}", session.get::<String>("name").await.unwrap().unwrap_or_else(|| "stranger".to_owned()))
        }
        Err(unavailable) => {
            assert!(unavailable.error().is_outage(), "{unavailable}");
            "hello, whoever you are".to_owned()
        }
    }
}

async fn cart(cart: Cart) -> Result<String, (StatusCode, String)> {
    match cart.count().await {
        Ok(count) => Ok(count.to_string()),
        Err(CartError::Unavailable(error)) => Ok(format!("out of reach: {error}")),
        Err(error) => Err((StatusCode::CONFLICT, error.to_string())),
    }
}

async fn add(cart: Cart, axum::extract::Path(sku): axum::extract::Path<String>) -> Result<String, session_store::Unavailable> {
    Ok(cart.add(&sku, 1).await?.count.to_string())
}

async fn app(server: &Server, routes: Router, policy: OutagePolicy) -> Router {
    let store = default_store(server.url()).await;
    routes.layer(SessionLayer::new(store).with_outage_policy(policy))
}

/// The same on a store that a busy machine does not take for one that is away.
async fn patient_app(server: &Server, routes: Router, policy: OutagePolicy) -> Router {
    let store = patient_store(server).await;
    routes.layer(SessionLayer::new(store).with_outage_policy(policy))
}

async fn visitor(app: &Router) -> Visitor {
    let mut visitor = Visitor::default();
    let began = Instant::now();
    while visitor.post(app, "/set/ada").await.status != StatusCode::OK {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    visitor
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_closed_lets_no_answer_pass_that_was_made_without_the_session() {
    each_process(async |mut server| {
        let app = patient_app(&server, routes(), OutagePolicy::FailClosed).await;
        let visitor = visitor(&app).await;
        server.kill();
        for (method, path) in [
            (Method::GET, "/careless"),
            (Method::GET, "/home"),
            (Method::GET, "/cart"),
            (Method::POST, "/set/eve"),
            (Method::POST, "/add/TEA"),
        ] {
            let answer = send(&app, method, path, visitor.cookie.as_deref()).await;
            assert_eq!((answer.status, answer.set_cookie()), (StatusCode::SERVICE_UNAVAILABLE, None), "{path}");
            assert_eq!(answer.headers[header::RETRY_AFTER], "1", "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_session_the_handler_decides_and_no_change_is_said_to_be_kept() {
    each_process(async |mut server| {
        let app = patient_app(&server, routes(), OutagePolicy::WithoutSession).await;
        let mut visitor = visitor(&app).await;
        assert_eq!(visitor.get(&app, "/home").await.body, "hello ada");
        server.kill();
        for (method, path, status, body) in [
            (Method::GET, "/home", StatusCode::OK, "hello, whoever you are"),
            (Method::GET, "/cart", StatusCode::OK, "out of reach"),
            (Method::POST, "/set/eve", StatusCode::BAD_GATEWAY, "out of reach"),
            (Method::POST, "/add/TEA", StatusCode::SERVICE_UNAVAILABLE, "try again"),
        ] {
            let answer = send(&app, method, path, visitor.cookie.as_deref()).await;
            assert_eq!((answer.status, answer.set_cookie()), (status, None), "{path}: {}", answer.body);
            assert!(answer.body.contains(body), "{path}: {}", answer.body);
        }
        // A new visitor has nothing that could be read: the handler is content, and the commit fails.
        let answer = send(&app, Method::POST, "/set/eve", None).await;
        assert_eq!((answer.status, answer.set_cookie()), (StatusCode::SERVICE_UNAVAILABLE, None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_sees_a_slow_answer_and_no_error_and_each_change_counts_once() {
    each_process(async |mut server| {
        let app = app(&server, routes(), WAIT).await;
        let mut visitor = visitor(&app).await;
        visitor.post(&app, "/add/TEA").await.ok();
        for signal in ["kill", "stop"] {
            if signal == "kill" {
                server.kill();
            } else {
                server.signal("-STOP");
            }
            let mut requests = tokio::task::JoinSet::new();
            let mut ask = |method, path: &'static str, cookie: Option<String>| {
                let app = app.clone();
                requests.spawn(async move { send(&app, method, path, cookie.as_deref()).await.ok() });
            };
            for _ in 0..10 {
                ask(Method::POST, "/add/TEA", visitor.cookie.clone());
                ask(Method::GET, "/home", visitor.cookie.clone());
                ask(Method::POST, "/set/new", None);
            }
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(requests.len(), 30);
            assert!(requests.try_join_next().is_none(), "somebody did not wait");
            if signal == "kill" {
                server.restart().await;
            } else {
                server.signal("-CONT");
            }
            let began = Moment::now();
            for answer in requests.join_all().await {
                assert!(!answer.body.contains("whoever") && !answer.body.contains("stranger"), "{}", answer.body);
            }
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, "21");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ends_at_its_limit_for_the_whole_request() {
    each_process(async |mut server| {
        let limit = OutagePolicy::Wait { max: Duration::from_millis(600) };
        let routes = routes().route(
            "/twice",
            get(async |session: Session| {
                let first = session.get::<u32>("a").await.is_err();
                let second = session.get::<u32>("b").await.is_err();
                format!("{first} {second}")
            }),
        );
        let app = app(&server, routes, limit).await;
        let mut visitor = visitor(&app).await;
        server.kill();
        for path in ["/home", "/twice"] {
            let (began, by_the_clock) = (Moment::now(), Instant::now());
            let answer = visitor.get(&app, path).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers[header::RETRY_AFTER], "1");
            let (took, waited) = (began.elapsed(), by_the_clock.elapsed());
            assert!(waited >= Duration::from_millis(500) && took < Duration::from_millis(1_100), "{path}: {waited:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_its_own_policy() {
    each_process(async |mut server| {
        let routes = Router::new()
            .route("/careless", get(async |session: Session| visits(&session).await.unwrap_or(0).to_string()))
            .route_layer(outage_policy(OutagePolicy::WithoutSession))
            .merge(Router::new().route("/add/{sku}", post(add)).route_layer(outage_policy(WAIT)))
            .route("/set/{name}", post(set))
            .route("/cart", get(cart));
        let app = patient_app(&server, routes, OutagePolicy::FailClosed).await;
        let mut visitor = visitor(&app).await;
        server.kill();
        assert_eq!(visitor.get(&app, "/careless").await.ok().body, "0");
        assert_eq!(visitor.get(&app, "/cart").await.status, StatusCode::SERVICE_UNAVAILABLE);
        let waiting = tokio::spawn({
            let (app, cookie) = (app.clone(), visitor.cookie.clone());
            async move { send(&app, Method::POST, "/add/TEA", cookie.as_deref()).await }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!waiting.is_finished());
        server.restart().await;
        assert_eq!(waiting.await.unwrap().ok().body, "1");
    })
    .await;
}
