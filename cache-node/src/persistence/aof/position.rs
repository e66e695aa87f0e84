//! Where in a stream a log ends: kept beside it from an orderly end to the next start. After any other end there is none, since what came
//! behind the log's last bytes is not known.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    persistence::file::replace,
    replication::{Position, PositionFields},
};

/// Fields beside those of the position: the log's last file and its length, without which it is of another log.
const FILE: &str = "file";
const BYTES: &str = "bytes";

/// The last file of a log, as it was when the log was ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) file: String,
    pub(super) bytes: u64,
}

/// Where it stands for the log whose files begin with `filename`.
pub(super) fn path(folder: &Path, filename: &str) -> PathBuf {
    folder.join(format!("{filename}.position"))
}

/// Writes it, durably.
pub(super) fn put(path: &Path, position: &Position, end: &End) -> io::Result<()> {
    let fields = position.fields().into_iter().chain([(FILE, end.file.clone()), (BYTES, end.bytes.to_string())]);
    let text: String = fields.map(|(name, value)| format!("{name} {value}\n")).collect();
    replace(path, text.as_bytes(), None)
}

/// Reads it and takes it away: it holds for one start only. `None` where there is none, or it is not of a log that ends like this.
pub(super) fn take(path: &Path, end: Option<&End>) -> io::Result<Option<Position>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    fs::remove_file(path)?;
    let (mut fields, mut file, mut bytes) = (PositionFields::default(), None, None);
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        match name {
            FILE => file = Some(value.to_owned()),
            BYTES => bytes = value.parse().ok(),
            _ => fields.take(name.as_bytes(), value.as_bytes()),
        }
    }
    let of = file.zip(bytes).map(|(file, bytes)| End { file, bytes });
    Ok(fields.position().filter(|_| of.is_some() && of.as_ref() == end))
}
