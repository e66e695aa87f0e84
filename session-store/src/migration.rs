//! Versions of the application's own data.

use std::{collections::HashMap, fmt, sync::Arc};

use serde_json::Value as Json;

type Step = dyn Fn(&mut HashMap<String, Json>) + Send + Sync;

/// What leads from each version of the data to the next, the first one at version 0.
#[derive(Clone, Default)]
pub(crate) struct Migrations(Vec<Arc<Step>>);

impl Migrations {
    pub(crate) fn push(&mut self, step: Arc<Step>) {
        self.0.push(step);
    }

    /// The version that this process writes.
    pub(crate) fn version(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn apply(&self, from: u32, data: &mut HashMap<String, Json>) {
        for step in self.0.iter().skip(from as usize) {
            step(data);
        }
    }
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrations").field("version", &self.version()).finish()
    }
}
