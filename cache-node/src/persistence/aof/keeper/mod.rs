//! The thread that keeps the log: writes what was appended to the stream, brings it to disk, rewrites it.

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

use crate::{
    config::Config,
    keyspace::Now,
    node::{LogBatch, Shared},
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

/// Pause between two writes that nobody waits for, so that bytes go out together.
const LINGER: Duration = Duration::from_millis(1);

/// Time for which the end of the node waits for a disk that refuses what is left.
const END_TIME_MAX: Duration = Duration::from_secs(3);

/// Capacity that the batch's buffer keeps between writes.
const BATCH_CAPACITY_KEPT: usize = 1024 * 1024;

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
            let offset = base::write(&shared, &path, config.aof.has_rdb_preamble, &is_cancelled, || shared.journal.open_log())?;
            log.rebase(part)?;
            self.log = Some(log);
            self.begins_at(offset);
            return Ok(());
        }
        let position = folder.take_position(&manifest)?;
        // Nothing expires meanwhile: what is behind may have given it more time.
        shared.keyspace.follow(true);
        load::load(&shared, &folder, &manifest, now)?;
        if let Some(position) = position {
            shared.replication.resume(&shared, position, now);
        }
        let log = Log::open(folder, manifest)?;
        let took = started.elapsed();
        tracing::info!(bytes = log.bytes(), ?took, "log loaded");
        self.log = Some(log);
        let keys = shared.keyspace.lock_all(0, now, &*shared);
        self.begins_at(shared.journal.open_log());
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

    pub(super) fn run(mut self) -> io::Result<()> {
        let outcome = self.keep();
        self.cancel_rewrite();
        outcome
    }

    fn keep(&mut self) -> io::Result<()> {
        let mut ends_at = None;
        loop {
            let shared = Arc::clone(&self.shared);
            let is_stopping = shared.log.is_stopping();
            let patience = if is_stopping { Duration::ZERO } else { self.patience(&shared.config()) };
            shared.journal.take_for_log(&mut self.batch, patience);
            let config = shared.config();
            if !is_stopping {
                self.follow(&config);
            }
            // A log that is not whole is of no use to the next start, and what stands behind a primary's snapshot has no place in one of
            // other data.
            let is_of_use = |log: &Log| !is_stopping || log.is_whole() && !shared.log.is_renewal_wanted();
            if !self.log.as_ref().is_some_and(is_of_use) {
                self.batch = LogBatch::default();
                if is_stopping {
                    return Ok(());
                }
                continue;
            }
            let outcome = self.write_and_sync(&config, is_stopping);
            self.finish_rewrite();
            self.rewrite_if_due(&config);
            if is_stopping {
                let ends_at = *ends_at.get_or_insert_with(|| Instant::now() + END_TIME_MAX);
                match outcome {
                    Ok(()) if self.batch.bytes.is_empty() => {
                        self.keep_position();
                        return Ok(());
                    }
                    Err(error) if Instant::now() >= ends_at => {
                        let lost = self.batch.bytes.len();
                        let text = format!("the last {lost} bytes of the log could not be brought to disk: {error}");
                        return Err(io::Error::new(error.kind(), text));
                    }
                    _ => thread::sleep(LINGER),
                }
            } else if !config.aof.is_waited_for() {
                thread::sleep(LINGER);
            }
        }
    }

    /// Keeps where in the stream the log ends. Without it replicas, or the primary, begin with a snapshot after the next start: no more.
    fn keep_position(&self) {
        let position = self.shared.replication.position(&self.shared).filter(|position| position.offset == self.written);
        if let (Some(log), Some(position)) = (&self.log, position)
            && let Err(error) = log.keep_position(&position)
        {
            tracing::warn!("{error}");
        }
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
    fn follow(&mut self, config: &Config) {
        let is_renewed = self.shared.log.takes_renewal();
        match &self.log {
            Some(_) if !config.appendonly => {
                // What was acknowledged until now is kept, as far as the disk goes along.
                drop(self.write_and_sync(config, true));
                self.close();
                self.log = None;
                tracing::info!("the log was ended; what is in it stays");
            }
            Some(_) if is_renewed => {
                self.close();
                self.begin_anew(config);
            }
            None if config.appendonly && self.rewrite_retry_at.is_none_or(|at| Instant::now() >= at) => self.begin_anew(config),
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
        self.batch = LogBatch::default();
        self.retry_at = None;
        self.is_disk_untrue = false;
        self.cancel_rewrite();
    }

    /// Writes what was taken, and brings it to disk when that is due.
    fn write_and_sync(&mut self, config: &Config, is_stopping: bool) -> io::Result<()> {
        if self.retry_at.is_some_and(|at| Instant::now() < at) && !is_stopping {
            // Bytes may come in meanwhile: keys that expire.
            thread::sleep(LINGER);
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        shared.journal.barrier.disk_begins();
        let began = Instant::now();
        let outcome = self.write().and_then(|()| self.sync(config, is_stopping));
        shared.journal.barrier.disk_ended();
        if began.elapsed() > 2 * SYNC_INTERVAL {
            shared.log.delayed_syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(outcome.as_ref().err());
        outcome
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let bytes = self.batch.bytes.len();
        if let Some(at) = self.batch.rotation {
            log.append(&self.batch.bytes[..at])?;
            self.batch.bytes.drain(..at);
            let outcome = log.rotate();
            if let Err(error) = &outcome {
                tracing::warn!("the log goes on in the same file, and is not rewritten: {error}");
            }
            if let Some(rewrite) = &mut self.rewrite {
                rewrite.increment = if outcome.is_ok() { Increment::Begun } else { Increment::Failed };
            }
            self.batch.rotation = None;
        }
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

    fn sync(&mut self, config: &Config, is_stopping: bool) -> io::Result<()> {
        let Some(log) = self.log.as_ref().filter(|log| log.is_whole()) else { return Ok(()) };
        if self.is_disk_untrue {
            return Err(io::Error::other("what was written may not be on disk; the log is being rewritten"));
        }
        let is_due = is_stopping || self.sync_due_in(config).is_some_and(|due_in| due_in.is_zero());
        if !is_due || self.synced >= self.written {
            return Ok(());
        }
        if let Err(error) = log.sync() {
            // The system forgets what it could not write: the next time it would say that all is well.
            self.is_disk_untrue = true;
            self.shared.log.want_rewrite();
            return Err(error);
        }
        self.shared.log.syncs.fetch_add(1, Ordering::Relaxed);
        self.last_sync = Instant::now();
        self.synced = self.written;
        self.shared.journal.barrier.synced(self.synced);
        Ok(())
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
                if was_good {
                    tracing::error!("cannot write the log: {error}; writes are refused until it can be written again");
                    shared.gate.set_log_error(Some(text(error)));
                }
            }
            None => {
                self.retry_at = None;
                if !was_good {
                    tracing::warn!("the log can be written again; writes are taken again");
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
