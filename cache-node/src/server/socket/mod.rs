//! The socket of a connection: tokio's, or one whose system calls are made in batches by io_uring.

#[cfg(target_os = "linux")]
mod buffers;
#[cfg(not(target_os = "linux"))]
mod no_ring;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod ring_socket;
#[cfg(target_os = "linux")]
mod slot;

#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::{
    future::poll_fn,
    io, net,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_util::io::poll_read_buf;

#[cfg(not(target_os = "linux"))]
pub(super) use no_ring::Ring;
#[cfg(not(target_os = "linux"))]
use no_ring::RingSocket;
#[cfg(target_os = "linux")]
pub(super) use ring::Ring;
#[cfg(target_os = "linux")]
use ring_socket::RingSocket;

/// Whether the threads of a node may have rings; the log says why they may not.
pub(super) fn may_have_rings() -> bool {
    let Err(error) = Ring::probe() else { return true };
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the machine forbids it, by the sysctl kernel.io_uring_disabled or the seccomp profile of its container"
        }
        io::ErrorKind::OutOfMemory => "the memory limit of the process or of its container leaves no room for it",
        _ => "it takes Linux 6.1 or newer, and no sandbox that lacks it",
    };
    tracing::warn!("io-uring yes is refused: {error}; {reason}. Connections are served without it");
    false
}

/// A connected socket that reads and writes as the kernel lets it.
#[derive(Debug)]
pub(super) enum Socket {
    /// Shared with the replies that this turn has for it.
    Tokio(Rc<TcpStream>),
    Ring(RingSocket),
}

impl Socket {
    /// # Errors
    /// When the runtime, or the ring, has no place for it.
    pub(super) fn new(stream: net::TcpStream, ring: Option<&Rc<Ring>>) -> io::Result<Socket> {
        match ring {
            None => TcpStream::from_std(stream).map(|stream| Socket::Tokio(Rc::new(stream))),
            Some(ring) => RingSocket::new(ring, stream).map(Socket::Ring),
        }
    }

    /// Hands bytes over without waiting, and tells how many were taken.
    ///
    /// # Errors
    /// `WouldBlock` when none were: [`poll_write_ready`](Socket::poll_write_ready) tells when to try again. Else the socket is broken.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tokio(stream) => stream.try_write(bytes),
            Socket::Ring(socket) => socket.try_write(bytes),
        }
    }

    /// tokio's socket, if it is one.
    pub(super) fn tokio(&self) -> Option<&Rc<TcpStream>> {
        match self {
            Socket::Tokio(stream) => Some(stream),
            Socket::Ring(_) => None,
        }
    }

    /// Reads into memory that holds nothing yet, and tells how many bytes.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(super) fn poll_read_more(&mut self, cx: &mut Context<'_>, buffer: &mut impl BufMut) -> Poll<io::Result<usize>> {
        let Socket::Tokio(stream) = self else { return poll_read_buf(Pin::new(self), cx, buffer) };
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tokio(stream) => stream.poll_write_ready(cx),
            Socket::Ring(socket) => socket.poll_write_ready(cx),
        }
    }

    /// Whether the kernel has not got yet what was handed over. Closing the socket would lose it;
    /// [`poll_write_ready`](Socket::poll_write_ready) waits for it.
    pub(super) fn is_sending(&self) -> bool {
        match self {
            Socket::Tokio(_) => false,
            Socket::Ring(socket) => socket.is_sending(),
        }
    }

    /// Whether the client is known to have closed, also behind what it sent before that and nobody has read.
    pub(super) fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Socket::Tokio(stream) => has_hung_up(&**stream, cx),
            Socket::Ring(socket) => socket.has_ended(cx),
        }
    }

    /// The socket as tokio's own, when nothing is being sent. What has arrived and was not read is lost.
    ///
    /// # Errors
    /// When the runtime has no place for it, or the socket is broken, or this turn has a reply for it.
    pub(super) async fn into_tokio(self) -> io::Result<TcpStream> {
        match self {
            Socket::Tokio(stream) => Rc::try_unwrap(stream).map_err(|_| io::ErrorKind::ResourceBusy.into()),
            Socket::Ring(socket) => {
                poll_fn(|cx| socket.poll_still(cx)).await;
                TcpStream::from_std(socket.into_std()?)
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tokio(stream) => poll_read(stream, cx, buffer),
            Socket::Ring(socket) => socket.poll_read(cx, buffer),
        }
    }
}

/// Reads into memory that was initialized. A read that fills less than there is room for has taken all: the next one waits for the
/// kernel's word.
fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let room = buffer.initialize_unfilled();
        let mut read = 0;
        let outcome = stream.try_io(Interest::READABLE, || {
            read = receive(stream, room)?;
            // What has tokio wait.
            if read > 0 && read < room.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        buffer.advance(read);
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && read == 0 => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            _ => return Poll::Ready(Ok(())),
        }
    }
}

/// Whether the other side has closed. To read would not tell: what it sent before that is still to be read.
#[cfg(target_os = "linux")]
fn has_hung_up(socket: &impl AsFd, _: &mut Context<'_>) -> bool {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    // That it broke is told unasked. Of a look that fails nothing is known.
    poll(&mut [PollFd::new(socket, PollFlags::RDHUP)], Some(&AT_ONCE)).is_ok_and(|told| told > 0)
}

/// As far as what it sent before that, and nobody has read, does not hide it.
#[cfg(not(target_os = "linux"))]
fn has_hung_up(stream: &TcpStream, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    matches!(stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)), Poll::Ready(Ok(0) | Err(_)))
}

/// Without the C library's `recv`, which is a place where a thread may be cancelled and pays for that.
#[cfg(target_os = "linux")]
fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let (read, _) = rustix::net::recv(stream, room, rustix::net::RecvFlags::empty())?;
    Ok(read)
}

#[cfg(not(target_os = "linux"))]
fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut &*socket2::SockRef::from(stream), room)
}
