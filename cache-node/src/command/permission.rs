//! Whether the connection's user may do what it asks for, and what becomes known of a refusal.

use std::sync::atomic::Ordering;

use crate::{
    acl::{Denial, DenialContext, Denied, Reason},
    command::{CommandError, Context, Outcome},
    protocol::Args,
};

/// Looks whether a request may run, whose command stands at `index` in the table. A connection whose user may do everything asks nothing more.
#[inline]
pub(crate) fn check(ctx: &Context<'_>, index: usize, args: Args<'_>) -> Outcome {
    match ctx.client.limited_user() {
        None => Ok(()),
        Some(user) => user.check(index, args).map_err(|denial| refuse(ctx, denial, args)),
    }
}

/// Tells of a refusal. Gives the reply.
#[cold]
fn refuse(ctx: &Context<'_>, denial: Denial, args: Args<'_>) -> CommandError {
    let context = match &ctx.client.transaction {
        Some(_) => DenialContext::Transaction,
        None => DenialContext::TopLevel,
    };
    tell(ctx, denial, args, context);
    CommandError::new(format!("NOPERM {}", denial.text(ctx.client.user(), args, false)))
}

/// As [`check`], for a request that waited for EXEC: rights may have changed meanwhile.
pub(super) fn check_in_exec(ctx: &Context<'_>, index: usize, args: Args<'_>) -> Outcome {
    let Some(user) = ctx.client.limited_user() else { return Ok(()) };
    user.check(index, args).map_err(|denial| {
        tell(ctx, denial, args, DenialContext::Transaction);
        CommandError::new(denial.text_in_exec())
    })
}

/// As [`check`], for a command of a script.
pub(crate) fn check_in_script(ctx: &Context<'_>, index: usize, args: Args<'_>) -> Outcome {
    let Some(user) = ctx.client.limited_user() else { return Ok(()) };
    user.check(index, args).map_err(|denial| {
        tell(ctx, denial, args, DenialContext::Script);
        CommandError::new(format!("ERR ACL failure in script: {}", denial.text(user, args, false)))
    })
}

/// Counts a refusal and keeps it for ACL LOG.
fn tell(ctx: &Context<'_>, denial: Denial, args: Args<'_>, context: DenialContext) {
    let counters = &ctx.shared.counters;
    let (counter, object) = match denial.reason {
        Reason::Command => (&counters.denied_commands, denial.command().as_bytes()),
        Reason::Key => (&counters.denied_keys, args.get(denial.position).unwrap_or_default()),
        Reason::Channel => (&counters.denied_channels, args.get(denial.position).unwrap_or_default()),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    keep(ctx, Some(denial.reason), context, object, &ctx.client.user().name);
}

/// A wrong password: AUTH or HELLO, as the client wrote it, and the name that it gave.
pub(super) fn tell_of_login(ctx: &Context<'_>, command: &[u8], user: &[u8]) {
    ctx.shared.counters.failed_authentications.fetch_add(1, Ordering::Relaxed);
    let context = if ctx.is_in_exec { DenialContext::Transaction } else { DenialContext::TopLevel };
    keep(ctx, None, context, command, user);
}

fn keep(ctx: &Context<'_>, reason: Option<Reason>, context: DenialContext, object: &[u8], user: &[u8]) {
    let client = ctx.client.entry.line(ctx.now);
    let denied = Denied::new(reason, context, (object, user), client, ctx.now);
    ctx.shared.acl.log.add(denied, ctx.config.acllog_max_len);
}
