//! The change stream: every write as requests, in one order that is the order of each key. The log writes it to disk, replicas are sent
//! it; both begin with a snapshot of the keyspace and go on from the offset at which it was taken.

mod backlog;
mod barrier;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, futures::Notified};

use crate::{keyspace::Record, protocol::encode_request};

use backlog::Backlog;
pub(crate) use barrier::{Barrier, Durability};

/// The stream of a node. While nobody wants it, writes cost one atomic load per lock and nothing is kept.
///
/// Its mutex is the last one that is locked: writers take it with their shards locked.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Whether there is a log or a backlog.
    is_wanted: AtomicBool,
    offset: AtomicU64,
    stream: Mutex<Stream>,
    /// Woken when bytes wait for the log.
    log_filled: Condvar,
    /// Woken when bytes wait for replicas.
    grown: Notify,
    pub(crate) barrier: Barrier,
}

#[derive(Debug, Default)]
struct Stream {
    offset: u64,
    /// The database that the stream has selected; `None`: the next request says it anew.
    db: Option<usize>,
    backlog: Option<Backlog>,
    /// The offset that the slowest replica is to be sent next.
    held_from: Option<u64>,
    /// Bytes that are kept for it at the most.
    held_max: u64,
    log: Option<LogQueue>,
    /// The log's thread is asked to look up, although there may be no bytes.
    is_log_called: bool,
    /// The name under which others know the stream.
    name: Option<String>,
    /// Whether what the log holds is what the stream leads to. Not between a primary's snapshot and the log that begins behind it.
    is_in_log: bool,
    /// The offset of which the log was told last that it stands there, and when.
    told_log: Option<(u64, Instant)>,
}

/// Bytes that the log has not taken yet. Bounded by the barrier: whoever wrote them waits when they are too many.
#[derive(Debug, Default)]
struct LogQueue {
    bytes: Vec<u8>,
    /// Where in `bytes` a new file begins.
    rotation: Option<usize>,
}

/// Between two times that the log is told where it stands although it has nothing new: only what keeps links alive came.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// How a line begins that says where in which stream the log stands that ends with it. To Redis it is a comment, as its own times are.
const POSITION: &str = "#RP:";

/// What such a line says: the stream's name, and its offset. `None`: it is another comment.
pub(crate) fn position_in(line: &str) -> Option<(&str, u64)> {
    let (id, offset) = line.strip_prefix(POSITION)?.trim_end().split_once(':')?;
    Some((id, offset.parse().ok()?)).filter(|_| id.len() == 40)
}

/// What the log takes at once.
#[derive(Debug, Default)]
pub(crate) struct LogBatch {
    pub(crate) bytes: Vec<u8>,
    /// Where in `bytes` a new file begins.
    pub(crate) rotation: Option<usize>,
    /// The stream's offset behind `bytes`.
    pub(crate) offset: u64,
}

impl LogBatch {
    /// Whether nothing of it is left to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.rotation.is_none()
    }
}

impl Stream {
    fn push(&mut self, bytes: &[u8], is_for_log: bool) {
        self.offset += bytes.len() as u64;
        if let Some(backlog) = &mut self.backlog {
            backlog.push(bytes, self.held_from.unwrap_or(u64::MAX), self.held_max);
        }
        if let Some(log) = self.log.as_mut().filter(|_| is_for_log) {
            log.bytes.extend_from_slice(bytes);
        }
    }

    /// Has the log's bytes end with where they stand, if that is another place than it was told before and somebody may ask for it.
    fn tell_log(&mut self, has_new_bytes: bool, is_last: bool) {
        let is_new = self
            .told_log
            .is_none_or(|(offset, at)| offset != self.offset && (has_new_bytes || is_last || at.elapsed() >= TELL_INTERVAL));
        let (Some(log), Some(name), Some(_)) = (&mut self.log, &self.name, &self.backlog) else { return };
        if self.is_in_log && is_new {
            log.bytes.extend_from_slice(format!("{POSITION}{name}:{}\r\n", self.offset).as_bytes());
            self.told_log = Some((self.offset, Instant::now()));
        }
    }

