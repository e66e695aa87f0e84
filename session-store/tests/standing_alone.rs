//! Without our layer.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

mod support;

use std::collections::HashMap;

use axum::{Router, routing::get};
use http::StatusCode;
use serde_json::json;
use session_store::{Session, Unavailable};
use support::{Visitor, each_backend};
use time::{Duration, OffsetDateTime};
use tower_sessions::{
    SessionManagerLayer, SessionStore as _,
    session::{Id, Record},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_records_are_kept_and_a_deleted_one_stays_deleted() {
    each_backend(async |server| {
        let store = support::patient_store(&server).await;
        let chosen = Id(1);
        let mut record = Record {
            id: chosen,
            data: HashMap::from([("a".to_owned(), json!(1)), ("@owner".to_owned(), json!("x"))]),
            expiry_date: OffsetDateTime::now_utc() + Duration::hours(1),
        };
        store.create(&mut record).await.unwrap();
        assert_ne!(record.id, chosen, "an id from outside is not adopted");
        let loaded = store.load(&record.id).await.unwrap().unwrap();
        assert_eq!((loaded.id, &loaded.data), (record.id, &record.data));
        assert!((loaded.expiry_date - record.expiry_date).abs() < Duration::seconds(2));

        record.data = HashMap::from([("b".to_owned(), json!([2]))]);
        store.save(&record).await.unwrap();
        assert_eq!(store.load(&record.id).await.unwrap().unwrap().data, record.data);

        store.delete(&record.id).await.unwrap();
        store.save(&record).await.unwrap_err();
        assert_eq!(store.load(&record.id).await.unwrap(), None);
        assert_eq!(store.load(&Id(2)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layer_of_tower_sessions_works_on_the_store() {
    each_backend(async |server| {
        let visits = async |session: Session| -> Result<String, Unavailable> {
            let visits = session.get::<u32>("visits").await?.unwrap_or(0) + 1;
            session.insert("visits", visits).await?;
            Ok(visits.to_string())
        };
        let store = support::patient_store(&server).await;
        let app: Router = Router::new().route("/", get(visits)).layer(SessionManagerLayer::new(store));
        let mut visitor = Visitor::default();
        for expected in ["1", "2", "3"] {
            assert_eq!(visitor.get(&app, "/").await.ok().body, expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_error_after_a_change_of_the_cart_keeps_the_way_to_it() {
    each_backend(async |server| {
        let store = support::patient_store(&server).await;
        let add_and_fail = async |cart: session_store::Cart| -> Result<StatusCode, Unavailable> {
            cart.add("TEA", 1).await?;
            Ok(StatusCode::INTERNAL_SERVER_ERROR)
        };
        let app: Router = support::app::router()
            .route("/add-and-fail", axum::routing::post(add_and_fail))
            .layer(session_store::SessionLayer::new(store));
        let mut visitor = Visitor::default();
        let answer = visitor.post(&app, "/add-and-fail").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(visitor.get(&app, "/cart").await.ok().body, "TEA=1", "a change of the cart is made at once");
    })
    .await;
}

#[test]
fn the_documentation_shows_the_example_that_is_compiled() {
    let example = include_str!("../examples/ten_lines.rs").split_once('\n').unwrap().1;
    assert!(include_str!("../src/lib.md").contains(example));
}
