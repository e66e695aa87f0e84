//! `cart.lua`, and `line.lua`, which is a part of it.

use super::{
    Call, contains,
    keep::{Times, along, keep},
    merging::Meta,
    number, number_or_zero, remember, remembers,
    session::begin,
};
use crate::{
    expiry::{TOUCH_AT_LATEST_MS, TOUCH_PARTS},
    scripts::reply,
    testing::memory::{answer::Answer, keyspace::Refusal},
};

/// What the look at the session has brought.
#[derive(Default)]
struct Look {
    create: bool,
    /// The session's policy when its time was set.
    extended: Vec<u8>,
    kept_ms: i64,
}

pub(super) fn cart(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (cart, tokens) = (call.key(1)?, call.key(2)?);
    let (operation, token, is_own) = (call.arg(1)?, call.arg(2)?, call.arg(3)? == b"2");
    let (tokens_max, tokens_ttl_ms) = (call.number(4)?, call.number(5)?);
    let (cart_ttl_ms, lines_max, quantity_max) = (call.number(6)?, call.number(7)?, call.number(8)?);
    let (create_fields, products) = call.counted(14)?;
    let mut look = Look::default();
    let session = call.keys.get(if is_own { 3 } else { 2 }).copied();
    if let Some(session) = session
        && let Some(refused) = look.at(call, session)?
    {
        return Ok(refused);
    }
    let answer = |applied: i64, quantity: i64, meta: Meta, look: Look| {
        let numbers = [reply::OK, applied, meta.revision, quantity, meta.lines, meta.count].map(Answer::Integer);
        let [a, b, c, d, e, f] = numbers;
        Answer::of_script([a, b, c, d, e, f, Answer::String(look.extended), Answer::Integer(look.kept_ms)])
    };
    if operation == b"check" {
        return Ok(answer(0, 0, Meta::default(), look));
    }
    let sku = products.first().copied().unwrap_or_default();
    let mut meta = Meta::of(call.keyspace, cart)?;
    let current = number_or_zero(call.keyspace.field(cart, sku)?)?;
    let is_counted = if is_own {
        let turned = meta.revision >= tokens_max;
        call.keyspace.is_member(tokens, token)? || turned && call.keyspace.is_member(call.key(3)?, token)?
    } else {
        contains(&call.keyspace.string(tokens)?.unwrap_or_default(), &[token, b" "].concat())
    };
    if is_counted {
        return Ok(answer(0, current, meta, look));
    }
    let mut quantity = current;
    if operation == b"add" || operation == b"set" {
        quantity = number(products.get(1).ok_or(Refusal("ERR a quantity is missing"))?)?;
        if operation == b"add" {
            quantity += current;
        }
        if quantity > quantity_max {
            return Ok(Answer::numbers([reply::QUANTITY_TOO_LARGE]));
        }
        if quantity > 0 && current == 0 && meta.lines >= lines_max {
            return Ok(Answer::numbers([reply::TOO_MANY_LINES]));
        }
    }
    if let Some(session) = session.filter(|_| look.create) {
        let (policy, created_with, absolute) = (call.arg(10)?, call.arg(11)?, call.arg(12)?);
        begin(call, session, created_with, policy)?;
        call.keyspace.set_fields(session, create_fields)?;
        let times = Times::since(call.keyspace.now_ms());
        look.kept_ms = keep(call.keyspace, session, policy, absolute, &times)?;
    }
    let mut put = |call: &mut Call<'_>, name: &[u8], before: i64, after: i64| {
        if after > 0 {
            call.keyspace.set_field(cart, name, super::digits(after))?;
            meta.lines += i64::from(before == 0);
        } else if before > 0 {
            call.keyspace.remove_fields(cart, &[name])?;
            meta.lines -= 1;
        }
        meta.count += after - before;
        Ok(())
    };
    match operation {
        b"clear" => {
            call.keyspace.remove(cart);
            (meta.lines, meta.count, quantity) = (0, 0, 0);
        }
        b"subtract" => {
            for pair in products.chunks_exact(2) {
                let before = number_or_zero(call.keyspace.field(cart, pair[0])?)?;
                put(call, pair[0], before, (before - number(pair[1])?).max(0))?;
            }
            quantity = 0;
        }
        _ => put(call, sku, current, quantity)?,
    }
    meta.revision += 1;
    meta.save(call.keyspace, cart)?;
    call.keyspace.expire(cart, cart_ttl_ms);
    if is_own {
        call.keyspace.add_member(tokens, token)?;
        call.keyspace.expire(tokens, tokens_ttl_ms);
        if meta.revision % tokens_max == 0 {
            call.keyspace.rename(tokens, call.key(3)?);
        }
    } else {
        let (seen, most) = (call.keyspace.string(tokens)?.unwrap_or_default(), usize::try_from(tokens_max).unwrap_or(0));
        call.keyspace.set_string(tokens, remember(token, &seen, most), tokens_ttl_ms);
    }
    Ok(answer(1, quantity, meta, look))
}

impl Look {
    /// Whether the session allows the change; the answer when it does not.
    fn at(&mut self, call: &mut Call<'_>, session: &[u8]) -> Result<Option<Answer>, Refusal> {
        let (owner, policy, created_with, absolute) = (call.arg(9)?, call.arg(10)?, call.arg(11)?, call.arg(12)?);
        let (how, times) = (call.arg(13)?, Times::of(call.keyspace, session)?);
        let lives = call.keyspace.field(session, b"@rev")?.is_some();
        let ended = call.keyspace.field(session, b"@ended")?.is_some();
        if !policy.is_empty() {
            let made = call.keyspace.field(session, b"@tok")?;
            if ended || (lives && !remembers(made.as_deref(), created_with)) {
                return Ok(Some(Answer::numbers([reply::TAKEN])));
            }
            self.create = !lives;
            if lives {
                self.kept_ms = call.keyspace.left_ms(session);
            }
            return Ok(None);
        }
        if !lives {
            return Ok(Some(Answer::numbers([if ended { reply::ENDED } else { reply::GONE }])));
        }
        let belongs_to = call.keyspace.field(session, b"@owner")?.unwrap_or_default();
        if belongs_to != owner {
            return Ok(Some(Answer::of_script([Answer::Integer(reply::OWNED), Answer::String(belongs_to)])));
        }
        let policy = call.keyspace.field(session, b"@expiry")?.unwrap_or_default();
        let idle_ms = policy.get(1..).and_then(|ms| number(ms).ok());
        let is_due = idle_ms.is_some_and(|idle_ms| {
            let interval_ms = (idle_ms / TOUCH_PARTS).min(TOUCH_AT_LATEST_MS);
            policy[0] != b'a' && !times.capped && call.keyspace.left_ms(session) < idle_ms - interval_ms
        });
        if is_due || (idle_ms.is_some() && !absolute.is_empty() && times.until_ms.is_none()) {
            self.kept_ms = keep(call.keyspace, session, &policy, absolute, &times)?;
            if self.kept_ms <= 0 {
                return Ok(Some(Answer::numbers([reply::GONE])));
            }
            along(call, how, session, None, self.kept_ms)?;
            self.extended = policy;
        }
        Ok(None)
    }
}
