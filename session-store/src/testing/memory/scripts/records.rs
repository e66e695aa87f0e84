//! `quarantine.lua` and `take_over.lua`.

use super::{
    Call, digits,
    keep::{Times, keep},
    number,
};
use crate::{
    scripts::reply,
    testing::memory::{
        answer::Answer,
        keyspace::{Refusal, Value},
    },
};

pub(super) fn quarantine(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, aside, aside_ms, again_ms) = (call.key(1)?, call.key(2)?, call.number(1)?, call.number(2)?);
    let (policy, absolute, now_ms) = (call.arg(3)?, call.arg(4)?, call.keyspace.now_ms());
    match call.keyspace.value(session) {
        None => return Ok(Answer::numbers([reply::GONE])),
        Some(Value::Hash(hash)) if hash.contains_key(&b"@ended"[..]) => return Ok(Answer::numbers([reply::GONE])),
        Some(Value::Hash(hash)) => {
            let clean = hash.get(&b"@clean"[..]).and_then(|text| number(text).ok());
            if clean.is_some_and(|clean| now_ms - clean < again_ms) {
                return Ok(Answer::numbers([reply::GONE]));
            }
        }
        Some(_) => {}
    }
    call.keyspace.rename(session, aside);
    call.keyspace.expire(aside, aside_ms);
    if !policy.is_empty() {
        let created = digits(now_ms);
        let fields = [b"@rev".as_slice(), b"1", b"@created", &created, b"@clean", &created, b"@expiry", policy];
        call.keyspace.set_fields(session, &fields)?;
        call.keyspace.set_fields(session, &call.args[4..])?;
        keep(call.keyspace, session, policy, absolute, &Times::since(now_ms))?;
    }
    Ok(Answer::numbers([reply::OK]))
}

pub(super) fn take_over(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (session, theirs, record, policy, absolute) = (call.key(1)?, call.key(2)?, call.arg(1)?, call.arg(2)?, call.arg(3)?);
    if call.keyspace.exists(session) {
        return Ok(Answer::numbers([reply::TAKEN]));
    }
    if call.keyspace.string(theirs)?.as_deref() != Some(record) {
        return Ok(Answer::numbers([reply::GONE]));
    }
    let now_ms = call.keyspace.now_ms();
    call.keyspace.set_fields(session, &call.args[3..])?;
    call.keyspace.set_fields(session, &[b"@rev", b"1", b"@created", &digits(now_ms), b"@expiry", policy])?;
    call.keyspace.remove(theirs);
    let kept_ms = keep(call.keyspace, session, policy, absolute, &Times::since(now_ms))?;
    Ok(Answer::numbers([reply::OK, kept_ms]))
}
