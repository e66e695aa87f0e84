//! COMMAND: what commands there are, and what they take.

use crate::{
    acl::{Catalog, Categories, Entry},
    command::{
        CommandError, Context, Flags, KeyPositions, Outcome, Spec,
        names::find as find_command,
        parse::is_word,
        subcommand::{self, Subcommand, subcommands},
        table::{self, TABLE, rows},
    },
    keyspace::glob_matches,
    protocol::{Args, Reply},
};

/// What COMMAND prints of HELP.
const OF_HELP: Flags = Flags::LOADING.and(Flags::STALE);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "COMMAND" -1 Flags::LOADING.and(Flags::STALE), "server" NONE Client(command) "2.8.13" "Returns detailed information about all commands.";
};

pub(super) const COMMAND: &[Subcommand] = subcommands! {
    "COUNT" 2 "" "2.8.13" "Return the number of commands.";
    "DOCS" -2 "[<command> ...]" "7.0.0" "Return documentation of commands, of all by default.";
    "GETKEYS" -3 "<command> [<arg> ...]" "2.8.13" "Return the keys of a request.";
    "INFO" -2 "[<command> ...]" "2.8.13" "Return details of commands, of all by default.";
    "LIST" -2 "[FILTERBY MODULE <name>|ACLCAT <category>|PATTERN <pattern>]" "7.0.0" "Return the names of all commands, or of some.";
    "HELP" 2 "" "5.0.0" "Print this help.";
};

fn command(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let catalog = Catalog::get();
    if args.len() == 1 {
        describe_all(commands(catalog), reply);
        return Ok(());
    }
    match subcommand::find("COMMAND", COMMAND, args)? {
        "COUNT" => reply.count(TABLE.len()),
        "LIST" => {
            let names = names(catalog, args.from(2))?;
            reply.array(names.len());
            names.iter().for_each(|name| reply.bulk(name.as_bytes()));
        }
        "INFO" if args.len() == 2 => describe_all(commands(catalog), reply),
        "INFO" => {
            reply.array(args.len() - 2);
            for name in args.from(2).iter() {
                match catalog.find(name) {
                    Some(id) => describe(catalog.entry(id), reply),
                    None => reply.null(),
                }
            }
        }
        "DOCS" if args.len() == 2 => document_all(commands(catalog), reply),
        "DOCS" => {
            let named: Vec<&Entry> = args.from(2).iter().filter_map(|name| Some(catalog.entry(catalog.find(name)?))).collect();
            document_all(named, reply);
        }
        "GETKEYS" => getkeys(args.from(2), reply)?,
        _ => subcommand::help("COMMAND", COMMAND, reply),
    }
    Ok(())
}

/// Those that are no subcommands.
fn commands(catalog: &Catalog) -> &[Entry] {
    &catalog.entries()[..TABLE.len()]
}

/// The names that a filter leaves, subcommands among them.
fn names<'a>(catalog: &'a Catalog, filter: Args<'_>) -> Result<Vec<&'a str>, CommandError> {
    let is_in: Box<dyn Fn(&Entry) -> bool> = match (filter.len(), filter.get(1)) {
        (0, _) => Box::new(|_| true),
        (3, Some(kind)) if is_word(filter.at(0), "FILTERBY") => {
            let value = filter.at(2).to_ascii_lowercase();
            if is_word(kind, "PATTERN") {
                Box::new(move |entry| glob_matches(&value, entry.name.as_bytes()))
            } else if is_word(kind, "ACLCAT") {
                let category = Categories::named(&value);
                Box::new(move |entry| category.is_some_and(|category| entry.categories.overlaps(category)))
            } else if is_word(kind, "MODULE") {
                Box::new(|_| false)
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        _ => return Err(CommandError::SYNTAX),
    };
    Ok(catalog.entries().iter().filter(|entry| is_in(entry)).map(|entry| &*entry.name).collect())
}

fn describe_all(entries: &[Entry], reply: &mut Reply) {
    reply.array(entries.len());
    entries.iter().for_each(|entry| describe(entry, reply));
}

fn describe(entry: &Entry, reply: &mut Reply) {
    reply.array(10);
    reply.bulk(entry.name.as_bytes());
    reply.integer(entry.arity());
    let flags: Vec<&str> = flags(entry).names().collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    let KeyPositions { first, last, step } = keys(entry);
    [first, last, step].iter().for_each(|number| reply.integer(i64::from(*number)));
    let categories: Vec<&str> = entry.categories.names().collect();
    reply.set(categories.len());
    categories.iter().for_each(|category| reply.simple(&format!("@{category}")));
    // Tips and key specifications: none.
    (0..2).for_each(|_| reply.array(0));
    describe_all(entry.subcommands(), reply);
}

/// As Redis tells them: what a command with subcommands does is those' matter, unless it does something by itself as COMMAND does.
fn flags(entry: &Entry) -> Flags {
    let flags = entry.spec.flags;
    match entry.subcommand() {
        None if entry.subcommands().is_empty() || entry.arity() == -1 => flags,
        None => Flags::NONE,
        Some(Subcommand { name: "HELP", .. }) => OF_HELP,
        // The row is that of them all, and some are for anybody.
        Some(_) if !entry.categories.are_for_operators() => flags.without(Flags::ADMIN),
        Some(_) => flags.and(Flags::ADMIN),
    }
}

fn keys(entry: &Entry) -> KeyPositions {
    match entry.subcommand() {
        None if entry.subcommands().is_empty() => entry.spec.keys,
        None | Some(Subcommand { name: "HELP", .. }) => KeyPositions::NONE,
        Some(_) => entry.spec.keys,
    }
}

fn document_all<'a>(entries: impl IntoIterator<Item = &'a Entry, IntoIter: ExactSizeIterator>, reply: &mut Reply) {
    let entries = entries.into_iter();
    reply.map(entries.len());
    entries.for_each(|entry| document(entry, reply));
}

fn document(entry: &Entry, reply: &mut Reply) {
    let Spec { summary, since, category, .. } = entry.spec;
    let (summary, since) = entry.subcommand().map_or((*summary, *since), |known| (known.summary, known.since));
    let subcommands = entry.subcommands();
    reply.bulk(entry.name.as_bytes());
    reply.map(3 + usize::from(!subcommands.is_empty()));
    for (field, value) in [("summary", summary), ("since", since), ("group", category)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        document_all(subcommands, reply);
    }
}

fn getkeys(args: Args<'_>, reply: &mut Reply) -> Outcome {
    let index = find_command(args.at(0)).ok_or(CommandError::fixed("ERR Invalid command specified"))?;
    let spec = &TABLE[index];
    spec.check_arity(args).map_err(|_| CommandError::fixed("ERR Invalid number of arguments specified for command"))?;
    let keys: Vec<&[u8]> = table::keys(spec, args)?.collect();
    if keys.is_empty() {
        return Err(CommandError::fixed("ERR The command has no key arguments"));
    }
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key));
    Ok(())
}
