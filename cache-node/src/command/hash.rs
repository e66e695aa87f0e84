//! Hashes.

use crate::{
    command::{
        CommandError, Outcome, Spec,
        decimal::Decimal,
        generic::{ScanOptions, cursor},
        parse::{integer, is_word, strict_integer},
        random::{Sample, sample_size},
        table::{Flags, GROW_FAST, READ, READ_SHORT, WRITE_FAST, rows},
    },
    keyspace::{Changed, Class, Hash, HashRef, Keys},
    protocol::{Args, DecimalBuffer, Protocol, Reply},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "HSET" -4 GROW_FAST, "hash" ONE Keys(hset) "2.0.0" "Creates or modifies the value of a field in a hash.";
    "HMSET" -4 GROW_FAST, "hash" ONE Keys(hmset) "2.0.0" "Sets the values of multiple fields.";
    "HSETNX" 4 GROW_FAST, "hash" ONE Keys(hsetnx) "2.0.0" "Sets the value of a field in a hash only when the field doesn't exist.";
    "HGET" 3 READ_SHORT, "hash" ONE Keys(hget) "2.0.0" "Returns the value of a field in a hash.";
    "HMGET" -3 READ_SHORT, "hash" ONE Keys(hmget) "2.0.0" "Returns the values of all fields in a hash.";
    "HGETALL" 2 READ.and(Flags::SHORT), "hash" ONE Keys(hgetall) "2.0.0" "Returns all fields and values in a hash.";
    "HDEL" -3 WRITE_FAST, "hash" ONE Keys(hdel) "2.0.0" "Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.";
    "HLEN" 2 READ_SHORT, "hash" ONE Keys(hlen) "2.0.0" "Returns the number of fields in a hash.";
    "HEXISTS" 3 READ_SHORT, "hash" ONE Keys(hexists) "2.0.0" "Determines whether a field exists in a hash.";
    "HKEYS" 2 READ, "hash" ONE Keys(hkeys) "2.0.0" "Returns all fields in a hash.";
    "HVALS" 2 READ, "hash" ONE Keys(hvals) "2.0.0" "Returns all values in a hash.";
    "HSTRLEN" 3 READ_SHORT, "hash" ONE Keys(hstrlen) "3.2.0" "Returns the length of the value of a field.";
    "HINCRBY" 4 GROW_FAST, "hash" ONE Keys(hincrby) "2.0.0" "Increments the integer value of a field in a hash by a number. Uses 0 as initial value if the field doesn't exist.";
    "HINCRBYFLOAT" 4 GROW_FAST, "hash" ONE Keys(hincrbyfloat) "2.6.0" "Increments the floating point value of a field by a number. Uses 0 as initial value if the field doesn't exist.";
    "HSCAN" -3 READ, "hash" ONE Keys(hscan) "2.8.0" "Iterates over fields and values of a hash.";
    "HRANDFIELD" -2 READ, "hash" ONE Keys(hrandfield) "6.2.0" "Returns one or more random fields from a hash.";
};

fn hset(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let added = put_all(keys, args, "hset")?;
    reply.count(added);
    Ok(())
}

fn hmset(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    put_all(keys, args, "hmset")?;
    reply.ok();
    Ok(())
}

/// Sets every pair behind the key and gives how many fields are new.
fn put_all(keys: &mut Keys<'_>, args: Args<'_>, command: &str) -> Result<usize, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arguments(command));
    }
    let added = keys.edit_or_create::<Hash, _>(args.at(1), (Class::Hash, "hset"), |hash| {
        let pairs = (2..args.len()).step_by(2);
        let added = pairs.filter(|index| hash.insert(args.at(*index), args.at(index + 1))).count();
        (Changed::Yes, added)
    })?;
    Ok(added)
}

fn hsetnx(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_new = keys.edit_or_create::<Hash, _>(args.at(1), (Class::Hash, "hset"), |hash| {
        let is_new = hash.get(args.at(2)).is_none() && hash.insert(args.at(2), args.at(3));
        (is_new.into(), is_new)
    })?;
    reply.flag(is_new);
    Ok(())
}

fn hget(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let value = keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    reply.bulk_or_null(value);
    Ok(())
}

