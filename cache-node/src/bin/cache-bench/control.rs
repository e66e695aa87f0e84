//! One blocking connection for what surrounds a measurement: scripts, counters.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    peer::Server,
    reply::{Protocol, scan},
    request::append,
};

/// A reply that takes longer has failed. A server that is busy with a million expired keys is to be waited for.
const REPLY_MAX: Duration = Duration::from_secs(30);

/// A connection over which one request after the other is made.
#[derive(Debug)]
pub(crate) struct Control {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Control {
    /// Connects to a server that speaks RESP.
    pub(crate) fn connect(server: &Server) -> Result<Control> {
        ensure!(server.protocol == Protocol::Resp, "this workload needs a server that speaks the Redis protocol");
        let stream = TcpStream::connect(server.addr()).context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        Ok(Control { stream, input: Vec::new() })
    }

    /// Sends one command; the bytes of its reply.
    pub(crate) fn call(&mut self, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut request = Vec::new();
        append(&mut request, &arguments.iter().map(|argument| argument.as_bytes()).collect::<Vec<_>>());
        self.stream.write_all(&request)?;
        loop {
            if let Some(length) = scan(Protocol::Resp, &self.input)? {
                let reply: Vec<u8> = self.input.drain(..length).collect();
                if reply.starts_with(b"-") {
                    bail!("{}: {}", arguments[0], reply.trim_ascii_end().escape_ascii());
                }
                return Ok(reply);
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).with_context(|| format!("no reply to {}", arguments[0]))?;
            ensure!(read > 0, "the server closed the connection at {}", arguments[0]);
            self.input.extend_from_slice(&chunk[..read]);
        }
    }

    /// Sends a command whose reply is an integer.
    pub(crate) fn integer(&mut self, arguments: &[&str]) -> Result<i64> {
        let reply = self.call(arguments)?;
        let digits = reply.strip_prefix(b":").map(<[u8]>::trim_ascii_end).and_then(|digits| std::str::from_utf8(digits).ok());
        digits
            .and_then(|digits| digits.parse().ok())
            .with_context(|| format!("{}: '{}' is no integer", arguments[0], reply.escape_ascii()))
    }

    /// What INFO tells in numbers, by their names.
    pub(crate) fn info(&mut self) -> Result<HashMap<String, u64>> {
        let reply = self.call(&["INFO"])?;
        let text = String::from_utf8_lossy(&reply);
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}
