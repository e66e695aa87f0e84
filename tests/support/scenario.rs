//! What must hold on every site, whatever it is put together from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};

use crate::form::{self, Form};
use crate::site::Site;
use crate::traffic::Traffic;
use crate::visitor::Visitor;
use crate::wait;

/// Additions that run at once.
const CONCURRENT_ADDS: usize = 200;
/// One addition in this many may get a 503 when the machine is busy; all others are counted exactly.
const UNKNOWN_SHARE_MAX: usize = 10;
/// How often it is tried with so few unknown: a machine that looks away for longer than a deadline leaves them all so.
const ADD_TRIES_MAX: usize = 5;
/// Likewise for a slow write that a busy machine lets end before the logout.
const SLOW_TRIES_MAX: usize = 5;
/// How long a shop may take to be itself again.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Additions to one line: with the first one they stay within the shop's limit of 99 for a line.
const LINE_ADDS: usize = 98;
/// A handler of this length is still at work when the logout of the same session is done.
const SLOW_WRITE: Duration = Duration::from_millis(1500);
const PASSWORD: &str = "correct horse battery staple";

/// What one replica was told, every replica and the balancer show; no cookie ties a visitor to one of them.
///
/// # Errors
/// When a replica shows another cart.
pub async fn one_cart_on_every_replica(site: &Site) -> anyhow::Result<()> {
    let skus = site.skus().await?;
    let visitor = Visitor::new();
    for (replica, sku) in site.replicas.iter().zip(&skus) {
        let answer = visitor.add(&replica.url(), sku, 2).await?;
        ensure!(answer.served_by() == replica.name(), "{} says it is {:?}", replica.name(), answer.served_by());
    }
    ensure!(visitor.cookies().len() == 1, "one cookie is enough: {:?}", visitor.cookies().keys());
    let expected: BTreeMap<String, u32> = skus[..3].iter().map(|sku| (sku.clone(), 2)).collect();
    for replica in &site.replicas {
        let cart = visitor.cart(&replica.url()).await?;
        ensure!(cart.lines == expected, "{} shows {:?}", replica.name(), cart.lines);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        let cart = visitor.cart(site.url()).await?;
        ensure!(cart.lines == expected, "{} shows {:?}", cart.served_by, cart.lines);
        seen.insert(cart.served_by);
    }
    ensure!(seen.len() == 3, "of three replicas only {seen:?} served this visitor");
    Ok(())
}

/// Two hundred additions at once with one cookie, spread over the replicas: none is lost and none counts twice.
///
/// # Errors
/// When a quantity is not exact.
pub async fn concurrent_adds_are_exact(site: &Site) -> anyhow::Result<()> {
    let skus = site.skus().await?;
    // Few SKUs for many collisions, yet enough to stay under the limit of one line.
    let some = &skus[..8.min(skus.len())];
    for (skus, what) in [(some, "mixed SKUs"), (&skus[..1], "one SKU")] {
        let mut unknown = Vec::new();
        while unknown.last().is_none_or(|(unknown, count)| unknown * UNKNOWN_SHARE_MAX > *count) {
            ensure!(unknown.len() < ADD_TRIES_MAX, "{what}: so many of so many additions got no answer: {unknown:?}");
            unknown.push(add_at_once(site, skus).await.context(what)?);
        }
    }
    Ok(())
}

