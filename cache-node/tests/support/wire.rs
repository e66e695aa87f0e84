//! A raw connection: what is sent and what comes back, byte by byte.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{PATIENCE, Value, words};

/// A blocking connection that reads replies as [`Value`]s.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    pending: Vec<u8>,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire::over(stream)
    }

    /// Over a stream whose time limits the caller has set.
    pub fn over(stream: TcpStream) -> Wire {
        Wire { stream, pending: Vec::new() }
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, arguments: &[impl AsRef<[u8]>]) {
        self.send_raw(&encode(arguments));
    }

    /// The next reply, pushes included.
    pub fn read(&mut self) -> Value {
        self.try_read().unwrap_or_else(|error| panic!("no reply: {error}; pending {:?}", self.pending.escape_ascii().to_string()))
    }

    /// The next reply, or why there is none.
    pub fn try_read(&mut self) -> io::Result<Value> {
        loop {
            if let Some((value, taken)) = Value::parse(&self.pending) {
                self.pending.drain(..taken);
                return Ok(value);
            }
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.pending.extend_from_slice(&chunk[..read]),
                // A child process of another test has ended.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing comes within `quiet`.
    pub fn is_silent(&mut self, quiet: Duration) -> bool {
        self.stream.set_read_timeout(Some(quiet)).unwrap();
        let outcome = self.try_read();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(outcome, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Whether what has been read ends with a whole reply.
    pub fn has_no_torn_reply(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the other side has closed, which it does at once or soon.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.try_read() {
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }

    pub fn call(&mut self, arguments: &[impl AsRef<[u8]>]) -> Value {
        self.send(arguments);
        self.read()
    }

    /// As [`Wire::call`], with the arguments in one line.
    pub fn run(&mut self, line: &str) -> Value {
        self.call(&words(line))
    }
}

/// A request as clients send it.
pub fn encode(arguments: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.as_ref().len()).bytes());
        bytes.extend_from_slice(argument.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
