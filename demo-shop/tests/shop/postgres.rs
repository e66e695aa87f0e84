//! The same shop on PostgreSQL.

use end_to_end::postgres::Postgres;
use end_to_end::server::Signal;
use end_to_end::visitor::Visitor;
use http::StatusCode;

use crate::orders::{sell_the_last_pieces, submit_many_times_at_once};
use crate::support::{Shop, add, checkout, log_in};

#[tokio::test]
async fn orders_hold_on_postgresql_too() {
    let postgres = Postgres::start().await.unwrap();
    // Three replicas bring the same empty database up to date at the same time.
    let shop = Shop::start_on(3, postgres.url()).await;
    submit_many_times_at_once(&shop).await;
    sell_the_last_pieces(&shop).await;
    refuse_what_the_database_cannot_hold(&shop).await;
}

/// PostgreSQL takes no NUL in a text, and says so with an error that would look like an outage.
async fn refuse_what_the_database_cannot_hold(shop: &Shop) {
    let (visitor, url) = (Visitor::new(), shop.url(0));
    for (path, status) in [
        ("/?q=mug%00", StatusCode::OK),
        ("/products/%00", StatusCode::NOT_FOUND),
        ("/orders/%00", StatusCode::NOT_FOUND),
        ("/pictures/%00.svg", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(visitor.get(&format!("{url}{path}")).await.unwrap().status, status, "{path}");
    }
    let answer = visitor.add(url, "\0", 1).await;
    assert!(answer.is_err() || answer.unwrap().status == StatusCode::NOT_FOUND);
    add(&visitor, url, "tide-mug", 1).await;
    let form = checkout(&visitor, url).await;
    let answer = form.clone().with("recipient", "Ada\0Lovelace").send(&visitor, url).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    let answer = log_in(&visitor, url, "a\0@example.com", "correct horse battery").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_database_that_is_gone_is_said_on_a_page_and_costs_no_cart() {
    let mut postgres = Postgres::start().await.unwrap();
    let shop = Shop::start_on(1, postgres.url()).await;
    let (visitor, url) = (Visitor::new(), shop.url(0));
    visitor.add(url, "tide-mug", 2).await.unwrap();
    postgres.server.signal(Signal::QUIT);
    postgres.server.ended(std::time::Duration::from_secs(10)).await.unwrap();

    let home = visitor.get(&format!("{url}/")).await.unwrap();
    assert_eq!((home.status, home.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert!(home.text().contains("Your cart is safe") && home.text().contains("id=\"served-by\""));
    let ready = visitor.get(&format!("{url}/readyz")).await.unwrap();
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let ready = ready.to_json().unwrap();
    assert_eq!(ready["store"], "ok");
    assert_ne!(ready["database"], "ok");
    assert_eq!(visitor.cart(url).await.unwrap().lines["tide-mug"], 2);
}
