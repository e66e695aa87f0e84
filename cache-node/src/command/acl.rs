//! ACL: users and their rights.

use crate::{
    acl::{Catalog, Categories, ChangeError, DEFAULT, Denied, RULES_MAX, Selector, User, is_name},
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        error::printable,
        names,
        parse::{integer, is_word},
        subcommand::{self, Subcommand, subcommands},
        table::rows,
    },
    config::{SaveError, load_users, save_users},
    protocol::{Args, Reply},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "ACL" -2 Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE), "server" NONE Client(acl) "6.0.0" "A container for Access List Control commands.";
};

pub(super) const ACL: &[Subcommand] = subcommands! {
    "CAT" -2 "[<category>]" "6.0.0" "Return the categories, or the commands of one.";
    "DELUSER" -3 "<username> [<username> ...]" "6.0.0" "Remove users, and end their connections.";
    "DRYRUN" -4 "<username> <command> [<arg> ...]" "7.0.0" "Tell whether a user may run a request, without running it.";
    "GENPASS" -2 "[<bits>]" "6.0.0" "Return a random password of 256 bits, or of another number of them.";
    "GETUSER" 3 "<username>" "6.0.0" "Return a user's rules.";
    "LIST" 2 "" "6.0.0" "Return all users as they stand in a file.";
    "LOAD" 2 "" "6.0.0" "Read the users from the ACL file, all of them or none.";
    "LOG" -2 "[<count> | RESET]" "6.0.0" "Return the latest requests and logins that were refused, or forget them.";
    "SAVE" 2 "" "6.0.0" "Write the users into the ACL file.";
    "SETUSER" -3 "<username> <rule> [<rule> ...]" "6.0.0" "Make a user, or change one: by all rules, or by none.";
    "USERS" 2 "" "6.0.0" "Return the names of all users.";
    "WHOAMI" 2 "" "6.0.0" "Return the name of this connection's user.";
    "HELP" 2 "" "6.0.0" "Print this help.";
};

/// Bits of a password that GENPASS gives, and how many it may be asked for (Redis: the same).
const PASSWORD_BITS: i64 = 256;
const PASSWORD_BITS_MAX: i64 = 4096;

/// Entries that LOG gives where no number is asked for (Redis: the same).
const LOG_COUNT_DEFAULT: usize = 10;

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
                       command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
                       users in the Redis configuration.";

const NO_CHANGES: &str = "ERR this node takes no changes of users (acl-changes no): each node of a supervised cluster has its own, so that they \
                          would be gone with the next primary. Where users are needed, run nodes under Sentinels, each with the same \
                          'aclfile'";

fn acl(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let subcommand = subcommand::find("ACL", ACL, args)?;
    if !ctx.config.takes_acl_changes && matches!(subcommand, "DELUSER" | "LOAD" | "SETUSER") {
        return Err(CommandError::fixed(NO_CHANGES));
    }
    match (subcommand, args.len()) {
        ("CAT", 2) => {
            reply.array(Categories::NAMES.len());
            Categories::NAMES.iter().for_each(|name| reply.bulk(name.as_bytes()));
        }
        ("CAT", 3) => cat(args.at(2), reply)?,
        ("DELUSER", _) => delete_users(ctx, args.from(2), reply)?,
        ("DRYRUN", _) => dry_run(ctx, args.at(2), args.from(3), reply)?,
        ("GENPASS", 2) => generate_password(PASSWORD_BITS, reply)?,
        ("GENPASS", 3) => generate_password(integer(args.at(2))?, reply)?,
        ("GETUSER", _) => match ctx.shared.acl.user(args.at(2)) {
            Some(user) => describe(&user, reply),
            None => reply.null(),
        },
        ("LIST", _) => {
            let users = ctx.shared.acl.all();
            reply.array(users.len());
            users.iter().for_each(|user| reply.bulk(&user.line()));
        }
        ("LOAD", _) => load(ctx, reply)?,
        ("LOG", 2) => show_log(ctx, LOG_COUNT_DEFAULT, reply),
        ("LOG", 3) if is_word(args.at(2), "RESET") => {
            ctx.shared.acl.log.reset();
            reply.ok();
        }
        ("LOG", 3) => show_log(ctx, usize::try_from(integer(args.at(2))?).unwrap_or(0), reply),
        ("SAVE", _) => save(ctx, reply)?,
        ("SETUSER", _) => set_user(ctx, args.at(2), args.from(3), reply)?,
        ("USERS", _) => {
            let users = ctx.shared.acl.all();
            reply.array(users.len());
            users.iter().for_each(|user| reply.bulk(&user.name));
        }
        ("WHOAMI", _) => reply.bulk(&ctx.client.user().name),
        ("HELP", _) => subcommand::help("ACL", ACL, reply),
        _ => {
            let subcommand = printable(args.at(1));
            let text = format!("ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try ACL HELP.");
            return Err(CommandError::new(text));
        }
    }
    Ok(())
}

