//! Where there is no io_uring.

use std::{
    convert::Infallible,
    io, net,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

/// What cannot be made here.
#[derive(Debug)]
pub(crate) struct Ring(Infallible);

#[derive(Debug)]
pub(crate) struct RingSocket(Infallible);

impl Ring {
    pub(crate) fn probe() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn new() -> io::Result<Ring> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn turn(&self, _: &mut Context<'_>) {
        match self.0 {}
    }

    pub(crate) fn look_at_arrived(&self, _: usize, _: impl FnOnce(&mut dyn Iterator<Item = &[u8]>)) {
        match self.0 {}
    }

    pub(crate) fn has_more(&self) -> bool {
        match self.0 {}
    }
}

impl RingSocket {
    pub(super) fn new(ring: &Rc<Ring>, _: net::TcpStream) -> io::Result<RingSocket> {
        match ring.0 {}
    }

    pub(super) fn poll_read(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub(super) fn try_write(&self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(super) fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub(super) fn is_sending(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn has_ended(&self, _: &mut Context<'_>) -> bool {
        match self.0 {}
    }

    pub(super) fn poll_still(&self, _: &mut Context<'_>) -> Poll<()> {
        match self.0 {}
    }

    pub(super) fn into_std(self) -> io::Result<net::TcpStream> {
        match self.0 {}
    }
}
