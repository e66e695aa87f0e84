//! One virtual shopper: wanders through the shop, and keeps the books.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, header};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::load_test::browser::{Answer, Ask, Browser};
use crate::load_test::canary::{Canary, Shelves};
use crate::load_test::cart_page;
use crate::load_test::forms::{self, Form, percent_encode};
use crate::load_test::journey::{Action, Chance};
use crate::load_test::ledger::{Change, Fault, Ledger, SeenCart};
use crate::load_test::limits::{BEHIND_MIN, LAST_LOOK_TIME_MAX, QUANTITY_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, RETRY_TIME_MAX};
use crate::load_test::recorder::Recorder;

/// When a shopper comes, how fast it acts, and when it leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) arrival: Instant,
    pub(crate) end: Instant,
    /// Mean time between two actions.
    pub(crate) think: Duration,
}

pub(crate) struct Shopper {
    chance: Chance,
    browser: Browser,
    ledger: Ledger,
    canary: Canary,
    shelves: Arc<Shelves>,
    recorder: Arc<Recorder>,
}

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Acknowledged,
    /// The shop said no, with this status.
    Refused(u16),
    Unknown,
}

impl Shopper {
    pub(crate) fn new(index: u32, seed: u64, origin: Arc<str>, shelves: Arc<Shelves>, recorder: Arc<Recorder>) -> Self {
        let canary = shelves.canary(index);
        Self {
            chance: Chance::new(seed, index),
            browser: Browser::new(origin, Arc::clone(&recorder)),
            ledger: Ledger::new(index, canary.clone()),
            canary,
            shelves,
            recorder,
        }
    }

    /// Shops until the schedule's end or `ending`, looks at the cart a last time, and tells how many replicas it met.
    pub(crate) async fn shop(mut self, schedule: Schedule, mut ending: watch::Receiver<bool>) -> anyhow::Result<usize> {
        let mut intended = schedule.arrival;
        let mut is_first = true;
        while intended < schedule.end && Instant::now() < schedule.end {
            tokio::select! {
                () = sleep_until(intended) => {}
                _ = ending.wait_for(|ending| *ending) => break,
            }
            if is_first {
                self.release_canary(intended).await?;
                is_first = false;
            } else {
                let action = self.chance.action();
                self.act(action, intended).await;
            }
            self.note_cookies();
            // The plan goes on from the plan and not from the answer, so that a slow shop delays nothing unseen.
            intended += self.chance.think(schedule.think);
        }
        if !*ending.borrow() {
            self.count_not_begun(intended, &schedule);
        }
        if !is_first {
            self.last_look().await;
        }
        Ok(self.browser.instances.len())
    }

    /// Counts what was planned and not begun, because the shop was too slow for the plan.
    fn count_not_begun(&mut self, mut intended: Instant, schedule: &Schedule) {
        let mut count = 0;
        while intended + BEHIND_MIN < schedule.end {
            count += 1;
            intended += self.chance.think(schedule.think);
        }
        self.recorder.count(|operations| operations.not_begun += count);
    }

    async fn release_canary(&mut self, intended: Instant) -> anyhow::Result<()> {
        let Canary { sku, quantity } = self.canary.clone();
        match self.add(&sku, quantity, intended).await {
            Settled::Refused(status) => anyhow::bail!(
                "the shop refused {quantity} × {sku} with status {status}: its limits are too low for the canaries of this many \
                 shoppers; take fewer with --shoppers"
            ),
            Settled::Acknowledged | Settled::Unknown => Ok(()),
        }
    }

