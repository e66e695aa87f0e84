//! Requests as a cluster needs them: one command at a time, since each key has its own way.

use super::Slot;
use crate::{
    deadline::Deadline,
    wire::{Packed, Reply, Unanswered, Wire, pack},
};

/// One command, as it is sent.
pub(crate) struct Command {
    bytes: Vec<u8>,
    slot: Option<Slot>,
}

impl Command {
    pub(crate) fn slot(&self) -> Option<Slot> {
        self.slot
    }
}

impl Packed for Command {
    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn replies(&self) -> u32 {
        1
    }
}

/// The commands of a request.
pub(crate) fn split(request: &dyn Packed) -> Vec<Command> {
    let mut bytes = Vec::new();
    request.pack(&mut bytes);
    let mut commands = Vec::with_capacity(request.replies() as usize);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let Some((arguments, after)) = arguments(rest) else {
            unreachable!("this library writes its requests as arrays of strings");
        };
        // All keys of a command are in one slot. In front of the first are its name, and of a script its hash or its code and their number.
        let is_script = arguments.first().is_some_and(|name| name.starts_with(b"EVAL"));
        let slot = arguments.get(if is_script { 3 } else { 1 }).map(|key| Slot::of_key(key));
        let length = rest.len() - after.len();
        commands.push(Command { bytes: rest[..length].to_vec(), slot });
        rest = after;
    }
    commands
}

/// The arguments of the first command, and what is behind it.
pub(crate) fn arguments(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let (count, mut rest) = length(bytes, b'*')?;
    let mut arguments = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let (length, after) = length(rest, b'$')?;
        arguments.push(after.get(..length)?);
        rest = after.get(length + 2..)?;
    }
    Some((arguments, rest))
}

fn length(bytes: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    let end = memchr::memchr(b'\r', bytes)?;
    let digits = bytes[..end].strip_prefix(&[kind])?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, bytes.get(end + 2..)?))
}

/// The node is being given the slot, and serves it to those who say that they were sent.
pub(crate) struct Asking<'a>(pub(crate) &'a dyn Packed);

impl Asking<'_> {
    pub(crate) async fn send(&self, wire: &Wire, deadline: &Deadline) -> Result<Reply, Unanswered> {
        let mut reply = wire.ask_until(self, deadline).await?;
        // Nobody else wants to know whether the node was fine with being asked.
        reply.skip_first().map_err(|error| Unanswered::Closed(crate::wire::malformed(error)))?;
        Ok(reply)
    }
}

impl Packed for Asking<'_> {
    fn pack(&self, out: &mut Vec<u8>) {
        pack(out, &[b"ASKING"]);
        self.0.pack(out);
    }

    fn replies(&self) -> u32 {
        1 + self.0.replies()
    }
}

#[cfg(test)]
mod tests {
    use redis::{Pipeline, cmd};

    use super::{Slot, split};

    #[test]
    fn a_request_is_split_into_its_commands() {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HGETALL").arg("shop:session:{foo}").cmd("PING");
        let mut script = cmd("EVAL");
        script.arg("local a = {b}").arg(1).arg("shop:cart:{foo}").arg("{\"json\": true}");
        pipeline.add_command(script);
        // A key of other software, which has no hash tag, whatever is in the value.
        pipeline.cmd("SET").arg("foo").arg("{bar}");
        let commands = split(&pipeline);
        let slots: Vec<_> = commands.iter().map(super::Command::slot).collect();
        assert_eq!(slots, [Some(Slot(12_182)), None, Some(Slot(12_182)), Some(Slot(12_182))]);
        assert_eq!(commands[1].bytes, b"*1\r\n$4\r\nPING\r\n");
    }
}
