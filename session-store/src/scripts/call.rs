//! A script call, packed while its arguments are given: to collect them, and to pack them then, was a tenth of what a change costs.

use std::io;

use redis::RedisWrite;

use super::Source;
use crate::{
    metrics::Operation,
    wire::{Argument, Packed, argument, length},
};

/// Bytes that most calls fit into.
const USUAL_BYTES: usize = 512;

/// `EVALSHA sha n key...`, and what is added to it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) script: &'static Source,
    /// Those behind the script itself, packed.
    arguments: Vec<u8>,
    count: usize,
}

impl Call {
    pub(crate) fn new(script: &'static Source, keys: &[impl Argument]) -> Self {
        let mut call = Self { script, arguments: Vec::with_capacity(USUAL_BYTES), count: 0 };
        call.arg(keys.len());
        for key in keys {
            key.pack(&mut call.arguments);
        }
        call.count += keys.len();
        call
    }

    pub(crate) fn arg(&mut self, argument: impl redis::ToRedisArgs) -> &mut Self {
        argument.write_redis_args(self);
        self
    }

    /// One argument, in parts.
    pub(crate) fn parts(&mut self, parts: &[&[u8]]) -> &mut Self {
        length(&mut self.arguments, b'$', parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.arguments.extend_from_slice(part));
        self.arguments.extend_from_slice(b"\r\n");
        self.count += 1;
        self
    }

    /// The same with the code in it, for a store that does not know the script yet. It knows it afterwards.
    pub(crate) fn with_code(&self) -> WithCode<'_> {
        WithCode(self)
    }
}

impl RedisWrite for Call {
    fn write_arg(&mut self, arg: &[u8]) {
        argument(&mut self.arguments, arg);
        self.count += 1;
    }

    fn writer_for_next_arg(&mut self) -> impl io::Write + '_ {
        Writer { call: self, written: Vec::new() }
    }
}

/// Its length stands in front of an argument: it is known when all of it was written.
struct Writer<'a> {
    call: &'a mut Call,
    written: Vec<u8>,
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.call.write_arg(&self.written);
    }
}

impl Packed for Call {
    fn pack(&self, out: &mut Vec<u8>) {
        length(out, b'*', self.count + 2);
        out.extend_from_slice(b"$7\r\nEVALSHA\r\n");
        argument(out, self.script.hash().as_bytes());
        out.extend_from_slice(&self.arguments);
    }

    fn replies(&self) -> u32 {
        1
    }

    fn operation(&self) -> Operation {
        self.script.operation
    }
}

#[derive(Debug)]
pub(crate) struct WithCode<'a>(&'a Call);

impl Packed for WithCode<'_> {
    fn pack(&self, out: &mut Vec<u8>) {
        length(out, b'*', self.0.count + 2);
        out.extend_from_slice(b"$4\r\nEVAL\r\n");
        argument(out, self.0.script.code().as_bytes());
        out.extend_from_slice(&self.0.arguments);
    }

    fn replies(&self) -> u32 {
        1
    }

    fn operation(&self) -> Operation {
        self.0.script.operation
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Write as _;

    use redis::{Cmd, RedisWrite as _};

    use crate::{scripts::END, wire::Packed};

    #[test]
    fn a_call_is_packed_as_the_client_library_does() {
        let key = "k".repeat(123);
        let mut call = END.call(&[&key[..], "other"]);
        call.arg("").arg(-7).arg(10_u64).arg(&[&b"a\r\n"[..], &b"b"[..]]).arg(3_usize).parts(&[b"=", b"", b"parted"]);
        call.writer_for_next_arg().write_all(b"written").unwrap();
        for (name, script, packed) in [("EVALSHA", END.hash(), packed(&call)), ("EVAL", END.code(), packed(&call.with_code()))] {
            let mut theirs = Cmd::new();
            theirs.arg(name).arg(script).arg(2).arg(&key).arg("other").arg("").arg(-7).arg(10).arg("a\r\n").arg("b").arg(3);
            theirs.arg("=parted").arg("written");
            assert_eq!(String::from_utf8_lossy(&packed), String::from_utf8_lossy(&theirs.get_packed_command()));
        }
    }

    fn packed(request: &dyn Packed) -> Vec<u8> {
        let mut out = Vec::new();
        request.pack(&mut out);
        out
    }
}