    async fn act(&mut self, action: Action, intended: Instant) {
        match action {
            Action::Home => self.page("/".to_owned(), intended).await,
            Action::Category => {
                let category = self.chance.category();
                self.page(format!("/?category={category}"), intended).await;
            }
            Action::Search => {
                let search = percent_encode(self.chance.search());
                self.page(format!("/?q={search}"), intended).await;
            }
            Action::Product => {
                if let Some(sku) = self.chance.pick(&self.shelves.shopping) {
                    let path = product_path(sku);
                    self.page(path, intended).await;
                }
            }
            Action::CartPage => self.cart_page(intended).await,
            Action::ListProducts => self.page("/api/products".to_owned(), intended).await,
            Action::ReadCart => self.read_cart(intended, false).await.map_or((), drop),
            Action::Add => {
                if let Some(sku) = self.product_to_add() {
                    let quantity = self.chance.quantity();
                    self.add(&sku, quantity, intended).await;
                }
            }
            Action::Set => {
                if let Some(sku) = self.line_to_change() {
                    let quantity = self.chance.new_quantity();
                    let ask = self.api(Method::PUT, &line_path(&sku), format!("{{\"quantity\":{quantity}}}"));
                    self.settle(&sku, Change::Set(quantity), ask, intended).await;
                }
            }
            Action::Remove => {
                if let Some(sku) = self.line_to_change() {
                    let ask = self.api(Method::DELETE, &line_path(&sku), String::new());
                    self.settle(&sku, Change::Remove, ask, intended).await;
                }
            }
            Action::AddByForm => {
                if let Some(sku) = self.product_to_add() {
                    let quantity = self.chance.quantity();
                    let page = product_path(&sku);
                    self.by_form(&page, "/cart/add", &sku, Change::Add(quantity), intended).await;
                }
            }
            Action::UpdateByForm => {
                if let Some(sku) = self.line_to_change() {
                    let quantity = self.chance.new_quantity();
                    self.by_form("/cart", "/cart/update", &sku, Change::Set(quantity), intended).await;
                }
            }
            Action::RemoveByForm => {
                if let Some(sku) = self.line_to_change() {
                    self.by_form("/cart", "/cart/remove", &sku, Change::Remove, intended).await;
                }
            }
        }
    }

    async fn page(&mut self, path: String, intended: Instant) {
        let _ = self.browser.exchange(&Ask::get(path), intended).await;
    }

    /// Looks at the cart's page, and compares what it shows with the ledger.
    async fn cart_page(&mut self, intended: Instant) {
        if let Ok(answer) = self.browser.exchange(&Ask::get("/cart"), intended).await
            && answer.status.is_success()
            && let Some(seen) = cart_page::read(&answer.text())
        {
            self.compare(&seen, false);
        }
    }

    async fn add(&mut self, sku: &str, quantity: u32, intended: Instant) -> Settled {
        let body = serde_json::json!({ "sku": sku, "quantity": quantity }).to_string();
        let ask = self.api(Method::POST, "/api/cart/lines", body);
        self.settle(sku, Change::Add(quantity), ask, intended).await
    }

    /// Looks at a page, fills in the form that it has for `sku`, sends it, and follows the redirect.
    async fn by_form(&mut self, page: &str, action: &str, sku: &str, change: Change, intended: Instant) {
        let Ok(answer) = self.browser.exchange(&Ask::get(page), intended).await else {
            return;
        };
        // Without the form there is nothing to send: the page tells of a cart out of reach, most likely.
        let Some(mut form) = forms::find(&answer.text(), action, sku) else {
            return;
        };
        if let Change::Add(quantity) | Change::Set(quantity) = change {
            form.set("quantity", quantity.to_string());
        }
        let ask = of_form(&form);
        if self.settle(sku, change, ask, Instant::now()).await == Settled::Acknowledged {
            self.cart_page(Instant::now()).await;
        }
    }

