//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.

use std::{sync::Arc, time::Instant};

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Run, Spec, call_locked, make_room, may_write, permission, slowlog,
        table::{self, rows},
    },
    keyspace::{Keys, Now, WatchFlag},
    node::{Client, Shared},
    protocol::{Args, OwnedRequest, Reply},
};

/// Bytes that the queue of one transaction may take (Redis bounds it by the query buffer: 1 GB).
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;

const AT_ONCE: Flags = Flags::NOSCRIPT.and(Flags::NOT_QUEUED).and(Flags::FAST);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "MULTI" 1 AT_ONCE, "transactions" NONE Client(multi) "1.2.0" "Starts a transaction.";
    "EXEC" 1 Flags::NOSCRIPT.and(Flags::NOT_QUEUED), "transactions" NONE Client(exec) "1.2.0" "Executes all commands in a transaction.";
    "DISCARD" 1 AT_ONCE, "transactions" NONE Client(discard) "2.0.0" "Discards a transaction.";
    "WATCH" -2 AT_ONCE, "transactions" ALL Client(watch) "2.2.0" "Monitors changes to keys to determine the execution of a transaction.";
    "UNWATCH" 1 Flags::NOSCRIPT.and(Flags::FAST), "transactions" NONE Client(unwatch) "2.2.0" "Forgets about watched keys of a transaction.";
};

/// Commands queued since MULTI.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    queue: Vec<(usize, OwnedRequest)>,
    queued_bytes: usize,
    /// A command was refused while queueing: EXEC will do nothing.
    pub(crate) has_failed: bool,
}

/// Keys under WATCH; dropping it ends the watch.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    flag: Arc<WatchFlag>,
    keys: Vec<(usize, Vec<u8>)>,
}

impl Transaction {
    /// Whether a command of its queue has one of these flags.
    pub(super) fn has(&self, flags: Flags) -> bool {
        self.queue.iter().any(|(index, _)| table::TABLE[*index].flags.has(flags))
    }
}

pub(crate) fn queue(ctx: &mut Context<'_>, index: usize, args: Args<'_>) -> Outcome {
    let Some(transaction) = ctx.client.transaction.as_mut() else { return Ok(()) };
    // Looked at before the copy is made: what is refused takes nothing.
    transaction.queued_bytes += args.owned_bytes() + size_of::<(usize, OwnedRequest)>();
    if transaction.queued_bytes > QUEUE_BYTES_MAX {
        transaction.has_failed = true;
        return Err(CommandError::fixed(
            "ERR the transaction's queue exceeds 256 MB; send fewer or smaller commands between MULTI and EXEC",
        ));
    }
    transaction.queue.push((index, args.to_owned()));
    Ok(())
}

fn multi(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    if ctx.client.transaction.is_some() {
        return Err(CommandError::fixed("ERR MULTI calls can not be nested"));
    }
    ctx.client.begin_transaction();
    reply.ok();
    Ok(())
}

fn discard(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    if ctx.client.end_transaction().is_none() {
        return Err(CommandError::fixed("ERR DISCARD without MULTI"));
    }
    drop_watch(ctx.shared, ctx.client, ctx.now);
    reply.ok();
    Ok(())
}

