//! Rewriting the log: the next base is written by a thread of its own, and takes its place when it is there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    config::Config,
    node::EventKind,
    persistence::aof::{base, files::Folder, keeper::Keeper, log::Log, manifest::Part},
    server::now,
};

/// Time after which a rewrite that failed is tried again.
const REWRITE_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// A base that is being written.
#[derive(Debug)]
pub(super) struct Rewrite {
    base: Part,
    began: Instant,
    /// Set by the thread that writes it.
    outcome: Arc<Mutex<Option<io::Result<()>>>>,
    pub(super) thread: JoinHandle<()>,
    is_cancelled: Arc<AtomicBool>,
    pub(super) increment: Increment,
}

/// The increment that goes on where a base ends. The base has its place only in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Increment {
    /// The stream has not come to that place yet.
    Awaited,
    Begun,
    /// It could not be opened: the old one goes on, and the base is of no use.
    Failed,
}

impl Rewrite {
    /// The increment cannot be relied on, if it is begun already.
    pub(super) fn spoil(&mut self) {
        if self.increment == Increment::Begun {
            self.increment = Increment::Failed;
        }
    }
}

impl Keeper {
    /// Has the base that is being written end, and waits for that: its number is given again.
    pub(super) fn cancel_rewrite(&mut self) {
        let Some(rewrite) = self.rewrite.take() else { return };
        rewrite.is_cancelled.store(true, Ordering::Release);
        if rewrite.thread.join().is_err() {
            tracing::error!("the thread that rewrites the log ended by a panic");
        }
    }

    /// Begins a log of the data that is there: until its base is written, what is on disk stays as it is.
    pub(super) fn begin_anew(&mut self, config: &Config) {
        let begun = match self.log.take() {
            Some(log) => log.begin_again(),
            None => Folder::open(config).and_then(|folder| {
                let manifest = folder.manifest(config)?;
                Log::begin(folder, manifest)
            }),
        };
        match begun {
            Ok(log) => {
                self.log = Some(log);
                let shared = Arc::clone(&self.shared);
                self.begin_rewrite(config, move || {
                    // A part of a primary's snapshot is no data.
                    let has_data = !shared.replication.lacks_data();
                    if has_data {
                        shared.journal.open_log(shared.replication.followed_db());
                    }
                    has_data
                });
            }
            Err(error) => self.rewrite_failed(&error),
        }
    }

    /// Begins a rewrite that was asked for, or that the log's size asks for.
    pub(super) fn rewrite_if_due(keeper: &mut MutexGuard<'_, Keeper>, config: &Config) {
        let has_data = !keeper.shared.replication.lacks_data();
        if keeper.rewrite.is_some() || !has_data || keeper.log.as_ref().is_none_or(|log| !log.is_whole()) {
            return;
        }
        let log = &keeper.shared.log;
        let (bytes, base_bytes) = (log.bytes.load(Ordering::Relaxed), log.base_bytes.load(Ordering::Relaxed).max(1));
        let aof = &config.aof;
        let has_grown = aof.rewrite_percentage > 0
            && bytes > aof.rewrite_min_bytes
            && bytes.saturating_sub(base_bytes) as u128 * 100 >= u128::from(aof.rewrite_percentage) * u128::from(base_bytes);
        let may_retry = keeper.rewrite_retry_at.is_none_or(|at| Instant::now() >= at);
        // Only a rewrite makes what may not be on disk true again.
        if log.is_rewrite_wanted() || (has_grown || keeper.is_disk_untrue) && may_retry {
            if !keeper.is_disk_untrue {
                // Others write meanwhile, and what is left when the next file begins, where they wait, is little. Where it fails, the
                // rewrite is what helps.
                drop(Keeper::bring_to_disk_in_time(keeper));
            }
            let shared = Arc::clone(&keeper.shared);
            shared.log.takes_rewrite();
            keeper.begin_rewrite(config, move || {
                !shared.replication.lacks_data() && shared.journal.rotate_log(shared.replication.followed_db())
            });
        }
    }

