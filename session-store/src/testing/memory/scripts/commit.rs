//! `commit.lua`, and `change.lua` with what stands before and behind it.

use super::{
    Call, digits,
    keep::{Times, along, keep},
    merging::{cart_revision, merge_keys},
    number, remember, remembers,
};
use crate::{
    backend::COMMITS_REMEMBERED,
    scripts::reply,
    testing::memory::{answer::Answer, keyspace::Refusal},
};

/// The revision of a session that is there, and the tokens that it remembers.
struct Found {
    revision: i64,
    seen: Vec<u8>,
}

/// `Err`: what to answer when it is not there, or the commit was made already, or the value is not the expected one.
fn found(call: &mut Call<'_>, token: &[u8], compared: &[u8], expected: &[u8]) -> Result<Result<Found, Answer>, Refusal> {
    let session = call.key(1)?;
    let Some(revision) = call.keyspace.field(session, b"@rev")? else {
        let ended = call.keyspace.field(session, b"@ended")?.is_some();
        return Ok(Err(Answer::numbers([if ended { reply::ENDED } else { reply::GONE }])));
    };
    let revision = number(&revision)?;
    let seen = call.keyspace.field(session, b"@tok")?.unwrap_or_default();
    if remembers(Some(&seen), token) {
        return Ok(Err(Answer::numbers([reply::OK, revision, call.keyspace.left_ms(session)])));
    }
    if !expected.is_empty() {
        let current = call.keyspace.field(session, compared)?;
        let now = current.as_deref().map_or_else(|| b"-".to_vec(), |value| [b"=", value].concat());
        if now != expected {
            return Ok(Err(Answer::of_script([Answer::Integer(reply::CHANGED), current.into()])));
        }
    }
    Ok(Ok(Found { revision, seen }))
}

/// Gives the session all of its time.
pub(super) fn change(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (before, time) = call.args.split_last_chunk::<2>().ok_or(Refusal("ERR an argument is missing"))?;
    let session = call.key(1)?;
    let times = Times::of(call.keyspace, session)?;
    let revision = match changed(&mut Call { keyspace: call.keyspace, keys: call.keys, args: before })? {
        Ok(revision) => revision,
        Err(answer) => return Ok(answer),
    };
    if let [idle_ms, b"*"] = *time {
        let kept_ms = keep(call.keyspace, session, &[b"i", idle_ms].concat(), b"", &times)?;
        let has_no_other_end = times.until_ms.is_none();
        return Ok(if has_no_other_end { Answer::Integer(revision) } else { done(revision, kept_ms) });
    }
    let [policy, absolute] = *time;
    Ok(done(revision, keep(call.keyspace, session, policy, absolute, &times)?))
}

fn done(revision: i64, kept_ms: i64) -> Answer {
    Answer::numbers([reply::OK, revision, kept_ms, 0, 0])
}

/// Leaves the session's time as it is.
pub(super) fn change_within(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    Ok(changed(call)?.map_or_else(|answer| answer, Answer::Integer))
}

/// The new revision, or what to answer in its place.
fn changed(call: &mut Call<'_>) -> Result<Result<i64, Answer>, Refusal> {
    let (session, read_with, mut tokens) = (call.key(1)?, call.arg(1)?, call.arg(3)?.to_vec());
    let (set, removed) = call.counted(6)?;
    let is_there = call.keyspace.field(session, b"@rev")?.is_some();
    let revision = match call.keyspace.field(session, b"@tok")? {
        Some(seen) if is_there && seen == read_with => call.number(2)?,
        _ => {
            let token: Vec<u8> = tokens.iter().copied().take_while(|byte| *byte != b' ').collect();
            match found(call, &token, call.arg(4)?, call.arg(5)?)? {
                Err(answer) => return Ok(Err(answer)),
                Ok(Found { revision, seen }) => {
                    tokens = remember(&token, &seen, COMMITS_REMEMBERED);
                    revision + 1
                }
            }
        }
    };
    call.keyspace.set_field(session, b"@rev", digits(revision))?;
    call.keyspace.set_field(session, b"@tok", tokens)?;
    call.keyspace.set_fields(session, set)?;
    call.keyspace.remove_fields(session, removed)?;
    Ok(Ok(revision))
}

pub(super) fn commit(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, token, policy, absolute) = (call.key(1)?, call.arg(1)?, call.arg(2)?, call.arg(3)?);
    let (mode, grace_ms, merge) = (call.arg(4)?, call.number(5)?, call.arg(6)?);
    let (compared, expected, how) = (call.arg(7)?, call.arg(8)?, call.arg(9)?);
    let (set, removed) = call.counted(10)?;
    let times = Times::of(call.keyspace, session)?;
    let Found { revision, seen } = match found(call, token, compared, expected)? {
        Ok(found) => found,
        Err(answer) => return Ok(answer),
    };
    let mut dropped = 0;
    if !merge.is_empty() {
        if merge.contains(&b' ') {
            if call.keyspace.field(session, b"@owner")?.is_none() {
                match merge_keys(call, 2, 3, 4, merge)? {
                    Ok(units) => dropped = units,
                    Err(refused) => return Ok(Answer::numbers([refused])),
                }
            }
        } else if cart_revision(call.keyspace, call.key(2)?)? != merge {
            return Ok(Answer::numbers([reply::CART_CHANGED]));
        }
        call.keyspace.expire(call.key(2)?, grace_ms);
        call.keyspace.expire(call.key(3)?, grace_ms);
    }
    if mode == b"replace" {
        let of_the_application = |name: &[u8]| name.first() != Some(&b'@') || name.get(1) == Some(&b'@');
        let names = call.keyspace.hash(session)?.into_iter().flatten().map(|(name, _)| name.clone());
        let gone: Vec<_> = names
            .filter(|name| of_the_application(name) && !set.chunks_exact(2).any(|pair| pair[0] == name.as_slice()))
            .collect();
        call.keyspace.remove_fields(session, &gone.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    }
    call.keyspace.set_fields(session, set)?;
    call.keyspace.remove_fields(session, removed)?;
    let revision = revision + 1;
    call.keyspace.set_field(session, b"@rev", digits(revision))?;
    call.keyspace.set_field(session, b"@tok", remember(token, &seen, COMMITS_REMEMBERED))?;
    let kept_ms = keep(call.keyspace, session, policy, absolute, &times)?;
    let over = along(call, how, session, None, kept_ms)?;
    Ok(Answer::numbers([reply::OK, revision, kept_ms, dropped, over]))
}
