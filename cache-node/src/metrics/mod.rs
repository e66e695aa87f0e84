//! `/metrics`, `/healthz`, `/readyz` and `/v1/events` of a node, on a port and a thread of their own: whoever watches the node never keeps its clients
//! waiting, however slow he is.

mod answer;
mod collector;
mod format;
mod listener;
mod ready;
mod row;
mod sample;
mod table;
mod told;

#[cfg(feature = "cluster")]
pub(crate) use format::Format;
pub(crate) use format::{Labels, Number, Series};
pub(crate) use listener::start;
