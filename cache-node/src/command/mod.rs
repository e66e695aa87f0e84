//! Commands: a table, the functions of its rows, and the one way in which a request is run.

pub(crate) mod acl;
mod aof;
pub(crate) mod apply;
mod connection;
mod decimal;
pub(crate) mod error;
mod generic;
mod hash;
mod latency;
mod list;
mod listing;
pub(crate) mod names;
pub(crate) mod parse;
pub(crate) mod permission;
mod pubsub;
mod random;
mod replication;
mod scripting;
mod server;
mod set;
mod slowlog;
mod snapshot;
mod sorted_set;
mod sorted_set_range;
mod stopwatch;
mod string;
pub(crate) mod subcommand;
pub(crate) mod table;
mod transaction;

pub(crate) use error::{CommandError, prefix};
pub(crate) use table::{Flags, KeyPositions, Outcome, Run, Spec};
pub(crate) use transaction::{Transaction, Watch};

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use smallvec::{Array, SmallVec};

use crate::{
    acl::User,
    command::{error::printable, stopwatch::Stopwatch},
    keyspace::{HashedKey, Keys, Now},
    node::{Client, Hindrance, PauseKind, Shared},
    protocol::{Args, Protocol, Reply, Requests},
    script::Interpreter,
    stats::WorkerStats,
};

/// What a request runs in: the node, the connection that sent it, and the thread it runs on.
pub(crate) struct Context<'a> {
    pub(crate) shared: &'a Shared,
    /// In force for this request; CONFIG SET puts another in its place.
    pub(crate) config: Arc<crate::config::Config>,
    pub(crate) client: &'a mut Client,
    pub(crate) scripts: &'a Interpreter,
    pub(crate) stats: &'a WorkerStats,
    pub(crate) now: Now,
    /// Whether eviction could make no room before this request: its scripts may then add nothing.
    pub(crate) is_full: bool,
    /// Whether EXEC runs this request: nothing may wait then.
    pub(crate) is_in_exec: bool,
    /// What the script that ended last leaves to be counted.
    pub(crate) script_errors: ScriptErrors,
}

/// Errors of a script beside the one that it may have raised.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScriptErrors {
    /// Failures of the script, for the errors in what it returned.
    pub(crate) failures: u64,
    /// Whether the error that it raised is one of a command of it, which was counted there.
    pub(crate) is_raised_counted: bool,
}

/// Bytes of replies after which a batch pauses until they are sent: a pipeline of reads of large values must not pile up.
pub(crate) const REPLY_BYTES_MAX: usize = 256 * 1024;

/// Runs requests in order and writes their replies. Gives how many were run: fewer than all when the connection ends or
/// [`REPLY_BYTES_MAX`] are reached.
pub(crate) fn execute_all(ctx: &mut Context<'_>, bytes: &[u8], requests: &mut Requests, reply: &mut Reply) -> usize {
    if requests.len() == 1 && run_single(ctx, bytes, requests, reply) {
        return 1;
    }
    let mut next = 0;
    let mut plain: SmallVec<[usize; REQUESTS_MAX]> = SmallVec::new();
    while next < requests.len()
        && takes_more(ctx.client, reply)
        // Of the first the caller knows it.
        && (next == 0 || ctx.client.goes_on(ctx.shared))
    {
        plain.clear();
        if ctx.shared.gate.is_open() && is_free(ctx.client) {
            let rest = next..requests.len();
            match ctx.client.limited_user() {
                None => plain.extend(rest.map_while(|request| known_command(bytes, requests, request)?.plain())),
                Some(user) => plain.extend(rest.map_while(|request| permitted_command(user, bytes, requests, request))),
            }
        }
        if plain.is_empty() {
            let known = known_command(bytes, requests, next);
            let args = requests.args(bytes, next);
            if is_postponed(ctx, args) {
                break;
            }
            match known {
                Some(Known { index, .. }) => execute_known(ctx, index, args, false, reply),
                None => refuse_unknown(ctx, args, reply),
            }
            next += 1;
            continue;
        }
        let grows = ctx.config.maxmemory > 0 && plain.iter().any(|index| table::TABLE[*index].flags.has(Flags::DENYOOM));
        if plain.len() > 1 && !(grows && make_room(ctx).is_err()) {
            let done = run_plain(ctx, bytes, requests, next, &plain, reply);
            next += done;
            if done > 0 {
                continue;
            }
            // The role changed behind the look at the gate: the first is looked at by itself.
            if is_postponed(ctx, requests.args(bytes, next)) {
                break;
            }
            plain.truncate(1);
        }
        // One alone, or each for itself: those that need no more memory still run.
        for index in &plain {
            execute_known(ctx, *index, requests.args(bytes, next), true, reply);
            next += 1;
            if reply.len() >= REPLY_BYTES_MAX {
                break;
            }
        }
    }
    next
}

