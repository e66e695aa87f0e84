//! A thread's Lua state.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Instant,
};

use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState};

use crate::{
    command::{CommandError, Context, Outcome},
    keyspace::Keys,
    protocol::{Args, Protocol, Reply},
    script::{
        Digest, ScriptCache,
        bridge::{Bridge, End},
        host::{self, Buffers, Caller, Deadline, OVER},
        memory::{self, LUA_BYTES_MAX},
        recycler::Recycler,
        reply::COUNTED,
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
    scripts: HashMap<Digest, Script, ahash::RandomState>,
}

/// A script that this thread has compiled.
#[derive(Clone)]
pub(crate) struct Script {
    digest: Digest,
    function: Function,
    /// [`ScriptCache::losses`] when its source was there.
    losses: u64,
}

struct Machine {
    /// First: the state's functions share it, and it goes with the last of them, when the state does.
    recycler: Rc<Recycler>,
    lua: Lua,
    /// What calls the functions of scripts.
    runner: Function,
    deadline: Rc<Deadline>,
    resp: Rc<Cell<Protocol>>,
    buffers: RefCell<Buffers>,
    /// Last, so that it goes after the Lua state whose functions know it.
    bridge: Box<Bridge>,
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interpreter").finish_non_exhaustive()
    }
}

/// What EVAL was asked to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptCall<'a> {
    pub(crate) keys: Args<'a>,
    pub(crate) key_count: usize,
    pub(crate) is_readonly: bool,
}

impl Interpreter {
    /// Runs a script and writes its result.
    pub(crate) fn run(
        &self,
        ctx: &mut Context<'_>,
        keys: &mut Keys<'_>,
        script: &Script,
        call: ScriptCall<'_>,
        reply: &mut Reply,
    ) -> Outcome {
        let machine = self.machine()?;
        let outcome = machine.run(script, ctx, keys, call, reply);
        self.give_back_memory(machine);
        outcome
    }

    /// The script of a digest in small letters that this thread has compiled, if its source is still kept for sure.
    pub(crate) fn compiled(&self, scripts: &ScriptCache, digest: &[u8]) -> Option<Script> {
        let (generation, losses) = (scripts.generation(), scripts.losses());
        let compiled = self.compiled.borrow();
        let script = compiled.scripts.get::<Digest>(digest.try_into().ok()?)?;
        (compiled.generation == generation && script.losses == losses).then(|| script.clone())
    }

    /// The script of a source that was seen to be kept since [`ScriptCache::losses`] was this.
    pub(crate) fn compile(
        &self,
        scripts: &ScriptCache,
        losses: u64,
        digest: &Digest,
        source: &[u8],
    ) -> Result<Script, CommandError> {
        let generation = scripts.generation();
        let compiled = &mut *self.compiled.borrow_mut();
        if compiled.generation != generation || compiled.scripts.len() >= COMPILED_MAX {
            *compiled = Compiled { generation, scripts: HashMap::default() };
        }
        if let Some(script) = compiled.scripts.get_mut(digest) {
            script.losses = losses;
            return Ok(script.clone());
        }
        let function = self.machine()?.compile(source)?;
        let script = Script { digest: *digest, function, losses };
        compiled.scripts.insert(*digest, script.clone());
        Ok(script)
    }

    /// Collects what scripts left, when it is much; then also what was compiled, if that is what takes the memory.
    fn give_back_memory(&self, machine: &Machine) {
        let collect = || {
            if let Err(error) = machine.lua.gc_collect() {
                tracing::warn!(%error, "a script's memory could not be collected");
            }
        };
        if memory::is_short(&machine.lua) {
            collect();
            if memory::is_short(&machine.lua) {
                self.compiled.borrow_mut().scripts.clear();
                collect();
            }
        }
    }

    /// Checks that a source compiles: SCRIPT LOAD.
    pub(crate) fn check(&self, source: &[u8]) -> Outcome {
        let machine = self.machine()?;
        let outcome = machine.compile(source).map(drop);
        self.give_back_memory(machine);
        outcome
    }

    fn machine(&self) -> Result<&Machine, CommandError> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine);
        }
        let machine = Machine::new().map_err(|error| CommandError::new(format!("ERR Lua is not available: {error}")))?;
        Ok(self.machine.get_or_init(|| machine))
    }
}

impl Machine {
    fn new() -> mlua::Result<Machine> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::default())?;
        let deadline = Rc::new(Deadline::default());
        let resp = Rc::new(Cell::new(Protocol::Resp2));
        let bridge = Box::new(Bridge::default());
        let recycler = Rc::new(Recycler::new(&lua)?);
        let host = host::table(&lua, &deadline, &resp, &recycler)?;
        let (call, pcall, check) = bridge.functions(&lua)?;
        for (name, function) in [("call", call), ("pcall", pcall), ("check", check)] {
            host.raw_set(name, function)?;
        }
        let environment: Table = lua.load(include_str!("prelude.lua")).set_name("=prelude").call((host, Value::NULL))?;
        let runner = bridge.runner(&lua, &environment, ["KEYS", "ARGV"])?;
        let watched = Rc::clone(&deadline);
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_LOOK), move |_, _| {
            if watched.has_passed() { Err(mlua::Error::runtime(OVER)) } else { Ok(VmState::Continue) }
        })?;
        lua.set_memory_limit(LUA_BYTES_MAX)?;
        Ok(Machine { recycler, lua, runner, deadline, resp, buffers: RefCell::default(), bridge })
    }

    fn compile(&self, source: &[u8]) -> Result<Function, CommandError> {
        let chunk = self.lua.load(source).set_name("@user_script").set_mode(mlua::chunk::ChunkMode::Text);
        chunk.into_function().map_err(|error| {
            let text = message(&error);
            CommandError::new(format!("ERR Error compiling script (new function): {text}"))
        })
    }

    fn run(
        &self,
        script: &Script,
        ctx: &mut Context<'_>,
        keys: &mut Keys<'_>,
        call: ScriptCall<'_>,
        reply: &mut Reply,
    ) -> Outcome {
        let db = keys.db();
        let limit = ctx.config.lua_time_limit;
        self.deadline.start((!limit.is_zero()).then(|| Instant::now() + limit));
        self.resp.set(Protocol::Resp2);
        let mut buffers = self.buffers.borrow_mut();
        let mut caller = Caller {
            ctx,
            keys,
            is_readonly: call.is_readonly,
            resp: &self.resp,
            deadline: &self.deadline,
            buffers: &mut buffers,
            is_counted: false,
            panic: None,
        };
        let end = self.bridge.run(&self.lua, (&self.runner, &script.function), call, (&mut caller, &self.recycler), reply);
        let Caller { ctx, keys, buffers, .. } = caller;
        buffers.shrink();
        // SELECT inside a script lasts as long as the script.
        keys.select(db);
        let outcome = match end {
            Ok(End::Returned) => Ok(()),
            Ok(End::Raised(value)) => {
                ctx.script_errors.is_raised_counted = is_counted(&value);
                Err(self.raised(&value, &script.digest))
            }
            Err(error) => Err(script_error(&message(&error), None, &script.digest)),
        };
        self.deadline.start(None);
        outcome
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

/// Whether what a script raised is the error of a command, which was counted there.
fn is_counted(value: &Value) -> bool {
    value.as_table().is_some_and(|table| table.raw_get::<bool>(COUNTED).unwrap_or(false))
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
