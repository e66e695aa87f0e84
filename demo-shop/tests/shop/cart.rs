use end_to_end::visitor::Visitor;
use http::{Method, StatusCode};

use crate::support::{Form, Shop, add, text_of};

#[tokio::test]
async fn a_cart_follows_its_visitor_over_the_replicas() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    add(&visitor, shop.url(0), "tide-mug", 2).await;
    add(&visitor, shop.url(1), "moss-vase", 1).await;

    let cart = visitor.get(&format!("{}/cart", shop.url(1))).await.unwrap();
    assert_eq!(text_of(&cart, "served-by"), "B");
    assert_eq!(text_of(&cart, "cart-count"), "3");
    assert!(!cart.text().contains("class=\"badge quiet\""));
    assert_eq!(text_of(&cart, "cart-total"), "€ 79.00");
    assert_eq!(text_of(&cart, "session-state"), "guest");
    assert!(cart.text().contains("1 × Moss Vase is in your cart."));
    let again = visitor.get(&format!("{}/cart", shop.url(0))).await.unwrap();
    assert!(!again.text().contains("is in your cart."), "a message is shown once");

    let update = Form::on(&again, "/cart/update", "tide-mug").with("quantity", "5");
    assert_eq!(update.send(&visitor, shop.url(0)).await.header("location"), "/cart");
    let cart = visitor.get(&format!("{}/cart", shop.url(1))).await.unwrap();
    assert_eq!(text_of(&cart, "cart-count"), "6");

    Form::on(&cart, "/cart/remove", "moss-vase").send(&visitor, shop.url(1)).await.success().unwrap();
    Form::on(&cart, "/cart/update", "tide-mug").with("quantity", "0").send(&visitor, shop.url(0)).await.success().unwrap();
    let cart = visitor.get(&format!("{}/cart", shop.url(0))).await.unwrap();
    assert!(cart.text().contains("id=\"cart-empty\""));
}

#[tokio::test]
async fn a_form_sent_twice_counts_once() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    let page = visitor.get(&format!("{}/products/rice-bowl", shop.url(0))).await.unwrap();
    let form = Form::on(&page, "/cart/add", "rice-bowl").with("quantity", "3");
    form.send(&visitor, shop.url(0)).await.success().unwrap();
    form.send(&visitor, shop.url(1)).await.success().unwrap();
    assert_eq!(visitor.cart(shop.url(0)).await.unwrap().lines["rice-bowl"], 3);
    let page = visitor.get(&format!("{}/products/rice-bowl", shop.url(0))).await.unwrap();
    assert!(page.text().contains("counts once"));
    assert!(page.text().contains("You have 3 in your"));
}

#[tokio::test]
async fn what_cannot_be_in_a_cart_is_refused_in_words() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    let send = |fields: &'static [(&'static str, &'static str)]| {
        let (visitor, url) = (visitor.clone(), format!("{}/cart/add", shop.url(0)));
        async move { visitor.form(&url, fields).await.unwrap() }
    };
    assert_eq!(send(&[("sku", "no-such-thing"), ("quantity", "1")]).await.status, StatusCode::NOT_FOUND);
    let none = send(&[("sku", "tide-mug"), ("quantity", "0")]).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(none.text().contains("at least one"));
    let many = send(&[("sku", "tide-mug"), ("quantity", "4000000000")]).await;
    assert_eq!(many.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(many.text().contains("at most"));
    assert!(!many.text().contains(">Back</a>"), "the browser did not say where the form stands");
    let (url, body) = (shop.url(0), "sku=tide-mug&quantity=100");
    for (from, leads_back) in [(url, true), ("http://evil.example", false)] {
        let from = format!("{from}/products/tide-mug?a=%22b");
        let headers = [("referer", from.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        let many = visitor.send(Method::POST, &format!("{url}/cart/add"), &headers, body.into()).await.unwrap();
        assert_eq!(many.status, StatusCode::UNPROCESSABLE_ENTITY);
        let way = r#"<a href="/products/tide-mug?a=%22b" role="button">Back</a>"#;
        assert_eq!(many.text().contains(way), leads_back, "{}", many.text());
        assert_eq!(many.text().contains(">Back</a>"), leads_back);
    }
    let odd = send(&[("sku", "tide-mug"), ("quantity", "many")]).await;
    assert_eq!(odd.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(odd.text().contains("id=\"served-by\""), "a page, not bare text");
    assert!(visitor.cart(shop.url(0)).await.unwrap().lines.is_empty());

    let led_away = send(&[("sku", "tide-mug"), ("quantity", "1"), ("next", "//evil.example/")]).await;
    assert_eq!(led_away.header("location"), "/cart");
}
