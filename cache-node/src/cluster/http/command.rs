//! `POST /v1/commands`: one command, answered by lines of JSON while it runs.

use http_body_util::{Either, channel::Channel};
use hyper::{Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION};

use crate::cluster::{
    http::{
        Http,
        answer::{Body, fault, read, with_type},
    },
    limits::{HTTP_BODY_BYTES_MAX, PROGRESS_LINES_MAX},
    operation::{Desk, Operation, Progress},
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
        let (client, body) = Channel::new(PROGRESS_LINES_MAX);
        tokio::spawn(run(self.desk.clone(), operation, Progress::to(client)));
        with_type(StatusCode::OK, "application/x-ndjson", Either::Right(body))
    }
}

/// Runs the command to its end, whether its client stays or not: half of a restart helps nobody.
async fn run(desk: Desk, operation: Operation, progress: Progress) {
    let outcome = desk.run(operation, &progress).await;
    progress.end(outcome).await;
}
