use end_to_end::visitor::Visitor;
use http::{Method, StatusCode};

use crate::support::{Form, Shop, text_of};

#[tokio::test]
async fn the_shelves_show_what_is_asked_for() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    let page = |path: &'static str| {
        let (visitor, url) = (visitor.clone(), format!("{}{path}", shop.url(0)));
        async move { visitor.get(&url).await.unwrap() }
    };

    let home = page("/").await;
    assert_eq!(home.status, StatusCode::OK);
    assert_eq!(home.text().matches("<li class=\"card\">").count(), 42);
    assert_eq!(text_of(&home, "served-by"), "A");
    assert_eq!(text_of(&home, "cart-count"), "0");
    assert!(home.text().contains("class=\"badge quiet\""), "an empty cart does not ask for attention");
    assert_eq!(text_of(&home, "session-state"), "none yet");
    assert!(visitor.cookies().is_empty(), "looking around needs no session");

    let plants = page("/?category=plants").await.text();
    assert_eq!(plants.matches("<li class=\"card\">").count(), 7);
    assert!(plants.contains("Pilot Cactus") && !plants.contains("<h3><a href=\"/products/tide-mug\""));

    let found = page("/?q=STONEWARE+mug").await.text();
    assert_eq!(found.matches("<li class=\"card\">").count(), 1);
    assert!(found.contains("Tide Mug"));
    assert!(page("/?q=%25").await.text().contains("Nothing on our shelves"), "a wildcard is no wildcard here");
    assert!(page("/?q=%3Cscript%3E").await.text().contains("&#60;script&#62;"));

    let product = page("/products/tide-mug").await;
    assert!(product.text().contains("€ 18.50") && product.text().contains("In stock: 140"));
    for missing in ["/products/no-such-thing", "/?category=boats", "/nowhere", "/pictures/no-such-thing.svg", "/orders/1"] {
        let answer = page(missing).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{missing}");
    }
    let lost = page("/nowhere").await;
    assert!(lost.text().contains("not on our shelves") && lost.text().contains("id=\"served-by\""));
}

#[tokio::test]
async fn every_answer_names_its_replica_and_forbids_what_no_page_needs() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    for path in ["/", "/nowhere", "/api/cart", "/api/nowhere", "/healthz", "/readyz", "/pictures/tide-mug.svg"] {
        let answer = visitor.get(&format!("{}{path}", shop.url(0))).await.unwrap();
        assert_eq!(answer.served_by(), "A", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn what_pages_refer_to_is_there_and_stays_cached() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    let home = visitor.get(&format!("{}/", shop.url(0))).await.unwrap().text();
    let mut files: Vec<&str> =
        home.split('"').filter(|text| text.starts_with("/static/") || text.starts_with("/pictures/")).collect();
    files.push("/static/5.3.0/fraunces-600.woff2");
    assert!(files.len() > 45, "{files:?}");
    for file in files {
        let url = format!("{}{file}", shop.url(0));
        let answer = visitor.get(&url).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert!(answer.header("cache-control").starts_with("public, max-age="), "{file}");
        let etag = answer.header("etag");
        let again = visitor.send(Method::GET, &url, &[("if-none-match", etag)], bytes::Bytes::new()).await.unwrap();
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{file}");
    }
    let old = visitor.get(&format!("{}/static/0000000000000000/shop.css", shop.url(0))).await.unwrap();
    assert_eq!(old.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn another_sites_page_cannot_change_a_cart() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    let url = format!("{}/cart/add", shop.url(0));
    let host = shop.url(0).strip_prefix("http://").unwrap();
    let own_origin = format!("http://{host}");
    let send = |header: (&'static str, String)| {
        let (visitor, url) = (visitor.clone(), url.clone());
        async move {
            let headers = [("content-type", "application/x-www-form-urlencoded"), (header.0, header.1.as_str())];
            visitor.send(Method::POST, &url, &headers, "sku=tide-mug&quantity=1".into()).await.unwrap().status
        }
    };
    assert_eq!(send(("origin", "https://evil.example".to_owned())).await, StatusCode::FORBIDDEN);
    assert_eq!(send(("sec-fetch-site", "cross-site".to_owned())).await, StatusCode::FORBIDDEN);
    assert!(visitor.cart(shop.url(0)).await.unwrap().lines.is_empty());
    assert_eq!(send(("origin", own_origin)).await, StatusCode::SEE_OTHER);
    assert_eq!(visitor.cart(shop.url(0)).await.unwrap().lines["tide-mug"], 1);
}

#[tokio::test]
async fn each_form_of_a_page_is_an_intention_of_its_own() {
    let shop = Shop::start(1).await;
    let home = Visitor::new().get(&format!("{}/", shop.url(0))).await.unwrap();
    let mug = Form::on(&home, "/cart/add", "value=\"tide-mug\"");
    let vase = Form::on(&home, "/cart/add", "value=\"moss-vase\"");
    assert_ne!(mug.field("token"), vase.field("token"));
}
