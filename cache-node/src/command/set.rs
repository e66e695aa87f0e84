//! Placeholder.
use crate::command::{Spec, table::rows};
pub(crate) const COMMANDS: &[Spec] = rows! {};
