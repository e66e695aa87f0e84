//! Commands on the append-only log.

use std::sync::atomic::Ordering;

use crate::{
    command::{CommandError, Context, Flags, Outcome, Spec, table::rows},
    protocol::{Args, Reply},
};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "BGREWRITEAOF" 1 ADMIN, "server" NONE Client(bgrewriteaof) "1.0.0" "Asynchronously rewrites the append-only file to disk.";
};

fn bgrewriteaof(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let shared = ctx.shared;
    if !ctx.config.appendonly {
        return Err(CommandError::fixed("ERR there is no append-only log to rewrite: set appendonly to yes first"));
    }
    if shared.log.is_rewriting.load(Ordering::Acquire) || shared.log.is_rewrite_wanted() {
        return Err(CommandError::fixed("ERR Background append only file rewriting already in progress"));
    }
    shared.log.want_rewrite();
    shared.journal.call_log();
    reply.simple("Background append only file rewriting started");
    Ok(())
}
