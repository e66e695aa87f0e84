//! Subcommands of commands such as CLIENT and CONFIG: one table per command, from which come checks and HELP.

use crate::{
    command::{CommandError, parse::is_word},
    protocol::{Args, Reply},
};

/// A row.
#[derive(Debug)]
pub(super) struct Subcommand {
    /// In capitals.
    pub(super) name: &'static str,
    /// Arguments with both names; negative: at least so many.
    pub(super) arity: i8,
    /// What stands behind the name.
    pub(super) usage: &'static str,
    pub(super) summary: &'static str,
}

/// What every command with subcommands has.
const HELP: Subcommand = Subcommand { name: "HELP", arity: 2, usage: "", summary: "Print this help." };

/// The name of the subcommand that `args` ask for, if they are as many as it takes. HELP is known without a row.
pub(super) fn find(command: &str, table: &'static [Subcommand], args: Args<'_>) -> Result<&'static str, CommandError> {
    let asked = args.at(1);
    let known = table.iter().chain(std::iter::once(&HELP)).find(|known| is_word(asked, known.name));
    let known = known.ok_or_else(|| CommandError::unknown_subcommand(command, asked))?;
    let wanted = usize::from(known.arity.unsigned_abs());
    if args.len() == wanted || known.arity < 0 && args.len() > wanted {
        Ok(known.name)
    } else {
        Err(CommandError::wrong_arguments(&format!("{command}|{}", known.name)))
    }
}

/// Answers HELP.
pub(super) fn help(command: &str, table: &[Subcommand], reply: &mut Reply) {
    reply.array(table.len() * 2 + 3);
    reply.simple(&format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for known in table.iter().chain(std::iter::once(&HELP)) {
        reply.simple(format!("{} {}", known.name, known.usage).trim_end());
        reply.simple(&format!("    {}", known.summary));
    }
}

/// Writes rows: name, arity, usage, summary.
macro_rules! subcommands {
    ($($name:literal $arity:literal $usage:literal $summary:literal;)*) => {
        &[$($crate::command::subcommand::Subcommand { name: $name, arity: $arity, usage: $usage, summary: $summary }),*]
    };
}
pub(super) use subcommands;
