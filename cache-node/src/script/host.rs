//! The functions that a script calls in the node, and the ones that never change between scripts.

use std::{any::Any, cell::Cell, rc::Rc, time::Instant};

use mlua::{Lua, Table, Value, Variadic};

use crate::{
    command::{self, CommandError, Context, Flags, Outcome, acl, names, permission, table},
    keyspace::Keys,
    protocol::{Args, DecimalBuffer, OwnedRequest, Protocol, Reply},
    script::{
        json,
        recycler::Recycler,
        stack::{Stack, Value as Argument},
    },
};

/// A script may pass `maxmemory` by one part in so many (Redis sets no bound).
const OVERSHOOT_SHARE: usize = 8;

/// When the running script must end.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    at: Cell<Option<Instant>>,
    has_passed: Cell<bool>,
}

/// What a script that used up its time is told.
pub(super) const OVER: &str = "ERR Script was ended: it ran longer than lua-time-limit. What it wrote before stays written.";

impl Deadline {
    pub(super) fn start(&self, at: Option<Instant>) {
        self.at.set(at);
        self.has_passed.set(false);
    }

    pub(super) fn has_passed(&self) -> bool {
        if !self.is_over() && self.at.get().is_some() {
            self.look(Instant::now());
        }
        self.is_over()
    }

    /// As [`Deadline::has_passed`] for who has just looked at the clock.
    pub(super) fn look(&self, now: Instant) {
        if self.at.get().is_some_and(|at| now >= at) {
            self.end_now();
        }
    }

    /// Whether the time was over when somebody last looked at the clock.
    pub(super) fn is_over(&self) -> bool {
        self.has_passed.get()
    }

    /// The script ends, whether its time is over or not.
    pub(super) fn end_now(&self) {
        self.has_passed.set(true);
    }

    /// For what runs long outside of Lua, where no hook looks at the clock: an error once the time is used up.
    pub(super) fn check(&self) -> mlua::Result<()> {
        if self.has_passed() { Err(mlua::Error::runtime(OVER)) } else { Ok(()) }
    }
}

/// The table that the prelude closes over; `call` and `pcall` are put into it beside what stands here.
pub(super) fn table(
    lua: &Lua,
    deadline: &Rc<Deadline>,
    resp: &Rc<Cell<Protocol>>,
    recycler: &Rc<Recycler>,
) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    host.raw_set("version", crate::REDIS_VERSION)?;
    host.raw_set("version_number", version_number())?;
    host.raw_set("over", OVER)?;
    let encoder = Rc::clone(deadline);
    let deadline = Rc::clone(deadline);
    host.raw_set("is_over", lua.create_function(move |_, ()| Ok(deadline.has_passed()))?)?;
    host.raw_set(
        "sha1hex",
        lua.create_function(|_, text: mlua::LuaString| Ok(sha1_smol::Sha1::from(&text.as_bytes()[..]).digest().to_string()))?,
    )?;
    host.raw_set("log", lua.create_function(log)?)?;
    let resp = Rc::clone(resp);
    host.raw_set(
        "setresp",
        lua.create_function(move |_, version: i64| {
            let version = match version {
                2 => Protocol::Resp2,
                3 => Protocol::Resp3,
                _ => return Err(mlua::Error::runtime("RESP version must be 2 or 3.")),
            };
            resp.set(version);
            Ok(())
        })?,
    )?;
    // These are mlua's work, by thousands of handles.
    let resting = Rc::clone(recycler);
    host.raw_set(
        "encode",
        lua.create_function(move |lua, value: Value| {
            let _pause = resting.pause();
            lua.create_string(json::encode(&value, &encoder)?)
        })?,
    )?;
    let resting = Rc::clone(recycler);
    host.raw_set(
        "decode",
        lua.create_function(move |lua, text: mlua::LuaString| {
            let _pause = resting.pause();
            json::decode(lua, &text.as_bytes())
        })?,
    )?;
    Ok(host)
}

/// 7.2.4 as 0x00070204.
fn version_number() -> u32 {
    crate::REDIS_VERSION.split('.').filter_map(|part| part.parse::<u32>().ok()).fold(0, |number, part| number << 8 | part)
}

fn log(_: &Lua, (level, parts): (i64, Variadic<Value>)) -> mlua::Result<()> {
    let text: mlua::Result<Vec<String>> = parts.iter().map(Value::to_string).collect();
    let text = text?.join(" ");
    match level {
        0 => tracing::debug!("script: {text}"),
        1 | 2 => tracing::info!("script: {text}"),
        3 => tracing::warn!("script: {text}"),
        _ => return Err(mlua::Error::runtime("Invalid log level.")),
    }
    Ok(())
}

const UNKNOWN: CommandError = CommandError::fixed("ERR Unknown Redis command called from script");
const WRONG_ARGUMENTS: CommandError = CommandError::fixed("ERR Wrong number of args calling Redis command from script");
const NOT_ALLOWED: CommandError = CommandError::fixed("ERR This Redis command is not allowed from script");
const READ_ONLY: CommandError = CommandError::fixed("ERR Write commands are not allowed from read-only scripts.");