    /// Has a thread write the next base. `cut` is called in its moment.
    fn begin_rewrite(&mut self, config: &Config, cut: impl FnOnce() -> bool + Send + 'static) {
        let Some(log) = &self.log else { return };
        // A log that begins writes it from the start.
        let increment = if log.is_whole() { Increment::Awaited } else { Increment::Begun };
        let is_rdb = config.aof.has_rdb_preamble;
        let (base, path) = log.next_base(is_rdb);
        let outcome = Arc::new(Mutex::new(None));
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let (shared, told, cancelled) = (Arc::clone(&self.shared), Arc::clone(&outcome), Arc::clone(&is_cancelled));
        let spawned = thread::Builder::new().name("cache-node-rewrite".to_owned()).spawn(move || {
            let written = base::write(&shared, &path, is_rdb, &cancelled, cut).and_then(|has_begun| match has_begun {
                true => Ok(()),
                false => Err(io::Error::other("the log was ended, or a snapshot of the primary is on its way")),
            });
            *told.lock() = Some(written);
            shared.journal.call_log();
        });
        match spawned {
            Ok(thread) => {
                self.shared.log.rewrite_began_ms.store(now().unix_ms, Ordering::Relaxed);
                self.shared.log.is_rewriting.store(true, Ordering::Release);
                self.rewrite = Some(Rewrite { base, began: Instant::now(), outcome, thread, is_cancelled, increment });
            }
            Err(error) => self.rewrite_failed(&error),
        }
    }

    /// Puts a base in its place when it is there.
    pub(super) fn finish_rewrite(keeper: &mut MutexGuard<'_, Keeper>) {
        let Some(rewrite) = &keeper.rewrite else { return };
        let mut told = rewrite.outcome.lock();
        // A base that is written sooner than the stream is taken up to its place waits for that.
        if told.as_ref().is_none_or(|outcome| outcome.is_ok() && rewrite.increment == Increment::Awaited) {
            return;
        }
        let Some(outcome) = told.take() else { return };
        drop(told);
        let Some(Rewrite { base, began, increment, .. }) = keeper.rewrite.take() else { return };
        // Others write until what is left for the disk is little.
        let outcome = outcome.and_then(|()| Keeper::bring_to_disk_in_time(keeper));
        let synced = match (&outcome, &keeper.log) {
            (Ok(()), Some(log)) => log.sync(),
            _ => Ok(()),
        };
        if synced.is_err() {
            keeper.disk_failed();
        }
        let outcome = outcome.and(synced);
        let outcome = outcome.and_then(|()| match &mut keeper.log {
            Some(_) if increment != Increment::Begun => Err(io::Error::other("there is no new increment")),
            Some(log) => {
                let was_whole = log.is_whole();
                log.rebase(base).map(|()| was_whole)
            }
            None => Err(io::Error::other("the log was ended meanwhile")),
        });
        match outcome {
            Ok(was_whole) => {
                let log = &keeper.shared.log;
                log.is_rewriting.store(false, Ordering::Release);
                log.was_last_rewrite_good.store(true, Ordering::Release);
                log.rewrites.fetch_add(1, Ordering::Relaxed);
                log.failed_rewrites_in_a_row.store(0, Ordering::Relaxed);
                log.last_rewrite_seconds.store(began.elapsed().as_secs() as i64, Ordering::Relaxed);
                keeper.rewrite_retry_at = None;
                keeper.is_disk_untrue = false;
                // It is on disk as far as it was written.
                keeper.synced = keeper.written;
                if was_whole {
                    let bytes = keeper.log.as_ref().map_or(0, Log::bytes);
                    keeper.shared.log.bytes.store(bytes, Ordering::Relaxed);
                    keeper.shared.log.base_bytes.store(bytes, Ordering::Relaxed);
                    keeper.shared.journal.barrier.synced(keeper.synced);
                } else {
                    let written = keeper.written;
                    keeper.begins_at(written);
                }
                tracing::info!(bytes = keeper.shared.log.bytes.load(Ordering::Relaxed), took = ?began.elapsed(), "log rewritten");
            }
            Err(error) => keeper.rewrite_failed(&error),
        }
    }

    pub(super) fn rewrite_failed(&mut self, error: &io::Error) {
        let log = &self.shared.log;
        log.is_rewriting.store(false, Ordering::Release);
        let text = format!("the log could not be rewritten: {error}");
        // It is tried again and again: told once.
        if log.was_last_rewrite_good.swap(false, Ordering::AcqRel) {
            self.shared.tell(EventKind::LogRewriteFailed, text);
        } else {
            tracing::warn!("{text}");
        }
        log.failed_rewrites_in_a_row.fetch_add(1, Ordering::Relaxed);
        self.rewrite_retry_at = Some(Instant::now() + REWRITE_RETRY_INTERVAL);
        // The place of its increment is not that of the next one.
        self.batch.rotation = None;
        self.shared.journal.forget_rotation();
        // A log without a base is none; one with a base goes on as it is.
        if self.log.as_ref().is_none_or(|log| !log.is_whole()) {
            self.close();
            self.log = None;
        }
    }
}
