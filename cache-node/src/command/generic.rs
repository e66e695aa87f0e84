//! Commands on keys of any type.

use crate::{
    command::{
        CommandError, Flags, Outcome, Spec,
        error::printable,
        parse::{Base, Unit, integer, is_word, strict_integer, time_ms},
        subcommand::{self, Subcommand, subcommands},
        table::{GROW, READ, READ_FAST, READ_SHORT, WRITE, WRITE_FAST, rows},
    },
    keyspace::{Class, HashRef, Keys, Kind, Set, ValueRef, glob_matches},
    protocol::{Args, DecimalBuffer, Reply},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "DEL" -2 WRITE, "keyspace" ALL Keys(del) "1.0.0" "Deletes one or more keys.";
    "UNLINK" -2 WRITE_FAST, "keyspace" ALL Keys(del) "4.0.0" "Asynchronously deletes one or more keys.";
    "EXISTS" -2 READ_SHORT, "keyspace" ALL Keys(exists) "1.0.0" "Determines whether one or more keys exist.";
    "TOUCH" -2 READ_SHORT, "keyspace" ALL Keys(touch) "3.2.1" "Returns the number of existing keys out of those specified after updating the time they were last accessed.";
    "EXPIRE" -3 WRITE_FAST, "keyspace" ONE Keys(expire) "1.0.0" "Sets the expiration time of a key in seconds.";
    "PEXPIRE" -3 WRITE_FAST, "keyspace" ONE Keys(pexpire) "2.6.0" "Sets the expiration time of a key in milliseconds.";
    "EXPIREAT" -3 WRITE_FAST, "keyspace" ONE Keys(expireat) "1.2.0" "Sets the expiration time of a key to a Unix timestamp.";
    "PEXPIREAT" -3 WRITE_FAST, "keyspace" ONE Keys(pexpireat) "2.6.0" "Sets the expiration time of a key to a Unix milliseconds timestamp.";
    "PERSIST" 2 WRITE_FAST, "keyspace" ONE Keys(persist) "2.2.0" "Removes the expiration time of a key.";
    "TTL" 2 READ_SHORT, "keyspace" ONE Keys(ttl) "1.0.0" "Returns the expiration time in seconds of a key.";
    "PTTL" 2 READ_SHORT, "keyspace" ONE Keys(pttl) "2.6.0" "Returns the expiration time in milliseconds of a key.";
    "EXPIRETIME" 2 READ_SHORT, "keyspace" ONE Keys(expiretime) "7.0.0" "Returns the expiration time of a key as a Unix timestamp.";
    "PEXPIRETIME" 2 READ_SHORT, "keyspace" ONE Keys(pexpiretime) "7.0.0" "Returns the expiration time of a key as a Unix milliseconds timestamp.";
    "RENAME" 3 WRITE, "keyspace" TWO Keys(rename) "1.0.0" "Renames a key and overwrites the destination.";
    "RENAMENX" 3 WRITE_FAST, "keyspace" TWO Keys(renamenx) "1.0.0" "Renames a key only when the target key name doesn't exist.";
    "COPY" -3 GROW, "keyspace" TWO Keys(copy) "6.2.0" "Copies the value of a key to a new key.";
    "TYPE" 2 READ_SHORT, "keyspace" ONE Keys(kind) "1.0.0" "Determines the type of value stored at a key.";
    "OBJECT" -2 READ, "keyspace" SECOND Keys(object) "2.2.3" "A container for object introspection commands.";
    "MEMORY" -2 READ, "keyspace" SECOND Keys(memory) "4.0.0" "A container for memory diagnostics commands.";
    "SCAN" -2 READ.and(Flags::WHOLE_KEYSPACE), "keyspace" NONE Keys(scan) "2.8.0" "Iterates over the key names in the database.";
    "KEYS" 2 READ.and(Flags::WHOLE_KEYSPACE), "keyspace" NONE Keys(keys) "1.0.0" "Returns all key names that match a pattern.";
    "RANDOMKEY" 1 READ.and(Flags::WHOLE_KEYSPACE), "keyspace" NONE Keys(randomkey) "1.0.0" "Returns a random key name from the database.";
    "DBSIZE" 1 READ_FAST.and(Flags::WHOLE_KEYSPACE), "keyspace" NONE Keys(dbsize) "1.0.0" "Returns the number of keys in the database.";
    "FLUSHDB" -1 WRITE.and(Flags::WHOLE_KEYSPACE), "keyspace" NONE Keys(flushdb) "1.0.0" "Remove all keys from the current database.";
    "FLUSHALL" -1 WRITE.and(Flags::WHOLE_KEYSPACE), "keyspace" NONE Keys(flushall) "1.0.0" "Removes all keys from all databases.";
};

