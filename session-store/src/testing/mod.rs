//! For tests: of applications, without a server, and of stores.

mod faults;
mod faulty_store;
mod memory;

pub use self::{
    faults::{Fault, Faults},
    faulty_store::FaultyStore,
    memory::MemoryNode,
};
