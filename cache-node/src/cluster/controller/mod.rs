//! The controller: one task that knows who is the primary and changes it.
//!
//! It works towards what the state says ([`reconcile`]) and changes the state when the primary is lost ([`failover`]).

mod ending;
mod failover;
mod handover;
mod member;
mod order;
mod promise;
mod publish;
mod reconcile;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

pub(super) use crate::cluster::controller::order::{Order, Outcome, Task};
use crate::cluster::{
    controller::member::Member,
    events::{EventKind, Events},
    limits::{BAD_STARTS_MAX, FIRST_STARTS_MAX, PROBE_PERIOD, SIGHTS_MAX},
    port::free_port,
    settings::{Kept, Settings},
    state::{Folder, MemberState, State, boot_id},
    view::View,
    watch::{Seen, Sight},
};

/// Replicas of a new cluster, when nobody says how many.
const REPLICAS_DEFAULT: u8 = 2;

/// The cluster as its controller holds it.
#[derive(Debug)]
pub(super) struct Controller {
    settings: Settings,
    folder: Folder,
    state: State,
    members: Vec<Member>,
    floor: Floor,
    /// What is told when the primary serves; `None` when it was told.
    awaited: Option<EventKind>,
    /// Why a cluster that was never there cannot be.
    given_up: Option<String>,
    /// The node whose data the primary is taking over, while it does, and since when it has been told to: what it says of an earlier
    /// moment is what it was before.
    source: Option<(SocketAddr, Instant)>,
    /// What the present primary was last told of how it acknowledges; `None` when that is not known.
    told_alone: Option<bool>,
    /// Since when the primary has no replica, while its acknowledgements need one.
    lonely_since: Option<Instant>,
    view: watch::Sender<Arc<View>>,
    events: Arc<Events>,
    sights: mpsc::Receiver<Sight>,
    sights_sender: mpsc::Sender<Sight>,
}

/// How much of the primary's history a replica must hold so that it lacks nothing that was acknowledged through a replica which is gone.
#[derive(Clone, Copy, Debug)]
enum Floor {
    Known(u64),
    /// Until the primary answers a question asked after this.
    UnknownSince(Instant),
}

impl Controller {
    /// Takes over the cluster in `folder`: its recorded nodes, with those processes that still run.
    pub(super) fn new(mut settings: Settings, folder: Folder) -> io::Result<Controller> {
        let recorded = folder.load()?;
        let is_new = recorded.is_none();
        let mut state = recorded.unwrap_or_else(|| State::new(node_name(1)));
        // Processes of another start of the machine are gone, whatever has their pids now.
        if state.boot_id != boot_id() {
            state.boot_id = boot_id();
            state.members.iter_mut().for_each(|member| member.process = None);
        }
        if settings.maxmemory.is_some() {
            state.maxmemory.clone_from(&settings.maxmemory);
        }
        let earlier = std::mem::take(&mut state.kept);
        settings.keep(&earlier);
        settings.check().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        state.kept.clone_from(&settings.kept);
        let members = state.members.iter().map(|member| Member::new(member, folder.path())).collect::<io::Result<Vec<_>>>()?;
        let events = Arc::new(Events::new(None));
        let adopted = members.iter().filter(|member| member.process.is_some()).count();
        if adopted > 0 {
            may_take_over(&settings, &earlier)?;
        }
        if !is_new {
            let text = format!("of {} nodes {adopted} were running and are taken over", members.len());
            events.add(EventKind::ControllerStarted, None, text);
        }
        let (sights_sender, sights) = mpsc::channel(SIGHTS_MAX);
        let view = watch::Sender::new(Arc::new(publish::view(&settings, &state, &members)));
        let floor = Floor::UnknownSince(Instant::now());
        let awaited = is_new.then_some(EventKind::CreateReplicationGroupComplete);
        let mut controller = Controller {
            settings,
            folder,
            state,
            members,
            floor,
            awaited,
            given_up: None,
            source: None,
            told_alone: None,
            lonely_since: None,
            view,
            events,
            sights,
            sights_sender,
        };
        if let Some(replicas) = controller.settings.replicas.or(is_new.then_some(REPLICAS_DEFAULT)) {
            controller.grow_to(replicas)?;
            let kept = controller.members.len().saturating_sub(1);
            if kept > usize::from(replicas) {
                // Their data is not removed by a word that may be a slip.
                tracing::warn!(
                    "the cluster has {kept} replicas and keeps them; for {replicas}: cache-node cluster remove-replica"
                );
            }
        }
        controller.store()?;
        controller.publish();
        Ok(controller)
    }

