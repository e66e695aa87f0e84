use std::collections::BTreeSet;

use end_to_end::visitor::Visitor;
use http::StatusCode;

use crate::support::{Form, Shop, add, checkout, text_of};

#[tokio::test]
async fn an_order_takes_stock_and_leaves_an_empty_cart() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    let stock = shop.stock("tide-mug").await;
    add(&visitor, shop.url(0), "tide-mug", 2).await;
    add(&visitor, shop.url(0), "echeveria", 1).await;

    let bad = checkout(&visitor, shop.url(0)).await.with("postcode", "***").send(&visitor, shop.url(0)).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(bad.text().contains("id=\"postcode-mistake\"") && bad.text().contains("value=\"Ada &#38; Co\""));
    assert_eq!(shop.stock("tide-mug").await, stock, "nothing is taken for a form with mistakes");

    let done = checkout(&visitor, shop.url(0)).await.send(&visitor, shop.url(0)).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text());
    let path = done.header("location").to_owned();
    let order = visitor.get(&format!("{}{path}", shop.url(1))).await.unwrap();
    assert_eq!(order.status, StatusCode::OK);
    assert_eq!(format!("/orders/{}", text_of(&order, "order-id")), path);
    assert_eq!(text_of(&order, "order-total"), "€ 46.00");
    assert_eq!(text_of(&order, "cart-count"), "0");
    assert!(order.text().contains("Thank you, Ada &#38; Co."));
    assert_eq!(shop.stock("tide-mug").await, stock - 2);

    let history = visitor.get(&format!("{}/orders", shop.url(0))).await.unwrap();
    assert!(history.text().contains(&path));
    let stranger = Visitor::new();
    let foreign = stranger.get(&format!("{}{path}", shop.url(0))).await.unwrap();
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "somebody else's order does not exist");

    let nothing = visitor.get(&format!("{}/checkout", shop.url(0))).await.unwrap();
    assert_eq!(nothing.header("location"), "/cart");
}

fn skus_on(page: &end_to_end::visitor::Answer) -> Vec<String> {
    page.text().split("data-sku=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn cart_and_order_list_their_lines_in_one_order() {
    let shop = Shop::start(1).await;
    let visitor = Visitor::new();
    let products = visitor.get(&format!("{}/api/products", shop.url(0))).await.unwrap().to_json().unwrap();
    let mut products: Vec<(String, String)> = products["products"]
        .as_array()
        .unwrap()
        .iter()
        .map(|product| (product["name"].as_str().unwrap().to_owned(), product["sku"].as_str().unwrap().to_owned()))
        .collect();
    for (_, sku) in &products {
        visitor.add(shop.url(0), sku, 1).await.unwrap();
    }
    products.sort();
    let by_name: Vec<String> = products.into_iter().map(|(_, sku)| sku).collect();
    let cart = visitor.get(&format!("{}/cart", shop.url(0))).await.unwrap();
    assert_eq!(skus_on(&cart), by_name);
    let done = checkout(&visitor, shop.url(0)).await.send(&visitor, shop.url(0)).await;
    let order = visitor.get(&format!("{}{}", shop.url(0), done.header("location"))).await.unwrap();
    assert_eq!(skus_on(&order), by_name);
}

#[tokio::test]
async fn nothing_is_ordered_that_the_checkout_page_did_not_show() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    add(&visitor, shop.url(0), "tide-mug", 1).await;
    let form = checkout(&visitor, shop.url(0)).await;
    add(&visitor, shop.url(1), "moss-vase", 2).await;
    let stock = shop.stock("moss-vase").await;

    let again = form.send(&visitor, shop.url(0)).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text());
    assert!(again.text().contains("id=\"cart-changed\"") && again.text().contains("2 × Moss Vase"));
    assert!(again.text().contains("value=\"Ada &#38; Co\""), "nothing has to be typed again");
    assert_eq!(shop.stock("moss-vase").await, stock);

    let seen = Form::on(&again, "/checkout", "token").with("country", "Denmark");
    let done = seen.send(&visitor, shop.url(1)).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text());
    assert_eq!(shop.stock("moss-vase").await, stock - 2);
}

