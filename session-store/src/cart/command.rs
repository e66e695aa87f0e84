//! One change of a cart: finding the cart, and the script call.

use std::sync::Arc;

use rand::RngExt as _;
use redis::Value;
use smallvec::SmallVec;

use super::{CartChange, CartError, CartLimits, IdempotencyToken};
use crate::{
    CacheStore, StoreError,
    backend::{Along, absolute},
    encryption::damaged_line,
    expiry::ExpiryPolicy,
    keys::Tag,
    operation::Answer,
    record::{VERSION, bytes, integer, unreadable},
    scripts::{CART, CART_SEALED, Call, LINE, LINE_SEALED, reply},
    unit_of_work::{CartTarget, CreateSession, UnitOfWork},
};

/// Tokens given with [`Cart::with_token`](super::Cart::with_token) that a cart remembers, the oldest forgotten first.
///
/// ```
/// assert!(session_store::cart::TOKENS_REMEMBERED >= 256);
/// ```
pub const TOKENS_REMEMBERED: usize = 256;

/// Changes without a token that a cart remembers at least for 10 seconds, so that the retry after a broken connection counts once; twice as
/// many at most.
///
/// ```
/// assert!(session_store::cart::RETRIES_REMEMBERED >= 512);
/// ```
// Redis and Valkey keep a set of so many numbers as a sorted list, and a larger one in far more memory.
pub const RETRIES_REMEMBERED: usize = 512;

/// A retry comes within the deadline of its operation, which is far shorter.
const RETRY_WINDOW_MS: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Set,
    Clear,
    Subtract,
    /// Lines of an encrypted cart go to the fields that they would be given now.
    Move,
    /// Nothing but the look at the session.
    Check,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Set => "set",
            Self::Clear => "clear",
            Self::Subtract => "subtract",
            Self::Move => "move",
            Self::Check => "check",
        }
    }

    /// Whether it puts something in, so that a visitor without a session needs one.
    fn can_fill(self, lines: &[(&str, u32)]) -> bool {
        match self {
            Self::Add => true,
            Self::Set => lines.iter().any(|(_, quantity)| *quantity > 0),
            Self::Clear | Self::Subtract | Self::Move | Self::Check => false,
        }
    }
}

/// Makes the change in the cart of this request, wherever that turns out to be.
pub(crate) async fn run(
    unit: &UnitOfWork,
    token: Option<&IdempotencyToken>,
    operation: Operation,
    lines: &[(&str, u32)],
    redirects_max: u32,
) -> Result<CartChange, CartError> {
    // One token for all attempts: only one of them may count.
    let remembered = token.map(|token| unit.store.keys().token(token.as_str()));
    let guard = remembered.is_none().then(guard);
    for _ in 0..redirects_max {
        let Some(target) = unit.cart_target(operation.can_fill(lines)).await? else {
            // Nothing to take out of the cart of somebody who has none.
            return Ok(CartChange { revision: 0, quantity: 0, lines: 0, count: 0, applied: true });
        };
        let token = match (&remembered, &guard) {
            (Some(token), _) => Token::Given(token),
            (None, Some(token)) => Token::Guard(token),
            (None, None) => return Err(unreadable("a change has no token").into()),
        };
        let answer = call(unit, &target, token, operation, lines).await?;
        match integer(&answer[0]).map_err(CartError::from)? {
            reply::OK => {
                let change = Change::parse(answer)?;
                let begun = unit.cart_changed(&target, change.session_extended, change.session_kept_ms);
                if let Some(id) = begun {
                    // Whoever is saving the handle may wait until nothing else is under way.
                    drop(target);
                    Box::pin(unit.adopt(id)).await;
                }
                return Ok(change.change);
            }
            reply::OWNED => unit.cart_is_owned(&target, owner(answer)?),
            reply::GONE => Box::pin(unit.cart_session_gone(&target)).await?,
            reply::ENDED => return Err(unit.session_ended()),
            reply::TAKEN => unit.planned_id_taken(&target),
            reply::BOUND => unit.cart_is_bound(&target.cart, &second(answer)?)?,
            reply::UNREADABLE_LINE => return Err(damaged_line().into()),
            reply::TOO_MANY_LINES => {
                return Err(CartError::TooManyLines { max: unit.settings.limits.lines_max });
            }
            reply::QUANTITY_TOO_LARGE => {
                return Err(CartError::QuantityTooLarge { max: unit.settings.limits.quantity_max });
            }
            other => return Err(unreadable(&format!("a change of a cart answered {other}")).into()),
        }
    }
    Err(CartError::SessionEnded)
}

/// A random number of 48 bits, as a token of one change: against the 1,024 that a cart remembers at most, a new one is mistaken for an old
/// one once in 10^11 changes.
fn guard() -> String {
    (rand::rng().random::<u64>() >> 16).to_string()
}

