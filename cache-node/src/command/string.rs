//! Strings.

use crate::{
    command::{
        CommandError, Outcome, Spec,
        decimal::Decimal,
        generic::set_expiry,
        parse::{Base, Unit, integer, is_word, positive_time_ms, strict_integer},
        table::{Flags, GROW, GROW_FAST, READ, READ_SHORT, WRITE_FAST, rows},
    },
    keyspace::{Changed, Class, Keys, Str, ValueRef},
    protocol::{Args, DecimalBuffer, Reply},
};

/// Longest string value, in bytes (Redis: 512 MB, the default of proto-max-bulk-len).
pub(crate) const STRING_BYTES_MAX: usize = 512 * 1024 * 1024;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "GET" 2 READ_SHORT, "string" ONE Keys(get) "1.0.0" "Returns the string value of a key.";
    "SET" -3 GROW.and(Flags::SHORT), "string" ONE Keys(set) "1.0.0" "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.";
    "SETEX" 4 GROW.and(Flags::SHORT), "string" ONE Keys(setex) "2.0.0" "Sets the string value and expiration time of a key. Creates the key if it doesn't exist.";
    "PSETEX" 4 GROW, "string" ONE Keys(psetex) "2.6.0" "Sets both string value and expiration time in milliseconds of a key. The key is created if it doesn't exist.";
    "SETNX" 3 GROW_FAST, "string" ONE Keys(setnx) "1.0.0" "Set the string value of a key only when the key doesn't exist.";
    "GETSET" 3 GROW_FAST, "string" ONE Keys(getset) "1.0.0" "Returns the previous string value of a key after setting it to a new value.";
    "GETEX" -2 WRITE_FAST, "string" ONE Keys(getex) "6.2.0" "Returns the string value of a key after setting its expiration time.";
    "GETDEL" 2 WRITE_FAST, "string" ONE Keys(getdel) "6.2.0" "Returns the string value of a key after deleting the key.";
    "APPEND" 3 GROW_FAST, "string" ONE Keys(append) "2.0.0" "Appends a string to the value of a key. Creates the key if it doesn't exist.";
    "STRLEN" 2 READ_SHORT, "string" ONE Keys(strlen) "2.2.0" "Returns the length of a string value.";
    "GETRANGE" 4 READ, "string" ONE Keys(getrange) "2.4.0" "Returns a substring of the string stored at a key.";
    "SETRANGE" 4 GROW, "string" ONE Keys(setrange) "2.2.0" "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.";
    "MGET" -2 READ_SHORT, "string" ALL Keys(mget) "1.0.0" "Atomically returns the string values of one or more keys.";
    "MSET" -3 GROW, "string" PAIRS Keys(mset) "1.0.1" "Atomically creates or modifies the string values of one or more keys.";
    "MSETNX" -3 GROW, "string" PAIRS Keys(msetnx) "1.0.1" "Atomically modifies the string values of one or more keys only when all keys don't exist.";
    "INCR" 2 GROW_FAST, "string" ONE Keys(incr) "1.0.0" "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.";
    "DECR" 2 GROW_FAST, "string" ONE Keys(decr) "1.0.0" "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.";
    "INCRBY" 3 GROW_FAST, "string" ONE Keys(incrby) "1.0.0" "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.";
    "DECRBY" 3 GROW_FAST, "string" ONE Keys(decrby) "1.0.0" "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.";
    "INCRBYFLOAT" 3 GROW_FAST, "string" ONE Keys(incrbyfloat) "2.6.0" "Increment the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist.";
};

fn get(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let value = keys.string(args.at(1))?;
    reply.bulk_or_null(value);
    Ok(())
}

/// When SET writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfAbsent,
    IfPresent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ttl {
    Drop,
    Keep,
    At(u64),
}

struct SetOptions {
    condition: Condition,
    ttl: Ttl,
    is_get: bool,
}

