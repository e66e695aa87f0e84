//! Snapshots to the file: asked for, by rule, by schedule.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    config::Config,
    keyspace::Now,
    node::{EventKind, Gate, Hindrance, Shared},
    persistence::{
        file,
        progress::Progress,
        schedule::stamp,
        snapshot::{Written, write_snapshot},
    },
    replication::Position,
    server::now,
};

/// How often rules and schedule are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long after a failure the rules wait (Redis: `CONFIG_BGSAVE_RETRY_DELAY`).
const RETRY_SECONDS: u64 = 5;

/// The state of a node's snapshots. Its mutex is locked behind shards and never before them.
#[derive(Debug)]
pub(crate) struct Saver {
    state: Mutex<State>,
    called: Condvar,
    /// One snapshot at a time: those to the file, those for replicas, those that begin a log.
    turn: Mutex<()>,
    progress: Arc<Progress>,
}

#[derive(Debug)]
struct State {
    is_asked: bool,
    is_ending: bool,
    running_since: Option<Instant>,
    report: SaveReport,
    /// When the last one was tried, Unix seconds.
    tried: u64,
    /// Where in a stream the last one stands.
    position: Option<Position>,
}

/// Who has it takes a snapshot, and nobody else meanwhile.
#[derive(Debug)]
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "it is held, and not looked at")] MutexGuard<'a, ()>);

/// What INFO tells.
#[derive(Clone, Debug)]
pub(crate) struct SaveReport {
    pub(crate) is_running: bool,
    /// Unix seconds of the last success, or of the start.
    pub(crate) last_save: u64,
    /// Why the last one failed, if it did.
    pub(crate) error: Option<String>,
    pub(crate) last_took: Option<Duration>,
    pub(crate) running_for: Option<Duration>,
    /// The keyspace's count of changes at the last success.
    pub(crate) changes_saved: u64,
    pub(crate) saves: u64,
    pub(crate) keys_loaded: u64,
    pub(crate) keys_expired: u64,
}

impl Saver {
    pub(crate) fn new(now: Now) -> Saver {
        let seconds = now.unix_ms / 1000;
        let report = SaveReport {
            is_running: false,
            last_save: seconds,
            error: None,
            last_took: None,
            running_for: None,
            changes_saved: 0,
            saves: 0,
            keys_loaded: 0,
            keys_expired: 0,
        };
        let state = State { is_asked: false, is_ending: false, running_since: None, report, tried: seconds, position: None };
        Saver { state: Mutex::new(state), called: Condvar::new(), turn: Mutex::new(()), progress: Arc::default() }
    }

