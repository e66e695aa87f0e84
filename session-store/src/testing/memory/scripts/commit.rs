//! `commit.lua`, and `change.lua`, which is a part of it.

use super::{
    Call, digits,
    keep::{Times, along, keep},
    merging::{cart_revision, merge_keys},
    number, remember, remembers,
};
use crate::{
    scripts::reply,
    testing::memory::{answer::Answer, keyspace::Refusal},
};

/// Commits that a session remembers.
const TOKENS_REMEMBERED: usize = 8;

pub(super) fn change(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    // What `commit` also wants: the mode, a grace, what becomes of the cart; what goes along.
    const BEFORE: [&[u8]; 3] = [b"delta", b"0", b""];
    const BEHIND: [&[u8]; 1] = [b""];
    let (head, rest) = call.args.split_at_checked(3).ok_or(Refusal("ERR an argument is missing"))?;
    let (compared, changes) = rest.split_at_checked(2).ok_or(Refusal("ERR an argument is missing"))?;
    let args = [head, &BEFORE, compared, &BEHIND, changes].concat();
    commit(&mut Call { keyspace: call.keyspace, keys: call.keys, args: &args })
}

pub(super) fn commit(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, token, policy, absolute) = (call.key(1)?, call.arg(1)?, call.arg(2)?, call.arg(3)?);
    let (mode, grace_ms, merge) = (call.arg(4)?, call.number(5)?, call.arg(6)?);
    let (compared, expected, how) = (call.arg(7)?, call.arg(8)?, call.arg(9)?);
    let (set, removed) = call.counted(10)?;
    let times = Times::of(call.keyspace, session)?;
    let Some(revision) = call.keyspace.field(session, b"@rev")? else {
        let ended = call.keyspace.field(session, b"@ended")?.is_some();
        return Ok(Answer::numbers([if ended { reply::ENDED } else { reply::GONE }]));
    };
    let revision = number(&revision)?;
    let seen = call.keyspace.field(session, b"@tok")?.unwrap_or_default();
    if remembers(Some(&seen), token) {
        return Ok(Answer::numbers([reply::OK, revision, call.keyspace.left_ms(session)]));
    }
    if !expected.is_empty() {
        let current = call.keyspace.field(session, compared)?;
        let now = current.as_deref().map_or_else(|| b"-".to_vec(), |value| [b"=", value].concat());
        if now != expected {
            return Ok(Answer::of_script([Answer::Integer(reply::CHANGED), current.into()]));
        }
    }
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
    call.keyspace.set_field(session, b"@tok", remember(token, &seen, TOKENS_REMEMBERED))?;
    let kept_ms = keep(call.keyspace, session, policy, absolute, &times)?;
    let over = along(call, how, session, None, kept_ms)?;
    Ok(Answer::numbers([reply::OK, revision, kept_ms, dropped, over]))
}
