//! The deliveries to all targets.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    events::{Events, Kind},
    webhook::{SecretFile, Tallies, Target, delivery::Delivery, limits::END_MAX, post::Post, tally::Tally},
};

/// Where events are told, and with what they are signed.
#[derive(Clone, Debug)]
pub(crate) struct WebhookSettings {
    pub(crate) targets: Vec<Target>,
    pub(crate) secrets: SecretFile,
}

/// The deliveries that run: a task per target, so that one that hangs keeps no other waiting.
#[derive(Debug)]
pub(crate) struct Webhooks {
    running: JoinSet<()>,
    ending: watch::Sender<bool>,
    tallies: Tallies,
}

impl Webhooks {
    /// Tells every event of the process's life, those included that are kept already. `cluster`: what they are of.
    ///
    /// # Errors
    /// When a target is https and this machine has no certificates of authorities.
    pub(crate) fn start(
        settings: Option<&WebhookSettings>,
        cluster: Option<&str>,
        events: &Events<impl Kind>,
    ) -> Result<Webhooks, String> {
        let mut running = JoinSet::new();
        let ending = watch::Sender::new(false);
        let mut tallies: Vec<(String, Arc<Tally>)> = Vec::new();
        let targets = settings.into_iter().flat_map(|settings| settings.targets.iter().map(|target| (target, &settings.secrets)));
        for (target, secrets) in targets {
            let post = Post::new(target.clone(), secrets.clone())?;
            let tally = Arc::new(Tally::default());
            tallies.push((name_beside(&tallies, &target.shown()), Arc::clone(&tally)));
            let delivery = Delivery { post, cluster: cluster.map(str::to_owned), life: events.life().to_owned(), tally };
            running.spawn(delivery.run(events.replay(), ending.subscribe()));
        }
        Ok(Webhooks { running, ending, tallies: Tallies::new(tallies) })
    }

    pub(crate) fn tallies(&self) -> Tallies {
        self.tallies.clone()
    }

    /// Tries once more what waits, for [`END_MAX`] at the most.
    pub(crate) async fn end(mut self) {
        self.ending.send_replace(true);
        let all = async { while self.running.join_next().await.is_some() {} };
        if timeout(END_MAX, all).await.is_err() {
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
    use super::{SecretFile, WebhookSettings, Webhooks};
    use crate::events::{Events, Kind};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
    struct Anything;

    impl Kind for Anything {
        fn is_alarm(self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn targets_of_one_host_are_told_apart_without_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let urls = ["http://127.0.0.1:1/a", "http://127.0.0.1:11/a", "http://127.0.0.1:1/b", "http://127.0.0.1:1/c"];
        let targets = urls.iter().map(|url| url.parse().unwrap()).collect();
        let settings = WebhookSettings { targets, secrets: SecretFile::open(&file).unwrap() };
        let webhooks = Webhooks::start(Some(&settings), None, &Events::<Anything>::new(None)).unwrap();
        let names: Vec<String> = webhooks.tallies().counts().into_iter().map(|counts| counts.target).collect();
        assert_eq!(names, ["http://127.0.0.1:1", "http://127.0.0.1:11", "http://127.0.0.1:1 (2)", "http://127.0.0.1:1 (3)"]);
        webhooks.end().await;
    }
}
