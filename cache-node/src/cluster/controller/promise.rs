//! What an acknowledgement means in `sync`: a second node, as long as there is one; the primary's own disk otherwise.
//!
//! The order of the steps is what keeps the promise. Before the primary may acknowledge alone, it is recorded that nobody may succeed it;
//! before somebody may, the primary acknowledges together again and the replica has reached what it had acknowledged alone.

use std::time::Instant;

use crate::cluster::{
    controller::{Controller, Floor},
    events::EventKind,
    limits::{CALL_MAX, LONELY_MAX},
    link::{Link, LinkError},
};

impl Controller {
    /// Decides anew, at each report of the primary.
    pub(super) async fn settle_promise(&mut self, primary: usize) {
        if !self.settings.is_sync() {
            // Nothing to decide, but a planned failover that was broken off may have left writes held back.
            if self.told_alone.is_none() {
                self.lift_hold(primary).await;
            }
            return;
        }
        let follows = |(index, report): (usize, &crate::cluster::report::Report)| {
            index != primary && report.is_link_up && self.state.is_followed_by(report)
        };
        let reports = self.members.iter().enumerate().filter_map(|(index, member)| Some((index, member.report.as_ref()?)));
        let has_replica = reports.into_iter().any(follows);
        match (self.state.is_primary_alone, has_replica) {
            (true, true) => self.acknowledge_together(primary).await,
            (false, true) => self.lonely_since = None,
            (false, false) => {
                let since = *self.lonely_since.get_or_insert_with(Instant::now);
                if self.members.len() == 1 || since.elapsed() >= LONELY_MAX {
                    self.acknowledge_alone();
                }
            }
            (true, false) => {}
        }
        if self.told_alone != Some(self.state.is_primary_alone) {
            self.tell_primary(primary, self.state.is_primary_alone).await;
        }
    }

    fn acknowledge_alone(&mut self) {
        self.state.is_primary_alone = true;
        if let Err(error) = self.store() {
            tracing::warn!(%error, "cannot record that the primary acknowledges alone, so it does not");
            self.state.is_primary_alone = false;
            return;
        }
        let text = "no replica follows: writes are acknowledged once they are on the primary's own disk";
        self.events.add(EventKind::AcknowledgedAlone, Some(&self.state.primary.clone()), text);
    }

    async fn acknowledge_together(&mut self, primary: usize) {
        if !self.tell_primary(primary, false).await {
            return;
        }
        // What it acknowledged up to here a replica may still lack.
        self.floor = Floor::UnknownSince(Instant::now());
        self.lonely_since = None;
        self.state.is_primary_alone = false;
        if let Err(error) = self.store() {
            tracing::warn!(%error, "cannot record that replicas may succeed the primary again");
            self.state.is_primary_alone = true;
            return;
        }
        let text = "a replica follows: writes are acknowledged once a second node has them";
        self.events.add(EventKind::AcknowledgedTogether, Some(&self.state.primary.clone()), text);
    }

    /// `min-replicas-to-write` of the primary: what the promise needs, or what the operator wants.
    pub(super) fn replicas_needed(&self) -> &str {
        match (self.settings.is_sync(), self.state.is_primary_alone) {
            (true, is_alone) => replicas(is_alone),
            (false, _) => self.settings.directive("min-replicas-to-write").unwrap_or("0"),
        }
    }

    async fn tell_primary(&mut self, primary: usize, is_alone: bool) -> bool {
        let told = async { tell(&mut Link::open(self.members[primary].address()).await?, replicas(is_alone)).await };
        match told.await {
            Ok(()) => self.told_alone = Some(is_alone),
            Err(error) => {
                // Told again at its next report.
                tracing::warn!(%error, "the primary does not hear how it is to acknowledge");
                self.told_alone = None;
            }
        }
        self.told_alone == Some(is_alone)
    }
}

/// Replicas that an acknowledgement in `sync` needs.
pub(super) fn replicas(is_alone: bool) -> &'static str {
    if is_alone { "0" } else { "1" }
}

/// Tells a node how many replicas its acknowledgements need from now on.
pub(super) async fn tell(link: &mut Link, replicas: &str) -> Result<(), LinkError> {
    link.call(&["CONFIG", "SET", "min-replicas-to-write", replicas], CALL_MAX).await.map(drop)
}