fn del(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let removed = args.from(1).iter().filter(|key| keys.delete(key)).count();
    reply.count(removed);
    Ok(())
}

fn exists(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let present = args.from(1).iter().filter(|key| keys.touch(key)).count();
    reply.count(present);
    Ok(())
}

fn touch(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    exists(keys, args, reply)
}

fn expire(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_time(keys, args, reply, Unit::Seconds, Base::Now, "expire")
}

fn pexpire(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_time(keys, args, reply, Unit::Milliseconds, Base::Now, "pexpire")
}

fn expireat(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_time(keys, args, reply, Unit::Seconds, Base::Epoch, "expireat")
}

fn pexpireat(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_time(keys, args, reply, Unit::Milliseconds, Base::Epoch, "pexpireat")
}

/// NX XX GT LT of the EXPIRE family.
#[derive(Default)]
struct ExpireOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

fn expire_options(args: Args<'_>) -> Result<ExpireOptions, CommandError> {
    let mut options = ExpireOptions::default();
    for option in args.from(3).iter() {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => options.nx = true,
            b"XX" => options.xx = true,
            b"GT" => options.gt = true,
            b"LT" => options.lt = true,
            _ => return Err(CommandError::new(format!("ERR Unsupported option {}", printable(option)))),
        }
    }
    if options.nx && (options.xx || options.gt || options.lt) {
        return Err(CommandError::fixed("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if options.gt && options.lt {
        return Err(CommandError::fixed("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(options)
}

fn set_time(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, unit: Unit, base: Base, command: &str) -> Outcome {
    let key = args.at(1);
    let at = time_ms(args.at(2), unit, base, keys.now(), command)?;
    let options = expire_options(args)?;
    // A key without a time to live counts as infinitely late: GT never holds for it, LT always.
    let may_set = keys.expires_at_ms(key).is_some_and(|current| {
        let current = current.map(|current| current as i64);
        !(options.nx && current.is_some()
            || options.xx && current.is_none()
            || options.gt && current.is_none_or(|current| at <= current)
            || options.lt && current.is_some_and(|current| at >= current))
    });
    if may_set {
        let at = u64::try_from(at).unwrap_or(0);
        set_expiry(keys, key, at);
    }
    reply.flag(may_set);
    Ok(())
}

/// Sets a time to live, and tells and records it as what it is: a moment, or the end of the key.
pub(super) fn set_expiry(keys: &mut Keys<'_>, key: &[u8], at: u64) {
    if !keys.set_expiry(key, Some(at)) {
        return;
    }
    if at > keys.now().unix_ms {
        keys.notify(Class::Generic, "expire", key);
        keys.record(&[b"PEXPIREAT", key, DecimalBuffer::default().format(at as i64)]);
    } else {
        keys.record(&[b"DEL", key]);
    }
}

fn persist(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let had_time = keys.expires_at_ms(args.at(1)).flatten().is_some();
    if had_time {
        keys.set_expiry(args.at(1), None);
        keys.notify(Class::Generic, "persist", args.at(1));
    }
    reply.flag(had_time);
    Ok(())
}

fn ttl(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    // Rounded to the nearest second, as Redis does.
    let now = keys.now().unix_ms;
    answer_time(keys, args, reply, |at| (at - now + 500) / 1000)
}

fn pttl(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let now = keys.now().unix_ms;
    answer_time(keys, args, reply, |at| at - now)
}

fn expiretime(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer_time(keys, args, reply, |at| (at + 500) / 1000)
}

fn pexpiretime(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer_time(keys, args, reply, |at| at)
}

/// -2 without the key, -1 without a time, else what `convert` makes of it.
fn answer_time(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, convert: impl Fn(u64) -> u64) -> Outcome {
    match keys.read_expires_at_ms(args.at(1)) {
        None => reply.integer(-2),
        Some(None) => reply.integer(-1),
        Some(Some(at)) => reply.integer(convert(at) as i64),
    }
    Ok(())
}

fn rename(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    move_key(keys, args.at(1), args.at(2))?;
    reply.ok();
    Ok(())
}

fn renamenx(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if !keys.contains(args.at(1)) {
        return Err(CommandError::NO_SUCH_KEY);
    }
    let is_free = !keys.contains(args.at(2));
    if is_free {
        move_key(keys, args.at(1), args.at(2))?;
    }
    reply.flag(is_free);
    Ok(())
}

fn move_key(keys: &mut Keys<'_>, from: &[u8], to: &[u8]) -> Outcome {
    if from == to {
        return if keys.contains(from) { Ok(()) } else { Err(CommandError::NO_SUCH_KEY) };
    }
    let (value, expires_at_ms) = keys.take(from).ok_or(CommandError::NO_SUCH_KEY)?;
    keys.set(to, value, expires_at_ms);
    keys.notify(Class::Generic, "rename_from", from);
    keys.notify(Class::Generic, "rename_to", to);
    Ok(())
}

fn copy(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let source_db = keys.db();
    let mut target_db = source_db;
    let mut replaces = false;
    let mut rest = args.from(3).iter();
    while let Some(option) = rest.next() {
        if is_word(option, "REPLACE") {
            replaces = true;
        } else if is_word(option, "DB") {
            let db = integer(rest.next().ok_or(CommandError::SYNTAX)?)?;
            target_db = usize::try_from(db).map_err(|_| CommandError::DB_OUT_OF_RANGE)?;
            if !keys.select(target_db) {
                return Err(CommandError::DB_OUT_OF_RANGE);
            }
            keys.select(source_db);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let (source, target) = (args.at(1), args.at(2));
    if source == target && source_db == target_db {
        return Err(CommandError::fixed("ERR source and destination objects are the same"));
    }
    let copied = keys.get(source).map(ValueRef::to_value);
    let expires_at_ms = keys.expires_at_ms(source).flatten();
    // A key's shard is the same in every database, so the target's is locked as well.
    keys.select(target_db);
    let value = copied.filter(|_| replaces || !keys.contains(target));
    let is_copied = value.is_some();
    if let Some(value) = value {
        keys.set(target, value, expires_at_ms);
        keys.notify(Class::Generic, "copy_to", target);
    }
    keys.select(source_db);
    reply.flag(is_copied);
    Ok(())
}

fn kind(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.simple(keys.kind(args.at(1)).map_or("none", Kind::name));
    Ok(())
}

pub(super) const OBJECT: &[Subcommand] = subcommands! {
    "ENCODING" 3 "<key>" "2.2.3" "Return the kind of internal representation used to store the value of a key.";
    "FREQ" 3 "<key>" "4.0.0" "Return the access frequency of a key, under an LFU maxmemory-policy.";
    "IDLETIME" 3 "<key>" "2.2.3" "Return the seconds since the last access to a key, under any other maxmemory-policy.";
    "REFCOUNT" 3 "<key>" "2.2.3" "Return the number of references to the value of a key.";
    "HELP" 2 "" "6.2.0" "Print this help.";
};

fn object(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let subcommand = subcommand::find("OBJECT", OBJECT, args)?;
    if subcommand == "HELP" {
        subcommand::help("OBJECT", OBJECT, reply);
        return Ok(());
    }
    let key = args.at(2);
    let Some((idle_ms, frequency)) = keys.idle_and_frequency(key) else {
        reply.null();
        return Ok(());
    };
    match subcommand {
        "ENCODING" => {
            let encoding = keys.peek(key).map_or("none", encoding);
            reply.bulk(encoding.as_bytes());
        }
        "REFCOUNT" => reply.integer(1),
        "FREQ" if keys.counts_frequency() => reply.integer(i64::from(frequency)),
        "FREQ" => {
            return Err(CommandError::fixed(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
                 policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        _ if keys.counts_frequency() => {
            return Err(CommandError::fixed(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at \
                 runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        _ => reply.integer((idle_ms / 1000) as i64),
    }
    Ok(())
}

/// The name that Redis gives to a representation with the same properties; clients only show it.
fn encoding(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Str(string) if strict_integer(string).is_some() => "int",
        ValueRef::Str(string) if string.len() <= EMBEDDED_BYTES_MAX => "embstr",
        ValueRef::Str(_) => "raw",
        ValueRef::Hash(HashRef::Packed(_)) => "listpack",
        ValueRef::Hash(HashRef::Table(_)) => "hashtable",
        ValueRef::Set(set) => match set {
            _ if is_integer_set(set) => "intset",
            Set::Packed { .. } => "listpack",
            Set::Table { .. } => "hashtable",
        },
        ValueRef::SortedSet(set) if set.is_small() => "listpack",
        ValueRef::SortedSet(_) => "skiplist",
        ValueRef::List(list) if list.heap_bytes() <= LISTPACK_BYTES_MAX => "listpack",
        ValueRef::List(_) => "quicklist",
    }
}

/// Bytes up to which Redis keeps a string beside its object (`OBJ_ENCODING_EMBSTR_SIZE_LIMIT`).
const EMBEDDED_BYTES_MAX: usize = 44;

/// Bytes up to which Redis keeps a list in one listpack (`list-max-listpack-size -2`).
const LISTPACK_BYTES_MAX: usize = 8 * 1024;

/// Whether Redis would hold the set as sorted integers (`set-max-intset-entries` 512).
fn is_integer_set(set: &Set) -> bool {
    const INTEGERS_MAX: usize = 512;
    set.len() <= INTEGERS_MAX && set.iter().all(|member| strict_integer(member).is_some())
}

pub(super) const MEMORY: &[Subcommand] = subcommands! {
    "USAGE" -3 "<key> [SAMPLES <count>]" "4.0.0" "Return the memory in bytes that a key and its value take. Sizes are counted: SAMPLES is not needed.";
    "HELP" 2 "" "4.0.0" "Print this help.";
};

fn memory(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if subcommand::find("MEMORY", MEMORY, args)? == "HELP" {
        subcommand::help("MEMORY", MEMORY, reply);
        return Ok(());
    }
    match args.get(3) {
        None => {}
        Some(word) if is_word(word, "SAMPLES") && args.len() == 5 => {
            integer(args.at(4))?;
        }
        Some(_) => return Err(CommandError::SYNTAX),
    }
    match keys.used_bytes(args.at(2)) {
        Some(bytes) => reply.count(bytes),
        None => reply.null(),
    }
    Ok(())
}

/// Options of the SCAN family.
pub(crate) struct ScanOptions<'a> {
    pub(crate) pattern: Option<&'a [u8]>,
    pub(crate) count: usize,
    kind: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// MATCH and COUNT, and TYPE where it is allowed, from `args`.
    pub(crate) fn parse(args: Args<'a>, allows_type: bool) -> Result<ScanOptions<'a>, CommandError> {
        /// Elements visited per call when the client says nothing (Redis: 10).
        const COUNT_DEFAULT: usize = 10;
        let mut options = ScanOptions { pattern: None, count: COUNT_DEFAULT, kind: None };
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let argument = rest.next().ok_or(CommandError::SYNTAX)?;
            if is_word(option, "MATCH") {
                options.pattern = Some(argument);
            } else if is_word(option, "COUNT") {
                let count = integer(argument)?;
                options.count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(CommandError::SYNTAX)?;
            } else if allows_type && is_word(option, "TYPE") {
                options.kind = Some(argument);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob_matches(pattern, name))
    }

    /// Writes the next cursor and the `count` elements that were written to `found`.
    pub(crate) fn answer(&self, next: u64, count: usize, found: &Reply, reply: &mut Reply) {
        reply.array(2);
        reply.bulk(next.to_string().as_bytes());
        reply.array(count);
        reply.raw(found.bytes());
    }
}

/// A cursor argument: what `strtoul` takes in Redis, so that nothing at all is 0 and a minus wraps around.
pub(crate) fn cursor(text: &[u8]) -> Result<u64, CommandError> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        _ => (false, text),
    };
    let number = match digits {
        [] if text.is_empty() => Some(0),
        [b'0'..=b'9', ..] => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok()),
        _ => None,
    };
    let number = number.ok_or(CommandError::INVALID_CURSOR)?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

fn scan(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let start = cursor(args.at(1))?;
    let options = ScanOptions::parse(args.from(2), true)?;
    let mut found = Reply::new(reply.protocol());
    let mut count = 0;
    let next = keys.scan(start, options.count, |key, kind| {
        let has_kind = options.kind.is_none_or(|wanted| is_word(wanted, kind.name()));
        if has_kind && options.matches(key) {
            found.bulk(key);
            count += 1;
        }
    });
    options.answer(next, count, &found, reply);
    Ok(())
}

fn keys(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let pattern = args.at(1);
    let mark = reply.open();
    let mut count = 0;
    keys.for_each(|key| {
        if glob_matches(pattern, key) {
            reply.bulk(key);
            count += 1;
        }
    });
    reply.close_array(mark, count);
    Ok(())
}

fn randomkey(keys: &mut Keys<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let key = keys.random_key();
    reply.bulk_or_null(key.as_deref());
    Ok(())
}

fn dbsize(keys: &mut Keys<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.count(keys.len());
    Ok(())
}

fn flushdb(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    check_flush_mode(args)?;
    keys.flush().drop_aside();
    reply.ok();
    Ok(())
}

fn flushall(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    check_flush_mode(args)?;
    keys.flush_all().drop_aside();
    reply.ok();
    Ok(())
}

fn check_flush_mode(args: Args<'_>) -> Outcome {
    match args.get(1) {
        None => Ok(()),
        Some(mode) if args.len() == 2 && (is_word(mode, "SYNC") || is_word(mode, "ASYNC")) => Ok(()),
        Some(_) => Err(CommandError::SYNTAX),
    }
}
