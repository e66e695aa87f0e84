//! `keep.lua` and `along.lua`.

use super::{Call, digits, number, tag_of};
use crate::{
    expiry::TTL_MAX_MS,
    testing::memory::keyspace::{Keyspace, Refusal},
};

/// What is known of a session's time.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) until_ms: Option<i64>,
    pub(super) created_ms: Option<i64>,
    pub(super) capped: bool,
}

impl Times {
    pub(super) fn of(keyspace: &mut Keyspace, session: &[u8]) -> Result<Self, Refusal> {
        let mut time = |field| keyspace.field(session, field)?.map(|text| number(&text)).transpose();
        Ok(Self { until_ms: time(b"@until")?, created_ms: time(b"@created")?, capped: time(b"@capped")?.is_some() })
    }

    pub(super) fn since(created_ms: i64) -> Self {
        Self { created_ms: Some(created_ms), ..Self::default() }
    }
}

pub(super) fn keep(keyspace: &mut Keyspace, key: &[u8], policy: &[u8], absolute: &[u8], times: &Times) -> Result<i64, Refusal> {
    let (kind, ttl) = policy.split_first().ok_or(Refusal("ERR the policy is empty"))?;
    let (now_ms, mut ttl, mut last) = (keyspace.now_ms(), number(ttl)?, times.until_ms);
    if !absolute.is_empty() {
        let latest = times.created_ms.unwrap_or(now_ms).saturating_add(number(absolute)?);
        if last.is_none_or(|last| latest < last) {
            last = Some(latest);
            keyspace.set_field(key, b"@until", digits(latest))?;
        }
    }
    if *kind == b'a' {
        ttl = ttl.saturating_sub(now_ms);
    }
    if let Some(last) = last {
        let left = last - now_ms;
        if left <= ttl {
            ttl = left;
            if !times.capped {
                keyspace.set_field(key, b"@capped", *b"1")?;
            }
        } else if times.capped {
            keyspace.remove_fields(key, &[b"@capped"])?;
        }
    }
    ttl = ttl.min(TTL_MAX_MS);
    keyspace.expire(key, ttl);
    Ok(ttl)
}

/// Puts a session on the list of its user's; how many more than `most` it has then.
fn list(
    keyspace: &mut Keyspace,
    list: &[u8],
    tag: &[u8],
    former: Option<&[u8]>,
    kept_ms: i64,
    most: i64,
) -> Result<i64, Refusal> {
    let (now_ms, listed_ms) = (keyspace.now_ms(), kept_ms + kept_ms / 16);
    // In a step of its own: a list that is empty in between begins anew, its time too.
    keyspace.sorted_set(list, |set| set.retain(|tag, end| *end > now_ms && Some(tag.as_slice()) != former))?;
    let over = keyspace.sorted_set(list, |set| {
        set.insert(tag.to_vec(), now_ms + listed_ms);
        let over = set.len() as i64 - most;
        if over > 3 * most + 64 {
            let mut by_end: Vec<_> = set.iter().map(|(tag, end)| (*end, tag.clone())).collect();
            by_end.sort();
            for (_, tag) in by_end.iter().take((over - 3 * most - 64) as usize) {
                set.remove(tag);
            }
        }
        over
    })?;
    if keyspace.left_ms(list) < listed_ms {
        keyspace.expire(list, listed_ms);
    }
    Ok(over.max(0))
}

/// What goes along when the time of a session is set. The keys of cart and list are the last ones.
pub(super) fn along(
    call: &mut Call<'_>,
    how: &[u8],
    session: &[u8],
    former: Option<&[u8]>,
    kept_ms: i64,
) -> Result<i64, Refusal> {
    if how.is_empty() || kept_ms <= 0 {
        return Ok(0);
    }
    let now_ms = call.keyspace.now_ms();
    for (wish, field) in [(b's', b"@seen".as_slice()), (b'l', b"@login")] {
        if how.contains(&wish) {
            call.keyspace.set_field(session, field, digits(now_ms))?;
        }
    }
    let (mut over, mut last) = (0, call.keys.len());
    if let Some(most) = number_behind(how, b'u')? {
        over = list(call.keyspace, call.key(last)?, tag_of(session), former.map(tag_of), kept_ms, most)?;
        last -= 1;
    }
    if let Some(ttl_ms) = number_behind(how, b'c')? {
        call.keyspace.expire(call.key(last)?, ttl_ms);
    }
    Ok(over)
}

fn number_behind(how: &[u8], letter: u8) -> Result<Option<i64>, Refusal> {
    let Some(at) = how.iter().position(|byte| *byte == letter) else { return Ok(None) };
    let rest = &how[at + 1..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    number(&rest[..length]).map(Some)
}