fn exec(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let transaction = ctx.client.end_transaction().ok_or(CommandError::fixed("ERR EXEC without MULTI"))?;
    let queues = |flags| transaction.has(flags);
    let refusal = if transaction.has_failed {
        Err(CommandError::EXEC_ABORT)
    } else if !ctx.shared.gate.is_open()
        && queues(Flags::WRITE)
        && let Err(error) = may_write(ctx)
    {
        Err(abort(ctx, &error))
    } else if ctx.config.maxmemory > 0 && queues(Flags::DENYOOM.and(Flags::RUNS_SCRIPT)) {
        let outcome = make_room(ctx);
        ctx.is_full = outcome.is_err();
        // Scripts refuse their own commands.
        if queues(Flags::DENYOOM) { outcome.inspect_err(|_| ctx.shared.counters.count_out_of_memory()) } else { Ok(()) }
    } else {
        Ok(())
    };
    if let Err(error) = refusal {
        drop_watch(ctx.shared, ctx.client, ctx.now);
        return Err(error);
    }
    let watch = ctx.client.watch.take();
    let shared = ctx.shared;
    let needs_all = transaction.queue.iter().any(|(index, _)| {
        let spec = &table::TABLE[*index];
        // Commands on the connection may lead to any key (a nested EVAL, SELECT to another database's shard is the same shard).
        spec.flags.has(Flags::WHOLE_KEYSPACE) || matches!(spec.run, Run::Both(_))
    });
    let mut keys = if needs_all {
        shared.keyspace.lock_all(ctx.client.db(), ctx.now, shared)
    } else {
        let queued = transaction.queue.iter().flat_map(|(index, request)| table::TABLE[*index].keys.keys(request.args()));
        let watched = watch.iter().flat_map(|watch| watch.keys.iter().map(|(_, key)| key.as_slice()));
        shared.keyspace.lock(queued.chain(watched), ctx.client.db(), ctx.now, shared)
    };
    if let Some(watch) = watch {
        // With the watched shards locked nothing can change between this look and the commands.
        let is_dirty = has_changed(&mut keys, &watch);
        let Watch { flag, keys: names } = *watch;
        drop(flag);
        names.iter().for_each(|(db, key)| keys.unwatch_dead(*db, key));
        keys.select(ctx.client.db());
        if is_dirty {
            reply.null_array();
            return Ok(());
        }
    }
    if keys.is_follower()
        && transaction.has(Flags::WRITE)
        && let Err(error) = may_write(ctx)
    {
        // The role changed behind the look at the gate.
        drop(keys);
        return Err(abort(ctx, &error));
    }
    keys.begin_atomic();
    reply.array(transaction.queue.len());
    ctx.is_in_exec = true;
    let mut started = Instant::now();
    for (index, request) in &transaction.queue {
        if let Err(error) = permission::check_in_exec(ctx, *index, request.args()) {
            ctx.shared.errors.count(error.prefix());
            reply.error(error.text());
            continue;
        }
        let ended = call_locked(ctx, &mut keys, *index, request.args(), reply);
        slowlog::note(ctx, *index, request.args(), (ended - started).as_nanos() as u64);
        started = ended;
        ctx.client.set_db(keys.db());
    }
    ctx.is_in_exec = false;
    ctx.client.wrote(keys.commit());
    Ok(())
}

/// EXEC was refused: its transaction is over, and the error says so.
pub(super) fn abort(ctx: &mut Context<'_>, reason: &CommandError) -> CommandError {
    ctx.client.transaction = None;
    drop_watch(ctx.shared, ctx.client, ctx.now);
    let reason = reason.text();
    CommandError::new(format!("EXECABORT Transaction discarded because of: {}", reason.strip_prefix("ERR ").unwrap_or(reason)))
}

/// Looks whether a watched key changed; one that expired unseen counts, so each is looked at.
fn has_changed(keys: &mut Keys<'_>, watch: &Watch) -> bool {
    for (db, key) in &watch.keys {
        keys.select(*db);
        keys.contains(key);
    }
    watch.flag.is_set()
}

fn watch(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if ctx.client.transaction.is_some() {
        return Err(CommandError::fixed("ERR WATCH inside MULTI is not allowed"));
    }
    let shared = ctx.shared;
    let db = ctx.client.db();
    let mut keys = shared.keyspace.lock(args.from(1).iter(), db, ctx.now, shared);
    let watch = ctx.client.watch.get_or_insert_default();
    for key in args.from(1).iter() {
        if !watch.keys.iter().any(|(known_db, known)| *known_db == db && known == key) {
            keys.watch(key, &watch.flag);
            watch.keys.push((db, key.to_vec()));
        }
    }
    reply.ok();
    Ok(())
}

fn unwatch(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    drop_watch(ctx.shared, ctx.client, ctx.now);
    reply.ok();
    Ok(())
}

/// Ends the connection's watch, if it has one.
pub(crate) fn drop_watch(shared: &Shared, client: &mut Client, now: Now) {
    let Some(watch) = client.watch.take() else { return };
    // Its keys leave the shards, so that a connection that watches ever new keys leaves nothing behind.
    drop(watch.flag);
    let names = watch.keys.iter().map(|(_, key)| key.as_slice());
    let mut keys = shared.keyspace.lock(names, client.db(), now, shared);
    for (db, key) in &watch.keys {
        keys.unwatch_dead(*db, key);
    }
}
