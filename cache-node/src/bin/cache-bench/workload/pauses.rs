//! What clients see of work on all data that an operator or another node asks for.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Bench,
    content::Content,
    control::Control,
    load::{Load, Pace, Plan},
    peer::{Peer, Server},
    report::{Measure, Report},
    rounds::in_rounds,
    statistic::{Direction, milliseconds},
    throughput::{fill, run_while},
    workload::snapshot::{REQUESTS_PER_SECOND, Requests},
};

/// What takes longer has failed.
const WORK_MAX: Duration = Duration::from_secs(120);
/// What goes on behind a reply is seen for so long.
const AFTER_REPLY: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Fields of a hash that one HSET sets.
const FIELDS_PER_CALL: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Rewrite,
    Replica,
    Flush,
    FlushDb,
    Unlink,
}

pub(crate) fn run(bench: &Bench) -> Result<Vec<Report>> {
    let peers: Vec<&Peer> = bench.peers.iter().filter(|peer| peer.speaks_resp()).collect();
    let content = Content::new("session", bench.options.million() as usize, bench.options.seed);
    let mut reports = Vec::new();
    for work in [Work::Rewrite, Work::Replica, Work::Flush, Work::FlushDb, Work::Unlink] {
        let what = match work {
            Work::Rewrite => "BGREWRITEAOF writes them",
            Work::Replica => "they are sent to a new replica",
            Work::Flush => "FLUSHALL ASYNC removes them",
            Work::FlushDb => "FLUSHDB ASYNC removes them, and another database has a key",
            Work::Unlink => "a hash of as many fields is unlinked",
        };
        let about = format!("{REQUESTS_PER_SECOND} requests/s (90 % GET, 10 % SET) of {} sessions while {what}", content.count());
        let measures = vec![
            Measure::new("p99 before ms", 3),
            Measure::new("p99 ms", 3).compared("p99", Direction::OursOverPeers),
            Measure::new("p99.9 ms", 3),
            Measure::new("max ms", 1).compared("max", Direction::OursOverPeers),
            Measure::new("load's own p99 ms", 3),
            Measure::new("load's own max ms", 1),
            Measure::new("took s", 2),
        ];
        let name = format!("pauses {work:?}").to_lowercase();
        reports.extend(in_rounds(bench, (&name, about), measures, &peers, |peer| measure(bench, peer, &content, work))?);
    }
    Ok(reports)
}

fn measure(bench: &Bench, peer: &Peer, content: &Content, work: Work) -> Result<[f64; 7]> {
    let server = peer.start(usize::from(bench.options.threads), bench.options.pin)?;
    fill(&server, &mut Requests::all(content))?;
    let mut control = Control::connect(&server)?;
    work.prepare(&mut control, content.count() as u32)?;
    let stop = AtomicBool::new(false);
    let mut requests = Requests::random(content, &stop, bench.options.seed);
    requests.may_miss = matches!(work, Work::Flush | Work::FlushDb);
    let mut load = Load::connect(server.addr(), server.protocol, usize::from(bench.options.connections))?;
    let pace = Pace::Fixed(REQUESTS_PER_SECOND);
    let before = load.run(&mut requests, Plan { depth: usize::MAX, pace, duration: Some(bench.options.turn()) })?;
    let (took, during) = run_while(&mut load, &mut requests, pace, &stop, || work.watch(&mut control, &server))?;
    let [p99, p999, max, own_p99, own_max] = during.delays();
    Ok([milliseconds(before.latency.value_at_quantile(0.99)), p99, p999, max, own_p99, own_max, took.as_secs_f64()])
}

impl Work {
    fn prepare(self, control: &mut Control, count: u32) -> Result<()> {
        match self {
            Work::Rewrite => {
                control.call(&["CONFIG", "SET", "appendonly", "yes"])?;
                wait_rewritten(control, Instant::now())
            }
            Work::Unlink => {
                for first in (0..count).step_by(FIELDS_PER_CALL as usize) {
                    let fields: Vec<String> =
                        (first..first + FIELDS_PER_CALL).map(|number| format!("field-{number:07}")).collect();
                    let pairs = fields.iter().flat_map(|field| [field.as_str(), "a value of some length"]);
                    let arguments: Vec<&str> = ["HSET", "large"].into_iter().chain(pairs).collect();
                    control.call(&arguments)?;
                }
                Ok(())
            }
            Work::FlushDb => {
                for request in [&["SELECT", "1"][..], &["SET", "other", "stays"], &["SELECT", "0"]] {
                    control.call(request)?;
                }
                Ok(())
            }
            Work::Replica | Work::Flush => Ok(()),
        }
    }

    /// Has it done; how long it took until the reply or the end.
    fn watch(self, control: &mut Control, server: &Server) -> Result<Duration> {
        let started = Instant::now();
        match self {
            Work::Rewrite => {
                control.call(&["BGREWRITEAOF"])?;
                wait_rewritten(control, started)?;
            }
            Work::Replica => take_snapshot(server)?,
            Work::Flush => drop(control.call(&["FLUSHALL", "ASYNC"])?),
            Work::FlushDb => drop(control.call(&["FLUSHDB", "ASYNC"])?),
            Work::Unlink => ensure!(control.integer(&["UNLINK", "large"])? == 1, "the large hash was not there"),
        }
        let took = started.elapsed();
        if matches!(self, Work::Flush | Work::FlushDb | Work::Unlink) {
            thread::sleep(AFTER_REPLY);
        }
        Ok(took)
    }
}

fn wait_rewritten(control: &mut Control, started: Instant) -> Result<()> {
    loop {
        thread::sleep(LOOK_INTERVAL);
        let info = String::from_utf8_lossy(&control.call(&["INFO", "persistence"])?).into_owned();
        let has = |line: &str| info.lines().any(|found| found == line);
        if has("aof_rewrite_in_progress:0") && has("aof_rewrite_scheduled:0") {
            ensure!(has("aof_last_bgrewrite_status:ok"), "the rewrite failed");
            return Ok(());
        }
        ensure!(started.elapsed() < WORK_MAX, "not rewritten after {} s", WORK_MAX.as_secs());
    }
}

/// Reads what a replica is sent first, and keeps nothing of it. It says that it knows no mark for an end, so that the length comes first.
fn take_snapshot(server: &Server) -> Result<()> {
    let mut stream = TcpStream::connect(server.addr()).context("cannot connect as a replica")?;
    stream.set_read_timeout(Some(WORK_MAX))?;
    stream.write_all(b"PSYNC ? -1\r\n")?;
    let mut input = BufReader::with_capacity(1 << 20, stream);
    let length = loop {
        let mut line = String::new();
        ensure!(input.read_line(&mut line)? > 0, "the server closed the connection of the replica");
        match line.trim_end() {
            // A sign of life.
            "" => {}
            line if line.starts_with("+FULLRESYNC") => {}
            line => match line.strip_prefix('$').map(str::parse::<u64>) {
                Some(Ok(length)) => break length,
                _ => bail!("no snapshot for a replica: '{line}'"),
            },
        }
    };
    let mut left = length;
    while left > 0 {
        let read = input.fill_buf()?.len().min(left as usize);
        ensure!(read > 0, "the server closed the connection of the replica");
        input.consume(read);
        left -= read as u64;
    }
    Ok(())
}
