//! Errors of commands, in Redis's own words: clients match on the first one.

use std::borrow::Cow;

use crate::keyspace::WrongType;

/// An error reply: a prefix in capitals and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandError(Cow<'static, str>);

impl CommandError {
    pub(crate) const SYNTAX: CommandError = CommandError::fixed("ERR syntax error");
    pub(crate) const NOT_AN_INTEGER: CommandError = CommandError::fixed("ERR value is not an integer or out of range");
    pub(crate) const OUT_OF_RANGE: CommandError =
        CommandError::fixed("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807");
    pub(crate) const NOT_A_FLOAT: CommandError = CommandError::fixed("ERR value is not a valid float");
    pub(crate) const OVERFLOW: CommandError = CommandError::fixed("ERR increment or decrement would overflow");
    pub(crate) const NO_SUCH_KEY: CommandError = CommandError::fixed("ERR no such key");
    pub(crate) const DB_OUT_OF_RANGE: CommandError = CommandError::fixed("ERR DB index is out of range");
    pub(crate) const NOT_POSITIVE: CommandError = CommandError::fixed("ERR value is out of range, must be positive");
    pub(crate) const INVALID_CURSOR: CommandError = CommandError::fixed("ERR invalid cursor");
    pub(crate) const NO_AUTH: CommandError = CommandError::fixed("NOAUTH Authentication required.");
    pub(crate) const MASTER_DOWN: CommandError =
        CommandError::fixed("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
    pub(crate) const WRONG_PASS: CommandError =
        CommandError::fixed("WRONGPASS invalid username-password pair or user is disabled.");
    pub(crate) const LOADING: CommandError = CommandError::fixed("LOADING Redis is loading the dataset in memory");
    pub(crate) const OUT_OF_MEMORY: CommandError = CommandError::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    pub(crate) const EXEC_ABORT: CommandError =
        CommandError::fixed("EXECABORT Transaction discarded because of previous errors.");
    pub(crate) const NO_SCRIPT: CommandError = CommandError::fixed("NOSCRIPT No matching script. Please use EVAL.");
    pub(crate) const STRING_TOO_LARGE: CommandError =
        CommandError::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    pub(crate) const REPLY_TOO_LARGE: CommandError =
        CommandError::fixed("ERR the limit of a reply, 1 GB, is passed; ask for less at once");

    pub(crate) const fn fixed(text: &'static str) -> CommandError {
        CommandError(Cow::Borrowed(text))
    }

    pub(crate) fn new(text: impl Into<String>) -> CommandError {
        CommandError(Cow::Owned(text.into()))
    }

    pub(crate) fn wrong_arguments(command: &str) -> CommandError {
        CommandError::new(format!("ERR wrong number of arguments for '{}' command", command.to_ascii_lowercase()))
    }

    pub(crate) fn unknown_subcommand(command: &str, subcommand: &[u8]) -> CommandError {
        let subcommand = printable(subcommand);
        CommandError::new(format!("ERR unknown subcommand '{subcommand}'. Try {} HELP.", command.to_ascii_uppercase()))
    }

    pub(crate) fn invalid_expiry(command: &str) -> CommandError {
        CommandError::new(format!("ERR invalid expire time in '{}' command", command.to_ascii_lowercase()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// What `errorstats` counts by.
    pub(crate) fn prefix(&self) -> &str {
        prefix(self.0.as_bytes())
    }
}

/// The first word of an error, where others follow: what `errorstats` counts by. ERR of one that has none, or a long one, as in Redis, which
/// looks at 32 bytes with the `-` before them. The end of a line is one of a word: the reply has a space there, and INFO has a line for each word.
pub(crate) fn prefix(text: &[u8]) -> &str {
    const PREFIX_BYTES_MAX: usize = 31;
    let start = &text[..text.len().min(PREFIX_BYTES_MAX)];
    let word = start.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n')).map(|end| &start[..end]);
    word.and_then(|word| std::str::from_utf8(word).ok()).unwrap_or("ERR")
}

impl From<WrongType> for CommandError {
    fn from(_: WrongType) -> CommandError {
        CommandError::fixed("WRONGTYPE Operation against a key holding the wrong kind of value")
    }
}

/// Bytes from outside as they may stand in an error: printable, and not longer than Redis shows them.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 128;
    bytes
        .iter()
        .take(SHOWN_BYTES_MAX)
        .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
        .collect()
}