/// Requests of a batch that are looked at together.
pub(crate) const REQUESTS_MAX: usize = 64;

/// Whether another request of a batch may run behind what was answered already.
#[inline]
fn takes_more(client: &Client, reply: &Reply) -> bool {
    reply.len() < REPLY_BYTES_MAX && !client.closes_after_reply && client.wait.is_none()
}

/// Whether nothing stands in the way of a command that needs nothing but its keys.
fn is_free(client: &Client) -> bool {
    client.is_authenticated && client.transaction.is_none() && client.subscriptions() == 0
}

/// What a request's name and the number of its arguments tell: of most requests both are those of one before them.
#[derive(Clone, Copy)]
struct Known {
    /// The command's row.
    index: usize,
    /// Whether it needs nothing but its keys, and has as many arguments as it must.
    is_plain: bool,
}

impl Known {
    #[inline]
    fn plain(self) -> Option<usize> {
        self.is_plain.then_some(self.index)
    }
}

#[inline(always)]
fn known_command(bytes: &[u8], requests: &mut Requests, request: usize) -> Option<Known> {
    if let Some(note) = requests.noted(request) {
        return Some(Known { index: (note >> 1) as usize, is_plain: note & 1 != 0 });
    }
    look_up(bytes, requests, request)
}

#[cold]
fn look_up(bytes: &[u8], requests: &mut Requests, request: usize) -> Option<Known> {
    let args = requests.args(bytes, request);
    let index = names::find(args.at(0))?;
    let spec = &table::TABLE[index];
    let is_plain = matches!(spec.run, Run::Keys(_)) && !spec.flags.has(Flags::WHOLE_KEYSPACE) && spec.check_arity(args).is_ok();
    requests.note(request, (index as u32) << 1 | u32::from(is_plain));
    Some(Known { index, is_plain })
}

/// The row of a command that needs nothing but its keys, if `user` may run it.
fn permitted_command(user: &User, bytes: &[u8], requests: &mut Requests, request: usize) -> Option<usize> {
    known_command(bytes, requests, request)?.plain().filter(|index| user.check(*index, requests.args(bytes, request)).is_ok())
}

