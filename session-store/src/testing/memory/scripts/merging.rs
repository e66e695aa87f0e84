//! `merging.lua`.

use std::collections::BTreeMap;

use super::{
    Call, contains, digits, number,
    standing::{Line, lines},
    tag_of,
};
use crate::{
    cart::merged::Merged,
    encryption::SEALED_NAME,
    scripts::reply,
    testing::memory::keyspace::{Keyspace, Refusal},
};

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

struct How<'a> {
    policy: &'a str,
    ttl_ms: i64,
    lines_max: i64,
    quantity_max: i64,
    sources_max: i64,
    tokens_max: i64,
    /// Of a line; `None`: they are clear.
    names: Option<usize>,
}

impl<'a> How<'a> {
    fn parse(how: &'a [u8]) -> Result<Self, Refusal> {
        let wrong = Refusal("ERR it does not say how to merge");
        let how = std::str::from_utf8(how).map_err(|_| wrong.clone())?;
        let (policy, numbers) = how.split_once(' ').ok_or_else(|| wrong.clone())?;
        let numbers = numbers.split(' ').map(|text| number(text.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let [ttl_ms, lines_max, quantity_max, sources_max, tokens_max, ref names @ ..] = numbers[..] else { return Err(wrong) };
        let names = names.first().and_then(|names| usize::try_from(*names).ok());
        Ok(Self { policy, ttl_ms, lines_max, quantity_max, sources_max, tokens_max, names })
    }
}

/// The places of the anonymous cart, of its tokens, and of the first of the user's three keys. How many units found no room, or what to
/// answer when nothing was done.
pub(super) fn merge_keys(
    call: &mut Call<'_>,
    from_cart: usize,
    from_tokens: usize,
    to: usize,
    how: &[u8],
) -> Result<Result<i64, i64>, Refusal> {
    let mut parts = how.splitn(2, |byte| *byte == b'\n');
    let (how, given) = (How::parse(parts.next().unwrap_or_default())?, parts.next());
    let (from_cart, from_tokens) = (call.key(from_cart)?, call.key(from_tokens)?);
    let into = Into { cart: call.key(to)?, merged_before: call.key(to + 1)?, tokens: call.key(to + 2)? };
    let keyspace = &mut *call.keyspace;
    let all = keyspace.hash(from_cart)?.cloned().unwrap_or_default();
    let there: Vec<&[u8]> = match given {
        Some(packed) => {
            let mut lines = parts_of(packed)?;
            if lines.is_empty() || !is_as_merged(keyspace, from_cart, from_tokens, lines.remove(0))? {
                return Ok(Err(reply::CART_CHANGED));
            }
            lines
        }
        None if all.keys().any(|field| field.first() == Some(&SEALED_NAME)) => return Ok(Err(reply::UNREADABLE_LINE)),
        None => {
            let there = all.iter().filter(|(sku, _)| sku.first() != Some(&b'@'));
            there.flat_map(|(sku, quantity)| [&sku[..], quantity]).collect()
        }
    };
    let tokens_there = keyspace.string(from_tokens)?.unwrap_or_default();
    let merged = merge(keyspace, tag_of(from_cart), &lines(&there, how.names), &tokens_there, &how, &into)?;
    Ok(merged.ok_or(reply::UNREADABLE_LINE))
}

/// Whether a cart and its tokens are what was read.
pub(super) fn is_as_merged(keyspace: &mut Keyspace, cart: &[u8], tokens: &[u8], packed: &[u8]) -> Result<bool, Refusal> {
    let there: Vec<Vec<u8>> =
        keyspace.hash(cart)?.into_iter().flatten().flat_map(|(name, value)| [name.clone(), value.clone()]).collect();
    let tokens = keyspace.string(tokens)?.unwrap_or_default();
    let Some((read_tokens, read)) = parts_of(packed)?
        .split_first()
        .map(|(first, rest)| (first.to_vec(), rest.iter().map(|part| part.to_vec()).collect::<Vec<_>>()))
    else {
        return Ok(false);
    };
    Ok(read.len().is_multiple_of(2) && Merged::new(&read, &read_tokens) == Merged::new(&there, &tokens))
}

/// What is in one argument.
fn parts_of(mut packed: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    let wrong = || Refusal("ERR what is in the cart cannot be read");
    let mut parts = Vec::new();
    while !packed.is_empty() {
        let colon = memchr::memchr(b':', packed).ok_or_else(wrong)?;
        let length = usize::try_from(number(&packed[..colon])?).map_err(|_| wrong())?;
        let (part, rest) = packed[colon + 1..].split_at_checked(length).ok_or_else(wrong)?;
        parts.push(part);
        packed = rest;
    }
    Ok(parts)
}

/// The keys of a user.
struct Into<'a> {
    cart: &'a [u8],
    merged_before: &'a [u8],
    tokens: &'a [u8],
}

/// How many units found no room; `None`: a line is damaged, and nothing was done.
fn merge(
    keyspace: &mut Keyspace,
    source: &[u8],
    there: &[Line<'_>],
    tokens_there: &[u8],
    how: &How<'_>,
    into: &Into<'_>,
) -> Result<Option<i64>, Refusal> {
    let &Into { cart, merged_before, tokens } = into;
    let is_sealed = how.names.is_some();
    for line in there {
        if line.standing(keyspace, cart, is_sealed)?.is_none() {
            return Ok(None);
        }
    }
    let mut meta = Meta::of(keyspace, cart)?;
    let mut merged = BTreeMap::new();
    let marks = keyspace.field(merged_before, source)?.unwrap_or_default();
    for mark in marks.split(|byte| *byte == b'\n') {
        if let Some(at) = mark.iter().position(|byte| *byte == b' ') {
            merged.insert(mark[at + 1..].to_vec(), number(&mark[..at])?);
        }
    }

    let (mut dropped, mut changed) = (0, false);
    for line in there {
        let (sku, mut there) = (line.name.to_vec(), number(line.quantity)?);
        for other in line.others {
            if let Some(marked) = merged.remove(*other) {
                let known = merged.entry(sku.clone()).or_insert(0);
                *known = marked.max(*known);
            }
        }
        let already = merged.get(&sku).copied();
        let more = there - already.unwrap_or(0);
        if let Some(standing) = line.standing(keyspace, cart, is_sealed)?.filter(|_| more > 0) {
            let before = standing.quantity;
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
                line.put(keyspace, cart, &standing, after)?;
                meta.lines += 1 - standing.fields;
                meta.count += after - before;
                changed = true;
            }
        }
        merged.insert(sku, there.max(already.unwrap_or(0)));
    }
    if changed {
        meta.revision += 1;
        meta.save(keyspace, cart)?;
    }
    keyspace.expire(cart, how.ttl_ms);
    if !there.is_empty() {
        mark(keyspace, merged_before, source, meta.revision, &merged, how.sources_max)?;
        keyspace.expire(merged_before, how.ttl_ms);
    }
    remember(keyspace, tokens, tokens_there, how)?;
    Ok(Some(dropped))
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
