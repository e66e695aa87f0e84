//! What can go wrong between this process and the store.

use std::{fmt, time::Duration};

/// Codes of a node that serves nobody at the moment, or does not take changes.
const NOT_SERVING: [&str; 4] = ["READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN"];

/// Whether it is the code of a node that is not, or not yet, the one to ask.
pub(crate) fn is_not_serving(code: &str) -> bool {
    NOT_SERVING.contains(&code) || Elsewhere::of(code).is_some()
}

/// What a node of a cluster says that does not have the slot, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// Another one has it.
    Moved,
    /// It is on its way, and this key has arrived.
    Ask,
    /// It is on its way, and the keys are on both nodes.
    TryAgain,
}

impl Elsewhere {
    pub(crate) fn of(code: &str) -> Option<Self> {
        match code {
            "MOVED" => Some(Self::Moved),
            "ASK" => Some(Self::Ask),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

/// Why the store could not do what was asked.
///
/// An error is never the same as "there is no session": nothing is written after a failed read, and no cookie is
/// removed because of one.
///
/// ```
/// use session_store::{CacheStore, StoreError};
///
/// let error = CacheStore::builder("http://127.0.0.1:6379").connect_lazy().unwrap_err();
/// assert!(matches!(error, StoreError::InvalidUrl { .. }));
/// assert!(error.to_string().contains("redis://"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL does not name a store.
    #[error(
        "the store's URL cannot be used: {reason}; write it as redis://[user:password@]host:port[/database], rediss:// for TLS, unix:///path/to/socket, redis+sentinel://host,host,host/name or redis+cluster://host,host,host"
    )]
    InvalidUrl {
        /// What is wrong with it. Never holds the password.
        reason: String,
    },
    /// A setting of the builder is outside its bounds.
    #[error("the store's settings cannot be used: {reason}")]
    InvalidSettings {
        /// Which setting, and its bounds.
        reason: String,
    },
    /// No connection could be made.
    #[error("cannot connect to the store at {address}: {reason}")]
    Connect {
        /// Host and port, or the path of the socket.
        address: String,
        /// What the attempt ended with, and what to do about it.
        reason: String,
    },
    /// The node was out of reach a moment ago, and a probe in the background looks whether it is back: requests are not
    /// sent there, so that nobody waits for it.
    #[error("the store at {address} has been out of reach for {} ms: {reason}", open_for.as_millis())]
    BreakerOpen {
        /// Host and port, or the path of the socket.
        address: String,
        /// How long its breaker has been open.
        open_for: Duration,
        /// What the latest attempt ended with.
        reason: String,
    },
    /// As many operations wait for a place in the pool as may wait.
    #[error("the pool is full: {waiting_max} operations wait for a place; the store is slow, or the pool too small")]
    PoolFull {
        /// The limit: [`CacheStoreBuilder::waiting_max`](crate::CacheStoreBuilder::waiting_max).
        waiting_max: usize,
    },
    /// The deadline passed.
    #[error("the store did not answer within {} ms: {stage}", deadline.as_millis())]
    Timeout {
        /// The deadline of an operation, all waiting included.
        deadline: Duration,
        /// What was being waited for.
        stage: Stage,
    },
    /// The connection broke before the answer came, and so did those that were tried after it.
    #[error("the connection to the store broke: {reason}")]
    Disconnected {
        /// The error of the socket.
        reason: String,
    },
    /// The store answered with an error.
    #[error("the store refused: {message}")]
    Refused {
        /// The error's prefix, such as `OOM`, `READONLY` or `NOAUTH`.
        code: String,
        /// The whole error.
        message: String,
    },
    /// What the store holds, or what it answered, cannot be read.
    #[error("what the store holds cannot be read: {reason}")]
    Unreadable {
        /// What was expected, and what was found.
        reason: String,
    },
    /// A session's record cannot be read by any version. It is put in quarantine, and the visitor gets an empty session.
    #[error("a session's record is corrupt: {reason}")]
    Corrupt {
        /// What was expected, and what was found.
        reason: String,
    },
    /// A line of a cart cannot be read: it is encrypted with a key that this process does not have, or it is damaged. It stays as it
    /// is, and so does the rest of the cart. What mends it: the key, a change of the line where it is damaged, or
    /// [`Cart::clear`](crate::Cart::clear).
    #[error("a line of the cart cannot be read: {reason}")]
    UnreadableCart {
        /// What was expected, and what was found.
        reason: String,
    },
    /// A value cannot be written as JSON.
    #[error("a value of the session cannot be written: {reason}")]
    Unwritable {
        /// The serializer's error.
        reason: String,
    },
    /// The session was ended, or got a new id, while this request was running. Nothing was changed.
    #[error("the session ended while the request was running; nothing was changed")]
    SessionEnded,
    /// Every id that was drawn was taken, which a working random generator does not let happen.
    #[error("no free session id was found in {attempts} attempts")]
    IdsTaken {
        /// How many ids were drawn.
        attempts: u32,
    },
    /// Other requests kept changing what this one was to read, change or end.
    #[error("other requests kept changing the same session, cart or list of sessions ({attempts} attempts); try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
}

