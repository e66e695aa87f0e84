//! Where the cart of this request is.

use tokio::sync::SemaphorePermit;
use tower_sessions::{Session, session::Id};

use super::{
    UnitOfWork,
    state::{Base, Intent, Live, PendingOwner},
};
use crate::{
    StoreError,
    backend::CommitToken,
    cart::{CartError, CartSnapshot, MergePolicy, merge::Merge},
    encryption::unreadable_cart,
    expiry::ExpiryPolicy,
    keys::Tag,
    metrics,
};

/// Where to read the cart.
pub(crate) enum CartSource {
    /// It is known already.
    Here(CartSnapshot),
    /// Under this tag; its lines, when they are encrypted, are bound to that one.
    At { cart: Tag, binding: Tag },
    /// A login is to be committed first: only then it is known.
    AfterCommit(Session),
    /// The session must be read to know, and the anonymous cart can come along.
    WithSession,
}

/// Where to change the cart, and what to check in the same step.
pub(crate) struct CartTarget<'a> {
    pub(crate) cart: Tag,
    /// The session that must exist, or is created with the change.
    pub(crate) session: Option<Tag>,
    /// The owner whom that session is expected to have.
    pub(crate) owner: Option<Tag>,
    pub(crate) create: Option<CreateSession<'a>>,
}

pub(crate) struct CreateSession<'a> {
    pub(crate) id: Id,
    pub(crate) token: CommitToken,
    pub(crate) policy: ExpiryPolicy,
    /// A commit of this request at the same time would begin another session, and the cart would be that of neither.
    _alone: Option<SemaphorePermit<'a>>,
}

/// Whose cart it is when somebody logs in.
pub(crate) enum LoginView {
    Owned(Tag),
    Anonymous { cart: Tag, binding: Tag },
    Fresh,
}

impl CartSource {
    /// A user's cart stays where it is.
    fn of_user(user: Tag) -> Self {
        Self::At { cart: user, binding: user }
    }
}

impl UnitOfWork {
    /// The handler of a safe request takes the cart: it will be shown.
    pub(crate) fn expect_cart(&self) {
        self.state().cart_expected = true;
    }

    pub(crate) fn cart_source(&self) -> CartSource {
        let mut state = self.state();
        state.touch(self.store.keys());
        if let Some(pending) = &state.pending_owner {
            return match state.session.clone() {
                Some(session) if pending.merge.is_due() => CartSource::AfterCommit(session),
                _ => CartSource::of_user(pending.user),
            };
        }
        if state.intent == Intent::End {
            return CartSource::Here(CartSnapshot::default());
        }
        if let Some(cart) = state.cart.take() {
            return CartSource::Here(cart);
        }
        match &state.base {
            Base::Unread { owner: Some(owner), .. } => CartSource::of_user(*owner),
            Base::Unread { .. } | Base::Lost { .. } => CartSource::WithSession,
            Base::Live(Live { owner: Some(owner), .. }) | Base::Ended { owner: Some(owner), readable: true, .. } => {
                CartSource::of_user(*owner)
            }
            Base::Live(Live { tag, binding, .. }) | Base::Ended { tag, binding, readable: true, .. } => {
                CartSource::At { cart: *tag, binding: *binding }
            }
            Base::Ended { .. } | Base::Sent(_) | Base::None { .. } => CartSource::Here(CartSnapshot::default()),
        }
    }

