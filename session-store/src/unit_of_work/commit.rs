//! The commit: what differs goes to the store in one script.

use std::{collections::HashMap, mem, sync::Arc};

use serde_json::Value as Json;
use tower_sessions::session::Id;

use super::{
    UnitOfWork,
    state::{Base, Intent, Live, PendingOwner, State},
    swap::{self, Swap, Swapped},
};
use crate::{
    StoreError,
    backend::{Committed, Expected, Write},
    cart::merge::{self, Merge},
    expiry::ExpiryPolicy,
    keys::Tag,
    metrics,
    record::{CSRF_KEY, Delta, RawField, encode_beside, find_field, unreadable, value_of},
    settings::Settings,
    users,
};

/// Steps of one commit: read, end, create, and merging a cart again that others keep changing.
const STEPS_MAX: u32 = 8;

enum Step {
    Done(Option<Id>),
    Conflict,
    Read,
    /// `None`: it has ended already.
    End(Option<Tag>),
    Create(Write),
    Update(Known, Write),
    Rotate(Known, Write),
}

/// The session as the store had it when it was last asked.
pub(super) struct Known {
    pub(super) tag: Tag,
    pub(super) binding: Tag,
    fields: Arc<Vec<RawField>>,
}

/// How long a session is kept after a commit, and by which policy.
#[derive(Debug, Clone, Copy)]
struct Kept {
    policy: ExpiryPolicy,
    ms: i64,
}

impl Known {
    fn of(live: &Live) -> Self {
        Self { tag: live.tag, binding: live.binding, fields: Arc::clone(&live.fields) }
    }
}

impl UnitOfWork {
    /// Brings the store to this state of the session. `creating`: the handle has no id, and wants one.
    pub(super) async fn commit(&self, data: &HashMap<String, Json>, creating: bool) -> Result<Option<Id>, StoreError> {
        let swap = swap::current();
        let swap = swap.as_deref();
        let result = match self.busy(swap, creating) {
            Some(busy) => busy,
            None => self.commit_alone(data, creating, swap).await,
        };
        settled(swap, result)
    }

    async fn commit_alone(
        &self,
        data: &HashMap<String, Json>,
        creating: bool,
        swap: Option<&Swap>,
    ) -> Result<Option<Id>, StoreError> {
        let _alone = self.alone().await?;
        self.state().base.mark_seen();
        let shown = self.encoded(data)?;
        {
            let mut state = self.state();
            state.note_emptied(data);
            if creating {
                state.begin_anew();
                state.drop_login_of_emptied(data);
            }
        }
        self.steps(&Arc::new(shown), creating, swap).await
    }

    /// Commits what the swap beside this task wants while the handle has not been given the session, and shows nothing that could be
    /// saved; `None`: it has been given it.
    pub(super) async fn commit_unseen(&self, id: &Id) -> Option<Result<Option<Id>, StoreError>> {
        let swap = swap::current()?;
        if let Some(busy) = self.busy(Some(&swap), false) {
            return Some(settled(Some(&swap), busy));
        }
        let _alone = match self.alone().await {
            Ok(alone) => alone,
            Err(error) => return Some(settled(Some(&swap), Err(error))),
        };
        // What others of the request have made of it is seen only now.
        let shown = match &self.state().base {
            Base::Live(live) if live.id == *id && live.fresh => Arc::clone(&live.fields),
            _ => return None,
        };
        let result = self.steps(&shown, false, Some(&swap)).await;
        Some(settled(Some(&swap), result))
    }

    /// What comes of a commit that has to wait, since another update of the same handle is under way.
    fn busy(&self, swap: Option<&Swap>, creating: bool) -> Option<Result<Option<Id>, StoreError>> {
        let swap = swap?;
        let updates = Arc::clone(self.state().updates.get_or_insert_default());
        if swap.is_alone(updates) {
            return None;
        }
        swap.settle(Swapped::Busy);
        let id = self.state().base.session().map(|(id, _)| id);
        // Without an id the handle would take one that nobody has given out.
        Some(if creating { Err(StoreError::Contended { attempts: 1 }) } else { Ok(id) })
    }

