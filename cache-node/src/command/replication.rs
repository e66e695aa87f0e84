//! REPLICAOF, FAILOVER, ROLE, PSYNC, REPLCONF, WAIT, WAITAOF.

use std::time::Duration;

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        error::printable,
        parse::{integer, is_word, timeout},
        table::rows,
    },
    keyspace::Keys,
    node::Hindrance,
    protocol::{Args, Reply},
    replication::{FailoverRequest, FailoverState, PrimaryAddress, SyncRequest, Wait, WaitFor},
};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::STALE);
const ANY_TIME: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
const SYNC: Flags = ADMIN.and(Flags::NO_MULTI);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "REPLICAOF" 3 ADMIN.and(Flags::LOADING), "server" NONE Both(replicaof) "5.0.0" "Configures a server as replica of another, or promotes it to a master.";
    "SLAVEOF" 3 ADMIN.and(Flags::LOADING), "server" NONE Both(replicaof) "1.0.0" "Sets a Redis server as a replica of another, or promotes it to being a master.";
    "FAILOVER" -1 ADMIN, "server" NONE Both(failover) "6.2.0" "Starts a coordinated failover from a server to one of its replicas.";
    "ROLE" 1 ANY_TIME.and(Flags::FAST), "server" NONE Client(role) "2.8.12" "Returns the replication role.";
    "PSYNC" -3 SYNC, "server" NONE Client(psync) "2.8.0" "An internal command used in replication.";
    "SYNC" 1 SYNC, "server" NONE Client(sync) "1.0.0" "An internal command used in replication.";
    "REPLCONF" -1 ADMIN.and(Flags::LOADING), "server" NONE Client(replconf) "3.0.0" "An internal command for configuring the replication stream.";
    "WAIT" 3 Flags::NOSCRIPT, "keyspace" NONE Client(wait) "3.0.0" "Blocks until the asynchronous replication of all preceding write commands sent by the connection is completed.";
    "WAITAOF" 4 Flags::NOSCRIPT, "keyspace" NONE Client(waitaof) "7.2.0" "Blocks until all of the preceding write commands sent by the connection are written to the append-only file of the master and/or replicas.";
};

const NO_ROLE_CHANGES: &str = "ERR this node takes no changes of its role (role-changes no): the controller of its cluster says who follows \
                               whom, and what is copied here would take the place of the cluster's data. To move data in, load a snapshot of \
                               it: cache-node cluster restore FILE. For another primary: cache-node cluster failover";

/// The controller says before that it is one. That is no secret: it keeps a slip away, and whoever reaches the port may do all else there.
fn check_role_changes(ctx: &Context<'_>) -> Outcome {
    let is_supervisor = ctx.client.sync_hints.as_ref().is_some_and(|hints| hints.is_supervisor);
    if ctx.config.takes_role_changes || is_supervisor { Ok(()) } else { Err(CommandError::fixed(NO_ROLE_CHANGES)) }
}

fn replicaof(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    check_role_changes(ctx)?;
    let shared = ctx.shared;
    // A primary that hangs in the middle of a sync must not keep this node; what is loaded at the start comes first.
    if shared.gate.has(Hindrance::Loading) && !shared.replication.lacks_data() {
        return Err(CommandError::LOADING);
    }
    if shared.replication.failover_state() != FailoverState::None {
        return Err(CommandError::fixed("ERR REPLICAOF not allowed while failing over."));
    }
    let primary =
        if is_word(args.at(1), "NO") && is_word(args.at(2), "ONE") { None } else { Some(address(args.at(1), args.at(2))?) };
    if primary.is_some() && shared.replication.primary() == primary {
        reply.simple("OK Already connected to specified master");
        return Ok(());
    }
    shared.replication.take_role(shared, keys, primary, ctx.now);
    reply.ok();
    Ok(())
}

fn address(host: &[u8], port: &[u8]) -> Result<PrimaryAddress, CommandError> {
    let port = integer(port).ok().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(CommandError::fixed("ERR Invalid master port"))?;
    let host = std::str::from_utf8(host).ok().filter(|host| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()));
    let host = host.ok_or(CommandError::fixed("ERR Invalid master host"))?;
    Ok(PrimaryAddress { host: host.to_owned(), port })
}

