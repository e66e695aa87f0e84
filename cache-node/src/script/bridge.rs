//! The two ways over the border between the node and Lua: a script's run, and `redis.call` in it.
#![allow(unsafe_code, reason = "see `stack`; here stand the C functions, and the address by which they find the running script")]

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
};

use mlua::{FromLua as _, Function, IntoLua as _, Lua, Table, Value, ffi};

use crate::{
    protocol::Reply,
    script::{
        ScriptCall,
        host::{Caller, OVER},
        memory,
        recycler::Recycler,
        reply::{self, COUNTED, Tally, Walk},
        stack::{Stack, Type},
    },
};

/// What a command's panic looks like to the script, which ends with it.
const PANICKED: &str = "ERR the command failed";

/// Where `redis.call` finds the script that runs. It stands in a box: Lua's functions know its address.
#[derive(Debug, Default)]
pub(super) struct Bridge {
    /// A [`Caller`] while a script runs, else null.
    caller: Cell<*mut c_void>,
    /// A [`Run`] likewise.
    run: Cell<*mut c_void>,
}

/// What the protected part of a script's run is given, and what it leaves.
struct Run<'a> {
    call: ScriptCall<'a>,
    walk: Walk<'a>,
    reply: &'a mut Reply,
    has_returned: bool,
}

/// How a script ended.
#[derive(Debug)]
pub(super) enum End {
    /// Its result stands in the reply.
    Returned,
    Raised(Value),
}

impl Bridge {
    /// `redis.call`, `redis.pcall` and `redis.acl_check_cmd`. They must not outlive this bridge.
    pub(super) fn functions(&self, lua: &Lua) -> mlua::Result<(Function, Function, Function)> {
        let address = ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: the closure pushes a few values and owns nothing, so that it may be left by a jump.
        unsafe {
            lua.exec_raw((), |state| {
                for function in [call as ffi::lua_CFunction, pcall, check] {
                    ffi::lua_pushlightuserdata(state, address);
                    ffi::lua_pushcclosure(state, function, 1);
                }
            })
        }
    }

    /// The function that runs scripts: it gives them KEYS and ARGV, by these names in this environment, and is given the script's own. It must
    /// not outlive this bridge.
    pub(super) fn runner(&self, lua: &Lua, environment: &Table, names: [&str; 2]) -> mlua::Result<Function> {
        let address = ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: as in `functions`; the three values that it is given become upvalues behind the address.
        unsafe {
            lua.exec_raw((environment, names[0], names[1]), |state| {
                ffi::lua_pushlightuserdata(state, address);
                ffi::lua_insert(state, 1);
                ffi::lua_pushcclosure(state, script, 4);
            })
        }
    }

