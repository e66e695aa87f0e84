//! How far the stream is safe, and who waits for that: a batch's replies are held until what it wrote is as safe as was promised.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Bytes that may wait for the log before those who wrote them wait as well.
const LOG_BYTES_WAITING_MAX: u64 = 64 * 1024 * 1024;

/// How long the disk may take before those who write wait for it.
const DISK_TIME_MAX: Duration = Duration::from_secs(2);

/// What must be true of a write before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It is in memory.
    #[default]
    Memory = 0,
    /// It is handed to the system for the log, if there is one: the death of the process loses nothing.
    Written = 1,
    /// It is on disk.
    Disk = 2,
    /// It is in the memory of a replica; on disk while there is none. With a replica the disk alone is not enough: that replica is who
    /// takes over.
    ReplicaOrDisk = 3,
    /// It is in the memory of a replica, whatever is on disk.
    Replica = 4,
}

/// Offsets up to which the stream is on disk and on replicas, and tasks that wait for them.
#[derive(Debug)]
pub(crate) struct Barrier {
    durability: AtomicU8,
    /// Whether there is a log that `written` and `synced` follow.
    has_log: AtomicBool,
    written: AtomicU64,
    synced: AtomicU64,
    replicated: AtomicU64,
    /// Where the role as primary was given to a replica that had everything before it.
    handed_over: AtomicU64,
    /// Replicas that are up to date: places where a write can be safe without a log.
    replicas: AtomicUsize,
    /// When the disk was asked to do its work, in milliseconds since `epoch`; 0: it has nothing to do.
    disk_began_ms: AtomicU64,
    epoch: Instant,
    waiting: Mutex<Vec<Waiting>>,
}

/// Somebody who waits until what was written before `offset` may be acknowledged.
#[derive(Debug)]
struct Waiting {
    offset: u64,
    waker: Waker,
    /// Whether this is still to be woken. What it is woken for may have passed by the time that it looks.
    is_there: Arc<AtomicBool>,
}

impl Default for Barrier {
    fn default() -> Self {
        Barrier {
            durability: AtomicU8::new(Durability::Memory as u8),
            has_log: AtomicBool::new(false),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            replicated: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            replicas: AtomicUsize::new(0),
            disk_began_ms: AtomicU64::new(0),
            epoch: Instant::now(),
            waiting: Mutex::default(),
        }
    }
}

impl Barrier {
    /// What is promised from now on.
    pub(crate) fn promise(&self, durability: Durability) {
        self.durability.store(durability as u8, Ordering::Release);
        self.wake();
    }

    /// The log begins at `offset` (all before is safe in its base), or ends.
    pub(crate) fn follow_log(&self, begins_at: Option<u64>) {
        if let Some(offset) = begins_at {
            self.written.store(offset, Ordering::Release);
            self.synced.store(offset, Ordering::Release);
        }
        self.disk_began_ms.store(0, Ordering::Release);
        self.has_log.store(begins_at.is_some(), Ordering::Release);
        self.wake();
    }

    /// Whether there is a log.
    pub(crate) fn has_log(&self) -> bool {
        self.has_log.load(Ordering::Acquire)
    }

    pub(super) fn restart_at(&self, offset: u64) {
        self.written.store(offset, Ordering::Release);
        self.synced.store(offset, Ordering::Release);
        self.replicated.store(offset, Ordering::Release);
        self.handed_over.store(0, Ordering::Release);
        self.wake();
    }

    /// The role as primary goes to a replica that has everything before `offset`: what is safe there needs no other place.
    pub(crate) fn hand_over(&self, offset: u64) {
        self.handed_over.store(offset, Ordering::Release);
        self.replicated(offset);
    }

    /// The log has written everything before `offset` to its file.
    pub(crate) fn written(&self, offset: u64) {
        self.written.store(offset, Ordering::Release);
        self.wake();
    }

    /// Everything before `offset` is on disk.
    pub(crate) fn synced(&self, offset: u64) {
        self.synced.store(offset, Ordering::Release);
        self.wake();
    }