    /// Sends a change until its outcome is known. Every try carries the same key, so it counts once.
    async fn settle(&mut self, sku: &str, change: Change, ask: Ask, intended: Instant) -> Settled {
        let give_up = Instant::now() + RETRY_TIME_MAX;
        let mut pause = RETRY_PAUSE_MIN;
        let mut intended = intended;
        let mut may_be_done = false;
        loop {
            match self.browser.exchange(&ask, intended).await {
                Ok(answer) if answer.status.is_success() || answer.status.is_redirection() => {
                    self.ledger.acknowledge(sku, change);
                    let stale = revision(&answer).and_then(|revision| self.ledger.note_revision(revision));
                    self.recorder.report(stale);
                    self.recorder.acknowledged();
                    return Settled::Acknowledged;
                }
                Ok(answer) if answer.status.is_client_error() => {
                    if may_be_done {
                        self.ledger.leave_unknown(sku, change);
                    }
                    self.recorder.count(|operations| operations.refused += 1);
                    return Settled::Refused(answer.status.as_u16());
                }
                Ok(_) | Err(_) => may_be_done = true,
            }
            if Instant::now() + pause >= give_up {
                self.ledger.leave_unknown(sku, change);
                self.recorder.count(|operations| operations.unknown += 1);
                return Settled::Unknown;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
            intended = Instant::now();
            self.recorder.count(|operations| operations.repeated += 1);
        }
    }

    /// Reads the whole cart and compares it with the ledger. `None` when it could not be read.
    async fn read_cart(&mut self, intended: Instant, is_last: bool) -> Option<()> {
        let answer = self.browser.exchange(&Ask::get("/api/cart"), intended).await.ok()?;
        if !answer.status.is_success() {
            return None;
        }
        let cart: CartJson = serde_json::from_slice(&answer.body).ok()?;
        let mut seen = SeenCart { revision: cart.revision, lines: BTreeMap::new() };
        for line in cart.lines {
            *seen.lines.entry(line.sku).or_default() += line.quantity;
        }
        self.compare(&seen, is_last);
        Some(())
    }

    fn compare(&mut self, seen: &SeenCart, is_last: bool) {
        let findings = self.ledger.check(seen, &self.shelves, is_last);
        self.recorder.report(findings);
        self.recorder.count(|operations| operations.carts_compared += 1);
    }

    /// The cart at the end decides; it is asked for until it comes.
    async fn last_look(&mut self) {
        self.browser.is_on_record = false;
        let give_up = Instant::now() + LAST_LOOK_TIME_MAX;
        while self.read_cart(Instant::now(), true).await.is_none() {
            if Instant::now() >= give_up {
                let finding = self.ledger.finding(Fault::Unread, "the cart could not be read at the end");
                self.recorder.report([finding]);
                break;
            }
            sleep(RETRY_PAUSE_MAX).await;
        }
        self.note_cookies();
    }

    fn note_cookies(&mut self) {
        for name in std::mem::take(&mut self.browser.replaced_cookies) {
            let finding = self.ledger.finding(Fault::NewSession, format!("the cookie {name} was replaced"));
            self.recorder.report([finding]);
        }
    }

    fn product_to_add(&mut self) -> Option<String> {
        let sku = self.chance.pick(&self.shelves.shopping)?;
        (!self.ledger.is_uncertain(sku) && self.ledger.quantity(sku) < QUANTITY_MAX).then(|| sku.clone())
    }

    fn line_to_change(&mut self) -> Option<String> {
        let lines: Vec<&str> = self.ledger.changeable().collect();
        self.chance.pick(&lines).map(|sku| (*sku).to_owned())
    }

    fn api(&mut self, method: Method, path: &str, body: String) -> Ask {
        Ask {
            method,
            path: path.to_owned(),
            content_type: (!body.is_empty()).then_some("application/json"),
            idempotency_key: Some(self.chance.idempotency_key()),
            body,
        }
    }
}

#[derive(Debug, Deserialize)]
struct CartJson {
    revision: u64,
    lines: Vec<LineJson>,
}

#[derive(Debug, Deserialize)]
struct LineJson {
    sku: String,
    quantity: u32,
}

#[derive(Debug, Deserialize)]
struct ChangedJson {
    revision: u64,
}

/// The revision in the answer to a change; a redirect has none.
fn revision(answer: &Answer) -> Option<u64> {
    let content_type = answer.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !content_type.starts_with("application/json") {
        return None;
    }
    serde_json::from_slice::<ChangedJson>(&answer.body).ok().map(|changed| changed.revision)
}

fn of_form(form: &Form) -> Ask {
    Ask {
        method: Method::POST,
        path: form.action.clone(),
        content_type: Some("application/x-www-form-urlencoded"),
        idempotency_key: None,
        body: form.encode(),
    }
}

fn product_path(sku: &str) -> String {
    format!("/products/{}", percent_encode(sku))
}

fn line_path(sku: &str) -> String {
    format!("/api/cart/lines/{}", percent_encode(sku))
}
