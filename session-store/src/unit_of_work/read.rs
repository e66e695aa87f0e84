//! Reading the session, whatever state it is in.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::sync::Notify;
use tower_sessions::session::Id;

use super::{
    UnitOfWork,
    state::{Base, Intent, Live, Reading, State},
};
use crate::{
    StoreError,
    backend::{Along, Committed, Expected, Fate, Touch, Touched, Version, Write},
    cart::CartSnapshot,
    expiry::{ExpiryPolicy, not_chosen, unix_ms},
    keys::Tag,
    record::{Delta, StoredSession, decode, encode},
    touches::NextTouch,
};

/// New ids that are followed to see whether the session still lives. So many logins within the grace are none of a person.
const SUCCESSORS_MAX: u32 = 8;
/// How often a session is read that is being taken over, migrated or put in quarantine, by this request or by others.
const READS_MAX: u32 = 4;

/// A session, and where it was read.
struct Fetched {
    stored: StoredSession,
    cart: Option<CartSnapshot>,
    /// Read from a replica or the near cache: good enough to be shown, and no ground to change anything.
    is_copy: bool,
    touched: Option<Touched>,
    /// When it was asked for.
    asked: Instant,
}

/// What becomes of a wish to read the session.
pub(super) enum Begun<'a> {
    /// There is nothing to be read.
    Known,
    /// Whoever wished reads it.
    Here { id: Id, tag: Option<Tag>, alone: ReadAlone<'a> },
    /// Somebody does already.
    Elsewhere(Arc<Notify>),
}

/// Until it is dropped, nobody else begins to read the session.
// A flag of the state, which is locked in any case; a semaphore has a lock of its own for each release.
pub(super) struct ReadAlone<'a>(&'a UnitOfWork);

impl Drop for ReadAlone<'_> {
    fn drop(&mut self) {
        let reading = mem::replace(&mut self.0.state().reading, Reading::Nobody);
        if let Reading::Awaited(over) = reading {
            over.notify_waiters();
        }
    }
}

impl Reading {
    fn awaited(&mut self, over: Arc<Notify>) -> Arc<Notify> {
        *self = Self::Awaited(Arc::clone(&over));
        over
    }
}

impl UnitOfWork {
    /// Reads the session unless that has happened already, and its cart with it where the handlers will want it.
    pub(crate) async fn ensure_read(&self) -> Result<(), StoreError> {
        let (begun, with_cart) = self.begin_wanted(&mut self.state());
        self.read_begun(begun, with_cart).await
    }

    /// Whether the cart is wanted as well.
    pub(super) fn begin_wanted(&self, state: &mut State) -> (Begun<'_>, bool) {
        state.touch(self.store.keys());
        let with_cart = state.cart_expected;
        (self.begin_reading(state, with_cart), with_cart)
    }

    /// Reads the session unless somebody has. Tasks of one request may ask for it at the same time: an answer that comes after one of them
    /// has changed something must not take the place of what is known by then.
    pub(crate) async fn read_once(&self, with_cart: bool) -> Result<(), StoreError> {
        let begun = self.begin_reading(&mut self.state(), with_cart);
        self.read_begun(begun, with_cart).await
    }

    pub(super) async fn read_begun(&self, begun: Begun<'_>, with_cart: bool) -> Result<(), StoreError> {
        let (id, tag, _alone) = match begun {
            Begun::Known => return Ok(()),
            Begun::Here { id, tag, alone } => (id, tag, alone),
            // Boxed is what most requests do not do: it would make the future of each of them larger.
            Begun::Elsewhere(over) => match Box::pin(self.after(over, with_cart)).await {
                Some(turn) => turn,
                None => return Ok(()),
            },
        };
        self.read_from(id, tag, with_cart).await
    }

