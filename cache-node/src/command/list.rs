//! Lists.

use std::ops::Range;

use crate::{
    command::{
        CommandError, Outcome, Spec,
        parse::{count, integer, is_word},
        table::{GROW, GROW_FAST, READ, READ_SHORT, WRITE, WRITE_FAST, rows},
    },
    keyspace::{Changed, Class, End, Keys, Kind, List, ValueRef},
    protocol::{Args, Reply},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "LPUSH" -3 GROW_FAST, "list" ONE Keys(lpush) "1.0.0" "Prepends one or more elements to a list. Creates the key if it doesn't exist.";
    "RPUSH" -3 GROW_FAST, "list" ONE Keys(rpush) "1.0.0" "Appends one or more elements to a list. Creates the key if it doesn't exist.";
    "LPUSHX" -3 GROW_FAST, "list" ONE Keys(lpushx) "2.2.0" "Prepends one or more elements to a list only when the list exists.";
    "RPUSHX" -3 GROW_FAST, "list" ONE Keys(rpushx) "2.2.0" "Appends an element to a list only when the list exists.";
    "LPOP" -2 WRITE_FAST, "list" ONE Keys(lpop) "1.0.0" "Returns the first elements in a list after removing it. Deletes the list if the last element was popped.";
    "RPOP" -2 WRITE_FAST, "list" ONE Keys(rpop) "1.0.0" "Returns and removes the last elements of a list. Deletes the list if the last element was popped.";
    "LRANGE" 4 READ, "list" ONE Keys(lrange) "1.0.0" "Returns a range of elements from a list.";
    "LLEN" 2 READ_SHORT, "list" ONE Keys(llen) "1.0.0" "Returns the length of a list.";
    "LTRIM" 4 WRITE, "list" ONE Keys(ltrim) "1.0.0" "Removes elements from both ends a list. Deletes the list if all elements were trimmed.";
    "LINDEX" 3 READ, "list" ONE Keys(lindex) "1.0.0" "Returns an element from a list by its index.";
    "LSET" 4 GROW, "list" ONE Keys(lset) "1.0.0" "Sets the value of an element in a list by its index.";
    "LREM" 4 WRITE, "list" ONE Keys(lrem) "1.0.0" "Removes elements from a list. Deletes the list if the last element was removed.";
    "LINSERT" 5 GROW, "list" ONE Keys(linsert) "2.2.0" "Inserts an element before or after another element in a list.";
    "LPOS" -3 READ, "list" ONE Keys(lpos) "6.0.6" "Returns the index of matching elements in a list.";
    "LMOVE" 5 GROW, "list" TWO Keys(lmove) "6.2.0" "Returns an element after popping it from one list and pushing it to another. Deletes the list if the last element was moved.";
    "RPOPLPUSH" 3 GROW, "list" TWO Keys(rpoplpush) "1.2.0" "Returns the last element of a list after removing and pushing it to another list. Deletes the list if the last element was popped.";
};

fn lpush(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    push(keys, args, reply, End::Left)
}

fn rpush(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    push(keys, args, reply, End::Right)
}

fn push(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, end: End) -> Outcome {
    let length = keys.edit_or_create::<List, _>(args.at(1), (Class::List, push_event(end)), |list| {
        args.from(2).iter().for_each(|element| list.push(end, element));
        (Changed::Yes, list.len())
    })?;
    reply.count(length);
    Ok(())
}

fn lpushx(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    push_existing(keys, args, reply, End::Left)
}

fn rpushx(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    push_existing(keys, args, reply, End::Right)
}

fn push_existing(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, end: End) -> Outcome {
    let length = keys.edit::<List, _>(args.at(1), (Class::List, push_event(end)), |list| {
        args.from(2).iter().for_each(|element| list.push(end, element));
        (Changed::Yes, list.len())
    })?;
    reply.count(length.unwrap_or(0));
    Ok(())
}

