//! Brings each node to the role that the state gives it, whatever it says it is.

use std::{net::SocketAddr, time::Instant};

use crate::cluster::{
    controller::{Controller, Floor, promise},
    events::EventKind,
    link::{Link, LinkError},
    report::Report,
    watch,
};

impl Controller {
    /// Takes in a node's report and acts where its role is not the one that it should have.
    pub(super) async fn answered(&mut self, index: usize, report: Report, asked_at: Instant) {
        let is_primary = self.members[index].name == self.state.primary;
        let member = &mut self.members[index];
        member.is_silent = false;
        // Asked before it was told to copy: that it is a primary is no longer so, and would be taken for the end of the copy.
        if is_primary && self.source.is_some_and(|(_, since)| asked_at < since) {
            return;
        }
        member.hear(report.clone());
        if report.is_loading {
            return;
        }
        match (is_primary, report.is_primary) {
            (true, true) => self.primary_reported(index, &report, asked_at).await,
            (true, false) if self.is_copying(&report) => {}
            (true, false) if report.lacks_data => self.copy_failed(index).await,
            (true, false) => {
                self.source = None;
                // When it does not work yet, its next report brings us here again.
                let _is_done = self.make_primary(index).await;
            }
            (false, true) => {
                // Nobody but this controller makes a primary, and it has not made this one: somebody typed REPLICAOF NO ONE.
                let name = self.members[index].name.clone();
                self.events.add(EventKind::NodeFailed, Some(&name), format!("{name} says it is a primary; it is ended"));
                self.members[index].fence().await;
                self.replace(index);
                self.store_or_tell();
            }
            (false, false) => self.replica_reported(index, &report).await,
        }
    }

    /// Whether the primary still takes over data from elsewhere. While it does, it must not serve what it has.
    fn is_copying(&self, report: &Report) -> bool {
        self.source
            .is_some_and(|(source, _)| report.primary_port == Some(source.port()) && (!report.is_link_up || report.is_syncing))
    }

    async fn primary_reported(&mut self, index: usize, report: &Report, asked_at: Instant) {
        if let Floor::UnknownSince(since) = self.floor
            && asked_at >= since
        {
            self.floor = Floor::Known(report.offset);
        }
        // The id changes when the first replica attaches to a primary that had none.
        if self.state.replication_id.as_deref() != Some(&report.replication_id) {
            self.state.replication_id = Some(report.replication_id.clone());
            self.store_or_tell();
        }
        self.settle_promise(index).await;
        self.serves(index);
        if let Some(kind) = self.awaited.take() {
            let name = self.members[index].name.clone();
            self.events.add(kind, Some(&name), format!("{name} is the primary (epoch {})", self.state.epoch));
        }
    }

    async fn replica_reported(&mut self, index: usize, report: &Report) {
        let Some(primary) = self.primary() else { return };
        let primary = &self.members[primary];
        // A primary that is not one yet would answer with a copy of what it has read so far.
        if !primary.report.as_ref().is_some_and(|report| report.is_primary && !report.is_loading) {
            return;
        }
        if report.primary_port != Some(primary.port) {
            return self.follow(index).await;
        }
        if report.is_link_up && self.state.is_followed_by(report) {
            self.serves(index);
        }
    }

    /// The node does what it is there for.
    pub(super) fn serves(&mut self, index: usize) {
        let member = &mut self.members[index];
        // A controller that takes over knows it from the record, which says otherwise since before the process was started.
        let is_news = !std::mem::replace(&mut member.has_followed, true);
        member.failures = 0;
        member.was_set_aside = false;
        if std::mem::take(&mut member.is_replaced) {
            let text =
                format!("{} is back as a {}", member.name, if member.name == self.state.primary { "primary" } else { "replica" });
            self.events.add(EventKind::CacheNodeReplaceComplete, Some(&member.name), text);
        }
        if is_news {
            self.store_or_tell();
        }
    }

    /// The primary has lost its data in memory to a copy that came to no end. On its disk it is as it was.
    async fn copy_failed(&mut self, index: usize) {
        const WHY: &str = "what it was to copy came to no end";
        self.source = None;
        if !self.settings.has_log() {
            return self.fail_over(WHY).await;
        }
        self.awaited = Some(EventKind::FailoverComplete);
        self.members[index].fence().await;
        self.publish();
        self.restart_primary(index, WHY);
    }

    /// Lifts the fence of the node that the state names. Gives whether it is the primary now.
    pub(super) async fn make_primary(&mut self, index: usize) -> bool {
        debug_assert_eq!(self.members[index].name, self.state.primary, "only the recorded primary may be one");
        let is_alone = self.settings.is_sync().then_some(self.state.is_primary_alone);
        let member = &mut self.members[index];
        match promote(member.address(), is_alone).await {
            Ok(report) => {
                self.told_alone = is_alone;
                self.lonely_since = None;
                member.report = Some(report.clone());
                // The state is written before the node serves again under a new id; this one is noted when it reports.
                self.state.replication_id = Some(report.replication_id);
                self.store_or_tell();
                true
            }
            Err(error) => {
                tracing::warn!(node = member.name, %error, "it does not become a primary yet");
                false
            }
        }
    }

    /// Tells a replica whom to follow.
    pub(super) async fn follow(&mut self, index: usize) {
        let Some(primary) = self.primary() else { return };
        let port = self.members[primary].port.to_string();
        let member = &self.members[index];
        let told = async { Link::open(member.address()).await?.replicaof("127.0.0.1", &port).await };
        // It is told again at its next report.
        if let Err(error) = told.await {
            tracing::warn!(node = member.name, %error, "it does not follow the primary yet");
        }
    }
}

/// Lifts the fence, after the node was told what its acknowledgements must mean.
async fn promote(address: SocketAddr, is_alone: Option<bool>) -> Result<Report, LinkError> {
    let mut link = Link::open(address).await?;
    if let Some(is_alone) = is_alone {
        promise::tell(&mut link, promise::replicas(is_alone)).await?;
    }
    link.replicaof("NO", "ONE").await?;
    let report = watch::report(&mut link).await?;
    if report.is_primary { Ok(report) } else { Err(LinkError::Refused("it still says that it is a replica".to_owned())) }
}
