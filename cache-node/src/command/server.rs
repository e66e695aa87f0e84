//! Commands on the node: CONFIG, COMMAND, INFO, TIME.

use std::sync::atomic::Ordering;

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        error::printable,
        subcommand::{self, Subcommand, subcommands},
        table::rows,
    },
    config::{ConfigError, DIRECTIVES, Directive, find as find_directive, rewrite_file},
    info,
    keyspace::{Keys, glob_matches},
    node::EventKind,
    protocol::{Args, Reply},
};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "CONFIG" -2 ADMIN, "server" NONE Both(config) "2.0.0" "A container for server configuration commands.";
    "INFO" -1 Flags::LOADING.and(Flags::STALE), "server" NONE Both(info) "1.0.0" "Returns information and statistics about the server.";
    "TIME" 1 Flags::LOADING.and(Flags::STALE).and(Flags::FAST), "server" NONE Client(time) "2.6.0" "Returns the server time.";
    "LOLWUT" -1 Flags::READONLY.and(Flags::FAST), "server" NONE Client(lolwut) "5.0.0" "Displays computer art and the Redis version";
};

fn time(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    // Not the batch's time: clients measure with it.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    reply.array(2);
    reply.bulk_integer(now.as_secs() as i64);
    reply.bulk_integer(i64::from(now.subsec_micros()));
    Ok(())
}

fn lolwut(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.verbatim(&format!("cache-node {}, Redis ver. {}\n", env!("CARGO_PKG_VERSION"), crate::REDIS_VERSION));
    Ok(())
}

fn info(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let sections: Vec<String> =
        args.from(1).iter().map(|section| String::from_utf8_lossy(section).to_ascii_lowercase()).collect();
    reply.verbatim(&info::render(ctx, keys, &sections));
    Ok(())
}

pub(super) const CONFIG: &[Subcommand] = subcommands! {
    "GET" -3 "<pattern> [<pattern> ...]" "2.0.0" "Return the directives whose names match a pattern, with their values.";
    "SET" -4 "<directive> <value> [<directive> <value> ...]" "2.0.0" "Set directives, all of them or none.";
    "RESETSTAT" 2 "" "2.0.0" "Reset the statistics that INFO reports.";
    "REWRITE" 2 "" "2.8.0" "Rewrite the configuration file.";
    "HELP" 2 "" "5.0.0" "Print this help.";
};

fn config(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    match subcommand::find("CONFIG", CONFIG, args)? {
        "GET" => config_get(ctx, args, reply),
        "SET" if args.len().is_multiple_of(2) => {
            config_set(ctx, args)?;
            reply.ok();
        }
        "SET" => return Err(CommandError::wrong_arguments("config|set")),
        "RESETSTAT" => {
            ctx.shared.workers.iter().for_each(crate::stats::WorkerStats::reset);
            ctx.shared.errors.reset();
            ctx.shared.counters.reset();
            ctx.shared.replication.counters.reset();
            ctx.shared.log.delayed_syncs.store(0, Ordering::Relaxed);
            keys.reset_counters();
            reply.ok();
        }
        "REWRITE" => {
            let shared = ctx.shared;
            shared
                .acl
                .save(|users| rewrite_file(&shared.config(), users))
                .map_err(|error| CommandError::new(format!("ERR {error}")))?;
            reply.ok();
        }
        _ => subcommand::help("CONFIG", CONFIG, reply),
    }
    Ok(())
}

fn config_get(ctx: &Context<'_>, args: Args<'_>, reply: &mut Reply) {
    let config = ctx.shared.config();
    let mut wanted: Vec<(&[u8], &Directive)> = Vec::new();
    for pattern in args.from(2).iter() {
        let lower = pattern.to_ascii_lowercase();
        for directive in DIRECTIVES.iter().filter(|directive| glob_matches(&lower, directive.name.as_bytes())) {
            if wanted.iter().any(|(_, known)| known.name == directive.name) {
                continue;
            }
            // A name in full comes back as it was asked for, as in Redis.
            let is_name = lower == directive.name.as_bytes();
            wanted.push((if is_name { pattern } else { directive.name.as_bytes() }, directive));
        }
    }
    reply.map(wanted.len());
    for (name, directive) in wanted {
        reply.bulk(name);
        reply.bulk(directive.shown(&config).as_bytes());
    }
}

fn config_set(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let pairs: Vec<(&[u8], String)> = (2..args.len())
        .step_by(2)
        .map(|index| (args.at(index), String::from_utf8_lossy(args.at(index + 1)).into_owned()))
        .collect();
    let mut seen = Vec::new();
    for (name, _) in &pairs {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let Some(directive) = find_directive(&name) else {
            return Err(CommandError::new(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                printable(name.as_bytes())
            )));
        };
        if !directive.is_live {
            return Err(failed(&name, "can't set immutable config"));
        }
        if seen.contains(&directive.name) {
            return Err(failed(&name, "duplicate parameter"));
        }
        if !ctx.config.takes_acl_changes && PASSWORDS.contains(&directive.name) {
            return Err(failed(&name, NO_PASSWORDS));
        }
        seen.push(directive.name);
    }
    let before = ctx.shared.config();
    // All or nothing, as in Redis.
    let outcome = ctx.shared.change_config(|config| {
        for (name, value) in &pairs {
            let name = String::from_utf8_lossy(name);
            config
                .set(&name, &[value])
                .map_err(|error| ConfigError(failed(&name.to_ascii_lowercase(), &error.0).text().to_owned()))?;
        }
        Ok(())
    });
    // At once, so that who sets min-replicas-to-write knows that nothing is written any more that it forbids.
    ctx.shared.replication.judge(ctx.shared, ctx.now);
    outcome.map_err(|error| CommandError::new(error.0))?;
    // AUTH behind it in the same pipeline must meet the new password.
    ctx.config = ctx.shared.config();
    seen.retain(|name| find_directive(name).is_some_and(|known| (known.get)(&before) != (known.get)(&ctx.config)));
    if !seen.is_empty() {
        let text = format!("CONFIG SET by {} changed {}", ctx.client.entry.address, seen.join(", "));
        ctx.shared.tell(EventKind::CacheClusterParametersChanged, text);
    }
    Ok(())
}

/// Directives by which nodes and their clients know each other.
const PASSWORDS: [&str; 3] = ["requirepass", "masterauth", "masteruser"];

const NO_PASSWORDS: &str = "this node takes no changes of passwords (acl-changes no): the controller of a supervised cluster and its replicas \
                            have none, and would be locked out. Where a password is needed, run nodes under Sentinels, each with the same \
                            'requirepass' and 'masterauth'";

fn failed(name: &str, reason: &str) -> CommandError {
    CommandError::new(format!("ERR CONFIG SET failed (possibly related to argument '{}') - {reason}", printable(name.as_bytes())))
}