fn failover(ctx: &mut Context<'_>, keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    check_role_changes(ctx)?;
    let shared = ctx.shared;
    if args.len() == 2 && is_word(args.at(1), "ABORT") {
        if !shared.replication.abort_failover(shared, keys, ctx.now) {
            return Err(CommandError::fixed("ERR No failover in progress."));
        }
        reply.ok();
        return Ok(());
    }
    let mut request = FailoverRequest { target: None, is_forced: false, timeout: None };
    let mut options = args.from(1).iter();
    while let Some(option) = options.next() {
        match option {
            word if is_word(word, "TO") && request.target.is_none() => {
                let (Some(host), Some(port)) = (options.next(), options.next()) else { return Err(CommandError::SYNTAX) };
                // A name that nobody can have is that of no replica.
                integer(port)?;
                let nobody = CommandError::fixed("ERR FAILOVER target HOST and PORT is not a replica.");
                request.target = Some(address(host, port).map_err(|_| nobody)?);
            }
            word if is_word(word, "TIMEOUT") && request.timeout.is_none() => {
                let milliseconds = integer(options.next().ok_or(CommandError::SYNTAX)?)?;
                let milliseconds = u64::try_from(milliseconds).ok().filter(|milliseconds| *milliseconds > 0);
                let milliseconds = milliseconds.ok_or(CommandError::fixed("ERR FAILOVER timeout must be greater than 0"))?;
                request.timeout = Some(Duration::from_millis(milliseconds));
            }
            word if is_word(word, "FORCE") && !request.is_forced => request.is_forced = true,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    shared.replication.begin_failover(shared, keys, request).map_err(CommandError::fixed)?;
    reply.ok();
    Ok(())
}

fn role(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let shared = ctx.shared;
    let offset = shared.journal.offset() as i64;
    let Some(primary) = shared.replication.primary() else {
        let replicas = shared.replication.replicas.all();
        reply.array(3);
        reply.bulk(b"master");
        reply.integer(offset);
        reply.array(replicas.len());
        for replica in replicas {
            reply.array(3);
            reply.bulk(replica.hints.address(replica.client.address.ip()).as_bytes());
            reply.bulk_integer(i64::from(replica.hints.listening_port));
            reply.bulk_integer(replica.confirmed() as i64);
        }
        return Ok(());
    };
    reply.array(5);
    reply.bulk(b"slave");
    reply.bulk(primary.host.as_bytes());
    reply.integer(i64::from(primary.port));
    reply.bulk(shared.replication.link().state.name().as_bytes());
    reply.integer(offset);
    Ok(())
}

fn psync(ctx: &mut Context<'_>, args: Args<'_>, _: &mut Reply) -> Outcome {
    let offset = integer(args.at(2))?;
    if args.get(3).is_some_and(|word| is_word(word, "FAILOVER")) {
        take_over(ctx, args.at(1))?;
    }
    // Offsets count from 1 here: the one of the next byte. `?` and -1 ask for a snapshot.
    let offset = u64::try_from(offset).ok().and_then(|offset| offset.checked_sub(1));
    let wanted = offset.map(|offset| (String::from_utf8_lossy(args.at(1)).into_owned(), offset));
    begin_sync(ctx, wanted, false)
}

/// The primary hands its role to this replica.
fn take_over(ctx: &mut Context<'_>, id: &[u8]) -> Outcome {
    let (shared, replication) = (ctx.shared, &ctx.shared.replication);
    let mut keys = shared.keyspace.lock_all(0, ctx.now, shared);
    let ids = replication.ids();
    if replication.primary().is_none() {
        // Asked again: the answer to the first request was lost. A refusal would make the asker a primary beside this one.
        if ids.former.is_some_and(|(former, _)| former.as_bytes() == id) {
            return Ok(());
        }
        return Err(CommandError::fixed("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if ids.id.as_bytes() != id {
        return Err(CommandError::fixed("ERR PSYNC FAILOVER replid must match my replid."));
    }
    tracing::info!(from = %ctx.client.entry.address, "the primary hands its role to this node");
    replication.take_role(shared, &mut keys, None, ctx.now);
    Ok(())
}

fn sync(ctx: &mut Context<'_>, _: Args<'_>, _: &mut Reply) -> Outcome {
    begin_sync(ctx, None, true)
}

/// The connection becomes a replica's, once what stands before is answered.
fn begin_sync(ctx: &mut Context<'_>, wanted: Option<(String, u64)>, is_old: bool) -> Outcome {
    if ctx.shared.replication.failover_state() != FailoverState::None {
        return Err(CommandError::fixed("NOMASTERLINK Can't SYNC while failing over"));
    }
    let hints = ctx.client.sync_hints.take().map(|hints| *hints).unwrap_or_default();
    ctx.client.sync = Some(Box::new(SyncRequest { hints, wanted, is_old }));
    ctx.client.closes_after_reply = true;
    Ok(())
}

fn replconf(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let hints = ctx.client.sync_hints.get_or_insert_default();
    for position in (1..args.len()).step_by(2) {
        let (option, value) = (args.at(position), args.at(position + 1));
        match option.to_ascii_lowercase().as_slice() {
            b"listening-port" => {
                let port = integer(value).ok().and_then(|port| u16::try_from(port).ok());
                hints.listening_port = port.ok_or(CommandError::NOT_AN_INTEGER)?;
            }
            b"ip-address" => {
                const ADDRESS_BYTES_MAX: usize = 255;
                if value.len() > ADDRESS_BYTES_MAX || !value.iter().all(u8::is_ascii_graphic) {
                    return Err(CommandError::fixed("ERR REPLCONF ip-address provided by replica instance is too long"));
                }
                hints.ip_address = (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned());
            }
            b"capa" => match value {
                b"eof" => hints.reads_eof = true,
                b"psync2" => hints.has_psync2 = true,
                b"confirms" => hints.confirms = true,
                _ => {}
            },
            b"version" => {}
            b"supervisor" => hints.is_supervisor = is_word(value, "YES"),
            // From a connection that is no replica's: nothing is answered, as in Redis.
            b"ack" | b"getack" => return Ok(()),
            _ => return Err(CommandError::new(format!("ERR Unrecognized REPLCONF option: {}", printable(option)))),
        }
    }
    reply.ok();
    Ok(())
}

fn wait(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let replicas = integer(args.at(1))?;
    let timeout = timeout(args.at(2))?;
    // Before the look at the role, so that no change of it slips through.
    let epoch = ctx.shared.replication.epoch();
    if ctx.shared.replication.primary().is_some() {
        return Err(CommandError::fixed(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be \
             writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let replicas = usize::try_from(replicas).unwrap_or(0);
    begin_wait(ctx, Wait { what: WaitFor::Replicas(replicas), offset: ctx.client.written_offset, epoch, timeout }, reply);
    Ok(())
}

fn waitaof(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let out_of_range = CommandError::fixed("ERR value is out of range, must be between 0 and 1");
    let is_local = match integer(args.at(1))? {
        0 => false,
        1 => true,
        _ => return Err(out_of_range),
    };
    let replicas = usize::try_from(integer(args.at(2))?).map_err(|_| CommandError::NOT_POSITIVE)?;
    let timeout = timeout(args.at(3))?;
    let epoch = ctx.shared.replication.epoch();
    if ctx.shared.replication.primary().is_some() {
        return Err(CommandError::fixed(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not propagated.",
        ));
    }
    if is_local && !ctx.shared.journal.barrier.has_log() {
        return Err(CommandError::fixed("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."));
    }
    begin_wait(
        ctx,
        Wait { what: WaitFor::Disk { is_local, replicas }, offset: ctx.client.written_offset, epoch, timeout },
        reply,
    );
    Ok(())
}

/// Answers at once what is there already, and where nothing may wait: inside EXEC.
fn begin_wait(ctx: &mut Context<'_>, wait: Wait, reply: &mut Reply) {
    if ctx.is_in_exec || wait.is_over(ctx.shared) {
        wait.answer(ctx.shared, reply);
    } else {
        ctx.client.wait = Some(Box::new(wait));
    }
}
