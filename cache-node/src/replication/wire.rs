//! The connection to a primary, read by a thread that waits.

use std::{
    io::{self, Read, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    node::Shared,
    protocol::encode_request,
    replication::{LinkError, PrimaryAddress},
    server::now,
};

/// How long one read waits before it is looked whether the link is still wanted.
const LOOK: Duration = Duration::from_millis(50);

const BUFFER_BYTES: usize = 256 * 1024;

/// Longest line of the handshake.
const LINE_BYTES_MAX: usize = 64 * 1024;

pub(super) struct PrimaryWire<'a> {
    shared: &'a Shared,
    stream: TcpStream,
    epoch: u64,
    /// What came stands in it from `taken` to `filled`.
    buffer: Vec<u8>,
    taken: usize,
    filled: usize,
    pub(super) silence_max: Duration,
    last_byte: Instant,
}

impl<'a> PrimaryWire<'a> {
    pub(super) fn connect(shared: &'a Shared, address: &PrimaryAddress, epoch: u64) -> Result<PrimaryWire<'a>, LinkError> {
        let silence_max = shared.config().repl_timeout;
        let mut last = io::Error::other("the name has no address");
        for address in (address.host.as_str(), address.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, silence_max.min(Duration::from_secs(5))) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(LOOK))?;
                    stream.set_write_timeout(Some(silence_max))?;
                    let last_byte = Instant::now();
                    return Ok(PrimaryWire {
                        shared,
                        stream,
                        epoch,
                        buffer: vec![0; BUFFER_BYTES],
                        taken: 0,
                        filled: 0,
                        silence_max,
                        last_byte,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    pub(super) fn send(&mut self, arguments: &[&[u8]]) -> Result<(), LinkError> {
        let mut request = Vec::new();
        encode_request(&mut request, arguments.iter().copied());
        self.stream.write_all(&request)?;
        Ok(())
    }

    /// Sends a request and gives the answer's line.
    pub(super) fn ask(&mut self, arguments: &[&[u8]]) -> Result<String, LinkError> {
        self.send(arguments)?;
        self.line()
    }

    /// The next line that is not empty: empty ones are signs of life.
    pub(super) fn line(&mut self) -> Result<String, LinkError> {
        loop {
            let unread = self.unread();
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&unread[..end]).trim_end().to_owned();
                self.consume(end + 1);
                if !line.is_empty() {
                    return Ok(line);
                }
                continue;
            }
            if unread.len() > LINE_BYTES_MAX {
                return Err(LinkError::Protocol("a line without an end".to_owned()));
            }
            self.fill()?;
        }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.taken..self.filled]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        }
    }

    /// Waits until more has come.
    pub(super) fn fill(&mut self) -> Result<(), LinkError> {
        while !self.try_fill()? {}
        Ok(())
    }

    /// Reads what has come, waiting for it a moment. `false` when nothing did.
    pub(super) fn try_fill(&mut self) -> Result<bool, LinkError> {
        if self.shared.is_stopping.load(Ordering::Acquire) || self.shared.replication.epoch() != self.epoch {
            return Err(LinkError::NotWanted);
        }
        if self.taken > 0 {
            // Nothing but a line that is not whole yet is left when more is asked for.
            self.buffer.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled + BUFFER_BYTES, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => {
                self.filled += count;
                self.last_byte = Instant::now();
                self.shared.replication.change_link(|link| link.last_io_ms = now().unix_ms);
                Ok(true)
            }
            Err(error) if is_no_error(&error) => {
                if self.last_byte.elapsed() > self.silence_max {
                    return Err(LinkError::Silent(self.silence_max));
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_no_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A snapshot is read from it.
impl Read for PrimaryWire<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.unread().is_empty() {
            self.fill().map_err(|error| match error {
                LinkError::Io(error) => error,
                other => io::Error::other(other.to_string()),
            })?;
        }
        let count = self.unread().len().min(bytes.len());
        bytes[..count].copy_from_slice(&self.unread()[..count]);
        self.consume(count);
        self.shared.replication.change_sync_bytes(count);
        self.shared.loading.loaded(count);
        Ok(count)
    }
}