fn set_options(keys: &Keys<'_>, args: Args<'_>) -> Result<SetOptions, CommandError> {
    let mut options = SetOptions { condition: Condition::Always, ttl: Ttl::Drop, is_get: false };
    let mut rest = args.iter().skip(3);
    while let Some(option) = rest.next() {
        if is_word(option, "NX") && options.condition != Condition::IfPresent {
            options.condition = Condition::IfAbsent;
        } else if is_word(option, "XX") && options.condition != Condition::IfAbsent {
            options.condition = Condition::IfPresent;
        } else if is_word(option, "GET") {
            options.is_get = true;
        } else if is_word(option, "KEEPTTL") && options.ttl == Ttl::Drop {
            options.ttl = Ttl::Keep;
        } else if let (Some((unit, base)), Ttl::Drop) = (expiry_option(option), options.ttl) {
            let time = rest.next().ok_or(CommandError::SYNTAX)?;
            options.ttl = Ttl::At(positive_time_ms(time, unit, base, keys.now(), "set")?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(options)
}

fn expiry_option(word: &[u8]) -> Option<(Unit, Base)> {
    let known = [
        ("EX", Unit::Seconds, Base::Now),
        ("PX", Unit::Milliseconds, Base::Now),
        ("EXAT", Unit::Seconds, Base::Epoch),
        ("PXAT", Unit::Milliseconds, Base::Epoch),
    ];
    known.iter().find(|(name, ..)| is_word(word, name)).map(|(_, unit, base)| (*unit, *base))
}

fn set(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let key = args.at(1);
    let options = set_options(keys, args)?;
    if options.is_get {
        let old = keys.string(key)?;
        reply.bulk_or_null(old);
    }
    let may_write = match options.condition {
        Condition::Always => true,
        Condition::IfAbsent => !keys.contains(key),
        Condition::IfPresent => keys.contains(key),
    };
    if !may_write {
        if !options.is_get {
            reply.null();
        }
        return Ok(());
    }
    let expires_at_ms = match options.ttl {
        Ttl::Drop => None,
        Ttl::Keep => keys.expires_at_ms(key).flatten(),
        Ttl::At(at) => Some(at),
    };
    put(keys, key, args.at(2), expires_at_ms);
    match options.ttl {
        Ttl::At(at) => {
            keys.notify(Class::Generic, "expire", key);
            record_with_time(keys, key, args.at(2), at);
        }
        Ttl::Keep => keys.record(&[b"SET", key, args.at(2), b"KEEPTTL"]),
        // Conditions that held, and GET.
        Ttl::Drop if args.len() > 3 => keys.record(&[b"SET", key, args.at(2)]),
        Ttl::Drop => {}
    }
    if !options.is_get {
        reply.ok();
    }
    Ok(())
}

/// Writes a string and tells "set". A time that has passed leaves nothing behind.
fn put(keys: &mut Keys<'_>, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
    keys.set_string(key, value, expires_at_ms);
    keys.notify(Class::String, "set", key);
}

/// Records a string with the moment at which it goes, whatever the command counted from.
fn record_with_time(keys: &mut Keys<'_>, key: &[u8], value: &[u8], at: u64) {
    if keys.is_recorded() {
        keys.record(&[b"SET", key, value, b"PXAT", DecimalBuffer::default().format(at as i64)]);
    }
}

fn setex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_with_time(keys, args, reply, Unit::Seconds, "setex")
}

fn psetex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_with_time(keys, args, reply, Unit::Milliseconds, "psetex")
}

fn set_with_time(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, unit: Unit, command: &str) -> Outcome {
    let at = positive_time_ms(args.at(2), unit, Base::Now, keys.now(), command)?;
    put(keys, args.at(1), args.at(3), Some(at));
    keys.notify(Class::Generic, "expire", args.at(1));
    record_with_time(keys, args.at(1), args.at(3), at);
    reply.ok();
    Ok(())
}

fn setnx(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_absent = !keys.contains(args.at(1));
    if is_absent {
        put(keys, args.at(1), args.at(2), None);
    }
    reply.flag(is_absent);
    Ok(())
}

fn getset(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let old = keys.string(args.at(1))?;
    reply.bulk_or_null(old);
    put(keys, args.at(1), args.at(2), None);
    keys.record(&[b"SET", args.at(1), args.at(2)]);
    Ok(())
}

fn getex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let key = args.at(1);
    let option = match args.len() {
        2 => None,
        3 if is_word(args.at(2), "PERSIST") => None,
        4 => Some(expiry_option(args.at(2)).ok_or(CommandError::SYNTAX)?),
        _ => return Err(CommandError::SYNTAX),
    };
    let Some(value) = keys.string(key)? else {
        // Before the time is looked at, as in Redis.
        reply.null();
        return Ok(());
    };
    reply.bulk(value);
    if let Some((unit, base)) = option {
        let at = positive_time_ms(args.at(3), unit, base, keys.now(), "getex")?;
        set_expiry(keys, key, at);
    } else if args.len() == 3 && keys.expires_at_ms(key).flatten().is_some() {
        keys.set_expiry(key, None);
        keys.notify(Class::Generic, "persist", key);
        keys.record(&[b"PERSIST", key]);
    }
    Ok(())
}

fn getdel(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let value = keys.string(args.at(1))?;
    reply.bulk_or_null(value);
    if keys.delete(args.at(1)) {
        keys.record(&[b"DEL", args.at(1)]);
    }
    Ok(())
}

fn append(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let tail = args.at(2);
    let length = keys.edit_or_create::<Str, _>(args.at(1), (Class::String, "append"), |string| {
        let length = string.0.len() + tail.len();
        if length > STRING_BYTES_MAX {
            return (Changed::No, Err(CommandError::STRING_TOO_LARGE));
        }
        string.append(tail);
        // `APPEND key ""` makes the key: Spring's session index relies on it.
        (Changed::Yes, Ok(length))
    })??;
    reply.count(length);
    Ok(())
}

