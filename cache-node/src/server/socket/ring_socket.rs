//! A socket whose requests go through a ring.

use std::{
    io, net,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use rustix::net::SendFlags;
use tokio::io::ReadBuf;

use super::{has_hung_up, ring::Ring, slot::Slot};

/// More bytes than this are not copied for a request: the socket takes what it has room for at once.
const COPIED_MAX: usize = 16 * 1024;
/// Bytes that a request waits with for room.
const WAITING_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct RingSocket {
    ring: Rc<Ring>,
    id: usize,
}

impl RingSocket {
    pub(super) fn new(ring: &Rc<Ring>, stream: net::TcpStream) -> io::Result<RingSocket> {
        // The kernel waits for the socket, where one that must not block would have it give up.
        stream.set_nonblocking(false)?;
        let id = ring.inner.borrow_mut().slots.insert(Slot::new(stream));
        Ok(RingSocket { ring: Rc::clone(ring), id })
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.ring.inner.borrow_mut();
        let (slot, Some(buffers)) = (&mut inner.slots[self.id], &mut inner.buffers) else { return Poll::Ready(Ok(())) };
        if let Some(outcome) = slot.read(buffer, buffers) {
            return Poll::Ready(outcome);
        }
        wait(&mut slot.reader, cx);
        inner.receive(self.id);
        Poll::Pending
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut *self.ring.inner.borrow_mut();
        let slot = &inner.slots[self.id];
        if let Some(kind) = slot.failure {
            return Err(kind.into());
        }
        if slot.is_sending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if bytes.len() > COPIED_MAX {
            match rustix::net::send(&slot.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
        let taken = bytes.len().min(WAITING_BYTES_MAX);
        if taken > 0 {
            inner.send(self.id, &bytes[..taken]);
        }
        Ok(taken)
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let slot = &mut self.ring.inner.borrow_mut().slots[self.id];
        if let Some(kind) = slot.failure {
            return Poll::Ready(Err(kind.into()));
        }
        if !slot.is_sending() {
            return Poll::Ready(Ok(()));
        }
        wait(&mut slot.writer, cx);
        Poll::Pending
    }

    pub(super) fn is_sending(&self) -> bool {
        self.ring.inner.borrow().slots[self.id].is_sending()
    }

    pub(super) fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        let slot = &self.ring.inner.borrow().slots[self.id];
        slot.has_ended() || has_hung_up(&slot.stream, cx)
    }

    /// Ready when the kernel receives nothing for it any more.
    pub(super) fn poll_still(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.ring.inner.borrow_mut();
        let slot = &mut inner.slots[self.id];
        if !slot.is_receiving {
            return Poll::Ready(());
        }
        wait(&mut slot.reader, cx);
        inner.cancel(self.id);
        Poll::Pending
    }

    pub(super) fn into_std(self) -> io::Result<net::TcpStream> {
        let slot = &self.ring.inner.borrow().slots[self.id];
        if slot.is_under_way() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let stream = slot.stream.try_clone()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        let inner = &mut *self.ring.inner.borrow_mut();
        let slot = &mut inner.slots[self.id];
        if slot.is_under_way() {
            slot.is_dropped = true;
            // Ends what is under way; the slot goes when the kernel has told so. A socket that broke before is as good as shut.
            let shut = slot.stream.shutdown(net::Shutdown::Both);
            drop(shut);
        } else {
            inner.forget(self.id);
        }
    }
}

/// Has `waker` wake the task of `cx`.
fn wait(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}
