//! A thread's Lua state.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Instant,
};

use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use crate::{
    command::{CommandError, Context, Outcome},
    keyspace::Keys,
    protocol::{Args, OwnedRequest, Protocol, Reply},
    script::{
        Digest,
        host::{self, Caller, Deadline, OVER},
        memory::{LUA_BYTES_MAX, Limit, check_room},
        reply as convert,
    },
};

/// Instructions between two looks at the clock: about 10 µs of plain ones. An instruction that calls `string.rep` may take a
/// millisecond, so that many more would overrun the limit by far.
const INSTRUCTIONS_PER_LOOK: u32 = 1_000;

/// Compiled scripts that a thread keeps.
const COMPILED_MAX: usize = 1_000;

/// Runs scripts. The Lua state is made at the first one.
#[derive(Default)]
pub(crate) struct Interpreter {
    machine: OnceCell<Machine>,
    compiled: RefCell<Compiled>,
}

#[derive(Default)]
struct Compiled {
    generation: u64,
    functions: HashMap<Digest, Function>,
}

struct Machine {
    lua: Lua,
    host: Table,
    run: Function,
    /// What scripts find as globals.
    environment: Table,
    deadline: Rc<Deadline>,
    resp: Rc<Cell<Protocol>>,
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interpreter").finish_non_exhaustive()
    }
}

/// What EVAL was asked to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptCall<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) source: &'a [u8],
    pub(crate) keys: Args<'a>,
    pub(crate) key_count: usize,
    pub(crate) is_readonly: bool,
}

impl Interpreter {
    /// Runs a script and writes its result.
    pub(crate) fn run(&self, ctx: &mut Context<'_>, keys: &mut Keys<'_>, call: ScriptCall<'_>, reply: &mut Reply) -> Outcome {
        let machine = self.machine().map_err(|error| CommandError::new(format!("ERR Lua is not available: {error}")))?;
        let function = self.compile(machine, ctx.shared.scripts.generation(), &call);
        let outcome = function.and_then(|function| machine.run(&function, ctx, keys, call, reply));
        self.give_back_memory(machine);
        outcome
    }

    /// Collects what scripts left, when it is much; then also what was compiled, if that is what takes the memory.
    fn give_back_memory(&self, machine: &Machine) {
        let collect = || {
            if let Err(error) = machine.lua.gc_collect() {
                tracing::warn!(%error, "a script's memory could not be collected");
            }
        };
        if machine.is_short_of_memory() {
            collect();
        }
        if machine.is_short_of_memory() {
            self.compiled.borrow_mut().functions.clear();
            collect();
        }
    }

    /// Checks that a source compiles: SCRIPT LOAD.
    pub(crate) fn check(&self, source: &[u8]) -> Outcome {
        let machine = self.machine().map_err(|error| CommandError::new(format!("ERR Lua is not available: {error}")))?;
        let outcome = machine.compile(source).map(drop);
        self.give_back_memory(machine);
        outcome
    }

    fn machine(&self) -> mlua::Result<&Machine> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine);
        }
        let machine = Machine::new()?;
        Ok(self.machine.get_or_init(|| machine))
    }

    fn compile(&self, machine: &Machine, generation: u64, call: &ScriptCall<'_>) -> Result<Function, CommandError> {
        let mut compiled = self.compiled.borrow_mut();
        if compiled.generation != generation || compiled.functions.len() >= COMPILED_MAX {
            *compiled = Compiled { generation, functions: HashMap::new() };
        }
        if let Some(function) = compiled.functions.get(call.digest) {
            return Ok(function.clone());
        }
        let function = machine.compile(call.source)?;
        compiled.functions.insert(*call.digest, function.clone());
        Ok(function)
    }
}

