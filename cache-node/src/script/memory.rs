//! The memory that scripts may take.
//!
//! With a limit set, every value that Rust pushes goes through a protected call, since it might fail: that was 40 % of a script's time.
//! So the limit holds while Lua's own code runs, which alone can grow without end, and is lifted while the node moves values whose
//! size it has checked.

use mlua::Lua;

/// Memory of one thread's Lua state, all scripts together.
pub(super) const LUA_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Lua's bytes per byte of a value that is moved in, and per value: a string's or a table slot's header.
const GROWTH: usize = 3;

/// No limit, to mlua.
const LIFTED: usize = 0;

/// The limit holds, or is lifted, until this is dropped.
pub(super) struct Limit<'a> {
    lua: &'a Lua,
    afterwards: usize,
}

impl<'a> Limit<'a> {
    /// While a script's code runs.
    pub(super) fn set(lua: &'a Lua) -> mlua::Result<Limit<'a>> {
        Limit::change(lua, LUA_BYTES_MAX)
    }

    /// While the node moves values in and out.
    pub(super) fn lift(lua: &'a Lua) -> mlua::Result<Limit<'a>> {
        Limit::change(lua, LIFTED)
    }

    fn change(lua: &'a Lua, bytes: usize) -> mlua::Result<Limit<'a>> {
        let afterwards = lua.set_memory_limit(bytes)?;
        Ok(Limit { lua, afterwards })
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        // It could be set before, so it can be now.
        let set = self.lua.set_memory_limit(self.afterwards);
        drop(set);
    }
}

/// An error when values of `bytes` would not fit below the limit.
pub(super) fn check_room(lua: &Lua, bytes: usize) -> mlua::Result<()> {
    let fits = || lua.used_memory().saturating_add(bytes.saturating_mul(GROWTH)) <= LUA_BYTES_MAX;
    if fits() {
        return Ok(());
    }
    // What is used may be what earlier scripts left behind.
    lua.gc_collect()?;
    if fits() { Ok(()) } else { Err(mlua::Error::MemoryError("not enough memory".to_owned())) }
}