#[derive(Clone, Copy)]
enum Token<'a> {
    /// From the caller: remembered as long as the cart.
    Given(&'a str),
    /// Our own, for the retry after a broken connection.
    Guard(&'a str),
}

/// One script on one node. Where a script may not leave its slot, and session and cart are in different ones, it is two
/// steps: the session is looked at, and then the cart is changed. A session that ends between them was there when this
/// change was let in.
async fn call(
    unit: &UnitOfWork,
    target: &CartTarget<'_>,
    token: Token<'_>,
    operation: Operation,
    lines: &[(&str, u32)],
) -> Result<Answer, StoreError> {
    let one_script = unit.store.scripts_cross_slots() || target.session.is_none_or(|session| session == target.cart);
    if one_script {
        let call = script_call(unit, target, token, operation, lines)?;
        return unit.store.script(&call).await;
    }
    // Boxed: what most requests do not do would make the future of each of them larger.
    Box::pin(async {
        let tag = target.session.unwrap_or(target.cart);
        let session = CartTarget { cart: tag, session: Some(tag), owner: target.owner, create: None };
        let checked = unit.store.script(&script_call(unit, &session, token, Operation::Check, &[])?).await?;
        if integer(&checked[0])? != reply::OK {
            return Ok(checked);
        }
        let cart = CartTarget { cart: target.cart, session: None, owner: None, create: None };
        let mut changed = unit.store.script(&script_call(unit, &cart, token, operation, lines)?).await?;
        if integer(&changed[0])? == reply::OK {
            // What became of the session's time.
            changed = whole(changed);
            changed.truncate(6);
            changed.extend(checked.into_iter().skip(6));
        }
        Ok(changed)
    })
    .await
}

fn script_call(
    unit: &UnitOfWork,
    target: &CartTarget<'_>,
    token: Token<'_>,
    operation: Operation,
    lines: &[(&str, u32)],
) -> Result<Call, StoreError> {
    let (keys, settings) = (unit.store.keys(), &unit.settings);
    let cart_ttl_ms = settings.cart_ttl_ms;
    let cart = keys.cart(&target.cart);
    let mut named = SmallVec::<[_; 5]>::new();
    named.push(cart);
    let (token, remembered, tokens_ttl_ms) = match token {
        Token::Given(token) => {
            named.push(keys.cart_tokens(&target.cart));
            (token, TOKENS_REMEMBERED, cart_ttl_ms)
        }
        Token::Guard(token) => {
            named.extend([keys.cart_guards(&target.cart), keys.cart_guards_before(&target.cart)]);
            (token, RETRIES_REMEMBERED, RETRY_WINDOW_MS)
        }
    };
    let keys_of_tokens = named.len() - 1;
    let mut along = String::new();
    if let Some(session) = &target.session {
        named.push(keys.session(session));
        let user = Along { user: target.owner, sessions_max: settings.user_sessions_max, ..Along::default() };
        along = unit.store.along(&user, session, &mut named);
    }
    let vault = unit.store.vault();
    let names = vault.names_of_a_line();
    let is_plain = matches!(operation, Operation::Add | Operation::Set) && target.create.is_none();
    let script = match (names.is_some(), is_plain) {
        (true, true) => &LINE_SEALED,
        (true, false) => &CART_SEALED,
        (false, true) => &LINE,
        (false, false) => &CART,
    };
    let mut call = script.call(&named);
    let (binding, bind) = match names {
        Some(_) if !lines.is_empty() && target.session == Some(target.cart) => {
            let (binding, stored) = bound(unit, &target.cart);
            (binding, Some(stored))
        }
        _ => (target.cart, None),
    };
    let terms = Terms {
        operation,
        token,
        keys_of_tokens,
        remembered,
        tokens_ttl_ms,
        cart_ttl_ms,
        limits: settings.limits,
        owner: target.owner.as_ref(),
        create: target.create.as_ref(),
        absolute_ms: settings.absolute_ms,
        along: &along,
        data_version: settings.data_version(),
        sealed: names.map(|names| (names, bind.as_deref().unwrap_or(ELSEWHERE))),
    };
    terms.give(&mut call, is_plain);
    for (sku, quantity) in lines {
        vault.lines(&binding).give(&mut call, sku, *quantity)?;
    }
    Ok(call)
}

/// What a session must say that lines are bound to which are not in a cart of its own: nothing.
const ELSEWHERE: &[u8] = b"*";

/// What the lines of a session's cart are bound to, and what the session must say of it.
fn bound(unit: &UnitOfWork, session: &Tag) -> (Tag, Arc<[u8]>) {
    match unit.store.bindings().hint(session) {
        Some(hint) => (hint.to, hint.stored),
        None => (*session, Arc::default()),
    }
}

/// What `cart.lua` is told before the lines.
struct Terms<'a> {
    operation: Operation,
    token: &'a str,
    keys_of_tokens: usize,
    remembered: usize,
    tokens_ttl_ms: i64,
    cart_ttl_ms: i64,
    limits: CartLimits,
    owner: Option<&'a Tag>,
    create: Option<&'a CreateSession<'a>>,
    absolute_ms: Option<i64>,
    along: &'a str,
    /// Of the session that is created.
    data_version: Option<u32>,
    /// Where carts are encrypted, the number of names that a line may stand under, and what the session must say that they are bound to.
    sealed: Option<(usize, &'a [u8])>,
}

impl Terms<'_> {
    /// `is_plain`: for `line.lua`, which creates nothing and has no arguments for it.
    fn give(&self, call: &mut Call, is_plain: bool) {
        call.arg(self.operation.name())
            .arg(self.token)
            .arg(self.keys_of_tokens)
            .arg(self.remembered)
            .arg(self.tokens_ttl_ms)
            .arg(self.cart_ttl_ms)
            .arg(self.limits.lines_max)
            .arg(self.limits.quantity_max)
            .arg(self.owner.map_or("", Tag::as_str));
        match self.create {
            Some(create) => call.arg(create.policy.encode().as_bytes()).arg(create.token.as_bytes()),
            None if is_plain => call,
            None => call.arg("").arg(""),
        };
        absolute(call, self.absolute_ms);
        call.arg(self.along);
        if !is_plain {
            self.give_creation(call);
        }
        if let Some((_, bind)) = self.sealed {
            call.arg(bind);
        }
    }

    /// Of how many arguments a session is created, and under how many names a line may stand; then those arguments.
    fn give_creation(&self, call: &mut Call) {
        let version = self.data_version.filter(|_| self.create.is_some());
        let created_with = if version.is_some() { 4 } else { 2 * u32::from(self.create.is_some()) };
        match self.sealed {
            Some((names, _)) => call.arg(format!("{created_with} {names}")),
            None => call.arg(created_with),
        };
        if self.create.is_some() {
            call.arg("@v").arg(VERSION);
        }
        if let Some(version) = version {
            call.arg("@d").arg(version);
        }
    }
}

