//! The shop in a real Chromium, as a shopper uses it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use end_to_end::browser::Browser;
use end_to_end::server::{Signal, kill};
use end_to_end::shop::{Shop, ShopOptions};
use end_to_end::site::{Balancer, Database, Site, Store};
use end_to_end::visitor::Visitor;
use end_to_end::{site, wait};

const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery staple";

type Lines = BTreeMap<String, u32>;

/// The lines on the cart's or an order's page.
async fn lines(browser: &Browser) -> Lines {
    let lines = "Object.fromEntries([...document.querySelectorAll('li.line[data-sku]')]\
                 .map(line => [line.dataset.sku, Number(line.dataset.quantity)]))";
    serde_json::from_value(browser.evaluate(lines).await.unwrap()).unwrap()
}

/// The number at the cart's symbol in the header.
async fn badge(browser: &Browser) -> String {
    browser.text_of("#cart-count").await.unwrap()
}

async fn badge_becomes(browser: &Browser, count: u32) {
    let what = format!("{count} at the cart's symbol");
    let becomes =
        wait::until(&what, Duration::from_secs(10), || async { (badge(browser).await == count.to_string()).then_some(()) });
    becomes.await.unwrap();
}

/// The process that served the page: its name and id.
async fn served_by(browser: &Browser) -> (String, u32) {
    let name = browser.text_of("#served-by").await.unwrap();
    let text = browser.text_of(".served").await.unwrap();
    let pid = text.split("(pid ").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
    (name, pid.parse().unwrap_or_else(|_| panic!("no process id in {text:?}")))
}

async fn add_product(browser: &Browser, shop: &str, sku: &str, quantity: u32) {
    browser.open(&format!("{shop}/products/{sku}")).await.unwrap();
    browser.fill("form.add #quantity", &quantity.to_string()).await.unwrap();
    browser.follow("form.add button").await.unwrap();
}

async fn fill_address(browser: &Browser) {
    for (field, text) in [
        ("#email", EMAIL),
        ("#recipient", "Ada Lovelace"),
        ("#street", "12 St James's Square"),
        ("#postcode", "10115"),
        ("#city", "Berlin"),
    ] {
        browser.fill(field, text).await.unwrap();
    }
    browser.click("#country option:nth-child(2)").await.unwrap();
}

