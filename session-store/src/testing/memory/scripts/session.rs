//! `create.lua`, `touch.lua`, `end.lua`.

use super::{
    Call, digits,
    keep::{Times, along, keep},
    remembers, tag_of,
};
use crate::{
    scripts::reply,
    testing::memory::{answer::Answer, keyspace::Refusal},
};

/// What is to be created is there already.
pub(super) enum Taken {
    /// By an earlier attempt of this very call.
    Before {
        revision: i64,
        kept_ms: i64,
    },
    ByOthers,
}

pub(super) fn taken(call: &mut Call<'_>, session: &[u8], token: &[u8]) -> Result<Option<Taken>, Refusal> {
    if let Some(revision) = call.keyspace.field(session, b"@rev")? {
        let tokens = call.keyspace.field(session, b"@tok")?;
        if remembers(tokens.as_deref(), token) {
            let (revision, kept_ms) = (super::number(&revision)?, call.keyspace.left_ms(session));
            return Ok(Some(Taken::Before { revision, kept_ms }));
        }
        return Ok(Some(Taken::ByOthers));
    }
    Ok(call.keyspace.exists(session).then_some(Taken::ByOthers))
}

pub(super) fn create(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, token, policy, absolute, how) = (call.key(1)?, call.arg(1)?, call.arg(2)?, call.arg(3)?, call.arg(4)?);
    match taken(call, session, token)? {
        Some(Taken::Before { revision, kept_ms }) => return Ok(Answer::numbers([reply::OK, revision, kept_ms])),
        Some(Taken::ByOthers) => return Ok(Answer::numbers([reply::TAKEN])),
        None => {}
    }
    call.keyspace.set_fields(session, &call.args[4..])?;
    let created_ms = call.keyspace.now_ms();
    begin(call, session, token, policy)?;
    let kept_ms = keep(call.keyspace, session, policy, absolute, &Times::since(created_ms))?;
    let over = along(call, how, session, None, kept_ms)?;
    Ok(Answer::numbers([reply::OK, 1, kept_ms, 0, over]))
}

/// What a session begins with.
pub(super) fn begin(call: &mut Call<'_>, session: &[u8], token: &[u8], policy: &[u8]) -> Result<(), Refusal> {
    let created_ms = digits(call.keyspace.now_ms());
    let tokens = [token, b" "].concat();
    call.keyspace.set_fields(session, &[b"@rev", b"1", b"@tok", &tokens, b"@created", &created_ms, b"@expiry", policy])
}

pub(super) fn touch(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, absolute, how, mode, owner) = (call.key(1)?, call.arg(2)?, call.arg(3)?, call.arg(4)?, call.arg(5)?);
    if call.keyspace.field(session, b"@rev")?.is_none() {
        return Ok(Answer::numbers([reply::GONE]));
    }
    if owner != b"*" && owner != call.keyspace.field(session, b"@owner")?.unwrap_or_default() {
        return Ok(Answer::numbers([reply::OWNED]));
    }
    let its_own = call.keyspace.field(session, b"@expiry")?;
    let policy = its_own.as_deref().map_or_else(|| call.arg(1), Ok)?;
    let times = Times::of(call.keyspace, session)?;
    if mode == b"due" {
        let (kind, idle) = policy.split_first().ok_or(Refusal("ERR the policy is empty"))?;
        let (left_ms, idle) = (call.keyspace.left_ms(session), super::number(idle)?);
        if times.capped || *kind == b'a' || left_ms >= idle - (idle / 16).min(3_600_000) {
            return Ok(Answer::numbers([reply::OK, left_ms, 0]));
        }
    }
    let kept_ms = keep(call.keyspace, session, policy, absolute, &times)?;
    along(call, how, session, None, kept_ms)?;
    Ok(Answer::numbers([reply::OK, kept_ms, 1]))
}

pub(super) fn end(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, grace_ms, user) = (call.key(1)?, call.number(1)?, call.arg(2)?);
    if let Some(list) = call.keys.get(3) {
        call.keyspace.sorted_set(list, |set| set.remove(tag_of(session)))?;
    }
    let revision = call.keyspace.field(session, b"@rev")?;
    let owner = call.keyspace.field(session, b"@owner")?;
    if revision.is_none() && !call.keyspace.exists(session) {
        return Ok(Answer::numbers([reply::GONE]));
    }
    if !user.is_empty() && owner.as_deref() != Some(user) {
        return Ok(Answer::numbers([reply::GONE]));
    }
    for place in 1..=3 {
        call.keyspace.remove(call.key(place)?);
    }
    call.keyspace.set_field(session, b"@ended", *b"1")?;
    call.keyspace.expire(session, grace_ms);
    Ok(Answer::numbers([if revision.is_some() { reply::OK } else { reply::GONE }]))
}