    /// The steps to the state `shown` and what the swap wants.
    async fn steps(&self, shown: &Arc<Vec<RawField>>, creating: bool, swap: Option<&Swap>) -> Result<Option<Id>, StoreError> {
        let wanted = || {
            let before_swap = self.with_swapped(shown);
            let fields = swap.map_or_else(|| Arc::clone(&before_swap), |swap| Arc::new(swap.put_into(&before_swap)));
            (before_swap, fields)
        };
        let (mut before_swap, mut fields) = wanted();
        for _ in 0..STEPS_MAX {
            let step = {
                let mut state = self.state();
                state.touch(self.store.keys());
                let (policy, is_chosen) = state.policy(&self.settings);
                let write = Write { policy_changed: is_chosen, ..Write::new(policy, &self.settings) };
                next_step(&mut state, &fields, write, &self.settings, creating, swap.is_some())
            };
            // By reference: what is taken out of it would be in the future beside it.
            match &step {
                Step::Done(id) => {
                    if let Some(kept_alive) = self.keep_alive() {
                        kept_alive.await?;
                    }
                    return Ok(*id);
                }
                Step::Conflict => return Err(self.state().base.lose()),
                Step::Read => Box::pin(self.read_once(false)).await?,
                Step::End(tag) => {
                    match tag {
                        Some(tag) => Box::pin(self.end(tag)).await?,
                        None => self.state().leave(&self.settings),
                    }
                    (before_swap, fields) = wanted();
                }
                Step::Create(write) => {
                    let (id, answer, fields) = Box::pin(self.store.create_session(write, &fields)).await?;
                    if let Some(kept) = self.settle(answer, write, None).await? {
                        metrics::session_created();
                        self.state().begins(id);
                        let id = self.committed(id, write, &fields, kept);
                        if let Some(swap) = swap {
                            self.swapped(swap, shown);
                        }
                        return Ok(Some(id));
                    }
                }
                Step::Update(known, write) => {
                    let fields = self.store.vault().seal(&known.binding, &known.fields, Arc::clone(&fields))?;
                    if let Some(swap) = swap
                        && let Some(now) = swap.overtaken(value_of(shown, &swap.field), value_of(&known.fields, &swap.field))
                    {
                        swap.settle(Swapped::Changed(now));
                        return Ok(self.state().base.session().map(|(id, _)| id));
                    }
                    let expected = swap.map(|swap| expected(swap, &known.fields));
                    let call = self.store.commit_call(&known.tag, write, &Delta::between(&known.fields, &fields), expected);
                    let answer = self.store.commit_session(&known.tag, write, &call).await?;
                    if let (Committed::FieldChanged(now), Some(swap)) = (&answer, swap) {
                        self.lost_swap(swap, known, shown, now.clone())?;
                        return Ok(self.state().base.session().map(|(id, _)| id));
                    }
                    if let Some(kept) = self.settle(answer, write, Some(known)).await? {
                        let id = self.state().base.session().map(|(id, _)| id);
                        let id = id.map(|id| self.committed(id, write, &fields, kept));
                        if let Some(swap) = swap {
                            self.swapped(swap, shown);
                        }
                        return Ok(id);
                    }
                }
                Step::Rotate(known, write) => {
                    for state in [&mut before_swap, &mut fields] {
                        drop_former_secret(state, &known.fields);
                    }
                    // The value that is to be compared is set under the new id, in the next step.
                    let fields = self.store.vault().seal(&known.binding, &known.fields, Arc::clone(&before_swap))?;
                    let mut delta = Delta::between(&known.fields, &fields);
                    // Another request may have drawn the first one meanwhile.
                    delta.remove(CSRF_KEY.as_bytes());
                    let (id, answer) = Box::pin(self.store.rotate_session(&known.tag, &known.binding, write, &delta)).await?;
                    if let Some(kept) = self.settle(answer, write, Some(known)).await? {
                        metrics::session_ended(metrics::End::Rotated);
                        self.state().leave_secret(&known.fields);
                        let id = self.committed(id, write, &fields, kept);
                        if swap.is_none() {
                            return Ok(Some(id));
                        }
                    }
                }
            }
        }
        Err(StoreError::Contended { attempts: STEPS_MAX })
    }

    /// Whether a session that was just committed is without this key.
    pub(super) fn is_committed_without(&self, key: &str) -> bool {
        let state = self.state();
        matches!(&state.base, Base::Live(live) if value_of(&live.fields, key.as_bytes()).is_none())
    }

    fn encoded(&self, data: &HashMap<String, Json>) -> Result<Vec<RawField>, StoreError> {
        let before = match &self.state().base {
            Base::Live(live) => Arc::clone(&live.fields),
            _ => Arc::default(),
        };
        let mut fields = encode_beside(data, &before)?;
        self.state().strip_marks(&mut fields);
        Ok(fields)
    }