/// Browses, adds three products, loses the serving replica three times, registers, logs in, checks out.
async fn go_shopping(browser: &Browser, shop: &Shop) {
    let url = shop.url();
    let skus = site::skus(url).await.unwrap();
    browser.set_viewport(DESK.0, DESK.1).await.unwrap();

    // Browse and search as a visitor does.
    browser.open(url).await.unwrap();
    assert!(browser.count("li.card").await.unwrap() >= 40);
    browser.follow("nav.shelves li:nth-child(2) a").await.unwrap();
    assert!(browser.url().await.unwrap().query().unwrap_or_default().contains("category="));
    assert!(browser.count("li.card").await.unwrap() < 20);
    browser.fill("#q", "mug").await.unwrap();
    browser.follow("form.search button").await.unwrap();
    browser.says("found").await.unwrap();
    browser.follow("li.card h3 a").await.unwrap();
    browser.find("article.product h1").await.unwrap();

    // Three products, one of them straight from a card.
    add_product(browser, url, &skus[0], 2).await;
    badge_becomes(browser, 2).await;
    add_product(browser, url, &skus[1], 1).await;
    badge_becomes(browser, 3).await;
    browser.open(url).await.unwrap();
    browser.follow(&format!("li.card form:has(input[value='{}']) button", skus[2])).await.unwrap();
    badge_becomes(browser, 4).await;
    browser.open(&format!("{url}/cart")).await.unwrap();
    let mut expected = Lines::from([(skus[0].clone(), 2), (skus[1].clone(), 1), (skus[2].clone(), 1)]);
    assert_eq!(lines(browser).await, expected);

    // The process that showed the cart dies; the next page has the same cart, from another process.
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let (name, pid) = served_by(browser).await;
        kill(pid, Signal::KILL);
        browser.reload().await.unwrap();
        assert_eq!(lines(browser).await, expected, "after the death of replica {name}");
        let (next_name, next_pid) = served_by(browser).await;
        assert_ne!(next_pid, pid, "a killed process served a page");
        seen.extend([name.clone(), next_name]);
        shop.replaced(&name, pid).await.unwrap();
    }
    assert!(seen.len() > 1, "only {seen:?} served this browser");

    // Change and remove.
    let quantity = format!("#q-{}", skus[0]);
    browser.enter(&quantity, "3").await.unwrap();
    badge_becomes(browser, 5).await;
    browser.follow(&format!("li.line[data-sku='{}'] form.remove button", skus[1])).await.unwrap();
    badge_becomes(browser, 4).await;
    expected.insert(skus[0].clone(), 3);
    expected.remove(&skus[1]);
    browser.open(&format!("{url}/cart")).await.unwrap();
    assert_eq!(lines(browser).await, expected);

    // The anonymous cart becomes the account's.
    browser.open(&format!("{url}/register?next=/cart")).await.unwrap();
    browser.fill("#name", "Ada").await.unwrap();
    browser.fill("#email", EMAIL).await.unwrap();
    browser.fill("#password", PASSWORD).await.unwrap();
    browser.follow(".sheet button[type=submit]").await.unwrap();
    browser.says("Welcome, Ada.").await.unwrap();
    assert_eq!(lines(browser).await, expected);

    // Logged out there is no cart; what is collected then is added at the next login.
    browser.open(&format!("{url}/account")).await.unwrap();
    browser.follow("form.log-out button").await.unwrap();
    badge_becomes(browser, 0).await;
    add_product(browser, url, &skus[0], 1).await;
    badge_becomes(browser, 1).await;
    add_product(browser, url, &skus[3], 2).await;
    badge_becomes(browser, 3).await;
    browser.open(&format!("{url}/login?next=/cart")).await.unwrap();
    browser.fill("#email", EMAIL).await.unwrap();
    browser.fill("#password", PASSWORD).await.unwrap();
    browser.follow(".sheet button[type=submit]").await.unwrap();
    browser.says("Welcome back, Ada.").await.unwrap();
    expected.insert(skus[0].clone(), 4);
    expected.insert(skus[3].clone(), 2);
    assert_eq!(lines(browser).await, expected);

    // Check out.
    browser.follow(".summary a[href='/checkout']").await.unwrap();
    fill_address(browser).await;
    browser.follow("form.address button[type=submit]").await.unwrap();
    browser.says("Thank you, Ada Lovelace.").await.unwrap();
    assert_eq!(lines(browser).await, expected, "the order has what the cart had");
    badge_becomes(browser, 0).await;
    let order = browser.text_of("#order-id").await.unwrap();
    browser.open(&format!("{url}/orders")).await.unwrap();
    browser.find(&format!("a[href='/orders/{order}']")).await.unwrap();
    browser.open(&format!("{url}/cart")).await.unwrap();
    browser.find("#cart-empty").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_survives_the_replica_that_served_it() {
    let shop = Shop::start(&ShopOptions::default()).await.unwrap();
    let browser = Browser::start().await.unwrap();
    go_shopping(&browser, &shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_works_without_javascript() {
    let shop = Shop::start(&ShopOptions::default()).await.unwrap();
    let browser = Browser::start_without_javascript().await.unwrap();
    browser.open(&format!("{}/cart", shop.url())).await.unwrap();
    go_shopping(&browser, &shop).await;
}

/// Takes a picture at both widths and checks that nothing sticks out of the phone's side.
async fn look(browser: &Browser, name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (kind, (width, height)) in [("1280", DESK), ("390", PHONE)] {
        browser.set_viewport(width, height).await.unwrap();
        browser.screenshot(&format!("{name}-{kind}")).await.unwrap();
        let wide = browser.evaluate("document.documentElement.scrollWidth").await.unwrap();
        if wide.as_u64().unwrap() > u64::from(width) {
            let culprits = browser
                .evaluate(
                    "[...document.querySelectorAll('body *')]\
                     .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)\
                     .slice(0, 5).map(e => e.tagName + '.' + e.className)",
                )
                .await
                .unwrap();
            faults.push(format!("{name} is {wide} px wide at {width} px: {culprits}"));
        }
        // A picture without a size it was loaded with was not loaded.
        let broken =
            browser.evaluate("[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)").await.unwrap();
        if !broken.as_array().unwrap().is_empty() {
            faults.push(format!("{name}: pictures that did not load: {broken}"));
        }
    }
    faults
}

/// The same account on a phone.
async fn log_in_elsewhere(shop: &str) -> Visitor {
    let phone = Visitor::new();
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("user-agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) Version/26.0 Mobile/15E148 Safari/604.1"),
    ];
    let body = format!("email={EMAIL}&password={}", PASSWORD.replace(' ', "+"));
    let answer = phone.send(http::Method::POST, &format!("{shop}/login"), &headers, body.into()).await.unwrap();
    assert_eq!(answer.header("location"), "/account", "{}", answer.text());
    phone
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_desk_and_a_phone() {
    let site = Site::start(Store::Redis, Database::Sqlite, Balancer::Own).await.unwrap();
    let url = site.url();
    let skus = site.skus().await.unwrap();
    let browser = Browser::start().await.unwrap();
    let mut faults = Vec::new();

    for (name, path) in [
        ("home", "/".to_owned()),
        ("category", "/?category=plants".to_owned()),
        ("search", "/?q=lamp".to_owned()),
        ("search-nothing", "/?q=zzzz".to_owned()),
        ("product", format!("/products/{}", skus[0])),
        ("cart-empty", "/cart".to_owned()),
        ("login", "/login".to_owned()),
        ("register", "/register".to_owned()),
        ("orders-none", "/orders".to_owned()),
        ("not-found", "/no/such/page".to_owned()),
    ] {
        browser.open(&format!("{url}{path}")).await.unwrap();
        faults.extend(look(&browser, name).await);
    }

    browser.set_viewport(DESK.0, DESK.1).await.unwrap();
    browser.open(&format!("{url}/login")).await.unwrap();
    browser.fill("#email", "nobody@example.com").await.unwrap();
    browser.fill("#password", "wrong password").await.unwrap();
    browser.follow(".sheet button[type=submit]").await.unwrap();
    browser.find("#mistake").await.unwrap();
    faults.extend(look(&browser, "login-mistake").await);

    for (sku, quantity) in skus.iter().zip([1, 2, 3]) {
        add_product(&browser, url, sku, quantity).await;
    }
    badge_becomes(&browser, 6).await;
    faults.extend(look(&browser, "product-added").await);
    for (name, path) in [("cart", "/cart"), ("checkout", "/checkout")] {
        browser.open(&format!("{url}{path}")).await.unwrap();
        faults.extend(look(&browser, name).await);
    }
    browser.set_viewport(DESK.0, DESK.1).await.unwrap();
    fill_address(&browser).await;
    // The browser would keep the mistake to itself; the shop must find it too.
    browser.evaluate("document.querySelector('form.address').noValidate = true").await.unwrap();
    browser.fill("#email", "no address").await.unwrap();
    browser.follow("form.address button[type=submit]").await.unwrap();
    browser.find("#email-mistake").await.unwrap();
    faults.extend(look(&browser, "checkout-mistake").await);

    browser.open(&format!("{url}/register")).await.unwrap();
    browser.fill("#name", "Ada Lovelace").await.unwrap();
    browser.fill("#email", EMAIL).await.unwrap();
    browser.fill("#password", PASSWORD).await.unwrap();
    browser.follow(".sheet button[type=submit]").await.unwrap();
    browser.says("Welcome, Ada Lovelace.").await.unwrap();
    browser.set_viewport(DESK.0, DESK.1).await.unwrap();
    browser.open(&format!("{url}/checkout")).await.unwrap();
    fill_address(&browser).await;
    browser.follow("form.address button[type=submit]").await.unwrap();
    browser.says("Thank you, Ada Lovelace.").await.unwrap();
    faults.extend(look(&browser, "order").await);
    let phone = log_in_elsewhere(url).await;
    for (name, path) in [("orders", "/orders"), ("account", "/account")] {
        browser.open(&format!("{url}{path}")).await.unwrap();
        faults.extend(look(&browser, name).await);
    }
    assert_eq!(browser.count(".devices li").await.unwrap(), 2);
    browser.says("Safari on iPhone").await.unwrap();
    assert_eq!(phone.get(&format!("{url}/account")).await.unwrap().status, http::StatusCode::OK);
    browser.follow("form[action='/account/devices/log-out-others'] button").await.unwrap();
    browser.says("One other device is logged out.").await.unwrap();
    assert_eq!(browser.count(".devices li").await.unwrap(), 1);
    assert_eq!(phone.get(&format!("{url}/account")).await.unwrap().header("location"), "/login?next=/account");
    browser.open(&format!("{url}/orders")).await.unwrap();
    browser.says("Ada Lovelace").await.unwrap();

    // The store does not answer: pages say so.
    add_product(&browser, url, &skus[1], 1).await;
    badge_becomes(&browser, 1).await;
    site.freeze_store();
    for (name, path) in [("home-away", "/"), ("cart-away", "/cart")] {
        browser.open(&format!("{url}{path}")).await.unwrap();
        browser.says("Nothing is lost").await.unwrap();
        faults.extend(look(&browser, name).await);
    }
    site.thaw_store();
    browser.open(&format!("{url}/cart")).await.unwrap();
    browser.find("li.line").await.unwrap();

    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