fn cat(name: &[u8], reply: &mut Reply) -> Outcome {
    let unknown = || CommandError::new(format!("ERR Unknown category '{}'", printable(name)));
    let category = Categories::named(name).ok_or_else(unknown)?;
    let entries = Catalog::get().entries().iter().filter(|entry| entry.categories.overlaps(category));
    let names: Vec<&str> = entries.map(|entry| entry.name.as_str()).collect();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

fn set_user(ctx: &mut Context<'_>, name: &[u8], rules: Args<'_>, reply: &mut Reply) -> Outcome {
    if name.is_empty() {
        return Err(CommandError::fixed("ERR Usernames can't be empty: no file could hold such a user"));
    }
    if !is_name(name) {
        return Err(CommandError::fixed("ERR Usernames can't contain spaces or null characters"));
    }
    let changed = ctx.shared.acl.change(name, rules.iter(), ctx.config.acl_pubsub_default_all).map_err(|error| {
        CommandError::new(match error {
            ChangeError::Unmatched(word) => {
                let word = String::from_utf8_lossy(&word);
                format!("ERR Unmatched parenthesis in acl selector starting at '{word}'.")
            }
            ChangeError::TooMany => format!("ERR ACL SETUSER takes {RULES_MAX} rules at once: a pattern can stand for many keys"),
            ChangeError::Rule(rule, error) => {
                let rule = String::from_utf8_lossy(&rule);
                format!("ERR Error in ACL SETUSER modifier '{rule}': {}", error.text())
            }
        })
    })?;
    ctx.client.follow_users(&ctx.shared.acl);
    if changed.before.is_some() && ctx.shared.end_subscribers(&changed.after, ctx.client.entry.id) {
        ctx.client.closes_after_reply = true;
    }
    reply.ok();
    Ok(())
}

fn delete_users(ctx: &mut Context<'_>, names: Args<'_>, reply: &mut Reply) -> Outcome {
    if names.iter().any(|name| name == DEFAULT) {
        return Err(CommandError::fixed("ERR The 'default' user cannot be removed"));
    }
    let removed: Vec<u32> = names.iter().filter_map(|name| ctx.shared.acl.remove(name)).collect();
    end_connections(ctx, &removed);
    reply.count(removed.len());
    Ok(())
}

/// Ends the connections of users that are gone.
fn end_connections(ctx: &mut Context<'_>, users: &[u32]) {
    if ctx.shared.clients.close_of_users(users, ctx.client.entry.id) {
        // The answer still goes out.
        ctx.client.closes_after_reply = true;
    }
    ctx.client.follow_users(&ctx.shared.acl);
}

fn describe(user: &User, reply: &mut Reply) {
    /// Those of [`describe_selector`] and three more.
    const FIELDS: usize = 6;
    reply.map(FIELDS);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    let passwords = user.passwords();
    reply.array(passwords.len());
    passwords.for_each(|digits| reply.bulk(digits.as_bytes()));
    describe_selector(user.root(), reply);
    reply.bulk(b"selectors");
    reply.array(user.selectors().len());
    for selector in user.selectors() {
        reply.map(3);
        describe_selector(selector, reply);
    }
}

/// Three fields.
fn describe_selector(selector: &Selector, reply: &mut Reply) {
    reply.bulk(b"commands");
    reply.bulk(&selector.shown_commands());
    reply.bulk(b"keys");
    reply.bulk(&selector.shown_keys());
    reply.bulk(b"channels");
    reply.bulk(&selector.shown_channels());
}

fn generate_password(bits: i64, reply: &mut Reply) -> Outcome {
    const BITS_PER_DIGIT: i64 = 4;
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(CommandError::new(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to {PASSWORD_BITS_MAX}"
        )));
    }
    let digits = (bits + BITS_PER_DIGIT - 1) / BITS_PER_DIGIT;
    let password: Vec<u8> = (0..digits).map(|_| b"0123456789abcdef"[rand::random_range(0..16)]).collect();
    reply.bulk(&password);
    Ok(())
}