impl Machine {
    fn new() -> mlua::Result<Machine> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::default())?;
        let deadline = Rc::new(Deadline::default());
        let resp = Rc::new(Cell::new(Protocol::Resp2));
        let host = host::table(&lua, &deadline, &resp)?;
        let (run, environment): (Function, Table) =
            lua.load(include_str!("prelude.lua")).set_name("=prelude").call((host.clone(), Value::NULL))?;
        let watched = Rc::clone(&deadline);
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_LOOK), move |_, _| {
            if watched.has_passed() { Err(mlua::Error::runtime(OVER)) } else { Ok(VmState::Continue) }
        })?;
        Ok(Machine { lua, host, run, environment, deadline, resp })
    }

    fn compile(&self, source: &[u8]) -> Result<Function, CommandError> {
        let chunk = self.lua.load(source).set_name("@user_script").set_mode(mlua::chunk::ChunkMode::Text);
        let compiled = Limit::set(&self.lua).and_then(|_limit| chunk.into_function());
        compiled.map_err(|error| {
            let text = message(&error);
            CommandError::new(format!("ERR Error compiling script (new function): {text}"))
        })
    }

    fn run(
        &self,
        function: &Function,
        ctx: &mut Context<'_>,
        keys: &mut Keys<'_>,
        call: ScriptCall<'_>,
        reply: &mut Reply,
    ) -> Outcome {
        let db = keys.db();
        let limit = ctx.config.lua_time_limit;
        self.deadline.start((!limit.is_zero()).then(|| Instant::now() + limit));
        self.resp.set(Protocol::Resp2);
        let caller = RefCell::new(Caller {
            ctx,
            keys,
            is_readonly: call.is_readonly,
            resp: Rc::clone(&self.resp),
            deadline: Rc::clone(&self.deadline),
            request: OwnedRequest::default(),
            reply: Reply::default(),
        });
        let outcome = self.lua.scope(|scope| {
            check_room(&self.lua, call.keys.iter().map(<[u8]>::len).sum())?;
            self.host
                .raw_set("call", scope.create_function(|lua, arguments: MultiValue| Caller::call(&caller, lua, &arguments))?)?;
            self.environment.raw_set("KEYS", self.strings(call.keys.iter().take(call.key_count))?)?;
            self.environment.raw_set("ARGV", self.strings(call.keys.iter().skip(call.key_count))?)?;
            let limit = Limit::set(&self.lua)?;
            let outcome = self.run.call::<(bool, Value)>(function);
            drop(limit);
            outcome
        });
        let Caller { keys, .. } = caller.into_inner();
        // SELECT inside a script lasts as long as the script.
        keys.select(db);
        let outcome = match outcome {
            Ok((true, value)) => convert::from_lua(&value, self.resp.get(), &self.deadline, reply)
                .map_err(|error| script_error(&message(&error), None, call.digest)),
            Ok((false, value)) => Err(self.raised(&value, call.digest)),
            Err(error) => Err(script_error(&message(&error), None, call.digest)),
        };
        self.deadline.start(None);
        outcome
    }

    /// Whether the next script could meet with "not enough memory" because of what earlier ones left. Lua 5.1 collects after the heap
    /// has doubled, which near the bound is never: an allocation that fails does not make it collect.
    fn is_short_of_memory(&self) -> bool {
        self.lua.used_memory() > LUA_BYTES_MAX / 2
    }

    fn strings<'s>(&self, texts: impl Iterator<Item = &'s [u8]>) -> mlua::Result<Table> {
        let table = self.lua.create_table()?;
        for (index, text) in texts.enumerate() {
            table.raw_set(index + 1, self.lua.create_string(text)?)?;
        }
        Ok(table)
    }

    /// What a script raised: an error reply of a command, a text, a table or a Rust error.
    fn raised(&self, value: &Value, digest: &Digest) -> CommandError {
        if let Value::Table(table) = value
            && let Ok(Value::String(text)) = table.raw_get::<Value>("err")
        {
            let place = table.raw_get::<String>("where").unwrap_or_default();
            return script_error(&text.to_string_lossy(), Some(&place), digest);
        }
        match value {
            Value::Error(error) => script_error(&message(error), None, digest),
            other => script_error(&other.to_string().unwrap_or_else(|_| "unknown error".to_owned()), None, digest),
        }
    }
}

/// An error as Redis 7 words it: the text, the script's digest and the line. `place` is "user_script:3: ", if it is not in the text.
fn script_error(text: &str, place: Option<&str>, digest: &Digest) -> CommandError {
    let line = line_of(place.unwrap_or(text));
    let digest = String::from_utf8_lossy(digest);
    let prefix = if place.is_some() || text.starts_with("ERR ") { "" } else { "ERR " };
    let place = line.map(|line| format!(", on @user_script:{line}.")).unwrap_or_default();
    CommandError::new(format!("{prefix}{text} script: {digest}{place}"))
}

fn line_of(text: &str) -> Option<u32> {
    let rest = text.strip_prefix("user_script:").or_else(|| text.split_once("user_script:").map(|(_, rest)| rest))?;
    rest.split(':').next()?.parse().ok()
}

/// A Lua error without mlua's own words and the stack trace.
fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => first_line(text),
        mlua::Error::SyntaxError { message, .. } => first_line(message),
        mlua::Error::CallbackError { cause, .. } => message(cause),
        other => first_line(&other.to_string()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
