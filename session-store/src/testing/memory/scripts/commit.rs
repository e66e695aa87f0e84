//! `commit.lua`, and `change.lua` with what stands before and behind it.

use super::{
    Call, digits,
    keep::{Times, along, keep},
    merging::{is_as_merged, merge_keys},
    number, remember, remembers,
};
use crate::{
    backend::COMMITS_REMEMBERED,
    scripts::reply,
    testing::memory::{answer::Answer, keyspace::Refusal},
};

/// The revision of a session that is there, the tokens that it remembers, and its policy.
struct Found {
    revision: i64,
    seen: Vec<u8>,
    policy: Option<Vec<u8>>,
}

/// A change that was made.
struct Changed {
    revision: i64,
    /// Others have changed the session since the caller has read it.
    is_overtaken: bool,
    /// The session's own policy, then.
    policy: Option<Vec<u8>>,
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
    let policy = call.keyspace.field(session, b"@expiry")?;
    if remembers(Some(&seen), token) {
        return Ok(Err(with_policy([revision, call.keyspace.left_ms(session), 0, 0], policy)));
    }
    if !expected.is_empty() {
        let current = call.keyspace.field(session, compared)?;
        let now = current.as_deref().map_or_else(|| b"-".to_vec(), |value| [b"=", value].concat());
        if now != expected {
            return Ok(Err(Answer::of_script([Answer::Integer(reply::CHANGED), current.into()])));
        }
    }
    Ok(Ok(Found { revision, seen, policy }))
}

/// Gives the session all of its time.
pub(super) fn change(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (before, time) = call.args.split_last_chunk::<2>().ok_or(Refusal("ERR an argument is missing"))?;
    let session = call.key(1)?;
    let times = Times::of(call.keyspace, session)?;
    let absolute = if time[1] == b"*" { b"" } else { time[1] };
    let revision = match changed(&mut Call { keyspace: call.keyspace, keys: call.keys, args: before })? {
        Ok(Changed { revision, policy: Some(policy), .. }) if call.arg(7)? != b"@expiry" => {
            let kept_ms = keep(call.keyspace, session, &policy, absolute, &times)?;
            return Ok(with_policy([revision, kept_ms, 0, 0], Some(policy)));
        }
        Ok(Changed { revision, .. }) => revision,
        Err(answer) => return Ok(answer),
    };
    if let [idle_ms, b"*"] = *time {
        let kept_ms = keep(call.keyspace, session, &[b"i", idle_ms].concat(), b"", &times)?;
        let has_no_other_end = times.until_ms.is_none();
        return Ok(if has_no_other_end { Answer::Integer(revision) } else { usual(revision, kept_ms) });
    }
    let [policy, absolute] = *time;
    Ok(usual(revision, keep(call.keyspace, session, policy, absolute, &times)?))
}

fn usual(revision: i64, kept_ms: i64) -> Answer {
    Answer::numbers([reply::OK, revision, kept_ms, 0, 0])
}

/// What has been done, and by which policy: behind the revision the time, what was dropped, and how many sessions are too many.
pub(super) fn with_policy(numbers: [i64; 4], policy: Option<Vec<u8>>) -> Answer {
    let [revision, kept_ms, dropped, over] = numbers.map(Answer::Integer);
    Answer::of_script([Answer::Integer(reply::OK), revision, kept_ms, dropped, over, policy.into()])
}

/// Leaves the session's time as it is.
pub(super) fn change_within(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let session = call.key(1)?;
    Ok(match changed(call)? {
        Err(answer) => answer,
        Ok(Changed { revision, is_overtaken: true, .. }) => {
            // It may be what this very call has set.
            let policy = call.keyspace.field(session, b"@expiry")?;
            with_policy([revision, call.keyspace.left_ms(session), 0, 0], policy)
        }
        Ok(Changed { revision, .. }) => Answer::Integer(revision),
    })
}

