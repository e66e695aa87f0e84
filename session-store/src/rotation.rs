//! A new id where a script may not leave its slot: the same guarantees in three steps.
//!
//! Read the old record and its cart; place the copy under the new id, which nobody knows yet; end the old one, if both
//! record and cart are what was copied. Only that last step counts: before it, nothing has happened but that a record lies
//! there which no cookie leads to, and of several rotations at once it lets one win. What lost is removed, or ends by
//! itself when the process dies. A tag that stays the same across a new id would make it one step, but its hash tag would be
//! known to whoever knew the old id, and the user's cart would be in another slot all the same.

use redis::{Pipeline, Value};
use tower_sessions::session::Id;

use crate::{
    CacheStore, StoreError,
    backend::{Committed, GRACE_MS, ID_ATTEMPTS, Write, changes, head},
    cart::{merge::Merge, merged::Merged},
    encryption::{SEALED_NAME, damaged_line, is_sealed},
    keys::Tag,
    operation::Answer,
    record::{Delta, bytes, integer, number, unreadable},
    scripts::{PLACE, RETIRE, reply},
};

/// How often it is begun anew because somebody changed the session or its cart meanwhile.
const ROTATIONS_MAX: u32 = 16;

/// The old record as it was read.
struct Old {
    revision: u64,
    /// Of its last commits.
    commit_tokens: Vec<u8>,
    /// Field, value, ...
    fields: Vec<Vec<u8>>,
    cart: Vec<Vec<u8>>,
    cart_ttl_ms: i64,
    tokens: Vec<u8>,
    tokens_ttl_ms: i64,
}

enum Read {
    Old(Old),
    Not(Committed),
}

impl CacheStore {
    pub(crate) async fn rotate_in_steps(
        &self,
        old: &Tag,
        binding: &Tag,
        write: &Write,
        delta: &Delta<'_>,
    ) -> Result<(Id, Committed), StoreError> {
        let mut taken = 0;
        for _ in 0..ROTATIONS_MAX {
            let id = Id::default();
            let new = self.keys().session_tag(&id);
            let record = match self.read_old(old).await? {
                Read::Old(record) => record,
                Read::Not(outcome) => return Ok((id, outcome)),
            };
            let merged = match &write.merge {
                Merge::Nothing => None,
                Merge::Done(merged) => Some(merged),
                Merge::Here(_) => return Err(unreadable("a cart cannot be merged across slots")),
            };
            // What is encrypted moves with what only those who have the keys can say of the new session.
            let is_sealed = record.cart.chunks_exact(2).any(|line| line[0].first() == Some(&SEALED_NAME))
                || record.fields.chunks_exact(2).any(|field| is_sealed(&field[1]));
            if is_sealed && !self.vault().is_on() {
                return Err(damaged_line());
            }
            let is_bound = is_sealed || binding != old;
            let write = &Write { bind_field: self.vault().bind_field(&new, binding, is_bound)?, ..write.clone() };
            if merged.is_some_and(|merged| **merged != Merged::new(&record.cart, &record.tokens)) {
                return Ok((id, Committed::CartChanged));
            }
            let Some(placed) = self.place_copy(&new, &record, merged.is_none(), write, delta).await? else {
                taken += 1;
                if taken == ID_ATTEMPTS {
                    break;
                }
                continue;
            };
            match self.retire(old, &new, &record).await? {
                reply::OK => {
                    if let Some(stored) = &write.bind_field {
                        self.bindings().learn(&new, *binding, stored);
                    }
                    return Ok((id, self.committed(&placed, write, &new, Some(old)).await?));
                }
                reply::CART_CHANGED => self.discard(&new).await,
                outcome => {
                    self.discard(&new).await;
                    return Ok((id, if outcome == reply::ENDED { Committed::Ended } else { Committed::Gone }));
                }
            }
        }
        if taken == ID_ATTEMPTS {
            return Err(StoreError::IdsTaken { attempts: ID_ATTEMPTS });
        }
        Err(StoreError::Contended { attempts: ROTATIONS_MAX })
    }