fn hmget(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    reply.array(args.len() - 2);
    for field in args.from(2).iter() {
        reply.bulk_or_null(hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hgetall(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let Some(hash) = keys.hash(args.at(1))? else {
        reply.map(0);
        return Ok(());
    };
    reply.map(hash.len());
    if let Some(mut texts) = hash.texts() {
        reply.bulks(2 * hash.len(), texts.bytes(), std::iter::from_fn(|| texts.next_in_place()));
        return Ok(());
    }
    for (field, value) in hash.iter() {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hdel(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let removed = keys.edit::<Hash, _>(args.at(1), (Class::Hash, "hdel"), |hash| {
        let removed = args.from(2).iter().filter(|field| hash.remove(field)).count();
        ((removed > 0).into(), removed)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn hlen(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let length = keys.hash(args.at(1))?.map_or(0, HashRef::len);
    reply.count(length);
    Ok(())
}

fn hexists(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_there = keys.hash(args.at(1))?.is_some_and(|hash| hash.get(args.at(2)).is_some());
    reply.flag(is_there);
    Ok(())
}

fn hkeys(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    reply.array(hash.map_or(0, HashRef::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(field, _)| reply.bulk(field));
    Ok(())
}

fn hvals(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    reply.array(hash.map_or(0, HashRef::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(_, value)| reply.bulk(value));
    Ok(())
}

fn hstrlen(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let value = keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    reply.count(value.map_or(0, <[u8]>::len));
    Ok(())
}

fn hincrby(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let amount = integer(args.at(3))?;
    let sum = keys.edit_or_create::<Hash, _>(args.at(1), (Class::Hash, "hincrby"), |hash| {
        let number = match hash.get(args.at(2)) {
            Some(value) => strict_integer(value).ok_or(CommandError::fixed("ERR hash value is not an integer")),
            None => Ok(0),
        };
        let sum = number.and_then(|number| number.checked_add(amount).ok_or(CommandError::OVERFLOW));
        if let Ok(sum) = sum {
            hash.insert(args.at(2), DecimalBuffer::default().format(sum));
        }
        (sum.is_ok().into(), sum)
    })??;
    reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let amount = Decimal::parse(args.at(3)).ok_or(CommandError::NOT_A_FLOAT)?;
    if !amount.is_finite() {
        return Err(CommandError::fixed("ERR value is NaN or Infinity"));
    }
    let text = keys.edit_or_create::<Hash, _>(args.at(1), (Class::Hash, "hincrbyfloat"), |hash| {
        let number = match hash.get(args.at(2)) {
            Some(value) => Decimal::parse(value).ok_or(CommandError::fixed("ERR hash value is not a float")),
            None => Ok(Decimal::ZERO),
        };
        let text = number.and_then(|number| number.add(amount)).map(|sum| sum.to_string());
        if let Ok(text) = &text {
            hash.insert(args.at(2), text.as_bytes());
        }
        (text.is_ok().into(), text)
    })??;
    // The sum and not the summand: others may add with another precision.
    keys.record(&[b"HSET", args.at(1), args.at(2), text.as_bytes()]);
    reply.bulk(text.as_bytes());
    Ok(())
}

fn hscan(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let start = cursor(args.at(2))?;
    let options = ScanOptions::parse(args.from(3), false)?;
    let mut found = Reply::new(reply.protocol());
    let mut count = 0;
    let next = keys.hash(args.at(1))?.map_or(0, |hash| {
        hash.scan(start, options.count, |field, value| {
            if options.matches(field) {
                found.bulk(field);
                found.bulk(value);
                count += 2;
            }
        })
    });
    options.answer(next, count, &found, reply);
    Ok(())
}

fn hrandfield(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let Some(count) = args.get(2) else {
        let hash = keys.hash(args.at(1))?;
        let field = hash.and_then(|hash| hash.at(rand::random_range(0..hash.len())));
        reply.bulk_or_null(field.map(|(field, _)| field));
        return Ok(());
    };
    let size = sample_size(count)?;
    let with_values = match args.get(3) {
        None => false,
        Some(word) if args.len() == 4 && is_word(word, "WITHVALUES") => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let Some(hash) = keys.hash(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let sample = Sample::draw(size, hash.len());
    let is_nested = with_values && reply.protocol() == Protocol::Resp3;
    reply.array(sample.len() * if with_values && !is_nested { 2 } else { 1 });
    // A packed hash has no index: its fields are looked up in one walk.
    let fields: Vec<_> = hash.iter().collect();
    for (field, value) in sample.indexes().map(|index| fields[index]) {
        if is_nested {
            reply.array(2);
        }
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
    }
    Ok(())
}
