//! Why an operation did not get what it asked for.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{
    StoreError,
    error::{Elsewhere, is_not_serving},
    nodes::is_broken,
};

/// What an error says about the next attempt.
pub(super) enum Verdict {
    /// The connection cannot be used any more.
    Broken,
    /// Another node has the slot, for good or while it is on its way.
    Elsewhere { for_good: bool },
    /// The keys of the request are on two nodes for a moment.
    Later,
    /// The node is not, or not yet, the one to ask.
    WrongNode,
    /// Another attempt would end as this one.
    Refused,
}

impl Verdict {
    pub(super) fn of(error: &RedisError) -> Self {
        if is_broken(error) {
            return Self::Broken;
        }
        let Some(code) = error.code() else { return Self::Refused };
        match Elsewhere::of(code) {
            Some(Elsewhere::Moved) => Self::Elsewhere { for_good: true },
            Some(Elsewhere::Ask) => Self::Elsewhere { for_good: false },
            Some(Elsewhere::TryAgain) => Self::Later,
            None if is_not_serving(code) => Self::WrongNode,
            None => Self::Refused,
        }
    }
}

pub(crate) enum Problem {
    Store(StoreError),
    Refused(RedisError),
}

impl Problem {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Refused(error) => error.code().is_some_and(is_not_serving),
        }
    }

    /// The label of a failure.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Store(error) => error.label(),
            Self::Refused(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => "unknown_script",
            Self::Refused(_) => "refused",
        }
    }

    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Refused(error) => {
                let code = error.code().unwrap_or("ERR").to_owned();
                let message = match (&*code, error.detail()) {
                    ("NOAUTH", _) => "NOAUTH it asks for a password; put it into the URL: redis://:password@host:port".to_owned(),
                    (_, Some(detail)) => format!("{code} {detail}"),
                    (_, None) => error.to_string(),
                };
                StoreError::Refused { code, message }
            }
        }
    }
}