/// How many additions got no answer, and of how many.
async fn add_at_once(site: &Site, skus: &[String]) -> anyhow::Result<(usize, usize)> {
    let visitor = Visitor::new();
    // The first request makes the session, so that all of the following belong to it.
    visitor.add(&site.replicas[0].url(), &skus[0], 1).await?;
    let mut expected = BTreeMap::from([(skus[0].clone(), 1)]);
    let count = if skus.len() == 1 { LINE_ADDS } else { CONCURRENT_ADDS };
    let mut adds = Vec::new();
    for number in 0..count {
        let sku = skus[number % skus.len()].clone();
        let url = site.replicas[number % site.replicas.len()].url();
        let visitor = visitor.clone();
        adds.push(tokio::spawn(async move {
            let body = serde_json::json!({ "sku": sku, "quantity": 1 });
            let answer = visitor.json(Method::POST, &format!("{url}/api/cart/lines"), &[], &body).await;
            (sku, answer)
        }));
    }
    // By SKU, how many were not answered: the store's deadline can pass on a busy machine, and then nobody knows.
    let mut unknown: BTreeMap<String, u32> = BTreeMap::new();
    for add in adds {
        let (sku, answer) = add.await?;
        let answer = answer?;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            *unknown.entry(sku).or_insert(0) += 1;
        } else {
            answer.success()?;
            *expected.entry(sku).or_insert(0) += 1;
        }
    }
    let unknown_sum: u32 = unknown.values().sum();
    for replica in &site.replicas {
        let cart = visitor.cart(&replica.url()).await?;
        for (sku, &least) in &expected {
            let most = least + unknown.get(sku).copied().unwrap_or(0);
            let quantity = cart.lines.get(sku).copied().unwrap_or(0);
            ensure!(
                (least..=most).contains(&quantity),
                "{} shows {quantity} of {sku}, acknowledged {least}, at most {most}",
                replica.name()
            );
        }
        let strange = cart.lines.keys().find(|sku| !expected.contains_key(*sku) && !unknown.contains_key(*sku));
        ensure!(strange.is_none(), "{} shows {:?}", replica.name(), cart.lines);
    }
    Ok((unknown_sum as usize, count))
}

/// A logout on one replica while another still writes the same session: the session stays gone.
///
/// # Errors
/// When anything of it comes back.
pub async fn logout_outlives_a_slow_write(site: &Site) -> anyhow::Result<()> {
    for number in 0..SLOW_TRIES_MAX {
        if logs_out_before_a_slow_write(site, &format!("slow-{number}@example.com")).await? {
            return Ok(());
        }
    }
    bail!("each of {SLOW_TRIES_MAX} slow writes was done before the logout");
}

/// `false`: the slow write was done before the logout.
async fn logs_out_before_a_slow_write(site: &Site, email: &str) -> anyhow::Result<bool> {
    let [a, b, c] = [0, 1, 2].map(|index| site.replicas[index].url());
    let skus = site.skus().await?;
    let visitor = Visitor::new();
    form::register(&visitor, &a, email, PASSWORD).await?;
    visitor.add(&a, &skus[0], 1).await?;

    let late = visitor.fork();
    let before = late.cookies();
    // While the session lives such a write succeeds.
    let quick_url = format!("{b}/api/slow-write?ms=0");
    late.send(Method::POST, &quick_url, &[], Bytes::new()).await?.success()?;
    let slow_url = format!("{b}/api/slow-write?ms={}", SLOW_WRITE.as_millis());
    let slow = {
        let late = late.clone();
        tokio::spawn(async move { late.send(Method::POST, &slow_url, &[], Bytes::new()).await })
    };
    tokio::time::sleep(SLOW_WRITE / 3).await;
    form::log_out(&visitor, &c).await?;
    if slow.is_finished() {
        return Ok(false);
    }
    let slow = slow.await??;
    ensure!(slow.status == StatusCode::CONFLICT, "a write to a session that is gone was answered {}", slow.status);
    ensure!(late.cookies() == before, "a cookie for a session that is gone: {:?}", slow.headers);

    for replica in [&a, &b, &c] {
        let page = late.fork().get(&format!("{replica}/account")).await?;
        ensure!(!page.text().contains(email), "{replica}: still logged in after the logout");
        let cart = late.fork().cart(replica).await?;
        ensure!(cart.lines.is_empty(), "{replica}: the logged-out session still has {:?}", cart.lines);
    }
    Ok(true)
}

