//! The users that a node begins with, and the ACL file.

use std::{fs, path::PathBuf, sync::Arc};

use crate::{
    acl::{Unwritable, User, parse_file, text_of},
    config::{Config, ConfigError},
    persistence::replace,
};

/// The users of the ACL file, or those of the configuration's own lines.
///
/// # Errors
/// When one of them is not right, with its line; nothing is taken then.
pub(crate) fn load_users(config: &Config) -> Result<Vec<User>, ConfigError> {
    let Some(path) = path(config) else {
        let users = config.users.iter().map(|line| line.user(config.acl_pubsub_default_all));
        return users.collect::<Result<_, _>>().map_err(|expected| ConfigError(format!("user: expected {expected}")));
    };
    if !config.users.is_empty() {
        let text = "users stand in the ACL file or in the configuration and not in both: take the lines 'user' or the directive aclfile away";
        return Err(ConfigError(text.to_owned()));
    }
    let name = path.display().to_string();
    let cannot_open =
        |reason: &dyn std::fmt::Display| ConfigError(format!("Error loading ACLs, opening file '{name}': {reason}. "));
    // Reading a pipe or a terminal would wait, and with it all connections of the thread.
    if !fs::metadata(&path).map_err(|error| cannot_open(&error))?.is_file() {
        return Err(cannot_open(&"it is no regular file"));
    }
    let text = fs::read(&path).map_err(|error| cannot_open(&error))?;
    parse_file(&name, &text, config.acl_pubsub_default_all).map_err(ConfigError)
}

/// Why the ACL file was not written.
#[derive(Debug)]
pub(crate) enum SaveError {
    Unwritable(String),
    File(String),
}

/// Writes the ACL file: aside, durably, and then in its place.
///
/// # Errors
/// When a user would be another one in the file, or those of the system; the old file is there as before then.
pub(crate) fn save_users(config: &Config, users: &[Arc<User>]) -> Result<(), SaveError> {
    let Some(path) = path(config) else { return Ok(()) };
    let text = text_of(users.iter().map(AsRef::as_ref)).map_err(|Unwritable(error)| SaveError::Unwritable(error))?;
    let permissions = fs::metadata(&path).ok().map(|known| known.permissions());
    replace(&path, &text, permissions).map_err(|error| SaveError::File(format!("{}: {error}", path.display())))
}

/// As in Redis, which works in that folder, it is relative to `dir`.
fn path(config: &Config) -> Option<PathBuf> {
    config.aclfile.as_ref().map(|path| config.folder().join(path))
}
