//! `POST /v1/commands`: one command, answered by lines of JSON while it runs.

use bytes::Bytes;
use http_body_util::{Either, channel::Channel};
use hyper::{Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION};
use tokio::sync::mpsc;

use crate::cluster::{
    http::{
        Http,
        answer::{Body, fault, read, with_type},
    },
    limits::{HTTP_BODY_BYTES_MAX, PROGRESS_LINES_MAX},
    operation::{Line, Operation, Progress},
};

impl Http {
    pub(super) async fn command(&self, request: Request<Incoming>) -> Response<Body> {
        let header = request.headers().get(AUTHORIZATION).map(hyper::http::HeaderValue::as_bytes);
        if !header.is_some_and(|header| self.token.is_in(header)) {
            let text = "a command carries Authorization: Bearer and what is in control.token in the cluster's folder";
            return fault(StatusCode::UNAUTHORIZED, text);
        }
        let Some(body) = read(request.into_body(), HTTP_BODY_BYTES_MAX).await else {
            return fault(StatusCode::PAYLOAD_TOO_LARGE, "a command's body is small");
        };
        let operation: Operation = match serde_json::from_slice(&body) {
            Ok(operation) => operation,
            Err(error) => return fault(StatusCode::BAD_REQUEST, &format!("this is no command: {error}")),
        };
        let (sender, body) = Channel::new(PROGRESS_LINES_MAX);
        tokio::spawn(run(self.clone(), operation, sender));
        with_type(StatusCode::OK, "application/x-ndjson", Either::Right(body))
    }
}

/// Runs the command to its end, whether its client stays or not: half of a restart helps nobody.
async fn run(http: Http, operation: Operation, mut client: http_body_util::channel::Sender<Bytes>) {
    let (lines, mut told) = mpsc::channel(PROGRESS_LINES_MAX);
    let running = http.desk.run(operation, Progress(lines));
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            Some(line) = told.recv() => send(&mut client, &line).await,
        }
    };
    let last = match outcome {
        Ok(text) => Line::Done(text),
        Err(text) => Line::Failed(text),
    };
    send(&mut client, &last).await;
}

async fn send(client: &mut http_body_util::channel::Sender<Bytes>, line: &Line) {
    let mut bytes = serde_json::to_vec(line).expect("a line is a string and numbers");
    bytes.push(b'\n');
    // A client that has gone away or does not read misses lines.
    let sent = tokio::time::timeout(crate::cluster::limits::CALL_MAX, client.send_data(Bytes::from(bytes))).await;
    drop(sent);
}
