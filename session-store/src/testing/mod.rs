//! For tests: of applications, without a server, and of stores.

mod conformance;
mod faults;
mod faulty_store;
mod memory;

pub use self::{
    conformance::{Check, Conformance, Handler, Report, conformance, conformance_of_layer},
    faults::{Fault, Faults},
    faulty_store::FaultyStore,
    memory::MemoryNode,
};
