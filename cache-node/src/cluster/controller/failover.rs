//! The loss of the primary: fence it, find who holds everything, record it, let it serve.

use std::{io, net::SocketAddr, time::Instant};

use tokio::task::JoinSet;

use crate::cluster::{
    controller::{Controller, Floor, STEP},
    events::EventKind,
    limits::DRAIN_MAX,
    link::Link,
    report::Report,
    watch,
};

/// Successors that are tried when one fails while it is made the primary.
const SUCCESSORS_MAX: usize = 3;

/// Who serves next.
enum Successor {
    Replica(usize),
    /// The lost primary itself, from its own disk; why.
    Itself(String),
}

impl Controller {
    /// Replaces the primary. When this returns there is a new one, or the old one is being started again.
    pub(super) async fn fail_over(&mut self, why: &str) {
        let started = Instant::now();
        // Its replicas have what it had before, or nothing; the data that it was taking over is with the one that asked for it.
        self.source = None;
        let Some(mut old) = self.primary() else { return };
        let name = self.members[old].name.clone();
        self.events.add(EventKind::FailoverStarted, Some(&name), format!("{name} was lost as the primary: {why}"));
        for _ in 0..SUCCESSORS_MAX {
            self.awaited = Some(EventKind::FailoverComplete);
            self.members[old].fence().await;
            // The endpoints close what they hold to the old primary before a new one serves.
            self.publish();
            match self.successor(old).await {
                Successor::Replica(index) => {
                    if let Err(error) = self.record_primary(index) {
                        // Unrecorded, it could be taken for a second primary later. The disk has to be repaired first.
                        return self.restart_primary(old, &format!("the successor cannot be recorded: {error}"));
                    }
                    self.replace(old);
                    if self.succeed(index, started).await {
                        return;
                    }
                    old = index;
                }
                Successor::Itself(why) => return self.restart_primary(old, &why),
            }
        }
        let text = "no successor took over; the last one is started again";
        self.restart_primary(old, text);
    }

    pub(super) fn restart_primary(&mut self, index: usize, why: &str) {
        self.state.epoch += 1;
        self.state.replication_id = None;
        self.state.is_primary_alone = true;
        self.floor = Floor::UnknownSince(Instant::now());
        let name = self.members[index].name.clone();
        self.events.add(EventKind::FailoverFailed, Some(&name), format!("{name} is started again from its own disk: {why}"));
        self.replace(index);
        self.store_or_tell();
    }

    /// Records the successor before it is made the primary, so that a controller which dies in between goes on here.
    fn record_primary(&mut self, index: usize) -> io::Result<()> {
        let before = self.state.clone();
        self.state.epoch += 1;
        self.state.primary.clone_from(&self.members[index].name);
        // With a second replica that follows, acknowledgements go on to need one; without, the new primary's own disk has to do.
        self.state.is_primary_alone =
            !self.members.iter().enumerate().any(|(other, member)| {
                other != index && member.report.as_ref().is_some_and(|report| before.is_followed_by(report))
            });
        let stored = self.store();
        if stored.is_err() {
            self.state = before;
        }
        stored
    }

    async fn succeed(&mut self, index: usize, started: Instant) -> bool {
        self.floor = Floor::Known(self.members[index].report.as_ref().map_or(0, |report| report.offset));
        if !self.make_primary(index).await {
            return false;
        }
        self.publish();
        for other in 0..self.members.len() {
            if other != index && self.members[other].report.is_some() {
                self.follow(other).await;
            }
        }
        self.awaited = None;
        let (name, epoch) = (self.members[index].name.clone(), self.state.epoch);
        let text = format!("{name} is the primary (epoch {epoch}), {} ms after the loss was seen", started.elapsed().as_millis());
        self.events.add(EventKind::FailoverComplete, Some(&name), text);
        true
    }

    /// The replica that holds most of the lost primary's history; in `sync` only one that holds all that was acknowledged.
    async fn successor(&mut self, old: usize) -> Successor {
        let mut asked = JoinSet::new();
        for (index, member) in self.members.iter().enumerate() {
            if index != old && member.process.is_some() && member.report.is_some() {
                let address = member.address();
                asked.spawn(async move { (index, drained(address).await) });
            }
        }
        // Up to where one that cannot succeed may hold what it acknowledged.
        let mut doubtful = 0;
        let mut best: Option<(usize, u64)> = None;
        while let Some(Ok((index, report))) = asked.join_next().await {
            let had_followed = self.members[index].report.as_ref().is_some_and(|report| self.state.is_followed_by(report));
            match report {
                Some(report) => {
                    if self.members[index].may_succeed(&self.state, &report) {
                        if best.is_none_or(|(_, offset)| report.offset > offset) {
                            best = Some((index, report.offset));
                        }
                    } else if self.state.is_followed_by(&report) {
                        // It may have followed since it was last asked.
                        doubtful = doubtful.max(report.offset);
                    }
                    self.members[index].report = Some(report);
                }
                // What it acknowledged the others may lack.
                None if had_followed => doubtful = u64::MAX,
                None => {}
            }
        }
        let is_sync = self.settings.is_sync();
        match (best, self.floor) {
            (None, _) => Successor::Itself("no replica has its data".to_owned()),
            (Some((index, _)), _) if !is_sync => Successor::Replica(index),
            (Some(_), _) if self.state.is_primary_alone => {
                Successor::Itself("it acknowledged what was on its own disk, since no replica followed".to_owned())
            }
            (Some((_, offset)), _) if offset < doubtful => {
                let text = "a replica that may hold acknowledged writes does not answer, or was not yet seen to follow";
                Successor::Itself(text.to_owned())
            }
            (Some(_), Floor::UnknownSince(_)) => {
                Successor::Itself("a replica was lost with it, and may have held acknowledged writes alone".to_owned())
            }
            (Some((_, offset)), Floor::Known(floor)) if offset < floor => {
                Successor::Itself(format!("the best replica is {} bytes behind what may be acknowledged", floor - offset))
            }
            (Some((index, _)), Floor::Known(_)) => Successor::Replica(index),
        }
    }
}

/// A replica's report, once it has applied what the dead primary had already sent to it.
async fn drained(address: SocketAddr) -> Option<Report> {
    let deadline = Instant::now() + DRAIN_MAX;
    let mut link = Link::open(address).await.ok()?;
    loop {
        let report = watch::report(&mut link).await.ok()?;
        if !report.is_link_up || Instant::now() >= deadline {
            return Some(report);
        }
        tokio::time::sleep(STEP).await;
    }
}
