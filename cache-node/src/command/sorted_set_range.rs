//! Ranges of sorted sets, by rank, by score and by name. All three become a range of ranks.

use std::ops::Range;

use crate::{
    command::{
        CommandError, Outcome,
        list::index_range,
        parse::{integer, is_word, loose_double},
        sorted_set::answer_members,
    },
    keyspace::{Class, Keys, SortedSet},
    protocol::{Args, Reply},
};

/// What the two ends of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Name,
}

/// A range as it was asked for.
#[derive(Clone, Copy, Debug)]
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores(ScoreEnd, ScoreEnd),
    Names(NameEnd<'a>, NameEnd<'a>),
}

#[derive(Clone, Copy, Debug)]
struct ScoreEnd {
    score: f64,
    is_excluded: bool,
}

#[derive(Clone, Copy, Debug)]
enum NameEnd<'a> {
    /// `-`
    First,
    /// `+`
    Last,
    Included(&'a [u8]),
    Excluded(&'a [u8]),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, CommandError> {
        match by {
            By::Rank => Ok(Bounds::Ranks(integer(min)?, integer(max)?)),
            By::Score => ScoreEnd::parse(min)
                .zip(ScoreEnd::parse(max))
                .map(|(min, max)| Bounds::Scores(min, max))
                .ok_or(CommandError::fixed("ERR min or max is not a float")),
            By::Name => NameEnd::parse(min)
                .zip(NameEnd::parse(max))
                .map(|(min, max)| Bounds::Names(min, max))
                .ok_or(CommandError::fixed("ERR min or max not valid string range item")),
        }
    }

    /// The ranks in `set` that lie within the range; counted from the end for ranks in reverse.
    fn ranks(self, set: &SortedSet, is_reverse: bool) -> Range<usize> {
        let (start, end) = match self {
            Bounds::Ranks(start, end) => {
                let ranks = index_range(start, end, set.len());
                return if is_reverse { set.len() - ranks.end..set.len() - ranks.start } else { ranks };
            }
            Bounds::Scores(min, max) => {
                let start = set.first(|member| member.score < min.score || min.is_excluded && member.score == min.score);
                let end = set.first(|member| member.score < max.score || !max.is_excluded && member.score == max.score);
                (start, end)
            }
            Bounds::Names(min, max) => {
                let start = match min {
                    NameEnd::First => 0,
                    NameEnd::Last => set.len(),
                    NameEnd::Included(name) => set.first(|member| *member.name < *name),
                    NameEnd::Excluded(name) => set.first(|member| *member.name <= *name),
                };
                let end = match max {
                    NameEnd::First => 0,
                    NameEnd::Last => set.len(),
                    NameEnd::Included(name) => set.first(|member| *member.name <= *name),
                    NameEnd::Excluded(name) => set.first(|member| *member.name < *name),
                };
                (start, end)
            }
        };
        start..end.max(start)
    }
}

impl ScoreEnd {
    fn parse(text: &[u8]) -> Option<ScoreEnd> {
        let (is_excluded, number) = match text.strip_prefix(b"(") {
            Some(number) => (true, number),
            None => (false, text),
        };
        Some(ScoreEnd { score: loose_double(number)?, is_excluded })
    }
}

impl<'a> NameEnd<'a> {
    fn parse(text: &'a [u8]) -> Option<NameEnd<'a>> {
        match text {
            b"-" => Some(NameEnd::First),
            b"+" => Some(NameEnd::Last),
            [b'[', name @ ..] => Some(NameEnd::Included(name)),
            [b'(', name @ ..] => Some(NameEnd::Excluded(name)),
            _ => None,
        }
    }
}

/// Options of the ZRANGE family. `None`: the command's name does not say it, so an option may.
struct RangeOptions {
    by: Option<By>,
    is_reverse: Option<bool>,
}

pub(super) fn zrange(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, RangeOptions { by: None, is_reverse: None })
}

