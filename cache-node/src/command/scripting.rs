//! EVAL and its family.
use crate::command::{Spec, table::rows};
pub(crate) const COMMANDS: &[Spec] = rows! {};
