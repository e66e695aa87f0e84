//! `cart.lua`, and `line.lua`, which is a part of it and answers in fewer words.

use super::{
    Call, contains,
    keep::{Times, along, keep},
    merging::Meta,
    number, remember, remembers,
    session::begin,
    standing::{Line, Standing, lines},
};
use crate::{
    expiry::{TOUCH_AT_LATEST_MS, TOUCH_PARTS},
    scripts::reply,
    testing::memory::{answer::Answer, keyspace::Refusal},
};

/// What the look at the session has brought.
#[derive(Default)]
struct Look<'a> {
    /// What the session must say that the lines are bound to.
    bind: Option<&'a [u8]>,
    create: bool,
    /// The session's policy when its time was set.
    extended: Vec<u8>,
    kept_ms: i64,
}

pub(super) fn cart(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (cart, tokens) = (call.key(1)?, call.key(2)?);
    let (operation, token, is_own) = (call.arg(1)?, call.arg(2)?, call.arg(3)? == b"2");
    let (created_with, names) = created_with(call.arg(14)?)?;
    let (create_fields, rest) =
        call.args[14..].split_at_checked(created_with).ok_or(Refusal("ERR there are fewer arguments than said"))?;
    let is_sealed = names.is_some();
    let mut look = Look { bind: rest.first().copied().filter(|_| is_sealed), ..Look::default() };
    let products = lines(&rest[usize::from(is_sealed)..], names);
    let session = call.keys.get(if is_own { 3 } else { 2 }).copied();
    if let Some(session) = session
        && let Some(refused) = look.at(call, session)?
    {
        return Ok(refused);
    }
    let answer = |applied: i64, quantity: i64, meta: Meta, look: Look<'_>| {
        let numbers = [reply::OK, applied, meta.revision, quantity, meta.lines, meta.count].map(Answer::Integer);
        let [a, b, c, d, e, f] = numbers;
        Answer::of_script([a, b, c, d, e, f, Answer::String(look.extended), Answer::Integer(look.kept_ms)])
    };
    if operation == b"check" {
        return Ok(answer(0, 0, Meta::default(), look));
    }
    let mut meta = Meta::of(call.keyspace, cart)?;
    let mut standing = Vec::with_capacity(products.len());
    for line in &products {
        let Some(found) = line.standing(call.keyspace, cart, is_sealed)? else {
            return Ok(Answer::numbers([reply::UNREADABLE_LINE]));
        };
        standing.push(found);
    }
    let first = products.first().zip(standing.first());
    let current = first.map_or(0, |(_, standing)| standing.quantity);
    if operation == b"move" {
        let mut moved = 0;
        for line in &products {
            if let Some(before) = line.standing(call.keyspace, cart, true)?.filter(|before| before.elsewhere) {
                line.put(call.keyspace, cart, &before, before.quantity)?;
                meta.lines += i64::from(before.quantity > 0) - before.fields;
                moved += 1;
            }
        }
        if moved > 0 {
            meta.save(call.keyspace, cart)?;
        }
        return Ok(answer(1, moved, meta, look));
    }
    let (tokens_max, tokens_ttl_ms) = (call.number(4)?, call.number(5)?);
    let is_counted = if is_own {
        let turned = meta.revision >= tokens_max;
        call.keyspace.is_member(tokens, token)? || turned && call.keyspace.is_member(call.key(3)?, token)?
    } else {
        contains(&call.keyspace.string(tokens)?.unwrap_or_default(), &[token, b" "].concat())
    };
    if is_counted {
        return Ok(answer(0, current, meta, look));
    }
    let (cart_ttl_ms, lines_max, quantity_max) = (call.number(6)?, call.number(7)?, call.number(8)?);
    let mut quantity = current;
    if operation == b"add" || operation == b"set" {
        quantity = number(first.ok_or(Refusal("ERR a quantity is missing"))?.0.quantity)?;
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
    let mut put = |call: &mut Call<'_>, line: &Line<'_>, before: &Standing, after: i64| {
        line.put(call.keyspace, cart, before, after)?;
        meta.lines += i64::from(after > 0) - before.fields;
        meta.count += after - before.quantity;
        Ok(())
    };
    match operation {
        b"clear" => {
            call.keyspace.remove(cart);
            (meta.lines, meta.count, quantity) = (0, 0, 0);
        }
        b"subtract" => {
            for line in &products {
                // Not what it was at first: a list may name something twice.
                if let Some(before) = line.standing(call.keyspace, cart, is_sealed)? {
                    put(call, line, &before, (before.quantity - number(line.quantity)?).max(0))?;
                }
            }
            quantity = 0;
        }
        _ => {
            if let Some((line, before)) = first {
                put(call, line, before, quantity)?;
            }
        }
    }
    meta.revision += 1;
    meta.save(call.keyspace, cart)?;
    call.keyspace.expire(cart, cart_ttl_ms);
    if is_own {
        call.keyspace.add_member(tokens, token)?;
        call.keyspace.expire(tokens, tokens_ttl_ms);
        if meta.revision >= tokens_max && call.keyspace.members(tokens)? >= tokens_max {
            call.keyspace.rename(tokens, call.key(3)?);
        }
    } else {
        let (seen, most) = (call.keyspace.string(tokens)?.unwrap_or_default(), usize::try_from(tokens_max).unwrap_or(0));
        call.keyspace.set_string(tokens, remember(token, &seen, most), tokens_ttl_ms);
    }
    Ok(answer(1, quantity, meta, look))
}

/// The same for a line, of which the answer is the numbers alone where the session's time is left as it is.
pub(super) fn line(call: &mut Call<'_>) -> Result<Answer, Refusal> {
    let (head, rest) = call.args.split_first_chunk::<11>().ok_or(Refusal("ERR an argument is missing"))?;
    // Where a line is encrypted there is what it is bound to, and behind it what is stored with it and its other names.
    let is_clear = rest.len() == 2;
    let count = if is_clear { b"0".to_vec() } else { format!("0 {}", rest.len().saturating_sub(3)).into_bytes() };
    let args = [&head[..9], &[b"", b""], &head[9..], &[&count], rest].concat();
    let answer = cart(&mut Call { keyspace: call.keyspace, keys: call.keys, args: &args })?;
    let Answer::List(all) = &answer else { return Ok(answer) };
    Ok(match &all[..] {
        [
            _,
            Answer::Integer(1),
            Answer::Integer(revision),
            Answer::Integer(quantity),
            Answer::Integer(lines),
            Answer::Integer(count),
            Answer::String(extended),
            _,
        ] if extended.is_empty() => Answer::String(format!("{quantity} {revision} {lines} {count}").into_bytes()),
        _ => answer,
    })
}

/// The number of arguments that create, and that of the names of a line.
fn created_with(arg: &[u8]) -> Result<(usize, Option<usize>), Refusal> {
    let count = |text: &[u8]| usize::try_from(number(text)?).map_err(|_| Refusal("ERR a count is negative"));
    match arg.iter().position(|byte| *byte == b' ') {
        Some(at) => Ok((count(&arg[..at])?, Some(count(&arg[at + 1..])?))),
        None => Ok((count(arg)?, None)),
    }
}

impl Look<'_> {
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
        if let Some(bind) = self.bind.filter(|bind| *bind != b"*") {
            let bound = call.keyspace.field(session, b"@bind")?.unwrap_or_default();
            if bound != bind {
                return Ok(Some(Answer::of_script([Answer::Integer(reply::BOUND), Answer::String(bound)])));
            }
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