/// Runs the one request that has arrived, if it needs nothing but its keys and nothing stands in its way: `false` when it is to be looked at
/// more closely.
fn run_single(ctx: &mut Context<'_>, bytes: &[u8], requests: &mut Requests, reply: &mut Reply) -> bool {
    let client = &*ctx.client;
    // What a user who may not do everything asks for is looked at more closely.
    if !takes_more(client, reply) || !ctx.shared.gate.is_open() || !is_free(client) || client.limited_user().is_some() {
        return false;
    }
    let Some(index) = known_command(bytes, requests, 0).and_then(Known::plain) else { return false };
    let spec = &table::TABLE[index];
    let Run::Keys(run) = spec.run else { return false };
    if ctx.config.maxmemory > 0 && spec.flags.has(Flags::DENYOOM) && make_room(ctx).is_err() {
        return false;
    }
    let (args, shared) = (requests.args(bytes, 0), ctx.shared);
    let (started, before) = (Instant::now(), reply.len());
    let mut hashed: SmallVec<[HashedKey<'_>; 4]> = SmallVec::new();
    hash_keys(shared, spec, args, &mut hashed);
    let mut keys = shared.keyspace.lock_hashed(&hashed, ctx.client.db(), ctx.now, shared);
    // The role changed behind the look at the gate.
    if keys.is_follower() {
        return false;
    }
    let outcome = run_recorded(&mut keys, run, args, reply);
    stand_behind(ctx, spec, &outcome);
    ctx.client.set_db(keys.db());
    ctx.client.wrote(keys.commit());
    drop(keys);
    let took = started.elapsed();
    finish(ctx, index, outcome, before, reply);
    count(ctx, index, args, took.as_nanos() as u64);
    ctx.client.entry.last_command.store(index as u32, Ordering::Relaxed);
    true
}

/// Runs commands on keys one after the other with all their shards locked at once. Gives how many were run: none when
/// this node follows another by now.
fn run_plain(
    ctx: &mut Context<'_>,
    bytes: &[u8],
    requests: &Requests,
    first: usize,
    plain: &[usize],
    reply: &mut Reply,
) -> usize {
    let (shared, table) = (ctx.shared, &table::TABLE[..]);
    let mut hashed: SmallVec<[HashedKey<'_>; REQUESTS_MAX]> = SmallVec::new();
    for (index, args) in plain.iter().zip(requests.args_from(bytes, first)) {
        hash_keys(shared, &table[*index], args, &mut hashed);
    }
    let mut keys = shared.keyspace.lock_hashed(&hashed, ctx.client.db(), ctx.now, shared);
    if keys.is_follower() {
        return 0;
    }
    keys.read_ahead();
    let mut stopwatch = Stopwatch::start(ctx.config.slowlog_slower_than_ns);
    let mut done = 0_usize;
    let mut rest = requests.args_from(bytes, first);
    'batch: for same in plain.chunk_by(|one, next| one == next) {
        let (index, spec) = (same[0], &table[same[0]]);
        let Run::Keys(run) = spec.run else { break };
        for (left, args) in (0..same.len()).rev().zip(&mut rest) {
            let before = reply.len();
            let outcome = run_recorded(&mut keys, run, args, reply);
            stand_behind(ctx, spec, &outcome);
            finish(ctx, index, outcome, before, reply);
            done += 1;
            let is_full = reply.len() >= REPLY_BYTES_MAX;
            let bytes = [args.spanned_bytes(), reply.len() - before, keys.take_resized_bytes()];
            let goes_on = stopwatch.goes_on(spec, args.len(), bytes) && left > 0 && !is_full;
            if !goes_on {
                let stretch = stopwatch.read();
                ctx.stats.called_often(index, stretch.before, stretch.before_ns_each);
                ctx.stats.called(index, stretch.last_ns);
                if let Some(told_ns) = stretch.told_ns {
                    slowlog::note(ctx, index, args, told_ns);
                }
            }
            if is_full {
                break 'batch;
            }
        }
    }
    ctx.client.set_db(keys.db());
    ctx.client.wrote(keys.commit());
    if let Some(index) = plain.get(done.saturating_sub(1)) {
        ctx.client.entry.last_command.store(*index as u32, Ordering::Relaxed);
    }
    done
}

/// Commands that write, and those of which it is not known before.
const MAY_WRITE: Flags = Flags::WRITE.and(Flags::MAY_REPLICATE);

/// Whether a request is to be run later: CLIENT PAUSE or FAILOVER keeps it waiting. The connection then waits for the end of that.
pub(crate) fn is_postponed(ctx: &mut Context<'_>, args: Args<'_>) -> bool {
    if !ctx.shared.gate.has(Hindrance::Paused) || !ctx.client.is_authenticated {
        return false;
    }
    let Some(spec) = names::find(args.at(0)).map(|index| &table::TABLE[index]) else { return false };
    let may_write = || match &ctx.client.transaction {
        Some(transaction) => spec.name == "EXEC" && transaction.has(MAY_WRITE),
        None => spec.flags.has(MAY_WRITE),
    };
    let is_postponed = match ctx.shared.pause.kind() {
        // Otherwise nobody could end it.
        Some(PauseKind::All) => spec.name != "CLIENT",
        Some(PauseKind::Writes) => may_write(),
        None => false,
    };
    ctx.client.is_postponed |= is_postponed;
    is_postponed
}

/// Runs one request and writes its reply.
pub(crate) fn execute(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) {
    match names::find(args.at(0)) {
        Some(index) => execute_known(ctx, index, args, false, reply),
        None => refuse_unknown(ctx, args, reply),
    }
}

/// What makes a command panic in a test of what becomes of its connection.
#[cfg(test)]
pub(crate) const PANIC: &[u8] = b"PANIC";

fn refuse_unknown(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) {
    #[cfg(test)]
    assert!(args.at(0) != PANIC, "a test asked for it");
    ctx.client.fail_transaction();
    refuse(ctx, None, &unknown_command(args), reply);
}

/// As [`execute`], for a request whose row was found already. `is_permitted`: it is known that the user may run it.
fn execute_known(ctx: &mut Context<'_>, index: usize, args: Args<'_>, is_permitted: bool, reply: &mut Reply) {
    let spec = &table::TABLE[index];
    ctx.client.entry.last_command.store(index as u32, Ordering::Relaxed);
    if let Err(error) = admit(ctx, index, args, is_permitted) {
        ctx.client.fail_transaction();
        let error = if spec.name == "EXEC" { transaction::abort(ctx, &error) } else { error };
        return refuse(ctx, Some(index), &error, reply);
    }
    if ctx.client.transaction.is_some() && !spec.flags.has(Flags::NOT_QUEUED) {
        return match transaction::queue(ctx, index, args) {
            Ok(()) => reply.simple("QUEUED"),
            Err(error) => refuse(ctx, Some(index), &error, reply),
        };
    }
    let (subscriptions, has_subscribed, before) = (ctx.client.subscriptions(), ctx.client.subscribed.is_some(), reply.len());
    call(ctx, index, args, reply);
    let client = &ctx.client;
    let has_subscribed = has_subscribed || client.subscribed.is_some();
    if has_subscribed && (client.subscriptions() < subscriptions || client.subscriptions() == 0) {
        // What was published until then goes first: behind the confirmation the client would take it for the next reply.
        reply.insert(before, &client.entry.outbox.take());
    }
}

/// Checks everything that can be known before a command runs or is queued.
fn admit(ctx: &mut Context<'_>, index: usize, args: Args<'_>, is_permitted: bool) -> Outcome {
    let spec = &table::TABLE[index];
    spec.check_arity(args)?;
    if !ctx.client.is_authenticated && !spec.flags.has(Flags::NO_AUTH) {
        return Err(CommandError::NO_AUTH);
    }
    if ctx.client.transaction.is_some() && spec.flags.has(Flags::NO_MULTI) {
        return Err(CommandError::new(format!("ERR {} is not allowed in transactions", spec.name)));
    }
    if !is_permitted {
        permission::check(ctx, index, args)?;
    }
    let is_subscriber = ctx.client.subscriptions() > 0 && ctx.client.protocol() == Protocol::Resp2;
    if is_subscriber && !spec.flags.has(Flags::WHILE_SUBSCRIBED) {
        return Err(CommandError::new(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            spec.name.to_ascii_lowercase()
        )));
    }
    if !ctx.shared.gate.is_open() {
        pass_gate(ctx, spec)?;
    }
    if ctx.config.maxmemory > 0 {
        if spec.flags.has(Flags::DENYOOM) {
            make_room(ctx).inspect_err(|_| ctx.shared.counters.count_out_of_memory())?;
        } else if spec.flags.has(Flags::RUNS_SCRIPT) && ctx.client.transaction.is_none() {
            // What it will write is not known yet, and under the locks that it runs with nothing is evicted.
            ctx.is_full = make_room(ctx).is_err();
        }
    }
    Ok(())
}