    async fn read_old(&self, tag: &Tag) -> Result<Read, StoreError> {
        let keys = self.keys();
        let (session, cart, tokens) = (keys.session(tag), keys.cart(tag), keys.cart_tokens(tag));
        let mut pipeline = Pipeline::with_capacity(5);
        pipeline.cmd("HGETALL").arg(session).cmd("HGETALL").arg(cart).cmd("PTTL").arg(cart);
        pipeline.cmd("GET").arg(tokens).cmd("PTTL").arg(tokens);
        let Ok([session, cart, cart_ttl, tokens, tokens_ttl]) = <[Value; 5]>::try_from(self.pipeline(&pipeline).await?) else {
            return Err(unreadable("an answer has another length"));
        };
        let (mut revision, mut ended, mut commit_tokens, mut fields) = (None, false, Vec::new(), Vec::new());
        for pair in flat(session)?.chunks_exact(2) {
            match &pair[0][..] {
                b"@rev" => revision = Some(number(&pair[1])?),
                b"@ended" => ended = true,
                b"@tok" => commit_tokens.clone_from(&pair[1]),
                _ => fields.extend_from_slice(pair),
            }
        }
        let cart = flat(cart)?;
        let Some(revision) = revision else {
            return Ok(Read::Not(if ended { Committed::Ended } else { Committed::Gone }));
        };
        Ok(Read::Old(Old {
            revision,
            commit_tokens,
            fields,
            cart,
            cart_ttl_ms: integer(&cart_ttl)?,
            tokens: if tokens == Value::Nil { Vec::new() } else { bytes(tokens)? },
            tokens_ttl_ms: integer(&tokens_ttl)?,
        }))
    }

    /// `None` when the id is taken.
    async fn place_copy(
        &self,
        new: &Tag,
        record: &Old,
        with_cart: bool,
        write: &Write,
        delta: &Delta<'_>,
    ) -> Result<Option<Answer>, StoreError> {
        let keys = self.keys();
        let mut named = vec![keys.session(new), keys.cart(new), keys.cart_tokens(new)];
        let how = self.along(&write.along, new, &mut named);
        let mut call = PLACE.call(&named);
        head(&mut call, write);
        call.arg(how);
        let (cart, tokens) = if with_cart { (&record.cart[..], &record.tokens[..]) } else { (&[][..], &[][..]) };
        call.arg(record.revision + 1).arg(record.cart_ttl_ms).arg(record.tokens_ttl_ms).arg(tokens);
        for fields in [&record.fields[..], cart] {
            call.arg(fields.len());
            for part in fields {
                call.arg(&part[..]);
            }
        }
        changes(&mut call, write, &delta.set, &delta.removed);
        let answer = self.script(&call).await?;
        Ok((integer(&answer[0])? != reply::TAKEN).then_some(answer))
    }

    async fn retire(&self, old: &Tag, new: &Tag, record: &Old) -> Result<i64, StoreError> {
        let keys = self.keys();
        let mut call = RETIRE.call(&[&keys.session(old), &keys.cart(old), &keys.cart_tokens(old)]);
        call.arg(new.as_str()).arg(record.revision).arg(&record.commit_tokens[..]).arg(GRACE_MS).arg(&record.tokens[..]);
        for part in &record.cart {
            call.arg(&part[..]);
        }
        integer(&self.script(&call).await?[0])
    }

    /// A record that nobody knows of. When it cannot be removed, it ends at its time.
    async fn discard(&self, new: &Tag) {
        let keys = self.keys();
        if let Err(error) = self.delete(&[keys.session(new), keys.cart(new), keys.cart_tokens(new)]).await {
            tracing::debug!(%error, "a record that a lost rotation left was not removed");
        }
    }
}

/// The answer to HGETALL: field, value, ...
pub(crate) fn flat(hash: Value) -> Result<Vec<Vec<u8>>, StoreError> {
    match hash {
        Value::Array(parts) => parts.into_iter().map(bytes).collect(),
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [bytes(name), bytes(value)]).collect(),
        _ => Err(unreadable("a hash is not one")),
    }
}
