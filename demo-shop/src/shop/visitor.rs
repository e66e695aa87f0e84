//! What the session says about who is visiting.

use serde::{Deserialize, Serialize};
use session_store::Session;
use tower_sessions::session::Error;

use crate::shop::ids;

const USER: &str = "user";
const GUEST: &str = "guest";
const FLASH: &str = "flash";

/// Someone who has signed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: String,
}

/// A message that the next page shows once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flash {
    pub(crate) kind: FlashKind,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FlashKind {
    Done,
    Note,
}

impl FlashKind {
    /// The CSS class of the message.
    pub(crate) fn class(self) -> &'static str {
        match self {
            FlashKind::Done => "done",
            FlashKind::Note => "note",
        }
    }
}

impl User {
    /// How orders name their owner.
    pub(crate) fn owner(&self) -> String {
        format!("user:{}", self.id)
    }
}

pub(crate) async fn user(session: &Session) -> Result<Option<User>, Error> {
    session.get(USER).await
}

pub(crate) async fn set_user(session: &Session, user: &User) -> Result<(), Error> {
    session.insert(USER, user).await
}

/// How orders of this visitor name their owner, `None` for a visitor who has neither signed in nor come as far as
/// the checkout.
pub(crate) async fn owner(session: &Session) -> Result<Option<String>, Error> {
    if let Some(user) = user(session).await? {
        return Ok(Some(user.owner()));
    }
    guest(session).await
}

/// As [`owner`], and a guest gets a name to own an order with.
pub(crate) async fn owner_or_new_guest(session: &Session) -> Result<String, Error> {
    if let Some(owner) = owner(session).await? {
        return Ok(owner);
    }
    let guest = ids::random_id();
    session.insert(GUEST, &guest).await?;
    Ok(guest_owner(&guest))
}

/// As [`owner`]; a guest who sends a checkout form without having looked at the page is named after the form's token,
/// so that all submits of it name one owner. The store knows the name when this returns: an order must never be placed
/// for somebody who cannot come back to it.
pub(crate) async fn owner_or_guest_of_form(session: &Session, token: &str) -> Result<String, Error> {
    if let Some(owner) = owner(session).await? {
        return Ok(owner);
    }
    session.insert(GUEST, token).await?;
    session.save().await?;
    Ok(guest_owner(token))
}

/// The owner name of the guest that this visitor was before signing in.
pub(crate) async fn guest(session: &Session) -> Result<Option<String>, Error> {
    Ok(session.get::<String>(GUEST).await?.map(|guest| guest_owner(&guest)))
}

pub(crate) async fn forget_guest(session: &Session) -> Result<(), Error> {
    session.remove::<String>(GUEST).await.map(drop)
}

fn guest_owner(guest: &str) -> String {
    format!("guest:{guest}")
}

/// Leaves a message for the next page. A message that cannot be left is not worth an error.
pub(crate) async fn leave_flash(session: &Session, kind: FlashKind, message: impl Into<String>) {
    if let Err(error) = session.insert(FLASH, Flash { kind, message: message.into() }).await {
        tracing::debug!(%error, "a message for the next page was not kept");
    }
}

/// The message for this page, which is gone then.
pub(crate) async fn take_flash(session: &Session) -> Result<Option<Flash>, Error> {
    // Asked first: a removal is a write, and nearly every page has no message.
    let flash = session.get(FLASH).await?;
    if flash.is_some() {
        session.remove::<Flash>(FLASH).await?;
    }
    Ok(flash)
}