    /// Waits for whoever reads the session: no longer than the operations of one read may take, and so for each who was there before.
    async fn after(&self, mut over: Arc<Notify>, with_cart: bool) -> Option<(Id, Option<Tag>, ReadAlone<'_>)> {
        loop {
            self.until_over(&over).await;
            let begun = self.begin_reading(&mut self.state(), with_cart);
            match begun {
                Begun::Known => return None,
                Begun::Here { id, tag, alone } => return Some((id, tag, alone)),
                Begun::Elsewhere(next) => over = next,
            }
        }
    }

    async fn until_over(&self, over: &Arc<Notify>) {
        // Made before the look, so that nothing comes in between.
        let told = over.notified();
        let is_on = matches!(&self.state().reading, Reading::Awaited(other) if Arc::ptr_eq(other, over));
        if is_on {
            told.await;
        }
    }

    fn begin_reading(&self, state: &mut State, with_cart: bool) -> Begun<'_> {
        let (id, tag) = match state.base {
            Base::Unread { id, tag, .. } => {
                if !with_cart && matches!(state.reading, Reading::Nobody) && self.read_near(state, id, tag) {
                    return Begun::Known;
                }
                (id, Some(tag))
            }
            Base::Lost { id } => (id, None),
            _ => return Begun::Known,
        };
        match mem::replace(&mut state.reading, Reading::Somebody) {
            Reading::Nobody => Begun::Here { id, tag, alone: ReadAlone(self) },
            Reading::Somebody => Begun::Elsewhere(state.reading.awaited(Arc::default())),
            Reading::Awaited(over) => Begun::Elsewhere(state.reading.awaited(over)),
        }
    }

    fn is_unread(&self) -> bool {
        matches!(self.state().base, Base::Unread { .. } | Base::Lost { .. })
    }

    /// Reads the session, and its cart with it when asked to, in one round trip.
    pub(super) async fn read(&self, id: &Id, with_cart: bool) -> Result<(), StoreError> {
        let known = {
            let mut state = self.state();
            let known = state.base.session().filter(|(known, _)| known == id).map(|(_, tag)| tag);
            if !with_cart
                && let Some(tag) = known
                && self.read_near(&mut state, *id, tag)
            {
                return Ok(());
            }
            known
        };
        self.read_from(*id, known, with_cart).await
    }

    /// Takes the session as the near cache has it, where that will do. Nothing is waited for, so that it is done within the lock that whoever
    /// asks has in any case: steps that might wait were a third of what such a read cost.
    fn read_near(&self, state: &mut State, id: Id, tag: Tag) -> bool {
        if !state.may_read_near {
            return false;
        }
        let now = Instant::now();
        let next_touch = self.store.touches().next(&tag, now);
        if matches!(next_touch, NextTouch::Due(_)) && !state.answered {
            return false;
        }
        let Some(stored) = self.store.near().and_then(|near| near.get(&tag, state.replica_from.unwrap_or(0), now)) else {
            return false;
        };
        // A migration begins with what the primary has: made of an older copy, it would undo what was changed since.
        if !self.is_ordinary(&stored) {
            return false;
        }
        self.take(state, id, tag, Fetched { stored, cart: None, is_copy: true, touched: None, asked: now }, next_touch);
        true
    }

    async fn read_from(&self, id: Id, tag: Option<Tag>, with_cart: bool) -> Result<(), StoreError> {
        // Whoever asks has a tag already, as a rule: the hash is made once for each request.
        let tag = tag.unwrap_or_else(|| self.store.keys().session_tag(&id));
        // Boxed is what most requests do not do: it would make the future of each of them larger. So would what was fetched, if it lived
        // until that is done.
        let rest = match self.fetch_due(&tag, with_cart).await {
            (Ok(fetched), next_touch) if self.is_ordinary(&fetched.stored) => {
                self.take(&mut self.state(), id, tag, fetched, next_touch);
                return Ok(());
            }
            fetched => Box::pin(self.read_on(id, tag, with_cart, fetched)),
        };
        rest.await
    }

    /// Whether it is a session that can be shown as it is.
    fn is_ordinary(&self, stored: &StoredSession) -> bool {
        stored.revision.is_some() && !stored.ended && !self.is_outdated(stored)
    }

    /// Goes on with what was fetched at first.
    async fn read_on(
        &self,
        id: Id,
        mut tag: Tag,
        with_cart: bool,
        fetched: (Result<Fetched, StoreError>, NextTouch),
    ) -> Result<(), StoreError> {
        let (mut fetched, mut sought_elsewhere) = (Some(fetched), false);
        for attempt in 0..READS_MAX {
            if attempt > 0 {
                // What is repeated is repeated because of what the primary has.
                self.state().replica_from = None;
            }
            let (read, next_touch) = match fetched.take() {
                Some(fetched) => fetched,
                None => self.fetch_due(&tag, with_cart).await,
            };
            let mut fetched = match read {
                Err(error) if error.is_corrupt() => {
                    self.quarantine(&tag, &error).await?;
                    continue;
                }
                read => read?,
            };
            let stored = &mut fetched.stored;
            if stored.revision.is_none() && !stored.ended && !sought_elsewhere {
                sought_elsewhere = true;
                if let Some(found) = self.under_another_key(&id, &tag).await? {
                    tag = found;
                    continue;
                }
                tag = self.store.keys().session_tag(&id);
                if self.take_over(&id, &tag).await? {
                    continue;
                }
            }
            if stored.successor.is_some() {
                self.follow(stored).await?;
            } else {
                stored.shut = stored.ended;
            }
            if self.is_outdated(stored) && !self.migrate(&tag, stored).await? {
                continue;
            }
            self.take(&mut self.state(), id, tag, fetched, next_touch);
            return Ok(());
        }
        Err(StoreError::Contended { attempts: READS_MAX })
    }

    /// From now on the request knows this of its session.
    fn take(&self, state: &mut State, id: Id, tag: Tag, fetched: Fetched, next_touch: NextTouch) {
        let Fetched { stored, cart, is_copy, touched, asked } = fetched;
        self.store.owners().learn(&tag, stored.owner);
        let (policy, is_capped) = (stored.expiry, stored.capped);
        let is_lost = matches!(state.base, Base::Lost { id: lost } if lost == id);
        if !is_lost && state.base.session().is_none_or(|(known, _)| known != id) {
            // Another task of this request got a new id meanwhile.
            return;
        }
        if is_lost && !stored.ended {
            // The store keeps what ended for a few seconds only: what it was nobody can tell any more, and it is not nothing.
            return;
        }
        state.cart = cart.filter(|_| !stored.shut);
        state.base_is_copy = is_copy;
        self.loaded(state, id, tag, stored, touched, asked);
        match state.base {
            Base::Live(_) if next_touch == NextTouch::Later => {}
            Base::Live(_) => {
                let is_told = touched.is_some_and(|touched| touched.is_extended);
                state.tells_along = !is_told && next_touch != NextTouch::Unknown && !self.store.touches().is_told(&tag, asked);
                if next_touch == NextTouch::Soon {
                    state.puts_off_touch = true;
                } else {
                    self.remember_touch(state, is_capped, is_told);
                }
            }
            // Whoever still sends its cookie would have the store look each time.
            _ => self.store.touches().forget(&tag),
        }
        self.adopt_policy(state, policy);
    }

    /// Gives the handle what the primary has, after it was given a copy. What was changed since is saved first.
    pub(crate) async fn read_again(&self) -> Result<(), StoreError> {
        let Some(session) = self.attached() else {
            return Ok(());
        };
        let is_due = {
            let state = self.state();
            state.intent == Intent::Rotate || state.pending_owner.is_some()
        };
        if is_due || session.is_modified() {
            self.save(&session).await?;
        }
        let policy = {
            let mut state = self.state();
            let Base::Live(live) = &mut state.base else {
                return Ok(());
            };
            // Until the answer is there it stays what the handle shows: dropped in between, a commit still knows what was changed.
            live.fresh = false;
            let policy = live.policy;
            if !state.committed {
                state.extended = None;
            }
            policy
        };
        if session.expiry() == not_chosen(policy.expiry()) {
            // The copy's, unless the primary has the same.
            session.set_expiry(not_chosen(self.settings.expiry));
        }
        session.load().await.map_err(|error| StoreError::Unreadable { reason: error.to_string() })
    }

    /// The session, its time extended along with it where that is due as far as this process knows.
    async fn fetch_due(&self, tag: &Tag, with_cart: bool) -> (Result<Fetched, StoreError>, NextTouch) {
        // Looked at once: a look at the clock takes as long as all that a near cache has to do.
        let now = Instant::now();
        let next_touch = self.store.touches().next(tag, now);
        let fetched = match next_touch {
            // Behind the head of the answer no cookie can tell of it, and what only reads there would keep the session for ever.
            NextTouch::Due(policy) if !self.state().answered => Box::pin(self.fetch_and_touch(tag, with_cart, policy, now)).await,
            _ => self.fetch(tag, with_cart, now).await,
        };
        (fetched, next_touch)
    }

    async fn fetch(&self, tag: &Tag, with_cart: bool, mut asked: Instant) -> Result<Fetched, StoreError> {
        if with_cart {
            let cart_tag = self.store.owners().hint(tag).unwrap_or(*tag);
            match self.store.read_session_and_cart(tag, &cart_tag).await {
                // Which of the two it is shows when the session is read alone.
                Err(error) if error.is_corrupt() => asked = Instant::now(),
                read => {
                    let (stored, cart) = read?;
                    return Ok(Fetched { stored, cart, is_copy: false, touched: None, asked });
                }
            }
        }
        // A migration begins with what the primary has: made of an older copy, it would undo what was changed since.
        if let Some(stored) = self.of_replica(tag).await
            && !self.is_outdated(&stored)
        {
            return Ok(Fetched { stored, cart: None, is_copy: true, touched: None, asked });
        }
        Ok(Fetched { stored: self.store.read_session(tag).await?, cart: None, is_copy: false, touched: None, asked })
    }

    /// From the primary, and with the extension of the session's time, which is due as far as this process knows.
    async fn fetch_and_touch(
        &self,
        tag: &Tag,
        with_cart: bool,
        policy: ExpiryPolicy,
        asked: Instant,
    ) -> Result<Fetched, StoreError> {
        let owner = self.store.owners().hint(tag);
        let (sessions_max, cart_ttl_ms) = (self.settings.user_sessions_max, Some(self.settings.cart_ttl_ms));
        let along = Along { user: owner, sessions_max, cart_ttl_ms, logs_in: false };
        let touch = Touch { policy, settings: &self.settings, along };
        let cart_tag = owner.unwrap_or(*tag);
        let read = self.store.read_and_touch(tag, with_cart.then_some(&cart_tag), &touch).await;
        // Which of the two it is shows when the session is read alone.
        if with_cart && read.as_ref().is_err_and(StoreError::is_corrupt) {
            return self.fetch(tag, false, Instant::now()).await;
        }
        let (stored, cart, touched) = read?;
        Ok(Fetched { stored, cart, is_copy: false, touched, asked })
    }

    /// Remembers when the session's next touch is due; `is_capped`: no touch can extend it. `is_told`: what goes along was told now.
    pub(super) fn remember_touch(&self, state: &State, is_capped: bool, is_told: bool) {
        if let Base::Live(live) = &state.base {
            self.store.touches().learn(&live.tag, live.policy, if is_capped { None } else { Some(state.kept_ms) }, is_told);
        }
    }

    /// The session as a replica has it, where that will do.
    async fn of_replica(&self, tag: &Tag) -> Option<StoredSession> {
        let replica_from = {
            let state = self.state();
            // A replica shows one that was lost as if it had not ended.
            if matches!(state.base, Base::Lost { .. }) { None } else { state.replica_from }
        };
        // Boxed is what most requests do not do: it would make the future of each of them larger.
        Box::pin(self.store.read_session_from_replica(tag, replica_from?)).await
    }

    /// Whether its data is of an older version of the application.
    fn is_outdated(&self, stored: &StoredSession) -> bool {
        stored.revision.is_some() && stored.data_version.unwrap_or(0) < self.settings.migrations.version()
    }

    /// What a session of this layer begins with when this process makes it without being asked to.
    fn unasked(&self) -> Write {
        let policy = ExpiryPolicy::of(Some(self.settings.expiry));
        Write::new(policy, &self.settings)
    }

    pub(super) async fn quarantine(&self, tag: &Tag, why: &StoreError) -> Result<(), StoreError> {
        // A copy may still be of the record that is moved away.
        self.state().read_from_primary();
        self.store.quarantine(tag, Some(&self.unasked()), why).await
    }

    /// The tag of a session that was written with another key of the hash than the current one.
    async fn under_another_key(&self, id: &Id, tried: &Tag) -> Result<Option<Tag>, StoreError> {
        let keys = self.store.keys();
        if !keys.has_former() {
            return Ok(None);
        }
        let others: Vec<_> = keys.session_tags(id).filter(|tag| tag != tried).collect();
        let found = self.store.which_exists(&others).await?;
        // What is remembered of it is as good as what was last seen.
        keys.found(id, found.unwrap_or_else(|| keys.session_tags(id).next().unwrap_or(*tried)));
        Ok(found)
    }

    /// Whether a session that other software has written is ours now.
    async fn take_over(&self, id: &Id, tag: &Tag) -> Result<bool, StoreError> {
        match &self.settings.taken_over {
            Some(prefix) => self.store.take_over(prefix, id, tag, &self.unasked()).await,
            None => Ok(false),
        }
    }

    /// Reads a session that nobody has looked for yet, where it may be something else than a session of ours under its own tag;
    /// whether there is one.
    pub(super) async fn find_elsewhere(&self) -> Result<bool, StoreError> {
        let may_be_elsewhere = self.settings.taken_over.is_some() || self.store.keys().has_former();
        if !may_be_elsewhere || !self.is_unread() {
            return Ok(false);
        }
        self.read_once(false).await?;
        Ok(matches!(self.state().base, Base::Live(_)))
    }

    /// Brings the application's data to the version of this process, once for all; `false`: others changed it meanwhile.
    async fn migrate(&self, tag: &Tag, stored: &mut StoredSession) -> Result<bool, StoreError> {
        if !self.is_outdated(stored) {
            return Ok(true);
        }
        let (migrations, found) = (&self.settings.migrations, stored.data_version.unwrap_or(0));
        let mut data = match decode(&stored.fields) {
            Err(error) => {
                self.quarantine(tag, &error).await?;
                return Ok(false);
            }
            data => data?,
        };
        migrations.apply(found, &mut data);
        let binding = stored.binding.unwrap_or(*tag);
        let after = self.store.vault().seal(&binding, &stored.fields, encode(&data)?.into())?;
        let mut write = self.unasked();
        if let Some(policy) = stored.expiry {
            // As it was read, and not chosen: others may choose another one meanwhile.
            (write.policy, write.policy_changed) = (policy, false);
        }
        let version = stored.data_version.map(|version| version.to_string());
        // Whoever sees the old version has seen the old data, and must not write over what others made of the new.
        let expected = Expected { field: b"@d", value: version.as_deref().map(str::as_bytes) };
        let call = self.store.commit_call(tag, &write, &Delta::between(&stored.fields, &after), Some(expected));
        let Committed::Done { .. } = self.store.commit_session(tag, &write, &call).await? else {
            return Ok(false);
        };
        tracing::debug!(from = found, to = migrations.version(), "a session was migrated");
        stored.fields = after;
        stored.data_version = Some(migrations.version());
        // The remaining time stays as it was read: a cookie is due when a touch is, which looks once more whether the session lives.
        Ok(true)
    }

    /// What a session was before it got a new id may be read as long as the new one lives. Costs a round trip only in the seconds
    /// after a new id.
    async fn follow(&self, stored: &mut StoredSession) -> Result<(), StoreError> {
        for _ in 0..SUCCESSORS_MAX {
            let Some(successor) = stored.successor else {
                break;
            };
            match self.store.fate(&successor).await? {
                Fate::Lives => return Ok(()),
                Fate::Succeeded(by) => stored.successor = Some(by),
                Fate::Ended => stored.successor = None,
            }
        }
        stored.shut = stored.ended;
        Ok(())
    }

    fn loaded(&self, state: &mut State, id: Id, tag: Tag, stored: StoredSession, touched: Option<Touched>, asked: Instant) {
        let fields = stored.fields;
        state.base = if stored.revision.is_some() {
            let binding = stored.binding.unwrap_or(tag);
            let policy = stored.expiry.unwrap_or_else(|| ExpiryPolicy::of(Some(self.settings.expiry)));
            // Of a setting that is newer than the session the store learns with the next touch.
            let latest_ms = self.settings.absolute_ms.zip(stored.created_ms).map(|(ms, created)| created.saturating_add(ms));
            let is_news = latest_ms.is_some_and(|latest| stored.until_ms.is_none_or(|until| latest < until));
            if is_news && latest_ms.is_some_and(|latest| latest <= unix_ms(OffsetDateTime::now_utc())) {
                state.base = Base::stale();
                return;
            }
            // A renewed cookie too is given only when the touch has found the session alive.
            let touched = touched.filter(|touched| touched.is_extended || !is_news);
            let is_due = match touched {
                Some(touched) => touched.is_extended && policy.is_in_cookie(),
                None => is_news || (!stored.capped && policy.is_touch_due(stored.remaining_ms)),
            };
            state.due_behind = is_due && !policy.is_in_cookie() && !state.cookie_outdated && !is_news;
            if (is_due && !state.due_behind) || state.cookie_outdated {
                state.extended = Some(policy);
            }
            if touched.is_some() {
                state.extended_by_read = true;
                state.alive_in = Some(self.turn());
            }
            match touched {
                Some(touched) => state.keeps(touched.kept_ms),
                None => state.keeps_since(stored.remaining_ms, policy.idle_ms().filter(|_| !stored.capped), asked),
            }
            // A copy may be of an older time, and one that is capped has no more to gain.
            let is_renewable = !state.base_is_copy && !stored.capped && !is_news && stored.expiry.is_some();
            let passed_ms = policy.idle_ms().filter(|_| is_renewable).and_then(|idle| u64::try_from(idle - state.kept_ms).ok());
            state.renewed = passed_ms.and_then(|passed| asked.checked_sub(Duration::from_millis(passed)));
            state.read_revision = stored.revision;
            let revision = stored.revision.filter(|_| !state.base_is_copy);
            Base::Live(Live {
                id,
                tag,
                binding,
                policy,
                owner: stored.owner,
                data_version: stored.data_version,
                fields,
                version: revision.map(|revision| Version { revision, tokens: stored.tokens }),
                fresh: true,
            })
        } else if stored.ended {
            let binding = stored.binding.unwrap_or(tag);
            Base::Ended { id, tag, binding, owner: stored.owner, fields, readable: !stored.shut }
        } else {
            Base::stale()
        };
    }

    /// Lets the handle know the policy of the session, unless the handler has set one already.
    fn adopt_policy(&self, state: &State, stored: Option<ExpiryPolicy>) {
        let Some(stored) = stored.filter(|stored| *stored != ExpiryPolicy::of(Some(self.settings.expiry))) else {
            return;
        };
        if let Some(session) = &state.session
            && session.expiry() == not_chosen(self.settings.expiry)
        {
            session.set_expiry(not_chosen(stored.expiry()));
        }
    }
}