    /// What comes next is in a file of its own, which says its database. `db`: that of a stream that is not this node's own.
    fn begin_file(&mut self, db: Option<usize>) {
        self.db = None;
        self.told_log = None;
        if let (Some(log), Some(db)) = (&mut self.log, db) {
            encode_request(&mut log.bytes, [b"SELECT", db.to_string().as_bytes()].into_iter());
        }
    }

    fn select(&mut self, db: usize) {
        if self.db == Some(db) {
            return;
        }
        self.db = Some(db);
        let mut request = Vec::new();
        encode_request(&mut request, [b"SELECT", db.to_string().as_bytes()].into_iter());
        self.push(&request, true);
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Journal {
    /// Whether anybody wants the stream.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Bytes since the stream began: Redis's `master_repl_offset`.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Appends what a view of the keyspace wrote, under its locks. Gives the offset behind it.
    pub(crate) fn append(&self, record: &Record) -> u64 {
        let mut stream = self.stream.lock();
        if record.is_transaction() {
            stream.push(MULTI, true);
        }
        for (db, requests) in record.segments() {
            stream.select(db);
            stream.push(requests, true);
        }
        if record.is_transaction() {
            stream.push(EXEC, true);
        }
        self.appended(&stream)
    }

    /// Appends bytes as they are: what a replica got from its primary, with `is_for_log` where they are requests that change keys, and
    /// without where they only keep the link alive (PING, REPLCONF GETACK). Gives the offset behind them.
    pub(crate) fn append_raw(&self, bytes: &[u8], is_for_log: bool) -> u64 {
        let mut stream = self.stream.lock();
        if is_for_log {
            // What they select is not looked at.
            stream.db = None;
        }
        stream.push(bytes, is_for_log);
        self.appended(&stream)
    }

    /// Has the next request say its database anew: a consumer that begins knows none. With every shard locked.
    pub(crate) fn forget_database(&self) {
        self.stream.lock().db = None;
    }

    /// The database that the stream has selected; `None`: the next request says it anew.
    pub(crate) fn selected_db(&self) -> Option<usize> {
        self.stream.lock().db
    }

    fn appended(&self, stream: &Stream) -> u64 {
        self.offset.store(stream.offset, Ordering::Release);
        if stream.log.is_some() {
            self.log_filled.notify_one();
        }
        if stream.backlog.is_some() {
            self.grown.notify_waiters();
        }
        stream.offset
    }

    /// Begins to keep the last `capacity` bytes for replicas, from this offset on. Whoever calls it holds every shard's lock, so that
    /// no write is half told. Keeps what is there when it has that capacity already.
    pub(crate) fn open_backlog(&self, capacity: usize) {
        let mut stream = self.stream.lock();
        if stream.backlog.as_ref().is_none_or(|backlog| backlog.capacity() != capacity) {
            stream.backlog = Some(Backlog::new(capacity, stream.offset));
        }
        self.is_wanted.store(true, Ordering::Release);
    }

    /// Others know the stream by this name from here on.
    pub(crate) fn name(&self, name: &str) {
        let mut stream = self.stream.lock();
        stream.name = Some(name.to_owned());
        stream.told_log = None;
    }

    /// Lets the stream go on at another offset: this node now follows another stream from there. With every shard locked. What the log
    /// holds has nothing to do with it, until another log begins.
    pub(crate) fn restart_at(&self, offset: u64) {
        let mut stream = self.stream.lock();
        stream.offset = offset;
        stream.db = None;
        stream.is_in_log = false;
        if let Some(backlog) = &mut stream.backlog {
            *backlog = Backlog::new(backlog.capacity(), offset);
        }
        self.offset.store(offset, Ordering::Release);
        self.barrier.restart_at(offset);
    }

    /// What the log holds is what the stream leads to again, after [`Journal::restart_at`]: it was told that all before is gone. With
    /// every shard locked.
    pub(crate) fn log_goes_on(&self) {
        let mut stream = self.stream.lock();
        stream.is_in_log = stream.log.is_some();
    }

    /// Capacity of the backlog, and the oldest offset from which replicas can go on; `None` without one.
    pub(crate) fn backlog(&self) -> Option<(usize, u64)> {
        self.stream.lock().backlog.as_ref().map(|backlog| (backlog.capacity(), backlog.start()))
    }

    /// Keeps everything from this offset on, within a bound, although it is more than the backlog's capacity: a replica is still to be
    /// sent it. `None`: there is no such replica.
    pub(crate) fn hold_from(&self, offset: Option<u64>) {
        self.stream.lock().held_from = offset;
    }

    /// Bytes that are kept for a replica at the most.
    pub(crate) fn hold_at_most(&self, bytes: u64) {
        self.stream.lock().held_max = bytes;
    }

    /// Up to `bytes_max` bytes from `offset` on; none when the stream ends there. `None`: they are not in the backlog (any more).
    pub(crate) fn read_from(&self, offset: u64, bytes_max: usize) -> Option<Vec<u8>> {
        self.stream.lock().backlog.as_ref()?.read(offset, bytes_max)
    }

    /// Completes when the stream has grown after this call. Ask first, then read, then await: nothing is missed.
    pub(crate) fn grown(&self) -> Notified<'_> {
        self.grown.notified()
    }

    /// Begins to queue bytes for the log, from this offset on, and gives it. With every shard locked. `db`: what the stream of a primary
    /// has selected, if one is followed.
    pub(crate) fn open_log(&self, db: Option<usize>) -> u64 {
        let mut stream = self.stream.lock();
        stream.log.get_or_insert_default();
        stream.begin_file(db);
        stream.is_in_log = true;
        self.is_wanted.store(true, Ordering::Release);
        stream.offset
    }

    /// Ends what [`Journal::open_log`] began; what was not taken is dropped.
    pub(crate) fn close_log(&self) {
        let mut stream = self.stream.lock();
        stream.log = None;
        self.is_wanted.store(stream.backlog.is_some(), Ordering::Release);
        drop(stream);
        self.log_filled.notify_all();
    }

    /// What comes from here on belongs into a new file of the log. `false` when one is begun already, or there is no log. With every
    /// shard locked. `db`: as for [`Journal::open_log`].
    pub(crate) fn rotate_log(&self, db: Option<usize>) -> bool {
        let mut stream = self.stream.lock();
        let Some(log) = stream.log.as_mut().filter(|log| log.rotation.is_none()) else { return false };
        log.rotation = Some(log.bytes.len());
        stream.begin_file(db);
        stream.is_log_called = true;
        self.log_filled.notify_one();
        true
    }

    /// Takes [`Journal::rotate_log`] back, where the log has not come to that place yet.
    pub(crate) fn forget_rotation(&self) {
        if let Some(log) = &mut self.stream.lock().log {
            log.rotation = None;
        }
    }

    /// So many replicas are up to date: with none of them, `durability sync` needs the log.
    pub(crate) fn set_replicas(&self, count: usize) {
        if self.barrier.set_replicas(count) {
            self.call_log();
        }
    }

    /// Wakes the log's thread.
    pub(crate) fn call_log(&self) {
        self.stream.lock().is_log_called = true;
        self.log_filled.notify_all();
    }

    /// Waits up to `patience` for bytes for the log, or for [`Journal::call_log`].
    pub(crate) fn wait_for_log(&self, patience: Duration) {
        let mut stream = self.stream.lock();
        let has_bytes = stream.log.as_ref().is_some_and(|log| !log.bytes.is_empty());
        if !has_bytes && !stream.is_log_called {
            self.log_filled.wait_for(&mut stream, patience);
        }
        stream.is_log_called = false;
    }

    /// Adds the bytes that wait for the log to `batch`. `is_last`: nothing comes behind them. Gives whether there is a log.
    pub(crate) fn take_for_log(&self, batch: &mut LogBatch, is_last: bool) -> bool {
        let mut stream = self.stream.lock();
        batch.offset = stream.offset;
        let has_new_bytes = stream.log.as_ref().is_some_and(|log| !log.bytes.is_empty());
        stream.tell_log(has_new_bytes, is_last);
        let Some(log) = stream.log.as_mut() else { return false };
        let before = batch.bytes.len();
        if before == 0 {
            std::mem::swap(&mut log.bytes, &mut batch.bytes);
        } else {
            batch.bytes.append(&mut log.bytes);
        }
        batch.rotation = log.rotation.take().map(|at| at + before).or(batch.rotation);
        true
    }
}

#[cfg(test)]
mod tests;
