//! Snapshots and the node's end: SAVE, BGSAVE, LASTSAVE, SHUTDOWN; single values in the snapshot's format: DUMP, RESTORE.

use crate::{
    command::{
        CommandError, Context, Flags, Outcome, Spec,
        parse::{integer, is_word},
        table::{GROW, READ, rows},
    },
    keyspace::{Class, Keys, Usage},
    persistence::rdb::{Encoder, undump},
    protocol::{Args, Reply},
};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);
const LAST: Flags = Flags::LOADING.and(Flags::STALE).and(Flags::FAST);
const END: Flags = ADMIN.and(Flags::NO_MULTI).and(Flags::LOADING).and(Flags::STALE);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "SAVE" 1 ADMIN.and(Flags::NO_MULTI), "server" NONE Client(save) "1.0.0" "Synchronously saves the database(s) to disk.";
    "BGSAVE" -1 ADMIN, "server" NONE Client(bgsave) "1.0.0" "Asynchronously saves the database(s) to disk.";
    "LASTSAVE" 1 LAST, "server" NONE Client(lastsave) "1.0.0" "Returns the Unix timestamp of the last successful save to disk.";
    "SHUTDOWN" -1 END, "server" NONE Client(shutdown) "1.0.0" "Synchronously saves the database(s) to disk and shuts down the Redis server.";
    "DUMP" 2 READ, "keyspace" ONE Keys(dump) "2.6.0" "Returns a serialized representation of the value stored at a key.";
    "RESTORE" -4 GROW, "keyspace" ONE Keys(restore) "2.6.0" "Creates a key from the serialized representation of a value.";
};

fn save(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    ctx.shared.saver.save(ctx.shared).map_err(|error| CommandError::new(format!("ERR {error}")))?;
    reply.ok();
    Ok(())
}

fn bgsave(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let saver = &ctx.shared.saver;
    let is_later = match args.get(1) {
        None => false,
        Some(word) if is_word(word, "SCHEDULE") && args.len() == 2 => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    if saver.ask() {
        reply.simple("Background saving started");
    } else if is_later {
        saver.ask_later();
        reply.simple("Background saving scheduled");
    } else {
        return Err(CommandError::fixed("ERR Background save already in progress"));
    }
    Ok(())
}

fn lastsave(ctx: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.integer(ctx.shared.saver.report().last_save as i64);
    Ok(())
}

fn shutdown(ctx: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (mut saves, mut is_forced) = (None, false);
    for option in args.from(1).iter() {
        match option {
            word if is_word(word, "SAVE") && saves.is_none() => saves = Some(true),
            word if is_word(word, "NOSAVE") && saves.is_none() => saves = Some(false),
            word if is_word(word, "FORCE") => is_forced = true,
            // Replicas that lag behind are waited for by a second at the most, whatever is said.
            word if is_word(word, "NOW") => {}
            word if is_word(word, "ABORT") && args.len() == 2 => {
                return Err(CommandError::fixed("ERR No shutdown in progress."));
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    // Neither the old data nor the primary's: what is on disk is worth more.
    let saves = saves.unwrap_or(!ctx.config.save.is_empty()) && !ctx.shared.replication.lacks_data();
    // Before anything ends: a node that cannot keep its data goes on serving it.
    if saves
        && let Err(error) = ctx.shared.saver.save(ctx.shared)
        && !is_forced
    {
        tracing::warn!(
            "SHUTDOWN is refused, since the data cannot be saved now: {error}. With FORCE or by SIGTERM the node ends anyway"
        );
        return Err(CommandError::fixed("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    ctx.shared.end(saves);
    ctx.client.closes_after_reply = true;
    reply.clear();
    Ok(())
}

fn dump(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let bytes = keys.get(args.at(1)).map(|value| Encoder { compresses: true }.dump(value));
    reply.bulk_or_null(bytes.as_deref());
    Ok(())
}

fn restore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (mut replaces, mut is_absolute, mut usage) = (false, false, Usage::Unknown);
    let mut options = args.from(4).iter();
    while let Some(option) = options.next() {
        match option {
            word if is_word(word, "REPLACE") => replaces = true,
            word if is_word(word, "ABSTTL") => is_absolute = true,
            word if is_word(word, "IDLETIME") => {
                let seconds = integer(options.next().ok_or(CommandError::SYNTAX)?)?;
                let seconds =
                    u64::try_from(seconds).map_err(|_| CommandError::fixed("ERR Invalid IDLETIME value, must be >= 0"))?;
                usage = Usage::IdleSeconds(seconds);
            }
            word if is_word(word, "FREQ") => {
                let counter = integer(options.next().ok_or(CommandError::SYNTAX)?)?;
                let counter =
                    u8::try_from(counter).map_err(|_| CommandError::fixed("ERR Invalid FREQ value, must be >= 0 and <= 255"))?;
                usage = Usage::Frequency(counter);
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let key = args.at(1);
    if !replaces && keys.contains(key) {
        return Err(CommandError::fixed("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(integer(args.at(2))?).map_err(|_| CommandError::fixed("ERR Invalid TTL value, must be >= 0"))?;
    let value = undump(args.at(3)).ok_or(CommandError::fixed("ERR DUMP payload version or checksum are wrong"))?;
    let now_ms = keys.now().unix_ms;
    let expires_at_ms = match ttl {
        0 => None,
        at if is_absolute => Some(at),
        ttl => Some(now_ms.saturating_add(ttl)),
    };
    if expires_at_ms.is_some_and(|at| at <= now_ms) {
        // Its time has passed: what was there goes, and nothing comes.
        if keys.delete(key) {
            keys.record(&[b"DEL", key]);
        }
    } else {
        keys.restore(key, value, expires_at_ms, usage);
        // In the stream a time to live is a moment.
        let at = expires_at_ms.unwrap_or(0).to_string();
        keys.record(&[b"RESTORE", key, at.as_bytes(), args.at(3), b"REPLACE", b"ABSTTL"]);
        keys.notify(Class::Generic, "restore", key);
    }
    reply.ok();
    Ok(())
}
