//! What is kept on disk: RDB snapshots. The only module beside configuration that touches files.

mod file;
mod load;
pub(crate) mod rdb;
mod saver;
mod schedule;
mod snapshot;

pub(crate) use load::load_at_start;
#[allow(unused_imports, reason = "the log and replication are built on it")]
pub(crate) use load::{Expired, Loaded, load_into};
pub(crate) use saver::{Saver, start as start_saver};
pub(crate) use schedule::{SaveRule, Schedule};
#[allow(unused_imports, reason = "the log and replication are built on it")]
pub(crate) use snapshot::{Aux, Written, write_snapshot};