/// Refuses what may not run now.
fn pass_gate(ctx: &Context<'_>, spec: &Spec) -> Outcome {
    let gate = &ctx.shared.gate;
    if gate.has(Hindrance::Loading) && !spec.flags.has(Flags::LOADING) {
        return Err(CommandError::LOADING);
    }
    // Of a script it is not known what it will read: as in Redis, it is refused whole, although its row says STALE.
    if gate.has(Hindrance::Stale) && (!spec.flags.has(Flags::STALE) || spec.flags.has(Flags::RUNS_SCRIPT)) {
        return Err(CommandError::MASTER_DOWN);
    }
    if spec.flags.has(Flags::WRITE) { may_write(ctx) } else { Ok(()) }
}

/// Whether writes may run now; scripts and EXEC ask for those inside of them.
pub(crate) fn may_write(ctx: &Context<'_>) -> Outcome {
    ctx.shared.gate.refusal_of_write().map_or(Ok(()), |refusal| Err(CommandError::new(refusal)))
}

/// Evicts until a write may go on, or refuses it.
pub(crate) fn make_room(ctx: &Context<'_>) -> Outcome {
    let config = &ctx.config;
    let shared = ctx.shared;
    let has_room = shared.keyspace.evict_to(config.maxmemory, config.maxmemory_policy, config.maxmemory_samples, ctx.now, shared);
    if has_room { Ok(()) } else { Err(CommandError::OUT_OF_MEMORY) }
}

