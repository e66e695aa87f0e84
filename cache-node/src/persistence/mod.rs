//! What is kept on disk: RDB snapshots and the append-only log. The only module beside configuration that touches files.

mod aof;
mod file;
mod load;
mod progress;
pub(crate) mod rdb;
mod saver;
mod schedule;
mod seal;
mod snapshot;

pub(crate) use aof::{LogWriter, start as start_log};
pub(crate) use file::replace;
#[cfg(feature = "cluster")]
pub(crate) use file::{copy, remove_temporaries};
pub(crate) use load::{Expired, load_into, load_while};
#[cfg(feature = "metrics")]
pub(crate) use saver::SaveReport;
pub(crate) use saver::{Saver, start as start_saver};
pub(crate) use schedule::{SaveRule, Schedule};
pub(crate) use seal::EncryptionKey;
pub(crate) use snapshot::write_snapshot;

use std::io::{self, BufRead, Write};

use crate::config::Config;

/// Has `write` write a file without a name in the node's folder, encrypted as all that is there, and gives what was written to be read
/// from its start.
///
/// # Errors
/// Those of the system and of `write`.
pub(crate) fn with_temporary<T>(
    config: &Config,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(T, Box<dyn BufRead>)> {
    file::write_nameless(config.folder(), config.encryption.as_ref(), write)
}
