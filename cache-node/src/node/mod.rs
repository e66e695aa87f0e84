//! What all connections of a node share, and what each connection is to the commands.

mod client;
mod clients;
mod notifier;
mod outbox;
mod pubsub;
mod shared;

pub(crate) use client::{Client, Subscribed};
pub(crate) use clients::{ClientEntry, Clients};
pub(crate) use notifier::Notifier;
pub(crate) use outbox::Outbox;
pub(crate) use pubsub::{PubSub, Topic};
pub(crate) use shared::Shared;
