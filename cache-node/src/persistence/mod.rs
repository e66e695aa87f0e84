//! What is kept on disk: RDB snapshots and the append-only log. The only module beside configuration that touches files.

mod aof;
mod file;
mod load;
pub(crate) mod rdb;
mod saver;
mod schedule;
mod snapshot;

pub(crate) use aof::start as start_log;
#[allow(unused_imports, reason = "replication is built on it")]
pub(crate) use load::{Expired, Loaded, load_into};
pub(crate) use saver::{Saver, start as start_saver};
pub(crate) use schedule::{SaveRule, Schedule};
#[allow(unused_imports, reason = "replication is built on it")]
pub(crate) use snapshot::{Aux, Written, write_snapshot};
