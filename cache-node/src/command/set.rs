//! Sets.

use crate::{
    command::{
        CommandError, Outcome, Spec,
        generic::{ScanOptions, cursor},
        parse::count,
        random::{Sample, sample_size},
        table::{GROW, GROW_FAST, READ, READ_SHORT, WRITE_FAST, rows},
    },
    keyspace::{Changed, Class, Collection, Keys, Kind, Set, ValueRef, WrongType},
    protocol::{Args, Reply},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "SADD" -3 GROW_FAST, "set" ONE Keys(sadd) "1.0.0" "Adds one or more members to a set. Creates the key if it doesn't exist.";
    "SREM" -3 WRITE_FAST, "set" ONE Keys(srem) "1.0.0" "Removes one or more members from a set. Deletes the set if the last member was removed.";
    "SMEMBERS" 2 READ, "set" ONE Keys(smembers) "1.0.0" "Returns all members of a set.";
    "SISMEMBER" 3 READ_SHORT, "set" ONE Keys(sismember) "1.0.0" "Determines whether a member belongs to a set.";
    "SMISMEMBER" -3 READ_SHORT, "set" ONE Keys(smismember) "6.2.0" "Determines whether multiple members belong to a set.";
    "SCARD" 2 READ_SHORT, "set" ONE Keys(scard) "1.0.0" "Returns the number of members in a set.";
    "SPOP" -2 WRITE_FAST, "set" ONE Keys(spop) "1.0.0" "Returns one or more random members from a set after removing them. Deletes the set if the last member was popped.";
    "SRANDMEMBER" -2 READ, "set" ONE Keys(srandmember) "1.0.0" "Get one or multiple random members from a set";
    "SSCAN" -3 READ, "set" ONE Keys(sscan) "2.8.0" "Iterates over members of a set.";
    "SMOVE" 4 WRITE_FAST, "set" TWO Keys(smove) "1.0.0" "Moves a member from one set to another.";
    "SINTER" -2 READ, "set" ALL Keys(sinter) "1.0.0" "Returns the intersect of multiple sets.";
    "SUNION" -2 READ, "set" ALL Keys(sunion) "1.0.0" "Returns the union of multiple sets.";
    "SDIFF" -2 READ, "set" ALL Keys(sdiff) "1.0.0" "Returns the difference of multiple sets.";
    "SINTERSTORE" -3 GROW, "set" ALL Keys(sinterstore) "1.0.0" "Stores the intersect of multiple sets in a key.";
    "SUNIONSTORE" -3 GROW, "set" ALL Keys(sunionstore) "1.0.0" "Stores the union of multiple sets in a key.";
    "SDIFFSTORE" -3 GROW, "set" ALL Keys(sdiffstore) "1.0.0" "Stores the difference of multiple sets in a key.";
};

fn sadd(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let added = keys.edit_or_create::<Set, _>(args.at(1), (Class::Set, "sadd"), |set| {
        let added = args.from(2).iter().filter(|member| set.insert(member)).count();
        ((added > 0).into(), added)
    })?;
    reply.count(added);
    Ok(())
}

