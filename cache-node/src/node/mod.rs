//! What all connections of a node share, and what each connection is to the commands.

mod address;
mod client;
mod clients;
mod events;
mod gate;
mod journal;
mod log;
mod notifier;
mod outbox;
mod pause;
mod pubsub;
mod shared;
mod slow_log;
mod tracking;

pub(crate) use client::{Client, Subscribed};
pub(crate) use clients::{ClientEntry, ClientNames, Clients};
#[cfg(feature = "metrics")]
pub(crate) use events::EventCounts;
pub(crate) use events::{EventKind, Events};
pub(crate) use gate::{Gate, Hindrance};
pub(crate) use journal::{Durability, Journal, LogBatch, position_in};
pub(crate) use log::{Loading, LogState};
pub(crate) use notifier::Notifier;
pub(crate) use outbox::Outbox;
pub(crate) use pause::{Pause, PauseKind};
pub(crate) use pubsub::{PubSub, Topic};
pub(crate) use shared::Shared;
pub(crate) use slow_log::{SlowLog, SlowRequest, shown_arguments};
pub(crate) use tracking::Tracking;