/// Locks what the command needs and runs it.
fn call(ctx: &mut Context<'_>, index: usize, args: Args<'_>, reply: &mut Reply) {
    let spec = &table::TABLE[index];
    let shared = ctx.shared;
    let started = Instant::now();
    let before = reply.len();
    let outcome = match spec.run {
        Run::Client(run) => run(ctx, args, reply),
        Run::Keys(run) => {
            let db = ctx.client.db();
            let hashed = hashed_keys(shared, spec, args);
            let mut keys = lock_for(shared, spec, &hashed, db, ctx.now);
            let outcome = match keys.is_follower() && spec.flags.has(Flags::WRITE) {
                // The role may have changed behind the look at the gate.
                true => may_write(ctx).and_then(|()| run_recorded(&mut keys, run, args, reply)),
                false => run_recorded(&mut keys, run, args, reply),
            };
            stand_behind(ctx, spec, &outcome);
            if keys.db() != db {
                ctx.client.set_db(keys.db());
            }
            ctx.client.wrote(keys.commit());
            outcome
        }
        Run::Both(run) => {
            let mut keys = shared.keyspace.lock_all(ctx.client.db(), ctx.now, shared);
            // What a script writes is seen together, and repeated together.
            keys.begin_atomic();
            let outcome = run_on_both(ctx, &mut keys, (index, run), args, reply);
            stand_behind(ctx, spec, &outcome);
            ctx.client.wrote(keys.commit());
            outcome
        }
    };
    let took = started.elapsed();
    finish(ctx, index, outcome, before, reply);
    count(ctx, index, args, took.as_nanos() as u64);
}

/// Counts a request that came to its end.
fn count(ctx: &Context<'_>, index: usize, args: Args<'_>, nanoseconds: u64) {
    ctx.stats.called(index, nanoseconds);
    slowlog::note(ctx, index, args, nanoseconds);
}

/// The keys that a request names, hashed once for the locks and the view.
fn hashed_keys<'a>(shared: &Shared, spec: &Spec, args: Args<'a>) -> SmallVec<[HashedKey<'a>; 4]> {
    let mut hashed = SmallVec::new();
    hash_keys(shared, spec, args, &mut hashed);
    hashed
}

#[inline]
fn hash_keys<'a>(shared: &Shared, spec: &Spec, args: Args<'a>, hashed: &mut SmallVec<impl Array<Item = HashedKey<'a>>>) {
    match spec.keys.only().map(|position| args.get(position)) {
        Some(Some(key)) => hashed.push(shared.keyspace.hashed(key)),
        Some(None) => {}
        None => hashed.extend(spec.keys.keys(args).map(|key| shared.keyspace.hashed(key))),
    }
}

/// Locks what a request needs.
fn lock_for<'a>(shared: &'a Shared, spec: &Spec, hashed: &'a [HashedKey<'a>], db: usize, now: Now) -> Keys<'a> {
    if spec.flags.has(Flags::WHOLE_KEYSPACE) {
        shared.keyspace.lock_all(db, now, shared)
    } else {
        shared.keyspace.lock_hashed(hashed, db, now, shared)
    }
}

