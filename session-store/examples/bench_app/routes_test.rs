//! All routes, over a real socket and a real node, so that the example stays what it says.

use std::net::SocketAddr;

use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    compare::load::{Client, cookie_of, request},
    content::NAME,
    mode::Mode,
    serve_on,
};

/// Requests at the same time in the tests of what survives.
const CONCURRENT: usize = 32;

async fn get(addr: SocketAddr, path: &str, cookie: &str) -> (String, String) {
    let mut client = Client::connect(addr).await.expect("the example listens");
    let (head, body) = client.ask(&request(path, cookie)).await.expect("the example answers");
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{body}");
    (head.to_owned(), body.to_owned())
}

async fn body(addr: SocketAddr, path: &str, cookie: &str) -> String {
    get(addr, path, cookie).await.1
}

async fn at_once(addr: SocketAddr, path: &'static str, cookie: &str) {
    let mut requests = JoinSet::new();
    for _ in 0..CONCURRENT {
        let cookie = cookie.to_owned();
        requests.spawn(async move { get(addr, path, &cookie).await });
    }
    requests.join_all().await;
}

async fn start(mode: Mode, store: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let store = store.to_owned();
    tokio::spawn(async move { serve_on(listener, mode, &store).await.expect("it serves until the test ends") });
    addr
}

/// The routes in one mode; `exact`: nothing is lost when many change the same at once.
async fn check(mode: Mode, exact: bool) {
    let node = cache_node::Node::spawn(cache_node::Config::for_test()).await.expect("a node starts");
    let addr = start(mode, &format!("redis://{}", node.addr())).await;
    assert_eq!(body(addr, "/plain", "").await, "plain");
    let cookie = cookie_of(&get(addr, "/seed", "").await.0).expect("/seed sets a cookie");
    assert_eq!(body(addr, "/read", &cookie).await, NAME);
    assert_eq!(body(addr, "/write", &cookie).await, "1");
    assert_eq!(body(addr, "/write", &cookie).await, "2");
    assert_eq!(body(addr, "/cart", &cookie).await, "[]");
    assert_eq!(body(addr, "/cart/add?sku=7", &cookie).await, "1");
    assert_eq!(body(addr, "/cart/add?sku=7", &cookie).await, "2");
    assert_eq!(body(addr, "/cart", &cookie).await, r#"[{"sku":"7","quantity":2}]"#);
    assert_eq!(body(addr, "/read", &cookie).await, NAME);
    if exact {
        at_once(addr, "/cart/add?sku=7", &cookie).await;
        let expected = format!(r#"[{{"sku":"7","quantity":{}}}]"#, 2 + CONCURRENT);
        assert_eq!(body(addr, "/cart", &cookie).await, expected);
        at_once(addr, "/write", &cookie).await;
        assert_eq!(body(addr, "/write", &cookie).await, (2 + CONCURRENT + 1).to_string());
    }
    node.shutdown().await.expect("the node ends");
}

#[tokio::test]
async fn all_routes_answer_in_mode_ours_and_no_change_of_the_cart_is_lost() {
    check(Mode::Ours, true).await;
    check(Mode::OursAround, true).await;
    check(Mode::OursExclusive, true).await;
}

#[tokio::test]
async fn all_routes_answer_in_mode_near_cache_and_nothing_is_lost() {
    check(Mode::NearCache, true).await;
    check(Mode::NearCacheAround, true).await;
}

#[tokio::test]
async fn all_routes_answer_in_the_modes_that_are_compared_with() {
    check(Mode::ByHand, false).await;
    check(Mode::TowerSessionsMemory, false).await;
    check(Mode::TowerSessionsRedis, false).await;
    check(Mode::TowerSessionsRedisAround, false).await;
}

#[tokio::test]
async fn plain_answers_without_sessions() {
    let addr = start(Mode::Plain, "redis://127.0.0.1:1").await;
    for path in ["/plain", "/seed", "/read", "/write", "/cart/add?sku=7", "/cart"] {
        assert!(cookie_of(&get(addr, path, "").await.0).is_none(), "{path}");
    }
}
