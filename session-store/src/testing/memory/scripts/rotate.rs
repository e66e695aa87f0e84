//! `rotate.lua`.

use super::{
    Call,
    commit::with_policy,
    digits,
    keep::{Times, along, keep},
    merging::merge_keys,
    number,
    session::{Taken, taken},
    tag_of,
};
use crate::{
    encryption::{SEALED_NAME, is_sealed},
    scripts::reply,
    testing::memory::{
        answer::Answer,
        keyspace::{Keyspace, Refusal},
    },
};

pub(super) fn rotate(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (old, new, old_cart, new_cart) = (call.key(1)?, call.key(2)?, call.key(3)?, call.key(4)?);
    let (old_tokens, new_tokens) = (call.key(5)?, call.key(6)?);
    let (token, policy, absolute, grace_ms) = (call.arg(1)?, call.arg(2)?, call.arg(3)?, call.number(4)?);
    let (merge, how) = (call.arg(5)?, call.arg(6)?);
    let (set, removed) = call.counted(7)?;
    let revision = call.keyspace.field(old, b"@rev")?;
    let ended = call.keyspace.field(old, b"@ended")?.is_some();
    if let Some(taken) = taken(call, new, token)? {
        return Ok(match taken {
            Taken::Before { revision, kept_ms } => with_policy([revision, kept_ms, 0, 0], call.keyspace.field(new, b"@expiry")?),
            Taken::ByOthers => Answer::numbers([reply::TAKEN]),
        });
    }
    let Some(revision) = revision else {
        return Ok(Answer::numbers([if ended { reply::ENDED } else { reply::GONE }]));
    };

    let is_bound = set.chunks_exact(2).any(|pair| pair[0] == b"@bind");
    let mut record = call.keyspace.hash(old)?.into_iter().flatten();
    if !is_bound && record.any(|(_, value)| is_sealed(value)) {
        return Ok(Answer::numbers([reply::UNREADABLE_LINE]));
    }

    let mut dropped = 0;
    if !merge.is_empty() {
        if call.keyspace.field(old, b"@owner")?.is_none() {
            match merge_keys(call, 3, 5, 7, merge)? {
                Ok(units) => dropped = units,
                Err(refused) => return Ok(Answer::numbers([refused])),
            }
        }
        call.keyspace.expire(old_tokens, grace_ms);
    } else {
        let mut cart = call.keyspace.hash(old_cart)?.into_iter().flatten();
        if !is_bound && cart.any(|(field, _)| field.first() == Some(&SEALED_NAME)) {
            return Ok(Answer::numbers([reply::UNREADABLE_LINE]));
        }
        let left_ms = call.keyspace.left_ms(old_cart);
        copy(call.keyspace, old_cart, new_cart)?;
        if left_ms > 0 {
            call.keyspace.expire(new_cart, left_ms);
        }
        call.keyspace.rename(old_tokens, new_tokens);
    }
    call.keyspace.expire(old_cart, grace_ms);

    copy(call.keyspace, old, new)?;
    call.keyspace.set_fields(new, set)?;
    call.keyspace.remove_fields(new, removed)?;
    let revision = number(&revision)? + 1;
    call.keyspace.set_field(new, b"@rev", digits(revision))?;
    call.keyspace.set_field(new, b"@tok", [token, b" "].concat())?;
    let times = Times::of(call.keyspace, new)?;
    let policy = call.keyspace.field(new, b"@expiry")?.unwrap_or_else(|| policy.to_vec());
    let kept_ms = keep(call.keyspace, new, &policy, absolute, &times)?;

    call.keyspace.remove_fields(old, &[b"@rev", b"@tok"])?;
    call.keyspace.set_field(old, b"@ended", tag_of(new))?;
    call.keyspace.expire(old, grace_ms);
    let over = along(call, how, new, Some(old), kept_ms)?;
    Ok(with_policy([revision, kept_ms, dropped, over], Some(policy)))
}

fn copy(keyspace: &mut Keyspace, from: &[u8], to: &[u8]) -> Result<(), Refusal> {
    let all = keyspace.hash(from)?.cloned().unwrap_or_default();
    for (field, value) in all {
        keyspace.set_field(to, &field, value)?;
    }
    Ok(())
}