fn strlen(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let length = keys.string(args.at(1))?.map_or(0, <[u8]>::len);
    reply.count(length);
    Ok(())
}

fn getrange(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
    let value = keys.string(args.at(1))?.unwrap_or_default();
    reply.bulk(slice(value, start, end));
    Ok(())
}

/// Redis's ranges: both ends included, negative from the end, never out of range.
fn slice(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let start = if start < 0 { (start + length).max(0) } else { start };
    let end = if end < 0 { (end + length).max(0) } else { end }.min(length - 1);
    if length == 0 || start > end { &[] } else { &value[start as usize..=end as usize] }
}

fn setrange(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let key = args.at(1);
    let offset = integer(args.at(2))?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::fixed("ERR offset is out of range"))?;
    let patch = args.at(3);
    if patch.is_empty() {
        return strlen(keys, args, reply);
    }
    if offset.saturating_add(patch.len()) > STRING_BYTES_MAX {
        return Err(CommandError::STRING_TOO_LARGE);
    }
    let length = keys.edit_or_create::<Str, _>(key, (Class::String, "setrange"), |string| {
        let end = offset + patch.len();
        if string.0.len() < end {
            string.reserve(end - string.0.len());
            string.0.resize(end, 0);
        }
        string.0[offset..end].copy_from_slice(patch);
        (Changed::Yes, string.0.len())
    })?;
    reply.count(length);
    Ok(())
}

fn mget(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.array(args.len() - 1);
    for key in args.from(1).iter() {
        match keys.get(key) {
            Some(ValueRef::Str(value)) => reply.bulk(value),
            // Another type is a null here and no error, as in Redis.
            _ => reply.null(),
        }
    }
    Ok(())
}

fn pairs(args: Args<'_>) -> Result<impl Iterator<Item = (&[u8], &[u8])>, CommandError> {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arguments(&String::from_utf8_lossy(args.at(0))));
    }
    Ok((1..args.len()).step_by(2).map(move |index| (args.at(index), args.at(index + 1))))
}

fn mset(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    for (key, value) in pairs(args)? {
        put(keys, key, value, None);
    }
    reply.ok();
    Ok(())
}

fn msetnx(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_free = pairs(args)?.all(|(key, _)| !keys.contains(key));
    if is_free {
        for (key, value) in pairs(args)? {
            put(keys, key, value, None);
        }
    }
    reply.flag(is_free);
    Ok(())
}

fn incr(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    add(keys, args.at(1), 1, reply)
}

fn decr(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    add(keys, args.at(1), -1, reply)
}

fn incrby(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    add(keys, args.at(1), integer(args.at(2))?, reply)
}

fn decrby(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let amount = integer(args.at(2))?;
    let amount = amount.checked_neg().ok_or(CommandError::fixed("ERR decrement would overflow"))?;
    add(keys, args.at(1), amount, reply)
}

fn add(keys: &mut Keys<'_>, key: &[u8], amount: i64, reply: &mut Reply) -> Outcome {
    // The event of all four commands, DECR's too, whatever the documentation says.
    const EVENT: (Class, &str) = (Class::String, "incrby");
    let changed = keys.edit::<Str, _>(key, EVENT, |string| {
        let number = strict_integer(&string.0).ok_or(CommandError::NOT_AN_INTEGER);
        let sum = number.and_then(|number| number.checked_add(amount).ok_or(CommandError::OVERFLOW));
        if let Ok(sum) = sum {
            string.0 = DecimalBuffer::default().format(sum).into();
        }
        (sum.is_ok().into(), sum)
    })?;
    let sum = match changed {
        Some(sum) => sum?,
        None => {
            keys.set_string(key, DecimalBuffer::default().format(amount), None);
            keys.notify(EVENT.0, EVENT.1, key);
            amount
        }
    };
    reply.integer(sum);
    Ok(())
}

fn incrbyfloat(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let key = args.at(1);
    let number = match keys.peek(key).map(ValueRef::string).transpose()? {
        Some(string) => Decimal::parse(string).ok_or(CommandError::NOT_A_FLOAT)?,
        None => Decimal::ZERO,
    };
    let amount = Decimal::parse(args.at(2)).ok_or(CommandError::NOT_A_FLOAT)?;
    let text = number.add(amount)?.to_string();
    let expires_at_ms = keys.expires_at_ms(key).flatten();
    keys.set_string(key, text.as_bytes(), expires_at_ms);
    keys.notify(Class::String, "incrbyfloat", key);
    // The sum and not the summand: others may add with another precision.
    keys.record(&[b"SET", key, text.as_bytes(), b"KEEPTTL"]);
    reply.bulk(text.as_bytes());
    Ok(())
}
