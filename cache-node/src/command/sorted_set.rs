//! Sorted sets: adding, removing and looking up members. Ranges are in [`super::sorted_set_range`].

use crate::{
    command::{
        CommandError, Outcome, Spec,
        generic::{ScanOptions, cursor},
        parse::{count, double, is_word},
        random::{Sample, sample_size},
        sorted_set_range::{
            zcount, zlexcount, zrange, zrangebylex, zrangebyscore, zremrangebylex, zremrangebyrank, zremrangebyscore, zrevrange,
            zrevrangebylex, zrevrangebyscore,
        },
        table::{GROW_FAST, READ, READ_FAST, READ_SHORT, WRITE, WRITE_FAST, rows},
    },
    keyspace::{Class, Keys, Member, SortedSet},
    protocol::{Args, Protocol, Reply, format_double},
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = rows! {
    "ZADD" -4 GROW_FAST, "sorted-set" ONE Keys(zadd) "1.2.0" "Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.";
    "ZINCRBY" 4 GROW_FAST, "sorted-set" ONE Keys(zincrby) "1.2.0" "Increments the score of a member in a sorted set.";
    "ZREM" -3 WRITE_FAST, "sorted-set" ONE Keys(zrem) "1.2.0" "Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.";
    "ZSCORE" 3 READ_SHORT, "sorted-set" ONE Keys(zscore) "1.2.0" "Returns the score of a member in a sorted set.";
    "ZMSCORE" -3 READ_SHORT, "sorted-set" ONE Keys(zmscore) "6.2.0" "Returns the score of one or more members in a sorted set.";
    "ZCARD" 2 READ_SHORT, "sorted-set" ONE Keys(zcard) "1.2.0" "Returns the number of members in a sorted set.";
    "ZRANK" -3 READ_FAST, "sorted-set" ONE Keys(zrank) "2.0.0" "Returns the index of a member in a sorted set ordered by ascending scores.";
    "ZREVRANK" -3 READ_FAST, "sorted-set" ONE Keys(zrevrank) "2.0.0" "Returns the index of a member in a sorted set ordered by descending scores.";
    "ZPOPMIN" -2 WRITE_FAST, "sorted-set" ONE Keys(zpopmin) "5.0.0" "Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.";
    "ZPOPMAX" -2 WRITE_FAST, "sorted-set" ONE Keys(zpopmax) "5.0.0" "Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.";
    "ZSCAN" -3 READ, "sorted-set" ONE Keys(zscan) "2.8.0" "Iterates over members and scores of a sorted set.";
    "ZRANDMEMBER" -2 READ, "sorted-set" ONE Keys(zrandmember) "6.2.0" "Returns one or more random members from a sorted set.";
    "ZCOUNT" 4 READ_FAST, "sorted-set" ONE Keys(zcount) "2.0.0" "Returns the count of members in a sorted set that have scores within a range.";
    "ZLEXCOUNT" 4 READ_FAST, "sorted-set" ONE Keys(zlexcount) "2.8.9" "Returns the number of members in a sorted set within a lexicographical range.";
    "ZRANGE" -4 READ, "sorted-set" ONE Keys(zrange) "1.2.0" "Returns members in a sorted set within a range of indexes.";
    "ZREVRANGE" -4 READ, "sorted-set" ONE Keys(zrevrange) "1.2.0" "Returns members in a sorted set within a range of indexes in reverse order.";
    "ZRANGEBYSCORE" -4 READ, "sorted-set" ONE Keys(zrangebyscore) "1.0.5" "Returns members in a sorted set within a range of scores.";
    "ZREVRANGEBYSCORE" -4 READ, "sorted-set" ONE Keys(zrevrangebyscore) "2.2.0" "Returns members in a sorted set within a range of scores in reverse order.";
    "ZRANGEBYLEX" -4 READ, "sorted-set" ONE Keys(zrangebylex) "2.8.9" "Returns members in a sorted set within a lexicographical range.";
    "ZREVRANGEBYLEX" -4 READ, "sorted-set" ONE Keys(zrevrangebylex) "2.8.9" "Returns members in a sorted set within a lexicographical range in reverse order.";
    "ZREMRANGEBYSCORE" 4 WRITE, "sorted-set" ONE Keys(zremrangebyscore) "1.2.0" "Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were removed.";
    "ZREMRANGEBYRANK" 4 WRITE, "sorted-set" ONE Keys(zremrangebyrank) "2.0.0" "Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were removed.";
    "ZREMRANGEBYLEX" 4 WRITE, "sorted-set" ONE Keys(zremrangebylex) "2.8.9" "Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members were removed.";
};

/// NX XX GT LT CH INCR of ZADD.
#[derive(Default)]
struct AddOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    counts_changes: bool,
    is_increment: bool,
}

