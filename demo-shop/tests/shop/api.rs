use bytes::Bytes;
use end_to_end::visitor::{Answer, Visitor};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Shop, ready, spawn};

fn code(answer: &Answer) -> (u16, String) {
    let json = answer.to_json().unwrap();
    assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
    (answer.status.as_u16(), json["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_cart_is_read_and_changed_as_documented() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    let (a, b) = (shop.url(0), shop.url(1));

    let empty = visitor.get(&format!("{a}/api/cart")).await.unwrap();
    assert_eq!(empty.header("cache-control"), "no-store");
    let empty = empty.to_json().unwrap();
    assert_eq!(empty, json!({ "revision": 0, "lines": [], "served_by": "A" }));
    assert!(visitor.cookies().is_empty(), "reading an empty cart makes no session");

    let added = visitor.add(a, "tide-mug", 2).await.unwrap().to_json().unwrap();
    let expected = json!({
        "revision": added["revision"], "sku": "tide-mug", "quantity": 2, "line_count": 1, "count": 2, "applied": true,
        "served_by": "A",
    });
    assert_eq!(added, expected);
    let put = visitor.json(Method::PUT, &format!("{b}/api/cart/lines/tide-mug"), &[], &json!({ "quantity": 7 })).await.unwrap();
    assert_eq!(put.to_json().unwrap()["quantity"], 7);
    visitor.add(b, "moss-vase", 1).await.unwrap();
    let cart = visitor.get(&format!("{b}/api/cart")).await.unwrap().to_json().unwrap();
    assert_eq!(cart["lines"], json!([{ "sku": "moss-vase", "quantity": 1 }, { "sku": "tide-mug", "quantity": 7 }]));
    assert_eq!(cart["served_by"], "B");
    for _ in 0..2 {
        let removed = visitor.delete(&format!("{a}/api/cart/lines/tide-mug")).await.unwrap();
        assert_eq!((removed.status, &removed.to_json().unwrap()["count"]), (StatusCode::OK, &json!(1)));
    }

    for replica in [a, b] {
        let once = visitor.add_once(replica, "rice-bowl", 1, "order-of-bowls").await.unwrap().to_json().unwrap();
        assert_eq!((&once["quantity"], &once["applied"]), (&json!(1), &json!(replica == a)));
    }

    let products = visitor.get(&format!("{a}/api/products")).await.unwrap().to_json().unwrap();
    let products = products["products"].as_array().unwrap();
    assert_eq!(products.len(), 42);
    let expected = json!({ "sku": "tide-mug", "name": "Tide Mug", "category": "ceramics", "price_cents": 1850, "stock": 140 });
    assert_eq!(products[0], expected);
}

#[tokio::test]
async fn what_makes_no_sense_gets_a_typed_error() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    let lines = format!("{}/api/cart/lines", shop.url(0));
    let post = |body: Value| {
        let (visitor, lines) = (visitor.clone(), lines.clone());
        async move { code(&visitor.json(Method::POST, &lines, &[], &body).await.unwrap()) }
    };
    let expect = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(post(json!({ "sku": "no-such-thing", "quantity": 1 })).await, expect(404, "unknown_sku"));
    assert_eq!(post(json!({ "sku": "tide-mug", "quantity": 0 })).await, expect(422, "quantity_zero"));
    assert_eq!(post(json!({ "sku": "tide-mug", "quantity": -3 })).await, expect(422, "quantity_negative"));
    assert_eq!(post(json!({ "sku": "tide-mug", "quantity": 5_000_000_000_u64 })).await, expect(422, "quantity_too_large"));
    assert_eq!(post(json!({ "sku": "tide-mug", "quantity": "two" })).await, expect(422, "invalid_body"));
    assert_eq!(post(json!({ "quantity": 1 })).await, expect(422, "invalid_body"));
    assert_eq!(post(json!({ "sku": "x".repeat(20_000), "quantity": 1 })).await, expect(413, "body_too_large"));

    let raw = |headers: &'static [(&'static str, &'static str)], body: &'static str| {
        let (visitor, lines) = (visitor.clone(), lines.clone());
        async move { code(&visitor.send(Method::POST, &lines, headers, Bytes::from(body)).await.unwrap()) }
    };
    assert_eq!(raw(&[("content-type", "application/json")], "{").await, expect(400, "malformed_json"));
    assert_eq!(raw(&[], "{}").await, expect(415, "not_json"));
    let key = "k".repeat(256);
    let body = json!({ "sku": "tide-mug", "quantity": 1 });
    let answer = visitor.json(Method::POST, &lines, &[("idempotency-key", &key)], &body).await.unwrap();
    assert_eq!(code(&answer), expect(400, "invalid_idempotency_key"));
    let answer = visitor.get(&lines).await.unwrap();
    assert_eq!(code(&answer), expect(405, "method_not_allowed"));
    let answer = visitor.get(&format!("{}/api/nowhere", shop.url(0))).await.unwrap();
    assert_eq!(code(&answer), expect(404, "not_found"));
    assert!(visitor.cart(shop.url(0)).await.unwrap().lines.is_empty(), "none of it changed the cart");
}

#[tokio::test]
async fn a_session_that_ends_during_a_slow_write_stays_ended() {
    let shop = Shop::start(1).await;
    let mut server = spawn("T", &shop.redis.url(), &shop.database, &["--test-hooks"]);
    let hooks = ready(&mut server).await;
    let visitor = Visitor::new();
    visitor.add(shop.url(0), "tide-mug", 1).await.unwrap();
    let absent = visitor.form(&format!("{}/api/slow-write?ms=1", shop.url(0)), &[]).await.unwrap();
    assert_eq!(absent.status, StatusCode::NOT_FOUND, "the hook is there only when asked for");

    let slow = tokio::spawn({
        let (visitor, url) = (visitor.fork(), format!("{hooks}/api/slow-write?ms=700"));
        async move { visitor.form(&url, &[]).await.unwrap() }
    });
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let old = visitor.fork();
    visitor.form(&format!("{}/logout", shop.url(0)), &[]).await.unwrap().success().unwrap();
    let answer = slow.await.unwrap();
    assert_eq!(code(&answer), (409, "session_ended".to_owned()));
    assert_eq!(answer.header("set-cookie"), "", "no cookie for a session that is gone");
    assert!(old.cart(shop.url(0)).await.unwrap().lines.is_empty());
}
