//! Login: the anonymous cart becomes part of the user's.
//!
//! The tokens that the anonymous cart remembers come along: a form that was sent before the login and is sent again after
//! it counts once.
//!
//! On one node the commit of the session merges in the same script. An encrypted cart is read before: the script is told
//! what is in it, and merges if that is still so. Where a script may not leave its slot, it is done in
//! steps on one slot each: read the anonymous cart; merge it into the user's, where a mark of what was merged from where
//! makes each unit count once; let the commit of the session drop the anonymous cart, if it is still what was merged.

use std::sync::Arc;

use redis::Value;

use super::{
    CartError,
    command::TOKENS_REMEMBERED,
    merged::{Merged, pack},
};
use crate::{
    StoreError,
    encryption::damaged_line,
    keys::Tag,
    metrics,
    record::{integer, unreadable},
    scripts::{MERGE, MERGE_SEALED, reply},
    settings::Settings,
    unit_of_work::{LoginView, UnitOfWork},
};

/// Anonymous carts of which a user's cart remembers what was merged. Only logins that overlap need it.
const SOURCES_REMEMBERED: usize = 8;

/// What becomes of a product that is in both carts when a visitor logs in. What is in one of them only is in the merged
/// cart as it is.
///
/// ```
/// use session_store::{CacheStore, MergePolicy, SessionLayer};
///
/// # fn example(store: CacheStore) {
/// let layer = SessionLayer::new(store).with_merge_policy(MergePolicy::Max);
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergePolicy {
    /// Both quantities are added. The default: nothing that was put into a cart is lost.
    #[default]
    Sum,
    /// The larger quantity: for visitors who tend to put the same things into the cart once more before they log in.
    Max,
    /// The user's own quantity.
    Keep,
}

impl MergePolicy {
    fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Keep => "keep",
        }
    }

    /// As the script takes it: see `merging.lua`.
    fn instructions(self, settings: &Settings, names: Option<usize>) -> String {
        let (ttl_ms, limits) = (settings.cart_ttl_ms, settings.limits);
        let (lines_max, quantity_max) = (limits.lines_max, limits.quantity_max);
        let names = names.map_or_else(String::new, |names| format!(" {names}"));
        format!("{} {ttl_ms} {lines_max} {quantity_max} {SOURCES_REMEMBERED} {TOKENS_REMEMBERED}{names}", self.name())
    }
}

/// How the commit that gives a session to a user treats its anonymous cart.
#[derive(Debug, Clone)]
pub(crate) enum Merge {
    /// There is none, or it is another user's.
    Nothing,
    /// The commit merges it, by these instructions; an encrypted one as it was when they were made.
    Here(Arc<[u8]>),
    /// It was merged as it was then.
    Done(Arc<Merged>),
}

impl Merge {
    /// Whether the user's cart is still without it.
    pub(crate) fn is_due(&self) -> bool {
        matches!(self, Self::Here(_))
    }
}

pub(super) async fn log_in(unit: &UnitOfWork, user_id: &str, policy: MergePolicy) -> Result<(), CartError> {
    let user = unit.store.keys().user_tag(user_id);
    let merge = match unit.login_view().await? {
        LoginView::Owned(owner) if owner == user => return Ok(unit.hold_again().await?),
        // Another user's cart, or no cart at all: nothing that could be merged.
        LoginView::Owned(_) | LoginView::Fresh => Merge::Nothing,
        LoginView::Anonymous { cart, binding } => merge(unit, &cart, &binding, &user, policy).await?,
    };
    Ok(unit.set_owner(user, policy, merge).await?)
}

/// Prepares the commit that merges the anonymous cart under `from` into that of the user, or merges it before.
pub(crate) async fn merge(
    unit: &UnitOfWork,
    from: &Tag,
    binding: &Tag,
    user: &Tag,
    policy: MergePolicy,
) -> Result<Merge, StoreError> {
    if !unit.store.scripts_cross_slots() {
        return Ok(Merge::Done(merge_before(unit, from, binding, user, policy).await?.into()));
    }
    let vault = unit.store.vault();
    let names = vault.names_of_a_line();
    let mut how = policy.instructions(&unit.settings, names).into_bytes();
    if names.is_some() {
        let (cart, as_read) = unit.store.read_cart_and_tokens(from, binding).await?;
        how.push(b'\n');
        pack(&mut how, &as_read.packed());
        for line in &cart.lines {
            vault.lines(user).pack(&mut how, &line.sku, line.quantity)?;
        }
    }
    Ok(Merge::Here(how.into()))
}

/// Merges the anonymous cart under `from` into that of the user, and tells what was merged.
async fn merge_before(
    unit: &UnitOfWork,
    from: &Tag,
    binding: &Tag,
    user: &Tag,
    policy: MergePolicy,
) -> Result<Merged, StoreError> {
    let (anonymous, merged) = unit.store.read_cart_and_tokens(from, binding).await?;
    if anonymous.lines.is_empty() && merged.tokens().is_empty() {
        return Ok(merged);
    }
    let keys = unit.store.keys();
    let vault = unit.store.vault();
    let names = vault.names_of_a_line();
    let script = if names.is_some() { &MERGE_SEALED } else { &MERGE };
    let mut call = script.call(&[&keys.cart(user), &keys.cart_merged(user), &keys.cart_tokens(user)]);
    call.arg(from.as_str()).arg(policy.instructions(&unit.settings, names)).arg(merged.tokens());
    for line in &anonymous.lines {
        vault.lines(user).give(&mut call, &line.sku, line.quantity)?;
    }
    let answer = unit.store.script(&call).await?;
    if integer(&answer[0])? == reply::UNREADABLE_LINE {
        return Err(damaged_line());
    }
    let dropped = answer.get(2).map_or(Ok(0), |value: &Value| integer(value))?;
    metrics::cart_units_dropped(u64::try_from(dropped).map_err(|_| unreadable("a merge dropped less than nothing"))?);
    Ok(merged)
}
