//! Events as webhooks and on a channel: signed, tried again, bounded, with real receivers.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod cluster;
mod node;
#[path = "../support/mod.rs"]
mod support;

use support::receiver::{Delivery, Receiver};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn secret_file(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("webhook.secret");
    std::fs::write(&path, format!("{SECRET}\n{OLD_SECRET}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn of_kind(receiver: &Receiver, kind: &str) -> Vec<Delivery> {
    receiver.deliveries().into_iter().filter(|delivery| delivery.kind() == kind).collect()
}
