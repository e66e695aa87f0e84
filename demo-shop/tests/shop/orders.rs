use std::collections::BTreeSet;

use end_to_end::visitor::Visitor;
use http::StatusCode;

use crate::support::{Shop, add, checkout, text_of};

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