fn push_event(end: End) -> &'static str {
    if end == End::Left { "lpush" } else { "rpush" }
}

fn pop_event(end: End) -> &'static str {
    if end == End::Left { "lpop" } else { "rpop" }
}

fn lpop(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    pop(keys, args, reply, End::Left, "lpop")
}

fn rpop(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    pop(keys, args, reply, End::Right, "rpop")
}

fn pop(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, end: End, command: &str) -> Outcome {
    let wanted = match args.len() {
        2 => None,
        3 => Some(count(args.at(2))?),
        _ => return Err(CommandError::wrong_arguments(command)),
    };
    let popped = keys.edit::<List, _>(args.at(1), (Class::List, pop_event(end)), |list| {
        let count = wanted.unwrap_or(1).min(list.len());
        let popped: Vec<Box<[u8]>> = (0..count).filter_map(|_| list.pop(end)).collect();
        (Changed::from(!popped.is_empty()), popped)
    })?;
    match (popped, wanted) {
        (None, None) => reply.null(),
        (None, Some(_)) => reply.null_array(),
        (Some(popped), None) => reply.bulk_or_null(popped.first().map(|element| &**element)),
        (Some(popped), Some(_)) => {
            reply.array(popped.len());
            popped.iter().for_each(|element| reply.bulk(element));
        }
    }
    Ok(())
}

fn lrange(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
    let Some(list) = keys.read::<List>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let indexes = index_range(start, end, list.len());
    reply.array(indexes.len());
    list.range(indexes).for_each(|element| reply.bulk(element));
    Ok(())
}

