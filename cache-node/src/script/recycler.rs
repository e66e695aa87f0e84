//! Blocks of Lua's memory that a script gives back and the next one takes again.
//!
//! A script's strings and tables are of the same few sizes each time, and Lua's collector frees them in bursts, more of a size at once than
//! the C library's short lists hold. Here each size up to [`BLOCK_BYTES_MAX`] has a list of its own while a script runs.
#![allow(unsafe_code, reason = "a session's commit takes a tenth fewer instructions; what makes it sound stands at `Recycler`")]

use std::{cell::Cell, ffi::c_void, ptr};

use mlua::{Lua, ffi};

/// Larger blocks are the allocator's.
const BLOCK_BYTES_MAX: usize = 256;

/// Bytes of all blocks that wait, which count as used, and of those of one size. What mlua allocates before a script and the collector frees
/// during one only comes: it must not take the place of the others.
const WAITING_BYTES_MAX: usize = 512 * 1024;
const WAITING_BYTES_PER_SIZE_MAX: usize = 16 * 1024;

/// What stands in a block that waits; a smaller block is the allocator's.
struct Waiting {
    next: *mut Waiting,
}

/// The blocks of one size that wait.
#[derive(Debug, Default)]
struct List {
    first: Cell<*mut Waiting>,
    bytes: Cell<usize>,
}

/// An allocator in front of mlua's own.
///
/// Each block in the list of a size is one that mlua's allocator gave out with exactly that size: Lua tells the size of what it frees, and
/// nothing here makes another size of a block. So either of the two may free or change what came from the other, they may take each other's
/// place at any time, and the limit of memory stays mlua's to keep. Blocks are aligned as mlua's are, which is enough for a pointer.
#[derive(Debug)]
pub(super) struct Recycler {
    state: *mut ffi::lua_State,
    allocate: ffi::lua_Alloc,
    context: *mut c_void,
    lists: [List; BLOCK_BYTES_MAX + 1],
    waiting_bytes: Cell<usize>,
    is_in_use: Cell<bool>,
}

impl Recycler {
    /// Of a state that outlives it, or whose end drops it.
    pub(super) fn new(lua: &Lua) -> mlua::Result<Recycler> {
        let (mut state, mut context, mut allocate) = (ptr::null_mut(), ptr::null_mut(), None);
        // SAFETY: the closure asks only, and owns nothing.
        unsafe {
            lua.exec_raw::<()>((), |running| {
                state = running;
                allocate = Some(ffi::lua_getallocf(running, &raw mut context));
            })?;
        }
        let allocate = allocate.ok_or_else(|| mlua::Error::runtime("the state tells no allocator"))?;
        Ok(Recycler {
            state,
            allocate,
            context,
            lists: std::array::from_fn(|_| List::default()),
            waiting_bytes: Cell::new(0),
            is_in_use: Cell::new(false),
        })
    }

    /// Takes the allocator's place until [`Recycler::rest`].
    pub(super) fn work(&self) {
        self.is_in_use.set(true);
        // SAFETY: the state is alive, by `Recycler::new`. This stands behind a reference that outlives its use: whoever owns it rests it
        // before it goes.
        unsafe { ffi::lua_setallocf(self.state, recycle, ptr::from_ref(self).cast_mut().cast()) }
    }

    /// Gives the allocator its place back. mlua tells by it that a state is its own, and takes a longer way elsewhere.
    pub(super) fn rest(&self) {
        self.is_in_use.set(false);
        // SAFETY: the state is alive, and these were its own.
        unsafe { ffi::lua_setallocf(self.state, self.allocate, self.context) }
    }

    /// Rests until what this gives is dropped, if it works.
    pub(super) fn pause(&self) -> Pause<'_> {
        let was_in_use = self.is_in_use.get();
        if was_in_use {
            self.rest();
        }
        Pause { recycler: self, was_in_use }
    }
}

/// See [`Recycler::pause`].
pub(super) struct Pause<'a> {
    recycler: &'a Recycler,
    was_in_use: bool,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if self.was_in_use {
            self.recycler.work();
        }
    }
}