/// A call that puts these lines of a user's cart into the fields that they would be given now, and changes nothing else of it.
pub(super) fn move_call(store: &CacheStore, user: &Tag, names: usize, skus: &[String]) -> Result<Call, StoreError> {
    let keys = store.keys();
    let mut call = CART_SEALED.call(&[keys.cart(user), keys.cart_tokens(user)]);
    let terms = Terms {
        operation: Operation::Move,
        // It may be repeated, and needs no session and no limits.
        token: "",
        keys_of_tokens: 1,
        remembered: 0,
        tokens_ttl_ms: 0,
        cart_ttl_ms: 0,
        limits: CartLimits::default(),
        owner: None,
        create: None,
        absolute_ms: None,
        along: "",
        data_version: None,
        sealed: Some((names, ELSEWHERE)),
    };
    terms.give(&mut call, false);
    for sku in skus {
        store.vault().lines(user).give(&mut call, sku, 0)?;
    }
    Ok(call)
}

/// What was done, where `line.lua` says no more of it than the numbers: the session's time was left as it is.
fn whole(mut answer: Answer) -> Answer {
    if answer.len() == 5 {
        // The quantity comes first there.
        answer.swap(1, 2);
        answer.insert(1, Value::Int(1));
        answer.extend([Value::BulkString(Vec::new()), Value::Int(0)]);
    }
    answer
}

struct Change {
    change: CartChange,
    session_extended: Option<ExpiryPolicy>,
    /// Ms for which the session is kept from now on, when this change set its time.
    session_kept_ms: i64,
}

impl Change {
    fn parse(answer: Answer) -> Result<Self, StoreError> {
        let answer = whole(answer);
        let [_, applied, revision, quantity, lines, count, extended, kept] = &answer[..] else {
            return Err(unreadable("the answer for a change of a cart has another length"));
        };
        let out_of_range = |_| unreadable("a number of a cart is out of range");
        let change = CartChange {
            revision: integer(revision)?.try_into().map_err(out_of_range)?,
            quantity: integer(quantity)?.try_into().map_err(out_of_range)?,
            lines: integer(lines)?.try_into().map_err(out_of_range)?,
            count: integer(count)?.try_into().map_err(out_of_range)?,
            applied: integer(applied)? == 1,
        };
        let extended = bytes(extended.clone())?;
        let session_extended = (!extended.is_empty()).then(|| ExpiryPolicy::parse(&extended)).transpose()?;
        Ok(Self { change, session_extended, session_kept_ms: integer(kept)? })
    }
}

fn owner(answer: Answer) -> Result<Option<Tag>, StoreError> {
    Ok(Tag::from_bytes(&second(answer)?))
}

fn second(answer: Answer) -> Result<Vec<u8>, StoreError> {
    bytes(answer.into_iter().nth(1).ok_or_else(|| unreadable("an answer is too short"))?)
}
