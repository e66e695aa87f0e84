//! Events told to others by HTTP: one signed POST each, as Standard Webhooks (standardwebhooks.com) has them, tried again until it is taken.

mod delivery;
mod post;
mod secret;
mod target;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::cluster::{
    events::Events,
    limits::WEBHOOK_END_MAX,
    webhook::{delivery::Delivery, post::Post},
};

pub(super) use secret::Secrets;
pub(super) use target::Target;

/// Where events are told, and with what they are signed.
#[derive(Clone, Debug)]
pub(super) struct WebhookSettings {
    pub(super) targets: Vec<Target>,
    pub(super) secrets: Secrets,
}

/// What became of the events of one target.
#[derive(Debug, Default)]
pub(super) struct Tally {
    delivered: AtomicU64,
    /// Given up after the last try.
    failed: AtomicU64,
    /// Tries that did not succeed.
    failed_tries: AtomicU64,
    /// Those for which there was no room while an earlier one was tried.
    dropped: AtomicU64,
}

/// [`Tally`] at one moment.
#[derive(Clone, Debug)]
pub(super) struct TargetCounts {
    /// Scheme, host and port, without a path that may be secret.
    pub(super) target: String,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) failed_tries: u64,
    pub(super) dropped: u64,
}

/// The counts of all targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies(Arc<[(String, Arc<Tally>)]>);

impl Tallies {
    pub(super) fn counts(&self) -> Vec<TargetCounts> {
        let counts = self.0.iter().map(|(target, tally)| TargetCounts {
            target: target.clone(),
            delivered: tally.delivered.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            failed_tries: tally.failed_tries.load(Ordering::Relaxed),
            dropped: tally.dropped.load(Ordering::Relaxed),
        });
        counts.collect()
    }
}

/// The deliveries that run: a task per target, so that one that hangs keeps no other waiting.
#[derive(Debug)]
pub(super) struct Webhooks {
    running: JoinSet<()>,
    ending: watch::Sender<bool>,
    tallies: Tallies,
}

impl Webhooks {
    /// Tells every event of the controller's life.
    ///
    /// # Errors
    /// When a target is https and this machine has no certificates of authorities.
    pub(super) fn start(settings: Option<&WebhookSettings>, cluster: &str, events: &Events) -> Result<Webhooks, String> {
        let mut running = JoinSet::new();
        let ending = watch::Sender::new(false);
        let mut tallies = Vec::new();
        for target in settings.map_or(&[][..], |settings| &settings.targets) {
            let Some(settings) = settings else { break };
            let tally = Arc::new(Tally::default());
            // Two paths of one host are two targets.
            let same = tallies.iter().filter(|(name, _): &&(String, _)| name.starts_with(&target.shown())).count();
            let name = if same == 0 { target.shown() } else { format!("{} ({})", target.shown(), same + 1) };
            tallies.push((name, Arc::clone(&tally)));
            let delivery = Delivery {
                post: Post::new(target.clone(), settings.secrets.clone())?,
                cluster: cluster.to_owned(),
                life: format!("{:016x}", rand::random::<u64>()),
                tally,
            };
            running.spawn(delivery.run(events.replay(), ending.subscribe()));
        }
        Ok(Webhooks { running, ending, tallies: Tallies(tallies.into()) })
    }

    pub(super) fn tallies(&self) -> Tallies {
        self.tallies.clone()
    }

    /// Tries once more what waits, for [`WEBHOOK_END_MAX`] at the most.
    pub(super) async fn end(mut self) {
        self.ending.send_replace(true);
        let all = async { while self.running.join_next().await.is_some() {} };
        if timeout(WEBHOOK_END_MAX, all).await.is_err() {
            tracing::warn!("events were not delivered to every webhook before the end");
        }
    }
}