#[tokio::test]
async fn whoever_orders_without_the_page_owns_the_order_all_the_same() {
    let shop = Shop::start(2).await;
    // Two guests who never looked at the checkout; the form is another visitor's, with a token of its own.
    let other = Visitor::new();
    add(&other, shop.url(0), "tide-mug", 1).await;
    let form = checkout(&other, shop.url(0)).await.with("seen", "");
    let visitor = Visitor::new();
    visitor.add(shop.url(0), "tide-mug", 2).await.unwrap();
    let stock = shop.stock("tide-mug").await;
    let submits = (0..6).map(|index| {
        let (form, visitor) = (form.clone(), visitor.fork());
        let url = shop.url(index % 2).to_owned();
        async move { form.send(&visitor, &url).await }
    });
    let answers = futures_util::future::join_all(submits).await;
    assert_eq!(shop.stock("tide-mug").await, stock - 2);
    let history = visitor.get(&format!("{}/orders", shop.url(0))).await.unwrap().text();
    assert_eq!(history.matches("<li><a href=\"/orders/").count(), 1, "{history}\n{answers:?}");

    // The store stops taking writes before anybody knows whose order it would be: none is placed.
    let late = Visitor::new();
    late.add(shop.url(0), "tide-mug", 3).await.unwrap();
    let stock = shop.stock("tide-mug").await;
    let form = checkout(&other, shop.url(0)).await.with("seen", "");
    shop.redis_config("min-replicas-to-write", "1");
    let refused = form.send(&late, shop.url(0)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    assert_eq!(shop.stock("tide-mug").await, stock, "an order that nobody can see");
}

/// Also what [`crate::postgres`] runs.
pub(crate) async fn submit_many_times_at_once(shop: &Shop) {
    let visitor = Visitor::new();
    let stock = shop.stock("tide-mug").await;
    add(&visitor, shop.url(0), "tide-mug", 3).await;
    let form = checkout(&visitor, shop.url(0)).await;

    let submits = (0..12).map(|index| {
        let (form, visitor) = (form.clone(), visitor.fork());
        let url = shop.url(index % shop.replicas.len()).to_owned();
        async move { form.send(&visitor, &url).await }
    });
    let answers = futures_util::future::join_all(submits).await;
    let confirmations: BTreeSet<&str> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
            answer.header("location")
        })
        .collect();
    assert_eq!(confirmations.len(), 1, "every submit shows the same order: {confirmations:?}");
    assert!(confirmations.first().unwrap().starts_with("/orders/"));
    assert_eq!(shop.stock("tide-mug").await, stock - 3, "stock is taken once");
    assert!(visitor.cart(shop.url(0)).await.unwrap().lines.is_empty());

    // What comes into the cart later is not the order's, however often its form is sent.
    add(&visitor, shop.url(1), "tide-mug", 1).await;
    let again = form.send(&visitor, shop.url(1)).await;
    assert_eq!(again.header("location"), *confirmations.first().unwrap());
    assert_eq!(visitor.cart(shop.url(0)).await.unwrap().lines["tide-mug"], 1);
    assert_eq!(shop.stock("tide-mug").await, stock - 3);
    let history = visitor.get(&format!("{}/orders", shop.url(0))).await.unwrap().text();
    assert_eq!(history.matches("<li><a href=\"/orders/").count(), 1, "{history}");
}

#[tokio::test]
async fn a_form_submitted_many_times_at_once_is_one_order() {
    submit_many_times_at_once(&Shop::start(2).await).await;
}