/// The checkout form sent to two replicas at once is one order, and stock is taken once.
///
/// # Errors
/// When there are two orders, or none, or the cart still has what was ordered.
pub async fn a_form_sent_twice_is_one_order(site: &Site) -> anyhow::Result<()> {
    let [a, b, c] = [0, 1, 2].map(|index| site.replicas[index].url());
    let skus = site.skus().await?;
    let sku = skus.last().context("no products")?;
    let visitor = Visitor::new();
    visitor.add(&a, sku, 3).await?;
    let stock_before = stock(&c, sku).await?;

    let page = visitor.page(&format!("{a}/checkout")).await?.success()?;
    let mut form = Form::find(&page, "/checkout")?;
    form.fill_the_rest("once@example.com", PASSWORD);
    ensure!(!form.value("token")?.is_empty(), "the checkout form has no idempotency token");
    let (first, second) = tokio::join!(form.submit(&visitor, &a), form.submit(&visitor, &b));
    let third = form.submit(&visitor, &c).await?.success()?;
    let orders: BTreeSet<String> =
        [first?.success()?, second?.success()?, third].iter().map(|answer| answer.header("location").to_owned()).collect();
    ensure!(orders.len() == 1, "one form, several orders: {orders:?}");
    let order = orders.first().context("no order")?;
    ensure!(order.starts_with("/orders/"), "a checkout leads to its order, not to {order:?}");

    let shown = visitor.page(&format!("{b}{order}")).await?.success()?.text();
    ensure!(shown.contains(sku) || shown.contains("/products/"), "the order does not show what was ordered:\n{shown}");
    let cart = visitor.cart(&c).await?;
    ensure!(cart.lines.is_empty(), "still in the cart after the order: {:?}", cart.lines);
    let stock_after = stock(&a, sku).await?;
    ensure!(stock_before - stock_after == 3, "stock went from {stock_before} to {stock_after}, three were ordered");
    Ok(())
}

/// What a visitor put into the cart before the login is in the user's cart after it, added to what was there.
///
/// # Errors
/// When a line is missing or counted wrongly.
pub async fn login_merges_the_cart(site: &Site) -> anyhow::Result<()> {
    let [a, b, c] = [0, 1, 2].map(|index| site.replicas[index].url());
    let skus = site.skus().await?;
    let first = Visitor::new();
    form::register(&first, &a, "merge@example.com", PASSWORD).await?;
    first.add(&a, &skus[0], 2).await?;
    first.add(&b, &skus[1], 1).await?;

    let second = Visitor::new();
    second.add(&b, &skus[1], 4).await?;
    second.add(&c, &skus[2], 1).await?;
    let anonymous = second.fork();
    form::log_in(&second, &c, "merge@example.com", PASSWORD).await?;
    ensure!(second.cookies() != anonymous.cookies(), "the session id is the same after the login");
    let expected = BTreeMap::from([(skus[0].clone(), 2), (skus[1].clone(), 5), (skus[2].clone(), 1)]);
    for (visitor, url) in [(&second, &a), (&first, &b), (&second, &c)] {
        let cart = visitor.cart(url).await?;
        ensure!(cart.lines == expected, "{url} shows {:?}, expected {expected:?}", cart.lines);
    }
    Ok(())
}

/// Each replica is killed in turn under traffic: every acknowledged change is there, on every replica.
///
/// # Errors
/// When a shopper's cart is not what the ledger says.
pub async fn carts_survive_every_replica(site: &mut Site) -> anyhow::Result<()> {
    let skus = site.skus().await?;
    let traffic = Traffic::start(site.url(), &skus, 12, 7);
    for index in 0..site.replicas.len() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        site.kill_and_replace(index, Duration::from_millis(700)).await?;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut shoppers = traffic.stop().await?;
    for shopper in &mut shoppers {
        shopper.check(site.url()).await?;
        for replica in &site.replicas {
            shopper.check(&replica.url()).await?;
        }
        ensure!(shopper.served_by.len() == 3, "a shopper was served by {:?} only", shopper.served_by);
    }
    let acknowledged: u64 = shoppers.iter().map(|shopper| shopper.acknowledged).sum();
    ensure!(acknowledged > 200, "only {acknowledged} changes were acknowledged: not much of a test");
    Ok(())
}

