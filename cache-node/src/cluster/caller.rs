//! A command's side of the HTTP port: finds the controller, asks it, shows what it says.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::cluster::{
    arguments::Reach,
    events::Event,
    operation::{Line, Operation},
    state, status,
    token::Token,
    view::View,
};

/// How long the controller may take to begin its answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How often a page that refreshes is drawn, and events are asked for.
const REFRESH_PERIOD: Duration = Duration::from_secs(1);

/// The longest line of an answer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Where a controller is, or was.
#[derive(Clone, Debug)]
struct Place {
    address: SocketAddr,
    /// What is to be done when none answers.
    remedy: String,
}

/// Runs a command and shows how far it is.
pub(super) fn command(reach: &Reach, operation: &Operation) -> Result<(), String> {
    let place = find(reach)?;
    let token = match &reach.token_file {
        Some(path) => Token::read(path).map_err(|error| format!("cannot read {}: {error}", path.display())),
        None => Token::in_folder(&reach.dir)
            .map_err(|error| format!("cannot read the token in {}: {error}; name it with --token-file", reach.dir.display())),
    }?;
    let body = serde_json::to_vec(operation).map_err(|error| error.to_string())?;
    block_on(async {
        let request = request(Method::POST, "/v1/commands", place.address)
            .header(AUTHORIZATION, token.header())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = send(&place, request).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let outcome = show(response).await?;
        println!("{outcome}");
        Ok(())
    })
}

/// Shows the cluster, once or until Ctrl-C.
pub(super) fn status(reach: &Reach, is_refreshed: bool) -> Result<(), String> {
    let place = find(reach)?;
    block_on(async {
        loop {
            let page = page(&place).await;
            let mut out = io::stdout().lock();
            let written = match (&page, is_refreshed) {
                (Ok(page), false) => write!(out, "{page}"),
                // Home, each line to its end, and the rest: nothing flickers.
                (Ok(page), true) => write!(out, "\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\n")),
                (Err(text), true) => write!(out, "\x1b[H{text}\x1b[K\n\x1b[J"),
                (Err(_), false) => Ok(()),
            };
            written.and_then(|()| out.flush()).map_err(|error| error.to_string())?;
            drop(out);
            if !is_refreshed {
                return page.map(drop);
            }
            tokio::time::sleep(REFRESH_PERIOD).await;
        }
    })
}

async fn page(place: &Place) -> Result<String, String> {
    let view: View = get(place, "/v1/nodes").await?;
    let endpoints: serde_json::Value = get(place, "/v1/endpoints").await?;
    Ok(status::page(&view, &endpoints))
}

/// Shows the events, those that are kept or also those to come.
pub(super) fn events(reach: &Reach, is_followed: bool) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Events {
        life: String,
        events: Vec<Event>,
    }
    let place = find(reach)?;
    block_on(async {
        // A controller that is started again counts anew.
        let mut seen = "after=0".to_owned();
        loop {
            let Events { life, events } = get(&place, &format!("/v1/events?{seen}")).await?;
            let mut out = io::stdout().lock();
            for event in &events {
                writeln!(out, "{}", status::event(event)).map_err(|error| error.to_string())?;
                seen = format!("after={}&life={life}", event.id);
            }
            drop(out);
            if !is_followed {
                return Ok(());
            }
            tokio::time::sleep(REFRESH_PERIOD).await;
        }
    })
}

/// The controller's HTTP address, and what to do without one.
fn find(reach: &Reach) -> Result<Place, String> {
    if let Some(address) = reach.address {
        return Ok(Place { address, remedy: "start it: cache-node cluster --dir FOLDER".to_owned() });
    }
    let place = reach.dir.display();
    let recorded = state::read(&reach.dir).map_err(|error| error.to_string())?;
    let recorded = recorded.ok_or_else(|| {
        format!("there is no cluster in {place}; name its folder with --dir, or start one: cache-node cluster --dir {place}")
    })?;
    let remedy = match recorded.running() {
        0 => format!("none of its nodes runs; start it: cache-node cluster --dir {place}"),
        running => {
            let nodes = recorded.members.len();
            format!("{running} of its {nodes} nodes run on; this takes them over: cache-node cluster --dir {place}")
        }
    };
    Ok(Place { address: SocketAddr::from((Ipv4Addr::LOCALHOST, recorded.ports.http)), remedy })
}

async fn get<T: DeserializeOwned>(place: &Place, path: &str) -> Result<T, String> {
    let request = request(Method::GET, path, place.address).body(Full::default()).map_err(|error| error.to_string())?;
    let response = send(place, request).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let bytes = response.into_body().collect().await.map_err(|error| format!("the controller's answer broke off: {error}"))?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| format!("the controller's answer is not as expected: {error}"))
}

fn request(method: Method, path: &str, address: SocketAddr) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(path).header(HOST, address.to_string())
}

async fn send(place: &Place, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
    let Place { address, remedy } = place;
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("no controller answers at {address}: {error}; {remedy}"))?;
        let told = |error: hyper::Error| format!("the controller at {address} did not answer: {error}");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(told)
    };
    tokio::time::timeout(ANSWER_MAX, exchange)
        .await
        .map_err(|_| format!("the controller at {address} did not answer within {ANSWER_MAX:?}"))?
}

/// The reason in an answer that is no success.
async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let bytes = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|body| Some(body["error"].as_str()?.to_owned()));
    text.unwrap_or_else(|| format!("the controller answered {status}"))
}

/// Shows the lines of a command's answer, with a bar on a terminal; gives the last.
async fn show(response: Response<Incoming>) -> Result<String, String> {
    let bar = bar();
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| format!("the controller's answer broke off: {error}; the command may go on: cluster status"))?;
        if let Ok(data) = frame.into_data() {
            pending.extend_from_slice(&data);
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Line::Progress { done, total, text }) => {
                    bar.set_length(total);
                    bar.set_position(done);
                    bar.set_message(text);
                }
                Ok(Line::Done(text)) => {
                    bar.finish_and_clear();
                    return Ok(text);
                }
                Ok(Line::Failed(text)) => {
                    bar.finish_and_clear();
                    return Err(text);
                }
                Err(error) => return Err(format!("the controller's answer is not as expected: {error}")),
            }
        }
        if pending.len() > LINE_BYTES_MAX {
            return Err("the controller's answer is not as expected: a line without an end".to_owned());
        }
    }
    Err("the controller ended before the command did; see: cluster status".to_owned())
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})").expect("the template is well formed");
    ProgressBar::new(0).with_style(style)
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}