fn dry_run(ctx: &Context<'_>, name: &[u8], request: Args<'_>, reply: &mut Reply) -> Outcome {
    let error = |text: String| CommandError::new(format!("ERR {text}"));
    let user = ctx.shared.acl.user(name).ok_or_else(|| error(format!("User '{}' not found", printable(name))))?;
    let unknown = || error(format!("Command '{}' not found", printable(request.at(0))));
    let id = asked(request).ok_or_else(unknown)?;
    let entry = Catalog::get().entry(id);
    if !entry.takes(request) {
        return Err(error(format!("wrong number of arguments for '{}' command", entry.name)));
    }
    match user.check_asked(id, request) {
        Ok(()) => reply.ok(),
        Err(denial) => reply.bulk(denial.text(&user, request, true).as_bytes()),
    }
    Ok(())
}

fn show_log(ctx: &Context<'_>, count: usize, reply: &mut Reply) {
    const FIELDS: usize = 10;
    let entries = ctx.shared.acl.log.latest(count);
    reply.array(entries.len());
    for entry in &entries {
        reply.map(FIELDS);
        reply.bulk(b"count");
        reply.integer(entry.count as i64);
        for (field, value) in shown_texts(entry) {
            reply.bulk(field.as_bytes());
            reply.bulk(value);
        }
        reply.bulk(b"age-seconds");
        reply.double(ctx.now.unix_ms.saturating_sub(entry.updated_ms) as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(entry.client.as_bytes());
        let numbers =
            [("entry-id", entry.id), ("timestamp-created", entry.created_ms), ("timestamp-last-updated", entry.updated_ms)];
        for (field, value) in numbers {
            reply.bulk(field.as_bytes());
            reply.integer(value as i64);
        }
    }
}

fn shown_texts(entry: &Denied) -> [(&'static str, &[u8]); 4] {
    [
        ("reason", entry.reason().as_bytes()),
        ("context", entry.context().as_bytes()),
        ("object", &entry.object),
        ("username", &entry.user),
    ]
}

fn load(ctx: &mut Context<'_>, reply: &mut Reply) -> Outcome {
    if ctx.config.aclfile.is_none() {
        return Err(CommandError::fixed(NO_FILE));
    }
    let users = load_users(&ctx.config).map_err(|error| {
        let kept = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        CommandError::new(format!("ERR {error}{kept}"))
    })?;
    let removed = ctx.shared.acl.replace(users);
    end_connections(ctx, &removed);
    if ctx.shared.end_subscribers(&ctx.shared.acl.default_user(), ctx.client.entry.id) {
        ctx.client.closes_after_reply = true;
    }
    reply.ok();
    Ok(())
}

fn save(ctx: &Context<'_>, reply: &mut Reply) -> Outcome {
    if ctx.config.aclfile.is_none() {
        return Err(CommandError::fixed(NO_FILE));
    }
    ctx.shared.acl.save(|users| save_users(&ctx.config, users)).map_err(|error| match error {
        SaveError::Unwritable(error) => CommandError::new(format!("ERR {error}")),
        SaveError::File(error) => {
            tracing::warn!(%error, "cannot write the ACL file");
            CommandError::fixed(
                "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
            )
        }
    })?;
    reply.ok();
    Ok(())
}

/// redis.acl_check_cmd: whether the connection's user could run a request. `None`: there is no such command.
pub(crate) fn may_run(ctx: &Context<'_>, request: Args<'_>) -> Option<bool> {
    asked(request).map(|id| ctx.client.user().check_asked(id, request).is_ok())
}

/// What a request asks for, whatever its arguments.
fn asked(request: Args<'_>) -> Option<usize> {
    let index = names::find(request.at(0))?;
    let has_subcommands = !Catalog::get().entry(index).subcommands().is_empty();
    match request.get(1) {
        Some(subcommand) if has_subcommands => Catalog::get().subcommand(index, subcommand),
        _ => Some(index),
    }
}
