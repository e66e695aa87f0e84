//! The load of a closed loop: keep-alive connections that each send a request, wait for the answer, and send the next.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};

/// The longest answer, headers included.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest wait for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Requests for an application, ready to be sent.
pub(super) struct Load {
    addr: SocketAddr,
    pub(super) requests: Rc<[Vec<u8>]>,
    connections: u16,
}

/// What one turn brought.
pub(super) struct Turn {
    pub(super) requests: u64,
    /// Answers other than 200.
    pub(super) failed: u64,
    /// The first of those.
    pub(super) failure: Option<String>,
    pub(super) elapsed: Duration,
    /// In µs.
    pub(super) latency: Histogram<u64>,
}

impl Turn {
    pub(super) fn new() -> Result<Self> {
        let latency = Histogram::new_with_max(ANSWER_TIME_MAX.as_micros() as u64, 3)?;
        Ok(Self { requests: 0, failed: 0, failure: None, elapsed: Duration::ZERO, latency })
    }

    pub(super) fn count(&mut self, (head, body): (&str, &str), latency: Duration) {
        self.requests += 1;
        if !head.starts_with("HTTP/1.1 200 ") {
            self.failed += 1;
            self.failure.get_or_insert_with(|| format!("{} {body}", head.lines().next().unwrap_or_default()));
        }
        self.latency.saturating_record(latency.as_micros() as u64);
    }
}

impl Load {
    /// Each session in turn, with a path that may differ from request to request.
    pub(super) fn new(addr: SocketAddr, cookies: &[String], path: impl Fn(usize) -> String, connections: u16) -> Self {
        // Several rounds through the sessions, so that each gets several of the paths.
        let requests = (0..4).flat_map(|turn| cookies.iter().enumerate().map(move |(session, cookie)| (turn + session, cookie)));
        Self { addr, requests: requests.map(|(turn, cookie)| request(&path(turn), cookie)).collect(), connections }
    }

    /// The connections, each with the request that it begins with.
    pub(super) async fn clients(&self) -> Result<Vec<(Client, usize)>> {
        let mut clients = Vec::new();
        for client in 0..usize::from(self.connections) {
            let first = client * self.requests.len() / usize::from(self.connections);
            clients.push((Client::connect(self.addr).await?, first));
        }
        Ok(clients)
    }

    /// A closed loop: each connection sends as soon as it was answered.
    pub(super) async fn run(&self, turn: Duration) -> Result<Turn> {
        let found = Rc::new(RefCell::new(Turn::new()?));
        let clients = self.clients().await?;
        let began = Instant::now();
        let tasks = LocalSet::new();
        let handles: Vec<_> = clients
            .into_iter()
            .map(|(connection, first)| {
                tasks.spawn_local(ask(connection, Rc::clone(&self.requests), first, began + turn, Rc::clone(&found)))
            })
            .collect();
        tasks.await;
        for handle in handles {
            handle.await??;
        }
        let mut found = Rc::into_inner(found).context("all clients are done")?.into_inner();
        found.elapsed = began.elapsed();
        Ok(found)
    }
}

async fn ask(
    mut connection: Client,
    requests: Rc<[Vec<u8>]>,
    mut next: usize,
    until: Instant,
    found: Rc<RefCell<Turn>>,
) -> Result<()> {
    let mut now = Instant::now();
    while now < until {
        let answer = connection.ask(&requests[next]).await?;
        let answered = Instant::now();
        found.borrow_mut().count(answer, answered - now);
        now = answered;
        next = (next + 1) % requests.len();
    }
    Ok(())
}

/// Makes sessions; their cookies. `plain` has none, and is sent ones that look the same.
pub(super) async fn seed(addr: SocketAddr, sessions: usize, plain: bool) -> Result<Vec<String>> {
    let mut connection = Client::connect(addr).await?;
    let mut cookies = Vec::with_capacity(sessions);
    for session in 0..sessions {
        if plain {
            cookies.push(format!("id={session:022}"));
            continue;
        }
        let (head, _) = connection.ask(&request("/seed", "")).await?;
        cookies.push(cookie_of(head).with_context(|| format!("no cookie in the answer to /seed:\n{head}"))?);
    }
    Ok(cookies)
}

/// Name and value of the cookie that an answer sets.
pub(crate) fn cookie_of(head: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then(|| value.split(';').next().unwrap_or_default().to_owned())
    })
}

pub(crate) fn request(path: &str, cookie: &str) -> Vec<u8> {
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n").into_bytes()
}

/// A keep-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("cannot connect to {addr}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Sends a request and reads the whole answer: head and body.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(&str, &str)> {
        self.stream.write_all(request).await?;
        let (mut filled, mut end) = (0, None);
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the application closed the connection, or its answer is too long");
            filled += read;
            if end.is_none() {
                end = end_of_answer(&self.buffer[..filled])?;
            }
            if let Some((head, end)) = end
                && filled >= end
            {
                ensure!(filled == end, "there is more than one answer");
                let text = |from: usize, to: usize| std::str::from_utf8(&self.buffer[from..to]);
                return Ok((text(0, head)?, text(head + 4, end)?));
            }
        }
    }
}

/// Bytes of the head and of the whole answer, when the head is complete.
fn end_of_answer(answer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    for line in answer[..head].split(|&byte| byte == b'\n') {
        if let Some((name, value)) = line.split_first_chunk::<15>()
            && name.eq_ignore_ascii_case(b"content-length:")
        {
            let length: usize = std::str::from_utf8(value)?.trim().parse().context("content-length is no number")?;
            return Ok(Some((head, head + 4 + length)));
        }
    }
    bail!("an answer without content-length");
}

#[test]
fn the_end_of_an_answer_is_found() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert!(matches!(end_of_answer(answer), Ok(Some((34, 43)))), "{:?}", end_of_answer(answer));
    assert!(matches!(end_of_answer(&answer[..30]), Ok(None)));
    assert!(end_of_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
}
