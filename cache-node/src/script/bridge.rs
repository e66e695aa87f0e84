//! The two ways over the border between the node and Lua: a script's run, and `redis.call` in it.
#![allow(unsafe_code, reason = "see `stack`; here stand the C functions, and the address by which they find the running script")]

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
};

use mlua::{Function, Lua, LuaString, Table, Value, ffi};

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

    /// Runs a compiled script with its KEYS and ARGV, and writes its result.
    ///
    /// # Errors
    /// When Lua itself has no memory to begin or to end.
    pub(super) fn run(
        &self,
        lua: &Lua,
        (environment, function, names): (&Table, &Function, &[LuaString; 2]),
        call: ScriptCall<'_>,
        (caller, recycler): (&mut Caller<'_, '_, '_>, &Recycler),
        reply: &mut Reply,
    ) -> mlua::Result<End> {
        let tally = Tally::new(&caller.ctx.shared.errors);
        let walk = Walk { resp: caller.resp, deadline: caller.deadline, tally: &tally };
        let mut has_returned = false;
        let running = Running::start(self, caller);
        // Also when a panic goes through: the interpreter has its own allocator again before anybody else sees it.
        let working = Working(recycler);
        // SAFETY: the closure runs in a protected call. It owns nothing with a destructor: references and numbers only.
        let raised: mlua::Result<Value> = unsafe {
            lua.exec_raw((environment, function, &names[0], &names[1]), |state| {
                // From here on, where mlua has entered the protected call by its short way.
                recycler.work();
                let stack = Stack::new(state);
                has_returned = enter(stack, call) && walk.write_result(stack, reply);
                if has_returned {
                    stack.truncate(0);
                } else if stack.len() > 1 {
                    // One value goes back.
                    ffi::lua_replace(state, 1);
                    stack.truncate(1);
                }
            })
        };
        drop((working, running));
        caller.ctx.script_errors.failures = tally.failures();
        if let Some(panic) = caller.panic.take() {
            resume_unwind(panic);
        }
        Ok(if has_returned { End::Returned } else { End::Raised(raised?) })
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
    fn start(bridge: &'a Bridge, caller: &mut Caller<'_, '_, '_>) -> Running<'a> {
        bridge.caller.set(ptr::from_mut(caller).cast());
        Running(bridge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.caller.set(ptr::null_mut());
    }
}

/// Fills KEYS and ARGV and calls the script: at 1 the environment, at 2 the function, behind it the names of the two. Leaves the result on
/// top. `false`: it raised.
fn enter(stack: Stack, call: ScriptCall<'_>) -> bool {
    const ENVIRONMENT: c_int = 1;
    const FUNCTION: c_int = 2;
    let (key_count, length) = (call.key_count, call.keys.len());
    for (name, arguments) in [(3, 0..key_count), (4, key_count..length)] {
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
