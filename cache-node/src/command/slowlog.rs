//! SLOWLOG, and what comes into it.

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        parse::integer,
        subcommand::{self, Subcommand, subcommands},
        table::{TABLE, rows},
    },
    node::{SlowRequest, shown_arguments},
    protocol::{Args, Reply},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "SLOWLOG" -2 Flags::ADMIN.and(Flags::LOADING).and(Flags::STALE), "server" NONE Client(slowlog) "2.2.12" "A container for slow log commands.";
};

pub(super) const SLOWLOG: &[Subcommand] = subcommands! {
    "GET" -2 "[<count>]" "2.2.12" "Return the latest requests that took long, 10 by default, all for -1.";
    "LEN" 2 "" "2.2.12" "Return how many there are.";
    "RESET" 2 "" "2.2.12" "Forget them.";
    "HELP" 2 "" "6.2.0" "Print this help.";
};

/// Entries that GET gives where no number is asked for.
const COUNT_DEFAULT: usize = 10;

/// Keeps a request that took `nanoseconds`, if that is long. EXEC is no request of its own: those of its queue are.
#[inline]
pub(super) fn note(ctx: &Context<'_>, index: usize, args: Args<'_>, nanoseconds: u64) {
    if nanoseconds >= ctx.config.slowlog_slower_than_ns {
        keep(ctx, &TABLE[index], args, nanoseconds);
    }
}

#[cold]
fn keep(ctx: &Context<'_>, spec: &Spec, args: Args<'_>, nanoseconds: u64) {
    if spec.name == "EXEC" || ctx.config.slowlog_max_len == 0 {
        return;
    }
    let entry = &ctx.client.entry;
    let request = SlowRequest {
        id: 0,
        seconds: ctx.now.unix_ms / 1000,
        microseconds: nanoseconds / 1000,
        arguments: shown_arguments(spec, args, ctx.config.slowlog_redacts_arguments),
        address: entry.address.to_string(),
        client_name: entry.names().name,
    };
    ctx.shared.slow_log.add(request, ctx.config.slowlog_max_len);
}

fn slowlog(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let log = &ctx.shared.slow_log;
    match subcommand::find("SLOWLOG", SLOWLOG, args)? {
        "GET" if args.len() <= 3 => {
            let count = match args.get(2) {
                None => COUNT_DEFAULT,
                Some(count) => match integer(count) {
                    Ok(-1) => usize::MAX,
                    Ok(count) if count >= 0 => count as usize,
                    _ => return Err(CommandError::fixed("ERR count should be greater than or equal to -1")),
                },
            };
            let requests = log.latest(count);
            reply.array(requests.len());
            requests.iter().for_each(|request| describe(request, reply));
        }
        "GET" => {
            let text = "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.";
            return Err(CommandError::fixed(text));
        }
        "LEN" => reply.count(log.len()),
        "RESET" => {
            log.reset();
            reply.ok();
        }
        _ => subcommand::help("SLOWLOG", SLOWLOG, reply),
    }
    Ok(())
}

fn describe(request: &SlowRequest, reply: &mut Reply) {
    reply.array(6);
    reply.integer(request.id as i64);
    reply.integer(request.seconds as i64);
    reply.integer(request.microseconds as i64);
    reply.array(request.arguments.len());
    request.arguments.iter().for_each(|argument| reply.bulk(argument));
    reply.bulk(request.address.as_bytes());
    reply.bulk(request.client_name.as_bytes());
}
