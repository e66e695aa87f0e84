//! Subcommands of commands such as CLIENT and CONFIG: one table per command, from which come checks and HELP.

use crate::{
    command::{
        CommandError, acl, connection, generic, latency, listing, parse::is_word, pubsub, scripting, server, slowlog, table,
    },
    protocol::{Args, Reply},
};

/// A row.
#[derive(Debug)]
pub(crate) struct Subcommand {
    /// In capitals.
    pub(crate) name: &'static str,
    /// Arguments with both names; negative: at least so many.
    pub(crate) arity: i8,
    /// What stands behind the name.
    pub(super) usage: &'static str,
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
}

/// The name of the subcommand that `args` ask for, if they are as many as it takes.
pub(super) fn find(command: &str, table: &'static [Subcommand], args: Args<'_>) -> Result<&'static str, CommandError> {
    let known = table.iter().find(|known| known.is_named(args.at(1)));
    let known = known.ok_or_else(|| CommandError::unknown_subcommand(command, args.at(1)))?;
    if known.takes(args) { Ok(known.name) } else { Err(CommandError::wrong_arguments(&format!("{command}|{}", known.name))) }
}

impl Subcommand {
    /// Whether it is called so, in any case.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        is_word(name, self.name)
    }

    /// Whether a request has as many arguments as it takes.
    pub(crate) fn takes(&self, args: Args<'_>) -> bool {
        table::takes(i16::from(self.arity), args)
    }
}

/// Those of a command, by its name in capitals, HELP among them. None of most.
pub(crate) fn all_of(command: &str) -> &'static [Subcommand] {
    match command {
        "ACL" => acl::ACL,
        "CLIENT" => connection::CLIENT,
        "COMMAND" => listing::COMMAND,
        "CONFIG" => server::CONFIG,
        "LATENCY" => latency::LATENCY,
        "MEMORY" => generic::MEMORY,
        "OBJECT" => generic::OBJECT,
        "PUBSUB" => pubsub::PUBSUB,
        "SCRIPT" => scripting::SCRIPT,
        "SLOWLOG" => slowlog::SLOWLOG,
        _ => &[],
    }
}

/// Answers HELP.
pub(super) fn help(command: &str, table: &[Subcommand], reply: &mut Reply) {
    reply.array(table.len() * 2 + 1);
    reply.simple(&format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for known in table {
        reply.simple(format!("{} {}", known.name, known.usage).trim_end());
        reply.simple(&format!("    {}", known.summary));
    }
}

/// Writes rows: name, arity, usage, since which version of Redis, summary. HELP stands last.
macro_rules! subcommands {
    ($($name:literal $arity:literal $usage:literal $since:literal $summary:literal;)*) => {
        &[$($crate::command::subcommand::Subcommand {
            name: $name,
            arity: $arity,
            usage: $usage,
            since: $since,
            summary: $summary,
        }),*]
    };
}
pub(super) use subcommands;