    pub(super) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(super) fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    /// As they hold: what an earlier start was told is among them.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Records the ports of the endpoints, once they are bound.
    pub(super) fn set_ports(&mut self, ports: crate::cluster::state::Ports) -> io::Result<()> {
        self.state.ports = ports;
        self.store()
    }

    /// Runs the cluster until `end` completes; then ends its nodes.
    ///
    /// # Errors
    /// When it is new, and its first node does not start.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, end: impl Future<Output = ()>) -> io::Result<()> {
        let mut period = tokio::time::interval(PROBE_PERIOD / 4);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for member in &mut self.members {
            if member.process.is_some() {
                member.watch(self.settings.down_after, &self.sights_sender);
            } else {
                member.restart_at = Some(Instant::now());
            }
        }
        tokio::pin!(end);
        loop {
            tokio::select! {
                // Before everything else: nodes that end together with the parent of all have no successors.
                biased;
                () = &mut end => break,
                Some(sight) = self.sights.recv() => self.see(sight).await,
                Some(order) = orders.recv() => self.obey(order).await,
                _ = period.tick() => self.start_due().await,
            }
            self.publish();
            if self.given_up.is_some() {
                break;
            }
        }
        self.end().await;
        let Some(text) = self.given_up else { return Ok(()) };
        // Else the next start would keep what was the mistake.
        self.folder.forget()?;
        Err(io::Error::other(text))
    }

    async fn see(&mut self, sight: Sight) {
        let Some(index) = self.members.iter().position(|member| member.name == sight.member && member.life == sight.life) else {
            return;
        };
        match sight.what {
            Seen::Answered { report, asked_at } => self.answered(index, report, asked_at).await,
            Seen::Missed => self.members[index].is_silent = self.members[index].report.is_some(),
            Seen::Hung(why) => self.lost(index, &why).await,
            Seen::Ended => self.lost(index, "its process ended").await,
        }
    }

    /// A node is lost: the primary has a successor, a replica a replacement.
    async fn lost(&mut self, index: usize, why: &str) {
        let member = &mut self.members[index];
        let had_answered = member.report.is_some();
        let (kind, what) =
            if had_answered { (EventKind::NodeFailed, "was lost") } else { (EventKind::NodeStartFailed, "did not start") };
        let hint = if had_answered { String::new() } else { format!(": {}", member.last_words()) };
        let name = member.name.clone();
        let text = format!("{name} {what}: {why}{hint}");
        self.events.add(kind, Some(&name), text.clone());
        if name == self.state.primary && had_answered {
            return self.fail_over(why).await;
        }
        let member = &mut self.members[index];
        // It may have been the only replica with the latest writes; until the others are known to have them, they are no successors.
        if member.report.as_ref().is_some_and(|report| self.state.is_followed_by(report)) {
            self.floor = Floor::UnknownSince(Instant::now());
        }
        member.fence().await;
        self.replace(index);
        self.store_or_tell();
        if !had_answered {
            self.give_up_if_new(index, text);
        }
    }

    /// A cluster that never served has nothing to lose, and whoever starts it waits for it: a mistake in its options ends it.
    fn give_up_if_new(&mut self, index: usize, why: String) {
        let member = &self.members[index];
        let is_new = self.awaited == Some(EventKind::CreateReplicationGroupComplete);
        if is_new && member.name == self.state.primary && member.failures >= FIRST_STARTS_MAX {
            self.given_up = Some(why);
        }
    }

    /// Plans the start of a node in place of one that is gone.
    fn replace(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.failures == 0 {
            let text = format!("{} is started again", member.name);
            self.events.add(EventKind::CacheNodeReplaceStarted, Some(&member.name), text);
        }
        member.is_replaced = true;
        member.start_later();
    }

    /// Starts what is due.
    async fn start_due(&mut self) {
        let now = Instant::now();
        let due: Vec<usize> =
            (0..self.members.len()).filter(|index| self.members[*index].restart_at.is_some_and(|at| at <= now)).collect();
        for index in &due {
            self.start_member(*index).await;
        }
        if !due.is_empty() {
            self.store_or_tell();
        }
    }

    async fn start_member(&mut self, index: usize) {
        let is_primary = self.members[index].name == self.state.primary;
        let member = &mut self.members[index];
        if !is_primary && !member.was_set_aside && member.failures > BAD_STARTS_MAX {
            member.was_set_aside = true;
            // The primary has all of it. The primary's own data is never set aside: it may be the only copy.
            match member.set_data_aside() {
                Ok(aside) => tracing::warn!(node = member.name, "starts without its data, which is now in {}", aside.display()),
                Err(error) => tracing::warn!(node = member.name, %error, "cannot set its data aside"),
            }
        }
        match member.start(&self.settings, self.state.maxmemory.as_deref()).await {
            Ok(()) => {
                member.restarts += 1;
                member.watch(self.settings.down_after, &self.sights_sender);
            }
            Err(error) => {
                let text = format!("{} does not start: {error}", member.name);
                member.start_later();
                self.events.add(EventKind::NodeStartFailed, Some(&self.members[index].name), text.clone());
                self.give_up_if_new(index, text);
            }
        }
    }

    /// Adds nodes until there are `replicas` replicas.
    fn grow_to(&mut self, replicas: u8) -> io::Result<()> {
        while self.members.len() < usize::from(replicas) + 1 {
            let number = (1..).find(|number| !self.members.iter().any(|member| member.name == node_name(*number)));
            let name = node_name(number.expect("a cluster has fewer nodes than there are numbers"));
            // A node that does not run holds no port.
            let mut port = free_port()?;
            while self.members.iter().any(|member| member.port == port) {
                port = free_port()?;
            }
            let recorded = MemberState { name, port, metrics_port: None, process: None, has_followed: false };
            let mut member = Member::new(&recorded, self.folder.path())?;
            member.restart_at = Some(Instant::now());
            self.members.push(member);
        }
        Ok(())
    }

    fn primary(&self) -> Option<usize> {
        self.members.iter().position(|member| member.name == self.state.primary)
    }

    fn store(&mut self) -> io::Result<()> {
        self.state.members = self.members.iter().map(Member::recorded).collect();
        self.folder.store(&self.state)
    }

    /// Records what is no decision: the next successful record has it too.
    fn store_or_tell(&mut self) {
        if let Err(error) = self.store() {
            tracing::warn!(%error, "cannot record the cluster's state in {}", self.folder.path().display());
        }
    }

    fn publish(&self) {
        let view = publish::view(&self.settings, &self.state, &self.members);
        self.view.send_if_modified(|seen| {
            let is_changed = **seen != view;
            if is_changed {
                *seen = Arc::new(view);
            }
            is_changed
        });
    }
}

/// Nodes that run go on as they were started. Of an acknowledgement it must be true what the controller says and counts on.
fn may_take_over(settings: &Settings, earlier: &Kept) -> io::Result<()> {
    if let Some(earlier) = earlier.durability
        && earlier != settings.durability()
    {
        let text = format!(
            "nodes of this cluster run with --durability {}, and would go on with it; start without --durability, end the cluster \
             (SIGTERM), and start it with --durability {}",
            earlier.name(),
            settings.durability().name()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if earlier.directives.is_some() && earlier.directives != settings.kept.directives {
        tracing::warn!(
            "the nodes that run keep their directives until they are started again: cache-node cluster rolling-restart"
        );
    }
    Ok(())
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// The wait between two looks at a node that is changing its role.
const STEP: Duration = Duration::from_millis(2);
