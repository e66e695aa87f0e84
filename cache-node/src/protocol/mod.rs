//! The wire as pure functions over byte slices: no sockets, no clock, no async.

mod encode;
mod integer;
mod reply;
mod request;

pub(crate) use encode::encode_request;
pub(crate) use integer::{DecimalBuffer, parse_integer};
pub(crate) use reply::{Protocol, Reply, format_double};
pub(crate) use request::{
    Args, Limits, OwnedRequest, ProtocolError, RequestParser, Requests, key_at_front, quoted_word, split_quoted_line,
    split_quoted_words,
};