impl Drop for Recycler {
    /// All blocks go back while the state, and with it the allocator's context, is alive.
    fn drop(&mut self) {
        debug_assert!(!self.is_in_use.get());
        for (bytes, list) in self.lists.iter().enumerate() {
            let mut first = list.first.replace(ptr::null_mut());
            while !first.is_null() {
                // SAFETY: each was put there by `recycle`, is of this size, and belongs to nobody else.
                unsafe {
                    let next = (*first).next;
                    (self.allocate)(self.context, first.cast(), bytes, 0);
                    first = next;
                }
            }
        }
    }
}

/// Lua's allocator while a script runs.
///
/// # Safety
/// `context` is a [`Recycler`] that works, `block` is one of its state's and has `old` bytes, or is null.
unsafe extern "C" fn recycle(context: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: by the contract. Nothing else refers to it exclusively: all that changes stands in cells.
    let recycler = unsafe { &*context.cast::<Recycler>() };
    if block.is_null() {
        if let Some(list) = recycler.lists.get(new) {
            let first = list.first.get();
            if !first.is_null() {
                // SAFETY: what waits in a list is a block that nobody has, with a `Waiting` in it.
                list.first.set(unsafe { (*first).next });
                list.bytes.set(list.bytes.get() - new);
                recycler.waiting_bytes.set(recycler.waiting_bytes.get() - new);
                return first.cast();
            }
        }
    } else if new == 0 && (size_of::<Waiting>()..=BLOCK_BYTES_MAX).contains(&old) {
        let list = &recycler.lists[old];
        let (bytes, waiting_bytes) = (list.bytes.get() + old, recycler.waiting_bytes.get() + old);
        if bytes <= WAITING_BYTES_PER_SIZE_MAX && waiting_bytes <= WAITING_BYTES_MAX {
            let block = block.cast::<Waiting>();
            // SAFETY: Lua gives the block up. It has room for a pointer, and is aligned for one.
            unsafe { block.write(Waiting { next: list.first.get() }) };
            list.first.set(block);
            list.bytes.set(bytes);
            recycler.waiting_bytes.set(waiting_bytes);
            return ptr::null_mut();
        }
    }
    // SAFETY: by the contract, and what is asked for is handed on as it is.
    unsafe { (recycler.allocate)(recycler.context, block, old, new) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use mlua::Lua;

    use super::{Recycler, WAITING_BYTES_MAX, WAITING_BYTES_PER_SIZE_MAX};

    /// Scripts run by turns with and without it: what one left, the other finds, frees and changes.
    #[test]
    fn blocks_go_round_and_the_allocator_stays_the_states_own() {
        let lua = Lua::new();
        let recycler = Recycler::new(&lua).unwrap();
        let source = "kept = kept or {}
            for i = 1, 300 do kept[i % 50 + 1] = { ('x'):rep(i), n = i, f = function() return i end } end
            local sum = 0
            for _, each in pairs(kept) do sum = sum + #each[1] + each.f() end
            return sum";
        let function = lua.load(source).into_function().unwrap();
        for round in 0..40 {
            if round % 3 > 0 {
                recycler.work();
            }
            let sum: i64 = function.call(()).unwrap();
            {
                let paused = recycler.pause();
                lua.gc_collect().unwrap();
                drop(paused);
            }
            recycler.rest();
            assert_eq!(sum, 2 * (251..=300).sum::<i64>());
            assert!(recycler.waiting_bytes.get() <= WAITING_BYTES_MAX);
            assert!(recycler.lists.iter().all(|list| list.bytes.get() <= WAITING_BYTES_PER_SIZE_MAX));
        }
        assert!(recycler.waiting_bytes.get() > 0, "nothing waited");
        let before = lua.used_memory();
        let waiting = recycler.waiting_bytes.get();
        drop(recycler);
        assert_eq!(lua.used_memory(), before - waiting);
    }

    #[test]
    fn the_limit_of_memory_holds() {
        let lua = Lua::new();
        let recycler = Recycler::new(&lua).unwrap();
        lua.set_memory_limit(4 * 1024 * 1024).unwrap();
        let function = lua.load("local t = {} for i = 1, 1e7 do t[i] = { i } end").into_function().unwrap();
        for _ in 0..3 {
            recycler.work();
            let outcome = function.call::<()>(());
            recycler.rest();
            assert!(matches!(outcome, Err(mlua::Error::MemoryError(_))), "{outcome:?}");
            lua.gc_collect().unwrap();
        }
        assert_eq!(lua.load("return 7").eval::<i64>().unwrap(), 7);
    }
}
