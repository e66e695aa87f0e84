//! A planned failover: nothing is lost in any durability mode, and nothing is done when nobody could take over.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::cluster::{
    controller::{Controller, Outcome, STEP, promise},
    limits::{CALL_MAX, HAND_OVER_MAX},
    link::{Link, LinkError},
    watch,
};

/// `min-replicas-to-write` that refuses every write.
const MORE_THAN_ANYBODY_HAS: &str = "1000";

/// How long writes stay paused at the most, should the controller die in between.
const PAUSE: Duration = Duration::from_millis(HAND_OVER_MAX.as_millis() as u64 + 1_000);

impl Controller {
    /// Gives the primary's role to the replica that is furthest.
    pub(super) async fn hand_over(&mut self) -> Outcome {
        let before = self.state.primary.clone();
        self.catch_up().await?;
        self.fail_over("asked for").await;
        match self.state.primary == before {
            true => Err(format!("no replica took over; {before} is started again")),
            false => Ok(format!("{} is the primary in place of {before}", self.state.primary)),
        }
    }

    /// Holds writes back until a replica has all of them.
    async fn catch_up(&mut self) -> Result<(), String> {
        let index = self.primary().ok_or("the cluster has no primary")?;
        let name = self.members[index].name.clone();
        let told = |error: LinkError| format!("{name} does not answer: {error}");
        let mut primary = Link::open(self.members[index].address()).await.map_err(told)?;
        let report = watch::report(&mut primary).await.map_err(told)?;
        if !report.is_primary {
            return Err(format!("{name} is not the primary yet"));
        }
        self.state.replication_id = Some(report.replication_id.clone());
        self.members[index].report = Some(report);

        let caught_up = match self.hold_writes(&mut primary).await {
            Ok(()) => self.wait_level(&mut primary).await,
            // It may be obeyed all the same, later.
            Err(error) => Err(told(error)),
        };
        if caught_up.is_err() {
            self.release_writes(&mut primary).await;
        }
        caught_up
    }

    /// Lets clients wait where the node can do that, and refuses their writes where it cannot.
    async fn hold_writes(&mut self, primary: &mut Link) -> Result<(), LinkError> {
        let pause = PAUSE.as_millis().to_string();
        match primary.call(&["CLIENT", "PAUSE", &pause, "WRITE"], CALL_MAX).await {
            Err(LinkError::Refused(_)) => {
                // What the primary was told of its acknowledgements is no longer so.
                self.told_alone = None;
                primary.call(&["CONFIG", "SET", "min-replicas-to-write", MORE_THAN_ANYBODY_HAS], CALL_MAX).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }

    /// Over the link of the hold: the node obeys in this order, however late it is.
    async fn release_writes(&mut self, primary: &mut Link) {
        let released = match primary.call(&["CLIENT", "UNPAUSE"], CALL_MAX).await {
            Ok(_) => Ok(()),
            Err(_) => promise::tell(primary, self.replicas_needed()).await,
        };
        if let Err(error) = released {
            // Told again at its next report, where a pause does not end by itself.
            tracing::warn!(%error, "the primary does not hear yet that it takes writes again");
        }
    }

    /// Takes back a hold of which the controller that made it, this one or one that died, does not know whether it still holds.
    pub(super) async fn lift_hold(&mut self, primary: usize) {
        let lifted = async {
            let mut link = Link::open(self.members[primary].address()).await?;
            if link.directive("min-replicas-to-write").await? == MORE_THAN_ANYBODY_HAS {
                promise::tell(&mut link, self.replicas_needed()).await?;
            }
            Ok::<_, LinkError>(())
        };
        match lifted.await {
            Ok(()) => self.told_alone = Some(self.state.is_primary_alone),
            // Tried again at its next report.
            Err(error) => tracing::warn!(%error, "the primary does not say whether it takes writes"),
        }
    }

    async fn wait_level(&mut self, primary: &mut Link) -> Result<(), String> {
        let deadline = Instant::now() + HAND_OVER_MAX;
        let mut before = None;
        loop {
            let goal = watch::report(primary).await.map_err(|error| format!("the primary does not answer: {error}"))?.offset;
            let mut best = None;
            for index in 0..self.members.len() {
                let member = &self.members[index];
                if member.name == self.state.primary || member.process.is_none() {
                    continue;
                }
                let Ok(mut link) = Link::open(member.address()).await else { continue };
                let Ok(report) = watch::report(&mut link).await else { continue };
                if !member.may_succeed(&self.state, &report) {
                    continue;
                }
                best = best.max(Some(report.offset));
                if report.is_link_up {
                    // Its own reports wait until this is done, and the link ends with the primary.
                    self.serves(index);
                }
            }
            match best {
                // Looked at twice: what ran when writes were held back has ended by then.
                Some(offset) if offset >= goal && before == Some(goal) => return Ok(()),
                _ if Instant::now() < deadline => {
                    before = Some(goal);
                    sleep(STEP).await;
                }
                Some(offset) => {
                    return Err(format!(
                        "the best replica is still {} bytes behind; nothing was done",
                        goal.saturating_sub(offset)
                    ));
                }
                None => return Err("no replica has the data yet; nothing was done".to_owned()),
            }
        }
    }
}
