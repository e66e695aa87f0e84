//! For tests: of applications, without a server, and of stores.

mod memory;

pub use self::memory::MemoryNode;