/// Redis's ranges: both ends included, negative from the end, never out of range.
pub(super) fn index_range(start: i64, end: i64, length: usize) -> Range<usize> {
    let length = length as i64;
    let start = if start < 0 { (start + length).max(0) } else { start };
    let end = if end < 0 { end + length } else { end }.min(length - 1);
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

/// An index from either end.
fn index(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn llen(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let length = keys.read::<List>(args.at(1))?.map_or(0, List::len);
    reply.count(length);
    Ok(())
}

fn ltrim(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
    keys.edit::<List, _>(args.at(1), (Class::List, "ltrim"), |list| {
        list.trim(index_range(start, end, list.len()));
        (Changed::Yes, ())
    })?;
    reply.ok();
    Ok(())
}

fn lindex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let Some(list) = keys.read::<List>(args.at(1))? else {
        reply.null();
        return Ok(());
    };
    let at = index(integer(args.at(2))?, list.len());
    reply.bulk_or_null(at.and_then(|at| list.get(at)));
    Ok(())
}

fn lset(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_set = keys.edit::<List, _>(args.at(1), (Class::List, "lset"), |list| {
        let is_set = integer(args.at(2)).and_then(|at| {
            let at = index(at, list.len()).filter(|at| list.set(*at, args.at(3)));
            at.ok_or(CommandError::fixed("ERR index out of range"))
        });
        (is_set.is_ok().into(), is_set)
    })?;
    is_set.ok_or(CommandError::NO_SUCH_KEY)??;
    reply.ok();
    Ok(())
}

fn lrem(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let wanted = integer(args.at(2))?;
    let end = if wanted < 0 { End::Right } else { End::Left };
    let count_max = if wanted == 0 { usize::MAX } else { wanted.unsigned_abs() as usize };
    let removed = keys.edit::<List, _>(args.at(1), (Class::List, "lrem"), |list| {
        let removed = list.remove(args.at(3), count_max, end);
        ((removed > 0).into(), removed)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn linsert(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let offset = if is_word(args.at(2), "BEFORE") {
        0
    } else if is_word(args.at(2), "AFTER") {
        1
    } else {
        return Err(CommandError::SYNTAX);
    };
    let length = keys.edit::<List, _>(args.at(1), (Class::List, "linsert"), |list| {
        let pivot = list.iter().position(|element| element == args.at(3));
        if let Some(pivot) = pivot {
            list.insert(pivot + offset, args.at(4));
        }
        (pivot.is_some().into(), pivot.map(|_| list.len()))
    })?;
    match length {
        None => reply.integer(0),
        Some(None) => reply.integer(-1),
        Some(Some(length)) => reply.count(length),
    }
    Ok(())
}

fn lpos(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (mut rank, mut wanted, mut length_max) = (1, None, 0);
    let mut rest = args.from(3).iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or(CommandError::SYNTAX)?;
        if is_word(option, "RANK") {
            rank = integer(value)?;
            if rank == 0 {
                return Err(CommandError::fixed(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start \
                     from the end of the list",
                ));
            }
            if rank == i64::MIN {
                return Err(CommandError::OUT_OF_RANGE);
            }
        } else if is_word(option, "COUNT") {
            wanted = Some(not_negative(value, "ERR COUNT can't be negative")?);
        } else if is_word(option, "MAXLEN") {
            length_max = not_negative(value, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let Some(list) = keys.read::<List>(args.at(1))? else {
        match wanted {
            Some(_) => reply.array(0),
            None => reply.null(),
        }
        return Ok(());
    };
    // 0 stands for all, with both options.
    let or_all = |limit: usize| if limit == 0 { usize::MAX } else { limit };
    let skipped = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let elements: &mut dyn Iterator<Item = (usize, &[u8])> =
        if rank > 0 { &mut list.iter().enumerate() } else { &mut list.iter().enumerate().rev() };
    let mut found = elements
        .take(or_all(length_max))
        .filter(|(_, element)| *element == args.at(2))
        .map(|(at, _)| at)
        .skip(skipped)
        .take(wanted.map_or(1, or_all));
    if wanted.is_some() {
        let found: Vec<usize> = found.collect();
        reply.array(found.len());
        found.iter().for_each(|at| reply.count(*at));
    } else {
        match found.next() {
            Some(at) => reply.count(at),
            None => reply.null(),
        }
    }
    Ok(())
}

fn not_negative(text: &[u8], error: &'static str) -> Result<usize, CommandError> {
    integer(text).ok().and_then(|number| usize::try_from(number).ok()).ok_or(CommandError::fixed(error))
}

fn lmove(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    transfer(keys, args, reply, end(args.at(3))?, end(args.at(4))?)
}

fn end(word: &[u8]) -> Result<End, CommandError> {
    if is_word(word, "LEFT") {
        Ok(End::Left)
    } else if is_word(word, "RIGHT") {
        Ok(End::Right)
    } else {
        Err(CommandError::SYNTAX)
    }
}

fn rpoplpush(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    transfer(keys, args, reply, End::Right, End::Left)
}

fn transfer(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, from: End, to: End) -> Outcome {
    let (source, target) = (args.at(1), args.at(2));
    let Some(list) = keys.peek(source).map(ValueRef::list).transpose()? else {
        reply.null();
        return Ok(());
    };
    let moved = list.get(if from == End::Left { 0 } else { list.len() - 1 });
    let moved: Box<[u8]> = moved.unwrap_or_default().into();
    keys.peek(target).map(|value| value.expect(Kind::List)).transpose()?;
    if source == target {
        keys.edit::<List, _>(source, (Class::List, push_event(to)), |list| {
            list.pop(from);
            list.push(to, &moved);
            (Changed::Yes, ())
        })?;
        keys.notify(Class::List, pop_event(from), source);
    } else {
        // Redis tells of the push first.
        keys.edit_or_create::<List, _>(target, (Class::List, push_event(to)), |list| {
            list.push(to, &moved);
            (Changed::Yes, ())
        })?;
        keys.edit::<List, _>(source, (Class::List, pop_event(from)), |list| (Changed::Yes, list.pop(from)))?;
    }
    reply.bulk(&moved);
    Ok(())
}
