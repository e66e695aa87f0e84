//! Lua's stack, without a handle for each value.
//!
//! mlua keeps every value that Rust looks at as a handle on a second stack: safe, and two thirds of the time of a short script. What
//! runs for each `redis.call` works on the stack itself, through this type. All `unsafe` of the crate that speaks to Lua stands here
//! and in `bridge`.
#![allow(unsafe_code, reason = "a session's commit takes a third less time; the contract of `Stack::new` is what makes it sound")]

use std::ffi::c_int;

use mlua::ffi;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Nil,
    Boolean,
    Number,
    String,
    Table,
    Other,
}

/// A value that a command takes as an argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Number(f64),
    Other,
}

/// A running Lua state. Positions count from 1 at the bottom of the running function, from -1 at the top.
#[derive(Clone, Copy)]
pub(super) struct Stack(*mut ffi::lua_State);

impl Stack {
    /// # Safety
    /// - `state` is alive and belongs to this thread, and what calls this runs inside a protected call of it.
    /// - Methods that say "may raise" leave by `longjmp`, which runs no destructor. So from here up to that protected call no frame
    ///   holds a value with one while such a method runs: references, numbers and closures over them only.
    /// - Positions that are handed to the methods exist.
    pub(super) unsafe fn new(state: *mut ffi::lua_State) -> Stack {
        Stack(state)
    }

    pub(super) fn len(self) -> c_int {
        // SAFETY: the state is alive.
        unsafe { ffi::lua_gettop(self.0) }
    }

    /// Drops what stands above `len` values.
    pub(super) fn truncate(self, len: c_int) {
        // SAFETY: `len` values exist, by the contract.
        unsafe { ffi::lua_settop(self.0, len) }
    }

    pub(super) fn pop(self, count: c_int) {
        // SAFETY: `count` values exist, by the contract.
        unsafe { ffi::lua_pop(self.0, count) }
    }

    /// Room for more values than the 20 that every function has. `false` when the stack may grow no further. May raise.
    pub(super) fn reserve(self, count: c_int) -> bool {
        // SAFETY: the state is alive.
        unsafe { ffi::lua_checkstack(self.0, count) != 0 }
    }

    pub(super) fn type_of(self, position: c_int) -> Type {
        // SAFETY: any position may be asked for.
        match unsafe { ffi::lua_type(self.0, position) } {
            ffi::LUA_TNIL | ffi::LUA_TNONE => Type::Nil,
            ffi::LUA_TBOOLEAN => Type::Boolean,
            ffi::LUA_TNUMBER => Type::Number,
            ffi::LUA_TSTRING => Type::String,
            ffi::LUA_TTABLE => Type::Table,
            _ => Type::Other,
        }
    }

    /// The number there; 0 for what is none.
    pub(super) fn number(self, position: c_int) -> f64 {
        // SAFETY: the position exists; this converts nothing in place.
        unsafe { ffi::lua_tonumber(self.0, position) }
    }

    pub(super) fn boolean(self, position: c_int) -> bool {
        // SAFETY: the position exists.
        unsafe { ffi::lua_toboolean(self.0, position) != 0 }
    }