impl AddOptions {
    /// Reads the options and gives where the pairs begin.
    fn parse(args: Args<'_>) -> Result<(AddOptions, usize), CommandError> {
        let mut options = AddOptions::default();
        let mut pairs = 2;
        for word in args.from(2).iter() {
            let option = [
                ("NX", &mut options.nx),
                ("XX", &mut options.xx),
                ("GT", &mut options.gt),
                ("LT", &mut options.lt),
                ("CH", &mut options.counts_changes),
                ("INCR", &mut options.is_increment),
            ];
            let Some((_, option)) = option.into_iter().find(|(name, _)| is_word(word, name)) else { break };
            *option = true;
            pairs += 1;
        }
        let words = args.len() - pairs.min(args.len());
        if words == 0 || !words.is_multiple_of(2) {
            return Err(CommandError::SYNTAX);
        }
        if options.nx && options.xx {
            return Err(CommandError::fixed("ERR XX and NX options at the same time are not compatible"));
        }
        if options.gt && options.lt || options.nx && (options.gt || options.lt) {
            return Err(CommandError::fixed("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        if options.is_increment && words > 2 {
            return Err(CommandError::fixed("ERR INCR option supports a single increment-element pair"));
        }
        Ok((options, pairs))
    }
}

/// What ZADD did.
#[derive(Default)]
struct Added {
    new: usize,
    changed: usize,
    /// The score after an increment; `None` when an option forbade it.
    score: Option<f64>,
}

fn zadd(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (options, pairs) = AddOptions::parse(args)?;
    let added = add(keys, args, &options, pairs)?;
    if options.is_increment {
        match added.score {
            Some(score) => reply.double(score),
            None => reply.null(),
        }
    } else {
        reply.count(added.new + if options.counts_changes { added.changed } else { 0 });
    }
    Ok(())
}

fn zincrby(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let options = AddOptions { is_increment: true, ..AddOptions::default() };
    let added = add(keys, args, &options, 2)?;
    reply.double(added.score.unwrap_or_default());
    Ok(())
}

fn add(keys: &mut Keys<'_>, args: Args<'_>, options: &AddOptions, pairs: usize) -> Result<Added, CommandError> {
    // All scores are read before anything is changed: all or nothing.
    let scores: Result<Vec<f64>, CommandError> = args.from(pairs).iter().step_by(2).map(double).collect();
    let scores = scores?;
    let event = if options.is_increment { "zincr" } else { "zadd" };
    keys.edit_or_create::<SortedSet, _>(args.at(1), (Class::SortedSet, event), |set| {
        let mut added = Added::default();
        let members = args.from(pairs + 1).iter().step_by(2);
        let outcome =
            scores.iter().zip(members).try_for_each(|(score, member)| add_one(set, member, *score, options, &mut added));
        ((added.new + added.changed > 0).into(), outcome.map(|()| added))
    })?
}

fn add_one(set: &mut SortedSet, member: &[u8], score: f64, options: &AddOptions, added: &mut Added) -> Outcome {
    let old = set.score(member);
    let is_refused = match old {
        Some(_) => options.nx,
        None => options.xx,
    };
    if is_refused {
        return Ok(());
    }
    let score = match old {
        Some(old) if options.is_increment => old + score,
        _ => score,
    };
    if score.is_nan() {
        return Err(CommandError::fixed("ERR resulting score is not a number (NaN)"));
    }
    if old.is_some_and(|old| options.gt && score <= old || options.lt && score >= old) {
        return Ok(());
    }
    added.score = Some(score);
    match set.insert(member, score) {
        None => added.new += 1,
        Some(old) if old != score => added.changed += 1,
        Some(_) => {}
    }
    Ok(())
}

fn zrem(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let removed = keys.edit::<SortedSet, _>(args.at(1), (Class::SortedSet, "zrem"), |set| {
        let removed = args.from(2).iter().filter(|member| set.remove(member).is_some()).count();
        ((removed > 0).into(), removed)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn zscore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let score = keys.read::<SortedSet>(args.at(1))?.and_then(|set| set.score(args.at(2)));
    double_or_null(reply, score);
    Ok(())
}

fn zmscore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let set = keys.read::<SortedSet>(args.at(1))?;
    reply.array(args.len() - 2);
    for member in args.from(2).iter() {
        double_or_null(reply, set.and_then(|set| set.score(member)));
    }
    Ok(())
}

fn double_or_null(reply: &mut Reply, number: Option<f64>) {
    match number {
        Some(number) => reply.double(number),
        None => reply.null(),
    }
}

fn zcard(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let length = keys.read::<SortedSet>(args.at(1))?.map_or(0, SortedSet::len);
    reply.count(length);
    Ok(())
}

fn zrank(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer_rank(keys, args, reply, "zrank", |rank, _| rank)
}

fn zrevrank(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer_rank(keys, args, reply, "zrevrank", |rank, length| length - 1 - rank)
}

fn answer_rank(
    keys: &mut Keys<'_>,
    args: Args<'_>,
    reply: &mut Reply,
    command: &str,
    direction: fn(usize, usize) -> usize,
) -> Outcome {
    let with_score = match args.get(3) {
        None => false,
        Some(_) if args.len() > 4 => return Err(CommandError::wrong_arguments(command)),
        Some(word) if is_word(word, "WITHSCORE") => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let set = keys.read::<SortedSet>(args.at(1))?;
    let found = set.and_then(|set| Some((direction(set.rank(args.at(2))?, set.len()), set.score(args.at(2))?)));
    match found {
        None if with_score => reply.null_array(),
        None => reply.null(),
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.count(rank);
            reply.double(score);
        }
        Some((rank, _)) => reply.count(rank),
    }
    Ok(())
}

fn zpopmin(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    pop(keys, args, reply, "zpopmin")
}

fn zpopmax(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    pop(keys, args, reply, "zpopmax")
}

fn pop(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, event: &str) -> Outcome {
    let wanted = match args.len() {
        2 => None,
        3 => Some(count(args.at(2))?),
        _ => return Err(CommandError::SYNTAX),
    };
    let popped = keys.edit::<SortedSet, _>(args.at(1), (Class::SortedSet, event), |set| {
        let (count, length) = (wanted.unwrap_or(1).min(set.len()), set.len());
        let popped = if event == "zpopmin" {
            set.remove_range(0..count)
        } else {
            let mut popped = set.remove_range(length - count..length);
            popped.reverse();
            popped
        };
        ((!popped.is_empty()).into(), popped)
    })?;
    let popped = popped.unwrap_or_default();
    if wanted.is_none() {
        // One member is a flat pair in both versions of the protocol.
        reply.array(popped.len() * 2);
        for member in &popped {
            reply.bulk(&member.name);
            reply.double(member.score);
        }
    } else {
        answer_members(reply, popped.len(), popped.iter(), true);
    }
    Ok(())
}

/// Writes members, with their scores on demand: pairs in RESP3, one flat array before.
pub(super) fn answer_members<'a>(reply: &mut Reply, length: usize, members: impl Iterator<Item = &'a Member>, with_scores: bool) {
    let is_nested = with_scores && reply.protocol() == Protocol::Resp3;
    reply.array(if with_scores && !is_nested { length * 2 } else { length });
    for member in members {
        if is_nested {
            reply.array(2);
        }
        reply.bulk(&member.name);
        if with_scores {
            reply.double(member.score);
        }
    }
}

fn zscan(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let start = cursor(args.at(2))?;
    let options = ScanOptions::parse(args.from(3), false)?;
    let mut found = Reply::new(reply.protocol());
    let mut count = 0;
    let next = keys.read::<SortedSet>(args.at(1))?.map_or(0, |set| {
        set.scan(start, options.count, |member, score| {
            if options.matches(member) {
                found.bulk(member);
                // A string in RESP3 too, as in Redis.
                found.bulk(format_double(score).as_bytes());
                count += 2;
            }
        })
    });
    options.answer(next, count, &found, reply);
    Ok(())
}

fn zrandmember(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let Some(count) = args.get(2) else {
        let set = keys.read::<SortedSet>(args.at(1))?;
        let member = set.and_then(|set| {
            let rank = rand::random_range(0..set.len());
            set.range(rank..rank + 1).next()
        });
        reply.bulk_or_null(member.map(|member| &*member.name));
        return Ok(());
    };
    let size = sample_size(count)?;
    let with_scores = match args.get(3) {
        None => false,
        Some(word) if args.len() == 4 && is_word(word, "WITHSCORES") => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let Some(set) = keys.read::<SortedSet>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let sample = Sample::draw(size, set.len());
    let members: Vec<&Member> = set.iter().collect();
    answer_members(reply, sample.len(), sample.indexes().map(|index| members[index]), with_scores);
    Ok(())
}
