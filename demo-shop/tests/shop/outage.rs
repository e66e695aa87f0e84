use std::time::Duration;

use end_to_end::port::free_port;
use end_to_end::server::{Server, Signal};
use end_to_end::visitor::Visitor;
use http::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Form, Shop, add, ready, register, spawn, text_of};

#[tokio::test]
async fn a_store_that_does_not_answer_costs_no_page_and_no_cart() {
    let shop = Shop::start(1).await;
    let url = shop.url(0);
    let visitor = Visitor::new();
    register(&visitor, url, "ada@example.com").await;
    add(&visitor, url, "tide-mug", 2).await;
    let product = visitor.get(&format!("{url}/products/tide-mug")).await.unwrap();
    let form = Form::on(&product, "/cart/add", "tide-mug");

    // It hangs, which is worse than being gone.
    let bowl = visitor.get(&format!("{url}/products/rice-bowl")).await.unwrap();
    shop.redis.server.signal(Signal::STOP);
    // It received this, and does it when it goes on.
    let unknown = Form::on(&bowl, "/cart/add", "rice-bowl").send(&visitor, url).await;
    assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(unknown.text().contains("We do not know yet whether that worked"), "{}", unknown.text());
    let unknown = Form::on(&unknown, "/cart/add", "Try again");
    for path in ["/", "/products/tide-mug", "/?category=plants", "/login"] {
        let page = visitor.get(&format!("{url}{path}")).await.unwrap();
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert_eq!(text_of(&page, "cart-count"), "–", "{path}");
        assert!(page.text().contains("Nothing is lost"), "{path}");
    }
    let cart = visitor.get(&format!("{url}/cart")).await.unwrap();
    assert_eq!(cart.status, StatusCode::OK);
    assert!(cart.text().contains("id=\"cart-away\"") && !cart.text().contains("id=\"cart-empty\""));
    assert!(cart.text().contains("http-equiv=\"refresh\""));
    for path in ["/checkout", "/orders", "/account"] {
        let page = visitor.get(&format!("{url}{path}")).await.unwrap();
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(!page.header("retry-after").is_empty(), "{path}");
    }

    let refused = form.send(&visitor, url).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("retry-after"), "2");
    assert!(refused.text().contains("Your change was not made"), "by now nothing can be sent: {}", refused.text());
    let retry = Form::on(&refused, "/cart/add", "Try again");
    assert_eq!(retry.field("token"), form.field("token"));

    let api = visitor.get(&format!("{url}/api/cart")).await.unwrap();
    assert_eq!(api.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(api.to_json().unwrap()["error"]["code"], "store_unavailable");
    let body = json!({ "sku": "tide-mug", "quantity": 1 });
    let api = visitor.json(Method::POST, &format!("{url}/api/cart/lines"), &[], &body).await.unwrap();
    assert_eq!((api.status, api.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    let readiness = visitor.get(&format!("{url}/readyz")).await.unwrap();
    assert_eq!(readiness.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(readiness.to_json().unwrap()["database"], "ok");
    assert_ne!(readiness.to_json().unwrap()["store"], "ok");
    assert_eq!(visitor.get(&format!("{url}/healthz")).await.unwrap().status, StatusCode::OK);

    shop.redis.server.signal(Signal::CONT);
    wait_until_ready(&visitor, url).await;
    let before = visitor.cart(url).await.unwrap().lines["tide-mug"];
    assert!(before >= 2, "nothing is lost: {before}");
    // What a stopped store had received it may still have done; the token makes the retry count once either way.
    retry.send(&visitor, url).await.success().unwrap();
    retry.send(&visitor, url).await.success().unwrap();
    unknown.send(&visitor, url).await.success().unwrap();
    assert_eq!(visitor.cart(url).await.unwrap().lines["rice-bowl"], 1);
    let after = visitor.cart(url).await.unwrap().lines["tide-mug"];
    assert!(after == before || after == before + 1, "{before} -> {after}");
}

#[tokio::test]
async fn a_change_that_the_store_refused_was_certainly_not_made() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    add(&visitor, shop.url(0), "tide-mug", 2).await;
    let product = visitor.get(&format!("{}/products/tide-mug", shop.url(0))).await.unwrap();
    let form = Form::on(&product, "/cart/add", "tide-mug");
    shop.redis_config("min-replicas-to-write", "1");
    let refused = form.send(&visitor, shop.url(0)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().contains("Your change was not made"), "{}", refused.text());
    shop.redis_config("min-replicas-to-write", "0");
    assert_eq!(visitor.cart(shop.url(0)).await.unwrap().lines["tide-mug"], 2);
}

#[tokio::test]
async fn a_replica_starts_without_its_store_and_becomes_ready_with_it() {
    let folder = TempDir::new().unwrap();
    let database = format!("sqlite:{}", folder.path().join("shop.db").display());
    let port = free_port();
    let mut server = spawn("A", &format!("redis://127.0.0.1:{port}"), &database, &[]);
    let url = ready(&mut server).await;
    let visitor = Visitor::new();
    let readiness = visitor.get(&format!("{url}/readyz")).await.unwrap();
    assert_eq!(readiness.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(readiness.to_json().unwrap()["store"], "unavailable");
    assert_eq!(visitor.get(&format!("{url}/")).await.unwrap().status, StatusCode::OK);

    let mut command = std::process::Command::new(end_to_end::program::installed("redis-server", "redis-server").unwrap());
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    let _redis = Server::spawn("redis-server", command).unwrap();
    wait_until_ready(&visitor, &url).await;
    add(&visitor, &url, "tide-mug", 1).await;
}

async fn wait_until_ready(visitor: &Visitor, url: &str) {
    for _ in 0..100 {
        if visitor.get(&format!("{url}/readyz")).await.unwrap().status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not ready within ten seconds");
}
