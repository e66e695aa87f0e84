//! What a connection costs that does nothing.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    Bench,
    peer::{Peer, Server},
    process,
    reply::Protocol,
    report::{Goal, Measure, Report},
    rounds::in_rounds,
    statistic::mebibytes,
};

/// Connections, where the limit of open files allows so many.
const CONNECTIONS_MAX: u64 = 10_000;
/// Files that this program and the servers need beside them.
const FILES_RESERVED: u64 = 200;
/// Redis takes a buffer back from a connection that was idle for two seconds.
const SETTLE: Duration = Duration::from_secs(4);

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let count = raised_limit()?.saturating_sub(FILES_RESERVED).min(CONNECTIONS_MAX);
    ensure!(count >= 100, "the limit of open files allows only {count} connections: raise it (ulimit -n 20000)");
    let about = format!("{count} idle connections that have made one request each");
    let measures = vec![
        Measure::new("bytes each", 0).goal(Some(Goal::AtMost(1024.0))),
        Measure::new("RSS before MiB", 1),
        Measure::new("RSS with them MiB", 1),
    ];
    let peers: Vec<&Peer> = bench.peers.iter().collect();
    in_rounds(bench, ("connections", about), measures, &peers, |peer| measure(bench, peer, count))
}

fn measure(bench: &Bench, peer: &Peer, count: u64) -> Result<[f64; 3]> {
    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
    // The first one brings up what all share.
    let first = connect(&server)?;
    thread::sleep(SETTLE / 4);
    let before = process::rss(server.pid())?;
    let connections =
        (0..count).map(|index| connect(&server).with_context(|| format!("connection {index}"))).collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLE);
    let after = process::rss(server.pid())?;
    drop((first, connections));
    Ok([(after as f64 - before as f64) / count as f64, mebibytes(before), mebibytes(after)])
}

/// A connection that has made one request.
fn connect(server: &Server) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server.addr())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = match server.protocol {
        Protocol::Resp => "*1\r\n$4\r\nPING\r\n",
        Protocol::Memcached => "version\r\n",
    };
    stream.write_all(request.as_bytes())?;
    let mut reply = [0; 64];
    let read = stream.read(&mut reply)?;
    ensure!(
        reply[..read].starts_with(if server.protocol == Protocol::Resp { b"+PONG" } else { b"VERSI" }),
        "it answered '{}'",
        reply[..read].escape_ascii()
    );
    Ok(stream)
}

/// Raises the soft limit of open files to the hard one, for this process and the servers that it starts; the limit then.
fn raised_limit() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the limit of open files")?;
    Ok(maximum.unwrap_or(u64::MAX))
}