    /// Waits for a turn to take a snapshot. The one who has it may wait for a replica, and that for the thread that serves it: threads that
    /// serve connections do not call it.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn(self.turn.lock())
    }

    /// BGSAVE. `false` when one runs or waits already.
    pub(crate) fn ask(&self) -> bool {
        let mut state = self.state.lock();
        if state.is_asked || state.running_since.is_some() {
            return false;
        }
        state.is_asked = true;
        self.called.notify_all();
        true
    }

    /// BGSAVE SCHEDULE: after the one that runs, if one does.
    pub(crate) fn ask_later(&self) {
        self.state.lock().is_asked = true;
        self.called.notify_all();
    }

    pub(crate) fn report(&self) -> SaveReport {
        let state = self.state.lock();
        let running_for = state.running_since.map(|since| since.elapsed());
        SaveReport { is_running: running_for.is_some(), running_for, ..state.report.clone() }
    }

    /// How far the snapshot is that has the turn.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(super) fn loaded(&self, keys_loaded: u64, keys_expired: u64, changes: u64) {
        let mut state = self.state.lock();
        state.report = SaveReport { keys_loaded, keys_expired, changes_saved: changes, ..state.report.clone() };
    }

    /// Writes the file now, on the caller's thread.
    ///
    /// # Errors
    /// When a snapshot is being written already, to the file, to a replica or for the log; and those of the system.
    pub(crate) fn save(&self, shared: &Shared) -> io::Result<()> {
        match self.turn.try_lock() {
            Some(turn) => self.save_in(shared, &Turn(turn)),
            None => Err(already()),
        }
    }

    fn save_in(&self, shared: &Shared, turn: &Turn<'_>) -> io::Result<()> {
        if !self.state.lock().begin() {
            return Err(already());
        }
        self.write(shared, turn)
    }

    /// Has the thread of [`start`] end.
    pub(crate) fn end(&self) {
        self.state.lock().is_ending = true;
        self.called.notify_all();
    }

    /// The last snapshot, when nothing writes any more: if there are rules and changes. Waits for one that is being written: no connection
    /// is served any more, so that it does not wait for a replica.
    pub(crate) fn save_at_end(&self, shared: &Shared) {
        let has_changes = shared.keyspace.changes() != self.report().changes_saved;
        // Replicas are further as well where only PING and its like came: they can go on with a node that says so.
        let has_moved = shared.replication.position(shared) != self.state.lock().position;
        if (has_changes || has_moved) && !shared.replication.lacks_data() && !shared.config().save.is_empty() {
            // Logged where it fails.
            drop(self.save_in(shared, &self.turn()));
        }
    }

    /// Writes the file; `running_since` is set.
    fn write(&self, shared: &Shared, turn: &Turn<'_>) -> io::Result<()> {
        let outcome = self.write_file(shared, turn);
        // One may have been asked for meanwhile.
        self.called.notify_all();
        self.follow_config(&shared.config(), &shared.gate);
        outcome
    }

    /// Closes the gate for writes while the last snapshot failed, if the configuration wants that.
    pub(crate) fn follow_config(&self, config: &Config, gate: &Gate) {
        let has_failed = self.state.lock().report.error.is_some();
        let stops_writes = has_failed && config.stop_writes_on_bgsave_error && !config.save.is_empty();
        gate.set(Hindrance::SnapshotFailed, stops_writes);
    }

    fn write_file(&self, shared: &Shared, turn: &Turn<'_>) -> io::Result<()> {
        let started = now().unix_ms / 1000;
        let config = shared.config();
        let path = path(&config);
        let outcome = file::write_whole(&path, config.encryption.as_ref(), |writer| {
            let aux = |position: &Option<Position>| position.as_ref().map_or_else(Vec::new, Position::fields);
            write_snapshot(shared, turn, writer, || shared.replication.position(shared), aux)
        });
        let kept = outcome.as_ref().map_or(Ok(()), |_| match config.snapshot_retention {
            0 => Ok(()),
            count => file::retain(&path, &stamp(started), count),
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "the snapshot is there, and could not be kept beside the next ones");
        }
        let mut state = self.state.lock();
        let took = state.running_since.take().map(|since| since.elapsed());
        state.tried = started;
        match outcome {
            Ok((position, Written { bytes, keys, changes })) => {
                let took_for = took.unwrap_or_default();
                let text = format!("snapshot written: {keys} keys, {bytes} bytes in {took_for:.1?}, {}", path.display());
                shared.tell(EventKind::SnapshotComplete, text);
                let saves = state.report.saves + 1;
                let last_save = now().unix_ms / 1000;
                let report = state.report.clone();
                state.report = SaveReport { last_save, error: None, last_took: took, changes_saved: changes, saves, ..report };
                state.position = position;
                Ok(())
            }
            Err(error) => {
                let text = format!("cannot write the snapshot {}: {error}", path.display());
                // Rules try again each few seconds: told once.
                match state.report.error {
                    None => shared.tell(EventKind::SnapshotFailed, text.clone()),
                    Some(_) => tracing::warn!("{text}"),
                }
                state.report = SaveReport { error: Some(text.clone()), last_took: took, ..state.report.clone() };
                Err(io::Error::new(error.kind(), text))
            }
        }
    }

    /// Waits until a snapshot is to be taken. `false` when the node ends.
    fn wait(&self, shared: &Shared) -> bool {
        loop {
            let mut state = self.state.lock();
            let is_free = state.running_since.is_none();
            if !(state.is_ending || is_free && state.is_asked) {
                self.called.wait_for(&mut state, LOOK);
            }
            if state.is_ending {
                return false;
            }
            if state.begin_asked() {
                return true;
            }
            let (tried, report) = (state.tried, state.report.clone());
            // Shards are counted with nothing locked: INFO asks for the report with all of them locked.
            drop(state);
            if is_due(shared, tried, &report) && self.state.lock().begin() {
                return true;
            }
        }
    }
}

impl State {
    /// Begins one, if none runs.
    fn begin(&mut self) -> bool {
        let is_free = self.running_since.is_none();
        if is_free {
            self.running_since = Some(Instant::now());
        }
        is_free
    }

    /// Begins the one that was asked for.
    fn begin_asked(&mut self) -> bool {
        let begins = self.is_asked && self.begin();
        self.is_asked &= !begins;
        begins
    }
}

/// Whether rules or schedule ask for a snapshot, the last one having been tried at `tried`, in Unix seconds.
fn is_due(shared: &Shared, tried: u64, report: &SaveReport) -> bool {
    let config = shared.config();
    let now = now().unix_ms / 1000;
    if shared.replication.lacks_data() {
        return false;
    }
    if config.snapshot_schedule.is_due(tried, now) {
        return true;
    }
    if config.save.is_empty() || (report.error.is_some() && now < tried + RETRY_SECONDS) {
        return false;
    }
    let changes = shared.keyspace.changes().saturating_sub(report.changes_saved);
    let since = now.saturating_sub(report.last_save);
    changes > 0 && config.save.iter().any(|rule| since >= rule.seconds && changes >= rule.changes)
}

/// Starts the thread that takes snapshots in the background.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("cache-node-save".to_owned()).spawn(move || {
        while shared.saver.wait(&shared) {
            // Logged and told by INFO where it fails.
            drop(shared.saver.write(&shared, &shared.saver.turn()));
        }
    })
}

fn already() -> io::Error {
    io::Error::other("Background save already in progress")
}

/// Where the snapshot stands.
pub(super) fn path(config: &Config) -> PathBuf {
    config.folder().join(&config.dbfilename)
}
