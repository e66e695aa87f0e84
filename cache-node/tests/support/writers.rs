//! Clients that write and try again, and remember what was acknowledged.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{PATIENCE, Value, Wire, wire::encode};

/// When a write counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The node said OK.
    ByOk,
    /// The node said OK, and then to WAIT that a replica has it.
    ByWait,
}

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Written>>,
}

/// What one or all writers had acknowledged.
#[derive(Debug, Default)]
pub struct Written {
    pub keys: Vec<String>,
    /// When each acknowledgement came, sorted.
    pub at: Vec<Instant>,
    pub retries: usize,
}

impl Writers {
    /// Starts `count` writers that write `rate` keys a second together to `address`.
    pub fn start(address: SocketAddr, count: u32, rate: u32, acknowledged: Acknowledged) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let period = Duration::from_secs(1) * count / rate;
        let threads = (0..count).map(|writer| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || write(address, writer, period, acknowledged, &stop))
        });
        Writers { threads: threads.collect(), stop }
    }

    /// Ends them and gives what they had acknowledged.
    pub fn end(self) -> Written {
        self.stop.store(true, Ordering::Release);
        let mut all = Written::default();
        for thread in self.threads {
            let written = thread.join().unwrap();
            all.keys.extend(written.keys);
            all.at.extend(written.at);
            all.retries += written.retries;
        }
        all.at.sort();
        all
    }
}

impl Written {
    /// The longest time without an acknowledgement that begins or ends within each span between two of `faults` (the last span ends
    /// with the writing).
    pub fn gaps(&self, faults: &[Instant]) -> Vec<Duration> {
        let ends = faults.iter().skip(1).copied().chain(self.at.last().copied());
        let gap = |(from, to): (&Instant, Instant)| {
            let pairs = self.at.windows(2).filter(|pair| pair[1] >= *from && pair[0] <= to);
            pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        faults.iter().zip(ends).map(gap).collect()
    }

    /// Acknowledged keys that the node at `address` does not have.
    pub fn lost(&self, address: SocketAddr) -> Vec<String> {
        let mut wire = Wire::connect(address);
        let mut lost = Vec::new();
        for keys in self.keys.chunks(1_000) {
            let request: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
            let found = wire.call(&request);
            let missing = keys.iter().zip(found.elements()).filter(|(_, value)| **value == Value::NullBulk);
            lost.extend(missing.map(|(key, _)| key.clone()));
        }
        lost
    }
}

fn write(address: SocketAddr, writer: u32, period: Duration, acknowledged: Acknowledged, stop: &AtomicBool) -> Written {
    let mut written = Written::default();
    let mut wire: Option<Wire> = None;
    let mut due = Instant::now();
    for number in 0.. {
        let key = format!("write:{writer}:{number}");
        loop {
            if stop.load(Ordering::Acquire) {
                return written;
            }
            match attempt(&mut wire, address, &key, acknowledged) {
                Ok(true) => break,
                Ok(false) => {}
                Err(_) => wire = None,
            }
            written.retries += 1;
            thread::sleep(Duration::from_millis(5));
        }
        written.keys.push(key);
        written.at.push(Instant::now());
        due += period;
        // Behind its plan it does not hurry: the rate is an upper bound.
        due = due.max(Instant::now().checked_sub(period).unwrap());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    unreachable!("the numbers do not end")
}

/// One write; whether it was acknowledged.
fn attempt(wire: &mut Option<Wire>, address: SocketAddr, key: &str, acknowledged: Acknowledged) -> io::Result<bool> {
    let wire = match wire {
        Some(wire) => wire,
        None => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            wire.insert(Wire::over(stream))
        }
    };
    let mut request = encode(&["SET", key, "1"]);
    if acknowledged == Acknowledged::ByWait {
        request.extend(encode(&["WAIT", "1", "1000"]));
    }
    io::Write::write_all(&mut wire.stream, &request)?;
    let is_set = wire.try_read()? == Value::ok();
    let is_held = acknowledged == Acknowledged::ByOk || matches!(wire.try_read()?, Value::Integer(replicas) if replicas > 0);
    Ok(is_set && is_held)
}