    /// The state of the session as the handle has it, with what was swapped meanwhile and the handle does not show yet, and without
    /// what it still shows of a former one.
    fn with_swapped(&self, shown: &Arc<Vec<RawField>>) -> Arc<Vec<RawField>> {
        let state = self.state();
        let live = match &state.base {
            Base::Live(live) => Some(&live.fields),
            _ => None,
        };
        if state.deserted.is_some() {
            return live.map(Arc::clone).unwrap_or_default();
        }
        let echoes = state.updates.as_ref().filter(|updates| updates.has_echoes()).zip(live);
        if echoes.is_none() && !state.has_left_secret() {
            return Arc::clone(shown);
        }
        let is_echo = |field: &[u8]| echoes.is_some_and(|(updates, _)| updates.is_echo(field, value_of(shown, field)));
        let kept = shown.iter().filter(|field| !state.has_left(field) && !is_echo(field.name()));
        let swapped = live.into_iter().flat_map(|live| live.iter()).filter(|field| is_echo(field.name()));
        Arc::new(kept.chain(swapped).cloned().collect())
    }

    /// As [`UnitOfWork::end`], when no commit of this request is under way.
    pub(super) async fn end_alone(&self, tag: &Tag) -> Result<(), StoreError> {
        let _alone = self.alone().await?;
        self.end(tag).await
    }

    /// Ends the session of this request.
    async fn end(&self, tag: &Tag) -> Result<(), StoreError> {
        // What was never read may still be elsewhere, and would be found there by the next request.
        let tag = match self.find_elsewhere().await? {
            true => self.state().base.session().map_or(*tag, |(_, tag)| tag),
            false => *tag,
        };
        let tag = &tag;
        let user = match &self.state().base {
            Base::Live(live) => live.owner,
            Base::Unread { owner, .. } => owner.or_else(|| self.store.owners().hint(tag)),
            _ => None,
        };
        self.store.end_session(tag, user.as_ref()).await?;
        metrics::session_ended(metrics::End::Logout);
        self.state().leave(&self.settings);
        Ok(())
    }

    /// How long the session is kept, when the commit is done; when not, it is to be tried again.
    async fn settle(&self, answer: Committed, write: &Write, known: Option<&Known>) -> Result<Option<Kept>, StoreError> {
        match answer {
            Committed::Done { revision, kept_ms, policy, dropped, too_many } => {
                tracing::trace!(revision, "session committed");
                self.state().wrote(revision);
                if !matches!(write.merge, Merge::Nothing) {
                    metrics::cart_merged(dropped);
                }
                if let Some(user) = write.along.user.filter(|_| too_many) {
                    Box::pin(users::end_too_many(&self.store, user, write.along.sessions_max)).await;
                }
                Ok(Some(Kept { policy, ms: kept_ms }))
            }
            Committed::Gone | Committed::Ended => Err(self.state().base.lose()),
            Committed::FieldChanged(_) => Err(unreadable("a commit compared what it was not told to")),
            Committed::CartChanged => {
                metrics::conflict(metrics::Conflict::CartChanged);
                let pending = self.state().pending_owner.as_deref().cloned();
                if let (Some(PendingOwner { user, policy, is_held, .. }), Some(known)) = (pending, known) {
                    // Something was put into the anonymous cart since: it is to come along.
                    let merge = Box::pin(merge::merge(self, &known.tag, &known.binding, &user, policy)).await?;
                    self.state().pending_owner = Some(PendingOwner { user, policy, merge, is_held }.into());
                }
                Ok(None)
            }
        }
    }

    fn committed(&self, id: Id, write: &Write, fields: &Arc<Vec<RawField>>, kept: Kept) -> Id {
        let Kept { policy, ms: kept_ms } = kept;
        let mut state = self.state();
        let (known, owner, place) = match &state.base {
            Base::Live(live) => (Some(live.policy), live.owner, Some((live.id, live.tag, live.binding))),
            _ => (None, None, None),
        };
        // A new id is under a new tag, and its values are bound to what they were.
        let is_update = place.is_some_and(|(known, _, _)| known == id);
        let (tag, binding) = match place {
            Some((_, tag, binding)) if is_update => (tag, binding),
            _ => {
                let tag = self.store.keys().session_tag(&id);
                (tag, place.map_or(tag, |(_, _, binding)| binding))
            }
        };
        if known.is_some_and(|known| known != policy) {
            state.extended = Some(policy);
        }
        if policy == write.policy {
            state.apply(policy);
        } else {
            state.adopt(write.policy, policy);
        }
        let owner = write.owner.or(owner);
        if owner.is_some() {
            self.store.owners().learn(&tag, owner);
        }
        // When this was read the touch was due, or is to be put off now.
        let (is_due, puts_off) = (mem::take(&mut state.due_behind), mem::take(&mut state.puts_off_touch));
        let is_known = mem::take(&mut state.tells_along) || is_due || puts_off;
        if is_known || state.extended.is_some() {
            self.store.touches().learn(&tag, policy, Some(kept_ms), write.along.cart_ttl_ms.is_some());
        }
        let data_version = self.settings.data_version();
        // A handle that has not been given the session yet is given what it is now.
        let fresh = is_update && matches!(&state.base, Base::Live(live) if live.fresh);
        state.base = Base::Live(Live {
            id,
            tag,
            binding,
            policy,
            owner,
            data_version,
            fields: Arc::clone(fields),
            // The next commit of this request, which is rare, looks at what it finds.
            version: None,
            fresh,
        });
        // What was asked for while the commit was under way is still to be done.
        if !is_update && state.intent == Intent::Rotate {
            state.intent = Intent::Keep;
        }
        if state.pending_owner.as_ref().map(|pending| pending.user) == write.owner {
            state.pending_owner = None;
        }
        state.committed = true;
        state.alive_in = Some(self.turn());
        match write.left_ms {
            Some(_) => state.kept_ms = kept_ms,
            None => state.keeps(kept_ms),
        }
        if kept_ms <= 0 {
            // Its absolute time is over, and the store has dropped it.
            state.base = Base::stale();
        }
        id
    }
}

