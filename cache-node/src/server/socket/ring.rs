//! System calls in batches: what the connections of a thread want to send and to receive is told to the kernel in one go, and what became
//! of it is heard in one go (`io_uring(7)`).
//!
//! A socket has one request to receive, which stands until it is cancelled: the kernel takes one of [`Buffers`] whenever something has
//! arrived. The kernel works for this ring only while this thread asks it to (`IORING_SETUP_DEFER_TASKRUN`); that there is work it tells
//! by an eventfd, which is what the runtime waits for. It does at most some twenty things when asked once, and the eventfd speaks only of
//! those that came after it did nothing: [`Ring::has_more`] is to be asked before the runtime waits.
#![allow(unsafe_code, reason = "requests hold addresses until they are done; see `Inner::queue`")]

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt, io, net,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{Ordering, fence},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use rustix::event::EventfdFlags;
use slab::Slab;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    buffers::{Buffers, GROUP},
    slot::Slot,
};

/// Requests that are told at once; more of them are told in several goes.
const REQUESTS_MAX: u32 = 1024;
/// Emptied buffers of requests to send that are kept, and the capacity of each.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// How long the end of a thread waits for the kernel to let go of its buffers; else they are left to it.
const END_LOOKS: u32 = 200;
const END_LOOK: Duration = Duration::from_millis(1);

/// `IORING_ENTER_GETEVENTS`: do what is due for this ring.
const GET_EVENTS: u32 = 1;

/// What a completion is about: the low bits of its number, the others are its socket's.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const CANCEL: u64 = 2;
const KIND_BITS: u32 = 2;

/// The ring of one thread.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Counts up when the kernel has something to do. Nobody reads it: that it changed is what the runtime hears.
    ready: AsyncFd<OwnedFd>,
    pub(super) inner: RefCell<Inner>,
}

/// What is borrowed only between two awaits.
pub(super) struct Inner {
    /// Before the buffers: it goes first.
    uring: IoUring,
    /// `None` when they were left to the kernel.
    pub(super) buffers: Option<Buffers>,
    pub(super) slots: Slab<Slot>,
    /// Requests that the kernel's queue had no room for; a socket has three at the most.
    waiting: VecDeque<squeue::Entry>,
    /// Sockets for whose receiving there was no buffer.
    starved: Vec<usize>,
    /// Sockets that received much.
    ahead: Vec<usize>,
    /// Sockets that received something in this turn.
    arrived: Vec<usize>,
    kept: Vec<Vec<u8>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Finds out whether there may be rings here.
    ///
    /// # Errors
    /// When the kernel is older than 6.1, or whoever runs this machine allows none.
    pub(crate) fn probe() -> io::Result<()> {
        Inner::new().map(drop)
    }

    /// A ring for this thread, whose runtime hears from it.
    ///
    /// # Errors
    /// As [`probe`](Ring::probe).
    pub(crate) fn new() -> io::Result<Ring> {
        let inner = Inner::new()?;
        let requests = inner.uring.submitter();
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        requests.register_eventfd(event.as_raw_fd())?;
        // SAFETY: an `OwnedFd` is the same open file for as long as it lives.
        let ready = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE)? };
        Ok(Ring { ready, inner: RefCell::new(inner) })
    }

    /// Tells the kernel what is wanted, hears what it has to say, and wakes the connections that it is for. The task is woken when the
    /// kernel has something to say later.
    pub(crate) fn turn(&self, cx: &mut Context<'_>) {
        // Before the look, so that nothing slips through between.
        while let Poll::Ready(Ok(mut guard)) = self.ready.poll_read_ready(cx) {
            guard.clear_ready();
        }
        let mut inner = self.inner.borrow_mut();
        inner.arrived.clear();
        inner.settle();
        if inner.has_more() {
            inner.enter_in_silence();
        }
        inner.reap();
    }

    /// Shows what has arrived in the last turn, for `count_max` sockets at the most: that of each whose bytes lie in one piece.
    pub(crate) fn look_at_arrived(&self, count_max: usize, look: impl FnOnce(&mut dyn Iterator<Item = &[u8]>)) {
        let Inner { arrived, slots, buffers, .. } = &*self.inner.borrow();
        let Some(buffers) = buffers else { return };
        if arrived.len() > 1 {
            look(&mut arrived.iter().take(count_max).filter_map(|id| slots.get(*id)?.piece(buffers)));
        }
    }

    /// Whether another [`turn`](Ring::turn) is due now.
    pub(crate) fn has_more(&self) -> bool {
        self.inner.borrow_mut().has_more()
    }
}