pub(super) fn zrevrange(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, RangeOptions { by: Some(By::Rank), is_reverse: Some(true) })
}

pub(super) fn zrangebyscore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, RangeOptions { by: Some(By::Score), is_reverse: Some(false) })
}

pub(super) fn zrevrangebyscore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, RangeOptions { by: Some(By::Score), is_reverse: Some(true) })
}

pub(super) fn zrangebylex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, RangeOptions { by: Some(By::Name), is_reverse: Some(false) })
}

pub(super) fn zrevrangebylex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    answer(keys, args, reply, RangeOptions { by: Some(By::Name), is_reverse: Some(true) })
}

fn answer(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, mut options: RangeOptions) -> Outcome {
    let mut with_scores = false;
    let (mut offset, mut limit) = (0, -1);
    let mut rest = args.from(4).iter();
    while let Some(word) = rest.next() {
        if is_word(word, "WITHSCORES") {
            with_scores = true;
        } else if is_word(word, "LIMIT") && rest.len() >= 2 {
            offset = integer(rest.next().unwrap_or_default())?;
            limit = integer(rest.next().unwrap_or_default())?;
        } else if options.is_reverse.is_none() && is_word(word, "REV") {
            options.is_reverse = Some(true);
        } else if options.by.is_none() && is_word(word, "BYSCORE") {
            options.by = Some(By::Score);
        } else if options.by.is_none() && is_word(word, "BYLEX") {
            options.by = Some(By::Name);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let by = options.by.unwrap_or(By::Rank);
    let is_reverse = options.is_reverse.unwrap_or(false);
    if by == By::Rank && limit != -1 {
        return Err(CommandError::fixed("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"));
    }
    if by == By::Name && with_scores {
        return Err(CommandError::fixed("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
    }
    // In reverse the greater end comes first, but for ranks.
    let (min, max) = if is_reverse && by != By::Rank { (args.at(3), args.at(2)) } else { (args.at(2), args.at(3)) };
    let bounds = Bounds::parse(by, min, max)?;
    let Some(set) = keys.read::<SortedSet>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let mut ranks = bounds.ranks(set, is_reverse);
    if by != By::Rank {
        // A negative offset leaves nothing, a negative limit everything.
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX).min(ranks.len());
        let taken = usize::try_from(limit).unwrap_or(usize::MAX).min(ranks.len() - skipped);
        ranks = if is_reverse {
            ranks.end - skipped - taken..ranks.end - skipped
        } else {
            ranks.start + skipped..ranks.start + skipped + taken
        };
    }
    if is_reverse {
        answer_members(reply, ranks.len(), set.range_reversed(ranks), with_scores);
    } else {
        answer_members(reply, ranks.len(), set.range(ranks), with_scores);
    }
    Ok(())
}

pub(super) fn zcount(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    count(keys, args, reply, By::Score)
}

pub(super) fn zlexcount(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    count(keys, args, reply, By::Name)
}

fn count(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, by: By) -> Outcome {
    let bounds = Bounds::parse(by, args.at(2), args.at(3))?;
    let count = keys.read::<SortedSet>(args.at(1))?.map_or(0, |set| bounds.ranks(set, false).len());
    reply.count(count);
    Ok(())
}

pub(super) fn zremrangebyscore(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    remove(keys, args, reply, By::Score, "zremrangebyscore")
}

pub(super) fn zremrangebyrank(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    remove(keys, args, reply, By::Rank, "zremrangebyrank")
}

pub(super) fn zremrangebylex(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    remove(keys, args, reply, By::Name, "zremrangebylex")
}

fn remove(keys: &mut Keys<'_>, args: Args<'_>, reply: &mut Reply, by: By, event: &str) -> Outcome {
    let bounds = Bounds::parse(by, args.at(2), args.at(3))?;
    let removed = keys.edit::<SortedSet, _>(args.at(1), (Class::SortedSet, event), |set| {
        let removed = set.remove_range(bounds.ranks(set, false)).len();
        ((removed > 0).into(), removed)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}
