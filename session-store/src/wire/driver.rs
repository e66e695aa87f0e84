//! What moves the bytes of a connection.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::{
    Closed, InFlight, OnPush, Shared, Slot,
    frame::{REPLY_BYTES_MAX, Reply, Scan},
};

/// Room for what is read at once, and the least that a read is begun with.
const READ_BYTES: usize = 32 << 10;
const READ_BYTES_MIN: usize = 2 << 10;
/// Buffers for reading that are kept until the replies in them are done with, to be used again.
const SPARES_MAX: usize = 3;
/// A buffer for writing that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

pub(super) struct Driver<S> {
    stream: S,
    shared: Arc<Shared>,
    on_push: Option<OnPush>,
    read: BytesMut,
    /// Whether what is read into is larger than usual, for a long reply.
    is_grown: bool,
    /// What was read into before, the longest unused first.
    spares: VecDeque<BytesMut>,
    scan: Scan,
    in_flight: InFlight,
    /// What is being written, and how much of it has been.
    sending: Vec<u8>,
    sent: usize,
    /// The others had their turn since there was something to send.
    has_yielded: bool,
    /// Requests of the last write.
    sent_last: usize,
    answered: Vec<(u32, Reply)>,
    to_wake: Vec<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(stream: S, shared: Arc<Shared>, on_push: Option<OnPush>) -> Self {
        Self {
            stream,
            shared,
            on_push,
            read: BytesMut::new(),
            is_grown: false,
            spares: VecDeque::new(),
            scan: Scan::default(),
            in_flight: InFlight::new(),
            sending: Vec::new(),
            sent: 0,
            has_yielded: false,
            sent_last: 0,
            answered: Vec::new(),
            to_wake: Vec::new(),
        }
    }

    /// Reads until nothing more has arrived. Ready when the connection has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            if self.read.capacity() - self.read.len() < READ_BYTES_MIN {
                self.make_room();
            }
            match ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read)) {
                Ok(0) => return Poll::Ready(closed(io::ErrorKind::UnexpectedEof, "the store closed it")),
                Ok(_) => {}
                Err(error) => return Poll::Ready(closed(error.kind(), "it broke while reading")),
            }
            let taken = self.take_replies();
            self.wake();
            if let Err(closed) = taken {
                return Poll::Ready(closed);
            }
        }
    }

    /// When a buffer is full, some of the latest replies in it are still looked at, and most of the time none of those in the one before:
    /// to take turns costs less than to allocate and give back 32 KiB for each 50 sessions, and the memory is warm.
    fn make_room(&mut self) {
        // What grew for a long reply is not kept for the short ones behind it.
        if !self.is_grown && self.read.try_reclaim(READ_BYTES - READ_BYTES_MIN) {
            return;
        }
        if self.read.len() > READ_BYTES_MIN {
            // The reply is long, or there are many: as large as it takes.
            self.is_grown = true;
            return self.read.reserve(READ_BYTES);
        }
        // One reply that is looked at for long holds up its own buffer only.
        let spare = self.spares.iter_mut().position(|spare| spare.try_reclaim(READ_BYTES));
        let spare = spare.and_then(|spare| self.spares.remove(spare));
        let mut room = spare.unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES));
        room.extend_from_slice(&self.read);
        let mut full = std::mem::replace(&mut self.read, room);
        full.clear();
        let is_grown = std::mem::take(&mut self.is_grown);
        if !is_grown && self.spares.len() < SPARES_MAX && full.capacity() > 0 {
            self.spares.push_back(full);
        }
    }

    /// Gives every complete reply to whom it belongs.
    fn take_replies(&mut self) -> Result<(), Closed> {
        while !self.read.is_empty() {
            // Only where it was asked for: on a connection whose requests have one reply each, so that it stands between two.
            let is_push = self.on_push.is_some() && self.read[0] == b'>' && self.scan.is_fresh();
            let values = match self.in_flight.front() {
                _ if is_push => 1,
                Some(&(_, replies)) => replies,
                None => return Err(closed(io::ErrorKind::InvalidData, "the store answered what was not asked")),
            };
            let end =
                self.scan.end(&self.read, values).map_err(|_| closed(io::ErrorKind::InvalidData, "the answer is not RESP"))?;
            let Some(end) = end else {
                if self.read.len() > REPLY_BYTES_MAX {
                    return Err(closed(io::ErrorKind::InvalidData, "an answer is too long"));
                }
                break;
            };
            let reply = Reply::new(self.read.split_to(end).freeze());
            if is_push {
                if let Some(on_push) = &mut self.on_push {
                    on_push(reply);
                }
            } else if let Some((slot, _)) = self.in_flight.pop_front() {
                self.answered.push((slot, reply));
            }
        }
        Ok(())
    }

    fn wake(&mut self) {
        if self.answered.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        for (slot, reply) in self.answered.drain(..) {
            match std::mem::replace(&mut state.slots[slot as usize], Slot::Answered(reply)) {
                Slot::Waiting { waker, .. } => self.to_wake.push(waker),
                // It has been woken, and finds the answer after all.
                Slot::Late => {}
                _ => drop(state.release(slot)),
            }
        }
        drop(state);
        self.to_wake.drain(..).for_each(Waker::wake);
    }

    /// Whether it is no use to let others have their turn first: one request at a time has been asked, and none is under way.
    ///
    /// The turn costs another look at the system's events, and as it leaves two tasks to be run the runtime wakes a second thread for
    /// them. Where an application serves one client at a time, that was a fifth of its CPU.
    fn is_alone(&self) -> bool {
        self.in_flight.is_empty() && self.sent_last <= 1
    }

    /// Writes what is to be sent, after everybody who is about to ask has had a turn to, if there are such: requests that are ready at
    /// the same time travel together. Ready when the connection has ended.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            while self.sent < self.sending.len() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.sending[self.sent..])) {
                    Ok(0) => return Poll::Ready(closed(io::ErrorKind::WriteZero, "it takes no more")),
                    Ok(count) => self.sent += count,
                    Err(error) => return Poll::Ready(closed(error.kind(), "it broke while writing")),
                }
            }
            if self.sent > 0 {
                match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                    Ok(()) => self.sent = 0,
                    Err(error) => return Poll::Ready(closed(error.kind(), "it broke while writing")),
                }
                self.sending.clear();
                if self.sending.capacity() > KEPT_BYTES_MAX {
                    self.sending = Vec::new();
                }
            }
            let mut state = self.shared.state.lock();
            if let Some(closed) = state.closed {
                return Poll::Ready(closed);
            }
            if state.unsent.is_empty() {
                state.is_driver_told = false;
                return Poll::Pending;
            }
            if !self.has_yielded && !self.is_alone() {
                drop(state);
                self.has_yielded = true;
                // Wakes this task when the runtime has run what is ready, and has asked the system for more.
                if pin!(tokio::task::yield_now()).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            self.has_yielded = false;
            std::mem::swap(&mut state.unsent, &mut self.sending);
            self.sent_last = state.asked.len();
            self.in_flight.extend(state.asked.drain(..));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.driver.register(cx.waker());
        let ended = match this.poll_read(cx) {
            Poll::Ready(closed) => Poll::Ready(closed),
            Poll::Pending => this.poll_write(cx),
        };
        let closed = ready!(ended);
        this.shared.close(closed);
        Poll::Ready(())
    }
}

/// Also when the runtime drops the task: nobody may wait for ever.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.shared.close(closed(io::ErrorKind::NotConnected, "the runtime that drove it has shut down"));
    }
}

fn closed(kind: io::ErrorKind, reason: &'static str) -> Closed {
    Closed { kind, reason }
}
