//! What a request costs: counted on the wire, and in commands by the server.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use session_store::{CacheStore, SessionLayer};
use support::{Visitor, app, each_backend, meter::Meter, replica};

#[tokio::test]
async fn none_untouched_one_to_read_one_to_commit() {
    each_backend(async |server| {
        let meter = Meter::before(server.port).await;
        let store = CacheStore::connect(meter.url()).await.unwrap();
        let app = app::router().layer(SessionLayer::new(store));
        let mut visitor = Visitor::default();
        // The scripts are known to the server after this, and all connections are open.
        for path in ["/set/name/ada", "/set/name/bob", "/cart/add/TEA/1", "/cycle", "/login/ada", "/cycle", "/logout"] {
            visitor.post(&app, path).await.ok();
        }

        for (method, path, round_trips) in [
            ("GET", "/plain", 0),
            ("GET", "/extract", 0),
            ("GET", "/page", 0),
            ("POST", "/set/name/ada", 1),
            ("GET", "/plain", 0),
            ("GET", "/extract", 0),
            ("GET", "/get/name", 1),
            ("POST", "/set/name/bob", 2),
            ("POST", "/set/name/bob", 1),
            ("POST", "/remove/absent", 1),
            ("POST", "/cart/add/TEA/1", 1),
            ("POST", "/cart/set/CUP/2", 1),
            ("GET", "/cart", 1),
            ("GET", "/page", 1),
            ("POST", "/cycle", 2),
            ("POST", "/login/bob", 5),
            ("GET", "/page", 1),
            ("POST", "/cart/add/TEA/1", 1),
            ("GET", "/get/user", 1),
            ("POST", "/logout", 1),
            ("POST", "/cart/add/TEA/1", 1),
        ] {
            meter.take();
            let answer = match method {
                "GET" => visitor.get(&app, path).await,
                _ => visitor.post(&app, path).await,
            };
            answer.ok();
            assert_eq!(meter.take(), round_trips, "{method} {path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_is_two_plain_commands_and_a_change_one_script() {
    each_backend(async |server| {
        let app = replica(&server).await;
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/set/name/bob").await.ok();
        server.reset_commands().await;
        visitor.get(&app, "/get/name").await.ok();
        let calls = server.commands().await;
        assert_eq!(calls, [("hgetall".to_owned(), 1), ("pttl".to_owned(), 1)]);
        server.reset_commands().await;
        visitor.post(&app, "/set/name/ada").await.ok();
        let calls = server.commands().await;
        assert!(calls.contains(&("evalsha".to_owned(), 1)), "{calls:?}");
        assert!(!calls.iter().any(|(name, _)| name == "eval"), "{calls:?}");
    })
    .await;
}
