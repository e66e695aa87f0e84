//! What the client of a command is told while it runs: lines of JSON.

use bytes::Bytes;
use http_body_util::channel::Sender;
use hyper::body::Frame;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::cluster::{controller::Outcome, limits::LAST_LINE_MAX};

/// One line of a command's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cluster) enum Line {
    /// `done` of `total` steps.
    Progress {
        done: u64,
        total: u64,
        text: String,
    },
    Done(String),
    Failed(String),
}

impl Line {
    fn to_bytes(&self) -> Bytes {
        let mut bytes = serde_json::to_vec(self).expect("a line is a string and numbers");
        bytes.push(b'\n');
        Bytes::from(bytes)
    }
}

/// Tells how far an operation is. A client that does not read misses lines, and holds nothing up.
#[derive(Debug)]
pub(in crate::cluster) struct Progress(Mutex<Sender<Bytes>>);

impl Progress {
    pub(in crate::cluster) fn to(client: Sender<Bytes>) -> Progress {
        Progress(Mutex::new(client))
    }

    pub(super) fn tell(&self, done: u64, total: u64, text: impl Into<String>) {
        let line = Line::Progress { done, total, text: text.into() };
        let told = self.0.lock().try_send(Frame::data(line.to_bytes()));
        drop(told);
    }

    /// Tells how the operation ended. A client that does not read has [`LAST_LINE_MAX`] to make room for it.
    pub(in crate::cluster) async fn end(self, outcome: Outcome) {
        let last = match outcome {
            Ok(text) => Line::Done(text),
            Err(text) => Line::Failed(text),
        };
        let told = timeout(LAST_LINE_MAX, self.0.into_inner().send_data(last.to_bytes())).await;
        drop(told);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use http_body_util::{BodyExt as _, channel::Channel};

    use super::{Line, Progress};

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_nothing_up_and_gets_the_end_when_it_does() {
        let (client, mut body) = Channel::new(2);
        let progress = Progress::to(client);
        for done in 0..100 {
            progress.tell(done, 100, "it runs");
        }
        let end = tokio::spawn(progress.end(Ok("it ran".to_owned())));
        let mut lines = Vec::new();
        while let Some(frame) = body.frame().await {
            lines.push(serde_json::from_slice::<Line>(&frame.unwrap().into_data().unwrap()).unwrap());
        }
        end.await.unwrap();
        let told = |done| Line::Progress { done, total: 100, text: "it runs".to_owned() };
        assert_eq!(lines, [told(0), told(1), Line::Done("it ran".to_owned())]);
    }
}
