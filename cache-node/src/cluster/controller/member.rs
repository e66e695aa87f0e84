//! One node of the cluster over all the lives of its process.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle};

use crate::cluster::{
    limits::{RESTART_DELAY_MAX, RESTART_DELAY_MIN},
    port::free_port,
    process::{NodeProcess, kill_strays},
    report::Report,
    settings::Settings,
    state::{MemberState, State},
    watch::{Sight, Watch},
};

/// A node: its name, folder and port stay, its process comes and goes.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) metrics_port: Option<u16>,
    pub(super) folder: PathBuf,
    pub(super) process: Option<NodeProcess>,
    /// Counts the processes; words about an earlier one are void.
    pub(super) life: u64,
    /// What the present process last said; `None` until it has answered.
    pub(super) report: Option<Report>,
    /// Whether it left the last question unanswered.
    pub(super) is_silent: bool,
    /// Ends in a row before the node served.
    pub(super) failures: u32,
    /// When it is to be started again.
    pub(super) restart_at: Option<Instant>,
    pub(super) restarts: u64,
    /// Whether it was lost and its replacement does not serve yet.
    pub(super) is_replaced: bool,
    /// Whether its present process was seen to follow the primary, or to serve as one.
    pub(super) has_followed: bool,
    /// The history that its present process named when it first answered, when it had followed nobody yet.
    began_with: Option<String>,
    /// Whether its data was set aside since it last served.
    pub(super) was_set_aside: bool,
    watcher: Option<AbortHandle>,
}

