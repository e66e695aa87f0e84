//! Shoppers that change their carts all the time and know what must be in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::visitor::{Answer, Visitor};

/// A line is set back when it could grow past this, well under the shop's own limit.
const QUANTITY_MAX: u32 = 40;
/// How long one change may be tried again; a replica is replaced in less.
const RETRY_MAX: Duration = Duration::from_secs(20);
/// Pause between two tries, and between two requests of one shopper: the machine also runs the shop.
const PAUSE: Duration = Duration::from_millis(10);

/// Shoppers at work.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    shoppers: Vec<JoinHandle<anyhow::Result<Shopper>>>,
}

impl Traffic {
    /// Sends `shoppers` shoppers to `shop`; each has a cart of its own. The same `seed` makes the same choices.
    pub fn start(shop: &str, skus: &[String], shoppers: u64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shoppers = (0..shoppers)
            .map(|number| {
                let shopper = Shopper::new(shop, skus, seed.wrapping_add(number));
                tokio::spawn(shopper.shop_until(Arc::clone(&stop)))
            })
            .collect();
        Self { stop, shoppers }
    }

    /// Lets every shopper finish the change at hand and returns them.
    ///
    /// # Errors
    /// When a shopper met a cart that was wrong, or a change was never acknowledged.
    pub async fn stop(self) -> anyhow::Result<Vec<Shopper>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut finished = Vec::new();
        for (number, shopper) in self.shoppers.into_iter().enumerate() {
            let shopper = shopper.await.context("a shopper panicked")?;
            finished.push(shopper.with_context(|| format!("shopper {number}"))?);
        }
        Ok(finished)
    }
}

/// One shopper and the ledger of what the shop acknowledged.
#[derive(Debug)]
pub struct Shopper {
    visitor: Visitor,
    shop: String,
    skus: Vec<String>,
    choices: StdRng,
    ledger: Ledger,
    /// Changes that the shop acknowledged.
    pub acknowledged: u64,
    /// Requests that had no answer, or an answer with a status of 500 and up: their effect is unknown.
    pub unanswered: u64,
    /// The replicas that answered.
    pub served_by: BTreeSet<String>,
    revision: u64,
}

/// Quantity by SKU, as a range: an unanswered change without an idempotency key may have counted or not.
type Ledger = BTreeMap<String, (u32, u32)>;

impl Shopper {
    fn new(shop: &str, skus: &[String], seed: u64) -> Self {
        Self {
            visitor: Visitor::new(),
            shop: shop.to_owned(),
            skus: skus.to_vec(),
            choices: StdRng::seed_from_u64(seed),
            ledger: Ledger::new(),
            acknowledged: 0,
            unanswered: 0,
            served_by: BTreeSet::new(),
            revision: 0,
        }
    }

