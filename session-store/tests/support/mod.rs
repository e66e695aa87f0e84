//! Real servers, an application with two replicas, and visitors with a cookie of their own.
#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "each test uses its part, and fails by panicking"
)]

pub mod app;
pub mod engine;
pub mod fleet;
pub mod gate;
pub mod hold;
pub mod meter;
pub mod moment;
pub mod port;
pub mod server;
pub mod slow_proxy;
pub mod their_store;
pub mod traffic;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use session_store::{CacheStore, CacheStoreBuilder, SessionLayer};
use tower::ServiceExt as _;

pub use self::{
    engine::Engine,
    moment::Moment,
    server::{Server, each_backend, each_process, each_server, on_redis},
};

/// How long a test waits for something that should happen at once: a busy machine may look away for some seconds, more than once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A deadline that a busy machine does not reach.
pub const LONG_DEADLINE: Duration = Duration::from_secs(20);

/// Settings of a store for tests of what is not about deadlines.
pub fn patient(url: impl Into<String>) -> CacheStoreBuilder {
    CacheStore::builder(url).deadline(LONG_DEADLINE).connect_timeout(LONG_DEADLINE)
}

/// A store whose deadline a busy machine does not reach.
pub async fn patient_store(server: &Server) -> CacheStore {
    patient(server.url()).connect().await.unwrap()
}

/// A store with the default settings, which a busy machine may be too slow for more than once.
pub async fn default_store(url: impl Into<String>) -> CacheStore {
    connected(CacheStore::builder(url)).await
}

/// The same with these settings.
pub async fn connected(settings: CacheStoreBuilder) -> CacheStore {
    let began = Instant::now();
    loop {
        match settings.clone().connect().await {
            Ok(store) => return store,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the store answers: a busy machine may be too slow for its deadline more than once.
pub async fn until_it_answers(store: &CacheStore) {
    let began = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(began.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A replica: the application over a store of its own, as in a process of its own.
pub async fn replica(server: &Server) -> Router {
    replica_with(server, |layer| layer).await
}

pub async fn replica_with(server: &Server, change: impl FnOnce(SessionLayer) -> SessionLayer) -> Router {
    let store = patient_store(server).await;
    app::router().layer(change(SessionLayer::new(store.clone()))).layer(axum::Extension(store))
}

/// Replicas whose turn it is for each request, as behind a balancer that does not know visitors.
pub fn balanced<const N: usize>(replicas: [Router; N]) -> Router {
    let turn = Arc::new(AtomicUsize::new(0));
    Router::new().fallback(move |request: Request<Body>| {
        let replica = replicas[turn.fetch_add(1, Ordering::Relaxed) % N].clone();
        replica.oneshot(request)
    })
}

/// Two replicas behind a balancer.
pub async fn two_replicas(server: &Server) -> Router {
    two_replicas_with(server, |layer| layer).await
}

pub async fn two_replicas_with(server: &Server, change: impl Fn(SessionLayer) -> SessionLayer) -> Router {
    balanced([replica_with(server, &change).await, replica_with(server, &change).await])
}

/// A replica with the default settings of the store.
pub async fn default_replica(server: &Server) -> Router {
    app::router().layer(SessionLayer::new(default_store(server.url()).await))
}

/// An answer with its body read.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn set_cookie(&self) -> Option<&str> {
        self.headers.get(header::SET_COOKIE).map(|value| value.to_str().unwrap())
    }

    /// Name and value of the cookie that was set.
    pub fn cookie(&self) -> Option<String> {
        self.set_cookie().map(|header| header.split(';').next().unwrap().to_owned())
    }

    pub fn removes_cookie(&self) -> bool {
        self.set_cookie().is_some_and(|header| header.contains("Max-Age=0"))
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self
    }
}

pub async fn send(app: &Router, method: Method, path: &str, cookie: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A browser: keeps the cookie it is given.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    pub cookie: Option<String>,
}

impl Visitor {
    pub async fn get(&mut self, app: &Router, path: &str) -> Answer {
        self.send(app, Method::GET, path).await
    }

    pub async fn post(&mut self, app: &Router, path: &str) -> Answer {
        self.send(app, Method::POST, path).await
    }

    /// As [`post`](Self::post) where a busy machine may be too slow for the deadline of the store; again until it is done. What is sent
    /// may be done more than once.
    pub async fn post_until_done(&mut self, app: &Router, path: &str) -> Answer {
        self.send_until_done(app, Method::POST, path).await
    }

    /// As [`get`](Self::get), likewise.
    pub async fn get_until_done(&mut self, app: &Router, path: &str) -> Answer {
        self.send_until_done(app, Method::GET, path).await
    }

    async fn send_until_done(&mut self, app: &Router, method: Method, path: &str) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.send(app, method.clone(), path).await;
            if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                return answer.ok();
            }
            assert!(began.elapsed() < PATIENCE, "{path}: {}", answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn send(&mut self, app: &Router, method: Method, path: &str) -> Answer {
        let answer = send(app, method, path, self.cookie.as_deref()).await;
        if answer.removes_cookie() {
            self.cookie = None;
        } else if let Some(cookie) = answer.cookie() {
            self.cookie = Some(cookie);
        }
        answer
    }
}
