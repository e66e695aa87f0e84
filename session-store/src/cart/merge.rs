//! Login: the anonymous cart becomes part of the user's.
//!
//! The tokens that the anonymous cart remembers come along: a form that was sent before the login and is sent again after
//! it counts once.
//!
//! Steps on one slot each, so that they also work in a cluster: read the anonymous cart; merge it into the user's, where
//! a mark of what was merged from where makes each unit count once; let the commit of the session drop the anonymous
//! cart, if it is still at the revision that was merged.

use redis::Value;

use super::{CartError, command::TOKENS_REMEMBERED};
use crate::{
    StoreError,
    keys::Tag,
    record::{integer, unreadable},
    scripts::MERGE,
    unit_of_work::{LoginView, UnitOfWork},
};

/// Anonymous carts of which a user's cart remembers what was merged. Only logins that overlap need it.
const SOURCES_REMEMBERED: usize = 8;

pub(super) async fn log_in(unit: &UnitOfWork, user_id: &str) -> Result<(), CartError> {
    let user = unit.store.keys().user_tag(user_id);
    let merged_at = match unit.login_view().await? {
        LoginView::Owned(owner) if owner == user => return Ok(()),
        // Another user's cart, or no cart at all: nothing that could be merged.
        LoginView::Owned(_) | LoginView::Fresh => None,
        LoginView::Anonymous(tag) => Some(merge(unit, &tag, &user).await?),
    };
    unit.set_owner(user, merged_at);
    Ok(())
}

/// Merges the anonymous cart under `from` into that of the user, and tells which revision of it was merged.
pub(crate) async fn merge(unit: &UnitOfWork, from: &Tag, user: &Tag) -> Result<u64, StoreError> {
    let (anonymous, tokens) = unit.store.read_cart_and_tokens(from).await?;
    if anonymous.lines.is_empty() && tokens.is_empty() {
        return Ok(anonymous.revision);
    }
    let (keys, settings) = (unit.store.keys(), &unit.settings);
    let mut call = MERGE.call(&[&keys.cart(user), &keys.cart_merged(user), &keys.cart_tokens(user)]);
    call.arg(from.as_str())
        .arg(settings.cart_ttl_ms)
        .arg(settings.limits.lines_max)
        .arg(settings.limits.quantity_max)
        .arg(SOURCES_REMEMBERED)
        .arg(tokens)
        .arg(TOKENS_REMEMBERED);
    for line in &anonymous.lines {
        call.arg(&line.sku).arg(line.quantity);
    }
    let answer = unit.store.script(&MERGE, &call).await?;
    let dropped = answer.get(2).map_or(Ok(0), |value: &Value| integer(value))?;
    if dropped < 0 {
        return Err(unreadable("a merge dropped less than nothing"));
    }
    if dropped > 0 {
        tracing::debug!(dropped, "the merged cart reached its limits");
    }
    Ok(anonymous.revision)
}
