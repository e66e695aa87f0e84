//! The managed cluster on one machine: a primary and replicas as processes of their own, watched, replaced, and found at fixed addresses.
//!
//! Across machines real Sentinels do this; there is no consensus here, because on one machine a process can be known to be dead.

mod announce;
mod arguments;
mod caller;
mod controller;
mod events;
mod http;
mod limits;
mod link;
mod operation;
mod port;
mod process;
mod proxy;
mod report;
mod sentinel;
mod settings;
mod start;
mod start_arguments;
mod state;
mod status;
mod token;
mod view;
mod watch;

pub(crate) use arguments::{command, run};