impl Inner {
    fn new() -> io::Result<Inner> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(REQUESTS_MAX)?;
        // SAFETY: `uring` is dropped before the buffers, and `Drop` leaves them behind when a request is still under way.
        let buffers = unsafe { Buffers::register(&uring)? };
        Ok(Inner {
            uring,
            buffers: Some(buffers),
            slots: Slab::new(),
            waiting: VecDeque::new(),
            starved: Vec::new(),
            ahead: Vec::new(),
            arrived: Vec::new(),
            kept: Vec::new(),
        })
    }

    fn has_more(&mut self) -> bool {
        let requests = self.uring.submission();
        let is_due = !requests.is_empty() || requests.taskrun() || requests.cq_overflow();
        is_due || !self.starved.is_empty() || !self.waiting.is_empty()
    }

    /// Receives for whom there was no buffer, and no more for those who do not take what they have.
    fn settle(&mut self) {
        for id in std::mem::take(&mut self.starved) {
            self.receive(id);
        }
        for id in std::mem::take(&mut self.ahead) {
            if self.slots.get(id).is_some_and(Slot::is_ahead) {
                self.cancel(id);
            }
        }
    }

    /// As [`enter`](Inner::enter), and the eventfd does not tell this thread what it has just done itself: that would wake it once in vain.
    fn enter_in_silence(&mut self) {
        // What others add meanwhile is not told either, so `has_more` has to see it: they flag work before they look whether to tell, and
        // this thread looks at the flag after it lets them tell. Only on x86 does Linux put a barrier between the two steps of theirs.
        if !cfg!(target_arch = "x86_64") {
            return self.enter();
        }
        self.uring.completion().disable_eventfd();
        self.enter();
        self.uring.completion().enable_eventfd();
        fence(Ordering::SeqCst);
    }

    /// One system call: what was wanted is begun, and what is due is done.
    fn enter(&mut self) {
        self.queue();
        let wanted = self.uring.submission().len() as u32;
        // SAFETY: there is no argument.
        let outcome = unsafe { self.uring.submitter().enter::<()>(wanted, 0, GET_EVENTS, None) };
        match outcome {
            Ok(_) => {}
            // What was not taken stays in the queue for the next time.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => tracing::error!(%error, "io_uring_enter"),
        }
    }

    fn reap(&mut self) {
        loop {
            let Some(entry) = self.uring.completion().next() else { return };
            let id = (entry.user_data() >> KIND_BITS) as usize;
            match entry.user_data() & ((1 << KIND_BITS) - 1) {
                RECEIVE => self.received(id, &entry),
                SEND => self.sent(id, entry.result()),
                // What was cancelled tells its own end.
                _ => continue,
            }
            if self.slots.get(id).is_some_and(|slot| slot.is_dropped && !slot.is_under_way()) {
                self.forget(id);
            }
        }
    }

    fn received(&mut self, id: usize, entry: &cqueue::Entry) {
        let (Some(slot), Some(buffers)) = (self.slots.get_mut(id), &mut self.buffers) else { return };
        if !cqueue::more(entry.flags()) {
            (slot.is_receiving, slot.is_cancelling) = (false, false);
        }
        let length = usize::try_from(entry.result());
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            // SAFETY: this completion names the buffer, and each is taken from the queue once.
            let filled = unsafe { buffers.taken(buffer, length.unwrap_or(0)) };
            if slot.is_dropped || filled.len() == 0 {
                buffers.give_back(filled);
            } else {
                slot.keep(filled, buffers);
                self.arrived.push(id);
                if slot.is_ahead() {
                    self.ahead.push(id);
                }
            }
        }
        match length {
            Ok(0) => slot.ended(Ok(())),
            Ok(_) => {}
            Err(_) => {
                let error = io::Error::from_raw_os_error(-entry.result());
                match error.raw_os_error() {
                    Some(libc::ENOBUFS) => self.starved.push(id),
                    Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
                    _ => slot.ended(Err(error.kind())),
                }
            }
        }
        slot.wake_reader();
    }

    fn sent(&mut self, id: usize, result: i32) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        match usize::try_from(result) {
            Ok(sent) if slot.sent + sent < slot.sending.len() => {
                slot.sent += sent;
                return self.send_rest(id);
            }
            Ok(_) => {}
            Err(_) => match io::Error::from_raw_os_error(-result) {
                error if error.kind() == io::ErrorKind::Interrupted => return self.send_rest(id),
                error => slot.failure = Some(error.kind()),
            },
        }
        let mut bytes = std::mem::take(&mut slot.sending);
        slot.writer.take().into_iter().for_each(Waker::wake);
        // A connection that waits holds no buffer.
        if self.kept.len() < KEPT_MAX && bytes.capacity() <= KEPT_BYTES_MAX {
            bytes.clear();
            self.kept.push(bytes);
        }
    }

    /// Sends a copy of `bytes`, which are some, for a socket that sends nothing.
    pub(super) fn send(&mut self, id: usize, bytes: &[u8]) {
        let mut copy = self.kept.pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        let slot = &mut self.slots[id];
        (slot.sending, slot.sent) = (copy, 0);
        self.send_rest(id);
    }

    fn send_rest(&mut self, id: usize) {
        let slot = &self.slots[id];
        let rest = &slot.sending[slot.sent..];
        let request = opcode::Send::new(Fd(slot.stream.as_raw_fd()), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data((id as u64) << KIND_BITS | SEND);
        self.push(request);
    }

    /// Receives whatever comes, if it does not already.
    pub(super) fn receive(&mut self, id: usize) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.is_dropped || slot.is_receiving || slot.has_ended() {
            return;
        }
        slot.is_receiving = true;
        let request = opcode::RecvMulti::new(Fd(slot.stream.as_raw_fd()), GROUP).build();
        self.push(request.user_data((id as u64) << KIND_BITS | RECEIVE));
    }

    /// Receives no more. The last of it may still come.
    pub(super) fn cancel(&mut self, id: usize) {
        let slot = &mut self.slots[id];
        if !slot.is_receiving || std::mem::replace(&mut slot.is_cancelling, true) {
            return;
        }
        let request = opcode::AsyncCancel::new((id as u64) << KIND_BITS | RECEIVE).build();
        self.push(request.user_data((id as u64) << KIND_BITS | CANCEL));
    }

    fn push(&mut self, request: squeue::Entry) {
        self.waiting.push_back(request);
        self.queue();
    }

    /// Moves requests into the kernel's queue, in their order, as long as there is room.
    fn queue(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(request) = self.waiting.front() {
            // SAFETY: a request names a socket and, when it sends, bytes. Both belong to a slot that stays, with bytes that do not move,
            // until the kernel has told the request's end: `forget` and `sent` come after it, `Drop` leaves what is still under way.
            if unsafe { queue.push(request) }.is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// The kernel holds nothing of it any more.
    pub(super) fn forget(&mut self, id: usize) {
        let mut slot = self.slots.remove(id);
        if let Some(buffers) = &mut self.buffers {
            slot.discard(buffers);
        }
        self.starved.retain(|starved| *starved != id);
        self.ahead.retain(|ahead| *ahead != id);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for (_, slot) in &mut self.slots {
            slot.is_dropped = true;
            // A socket that broke before is as good as shut.
            let shut = slot.stream.shutdown(net::Shutdown::Both);
            drop(shut);
        }
        for _ in 0..END_LOOKS {
            self.enter();
            self.reap();
            self.slots.retain(|_, slot| slot.is_under_way());
            if self.slots.is_empty() {
                return;
            }
            if !self.has_more() {
                thread::sleep(END_LOOK);
            }
        }
        // The kernel may still write to these, and read from those: they are left to it.
        std::mem::forget(self.buffers.take());
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}