    /// Compares the cart that `shop`, the balancer or any one replica, shows with the ledger.
    ///
    /// # Errors
    /// When a line is missing, is too many, or the revision went back.
    pub async fn check(&mut self, shop: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        let cart = loop {
            match self.visitor.cart(shop).await {
                Ok(cart) => break cart,
                Err(error) if started.elapsed() > RETRY_MAX => return Err(error),
                Err(_) => {
                    self.unanswered += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        ensure!(cart.revision >= self.revision, "the revision went from {} back to {}", self.revision, cart.revision);
        self.revision = cart.revision;
        for (sku, &(least, most)) in &self.ledger {
            let quantity = cart.lines.get(sku).copied().unwrap_or(0);
            ensure!(
                (least..=most).contains(&quantity),
                "{sku}: {quantity} in the cart, {least} to {most} acknowledged; after {} changes, {} unanswered, read from {}",
                self.acknowledged,
                self.unanswered,
                cart.served_by
            );
        }
        let strange: Vec<_> = cart.lines.keys().filter(|sku| !self.ledger.contains_key(*sku)).collect();
        ensure!(strange.is_empty(), "never put into the cart: {strange:?}");
        Ok(())
    }

    async fn shop_until(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        while !stop.load(Ordering::Relaxed) {
            let sku = self.skus[self.choices.random_range(0..self.skus.len())].clone();
            let (least, most) = self.ledger.get(&sku).copied().unwrap_or_default();
            match self.choices.random_range(0..20) {
                _ if most >= QUANTITY_MAX => self.set(&sku, 1).await?,
                0..2 => self.set(&sku, self.ledger.len() as u32 + 1).await?,
                2 if least > 0 => self.remove(&sku).await?,
                3..8 => self.add(&sku).await?,
                8..12 => {
                    let shop = self.shop.clone();
                    self.check(&shop).await?;
                }
                _ => self.add_once(&sku).await?,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self)
    }

    /// Without a key there is no second try: who tries again might add twice.
    async fn add(&mut self, sku: &str) -> anyhow::Result<()> {
        let body = json!({ "sku": sku, "quantity": 1 });
        let url = format!("{}/api/cart/lines", self.shop);
        let result = self.visitor.json(Method::POST, &url, &[], &body).await;
        let line = self.ledger.entry(sku.to_owned()).or_default();
        line.1 += 1;
        match result {
            Ok(answer) if answer.status.is_success() => {
                line.0 += 1;
                self.note(&answer);
            }
            Ok(answer) if !answer.status.is_server_error() => {
                answer.success()?;
                bail!("POST {url}: neither a success nor an error");
            }
            Ok(_) | Err(_) => self.unanswered += 1,
        }
        Ok(())
    }

    async fn add_once(&mut self, sku: &str) -> anyhow::Result<()> {
        let key = format!("{:032x}", self.choices.random::<u128>());
        let body = json!({ "sku": sku, "quantity": 1 });
        let url = format!("{}/api/cart/lines", self.shop);
        self.until_acknowledged(Method::POST, &url, &[("idempotency-key", &key)], Some(body)).await?;
        let line = self.ledger.entry(sku.to_owned()).or_default();
        *line = (line.0 + 1, line.1 + 1);
        Ok(())
    }

    async fn set(&mut self, sku: &str, quantity: u32) -> anyhow::Result<()> {
        let url = format!("{}/api/cart/lines/{sku}", self.shop);
        let body = json!({ "quantity": quantity });
        self.until_acknowledged(Method::PUT, &url, &[], Some(body)).await?;
        self.ledger.insert(sku.to_owned(), (quantity, quantity));
        Ok(())
    }

    async fn remove(&mut self, sku: &str) -> anyhow::Result<()> {
        let url = format!("{}/api/cart/lines/{sku}", self.shop);
        self.until_acknowledged(Method::DELETE, &url, &[], None).await?;
        self.ledger.insert(sku.to_owned(), (0, 0));
        Ok(())
    }

    async fn until_acknowledged(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let result = match &body {
                Some(body) => self.visitor.json(method.clone(), url, headers, body).await,
                None => self.visitor.delete(url).await,
            };
            match result {
                Ok(answer) if answer.status.is_success() => {
                    self.note(&answer);
                    return Ok(());
                }
                // The first try, which was not answered, has removed it.
                Ok(answer) if tries > 1 && method == Method::DELETE && answer.status == StatusCode::NOT_FOUND => {
                    self.note(&answer);
                    return Ok(());
                }
                Ok(answer) if !answer.status.is_server_error() => {
                    answer.success()?;
                    bail!("{method} {url}: neither a success nor an error");
                }
                Ok(answer) if started.elapsed() > RETRY_MAX => {
                    answer.success()?;
                }
                Err(error) if started.elapsed() > RETRY_MAX => return Err(error),
                Ok(_) | Err(_) => self.unanswered += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&mut self, answer: &Answer) {
        self.acknowledged += 1;
        self.served_by.insert(answer.served_by().to_owned());
    }
}