/// Tells the swap what has become of it, unless it has been told.
fn settled(swap: Option<&Swap>, result: Result<Option<Id>, StoreError>) -> Result<Option<Id>, StoreError> {
    if let Some(swap) = swap.filter(|swap| !swap.is_settled()) {
        match &result {
            Err(error) => swap.settle(Swapped::Failed(error.clone())),
            // A session whose time has passed is not kept, and neither is a value of it.
            Ok(None) => swap.settle(Swapped::Failed(StoreError::SessionEnded)),
            Ok(Some(_)) => {}
        }
    }
    result
}

/// What made the tokens of the former id is not taken to the new one.
fn drop_former_secret(fields: &mut Arc<Vec<RawField>>, known: &[RawField]) {
    let name = CSRF_KEY.as_bytes();
    if value_of(fields, name).is_some_and(|secret| value_of(known, name) == Some(secret)) {
        Arc::make_mut(fields).retain(|field| field.name() != name);
    }
}

fn expected<'a>(swap: &'a Swap, before: &'a [RawField]) -> Expected<'a> {
    let value = find_field(before, &swap.field).map(RawField::stored);
    Expected { field: &swap.field, value }
}

fn next_step(
    state: &mut State,
    fields: &[RawField],
    mut write: Write,
    settings: &Settings,
    creating: bool,
    swapping: bool,
) -> Step {
    let policy = write.policy;
    if state.intent == Intent::End {
        return Step::End(state.base.session().map(|(_, tag)| tag));
    }
    if state.answered && state.intent == Intent::Rotate {
        tracing::warn!("a session cannot get a new id once its answer is on the way; it keeps the one that it has");
        state.intent = Intent::Keep;
    }
    let pending = state.pending_owner.as_ref();
    if let Some(pending) = pending {
        write.owner = Some(pending.user);
        write.device = state.client.device();
        write.merge = pending.merge.clone();
    }
    match &state.base {
        Base::Ended { .. } | Base::Lost { .. } => Step::Conflict,
        Base::Sent(_) | Base::Unread { .. } => Step::Read,
        // Of a time that this request has not chosen the store knows whether others have chosen another one since.
        Base::Live(live) if policy.has_passed() && policy != live.policy => Step::End(Some(live.tag)),
        Base::Live(live) => {
            // What the handler has chosen is said also where it is what was read: another request may choose something else meanwhile.
            write.policy_changed |= live.policy != policy;
            if live.data_version == write.data_version {
                write.data_version = None;
            } else if write.data_version.is_none() {
                // What this process writes is of the first version, whatever a newer one has made of the rest.
                write.data_version = Some(0);
            }
            if state.is_to_extend() || write.policy_changed || write.owner.is_some() || state.intent == Intent::Rotate {
                write.along = state.along(settings);
            } else if state.extended.is_none() {
                write.left_ms = state.gains_little(policy);
            }
            write.version = live.version.clone();
            if state.intent == Intent::Rotate {
                return Step::Rotate(Known::of(live), write);
            }
            let unchanged = !swapping
                && !write.policy_changed
                && write.owner.is_none()
                && (live.fields.as_slice() == fields || Delta::between(&live.fields, fields).is_empty());
            if unchanged {
                return Step::Done(Some(live.id));
            }
            Step::Update(Known::of(live), write)
        }
        Base::None { .. } if policy.has_passed() => Step::Done(None),
        Base::None { .. } if state.answered => {
            tracing::debug!("a visitor cannot get a session once the answer is on the way");
            Step::Done(None)
        }
        // `clear` on an id that leads nowhere leaves nothing to store.
        Base::None { .. } if !creating && fields.is_empty() && pending.is_none() => Step::Done(None),
        Base::None { .. } => {
            write.along = state.along(settings);
            Step::Create(write)
        }
    }
}