    /// `None`: there is no cart, and this change would put nothing into one.
    pub(crate) async fn cart_target(&self, can_fill: bool) -> Result<Option<CartTarget<'_>>, StoreError> {
        let is_settled = {
            let mut state = self.state();
            state.touch(self.store.keys());
            state.intent == Intent::Keep && state.pending_owner.is_none()
        };
        if !is_settled {
            // Boxed is what most requests do not do: it would make the future of each of them larger.
            Box::pin(self.settle_intent()).await?;
        }
        match self.target(can_fill, None)? {
            Some(CartTarget { create: Some(_), .. }) => {
                let alone = self.alone().await?;
                self.target(can_fill, Some(alone))
            }
            target => Ok(target),
        }
    }

    /// What the handler has asked for by now is done before its cart is changed: a logout, and a login.
    async fn settle_intent(&self) -> Result<(), StoreError> {
        self.settle_login().await?;
        let is_emptied = self.is_emptied_behind_cycle().await?;
        let to_end = {
            let mut state = self.state();
            let to_end = (is_emptied || state.intent == Intent::End).then(|| state.base.session()).flatten();
            if state.intent == Intent::End && to_end.is_none() {
                state.leave(&self.settings);
            }
            to_end
        };
        if let Some((_, tag)) = to_end {
            // Logged out in this very request: the change belongs to the visitor who is there afterwards.
            self.end_alone(&tag).await?;
        }
        let merge_is_due = self.state().pending_owner.as_ref().is_some_and(|pending| pending.merge.is_due());
        match self.attached().filter(|_| merge_is_due) {
            Some(session) => self.save_now(&session).await,
            None => Ok(()),
        }
    }

    /// Saves what a change or a read of the cart is to come behind.
    pub(crate) async fn save_now(&self, session: &Session) -> Result<(), StoreError> {
        // The handle may be kept locked. It is waited for before, since a commit is not to be given up halfway.
        self.within(session.is_empty()).await?;
        self.save(session).await?;
        #[cfg(feature = "tower-sessions-014")]
        if let Some(id) = session.id() {
            Box::pin(self.tell_id(id)).await;
        }
        Ok(())
    }

    fn target<'a>(&'a self, can_fill: bool, alone: Option<SemaphorePermit<'a>>) -> Result<Option<CartTarget<'a>>, StoreError> {
        let mut state = self.state();
        state.cart = None;
        if let Some(pending) = &state.pending_owner {
            return Ok(Some(CartTarget { cart: pending.user, session: None, owner: None, create: None }));
        }
        let (tag, owner) = match &state.base {
            Base::Unread { tag, owner, .. } => {
                // The script compares the owner, and tells when the hint was wrong.
                (*tag, owner.or_else(|| self.store.owners().hint(tag)))
            }
            Base::Live(live) => (live.tag, live.owner),
            Base::Ended { .. } | Base::Lost { .. } => return Err(state.base.lose()),
            Base::Sent(_) | Base::None { .. } if !can_fill => return Ok(None),
            // No cookie could lead to it any more.
            Base::Sent(_) | Base::None { .. } if state.answered => return Err(StoreError::SessionEnded),
            Base::Sent(_) | Base::None { .. } => {
                let (policy, _) = state.policy(&self.settings);
                let planned = state.planned().clone();
                let tag = self.store.keys().session_tag(&planned.id);
                let create = CreateSession { id: planned.id, token: planned.token, policy, _alone: alone };
                return Ok(Some(CartTarget { cart: tag, session: Some(tag), owner: None, create: Some(create) }));
            }
        };
        Ok(Some(CartTarget { cart: owner.unwrap_or(tag), session: Some(tag), owner, create: None }))
    }

    /// The id of the session that was begun with the change.
    pub(crate) fn cart_changed(&self, target: &CartTarget<'_>, extended: Option<ExpiryPolicy>, kept_ms: i64) -> Option<Id> {
        let mut state = self.state();
        state.cart = None;
        let mut begun = None;
        if let (Some(create), Base::None { .. }) = (&target.create, &state.base) {
            metrics::session_created();
            begun = Some(create.id);
            state.begins(create.id);
            state.apply(create.policy);
            state.base = Base::Live(Live {
                id: create.id,
                tag: target.cart,
                binding: target.cart,
                policy: create.policy,
                owner: None,
                data_version: self.settings.data_version(),
                fields: Vec::new().into(),
                version: None,
                // One that had an id that led nowhere has not been given it.
                fresh: state.has_other_id(),
            });
            state.committed = true;
            state.keeps(kept_ms);
        }
        if let Some(policy) = extended {
            state.extended = Some(policy);
            state.due_behind = false;
            state.alive_in = Some(self.turn());
            state.keeps(kept_ms);
            self.remember_touch(&state, false, true);
        }
        begun
    }

    pub(crate) fn cart_is_owned(&self, target: &CartTarget<'_>, by: Option<Tag>) {
        if let Some(session) = &target.session {
            self.store.owners().learn(session, by);
        }
        match &mut self.state().base {
            Base::Unread { tag, owner, .. } if Some(*tag) == target.session => *owner = by,
            Base::Live(live) if Some(live.tag) == target.session => live.owner = by,
            _ => {}
        }
    }

    /// The lines of the session's cart are bound to what it says of it, `stored`.
    pub(crate) fn cart_is_bound(&self, session: &Tag, stored: &[u8]) -> Result<(), StoreError> {
        if stored.is_empty() {
            self.store.bindings().forget(session);
            return Ok(());
        }
        let binding = self.store.vault().binding(session, Some(stored)).map_err(unreadable_cart)?;
        self.store.bindings().learn(session, binding, stored);
        Ok(())
    }

    /// A stale id is no reason to refuse: the visitor gets a session. One that this request has seen alive is.
    pub(crate) async fn cart_session_gone(&self, target: &CartTarget<'_>) -> Result<(), CartError> {
        if Box::pin(self.find_elsewhere()).await? {
            return Ok(());
        }
        let mut state = self.state();
        match &state.base {
            Base::Unread { tag, .. } if Some(*tag) == target.session => {
                state.base = Base::stale();
                Ok(())
            }
            Base::Live(live) if Some(live.tag) == target.session => Err(state.base.lose().into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn session_ended(&self) -> CartError {
        self.state().base.lose().into()
    }

    pub(crate) fn planned_id_taken(&self, target: &CartTarget<'_>) {
        let mut state = self.state();
        let taken = target.create.as_ref().map(|create| create.id);
        if state.planned.as_ref().map(|planned| planned.id) == taken {
            state.planned = None;
        }
    }

    pub(crate) async fn login_view(&self) -> Result<LoginView, StoreError> {
        self.settle_login().await?;
        let unread = {
            let mut state = self.state();
            state.touch(self.store.keys());
            matches!(&state.base, Base::Unread { .. }) && state.pending_owner.is_none() && state.intent != Intent::End
        };
        if unread {
            Box::pin(self.read_once(false)).await?;
        }
        let mut state = self.state();
        if let Some(pending) = state.pending_owner.as_ref().filter(|pending| !pending.merge.is_due()) {
            return Ok(LoginView::Owned(pending.user));
        }
        Ok(match &state.base {
            _ if state.intent == Intent::End => LoginView::Fresh,
            Base::Live(Live { owner: Some(owner), .. }) => LoginView::Owned(*owner),
            Base::Live(live) => LoginView::Anonymous { cart: live.tag, binding: live.binding },
            Base::Ended { .. } | Base::Lost { .. } => return Err(state.base.lose()),
            Base::Sent(_) | Base::None { .. } | Base::Unread { .. } => LoginView::Fresh,
        })
    }

    pub(crate) async fn set_owner(&self, user: Tag, policy: MergePolicy, merge: Merge) -> Result<(), StoreError> {
        let is_held = self.hold().await?;
        let mut state = self.state();
        state.cart = None;
        state.pending_owner = Some(PendingOwner { user, policy, merge, is_held }.into());
        Ok(())
    }
}