    /// Runs a compiled script, and writes its result.
    ///
    /// # Errors
    /// When Lua itself has no memory to end.
    pub(super) fn run(
        &self,
        lua: &Lua,
        (runner, function): (&Function, &Function),
        call: ScriptCall<'_>,
        (caller, recycler): (&mut Caller<'_, '_, '_>, &Recycler),
        reply: &mut Reply,
    ) -> mlua::Result<End> {
        let tally = Tally::new(&caller.ctx.shared.errors);
        let walk = Walk { resp: caller.resp, deadline: caller.deadline, tally: &tally };
        let mut run = Run { call, walk, reply, has_returned: false };
        let running = Running::start(self, caller, &mut run);
        // Not by mlua's own way into a protected call: it makes two functions for each, which is a fifteenth of a short commit. What is called here
        // in its place mlua has for its own macros and hides from its documentation; without it this does not compile.
        let raised: mlua::Result<Value> = lua.exec_raw_lua(|raw| {
            // SAFETY: two functions are pushed, where an empty stack has room for 20 values, and called by what catches all that they raise.
            // Nothing else here raises, and whatever is left above the stack's old top goes with `kept`.
            unsafe {
                let kept = Kept::new(raw.state());
                runner.push_into_stack(raw)?;
                function.push_into_stack(raw)?;
                // Also when a panic goes through: the interpreter has its own allocator again before anybody else sees it.
                recycler.work();
                let working = Working(recycler);
                ffi::lua_pcall(kept.state, 1, 1, 0);
                drop(working);
                Value::from_stack(-1, raw)
            }
        });
        drop(running);
        let has_returned = run.has_returned;
        caller.ctx.script_errors.failures = tally.failures();
        if let Some(panic) = caller.panic.take() {
            resume_unwind(panic);
        }
        Ok(if has_returned { End::Returned } else { End::Raised(raised?) })
    }
}

/// Puts the stack's top back where it was.
struct Kept {
    state: *mut ffi::lua_State,
    top: c_int,
}

impl Kept {
    /// # Safety
    /// The state is alive for as long as this, and nobody takes away what stands on its stack now.
    unsafe fn new(state: *mut ffi::lua_State) -> Kept {
        // SAFETY: by the contract.
        Kept { state, top: unsafe { ffi::lua_gettop(state) } }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`.
        unsafe { ffi::lua_settop(self.state, self.top) }
    }
}

/// Blocks come from the recycler, once it works, until this is dropped.
struct Working<'a>(&'a Recycler);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The bridge leads to a script until this is dropped.
struct Running<'a>(&'a Bridge);

impl<'a> Running<'a> {
    fn start(bridge: &'a Bridge, caller: &mut Caller<'_, '_, '_>, run: &mut Run<'_>) -> Running<'a> {
        bridge.caller.set(ptr::from_mut(caller).cast());
        bridge.run.set(ptr::from_mut(run).cast());
        Running(bridge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.caller.set(ptr::null_mut());
        self.0.run.set(ptr::null_mut());
    }
}

/// The protected part of a run: at 1 the script's function, as upvalues the bridge, the environment and the names in it. Gives what was raised, or
/// nothing.
unsafe extern "C-unwind" fn script(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state, by `Bridge::run` alone, which keeps the bridge, the caller and the run while it waits. Nobody
    // else refers to the run meanwhile: commands know the caller. Nothing here has a destructor.
    let (stack, run) = unsafe {
        let bridge = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<Bridge>();
        (Stack::new(state), (*bridge).run.get().cast::<Run<'_>>().as_mut())
    };
    let Some(run) = run else { stack.raise_text("ERR no script is running") };
    run.has_returned = enter(stack, run.call) && run.walk.write_result(stack, run.reply);
    c_int::from(!run.has_returned)
}

/// Fills KEYS and ARGV and calls the script, in [`script`]. Leaves the result on top. `false`: it raised.
fn enter(stack: Stack, call: ScriptCall<'_>) -> bool {
    const FUNCTION: c_int = 1;
    const ENVIRONMENT: c_int = ffi::lua_upvalueindex(2);
    const KEYS: c_int = ffi::lua_upvalueindex(3);
    const ARGV: c_int = ffi::lua_upvalueindex(4);
    let (key_count, length) = (call.key_count, call.keys.len());
    for (name, arguments) in [(KEYS, 0..key_count), (ARGV, key_count..length)] {
        stack.push_copy(name);
        stack.push_table(arguments.len(), 0);
        let table = stack.len();
        for (argument, index) in arguments.zip(1..) {
            stack.push_bytes(call.keys.at(argument));
            stack.set_element(table, index);
        }
        stack.set(ENVIRONMENT);
    }
    stack.push_copy(FUNCTION);
    stack.call()
}

/// Which function a script calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Call,
    Pcall,
    /// `redis.acl_check_cmd`
    Check,
}

impl Ask {
    fn answer(self, caller: &mut Caller<'_, '_, '_>, stack: Stack) {
        match self {
            Ask::Call | Ask::Pcall => caller.answer(stack),
            Ask::Check => caller.answer_check(stack),
        }
    }
}

unsafe extern "C-unwind" fn call(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state, and `command` owns nothing when it calls what may raise.
    unsafe { command(state, Ask::Call) }
}

unsafe extern "C-unwind" fn pcall(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { command(state, Ask::Pcall) }
}

unsafe extern "C-unwind" fn check(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { command(state, Ask::Check) }
}

/// Has the command that the arguments spell answered and gives one result. An error reply is a table with `err`; all but `redis.pcall` raise it.
///
/// # Safety
/// Lua called a function of [`Bridge::functions`] with this state.
unsafe fn command(state: *mut ffi::lua_State, ask: Ask) -> c_int {
    // SAFETY: Lua calls C functions inside of the protected call that runs the script. Only references live here while it may raise.
    let stack = unsafe { Stack::new(state) };
    // SAFETY: the first upvalue is the bridge's address, and the bridge outlives its functions. It leads to the caller that
    // `Bridge::run` borrows for as long as the script runs, and which nobody uses meanwhile but this function: a command cannot
    // call a script. The lifetimes that the address lost are longer than this call.
    let caller = unsafe {
        let bridge = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<Bridge>();
        (*bridge).caller.get().cast::<Caller<'_, '_, '_>>().as_mut()
    };
    let Some(caller) = caller else { stack.raise_text("ERR no script is running") };
    if caller.deadline.is_over() {
        stack.raise_text(OVER);
    }
    // Inside of this nothing raises: a jump past `catch_unwind` is none of ours to make.
    match catch_unwind(AssertUnwindSafe(|| ask.answer(caller, stack))) {
        Ok(()) => {}
        Err(panic) => {
            caller.panic = Some(panic);
            caller.deadline.end_now();
        }
    }
    if caller.panic.is_some() {
        stack.raise_text(PANICKED);
    }
    stack.truncate(0);
    let mut bytes = caller.buffers.reply.bytes();
    if !memory::has_room(stack, bytes.len()) {
        stack.raise_text(memory::SHORT);
    }
    let is_error = bytes.first() == Some(&b'-');
    let is_counted = caller.is_counted;
    reply::push(stack, &mut bytes);
    if is_error && stack.type_of(-1) == Type::Table {
        if is_counted {
            stack.push_bytes(COUNTED.as_bytes());
            stack.push_boolean(true);
            stack.set(1);
        }
        if ask != Ask::Pcall {
            stack.push_bytes(b"where");
            stack.push_place();
            stack.set(1);
            stack.raise();
        }
    }
    1
}