fn srem(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let removed = keys.edit::<Set, _>(args.at(1), (Class::Set, "srem"), |set| {
        let removed = args.from(2).iter().filter(|member| set.remove(member)).count();
        ((removed > 0).into(), removed)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn smembers(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let set = keys.read::<Set>(args.at(1))?;
    reply.set(set.map_or(0, Set::len));
    set.iter().flat_map(|set| set.iter()).for_each(|member| reply.bulk(member));
    Ok(())
}

fn sismember(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_member = keys.read::<Set>(args.at(1))?.is_some_and(|set| set.contains(args.at(2)));
    reply.flag(is_member);
    Ok(())
}

fn smismember(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let set = keys.read::<Set>(args.at(1))?;
    reply.array(args.len() - 2);
    for member in args.from(2).iter() {
        reply.flag(set.is_some_and(|set| set.contains(member)));
    }
    Ok(())
}

fn scard(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let length = keys.read::<Set>(args.at(1))?.map_or(0, Set::len);
    reply.count(length);
    Ok(())
}

fn spop(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let wanted = match args.len() {
        2 => None,
        3 => Some(count(args.at(2))?),
        _ => return Err(CommandError::SYNTAX),
    };
    let popped = keys.edit::<Set, _>(args.at(1), (Class::Set, "spop"), |set| {
        let popped: Vec<Box<[u8]>> = (0..wanted.unwrap_or(1).min(set.len()))
            .map(|_| {
                let member: Box<[u8]> = set.at(rand::random_range(0..set.len())).expect("drawn below the length").into();
                set.remove(&member);
                member
            })
            .collect();
        (Changed::from(!popped.is_empty()), popped)
    })?;
    let popped = popped.unwrap_or_default();
    if keys.is_recorded() && !popped.is_empty() {
        // The members that chance chose.
        if keys.contains(args.at(1)) {
            let members = popped.iter().map(|member| &**member);
            let request: Vec<&[u8]> = [b"SREM", args.at(1)].into_iter().chain(members).collect();
            keys.record(&request);
        } else {
            keys.record(&[b"DEL", args.at(1)]);
        }
    }
    if wanted.is_none() {
        reply.bulk_or_null(popped.first().map(|member| &**member));
    } else {
        reply.set(popped.len());
        popped.iter().for_each(|member| reply.bulk(member));
    }
    Ok(())
}

fn srandmember(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let size = match args.len() {
        2 => None,
        3 => Some(sample_size(args.at(2))?),
        _ => return Err(CommandError::SYNTAX),
    };
    let set = keys.read::<Set>(args.at(1))?;
    let Some(size) = size else {
        reply.bulk_or_null(set.and_then(|set| set.at(rand::random_range(0..set.len()))));
        return Ok(());
    };
    let Some(set) = set else {
        reply.array(0);
        return Ok(());
    };
    let sample = Sample::draw(size, set.len());
    reply.array(sample.len());
    // A packed set has no index: its members are looked up in one walk.
    let members: Vec<&[u8]> = set.iter().collect();
    sample.indexes().for_each(|index| reply.bulk(members[index]));
    Ok(())
}

fn sscan(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let start = cursor(args.at(2))?;
    let options = ScanOptions::parse(args.from(3), false)?;
    let mut found = Reply::new(reply.protocol());
    let mut count = 0;
    let next = keys.read::<Set>(args.at(1))?.map_or(0, |set| {
        set.scan(start, options.count, |member| {
            if options.matches(member) {
                found.bulk(member);
                count += 1;
            }
        })
    });
    options.answer(next, count, &found, reply);
    Ok(())
}

fn smove(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (from, to, member) = (args.at(1), args.at(2), args.at(3));
    let is_member = keys.peek(from).map(ValueRef::set).transpose()?.map(|set| set.contains(member));
    let Some(is_member) = is_member else {
        // Nothing to move: the other key's type does not matter.
        reply.flag(false);
        return Ok(());
    };
    keys.peek(to).map(|value| value.expect(Kind::Set)).transpose()?;
    if is_member && from != to {
        keys.edit::<Set, _>(from, (Class::Set, "srem"), |set| (Changed::Yes, set.remove(member)))?;
        keys.edit_or_create::<Set, _>(to, (Class::Set, "sadd"), |set| {
            let is_new = set.insert(member);
            (is_new.into(), is_new)
        })?;
    }
    reply.flag(is_member);
    Ok(())
}

/// What is made of several sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

impl Operation {
    fn store_event(self) -> &'static str {
        match self {
            Operation::Intersection => "sinterstore",
            Operation::Union => "sunionstore",
            Operation::Difference => "sdiffstore",
        }
    }
}

fn sinter(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, Operation::Intersection)
}

fn sunion(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, Operation::Union)
}

fn sdiff(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, Operation::Difference)
}

fn sinterstore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    store(keys, args, reply, Operation::Intersection)
}

fn sunionstore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    store(keys, args, reply, Operation::Union)
}

fn sdiffstore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    store(keys, args, reply, Operation::Difference)
}

fn answer(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, operation: Operation) -> Outcome {
    let result = combine(keys, args.from(1), operation)?;
    reply.set(result.len());
    result.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

fn store(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, operation: Operation) -> Outcome {
    let result = combine(keys, args.from(2), operation)?;
    let length = result.len();
    if length == 0 {
        keys.delete(args.at(1));
    } else {
        keys.set(args.at(1), result.into_value(), None);
        keys.notify(Class::Set, operation.store_event(), args.at(1));
    }
    reply.count(length);
    Ok(())
}

/// Reads the sets named by `names` and combines them; an absent key is an empty set.
fn combine(keys: &mut Keys<'_>, names: Args<'_>, operation: Operation) -> Result<Set, CommandError> {
    for name in names.iter() {
        // Counted as uses, removed when expired, and of the right type: then they can be looked at together.
        keys.read::<Set>(name)?;
    }
    let sets: Result<Vec<Option<&Set>>, WrongType> =
        names.iter().map(|name| keys.look(name).map(ValueRef::set).transpose()).collect();
    let sets = sets?;
    let present = sets.iter().flatten();
    let result = match operation {
        Operation::Union => present.flat_map(|set| set.iter()).collect(),
        Operation::Intersection if sets.iter().any(Option::is_none) => Set::default(),
        Operation::Intersection => {
            // Each member of the smallest is looked up in the others.
            let smallest = present.clone().min_by_key(|set| set.len());
            let is_everywhere = |member: &&[u8]| sets.iter().flatten().all(|set| set.contains(member));
            smallest.iter().flat_map(|set| set.iter()).filter(is_everywhere).collect()
        }
        Operation::Difference => {
            let is_nowhere_else = |member: &&[u8]| !sets[1..].iter().flatten().any(|set| set.contains(member));
            sets[0].iter().flat_map(|set| set.iter()).filter(is_nowhere_else).collect()
        }
    };
    Ok(result)
}