/// Also what [`crate::postgres`] runs.
pub(crate) async fn sell_the_last_pieces(shop: &Shop) {
    let pieces = shop.stock("evening-armchair").await;
    let shoppers = usize::try_from(pieces).unwrap() + 5;
    let mut forms = Vec::new();
    for index in 0..shoppers {
        let visitor = Visitor::new();
        let url = shop.url(index % shop.replicas.len()).to_owned();
        // In different orders, and each with something else too: none may hold up another.
        let skus = if index % 2 == 0 { ["evening-armchair", "echeveria"] } else { ["echeveria", "evening-armchair"] };
        for sku in skus {
            add(&visitor, &url, sku, 1).await;
        }
        let form = checkout(&visitor, &url).await;
        forms.push((visitor, url, form));
    }
    let echeverias = shop.stock("echeveria").await;
    let submits = forms.iter().map(|(visitor, url, form)| async move { form.send(visitor, url).await });
    let answers = futures_util::future::join_all(submits).await;
    let sold = answers.iter().filter(|answer| answer.header("location").starts_with("/orders/")).count();
    let refused = answers.iter().filter(|answer| answer.header("location") == "/cart").count();
    assert_eq!((sold, refused), (shoppers - 5, 5), "{answers:?}");
    assert_eq!(shop.stock("evening-armchair").await, 0);
    assert_eq!(shop.stock("echeveria").await, echeverias - pieces, "a refused order takes nothing at all");

    let (visitor, url, _) = &forms[answers.iter().position(|answer| answer.header("location") == "/cart").unwrap()];
    let cart = visitor.get(&format!("{url}/cart")).await.unwrap();
    assert!(cart.text().contains("has just been sold out. Nothing was ordered."));
    assert_eq!(visitor.cart(url).await.unwrap().lines.len(), 2, "the cart is as it was");
}

#[tokio::test]
async fn no_more_is_sold_than_there_is() {
    sell_the_last_pieces(&Shop::start(2).await).await;
}

#[tokio::test]
async fn an_order_stands_when_the_cart_cannot_be_cleared_and_is_cleared_later() {
    let shop = Shop::start(2).await;
    let visitor = Visitor::new();
    add(&visitor, shop.url(0), "week-planner", 2).await;
    let form = checkout(&visitor, shop.url(0)).await;
    let stock = shop.stock("week-planner").await;

    // The store still reads, and refuses every write.
    shop.redis_config("min-replicas-to-write", "1");
    let pending = form.send(&visitor, shop.url(0)).await;
    assert_eq!(pending.status, StatusCode::OK, "{}", pending.text());
    assert!(pending.text().contains("id=\"clearing-pending\""));
    let id = text_of(&pending, "order-id");
    assert_eq!(shop.stock("week-planner").await, stock - 2);
    let same = form.send(&visitor, shop.url(1)).await;
    assert_eq!(text_of(&same, "order-id"), id);

    shop.redis_config("min-replicas-to-write", "0");
    assert_eq!(visitor.cart(shop.url(0)).await.unwrap().lines["week-planner"], 2);
    let order = visitor.get(&format!("{}/orders/{id}", shop.url(1))).await.unwrap();
    assert!(!order.text().contains("id=\"clearing-pending\""));
    assert!(visitor.cart(shop.url(0)).await.unwrap().lines.is_empty());
    assert_eq!(shop.stock("week-planner").await, stock - 2);
}

#[tokio::test]
async fn a_token_of_somebody_elses_order_shows_nothing() {
    let shop = Shop::start(1).await;
    let (first, second) = (Visitor::new(), Visitor::new());
    add(&first, shop.url(0), "tide-mug", 1).await;
    let form = checkout(&first, shop.url(0)).await;
    form.send(&first, shop.url(0)).await.success().unwrap();
    add(&second, shop.url(0), "tide-mug", 1).await;
    let stolen = checkout(&second, shop.url(0)).await.with("token", form.field("token"));
    let answer = stolen.send(&second, shop.url(0)).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(!answer.text().contains("Analytical Row"));
}
