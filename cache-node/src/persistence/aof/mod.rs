//! The append-only log, in the multi-part form of Redis 7: a manifest names a base (all data at one moment) and increments (the writes
//! since). Its thread brings it to disk: what all connections wrote while it brought the last bytes there goes the next time, together.
//! Where a reply waits for the file only, the thread that has the reply writes for all of them.

mod base;
mod files;
mod keeper;
mod load;
mod log;
mod manifest;
mod writer;

pub(crate) use writer::LogWriter;

use std::{io, sync::Arc, thread::JoinHandle};

use parking_lot::Mutex;

use crate::{
    keyspace::Now,
    node::Shared,
    persistence::{file::remove_temporaries, load::load_at_start},
};

use keeper::Keeper;

/// Loads the log, if the configuration wants one, and else the snapshot, if there is one; starts the thread that keeps the log. The
/// thread runs in any case: CONFIG SET may want a log later. It ends when [`crate::node::LogState::stop`] says so, with an error when the last bytes could not be brought to disk.
///
/// # Errors
/// When the log or the snapshot cannot be read or opened, or is damaged. The text says what to do.
pub(crate) fn start(shared: &Arc<Shared>, now: Now) -> io::Result<JoinHandle<io::Result<()>>> {
    let mut keeper = Keeper::new(Arc::clone(shared));
    let config = shared.config();
    if config.has_persistence() {
        let folder = config.folder();
        remove_temporaries(folder)
            .map_err(|error| io::Error::new(error.kind(), format!("dir '{}': {error}", folder.display())))?;
    }
    if config.appendonly {
        keeper.load(now)?;
    } else {
        load_at_start(shared)?;
    }
    let keeper = Arc::new(Mutex::new(keeper));
    shared.log_writer.writes_by(&keeper);
    std::thread::Builder::new().name("cache-node-log".to_owned()).spawn(move || Keeper::run(&keeper))
}