impl StoreError {
    /// Whether the request lost against another one that ended the session, rather than against an outage.
    ///
    /// ```
    /// use session_store::StoreError;
    ///
    /// assert!(StoreError::SessionEnded.is_conflict());
    /// ```
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::SessionEnded)
    }

    /// A word for it in the label of a metric.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => "invalid_url",
            Self::InvalidSettings { .. } => "invalid_settings",
            Self::Connect { .. } => "connect",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::PoolFull { .. } => "pool_full",
            Self::Timeout { .. } => "timeout",
            Self::Disconnected { .. } => "disconnected",
            Self::Refused { .. } => "refused",
            Self::Unreadable { .. } => "unreadable",
            Self::Corrupt { .. } => "corrupt",
            Self::UnreadableCart { .. } => "unreadable_cart",
            Self::Unwritable { .. } => "unwritable",
            Self::SessionEnded => "session_ended",
            Self::IdsTaken { .. } => "ids_taken",
            Self::Contended { .. } => "contended",
        }
    }

    /// Whether the store was out of reach, or could not serve: it may be a moment later.
    ///
    /// ```
    /// use std::time::Duration;
    /// use session_store::{Stage, StoreError};
    ///
    /// assert!(StoreError::Timeout { deadline: Duration::from_millis(250), stage: Stage::Answer }.is_outage());
    /// assert!(!StoreError::SessionEnded.is_outage());
    /// ```
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::BreakerOpen { .. }
            | Self::PoolFull { .. }
            | Self::Timeout { .. }
            | Self::Disconnected { .. } => true,
            Self::Refused { code, .. } => is_not_serving(code),
            _ => false,
        }
    }

    /// Whether it is the record of a session that is to blame, and no connection or setting.
    pub(crate) fn is_corrupt(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            // A key of ours that holds something else than a session. In a pipeline the code stands in the message only.
            Self::Refused { code, message } => code == "WRONGTYPE" || message.contains("\"WRONGTYPE\""),
            _ => false,
        }
    }

    pub(crate) fn into_corrupt(self) -> Self {
        match self {
            Self::Unreadable { reason } => Self::Corrupt { reason },
            other => other,
        }
    }

    /// Whether a change that met this error may have been made all the same: the store was told of it, and no answer came.
    /// A repetition under the same [`IdempotencyToken`](crate::IdempotencyToken) counts once either way.
    ///
    /// ```
    /// use std::time::Duration;
    /// use session_store::{Stage, StoreError};
    ///
    /// assert!(StoreError::Timeout { deadline: Duration::from_millis(250), stage: Stage::Answer }.may_be_done());
    /// assert!(!StoreError::SessionEnded.may_be_done());
    /// ```
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Timeout { stage: Stage::Answer, .. } | Self::Disconnected { .. } | Self::Unreadable { .. })
    }
}

/// What an operation was waiting for when its deadline passed.
///
/// ```
/// use session_store::Stage;
///
/// assert_eq!(Stage::Pool.to_string(), "no connection became free or could be made");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// A free place in the pool, or a connection being made.
    Pool,
    /// The store's answer.
    Answer,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "no connection became free or could be made",
            Self::Answer => "the command was sent and no answer came",
        })
    }
}

impl From<StoreError> for tower_sessions::session_store::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreadable { .. } | StoreError::Corrupt { .. } | StoreError::UnreadableCart { .. } => {
                Self::Decode(error.to_string())
            }
            StoreError::Unwritable { .. } => Self::Encode(error.to_string()),
            _ => Self::Backend(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StoreError;

    #[test]
    fn what_was_contended_for_may_be_anything_that_is_changed_by_others() {
        let text = StoreError::Contended { attempts: 4 }.to_string();
        assert!(["session", "cart", "4 attempts"].iter().all(|part| text.contains(part)), "{text}");
    }
}
