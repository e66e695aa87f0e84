//! Processes, upstreams and a client for the tests of the balancer, the fleet and the load test.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A real redis-server of the test's own, on a free port.
pub(crate) struct Redis {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    _child: Child,
}

pub(crate) async fn redis() -> Redis {
    let port = end_to_end::port::free_port();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("this test needs a real Redis: apt-get install redis-server");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    timeout(PATIENCE, async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("redis-server listens");
    Redis { url: format!("redis://{address}"), address, _child: child }
}

/// A process of the binary under test, ready.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// What it wrote to standard output up to the ready line.
    pub(crate) ready_line: String,
}

/// Starts `demo-shop` with `arguments` and waits for its ready line.
pub(crate) async fn start(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-shop"));
    command.args(arguments);
    start_command(command).await
}

/// The same, with so many open files at most.
pub(crate) async fn start_with_files(files_max: u32, arguments: &[&str]) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files_max} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_demo-shop")]);
    command.args(arguments);
    start_command(command).await
}

async fn start_command(mut command: Command) -> Process {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (address, ready_line) = timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("a ready line before the end of the output");
            if let Some((_, rest)) = line.split_once(" ready on ") {
                let address = rest.split_whitespace().next().unwrap().trim_start_matches("http://");
                break (address.parse().unwrap(), line);
            }
        }
    })
    .await
    .expect("it becomes ready");
    // The rest is read, or the process would stop at a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Process { pid: child.id().unwrap(), child, address, ready_line }
}

/// One answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn served_by(&self) -> &str {
        self.headers.get("x-served-by").map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) type Http = Client<HttpConnector, Body>;

pub(crate) fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) async fn ask(client: &Http, request: Request<Body>) -> Result<Answer, String> {
    let exchange = async {
        let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
}

pub(crate) async fn get(client: &Http, address: SocketAddr, path: &str) -> Result<Answer, String> {
    ask(client, Request::get(format!("http://{address}{path}")).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(client: &Http, address: SocketAddr, path: &str, body: &str) -> Result<Answer, String> {
    let request = Request::post(format!("http://{address}{path}")).header("content-type", "application/json");
    ask(client, request.body(Body::from(body.to_owned())).unwrap()).await
}

/// What a raw upstream does with a request that is not a probe.
pub(crate) type Script = std::sync::Arc<dyn Fn(&str) -> Reply + Send + Sync>;

pub(crate) enum Reply {
    /// These bytes, and the connection goes on.
    Bytes(String),
    /// These bytes, and the connection ends.
    BytesThenClose(String),
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An upstream over a bare socket, whose faults are exact to the byte: `/healthz` is always well.
pub(crate) async fn raw_upstream(script: Script) -> SocketAddr {
    mortal_upstream(script).await.0
}

/// The same, and the task that accepts: aborting it closes the port.
pub(crate) async fn mortal_upstream(script: Script) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_raw(stream, script.clone()));
        }
    });
    (address, accepting)
}

async fn serve_raw(mut stream: TcpStream, script: Script) {
    while let Some(request) = read_request(&mut stream).await {
        let reply = if request.starts_with("GET /healthz ") { Reply::Bytes(ok("alive")) } else { script(&request) };
        let (bytes, goes_on) = match reply {
            Reply::Bytes(bytes) => (bytes, true),
            Reply::BytesThenClose(bytes) => (bytes, false),
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

/// Head and body of one request, as text.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}