impl Member {
    /// A recorded node, with its process when that still runs.
    pub(super) fn new(recorded: &MemberState, cluster_folder: &Path) -> io::Result<Member> {
        let process = match recorded.process {
            Some(id) => NodeProcess::find(id)?,
            None => None,
        };
        Ok(Member {
            has_followed: process.is_some() && recorded.has_followed,
            began_with: None,
            name: recorded.name.clone(),
            port: recorded.port,
            metrics_port: recorded.metrics_port,
            folder: cluster_folder.join(&recorded.name),
            process,
            life: 0,
            report: None,
            is_silent: false,
            failures: 0,
            restart_at: None,
            restarts: 0,
            is_replaced: false,
            was_set_aside: false,
            watcher: None,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where its `/metrics` is.
    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    pub(super) fn recorded(&self) -> MemberState {
        MemberState {
            name: self.name.clone(),
            port: self.port,
            metrics_port: self.metrics_port,
            process: self.process.as_ref().map(|process| process.id),
            has_followed: self.has_followed,
        }
    }

    /// Starts the node's process, fenced. A process of an earlier controller that was never recorded is ended first.
    pub(super) async fn start(&mut self, settings: &Settings, maxmemory: Option<&str>) -> io::Result<()> {
        self.has_followed = false;
        self.began_with = None;
        fs::create_dir_all(&self.folder)?;
        kill_strays(&self.folder, Some(self.port)).await;
        if TcpListener::bind(self.address()).is_err() {
            self.port = free_port()?;
        }
        // Another program has no such port.
        self.metrics_port = match self.metrics_address() {
            _ if !settings.is_own_program => None,
            Some(address) if TcpListener::bind(address).is_ok() => Some(address.port()),
            _ => Some(free_port()?),
        };
        let folder = self.folder.to_str().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{}: the path is not valid UTF-8", self.folder.display()))
        })?;
        let arguments = settings.node_arguments(self.port, self.metrics_port, folder, maxmemory);
        self.process = Some(NodeProcess::start(&settings.program, &arguments, &self.folder)?);
        self.restart_at = None;
        Ok(())
    }

    /// Watches the present process, and no longer the one before it.
    pub(super) fn watch(&mut self, down_after: Duration, sights: &mpsc::Sender<Sight>) {
        self.forget();
        let Some(process) = self.process.clone() else { return };
        let watch = Watch {
            member: self.name.clone(),
            life: self.life,
            process,
            address: self.address(),
            down_after,
            sights: sights.clone(),
        };
        self.watcher = Some(tokio::spawn(watch.run()).abort_handle());
    }

    /// Takes in what its present process says of itself.
    pub(super) fn hear(&mut self, report: Report) {
        if self.began_with.is_none() && !report.is_loading && !report.replication_id.is_empty() {
            self.began_with = Some(report.replication_id.clone());
        }
        self.report = Some(report);
    }

    /// Whether it holds the primary's history, and that by following it. A process that has just been started may know the history from
    /// its disk, up to where it once ended; one that began with another can have this one only from a copy.
    pub(super) fn may_succeed(&self, state: &State, report: &Report) -> bool {
        let was_copied = self.began_with.as_ref().is_some_and(|id| *id != report.replication_id);
        state.is_followed_by(report) && (self.has_followed || report.is_link_up || was_copied)
    }

    /// Makes void what was and will be heard of the present process.
    pub(super) fn forget(&mut self) {
        self.life += 1;
        self.report = None;
        self.is_silent = false;
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
    }

    /// Ends the node for certain: when this returns, it acknowledges nothing more.
    pub(super) async fn fence(&mut self) {
        self.forget();
        let Some(process) = self.process.take() else { return };
        let killed = process.kill();
        tokio::pin!(killed);
        while tokio::time::timeout(Duration::from_secs(1), &mut killed).await.is_err() {
            // In an uninterruptible call, of a disk that does not answer most likely. A second primary would be worse than none.
            tracing::warn!(
                node = self.name,
                pid = process.id.pid,
                "it was killed and has not ended; nothing goes on before it has"
            );
        }
    }

    /// At once after the first end, then after ever longer.
    pub(super) fn start_later(&mut self) {
        let doublings = self.failures.saturating_sub(1).min(16);
        let delay = if self.failures == 0 { Duration::ZERO } else { RESTART_DELAY_MIN * 2_u32.pow(doublings) };
        self.restart_at = Some(Instant::now() + delay.min(RESTART_DELAY_MAX));
        self.failures += 1;
    }

    /// The last line that its process wrote: when it ends at once, this says why.
    pub(super) fn last_words(&self) -> String {
        const TAIL_BYTES: u64 = 4096;
        let path = self.folder.join("node.log");
        let tail = fs::File::open(&path).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            log.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        });
        let tail = tail.unwrap_or_default();
        // clap names the fault in the first of its lines.
        let line = tail
            .lines()
            .rev()
            .find(|line| line.starts_with("error:"))
            .or_else(|| tail.lines().rev().find(|line| !line.is_empty()));
        format!("{}; see {}", line.unwrap_or("it said nothing"), path.display())
    }

    /// Puts the node's data aside, where it can be looked at, in place of what was there from an earlier time.
    pub(super) fn set_data_aside(&self) -> io::Result<PathBuf> {
        let aside = self.folder.with_extension("aside");
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(&self.folder, &aside)?;
        Ok(aside)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use super::{Member, MemberState, NodeProcess, Report, State};

    /// A primary's cluster with the history `aa`, and a node of it that does not run.
    fn cluster() -> (State, Member) {
        let mut state = State::new("node-1".to_owned());
        state.replication_id = Some("aa".to_owned());
        let recorded =
            MemberState { name: "node-2".to_owned(), port: 7002, metrics_port: None, process: None, has_followed: false };
        (state, Member::new(&recorded, Path::new("/nowhere")).unwrap())
    }

    fn report(replication_id: &str) -> Report {
        Report { replication_id: replication_id.to_owned(), offset: 100, ..Report::default() }
    }

    #[test]
    fn a_history_from_disk_makes_no_successor_until_it_is_followed() {
        let (state, mut member) = cluster();
        member.hear(Report { is_loading: true, ..report("aa") });
        assert!(!member.may_succeed(&state, &report("aa")), "it has said nothing yet of what it began with");
        member.hear(report("aa"));
        assert!(state.is_followed_by(&report("aa")) && !member.may_succeed(&state, &report("aa")));
        assert!(member.may_succeed(&state, &Report { is_link_up: true, ..report("aa") }));
        member.has_followed = true;
        assert!(member.may_succeed(&state, &report("aa")), "the primary is gone, and the link with it");
        assert!(!member.may_succeed(&state, &report("bb")));
        assert!(!member.may_succeed(&state, &Report { is_syncing: true, ..report("aa") }));
    }

    #[tokio::test]
    async fn what_was_seen_of_a_process_is_known_to_the_next_controller() {
        let folder = tempfile::tempdir().unwrap();
        let process = NodeProcess::start(Path::new("sleep"), &["1000".to_owned()], folder.path()).unwrap();
        for has_followed in [false, true] {
            let (state, mut member) = cluster();
            (member.process, member.has_followed) = (Some(process.clone()), has_followed);
            let mut again = Member::new(&member.recorded(), Path::new("/nowhere")).unwrap();
            again.hear(report("aa"));
            assert_eq!(again.may_succeed(&state, &report("aa")), has_followed);
        }
        process.kill().await;
    }

    #[test]
    fn a_history_that_came_after_the_start_was_copied_from_the_primary() {
        let (state, mut member) = cluster();
        member.hear(Report { is_loading: true, ..report("aa") });
        member.hear(report("cc"));
        assert!(!member.may_succeed(&state, &report("cc")));
        member.hear(report("aa"));
        assert!(member.may_succeed(&state, &report("aa")));
    }
}
