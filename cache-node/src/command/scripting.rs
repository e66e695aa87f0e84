//! EVAL and its family.

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        parse::{integer, is_word},
        subcommand::{self, Subcommand, subcommands},
        table::rows,
    },
    keyspace::Keys,
    protocol::{Args, Reply},
    script::{Digest, Script, ScriptCache, ScriptCall},
};

const EVAL: Flags = Flags::NOSCRIPT.and(Flags::MOVABLE_KEYS).and(Flags::STALE).and(Flags::SKIP_MONITOR).and(Flags::RUNS_SCRIPT);
const EVAL_RO: Flags = EVAL.and(Flags::READONLY);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "EVAL" -3 EVAL.and(Flags::MAY_REPLICATE), "scripting" NONE Both(eval) "2.6.0" "Executes a server-side Lua script.";
    "EVALSHA" -3 EVAL.and(Flags::MAY_REPLICATE), "scripting" NONE Both(evalsha) "2.6.0" "Executes a server-side Lua script by SHA1 digest.";
    "EVAL_RO" -3 EVAL_RO, "scripting" NONE Both(eval_ro) "7.0.0" "Executes a read-only server-side Lua script.";
    "EVALSHA_RO" -3 EVAL_RO, "scripting" NONE Both(evalsha_ro) "7.0.0" "Executes a read-only server-side Lua script by SHA1 digest.";
    "SCRIPT" -2 Flags::NOSCRIPT, "scripting" NONE Client(script) "2.6.0" "A container for Lua scripts management commands.";
};

fn eval(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    run_source(ctx, keys, args, reply, false)
}

fn eval_ro(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    run_source(ctx, keys, args, reply, true)
}

fn evalsha(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    run_digest(ctx, keys, args, reply, false)
}

fn evalsha_ro(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    run_digest(ctx, keys, args, reply, true)
}

fn run_source(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, is_readonly: bool) -> Outcome {
    let key_count = key_count(args)?;
    let source = args.at(1);
    let (scripts, digest) = (&ctx.shared.scripts, ScriptCache::digest(source));
    let losses = scripts.losses();
    if scripts.get(&digest).is_none() {
        // Only what compiles is kept: EVALSHA of broken text is NOSCRIPT, as in Redis.
        ctx.scripts.check(source)?;
        scripts.add(source);
    }
    let script = ctx.scripts.compile(scripts, losses, &digest, source)?;
    run(ctx, keys, &script, ScriptCall { keys: args.from(3), key_count, is_readonly }, reply)
}

fn run_digest(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, is_readonly: bool) -> Outcome {
    let key_count = key_count(args)?;
    let scripts = &ctx.shared.scripts;
    let script = match ctx.scripts.compiled(scripts, args.at(1)) {
        Some(script) => script,
        None => {
            let losses = scripts.losses();
            let (digest, source) = scripts.get(args.at(1)).ok_or(CommandError::NO_SCRIPT)?;
            ctx.scripts.compile(scripts, losses, &digest, &source)?
        }
    };
    run(ctx, keys, &script, ScriptCall { keys: args.from(3), key_count, is_readonly }, reply)
}

fn run(ctx: &mut Context<'_>, keys: &mut Keys<'_>, script: &Script, call: ScriptCall<'_>, reply: &mut Reply) -> Outcome {
    let scripts = ctx.scripts;
    scripts.run(ctx, keys, script, call, reply)
}

fn key_count(args: Args<'_>) -> Result<usize, CommandError> {
    let count = usize::try_from(integer(args.at(2))?).map_err(|_| CommandError::fixed("ERR Number of keys can't be negative"))?;
    if count > args.len() - 3 {
        return Err(CommandError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    Ok(count)
}

#[rustfmt::skip]
pub(super) const SCRIPT: &[Subcommand] = subcommands! {
    "EXISTS" -3 "<sha1> [<sha1> ...]" "2.6.0" "Tell which scripts are known.";
    "FLUSH" -2 "[ASYNC|SYNC]" "2.6.0" "Forget all scripts.";
    "KILL" 2 "" "2.6.0" "End the script that runs.";
    "LOAD" 3 "<script>" "2.6.0" "Keep a script without running it.";
    "HELP" 2 "" "5.0.0" "Print this help.";
};

fn script(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    match subcommand::find("SCRIPT", SCRIPT, args)? {
        "LOAD" => {
            ctx.scripts.check(args.at(2))?;
            let digest: Digest = ctx.shared.scripts.add(args.at(2));
            reply.bulk(&digest);
        }
        "EXISTS" => {
            reply.array(args.len() - 2);
            for digest in args.from(2).iter() {
                reply.flag(ctx.shared.scripts.get(digest).is_some());
            }
        }
        "FLUSH" if args.len() > 3 => return Err(CommandError::wrong_arguments("script|FLUSH")),
        "FLUSH" => {
            if args.get(2).is_some_and(|mode| !is_word(mode, "SYNC") && !is_word(mode, "ASYNC")) {
                return Err(CommandError::fixed("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
            }
            ctx.shared.scripts.flush();
            reply.ok();
        }
        // A script that runs holds every shard and ends by its time limit; none can be running while this one is answered.
        "KILL" => return Err(CommandError::fixed("NOTBUSY No scripts in execution right now.")),
        _ => subcommand::help("SCRIPT", SCRIPT, reply),
    }
    Ok(())
}