/// One script's access to commands.
pub(super) struct Caller<'a, 'b, 'k> {
    pub(super) ctx: &'a mut Context<'b>,
    pub(super) keys: &'a mut Keys<'k>,
    pub(super) is_readonly: bool,
    pub(super) resp: &'a Cell<Protocol>,
    pub(super) deadline: &'a Deadline,
    pub(super) buffers: &'a mut Buffers,
    /// Whether the error in the buffer was counted: whoever sees it again behind the script counts it no second time.
    pub(super) is_counted: bool,
    /// What a command panicked with, until the script has ended.
    pub(super) panic: Option<Box<dyn Any + Send>>,
}

/// What scripts fill for each command, kept from one script to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    request: OwnedRequest,
    pub(super) reply: Reply,
}

impl Buffers {
    /// Bytes kept of each buffer between scripts.
    const KEPT_BYTES_MAX: usize = 64 * 1024;

    /// Gives memory back after a script that filled them with much.
    pub(super) fn shrink(&mut self) {
        if self.request.allocated_bytes() > Buffers::KEPT_BYTES_MAX {
            self.request = OwnedRequest::default();
        }
        self.reply.clear();
        self.reply.shrink_to(Buffers::KEPT_BYTES_MAX);
    }
}

impl Caller<'_, '_, '_> {
    /// Runs the command that stands on the stack, name first, and leaves its reply in the buffer. Never raises.
    pub(super) fn answer(&mut self, stack: Stack) {
        self.buffers.reply.clear();
        self.buffers.reply.set_protocol(self.resp.get());
        if let Err(text) = self.read_arguments(stack) {
            self.is_counted = false;
            return self.buffers.reply.error(text);
        }
        self.is_counted = true;
        let args = self.buffers.request.args();
        let Some(index) = names::find(args.at(0)) else { return self.refuse(None, &UNKNOWN) };
        if let Err(error) = self.admit(index, args) {
            return self.refuse(Some(index), &error);
        }
        let ended = command::call_locked(self.ctx, self.keys, index, args, &mut self.buffers.reply);
        self.deadline.look(ended);
    }

    /// Room was made before the script, and what it writes is evicted after it: under its locks nothing can be.
    fn may_add_nothing(&self) -> bool {
        let maxmemory = self.ctx.config.maxmemory;
        let used_max = maxmemory.saturating_add(maxmemory / OVERSHOOT_SHARE);
        maxmemory > 0 && (self.ctx.is_full || self.ctx.shared.keyspace.used_bytes() > used_max)
    }

    /// Whether a command may run in this script.
    fn admit(&self, index: usize, args: Args<'_>) -> Outcome {
        let spec = &table::TABLE[index];
        if spec.check_arity(args).is_err() {
            return Err(WRONG_ARGUMENTS);
        }
        if spec.flags.has(Flags::NOSCRIPT) {
            return Err(NOT_ALLOWED);
        }
        permission::check_in_script(self.ctx, index, args)?;
        if self.is_readonly && spec.flags.has(Flags::WRITE) {
            return Err(READ_ONLY);
        }
        if spec.flags.has(Flags::WRITE) && !self.ctx.shared.gate.is_open() {
            command::may_write(self.ctx)?;
        }
        if spec.flags.has(Flags::DENYOOM) && self.may_add_nothing() {
            self.ctx.shared.counters.count_out_of_memory();
            return Err(CommandError::OUT_OF_MEMORY);
        }
        Ok(())
    }

    /// Leaves the error in the buffer, and counts it as one outside of scripts.
    #[cold]
    fn refuse(&mut self, index: Option<usize>, error: &CommandError) {
        command::refuse(self.ctx, index, error, &mut self.buffers.reply);
    }

    /// redis.acl_check_cmd: leaves a boolean in the buffer, or an error. Never raises.
    pub(super) fn answer_check(&mut self, stack: Stack) {
        self.buffers.reply.clear();
        self.is_counted = false;
        if stack.len() == 0 {
            return self.buffers.reply.error("ERR Please specify at least one argument for this redis.acl_check_cmd() call");
        }
        if let Err(text) = self.read_arguments(stack) {
            return self.buffers.reply.error(text);
        }
        match acl::may_run(self.ctx, self.buffers.request.args()) {
            Some(may_run) => self.buffers.reply.raw(if may_run { b"#t\r\n" } else { b"#f\r\n" }),
            None => self.buffers.reply.error("ERR Invalid command passed to redis.acl_check_cmd()"),
        }
    }

    fn read_arguments(&mut self, stack: Stack) -> Result<(), &'static str> {
        let request = &mut self.buffers.request;
        let bytes_max = self.ctx.config.client_query_buffer_limit;
        request.clear();
        if stack.len() == 0 {
            return Err("ERR Please specify at least one argument for this redis.call() call");
        }
        for position in 1..=stack.len() {
            stack.with_value(position, |value| match value {
                Argument::Bytes(text) if text.len() > bytes_max.saturating_sub(request.len()) => {
                    Err("ERR the arguments of one redis.call() exceed client-query-buffer-limit; make several calls")
                }
                Argument::Bytes(text) => {
                    request.push(text);
                    Ok(())
                }
                Argument::Number(number) => {
                    push_number(request, number);
                    Ok(())
                }
                Argument::Other => Err("ERR Lua redis lib command arguments must be strings or integers"),
            })?;
        }
        Ok(())
    }
}

/// A number as an argument: whole ones without a fraction, others with 17 digits, as Redis does.
fn push_number(request: &mut OwnedRequest, number: f64) {
    const WHOLE_MAX: f64 = 1e17;
    if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        request.push(DecimalBuffer::default().format(number as i64));
    } else {
        request.push(crate::protocol::format_double(number).as_bytes());
    }
}
