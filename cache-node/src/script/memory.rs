//! The memory that scripts may take.

use mlua::Lua;

use crate::script::stack::Stack;

/// Memory of one thread's Lua state, all scripts together.
pub(super) const LUA_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Lua's bytes per byte of a value that is moved in, and per value: a string's or a table slot's header.
const GROWTH: usize = 3;

/// What Lua says when there is no more memory.
pub(super) const SHORT: &str = "not enough memory";

/// Whether values of `bytes` fit below the limit. What is used may be what earlier scripts left behind: Lua 5.1 collects after the
/// heap has doubled and not when an allocation fails. May raise.
pub(super) fn has_room(stack: Stack, bytes: usize) -> bool {
    let fits = || stack.used_bytes().saturating_add(bytes.saturating_mul(GROWTH)) <= LUA_BYTES_MAX;
    if fits() {
        return true;
    }
    stack.collect();
    fits()
}

/// Whether the next script could meet with [`SHORT`] because of what earlier ones left.
pub(super) fn is_short(lua: &Lua) -> bool {
    lua.used_memory() > LUA_BYTES_MAX / 2
}
