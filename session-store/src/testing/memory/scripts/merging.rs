//! `merging.lua`.

use std::collections::BTreeMap;

use super::{Call, contains, digits, number, number_or_zero, tag_of};
use crate::testing::memory::keyspace::{Keyspace, Refusal};

/// Revision, lines and units of a cart.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta {
    pub(super) revision: i64,
    pub(super) lines: i64,
    pub(super) count: i64,
}

impl Meta {
    pub(super) fn of(keyspace: &mut Keyspace, cart: &[u8]) -> Result<Self, Refusal> {
        let Some(meta) = keyspace.field(cart, b"@")? else { return Ok(Self::default()) };
        let numbers = meta.split(|byte| *byte == b' ').map(number).collect::<Result<Vec<_>, _>>()?;
        match numbers[..] {
            [revision, lines, count] => Ok(Self { revision, lines, count }),
            _ => Err(Refusal("ERR the cart's revision cannot be read")),
        }
    }

    pub(super) fn save(self, keyspace: &mut Keyspace, cart: &[u8]) -> Result<(), Refusal> {
        keyspace.set_field(cart, b"@", format!("{} {} {}", self.revision, self.lines, self.count))
    }
}

/// In digits, as it is compared.
pub(super) fn cart_revision(keyspace: &mut Keyspace, cart: &[u8]) -> Result<Vec<u8>, Refusal> {
    Meta::of(keyspace, cart).map(|meta| digits(meta.revision))
}

struct How<'a> {
    policy: &'a str,
    ttl_ms: i64,
    lines_max: i64,
    quantity_max: i64,
    sources_max: i64,
    tokens_max: i64,
}

impl<'a> How<'a> {
    fn parse(how: &'a [u8]) -> Result<Self, Refusal> {
        let wrong = Refusal("ERR it does not say how to merge");
        let how = std::str::from_utf8(how).map_err(|_| wrong.clone())?;
        let (policy, numbers) = how.split_once(' ').ok_or_else(|| wrong.clone())?;
        let numbers = numbers.split(' ').map(|text| number(text.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let [ttl_ms, lines_max, quantity_max, sources_max, tokens_max] = numbers[..] else { return Err(wrong) };
        Ok(Self { policy, ttl_ms, lines_max, quantity_max, sources_max, tokens_max })
    }
}

/// The places of the anonymous cart, of its tokens, and of the first of the user's three keys. How many units found no room.
pub(super) fn merge_keys(
    call: &mut Call<'_>,
    from_cart: usize,
    from_tokens: usize,
    to: usize,
    how: &[u8],
) -> Result<i64, Refusal> {
    let how = How::parse(how)?;
    let (from_cart, from_tokens) = (call.key(from_cart)?, call.key(from_tokens)?);
    let (cart, merged_before, tokens) = (call.key(to)?, call.key(to + 1)?, call.key(to + 2)?);
    let (source, keyspace) = (tag_of(from_cart), &mut *call.keyspace);
    let all = keyspace.hash(from_cart)?.cloned().unwrap_or_default();
    let lines = all.iter().filter(|(sku, _)| sku.first() != Some(&b'@'));
    let lines = lines.map(|(sku, there)| Ok((sku, number(there)?))).collect::<Result<Vec<_>, Refusal>>()?;
    let tokens_there = keyspace.string(from_tokens)?.unwrap_or_default();

    let mut meta = Meta::of(keyspace, cart)?;
    let mut merged = BTreeMap::new();
    let marks = keyspace.field(merged_before, source)?.unwrap_or_default();
    for mark in marks.split(|byte| *byte == b'\n') {
        if let Some(at) = mark.iter().position(|byte| *byte == b' ') {
            merged.insert(mark[at + 1..].to_vec(), number(&mark[..at])?);
        }
    }

    let (mut dropped, mut changed) = (0, false);
    for (sku, mut there) in lines.iter().copied() {
        let already = merged.get(sku).copied();
        let more = there - already.unwrap_or(0);
        if more > 0 {
            let before = number_or_zero(keyspace.field(cart, sku)?)?;
            let mut wanted = before + more;
            if before > 0 && how.policy == "max" {
                wanted = before.max(there);
            }
            if before > 0 && how.policy == "keep" && already.is_none() {
                (wanted, there) = (before, there.max(how.quantity_max));
            }
            let mut after = wanted.min(how.quantity_max).max(before);
            if before == 0 && meta.lines >= how.lines_max {
                after = before;
            }
            dropped += wanted - after;
            if after > before {
                keyspace.set_field(cart, sku, digits(after))?;
                meta.lines += i64::from(before == 0);
                meta.count += after - before;
                changed = true;
            }
        }
        merged.insert(sku.clone(), there.max(already.unwrap_or(0)));
    }
    if changed {
        meta.revision += 1;
        meta.save(keyspace, cart)?;
    }
    keyspace.expire(cart, how.ttl_ms);
    if !lines.is_empty() {
        mark(keyspace, merged_before, source, meta.revision, &merged, how.sources_max)?;
        keyspace.expire(merged_before, how.ttl_ms);
    }
    remember(keyspace, tokens, &tokens_there, &how)?;
    Ok(dropped)
}

/// Notes what was merged from where; of too many sources the oldest goes.
fn mark(
    keyspace: &mut Keyspace,
    merged_before: &[u8],
    source: &[u8],
    revision: i64,
    merged: &BTreeMap<Vec<u8>, i64>,
    sources_max: i64,
) -> Result<(), Refusal> {
    let sources = keyspace.hash(merged_before)?.cloned().unwrap_or_default();
    if !sources.contains_key(source) && sources.len() as i64 >= sources_max {
        let revision =
            |marks: &[u8]| marks.split(|byte| *byte == b'\n').next().and_then(|digits| number(digits).ok()).unwrap_or(0);
        let oldest = sources.iter().min_by_key(|(_, marks)| revision(marks));
        if let Some((oldest, _)) = oldest {
            keyspace.remove_fields(merged_before, &[oldest])?;
        }
    }
    let mut marks = [&digits(revision)[..], b"\n"].concat();
    for (sku, quantity) in merged {
        marks.extend([&digits(*quantity)[..], b" ", sku, b"\n"].concat());
    }
    keyspace.set_field(merged_before, source, marks)
}

/// What was sent before the login may be sent again after it.
fn remember(keyspace: &mut Keyspace, tokens: &[u8], there: &[u8], how: &How<'_>) -> Result<(), Refusal> {
    let seen = keyspace.string(tokens)?.unwrap_or_default();
    let (mut all, mut width) = (Vec::new(), 0);
    for mark in there.split_inclusive(|byte| *byte == b' ') {
        width = mark.len();
        if !contains(&seen, mark) {
            all.extend_from_slice(mark);
        }
    }
    if !all.is_empty() {
        all.extend(seen);
        all.truncate(width * usize::try_from(how.tokens_max).unwrap_or(0));
        keyspace.set_string(tokens, all, how.ttl_ms);
    }
    Ok(())
}