/// The same, of which the answer is the revision as it was given where nobody else has changed the session.
pub(super) fn change_plain(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (version, set) = call.args.split_first_chunk::<3>().ok_or(Refusal("ERR an argument is missing"))?;
    let count = digits(i64::try_from(set.len()).map_err(|_| Refusal("ERR too many arguments"))?);
    let args = [&version[..], &[b"", b"", &count], set].concat();
    Ok(match change_within(&mut Call { keyspace: call.keyspace, keys: call.keys, args: &args })? {
        Answer::Integer(_) => Answer::String(version[1].to_vec()),
        overtaken => overtaken,
    })
}

/// What was changed, or what to answer in its place.
fn changed(call: &mut Call<'_>) -> Result<Result<Changed, Answer>, Refusal> {
    let (session, read_with, mut tokens) = (call.key(1)?, call.arg(1)?, call.arg(3)?.to_vec());
    let (set, removed) = call.counted(6)?;
    let (mut is_overtaken, mut policy) = (false, None);
    let revision = match call.keyspace.field(session, b"@tok")? {
        Some(seen) if seen == read_with => call.number(2)?,
        _ => {
            let token: Vec<u8> = tokens.iter().copied().take_while(|byte| *byte != b' ').collect();
            match found(call, &token, call.arg(4)?, call.arg(5)?)? {
                Err(answer) => return Ok(Err(answer)),
                Ok(Found { revision, seen, policy: its_own }) => {
                    (is_overtaken, policy) = (true, its_own);
                    tokens = remember(&token, &seen, COMMITS_REMEMBERED);
                    revision + 1
                }
            }
        }
    };
    let is_session = call.keyspace.field(session, b"@rev")?.is_some() || call.keyspace.field(session, b"@ended")?.is_none();
    call.keyspace.set_fields(session, set)?;
    if !is_session {
        // The version before has left the tokens under an id that it has given up.
        call.keyspace.remove_fields(session, &[b"@tok"])?;
        return Ok(Err(Answer::numbers([reply::ENDED])));
    }
    call.keyspace.set_field(session, b"@rev", digits(revision))?;
    call.keyspace.set_field(session, b"@tok", tokens)?;
    call.keyspace.remove_fields(session, removed)?;
    Ok(Ok(Changed { revision, is_overtaken, policy }))
}

pub(super) fn commit(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, token, policy, absolute) = (call.key(1)?, call.arg(1)?, call.arg(2)?, call.arg(3)?);
    let (mode, grace_ms, merge) = (call.arg(4)?, call.number(5)?, call.arg(6)?);
    let (compared, expected, how) = (call.arg(7)?, call.arg(8)?, call.arg(9)?);
    let (set, removed) = call.counted(10)?;
    let times = Times::of(call.keyspace, session)?;
    let Found { revision, seen, policy: its_own } = match found(call, token, compared, expected)? {
        Ok(found) => found,
        Err(answer) => return Ok(answer),
    };
    let mut dropped = 0;
    if !merge.is_empty() {
        if let Some(packed) = merge.strip_prefix(b"=") {
            let (cart, tokens) = (call.key(2)?, call.key(3)?);
            if !is_as_merged(call.keyspace, cart, tokens, packed)? {
                return Ok(Answer::numbers([reply::CART_CHANGED]));
            }
        } else {
            if call.keyspace.field(session, b"@owner")?.is_none() {
                match merge_keys(call, 2, 3, 4, merge)? {
                    Ok(units) => dropped = units,
                    Err(refused) => return Ok(Answer::numbers([refused])),
                }
            }
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
    let is_chosen = call.arg(11).is_ok_and(|first| first == b"@expiry");
    let policy = its_own.filter(|_| !is_chosen).unwrap_or_else(|| policy.to_vec());
    let kept_ms = keep(call.keyspace, session, &policy, absolute, &times)?;
    let over = along(call, how, session, None, kept_ms)?;
    Ok(with_policy([revision, kept_ms, dropped, over], Some(policy)))
}
