//! What a request does: drawn at random, carried out by a handler, answered.

use std::sync::Arc;

use axum::{Extension, Router, body::Body};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use session_store::{Cart, Expiry, Key, Session, SessionExt as _};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::IDLE_S;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Get(&'static str),
    Set(&'static str, u32),
    Remove(&'static str),
    Count,
    Save,
    Cycle,
    Flush,
    Delete,
    Expire(i64),
    LogIn(&'static str),
    Add(&'static str),
    SetLine(&'static str, u32),
    Lines,
    /// Another request comes and is answered.
    Pause,
}

/// Draws what requests do.
pub struct Draws(pub StdRng);

impl Draws {
    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability)
    }

    pub fn ops(&mut self, pauses: bool) -> Vec<Op> {
        let mut ops: Vec<_> = (0..self.0.random_range(1..6)).map(|_| self.op()).collect();
        // One of each request: what several do is asked elsewhere.
        if self.chance(0.3) {
            let at = self.0.random_range(0..=ops.len());
            match self.0.random_range(0..10) {
                0..6 => {
                    ops.insert(at, Op::Cycle);
                    if self.chance(0.4) {
                        ops.push(self.log_in());
                    }
                }
                6 | 7 => {
                    ops.truncate(at);
                    if self.chance(0.3) {
                        ops.push(Op::Cycle);
                    }
                    if self.chance(0.3) {
                        ops.push(self.log_in());
                    }
                    ops.push(Op::Flush);
                    if self.chance(0.5) {
                        ops.push(Op::Set("a", self.0.random_range(0..3)));
                    }
                }
                _ => {
                    ops.truncate(at);
                    ops.push(Op::Delete);
                }
            }
            if self.chance(0.3) {
                ops.push(Op::Add("TEA"));
            }
        } else if self.chance(0.1) {
            let at = self.0.random_range(0..=ops.len());
            ops.insert(at, self.log_in());
        }
        if pauses {
            if self.chance(0.8) {
                ops.insert(0, Op::Get("a"));
            }
            let at = self.0.random_range(1..=ops.len());
            ops.insert(at, Op::Pause);
        }
        ops
    }

    fn log_in(&mut self) -> Op {
        Op::LogIn(["u", "v"].choose(&mut self.0).unwrap())
    }

    fn op(&mut self) -> Op {
        let key = *["a", "b", "c"].choose(&mut self.0).unwrap();
        let number = self.0.random_range(0..3);
        match self.0.random_range(0..12) {
            0 | 1 => Op::Get(key),
            2..=4 => Op::Set(key, number),
            5 => Op::Remove(key),
            6 | 7 => Op::Count,
            8 => Op::Save,
            9 => Op::Expire([60, IDLE_S, 7_200][number as usize]),
            10 => Op::Add(["TEA", "CUP", "POT"][number as usize]),
            _ if self.chance(0.5) => Op::SetLine("TEA", number),
            _ => Op::Lines,
        }
    }
}

/// What a request does, and where it waits.
#[derive(Clone)]
pub struct Job {
    pub ops: Arc<Vec<Op>>,
    pub held: Arc<Semaphore>,
    pub released: Arc<Semaphore>,
}

impl Job {
    pub fn new(ops: Vec<Op>) -> Self {
        Self { ops: Arc::new(ops), held: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) }
    }
}

const COUNT: Key<u32> = Key::new("count");

pub async fn handle(session: Session, cart: Cart, Extension(job): Extension<Job>) -> (StatusCode, String) {
    let mut said = Vec::new();
    for op in job.ops.iter() {
        match carry_out(*op, &session, &cart, &job).await {
            Ok(text) => said.push(text),
            Err(error) => return (StatusCode::CONFLICT, format!("{op:?}: {error}")),
        }
    }
    (StatusCode::OK, said.join(" "))
}

async fn carry_out(op: Op, session: &Session, cart: &Cart, job: &Job) -> Result<String, Box<dyn std::error::Error>> {
    let shown = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    match op {
        Op::Get(key) => return Ok(shown(session.get(key).await?)),
        Op::Set(key, value) => session.insert(key, value).await?,
        Op::Remove(key) => return Ok(shown(session.remove(key).await?)),
        Op::Count => return Ok(session.update(&COUNT, |count| count.unwrap_or(0) + 1).await?.to_string()),
        Op::Save => session.save().await?,
        Op::Cycle => session.cycle_id().await?,
        Op::Flush => session.flush().await?,
        Op::Delete => session.delete().await?,
        Op::Expire(seconds) => session.set_expiry(Some(Expiry::OnInactivity(time::Duration::seconds(seconds)))),
        Op::LogIn(user) => cart.log_in(user).await?,
        Op::Add(sku) => return Ok(cart.add(sku, 1).await?.quantity.to_string()),
        Op::SetLine(sku, quantity) => return Ok(cart.set_quantity(sku, quantity).await?.quantity.to_string()),
        Op::Lines => {
            let lines = cart.lines().await?;
            return Ok(format!("{:?}", lines.iter().map(|line| (&*line.sku, line.quantity)).collect::<Vec<_>>()));
        }
        Op::Pause => {
            job.held.add_permits(1);
            // The other request may have been answered already: this one is to have waited all the same.
            tokio::task::yield_now().await;
            job.released.acquire().await?.forget();
        }
    }
    Ok(String::new())
}

pub struct Answer {
    pub status: StatusCode,
    pub body: String,
    pub cookie: Option<String>,
    pub is_removed: bool,
}

pub async fn send(app: Router, cookie: Option<String>, job: Job) -> Answer {
    let mut request = Request::post("/").extension(job);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let set = response.headers().get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
    let is_removed = set.as_ref().is_some_and(|set| set.contains("Max-Age=0"));
    let cookie = set.filter(|_| !is_removed).map(|set| set.split(';').next().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, body: String::from_utf8(body.to_vec()).unwrap(), cookie, is_removed }
}