/// A store that does not answer: the shop still has pages, nobody is shown an empty cart, and nothing is lost.
///
/// # Errors
/// When an answer during the outage is a lie, or the cart is another one after it.
pub async fn an_outage_of_the_store_loses_nothing(site: &Site) -> anyhow::Result<()> {
    let skus = site.skus().await?;
    let visitor = Visitor::new();
    visitor.add(site.url(), &skus[0], 3).await?;
    let before = visitor.cart(site.url()).await?;

    site.freeze_store();
    let during = what_a_store_outage_shows(site, &visitor, &skus[0]).await;
    site.thaw_store();
    during?;

    let after =
        wait::until("the shop to find its store again", RECOVERY_MAX, || async { visitor.cart(site.url()).await.ok() }).await?;
    // An addition that was refused may still have reached the store; one that was acknowledged must have.
    let quantity = after.lines.get(&skus[0]).copied().unwrap_or(0);
    ensure!((3..=4).contains(&quantity), "{quantity} in the cart after the outage, 3 before");
    ensure!(after.lines.len() == 1 && after.revision >= before.revision, "{before:?} became {after:?}");
    for replica in &site.replicas {
        let url = replica.url();
        wait::until(&format!("{} to be ready again", replica.name()), RECOVERY_MAX, || async {
            let ready = Visitor::new().get(&format!("{url}/readyz")).await.ok()?;
            ready.status.is_success().then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn what_a_store_outage_shows(site: &Site, visitor: &Visitor, sku: &str) -> anyhow::Result<()> {
    let replica = site.replicas[0].url();
    let home = visitor.get(&format!("{replica}/")).await?;
    ensure!(home.status == StatusCode::OK, "the home page during an outage: {}", home.status);
    ensure!(home.text().contains("out of reach"), "the home page does not tell of the outage");
    let page = visitor.get(&format!("{replica}/cart")).await?;
    ensure!(!page.text().contains("Your cart is empty"), "an outage is shown as an empty cart");
    ensure!(page.text().contains("Nothing is lost"), "the cart's page does not tell of the outage:\n{}", page.text());
    for method in [Method::GET, Method::POST] {
        let url = if method == Method::GET { "/api/cart" } else { "/api/cart/lines" };
        let body = serde_json::json!({ "sku": sku, "quantity": 1 });
        let answer = visitor.json(method.clone(), &format!("{replica}{url}"), &[], &body).await?;
        ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "{method} {url}: {}", answer.status);
        ensure!(!answer.header("retry-after").is_empty(), "{method} {url}: no Retry-After");
        ensure!(answer.header("set-cookie").is_empty(), "{method} {url}: a cookie during an outage");
    }
    let alive = visitor.get(&format!("{replica}/healthz")).await?;
    ensure!(alive.status == StatusCode::OK, "/healthz: {}", alive.status);
    let ready = visitor.get(&format!("{replica}/readyz")).await?;
    ensure!(ready.status == StatusCode::SERVICE_UNAVAILABLE, "/readyz: {}", ready.status);
    Ok(())
}

async fn stock(shop: &str, sku: &str) -> anyhow::Result<i64> {
    let json = Visitor::new().get(&format!("{shop}/api/products")).await?.success()?.to_json()?;
    let products = json["products"].as_array().context("no list of products")?;
    let product = products.iter().find(|product| product["sku"] == sku);
    product.and_then(|product| product["stock"].as_i64()).with_context(|| format!("no stock of {sku}"))
}
