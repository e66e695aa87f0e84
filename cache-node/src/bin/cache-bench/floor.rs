//! A server that stores nothing: what the kernel's TCP costs alone, and so the most that any store could save.
//!
//! It reads what has arrived, answers as many bytes as a store would, and looks at one byte of each request: how long it is. One thread,
//! one system call for what has arrived and one for all answers to it, as with cache-node.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use crate::{
    load::{Expected, Traffic},
    workload::string::{Strings, VALUE_BYTES, request_bytes},
};

/// The hidden first argument with which this program is that server; its port follows.
pub(crate) const FLOOR_ARGUMENT: &str = "floor";
const READ_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 256;
/// Further ones are closed at once.
const CONNECTIONS_MAX: usize = 16_000;
const LISTENER: Token = Token(usize::MAX);

/// Requests by their second byte, how long they are, and what they are answered.
struct Answers {
    known: [(u8, usize, Vec<u8>); 3],
}

impl Answers {
    fn new() -> Answers {
        let [get, set] = request_bytes();
        let value = [format!("${VALUE_BYTES}\r\n").as_bytes(), &[b'v'; VALUE_BYTES], b"\r\n"].concat();
        // `*2` of GET, `*5` of SET with EX, `PI` of PING.
        Answers {
            known: [(b'2', get, value), (b'5', set, b"+OK\r\n".to_vec()), (b'I', b"PING\r\n".len(), b"+PONG\r\n".to_vec())],
        }
    }
}

/// Where in its requests a connection is.
#[derive(Debug, Default)]
struct Place {
    has_first: bool,
    /// Bytes that the request still lacks, and which one it is.
    missing: usize,
    known: usize,
}

impl Place {
    /// Goes on by what has arrived, and adds the answers that are due.
    fn pass(&mut self, mut bytes: &[u8], answers: &Answers, out: &mut Vec<u8>) -> Result<()> {
        while !bytes.is_empty() {
            if self.missing > 0 {
                let passed = self.missing.min(bytes.len());
                self.missing -= passed;
                bytes = &bytes[passed..];
                if self.missing == 0 {
                    out.extend_from_slice(&answers.known[self.known].2);
                    self.has_first = false;
                }
            } else if self.has_first {
                let known = answers.known.iter().position(|(second, ..)| *second == bytes[0]);
                self.known = known.with_context(|| format!("a request with '{}' in it", bytes[0].escape_ascii()))?;
                self.missing = answers.known[self.known].1 - 1;
            } else {
                self.has_first = true;
                bytes = &bytes[1..];
            }
        }
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    place: Place,
    /// What the socket did not take.
    rest: Vec<u8>,
}

impl Connection {
    /// Reads all that has arrived and answers it. `false` when the client is gone.
    fn serve(&mut self, answers: &Answers, buffer: &mut [u8], out: &mut Vec<u8>) -> Result<bool> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            self.place.pass(&buffer[..read], answers, out)?;
            if read < buffer.len() {
                break;
            }
        }
        if self.rest.is_empty() {
            let written = self.write(out)?;
            self.rest.extend_from_slice(&out[written..]);
        } else {
            self.rest.extend_from_slice(out);
        }
        out.clear();
        Ok(true)
    }

    fn write_rest(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        let written = self.write(&rest)?;
        self.rest = rest[written..].to_vec();
        Ok(())
    }

    /// Bytes that the socket took.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot answer"),
            }
        }
        Ok(written)
    }
}

/// Serves until the process is ended.
///
/// # Errors
/// When the port is not to be had, or a request is none of those that it answers.
pub(crate) fn run(port: &str) -> Result<ExitCode> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().with_context(|| format!("'{port}' is no port"))?));
    let mut listener = TcpListener::bind(addr).with_context(|| format!("cannot listen at {addr}"))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let answers = Answers::new();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut events, mut buffer, mut out) = (Events::with_capacity(EVENTS_MAX), vec![0; READ_BYTES], Vec::new());
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
                continue;
            }
            let place = event.token().0;
            let Some(connection) = connections[place].as_mut() else { continue };
            if event.is_writable() && !connection.rest.is_empty() {
                connection.write_rest()?;
            }
            if event.is_readable() && !connection.serve(&answers, &mut buffer, &mut out)? {
                connections[place] = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Vec<Option<Connection>>) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => bail!("cannot accept: {error}"),
        };
        let place = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        if place == CONNECTIONS_MAX {
            continue;
        }
        stream.set_nodelay(true)?;
        poll.registry().register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
        connections.resize_with(connections.len().max(place + 1), || None);
        connections[place] = Some(Connection { stream, place: Place::default(), rest: Vec::new() });
    }
}

/// The string workload's requests, for a server that stores none of them.
pub(crate) struct Unstored<'a>(pub(crate) Strings<'a>);

impl Traffic for Unstored<'_> {
    fn next(&mut self, connection: usize, out: &mut Vec<u8>, expected: &mut dyn FnMut(Expected)) -> bool {
        self.0.next(connection, out, expected)
    }

    /// As long as a store's.
    fn check(&mut self, expected: Expected, reply: &[u8]) -> bool {
        if Strings::is_read(expected) {
            reply.len() == format!("${VALUE_BYTES}\r\n\r\n").len() + VALUE_BYTES && reply[0] == b'$'
        } else {
            reply == b"+OK\r\n"
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use super::{Answers, Place, Unstored};
    use crate::{content::Content, load::Traffic as _, reply::Protocol, reply::scan, workload::string::Strings};

    #[test]
    fn each_request_of_the_workload_gets_one_answer_of_a_stores_length_wherever_it_is_cut() {
        let content = Content::new("session", 100, 1);
        let mut traffic = Unstored(Strings::load(&content, Protocol::Resp, 1));
        let (mut requests, mut owed) = (b"PING\r\n".to_vec(), Vec::new());
        for _ in 0..100 {
            assert!(traffic.next(0, &mut requests, &mut |expected| owed.push(expected)));
        }
        for length in [1, 2, 3, 57, 1_000, requests.len()] {
            let (mut place, mut out) = (Place::default(), Vec::new());
            for piece in requests.chunks(length) {
                place.pass(piece, &Answers::new(), &mut out).unwrap();
            }
            let mut replies = out.strip_prefix(b"+PONG\r\n").unwrap();
            for &expected in &owed {
                let (reply, rest) = replies.split_at(scan(Protocol::Resp, replies).unwrap().unwrap());
                assert!(traffic.check(expected, reply), "{expected:?}");
                replies = rest;
            }
            assert!(replies.is_empty());
        }
        assert!(Place::default().pass(b"*3\r\n", &Answers::new(), &mut Vec::new()).is_err());
    }
}
