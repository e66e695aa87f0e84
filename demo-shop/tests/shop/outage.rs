use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use end_to_end::port::free_port;
use end_to_end::server::{Server, Signal};
use end_to_end::visitor::Visitor;
use http::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Form, Shop, add, log_in, ready, register, registration, spawn, text_of};

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
    assert_eq!(api.to_json().unwrap()["error"]["code"], "store_unavailable", "by now nothing can be sent");
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

    // A program is told as well that its change may have been made.
    shop.redis.server.signal(Signal::STOP);
    let api = visitor.json(Method::DELETE, &format!("{url}/api/cart/lines/field-notes"), &[], &json!({})).await.unwrap();
    assert_eq!((api.status, api.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert_eq!(api.to_json().unwrap()["error"]["code"], "outcome_unknown");
    shop.redis.server.signal(Signal::CONT);
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

#[tokio::test]
async fn an_account_that_was_made_while_the_store_hung_is_reached_by_the_same_form_and_by_a_login() {
    let shop = Shop::start(2).await;
    let url = shop.url(0);
    let visitors = [Visitor::new(), Visitor::new()];
    let mut forms = Vec::new();
    for (number, visitor) in visitors.iter().enumerate() {
        forms.push(registration(visitor, url, &format!("ada-{number}@example.com")).await);
    }
    shop.redis.server.signal(Signal::STOP);
    for (visitor, form) in visitors.iter().zip(&forms) {
        let page = form.send(visitor, url).await;
        assert_eq!((page.status, page.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"), "{}", page.text());
        assert!(
            page.text().contains("You are not signed in yet") && page.text().contains("Your account is made"),
            "{}",
            page.text()
        );
        assert!(page.text().contains("href=\"/login?next="), "the way on: {}", page.text());
    }
    shop.redis.server.signal(Signal::CONT);
    wait_until_ready(&visitors[0], url).await;

    // Who sends the form again has the account, and who does not know its password has not.
    let answer = forms[0].send(&visitors[0], shop.url(1)).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/account"), "{}", answer.text());
    let wrong = forms[0].clone().with("password", "incorrect horse").send(&Visitor::new(), url).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let answer = log_in(&visitors[1], url, "ada-1@example.com", "correct horse battery").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/account"), "{}", answer.text());
    for (number, visitor) in visitors.iter().enumerate() {
        let account = visitor.get(&format!("{}/account", shop.url(1))).await.unwrap();
        assert_eq!(text_of(&account, "account-email"), format!("ada-{number}@example.com"));
    }

    // A login says the same, and knows of no new account.
    let login = Visitor::new();
    let form = Form::on(&login.get(&format!("{url}/login")).await.unwrap(), "/login", "password")
        .with("email", "ada-1@example.com")
        .with("password", "correct horse battery");
    shop.redis.server.signal(Signal::STOP);
    let answer = form.send(&login, url).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert!(
        answer.text().contains("You are not signed in yet") && !answer.text().contains("account is made"),
        "{}",
        answer.text()
    );
}

/// Passes everything on to the store, until a change of a cart has been: then it hears nothing any more.
async fn deaf_after_a_change(store: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let is_deaf = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&store).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let is_deaf = Arc::clone(&is_deaf);
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(read) = from_client.read(&mut bytes).await
                    && read > 0
                {
                    if !is_deaf.load(Ordering::SeqCst) {
                        to_server.write_all(&bytes[..read]).await.unwrap();
                    }
                    if bytes[..read].windows(9).any(|part| part == b"$3\r\nadd\r\n") {
                        is_deaf.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_change_that_was_made_is_said_to_be_done_when_only_its_message_cannot_be_kept() {
    let shop = Shop::start(1).await;
    // The store knows the script of a change by now, which is then sent once.
    add(&Visitor::new(), shop.url(0), "rice-bowl", 1).await;
    let deaf = deaf_after_a_change(shop.redis.address().to_owned()).await;
    let mut replica = spawn("B", &deaf, &shop.database, &[]);
    let url = ready(&mut replica).await;
    // A first visit: the change begins the session, so that nothing but the message is left for the commit.
    let visitor = Visitor::new();
    let product = visitor.get(&format!("{url}/products/tide-mug")).await.unwrap();
    let answer = Form::on(&product, "/cart/add", "tide-mug").send(&visitor, &url).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/products/tide-mug"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), "", "it is done");
    assert_eq!(visitor.cart(shop.url(0)).await.unwrap().lines["tide-mug"], 1, "and the visitor is the one who did it");
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
