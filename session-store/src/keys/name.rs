//! The name of a key, which is written where it is sent: an operation has up to six of them, and each as a string of its own was an
//! allocation that lived as long as the store was waited for.

use std::fmt;

use redis::{RedisWrite, ToRedisArgs};

use super::Tag;
use crate::wire::{Argument, length};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    prefix: &'a str,
    /// What kind of key it is, with what stands around that.
    kind: &'static str,
    tag: Tag,
}

/// Behind the tag.
const END: &str = "}";

impl<'a> Name<'a> {
    pub(super) fn new(prefix: &'a str, kind: &'static str, tag: &Tag) -> Self {
        Self { prefix, kind, tag: *tag }
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, kind, tag } = self;
        write!(f, "{prefix}{kind}{}{END}", tag.as_str())
    }
}

impl Argument for Name<'_> {
    fn pack(&self, out: &mut Vec<u8>) {
        length(out, b'$', self.prefix.len() + self.kind.len() + self.tag.as_bytes().len() + END.len());
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(self.tag.as_bytes());
        out.extend_from_slice(b"}\r\n");
    }
}

impl ToRedisArgs for Name<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}
