//! The functions that a script calls in the node, and the ones that never change between scripts.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use crate::{
    command::{self, Context, Flags, table},
    keyspace::Keys,
    protocol::{OwnedRequest, Protocol, Reply},
    script::{
        json,
        memory::{Limit, check_room},
        reply,
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
        if !self.has_passed.get() && self.at.get().is_some_and(|at| Instant::now() >= at) {
            self.has_passed.set(true);
        }
        self.has_passed.get()
    }

    /// For what runs long outside of Lua, where no hook looks at the clock: an error once the time is used up.
    pub(super) fn check(&self) -> mlua::Result<()> {
        if self.has_passed() { Err(mlua::Error::runtime(OVER)) } else { Ok(()) }
    }
}

/// The table that the prelude closes over. `call` is put into it for each script.
pub(super) fn table(lua: &Lua, deadline: &Rc<Deadline>, resp: &Rc<Cell<Protocol>>) -> mlua::Result<Table> {
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
    host.raw_set("encode", lua.create_function(move |lua, value: Value| lua.create_string(json::encode(&value, &encoder)?))?)?;
    host.raw_set("decode", lua.create_function(|lua, text: mlua::LuaString| json::decode(lua, &text.as_bytes()))?)?;
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

/// One script's access to commands.
pub(super) struct Caller<'a, 'b, 'k> {
    pub(super) ctx: &'a mut Context<'b>,
    pub(super) keys: &'a mut Keys<'k>,
    pub(super) is_readonly: bool,
    pub(super) resp: Rc<Cell<Protocol>>,
    pub(super) deadline: Rc<Deadline>,
    pub(super) request: OwnedRequest,
    pub(super) reply: Reply,
}

impl Caller<'_, '_, '_> {
    /// `redis.call`: an error comes back as a table with `err`; the prelude raises it.
    pub(super) fn call(caller: &RefCell<Self>, lua: &Lua, arguments: &MultiValue) -> mlua::Result<Value> {
        let lifted = Limit::lift(lua)?;
        let mut caller = caller.borrow_mut();
        caller.deadline.check()?;
        caller.reply.clear();
        let protocol = caller.resp.get();
        caller.reply.set_protocol(protocol);
        if let Err(text) = caller.run(arguments) {
            caller.reply.clear();
            caller.reply.error(text);
        }
        check_room(lua, caller.reply.len())?;
        let value = reply::to_lua(lua, &mut caller.reply.bytes());
        drop(lifted);
        value
    }

    /// Room was made before the script, and what it writes is evicted after it: under its locks nothing can be.
    fn may_add_nothing(&self) -> bool {
        let maxmemory = self.ctx.config.maxmemory;
        let used_max = maxmemory.saturating_add(maxmemory / OVERSHOOT_SHARE);
        maxmemory > 0 && (self.ctx.is_full || self.ctx.shared.keyspace.used_bytes() > used_max)
    }

    fn run(&mut self, arguments: &MultiValue) -> Result<(), &'static str> {
        if arguments.is_empty() {
            return Err("ERR Please specify at least one argument for this redis.call() call");
        }
        self.request.clear();
        let bytes_max = self.ctx.config.client_query_buffer_limit;
        for argument in arguments {
            if let Value::String(text) = argument
                && text.as_bytes().len() > bytes_max.saturating_sub(self.request.len())
            {
                return Err("ERR the arguments of one redis.call() exceed client-query-buffer-limit; make several calls");
            }
            match argument {
                Value::String(text) => self.request.push(&text.as_bytes()),
                Value::Integer(number) => self.request.push(number.to_string().as_bytes()),
                Value::Number(number) => self.request.push(number_text(*number).as_bytes()),
                _ => return Err("ERR Lua redis lib command arguments must be strings or integers"),
            }
        }
        let args = self.request.args();
        let index = table::find(args.at(0)).ok_or("ERR Unknown Redis command called from script")?;
        let spec = &table::TABLE[index];
        if spec.check_arity(args).is_err() {
            return Err("ERR Wrong number of args calling Redis command from script");
        }
        if spec.flags.has(Flags::NOSCRIPT) {
            return Err("ERR This Redis command is not allowed from script");
        }
        if self.is_readonly && spec.flags.has(Flags::WRITE) {
            return Err("ERR Write commands are not allowed from read-only scripts.");
        }
        if spec.flags.has(Flags::WRITE) && !self.ctx.shared.gate.is_open() {
            // Its text is not fixed: it names what went wrong.
            if let Err(error) = command::may_write(self.ctx) {
                self.reply.error(error.text());
                return Ok(());
            }
        }
        if spec.flags.has(Flags::DENYOOM) && self.may_add_nothing() {
            return Err("OOM command not allowed when used memory > 'maxmemory'.");
        }
        command::call_locked(self.ctx, self.keys, index, args, &mut self.reply);
        Ok(())
    }
}

/// A number as an argument: whole ones without a fraction, others with 17 digits, as Redis does.
fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e17 { format!("{number:.0}") } else { crate::protocol::format_double(number) }
}
