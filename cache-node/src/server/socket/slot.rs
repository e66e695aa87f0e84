//! What a ring keeps of one socket.

use std::{io, net, task::Waker};

use bytes::{Buf as _, BytesMut};
use smallvec::SmallVec;
use tokio::io::ReadBuf;

use super::buffers::{Buffers, Filled};

/// Bytes that wait for their connection; when it takes none of them the kernel receives no more, and the client finds its socket full, as
/// ever.
const READ_AHEAD_MAX: usize = 64 * 1024;

/// One socket. It stays until the kernel has let go of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) stream: net::TcpStream,
    received: SmallVec<[Filled; 1]>,
    /// What was received behind that, when buffers had become few.
    copied: BytesMut,
    /// Nothing will be received any more: the client has closed, or the socket broke.
    end: Option<Result<(), io::ErrorKind>>,
    pub(super) is_receiving: bool,
    pub(super) is_cancelling: bool,
    /// What the kernel is sending, and how much of it is sent. Its bytes do not move meanwhile.
    pub(super) sending: Vec<u8>,
    pub(super) sent: usize,
    /// How sending failed.
    pub(super) failure: Option<io::ErrorKind>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) is_dropped: bool,
}

impl Slot {
    pub(super) fn new(stream: net::TcpStream) -> Slot {
        Slot {
            stream,
            received: SmallVec::new(),
            copied: BytesMut::new(),
            end: None,
            is_receiving: false,
            is_cancelling: false,
            sending: Vec::new(),
            sent: 0,
            failure: None,
            reader: None,
            writer: None,
            is_dropped: false,
        }
    }

    /// Whether the kernel holds something of it.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_receiving || self.is_sending()
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn is_ahead(&self) -> bool {
        let waiting: usize = self.received.iter().map(Filled::len).sum();
        waiting + self.copied.len() > READ_AHEAD_MAX
    }

    /// Keeps what was received until it is read.
    pub(super) fn keep(&mut self, filled: Filled, buffers: &mut Buffers) {
        if self.copied.is_empty() && !buffers.is_short() {
            self.received.push(filled);
        } else {
            self.copied.extend_from_slice(buffers.bytes(&filled));
            buffers.give_back(filled);
        }
    }

    pub(super) fn ended(&mut self, how: Result<(), io::ErrorKind>) {
        self.end = Some(how);
    }

    /// What was received, if it lies in one piece.
    pub(super) fn piece<'a>(&self, buffers: &'a Buffers) -> Option<&'a [u8]> {
        let [filled] = &self.received[..] else { return None };
        self.copied.is_empty().then(|| buffers.bytes(filled))
    }

    /// Moves what was received to `buffer`, as much as fits. `None`: nothing was. No bytes: nothing will be.
    pub(super) fn read(&mut self, buffer: &mut ReadBuf<'_>, buffers: &mut Buffers) -> Option<io::Result<()>> {
        let before = buffer.filled().len();
        while let Some(first) = self.received.first_mut() {
            let count = first.len().min(buffer.remaining());
            buffer.put_slice(&buffers.bytes(first)[..count]);
            if count < first.len() {
                first.advance(count);
                return Some(Ok(()));
            }
            buffers.give_back(self.received.remove(0));
        }
        let count = self.copied.len().min(buffer.remaining());
        if count > 0 {
            buffer.put_slice(&self.copied[..count]);
            self.copied.advance(count);
            if self.copied.is_empty() {
                // A connection that waits holds no buffer.
                self.copied = BytesMut::new();
            }
        }
        if buffer.filled().len() > before { Some(Ok(())) } else { self.end.map(|end| end.map_err(io::Error::from)) }
    }

    /// Gives back the buffers of what nobody will read.
    pub(super) fn discard(&mut self, buffers: &mut Buffers) {
        self.received.drain(..).for_each(|filled| buffers.give_back(filled));
        self.copied = BytesMut::new();
    }

    /// Wakes whoever waits to read.
    pub(super) fn wake_reader(&self) {
        self.reader.iter().for_each(Waker::wake_by_ref);
    }
}
