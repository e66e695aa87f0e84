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

        self.hold_writes(&mut primary).await.map_err(told)?;
        let caught_up = self.wait_level(&mut primary).await;
        if caught_up.is_err() {
            self.release_writes(&mut primary).await.map_err(told)?;
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

    async fn release_writes(&self, primary: &mut Link) -> Result<(), LinkError> {
        match primary.call(&["CLIENT", "UNPAUSE"], CALL_MAX).await {
            Err(LinkError::Refused(_)) => promise::tell(primary, !self.settings.is_sync() || self.state.is_primary_alone).await,
            outcome => outcome.map(drop),
        }
    }

    async fn wait_level(&self, primary: &mut Link) -> Result<(), String> {
        let deadline = Instant::now() + HAND_OVER_MAX;
        let mut before = None;
        loop {
            let goal = watch::report(primary).await.map_err(|error| format!("the primary does not answer: {error}"))?.offset;
            let mut best = None;
            for member in self.members.iter().filter(|member| member.name != self.state.primary && member.process.is_some()) {
                let Ok(mut link) = Link::open(member.address()).await else { continue };
                let Ok(report) = watch::report(&mut link).await else { continue };
                if self.state.is_followed_by(&report) {
                    best = best.max(Some(report.offset));
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
