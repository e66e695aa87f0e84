//! What keeps the log: writes what was appended to the stream, brings it to disk, rewrites it. All but the plain write is done by a thread
//! of its own, which lets others write while it waits for the disk.

mod rewrite;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    config::Config,
    keyspace::Now,
    node::{EventKind, LogBatch, Shared},
    persistence::{
        aof::{base, files::Folder, load, log::Log},
        load::load_at_start,
    },
};

use rewrite::{Increment, Rewrite};

/// Time between two times of bringing the log to disk with `appendfsync everysec`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a write that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Time for which the thread sleeps when there is nothing to do.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Pause between two writes that nobody waits for, or that those write themselves who do, so that bytes go out together.
const LINGER: Duration = Duration::from_millis(1);

/// Time for which the end of the node waits for a disk that refuses what is left.
const END_TIME_MAX: Duration = Duration::from_secs(3);

/// Capacity that the batch's buffer keeps between writes.
const BATCH_CAPACITY_KEPT: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    log: Option<Log>,
    /// What was taken from the stream and is not written yet.
    batch: LogBatch,
    /// The stream's offset up to which the file has everything, and up to which it is on disk.
    written: u64,
    synced: u64,
    last_sync: Instant,
    retry_at: Option<Instant>,
    /// The disk could not keep what it had taken: only a new log helps.
    is_disk_untrue: bool,
    /// The failure that was told and is not over.
    told_failure: Option<EventKind>,
    rewrite: Option<Rewrite>,
    rewrite_retry_at: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Keeper {
        Keeper {
            shared,
            log: None,
            batch: LogBatch::default(),
            written: 0,
            synced: 0,
            last_sync: Instant::now(),
            retry_at: None,
            is_disk_untrue: false,
            told_failure: None,
            rewrite: None,
            rewrite_retry_at: None,
        }
    }

    /// Loads the log and opens it for what is to come. Where there is none yet, the snapshot is loaded and becomes its base.
    pub(super) fn load(&mut self, now: Now) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let config = shared.config();
        let folder = Folder::open(&config)?;
        let manifest = folder.manifest(&config)?;
        let started = Instant::now();
        if manifest.parts().next().is_none() {
            load_at_start(&shared)?;
            let mut log = Log::begin(folder, manifest)?;
            let (part, path) = log.next_base(config.aof.has_rdb_preamble);
            let is_cancelled = AtomicBool::new(false);
            let offset = base::write(&shared, &path, config.aof.has_rdb_preamble, &is_cancelled, || {
                shared.journal.open_log(shared.replication.followed_db())
            })?;
            log.sync()?;
            log.rebase(part)?;
            self.log = Some(log);
            self.begins_at(offset);
            return Ok(());
        }
        // Nothing expires meanwhile: what is behind may have given it more time.
        shared.keyspace.follow(true);
        if let Some(position) = load::load(&shared, &folder, &manifest, now)? {
            shared.replication.resume(&shared, position, now);
        }
        let log = Log::open(folder, manifest)?;
        let took = started.elapsed();
        tracing::info!(bytes = log.bytes(), ?took, "log loaded");
        self.log = Some(log);
        let keys = shared.keyspace.lock_all(0, now, &*shared);
        self.begins_at(shared.journal.open_log(shared.replication.followed_db()));
        shared.keyspace.follow(shared.replication.primary().is_some());
        drop(keys);
        Ok(())
    }

    /// The log is whole, and goes on at this offset of the stream.
    fn begins_at(&mut self, offset: u64) {
        self.written = offset;
        self.synced = offset;
        let shared = &self.shared;
        let bytes = self.log.as_ref().map_or(0, Log::bytes);
        shared.log.bytes.store(bytes, Ordering::Relaxed);
        shared.log.base_bytes.store(bytes, Ordering::Relaxed);
        shared.journal.barrier.follow_log(Some(offset));
        shared.log.is_kept.store(true, Ordering::Release);
        shared.look_for_safety();
    }

    pub(super) fn run(this: &Mutex<Keeper>) -> io::Result<()> {
        let outcome = Keeper::keep(this);
        let mut keeper = this.lock();
        keeper.cancel_rewrite();
        // The folder is another node's from here on, whoever still asks for this one.
        keeper.log = None;
        outcome
    }

    fn keep(this: &Mutex<Keeper>) -> io::Result<()> {
        let shared = Arc::clone(&this.lock().shared);
        let mut ends_at = None;
        loop {
            let is_stopping = shared.log.is_stopping();
            let patience = if is_stopping { Duration::ZERO } else { this.lock().patience(&shared.config()) };
            shared.journal.wait_for_log(patience);
            let config = shared.config();
            let mut keeper = this.lock();
            shared.journal.take_for_log(&mut keeper.batch, is_stopping);
            if !is_stopping {
                Keeper::follow(&mut keeper, &config);
            }
            // A log that is not whole is of no use to the next start, and what stands behind a primary's snapshot has no place in one of
            // other data.
            let is_of_use = |log: &Log| !is_stopping || log.is_whole() && !shared.log.is_renewal_wanted();
            if !keeper.log.as_ref().is_some_and(is_of_use) {
                keeper.batch = LogBatch::default();
                if is_stopping {
                    return Ok(());
                }
                continue;
            }
            let outcome = Keeper::write_and_sync(&mut keeper, &config, is_stopping);
            Keeper::finish_rewrite(&mut keeper);
            Keeper::rewrite_if_due(&mut keeper, &config);
            if is_stopping {
                let ends_at = *ends_at.get_or_insert_with(|| Instant::now() + END_TIME_MAX);
                match outcome {
                    Ok(()) if keeper.batch.bytes.is_empty() => return Ok(()),
                    Err(error) if Instant::now() >= ends_at => {
                        let lost = keeper.batch.bytes.len();
                        let text = format!("the last {lost} bytes of the log could not be brought to disk: {error}");
                        return Err(io::Error::new(error.kind(), text));
                    }
                    _ => thread::sleep(LINGER),
                }
            } else if !config.aof.syncs_each_batch(keeper.has_second_node()) {
                drop(keeper);
                thread::sleep(LINGER);
            }
        }
    }

    /// Writes what waits, for those who wait for the file alone. `false`: the thread has more to do.
    pub(super) fn write_waiting(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let is_usual = self.log.as_ref().is_some_and(Log::is_whole)
            && self.batch.is_empty()
            && !self.is_disk_untrue
            && !self.shared.log.is_renewal_wanted()
            // Then it is written and brought to disk in one go.
            && !shared.config().aof.syncs_each_batch(self.has_second_node());
        if !is_usual || !shared.journal.take_for_log(&mut self.batch, false) || self.batch.rotation.is_some() {
            return false;
        }
        // The thread may wait for nothing in particular, and has something to bring to disk now.
        let thread_knows = self.synced < self.written;
        self.write().is_ok() && thread_knows
    }

    /// How long nothing may come before the thread looks up by itself.
    fn patience(&self, config: &Config) -> Duration {
        match self.retry_at {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => self.sync_due_in(config).unwrap_or(IDLE_TIME),
        }
    }

    /// How long until the log is to be brought to disk. `None`: it has nothing that is to be, and whoever changes that calls this thread.
    fn sync_due_in(&self, config: &Config) -> Option<Duration> {
        if self.synced >= self.written || self.log.as_ref().is_none_or(|log| !log.is_whole()) {
            return None;
        }
        let has_second_node = self.has_second_node();
        let may_wait = self.rewrite.is_some() && config.aof.no_fsync_on_rewrite;
        if config.aof.syncs_each_batch(has_second_node) {
            Some(Duration::ZERO)
        } else if config.aof.syncs_every_second(has_second_node) && !may_wait {
            Some(SYNC_INTERVAL.saturating_sub(self.last_sync.elapsed()))
        } else {
            None
        }
    }

    /// Begins a log, ends it or begins another one, as CONFIG SET and the rest of the node want it.
    fn follow(keeper: &mut MutexGuard<'_, Keeper>, config: &Config) {
        // What is there of the data of a sync that broke off is no log.
        let has_data = !keeper.shared.replication.lacks_data();
        let is_renewed = has_data && keeper.shared.log.takes_renewal();
        if is_renewed {
            // What failed was about other data.
            keeper.rewrite_retry_at = None;
        }
        match &keeper.log {
            Some(_) if !config.appendonly => {
                // What was acknowledged until now is kept, as far as the disk goes along.
                drop(Keeper::write_and_sync(keeper, config, true));
                keeper.close();
                keeper.log = None;
                tracing::info!("the log was ended; what is in it stays");
            }
            Some(_) if is_renewed => {
                keeper.close();
                keeper.begin_anew(config);
            }
            None if config.appendonly && has_data && keeper.rewrite_retry_at.is_none_or(|at| Instant::now() >= at) => {
                keeper.begin_anew(config);
            }
            _ => {}
        }
    }

    /// Nothing goes to the log any more.
    fn close(&mut self) {
        let shared = &self.shared;
        shared.journal.close_log();
        shared.journal.barrier.follow_log(None);
        shared.log.is_kept.store(false, Ordering::Release);
        shared.log.is_rewriting.store(false, Ordering::Release);
        shared.log.was_last_write_good.store(true, Ordering::Release);
        shared.gate.set_log_error(None);
        shared.look_for_safety();
        if self.told_failure.take().is_some() {
            shared.tell(EventKind::LogRecovered, "the log that could not be written was ended; it refuses no writes any more");
        }
        self.batch = LogBatch::default();
        self.retry_at = None;
        self.is_disk_untrue = false;
        self.cancel_rewrite();
    }

    /// Writes what was taken, and brings it to disk when that is due.
    fn write_and_sync(keeper: &mut MutexGuard<'_, Keeper>, config: &Config, is_stopping: bool) -> io::Result<()> {
        if keeper.retry_at.is_some_and(|at| Instant::now() < at) && !is_stopping {
            // Bytes may come in meanwhile: keys that expire.
            MutexGuard::unlocked(keeper, || thread::sleep(LINGER));
            return Ok(());
        }
        let shared = Arc::clone(&keeper.shared);
        shared.journal.barrier.disk_begins();
        let began = Instant::now();
        // Another file takes the place of one that is on disk. What was taken is not written before, so replies wait for this: it is
        // little, as the rewrite began with the same.
        let is_rotated = keeper.batch.rotation.is_some() && !keeper.is_disk_untrue;
        let prepared = if is_rotated { Keeper::bring_to_disk(keeper) } else { Ok(()) };
        let outcome = prepared.and_then(|()| keeper.write()).and_then(|()| Keeper::sync(keeper, config, is_stopping));
        shared.journal.barrier.disk_ended();
        if began.elapsed() > 2 * SYNC_INTERVAL {
            shared.log.delayed_syncs.fetch_add(1, Ordering::Relaxed);
        }
        keeper.tell(outcome.as_ref().err());
        outcome
    }

    fn write(&mut self) -> io::Result<()> {
        if self.log.is_none() {
            return Ok(());
        }
        let bytes = self.batch.bytes.len();
        if self.batch.offset < self.synced {
            // Another stream began, at an offset of its own.
            self.synced = 0;
            self.shared.journal.barrier.synced(0);
        }
        if let Some(at) = self.batch.rotation {
            self.rotate(at)?;
        }
        let Some(log) = &mut self.log else { return Ok(()) };
        log.append(&self.batch.bytes)?;
        self.batch.bytes.clear();
        self.batch.bytes.shrink_to(BATCH_CAPACITY_KEPT);
        self.shared.log.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.written = self.batch.offset;
        if log.is_whole() {
            self.shared.journal.barrier.written(self.written);
        }
        Ok(())
    }

    /// Writes the first `at` bytes of the batch, and goes on in a new file.
    fn rotate(&mut self, at: usize) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.append(&self.batch.bytes[..at])?;
        self.batch.bytes.drain(..at);
        let synced = log.sync();
        let is_synced = synced.is_ok();
        let outcome = synced.and_then(|()| log.rotate());
        if let Err(error) = &outcome {
            tracing::warn!("the log goes on in the same file, and is not rewritten: {error}");
        }
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.increment = if outcome.is_ok() { Increment::Begun } else { Increment::Failed };
        }
        self.batch.rotation = None;
        if !is_synced {
            self.disk_failed();
        }
        Ok(())
    }

    fn sync(keeper: &mut MutexGuard<'_, Keeper>, config: &Config, is_stopping: bool) -> io::Result<()> {
        if keeper.log.as_ref().is_none_or(|log| !log.is_whole()) {
            return Ok(());
        }
        if keeper.is_disk_untrue {
            return Err(io::Error::other("what was written may not be on disk; the log is being rewritten"));
        }
        let is_due = is_stopping || keeper.sync_due_in(config).is_some_and(|due_in| due_in.is_zero());
        if is_due { Keeper::bring_to_disk(keeper) } else { Ok(()) }
    }

    /// Brings to disk what is written. Others write meanwhile.
    fn bring_to_disk(keeper: &mut MutexGuard<'_, Keeper>) -> io::Result<()> {
        let Some(log) = keeper.log.as_ref().filter(|_| keeper.synced < keeper.written) else { return Ok(()) };
        let (file, written) = (log.file(), keeper.written);
        if let Err(error) = MutexGuard::unlocked(keeper, || file.sync_data()) {
            keeper.disk_failed();
            return Err(error);
        }
        keeper.shared.log.syncs.fetch_add(1, Ordering::Relaxed);
        keeper.last_sync = Instant::now();
        // Less, where another stream began meanwhile.
        let synced = written.min(keeper.written);
        keeper.synced = synced;
        keeper.shared.journal.barrier.synced(synced);
        Ok(())
    }

    /// As [`Keeper::bring_to_disk`], where what waits for a disk that is stuck is to know.
    fn bring_to_disk_in_time(keeper: &mut MutexGuard<'_, Keeper>) -> io::Result<()> {
        let shared = Arc::clone(&keeper.shared);
        shared.journal.barrier.disk_begins();
        let outcome = Keeper::bring_to_disk(keeper);
        shared.journal.barrier.disk_ended();
        outcome
    }

    /// The system forgets what it could not write: the next time it would say that all is well.
    fn disk_failed(&mut self) {
        self.is_disk_untrue = true;
        self.shared.log.want_rewrite();
        if let Some(rewrite) = &mut self.rewrite {
            // What it is to be followed by may be among that.
            rewrite.spoil();
        }
    }

    /// Whether what is written is safe elsewhere: on a replica, or on the primary that it came from.
    fn has_second_node(&self) -> bool {
        self.shared.journal.barrier.has_replicas()
            || self.shared.keyspace.is_follower()
            || self.shared.config().waits_for_replica()
    }

    /// Says how the last write went: while it fails, others are refused.
    fn tell(&mut self, error: Option<&io::Error>) {
        if self.log.as_ref().is_none_or(|log| !log.is_whole()) {
            return;
        }
        let shared = &self.shared;
        let was_good = shared.log.was_last_write_good.swap(error.is_none(), Ordering::AcqRel);
        match error {
            Some(error) => {
                self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
                // A disk that turns out untrue behind a write that failed is told as well: that is worse.
                let kind = if self.is_disk_untrue { EventKind::LogSyncFailed } else { EventKind::LogWriteFailed };
                if self.told_failure != Some(kind) {
                    self.told_failure = Some(kind);
                    shared.tell(kind, format!("cannot write the log: {error}; writes are refused until it can be written again"));
                }
                if was_good {
                    shared.gate.set_log_error(Some(text(error)));
                }
            }
            // What others could not write meanwhile the next turn finds out.
            None => {
                self.retry_at = None;
                self.told_failure = None;
                if !was_good {
                    shared.tell(EventKind::LogRecovered, "the log can be written again; writes are taken again");
                    shared.gate.set_log_error(None);
                }
            }
        }
    }
}

/// The system's words alone, as Redis has them.
fn text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
