//! Nodes of the store: where one is, how it is connected to, whether it answers.

mod address;
mod breaker;
mod node;
mod probe;
mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod transport;

pub(crate) use self::{
    address::Address,
    breaker::Failure,
    node::Node,
    socket::{Handle, Origin},
    transport::{Connection, Transport, role},
};
pub use self::{breaker::BreakerState, node::NodeStatus};

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Whether the connection cannot be used after this error.
pub(crate) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// What an attempt to connect ended with, and what to do about it.
pub(crate) fn reason(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "connection refused; start the store, or correct the address".to_owned();
    }
    let wrong_password = || "it does not accept the user name and password of the URL".to_owned();
    match error.code() {
        Some("NOAUTH") => "it asks for a password; put it into the URL: redis://:password@host:port".to_owned(),
        Some("WRONGPASS") => wrong_password(),
        _ if error.kind() == ErrorKind::AuthenticationFailed => wrong_password(),
        _ if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
            format!("its user may not do what is needed ({})", error.detail().unwrap_or("NOPERM"))
        }
        _ => error.to_string(),
    }
}
