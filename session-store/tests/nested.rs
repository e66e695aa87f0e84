//! Layers within layers: one cookie name is one session, and two names are two.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use http::{Method, StatusCode, header};
use session_store::{Session, SessionLayer, fresh_session};
use support::{Visitor, app, each_backend, patient_store, send};
use tower::Layer as _;

/// Between the two layers.
async fn counted(session: Session, request: Request, next: Next) -> Response {
    let count: u32 = session.get("between").await.unwrap().unwrap_or(0);
    session.insert("between", count + 1).await.unwrap();
    next.run(request).await
}

fn routes() -> Router {
    let between = async |session: Session| session.get::<u32>("between").await.unwrap().unwrap_or(0).to_string();
    app::router().route("/between", get(between))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_around_a_router_has_its_routes_and_what_is_not_found_in_it() {
    each_backend(async |server| {
        let not_found = async |session: Session| {
            session.insert("lost", "yes").await.unwrap();
            StatusCode::NOT_FOUND
        };
        let router = routes().route_layer(fresh_session()).fallback(not_found).with_state(());
        // As it would be served.
        let app = Router::new().fallback_service(SessionLayer::new(patient_store(&server).await).layer(router));
        let mut visitor = Visitor::default();
        visitor.post(&app, "/set/name/ada").await.ok();
        visitor.post(&app, "/cart/add/TEA/1").await.ok();
        assert_eq!(visitor.get(&app, "/nowhere").await.status, StatusCode::NOT_FOUND);
        for (path, body) in [("/get/name", "ada"), ("/get/lost", "yes"), ("/cart", "TEA=1"), ("/plain", "plain")] {
            assert_eq!(visitor.get(&app, path).await.ok().body, body, "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_layers_with_one_cookie_on_one_store_are_one_session() {
    each_backend(async |server| {
        let store = patient_store(&server).await;
        let layer = SessionLayer::new(store.clone());
        // The same again, and one that was set up in another place for the same.
        for inner in [layer.clone(), SessionLayer::new(store.clone()).with_expiry(session_store::Expiry::OnSessionEnd)] {
            let app = routes().layer(inner).layer(from_fn(counted)).layer(layer.clone());
            let mut visitor = Visitor::default();
            for (number, path) in
                ["/set/name/ada", "/set/color/blue", "/cycle", "/cart/add/TEA/1", "/login/ada"].iter().enumerate()
            {
                let answer = visitor.post(&app, path).await.ok();
                assert!(answer.headers.get_all(header::SET_COOKIE).iter().count() <= 1, "{path}: {answer:?}");
                assert_eq!(visitor.get(&app, "/between").await.ok().body, (2 * number + 2).to_string(), "after {path}");
            }
            assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
            assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=1");
            redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
        }
    })
    .await;
}

/// Either would take the other's cookie for one of its own, and replace it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_layers_with_one_cookie_on_two_stores_are_refused() {
    each_backend(async |server| {
        let (outer, inner) = (SessionLayer::new(patient_store(&server).await), SessionLayer::new(patient_store(&server).await));
        let app = routes().layer(inner).layer(outer.clone());
        let answer = send(&app, Method::GET, "/plain", None).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.body.contains("one cookie name"), "{}", answer.body);
        assert_eq!(answer.set_cookie(), None);

        let inner = SessionLayer::new(patient_store(&server).await).with_name("admin");
        let app = routes().layer(inner).layer(from_fn(counted)).layer(outer);
        let answer = send(&app, Method::POST, "/set/name/ada", None).await.ok();
        assert_eq!(answer.headers.get_all(header::SET_COOKIE).iter().count(), 2, "{answer:?}");
    })
    .await;
}

/// The innermost one would give the visitor a second cookie of the name, and the next request the session of either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_layers_with_one_cookie_are_one_session_with_others_in_between() {
    each_backend(async |server| {
        let store = patient_store(&server).await;
        let named = |name: &'static str| SessionLayer::new(store.clone()).with_name(name);
        let outer_to_inner: [&[&'static str]; 3] =
            [&["id", "admin", "id"], &["id", "basket", "admin", "id"], &["id", "admin", "id", "admin", "id"]];
        for names in outer_to_inner {
            let mut app = routes();
            for (place, name) in names.iter().rev().enumerate() {
                // A middleware between the outermost one and the rest.
                app = if place + 1 == names.len() { app.layer(from_fn(counted)) } else { app };
                app = app.layer(named(name));
            }
            let mut visitor = Visitor::default();
            for (number, path) in ["/set/name/ada", "/cycle", "/cart/add/TEA/1", "/login/ada"].iter().enumerate() {
                let answer = visitor.post(&app, path).await.ok();
                let cookies: Vec<_> = answer.headers.get_all(header::SET_COOKIE).iter().collect();
                assert!(cookies.len() <= 1, "{names:?} {path}: {cookies:?}");
                assert_eq!(visitor.get(&app, "/between").await.ok().body, (2 * number + 2).to_string(), "{names:?} after {path}");
            }
            assert_eq!(visitor.get(&app, "/get/name").await.ok().body, "ada");
            assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=1");
            redis::cmd("FLUSHALL").exec_async(&mut server.connection().await).await.unwrap();
        }

        let elsewhere = SessionLayer::new(patient_store(&server).await);
        let app = routes().layer(elsewhere).layer(named("admin")).layer(named("id"));
        assert_eq!(send(&app, Method::GET, "/plain", None).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    })
    .await;
}