    /// Looks at the value there, as far as commands take it.
    pub(super) fn with_value<R>(self, position: c_int, look: impl FnOnce(Value<'_>) -> R) -> R {
        match self.type_of(position) {
            Type::String => {}
            Type::Number => return look(Value::Number(self.number(position))),
            _ => return look(Value::Other),
        }
        let mut length = 0;
        // SAFETY: of a string, this gives the string's own bytes: it neither converts nor allocates, so it cannot raise. They live as
        // long as the value stands on the stack, and `look` cannot take it away: it is given no stack.
        let bytes = unsafe {
            let start = ffi::lua_tolstring(self.0, position, &raw mut length);
            std::slice::from_raw_parts(start.cast::<u8>(), length)
        };
        look(Value::Bytes(bytes))
    }

    /// Looks at the string there; nothing at all for what is none.
    pub(super) fn with_bytes<R>(self, position: c_int, look: impl FnOnce(&[u8]) -> R) -> R {
        self.with_value(position, |value| look(if let Value::Bytes(bytes) = value { bytes } else { &[] }))
    }

    pub(super) fn push_nil(self) {
        // SAFETY: there is room, by `reserve` or as one of the first 20.
        unsafe { ffi::lua_pushnil(self.0) }
    }

    pub(super) fn push_boolean(self, flag: bool) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushboolean(self.0, c_int::from(flag)) }
    }

    pub(super) fn push_number(self, number: f64) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushnumber(self.0, number) }
    }

    /// May raise.
    pub(super) fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: Lua copies the bytes before this returns; room as above.
        unsafe { ffi::lua_pushlstring_(self.0, bytes.as_ptr().cast(), bytes.len()) }
    }

    pub(super) fn push_copy(self, position: c_int) {
        // SAFETY: the position exists; room as above.
        unsafe { ffi::lua_pushvalue(self.0, position) }
    }

    /// An empty table with room for so many elements and fields. May raise.
    pub(super) fn push_table(self, elements: usize, fields: usize) {
        let room = |count: usize| c_int::try_from(count).unwrap_or(c_int::MAX);
        // SAFETY: room as above.
        unsafe { ffi::lua_createtable(self.0, room(elements), room(fields)) }
    }

    /// Pops a key and pushes what the table has there, metatables aside.
    pub(super) fn get(self, table: c_int) {
        // SAFETY: the contract's positions; callers have seen that there is a table.
        unsafe { ffi::lua_rawget_(self.0, table) }
    }

    /// Pushes an element of a table, metatables aside.
    pub(super) fn get_element(self, table: c_int, index: c_int) {
        // SAFETY: as above.
        unsafe { ffi::lua_rawgeti_(self.0, table, index) }
    }

    /// Pops a value and a key below it into a table, metatables aside. May raise.
    pub(super) fn set(self, table: c_int) {
        // SAFETY: as above.
        unsafe { ffi::lua_rawset(self.0, table) }
    }

    /// Pops a value into an element of a table, metatables aside. May raise.
    pub(super) fn set_element(self, table: c_int, index: c_int) {
        // SAFETY: as above.
        unsafe { ffi::lua_rawseti_(self.0, table, index) }
    }

    /// Pops a key and pushes the next one of the table with its value; `false`, and nothing pushed, behind the last.
    pub(super) fn next(self, table: c_int) -> bool {
        // SAFETY: as above; the key is nil or came from the last call, and nobody writes to the table meanwhile, so this finds it.
        unsafe { ffi::lua_next(self.0, table) != 0 }
    }

    /// Calls the function on top without arguments and puts its result, or what it raised, in its place. `false`: it raised.
    pub(super) fn call(self) -> bool {
        // SAFETY: a function stands on top; what it raises ends here.
        unsafe { ffi::lua_pcall(self.0, 0, 1, 0) == ffi::LUA_OK }
    }

    /// Pushes the place of the function that called this one: "user_script:3: ". May raise.
    pub(super) fn push_place(self) {
        // SAFETY: the state is alive; level 1 may be missing, which gives an empty text.
        unsafe { ffi::luaL_where(self.0, 1) }
    }

    /// Bytes that Lua has allocated, up to the next KiB.
    pub(super) fn used_bytes(self) -> usize {
        // SAFETY: asks only.
        let kibibytes = unsafe { ffi::lua_gc(self.0, ffi::LUA_GCCOUNT, 0) };
        (usize::try_from(kibibytes).unwrap_or(0) + 1) * 1024
    }

    /// Frees what nothing refers to any more. May raise.
    pub(super) fn collect(self) {
        // SAFETY: the state is alive.
        unsafe { ffi::lua_gc(self.0, ffi::LUA_GCCOLLECT, 0) };
    }

    /// Raises the value on top.
    pub(super) fn raise(self) -> ! {
        // SAFETY: a protected call is there to catch it, by the contract.
        unsafe { ffi::lua_error(self.0) }
    }

    /// Raises a text. It says no place: that would be Rust's.
    pub(super) fn raise_text(self, text: &str) -> ! {
        self.push_bytes(text.as_bytes());
        self.raise()
    }
}