    /// The offset before which everything is on disk: WAITAOF, INFO.
    pub(crate) fn synced_offset(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// The offset before which everything was handed to the system.
    pub(crate) fn written_offset(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Whether an acknowledgement promises anything.
    pub(crate) fn promises_something(&self) -> bool {
        self.durability.load(Ordering::Acquire) != Durability::Memory as u8
    }

    /// A replica, or every one, has everything before `offset`.
    pub(crate) fn replicated(&self, offset: u64) {
        self.replicated.fetch_max(offset, Ordering::AcqRel);
        self.wake();
    }

    /// So many replicas are up to date. `true` when their number is another one.
    pub(super) fn set_replicas(&self, count: usize) -> bool {
        let is_changed = self.replicas.swap(count, Ordering::AcqRel) != count;
        if is_changed {
            self.wake();
        }
        is_changed
    }

    pub(crate) fn has_replicas(&self) -> bool {
        self.replicas.load(Ordering::Acquire) > 0
    }

    /// The disk is asked to do its work. When that takes longer than [`DISK_TIME_MAX`], everyone who writes waits for it, whatever was
    /// promised: as in Redis, at most that much is lost.
    pub(crate) fn disk_begins(&self) {
        self.disk_began_ms.store(self.epoch.elapsed().as_millis() as u64 + 1, Ordering::Release);
    }

    /// The disk has done its work.
    pub(crate) fn disk_ended(&self) {
        self.disk_began_ms.store(0, Ordering::Release);
        self.wake();
    }

    fn is_disk_stuck(&self) -> bool {
        let began = self.disk_began_ms.load(Ordering::Acquire);
        began != 0 && self.epoch.elapsed() > Duration::from_millis(began) + DISK_TIME_MAX
    }

    /// Whether what was written before `offset` may be acknowledged.
    pub(crate) fn is_reached(&self, offset: u64) -> bool {
        let has_log = self.has_log();
        let is_synced = || has_log && self.synced.load(Ordering::Acquire) >= offset;
        let is_written = || !has_log || self.written.load(Ordering::Acquire) >= offset;
        let is_replicated = || self.replicated.load(Ordering::Acquire) >= offset;
        let is_safe = match self.durability.load(Ordering::Acquire) {
            0 => true,
            1 => is_written(),
            2 => !has_log || is_synced(),
            3 if !self.has_replicas() && self.handed_over.load(Ordering::Acquire) < offset => is_synced(),
            // Handed to the system for the log as well: the loss of all processes at once is survived by the file.
            _ => is_replicated() && is_written(),
        };
        if !is_safe || !has_log {
            return is_safe;
        }
        let has_room = self.written.load(Ordering::Acquire) + LOG_BYTES_WAITING_MAX >= offset;
        has_room && (!self.is_disk_stuck() || is_synced())
    }

    /// Completes when what was written before `offset` may be acknowledged.
    pub(crate) fn reached(&self, offset: u64) -> impl Future<Output = ()> {
        // One entry, however often the task is polled for other reasons.
        let mut entry: Option<Arc<AtomicBool>> = None;
        poll_fn(move |cx| {
            if self.is_reached(offset) {
                return Poll::Ready(());
            }
            if entry.as_ref().is_none_or(|is_there| !is_there.load(Ordering::Acquire)) {
                let is_there = Arc::new(AtomicBool::new(true));
                entry = Some(Arc::clone(&is_there));
                self.waiting.lock().push(Waiting { offset, waker: cx.waker().clone(), is_there });
            }
            // Looked at again behind the entry, so that nothing slips through between.
            if self.is_reached(offset) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn wake(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return;
        }
        let (ready, rest): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|entry| self.is_reached(entry.offset));
        *waiting = rest;
        drop(waiting);
        for Waiting { waker, is_there, .. } in ready {
            is_there.store(false, Ordering::Release);
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Wake, Waker},
    };

    use super::{Barrier, Durability};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_looks_too_late_is_woken_again() {
        let barrier = Barrier::default();
        barrier.promise(Durability::ReplicaOrDisk);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut reached = pin!(barrier.reached(10));
        assert!(reached.as_mut().poll(&mut cx).is_pending());
        barrier.replicated(10);
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "there is no replica");
        barrier.set_replicas(1);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        // It goes away before anybody looks, and comes back.
        barrier.set_replicas(0);
        assert!(reached.as_mut().poll(&mut cx).is_pending());
        assert!(reached.as_mut().poll(&mut cx).is_pending());
        barrier.set_replicas(1);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(reached.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn what_was_handed_over_is_safe_without_replicas_and_what_comes_later_is_not() {
        let barrier = Barrier::default();
        barrier.promise(Durability::ReplicaOrDisk);
        barrier.set_replicas(1);
        assert!(!barrier.is_reached(10));
        barrier.hand_over(10);
        barrier.set_replicas(0);
        assert!(barrier.is_reached(10) && !barrier.is_reached(11));
        // In another stream the same numbers are other places.
        barrier.restart_at(5);
        assert!(!barrier.is_reached(10));
    }
}