/// As [`call`], under locks that EXEC or a script holds already. Gives when it ended.
pub(crate) fn call_locked(
    ctx: &mut Context<'_>,
    keys: &mut Keys<'_>,
    index: usize,
    args: Args<'_>,
    reply: &mut Reply,
) -> Instant {
    let spec = &table::TABLE[index];
    let started = Instant::now();
    let before = reply.len();
    let outcome = match spec.run {
        // None of those that EXEC and scripts may run selects a database.
        Run::Client(run) => run(ctx, args, reply),
        Run::Keys(run) => run_recorded(keys, run, args, reply),
        Run::Both(run) => run_on_both(ctx, keys, (index, run), args, reply),
    };
    stand_behind(ctx, spec, &outcome);
    let ended = Instant::now();
    finish(ctx, index, outcome, before, reply);
    ctx.stats.called(index, (ended - started).as_nanos() as u64);
    ended
}

/// A write that found nothing to change tells that the change is made: that was acknowledged to nobody before it is safe, so the answer
/// waits for all that was written until now. Called under the locks that the command ran with; of one that wrote, the offset behind that
/// takes the place of this one. An error acknowledges nothing. On a replica there is nothing to wait for: it is the primary that
/// acknowledged the change, and what makes that safe (this very node, it may be) is not told here.
#[inline]
fn stand_behind(ctx: &mut Context<'_>, spec: &Spec, outcome: &Outcome) {
    if !spec.flags.has(MAY_WRITE) || outcome.is_err() {
        return;
    }
    let journal = &ctx.shared.journal;
    if journal.barrier.promises_something() && !ctx.shared.keyspace.is_follower() {
        ctx.client.wrote(Some(journal.offset()));
    }
}

/// Runs a command on keys, and records it if it changed something: by its own words where it has not said others.
#[inline]
fn run_recorded(keys: &mut Keys<'_>, run: table::OnKeys, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let changes = keys.changes();
    let outcome = run(keys, args, reply);
    keys.record_command(keys.changes() != changes, args.iter());
    outcome
}

/// Runs a command on the keyspace and the connection: a script, say, whose result may hold errors.
fn run_on_both(
    ctx: &mut Context<'_>,
    keys: &mut Keys<'_>,
    (index, run): (usize, table::OnBoth),
    args: Args<'_>,
    reply: &mut Reply,
) -> Outcome {
    let outcome = run(ctx, keys, args, reply);
    let failures = std::mem::take(&mut ctx.script_errors.failures);
    if failures > 0 {
        ctx.stats.failed(index, failures);
    }
    outcome
}

/// Puts an error in place of what the command wrote since the reply had `before` bytes.
#[inline]
fn finish(ctx: &mut Context<'_>, index: usize, outcome: Outcome, before: usize, reply: &mut Reply) {
    if outcome.is_err() || reply.is_over() {
        fail(ctx, index, outcome, before, reply);
    }
}

#[cold]
fn fail(ctx: &mut Context<'_>, index: usize, outcome: Outcome, before: usize, reply: &mut Reply) {
    let error = match outcome {
        Err(error) if !reply.is_over() => error,
        _ => CommandError::REPLY_TOO_LARGE,
    };
    reply.truncate(before);
    reply.error(error.text());
    if !std::mem::take(&mut ctx.script_errors.is_raised_counted) {
        ctx.shared.errors.count(error.prefix());
    }
    ctx.stats.failed(index, 1);
}

pub(crate) fn refuse(ctx: &Context<'_>, index: Option<usize>, error: &CommandError, reply: &mut Reply) {
    if let Some(index) = index {
        ctx.stats.rejected(index);
    }
    ctx.shared.errors.count(error.prefix());
    reply.error(error.text());
}

/// Takes a connection that ended out of every registry of its commands.
pub(crate) fn leave(shared: &Shared, client: &mut Client, now: Now) {
    pubsub::unsubscribe_all(shared, client);
    shared.tracking.remove(&client.entry);
    transaction::drop_watch(shared, client, now);
}

fn unknown_command(args: Args<'_>) -> CommandError {
    /// Bytes of arguments that Redis repeats.
    const SHOWN_BYTES_MAX: usize = 128;
    let mut shown = String::new();
    for argument in args.from(1).iter() {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let room = SHOWN_BYTES_MAX - shown.len();
        shown += &format!("'{}' ", printable(&argument[..argument.len().min(room)]));
    }
    CommandError::new(format!("ERR unknown command '{}', with args beginning with: {shown}", printable(args.at(0))))
}
