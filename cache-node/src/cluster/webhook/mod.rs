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
        let mut tallies: Vec<(String, Arc<Tally>)> = Vec::new();
        // Makes ids of events unique, which count from 1 in each life of the controller; the same at every target.
        let life = format!("{:016x}", rand::random::<u64>());
        let targets = settings.into_iter().flat_map(|settings| settings.targets.iter().map(|target| (target, &settings.secrets)));
        for (target, secrets) in targets {
            let post = Post::new(target.clone(), secrets.clone())?;
            let tally = Arc::new(Tally::default());
            tallies.push((name_beside(&tallies, &target.shown()), Arc::clone(&tally)));
            let delivery = Delivery { post, cluster: cluster.to_owned(), life: life.clone(), tally };
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

/// The name of a target in the figures: two paths of one host are two targets, and paths are not shown.
fn name_beside(others: &[(String, Arc<Tally>)], shown: &str) -> String {
    let numbered = |number: usize| if number == 1 { shown.to_owned() } else { format!("{shown} ({number})") };
    let free = (1..).map(numbered).find(|name| !others.iter().any(|(other, _)| other == name));
    free.expect("there are more numbers than targets")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::{Secrets, WebhookSettings, Webhooks};
    use crate::cluster::events::Events;

    #[tokio::test]
    async fn targets_of_one_host_are_told_apart_without_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let urls = ["http://127.0.0.1:1/a", "http://127.0.0.1:11/a", "http://127.0.0.1:1/b", "http://127.0.0.1:1/c"];
        let targets = urls.iter().map(|url| url.parse().unwrap()).collect();
        let settings = WebhookSettings { targets, secrets: Secrets::read(&file).unwrap() };
        let webhooks = Webhooks::start(Some(&settings), "carts", &Events::default()).unwrap();
        let names: Vec<String> = webhooks.tallies().counts().into_iter().map(|counts| counts.target).collect();
        assert_eq!(names, ["http://127.0.0.1:1", "http://127.0.0.1:11", "http://127.0.0.1:1 (2)", "http://127.0.0.1:1 (3)"]);
        webhooks.end().await;
    }
}
