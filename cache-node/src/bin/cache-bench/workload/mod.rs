//! What is measured: one file for each workload.

mod cart;
mod hash;
mod script;
mod string;

use anyhow::Result;
use clap::ValueEnum;

use crate::{Bench, report::Report};

/// A workload by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// A session as one string of 600 bytes: 90 % GET, 10 % SET with EX 1800
    String,
    /// A session as one hash of 10 fields: 90 % HGETALL, 10 % HSET of one field with EXPIRE
    Hash,
    /// HINCRBY of a cart's line
    Cart,
    /// EVALSHA of session-store's commit script
    Script,
}

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures it on all peers that can do it.
    ///
    /// # Errors
    /// When a server fails or gives a wrong reply.
    pub(crate) fn run(self, bench: &Bench) -> Result<Vec<Report>> {
        match self {
            Workload::String => string::run(bench),
            Workload::Hash => hash::run(bench),
            Workload::Cart => cart::run(bench),
            Workload::Script => script::run(bench),
        }
    }
}
