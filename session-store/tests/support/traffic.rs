//! Visitors who put things into their carts and write into their sessions, and know what they were told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use http::{Method, StatusCode};
use session_store::{CacheStore, CartLimits, OutagePolicy, SessionLayer};

use super::{Moment, Visitor, app, default_store, send};

/// The application on a store of its own, whose requests wait through an outage.
pub async fn waiting_app(url: &str, max: Duration) -> Router {
    app_on(default_store(url).await, max)
}

pub fn app_on(store: CacheStore, max: Duration) -> Router {
    let layer = SessionLayer::new(store)
        .with_cart_limits(CartLimits { lines_max: 100, quantity_max: 1_000_000 })
        .with_outage_policy(OutagePolicy::Wait { max });
    app::router().layer(layer)
}

/// What one visitor was told.
struct Told {
    visitor: Visitor,
    user: Option<String>,
    /// When each addition was confirmed.
    confirmed: Vec<Instant>,
    last_name: String,
    slowest: Duration,
}

pub struct Traffic {
    app: Router,
    stop: Arc<AtomicBool>,
    visitors: Vec<tokio::task::JoinHandle<Told>>,
}

impl Traffic {
    /// Guests and users by turns, each of whom adds one and writes once, over and over.
    pub async fn start(app: &Router, visitors: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for i in 0..visitors {
            let (app, stop) = (app.clone(), Arc::clone(&stop));
            let mut visitor = Visitor::default();
            visitor.post(&app, "/cart/add/TEA/1").await.ok();
            // Nobody's cart of an earlier traffic.
            let user = (i % 2 == 0).then(|| visitor.cookie.clone().unwrap()[12..].to_owned());
            if let Some(user) = &user {
                visitor.post(&app, &format!("/login/{user}")).await.ok();
            }
            tasks.push(tokio::spawn(shop(app, stop, visitor, user)));
        }
        Self { app: app.clone(), stop, visitors: tasks }
    }

    /// Ends the traffic, and compares what everybody was told with what is there. Of what was confirmed in the time before a
    /// primary was lost, its replica may not have heard: `lost_at` and how long before.
    pub async fn finish(self, lost_at: Option<(Instant, Duration)>) -> Summary {
        self.stop.store(true, Ordering::SeqCst);
        let mut summary = Summary::default();
        for told in self.visitors {
            let mut told = told.await.unwrap();
            let answer = told.visitor.get(&self.app, "/cart").await.ok();
            let there: usize = answer.body.strip_prefix("TEA=").unwrap_or_else(|| panic!("{}", answer.body)).parse().unwrap();
            let confirmed = told.confirmed.len() + 1;
            let in_doubt = lost_at.map_or(0, |(at, before)| {
                told.confirmed.iter().filter(|confirmed| **confirmed <= at && **confirmed + before >= at).count()
            });
            assert!(there <= confirmed, "{there} are there, and {confirmed} were confirmed: something counted twice");
            assert!(there + in_doubt >= confirmed, "{there} of {confirmed} confirmed are there, {in_doubt} in doubt");
            let name = told.visitor.get(&self.app, "/get/name").await.ok().body;
            if lost_at.is_none() {
                assert_eq!(name, told.last_name);
            }
            assert_eq!(told.user.is_some(), told.visitor.get(&self.app, "/get/user").await.ok().body != "-");
            summary.confirmed += confirmed;
            summary.lost += confirmed - there;
            summary.slowest = summary.slowest.max(told.slowest);
        }
        println!("{summary:?}");
        summary
    }
}

#[derive(Debug, Default)]
pub struct Summary {
    pub confirmed: usize,
    /// Confirmed and not there: possible only where a primary was lost before its replica had heard.
    pub lost: usize,
    pub slowest: Duration,
}

async fn shop(app: Router, stop: Arc<AtomicBool>, visitor: Visitor, user: Option<String>) -> Told {
    let mut told = Told { visitor, user, confirmed: Vec::new(), last_name: "-".to_owned(), slowest: Duration::ZERO };
    while !stop.load(Ordering::SeqCst) {
        let began = Moment::now();
        let answer = send(&app, Method::POST, "/cart/add/TEA/1", told.visitor.cookie.as_deref()).await;
        assert_eq!(answer.status, StatusCode::OK, "after {:?}: {}", began.elapsed(), answer.body);
        told.confirmed.push(Instant::now());
        let name = format!("n{}", told.confirmed.len());
        told.visitor.post(&app, &format!("/set/name/{name}")).await.ok();
        told.last_name = name;
        // The two of them: visitors fall into step, and may all be at the second one when something happens.
        told.slowest = told.slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told
}
