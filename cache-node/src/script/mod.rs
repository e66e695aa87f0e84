//! Lua scripts: one interpreter per worker thread, sources shared by digest.
//!
//! A script runs with every shard locked, so it is atomic, and on the thread of the connection that sent it. Time and memory are
//! bounded; what a script wrote before it was ended stays written, as with any script that fails in Redis.

mod bridge;
mod cache;
mod host;
mod interpreter;
mod json;
mod memory;
mod recycler;
mod reply;
mod stack;

pub(crate) use cache::{Digest, ScriptCache};
pub(crate) use interpreter::{Interpreter, Script, ScriptCall};
