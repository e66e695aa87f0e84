//! What is asked of the store, one function for each script or pipeline, with typed answers.

use std::sync::Arc;

use bytes::Bytes;
use rand::RngExt as _;
use redis::{Pipeline, Value};
use smallvec::SmallVec;
use tower_sessions::session::Id;

use crate::{
    CacheStore, StoreError,
    cart::{lines::CartSnapshot, merge::Merge, merged::Merged},
    device::Device,
    encryption::{BIND_FIELD, damaged_line},
    error::Elsewhere,
    expiry::{ExpiryPolicy, TTL_MAX_MS},
    keys::{Name, Tag},
    record::{Delta, RawField, StoredSession, VERSION, bytes, integer, unreadable},
    rotation::flat,
    scripts::{
        CHANGE, CHANGE_ARGUMENTS_MAX, CHANGE_PLAIN, CHANGE_WITHIN, COMMIT, COMMIT_SEALED, CREATE, Call, END, LIST, ROTATE,
        ROTATE_SEALED, TOUCH, reply,
    },
    settings::Settings,
    wire::{Argument as _, Packed, Reply},
};

/// How long a session that ended, or got a new id, is remembered: longer than a request takes that was under way.
pub(crate) const GRACE_MS: i64 = 10_000;
/// Ids that are drawn until one is free. The second is needed once in 2^128 cases.
pub(crate) const ID_ATTEMPTS: u32 = 3;
/// Characters of a token that makes a commit count once. 48 bits, against the few that a session remembers.
const COMMIT_TOKEN_CHARS: usize = 8;
/// Commits whose tokens a session remembers, as the scripts have it. With their spaces they are 63 bytes: a value of more than 64 would have Redis and
/// Valkey keep even a small session as a table (`hash-max-listpack-value`), in three times the memory.
pub(crate) const COMMITS_REMEMBERED: usize = 7;

/// What every write carries besides the fields.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) token: CommitToken,
    pub(crate) policy: ExpiryPolicy,
    /// The longest life of a session from its beginning, in ms.
    pub(crate) absolute_ms: Option<i64>,
    /// Set when the policy is not the stored one.
    pub(crate) policy_changed: bool,
    /// Set when the session gets another owner, who logs in.
    pub(crate) owner: Option<Tag>,
    pub(crate) device: Device,
    pub(crate) merge: Merge,
    pub(crate) along: Along,
    /// Set when the application's data has another version than the stored one.
    pub(crate) data_version: Option<u32>,
    /// What the values of a session are bound to that gets another tag.
    pub(crate) bind_field: Option<Vec<u8>>,
    /// As which the session was read that is changed; `None`: the script looks at what it finds.
    pub(crate) version: Option<Version>,
    /// What is left of the session's time in ms, where that is left as it is; `None`: it is given all of it.
    pub(crate) left_ms: Option<i64>,
}

/// A session as it was read. As long as the tokens of its last commits are the same, so are its revision and its fields.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) revision: u64,
    pub(crate) tokens: Bytes,
}

impl Write {
    /// By a layer with these settings.
    pub(crate) fn new(policy: ExpiryPolicy, settings: &Settings) -> Self {
        let (absolute_ms, data_version) = (settings.absolute_ms, settings.data_version());
        Self { absolute_ms, data_version, ..Self::bare(policy) }
    }

    pub(crate) fn bare(policy: ExpiryPolicy) -> Self {
        Self {
            token: CommitToken::random(),
            policy,
            absolute_ms: None,
            policy_changed: true,
            owner: None,
            device: Device::default(),
            merge: Merge::Nothing,
            along: Along::default(),
            data_version: None,
            bind_field: None,
            version: None,
            left_ms: None,
        }
    }

    /// The time that the session has when the script has done the usual.
    fn kept_ms(&self) -> Result<i64, StoreError> {
        self.left_ms.or(self.policy.idle_ms()).ok_or_else(|| unreadable("a commit does not say how long the session is kept"))
    }

    /// How long the session is kept, for a script that has less to do where that is a time alone.
    fn time(&self, call: &mut Call) {
        match self.policy.idle_ms().filter(|idle_ms| *idle_ms <= TTL_MAX_MS && self.absolute_ms.is_none()) {
            Some(idle_ms) => {
                call.arg(idle_ms).arg("*");
            }
            None => {
                call.arg(self.policy.encode().as_bytes());
                absolute(call, self.absolute_ms);
            }
        }
    }

    /// The tokens that the session is to remember, and then the revision and the tokens that it has from then on.
    fn version_and_tokens(&self, call: &mut Call) {
        let token = self.token.as_bytes();
        let Some(Version { revision, tokens }) = &self.version else {
            call.arg("").arg("").parts(&[token, b" "]);
            return;
        };
        let remembered = (COMMITS_REMEMBERED - 1) * (COMMIT_TOKEN_CHARS + 1);
        call.arg(&tokens[..]).arg(revision.saturating_add(1)).parts(&[token, b" ", &tokens[..tokens.len().min(remembered)]]);
    }

    fn reserved_fields(&self, call: &mut Call) {
        if self.policy_changed {
            call.arg("@expiry").arg(self.policy.encode().as_bytes());
        }
        if let Some(owner) = &self.owner {
            call.arg("@owner").arg(owner.as_str());
            call.arg("@device").arg(&self.device.class).arg("@network").arg(&self.device.network);
        }
        if let Some(bind) = &self.bind_field {
            call.arg(BIND_FIELD).arg(&bind[..]);
        }
        self.version_field(call);
    }

    pub(crate) fn version_field(&self, call: &mut Call) {
        if let Some(version) = self.data_version {
            call.arg("@d").arg(version);
        }
    }

    fn count_reserved(&self) -> usize {
        2 * (usize::from(self.policy_changed)
            + 3 * usize::from(self.owner.is_some())
            + usize::from(self.bind_field.is_some())
            + usize::from(self.data_version.is_some()))
    }
}

/// What goes along when the time of a session is set, in the same step where that can be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Along {
    /// The user whose session it is: it is on the list of theirs.
    pub(crate) user: Option<Tag>,
    pub(crate) sessions_max: u32,
    /// For how long the cart is kept then: it must not end before the session.
    pub(crate) cart_ttl_ms: Option<i64>,
    /// The user logs in.
    pub(crate) logs_in: bool,
}

/// The extension of a session's time.
#[derive(Debug)]
pub(crate) struct Touch<'a> {
    /// Of a session that has none of its own.
    pub(crate) policy: ExpiryPolicy,
    pub(crate) settings: &'a Settings,
    pub(crate) along: Along,
}

/// What a touch has found alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touched {
    pub(crate) kept_ms: i64,
    /// It was due, and nobody else had done it.
    pub(crate) is_extended: bool,
}

impl Touched {
    /// `None`: there is no such session, or none of this owner.
    fn parse(answer: &[Value]) -> Result<Option<Self>, StoreError> {
        if number_at(answer, 0)? != reply::OK {
            return Ok(None);
        }
        let touched = Self { kept_ms: number_at(answer, 1)?, is_extended: number_at(answer, 2)? == 1 };
        Ok((touched.kept_ms > 0).then_some(touched))
    }
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Committed {
    Done {
        revision: u64,
        /// The time to live of the session from now on.
        kept_ms: i64,
        /// By which it is reckoned: the write's own, unless others have chosen another one since the session was read.
        policy: ExpiryPolicy,
        /// Units of the anonymous cart that found no room in the user's.
        dropped: u64,
        /// Whether the user may have too many sessions.
        too_many: bool,
    },
    Gone,
    Ended,
    CartChanged,
    /// The field that was to be compared has this value.
    FieldChanged(Option<Vec<u8>>),
}

/// What became of the id that followed another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    Succeeded(Tag),
    Ended,
}

/// A field, and the value that it must still have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) field: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

/// A random token, unguessable and short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitToken([u8; COMMIT_TOKEN_CHARS]);

impl CommitToken {
    pub(crate) fn random() -> Self {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: u64 = rand::rng().random();
        Self(std::array::from_fn(|place| ALPHABET[(bits >> (6 * place) & 63) as usize]))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl CacheStore {
    pub(crate) async fn read_session(&self, tag: &Tag) -> Result<StoredSession, StoreError> {
        let near = self.near().map(|near| (near, near.ask(tag)));
        let read = SessionRead { session: self.keys().session(tag), cart: None, extension: None };
        let mut stored = StoredSession::parse(&mut self.ask(&read).await?)?;
        self.open(tag, &mut stored)?;
        if let Some((near, ticket)) = near {
            near.keep(tag, ticket, &stored);
        }
        Ok(stored)
    }

    /// The session, and its cart where `cart` is it, as it probably is, in one round trip.
    pub(crate) async fn read_session_and_cart(
        &self,
        session: &Tag,
        cart: &Tag,
    ) -> Result<(StoredSession, Option<CartSnapshot>), StoreError> {
        let read = SessionRead { session: self.keys().session(session), cart: Some(self.keys().cart(cart)), extension: None };
        let mut reply = self.ask(&read).await?;
        let mut stored = StoredSession::parse(&mut reply)?;
        self.open(session, &mut stored)?;
        let cart = self.cart_along(session, &stored, cart, &mut reply)?;
        Ok((stored, cart))
    }

    /// The cart that came along; `None` when it is another's, or cannot be read: whoever asks for it is told why.
    fn cart_along(
        &self,
        session: &Tag,
        stored: &StoredSession,
        cart: &Tag,
        reply: &mut Reply,
    ) -> Result<Option<CartSnapshot>, StoreError> {
        let is_its_own = stored.owner.as_ref().unwrap_or(session) == cart;
        if !is_its_own {
            CartSnapshot::skip(reply)?;
            return Ok(None);
        }
        let binding = if cart == session { stored.binding.as_ref().unwrap_or(session) } else { cart };
        match CartSnapshot::parse(reply, self.vault().lines(binding).silently()) {
            Err(StoreError::UnreadableCart { .. }) => Ok(None),
            cart => cart.map(Some),
        }
    }

    /// The session, the cart where there is a tag for one, and what became of the extension that went along, in one round trip.
    pub(crate) async fn read_and_touch(
        &self,
        session: &Tag,
        cart: Option<&Tag>,
        touch: &Touch<'_>,
    ) -> Result<(StoredSession, Option<CartSnapshot>, Option<Touched>), StoreError> {
        // What the near cache has is as old as the touch, whose change it is told of: there is nothing to be kept.
        let _changes = self.changes(session);
        let (key, cart_key) = (self.keys().session(session), cart.map(|cart| self.keys().cart(cart)));
        let owner = touch.along.user.as_ref().map_or("", Tag::as_str);
        let extension = self.touch_call(session, touch, "due", owner);
        let read = SessionRead { session: key, cart: cart_key, extension: Some(&extension) };
        let mut reply = match self.ask(&read).await {
            // In a cluster, where each command is sent alone: by one that does not know the script yet, or may not write. Not by one that sent
            // the operation elsewhere until its deadline: it would have another.
            Err(StoreError::Refused { code, .. }) if Elsewhere::of(&code).is_none() => {
                self.ask(&SessionRead { extension: None, ..read }).await?
            }
            reply => reply?,
        };
        let mut stored = StoredSession::parse(&mut reply)?;
        self.open(session, &mut stored)?;
        let cart = match cart {
            Some(cart) => self.cart_along(session, &stored, cart, &mut reply)?,
            None => None,
        };
        // One that the store has not made is made at the end of the request, if it is due.
        let touched = match reply.value() {
            Ok(Value::Array(answer)) => Touched::parse(&answer)?,
            _ => None,
        };
        if let Some(touched) = touched.filter(|touched| touched.is_extended) {
            self.extend_behind(touch.along, *session, Some(touched.kept_ms));
        }
        Ok((stored, cart, touched))
    }

    pub(crate) fn open(&self, tag: &Tag, session: &mut StoredSession) -> Result<(), StoreError> {
        // Taken out: it is part of the whole answer, which nobody should keep for its sake.
        let bind_field = session.bind_field.take();
        let binding = self.vault().binding(tag, bind_field.as_deref())?;
        if let Some(stored) = &bind_field {
            self.bindings().learn(tag, binding, stored);
        }
        for field in Arc::make_mut(&mut session.fields) {
            self.vault().open(&binding, field)?;
        }
        session.binding = Some(binding);
        Ok(())
    }

    /// `binding`: what its lines are bound to.
    pub(crate) async fn read_cart(&self, tag: &Tag, binding: &Tag) -> Result<CartSnapshot, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys().cart(tag));
        CartSnapshot::parse(&mut self.ask(&command).await?, self.vault().lines(binding))
    }

    /// A cart, and all that is in it and in the tokens that it remembers, as it is stored.
    pub(crate) async fn read_cart_and_tokens(&self, tag: &Tag, binding: &Tag) -> Result<(CartSnapshot, Merged), StoreError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("HGETALL").arg(self.keys().cart(tag));
        pipeline.cmd("GET").arg(self.keys().cart_tokens(tag));
        let Ok([cart, tokens]) = <[Value; 2]>::try_from(self.pipeline(&pipeline).await?) else {
            return Err(unreadable("an answer has another length"));
        };
        let tokens = if tokens == Value::Nil { Vec::new() } else { bytes(tokens)? };
        let stored = Merged::new(&flat(cart)?, &tokens);
        Ok((CartSnapshot::of(stored.fields(), &self.vault().lines(binding))?, stored))
    }

    /// Extends the time that a session is kept, and tells it in ms; `None` when there is none any more.
    pub(crate) async fn touch_session(&self, tag: &Tag, touch: &Touch<'_>) -> Result<Option<i64>, StoreError> {
        let _changes = self.changes(tag);
        let call = self.touch_call(tag, touch, "", "*");
        let Some(Touched { kept_ms, .. }) = Touched::parse(&self.script(&call).await?)? else {
            return Ok(None);
        };
        self.extend_behind(touch.along, *tag, Some(kept_ms));
        Ok(Some(kept_ms))
    }

    /// For how many ms a session is kept that was extended a moment ago; `None` when there is none any more. Nothing is written.
    pub(crate) async fn kept_ms(&self, tag: &Tag) -> Result<Option<i64>, StoreError> {
        let key = self.keys().session(tag);
        let mut pipeline = Pipeline::with_capacity(2);
        // On one node in this order: what is a session still was one when its time was asked for. A cluster's two are asked at once and may be
        // carried out in the other; what ended in between has the time of the grace, and its cookie goes with the next read.
        pipeline.cmd("PTTL").arg(key).cmd("HGET").arg(key).arg("@rev");
        let answers = self.pipeline(&pipeline).await?;
        let kept_ms = number_at(&answers, 0)?;
        Ok((kept_ms > 0 && answers.get(1).is_some_and(|revision| *revision != Value::Nil)).then_some(kept_ms))
    }

    fn touch_call(&self, tag: &Tag, touch: &Touch<'_>, when: &str, owner: &str) -> Call {
        let mut keys = vec![self.keys().session(tag)];
        let how = self.along(&touch.along, tag, &mut keys);
        let mut call = TOUCH.call(&keys);
        call.arg(touch.policy.encode().as_bytes());
        absolute(&mut call, touch.settings.absolute_ms);
        call.arg(how).arg(when).arg(owner);
        call
    }

    /// Creates a session under a fresh id. The fields come back as they are in the store.
    pub(crate) async fn create_session(
        &self,
        write: &Write,
        fields: &Arc<Vec<RawField>>,
    ) -> Result<(Id, Committed, Arc<Vec<RawField>>), StoreError> {
        let mut id = Id::default();
        for _ in 0..ID_ATTEMPTS {
            let tag = self.keys().session_tag(&id);
            let fields = self.vault().seal(&tag, &[], Arc::clone(fields))?;
            let mut keys = vec![self.keys().session(&tag)];
            let how = self.along(&write.along, &tag, &mut keys);
            let mut call = CREATE.call(&keys);
            head(&mut call, write);
            call.arg(how).arg("@v").arg(VERSION);
            if let Some(owner) = &write.owner {
                call.arg("@owner").arg(owner.as_str());
                call.arg("@device").arg(&write.device.class).arg("@network").arg(&write.device.network);
            }
            write.version_field(&mut call);
            for field in &*fields {
                call.arg(field.name()).arg(field.stored());
            }
            let answer = self.script(&call).await?;
            if integer(&answer[0])? == reply::OK {
                return Ok((id, self.committed(&answer, write, &tag, None).await?, fields));
            }
            id = Id::default();
        }
        Err(StoreError::IdsTaken { attempts: ID_ATTEMPTS })
    }

    pub(crate) async fn fate(&self, tag: &Tag) -> Result<Fate, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys().session(tag)).arg("@rev").arg("@ended");
        let answer = self.command(&command).await?.into_sequence().map_err(|_| unreadable("an answer is not a list"))?;
        let Ok([revision, ended]) = <[Value; 2]>::try_from(answer) else {
            return Err(unreadable("an answer has another length"));
        };
        Ok(match (revision, ended) {
            (Value::Nil, Value::Nil) => Fate::Ended,
            (Value::Nil, ended) => Tag::from_bytes(&bytes(ended)?).map_or(Fate::Ended, Fate::Succeeded),
            (_, _) => Fate::Lives,
        })
    }

    /// The first of these under which there is something. One round trip.
    pub(crate) async fn which_exists(&self, tags: &[Tag]) -> Result<Option<Tag>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(tags.len());
        for tag in tags {
            pipeline.cmd("EXISTS").arg(self.keys().session(tag));
        }
        let answers = self.pipeline(&pipeline).await?;
        for (tag, there) in tags.iter().zip(&answers) {
            if integer(there)? == 1 {
                return Ok(Some(*tag));
            }
        }
        Ok(None)
    }

    pub(crate) async fn read_field(&self, tag: &Tag, field: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys().session(tag)).arg(field);
        match self.command(&command).await? {
            Value::Nil => Ok(None),
            value => bytes(value).map(Some),
        }
    }

    /// Makes this [`commit_call`](Self::commit_call), which is another function since what it is made of would be in this future.
    pub(crate) async fn commit_session(&self, tag: &Tag, write: &Write, call: &Call) -> Result<Committed, StoreError> {
        let _changes = self.changes(tag);
        let answer = self.script(call).await?;
        self.committed(&answer, write, tag, None).await
    }

    /// Applies what differs, if the expected field, when there is one, has not changed.
    pub(crate) fn commit_call(&self, tag: &Tag, write: &Write, delta: &Delta<'_>, expected: Option<Expected<'_>>) -> Call {
        let keys = self.keys();
        let mut named = SmallVec::<[_; 4]>::from_iter([keys.session(tag)]);
        if !matches!(write.merge, Merge::Nothing) {
            named.extend([keys.cart(tag), keys.cart_tokens(tag)]);
        }
        if let (Merge::Here(_), Some(user)) = (&write.merge, &write.owner) {
            named.extend([keys.cart(user), keys.cart_merged(user), keys.cart_tokens(user)]);
        }
        let how = self.along(&write.along, tag, &mut named);
        let count = write.count_reserved() + 2 * delta.set.len() + delta.removed.len();
        if how.is_empty() && matches!(write.merge, Merge::Nothing) && count <= CHANGE_ARGUMENTS_MAX {
            let keeps_time = write.left_ms.is_some();
            if keeps_time && write.version.is_some() && expected.is_none() && delta.removed.is_empty() {
                let mut call = CHANGE_PLAIN.call(&named);
                write.version_and_tokens(&mut call);
                sets(&mut call, write, &delta.set);
                return call;
            }
            let mut call = if keeps_time { CHANGE_WITHIN.call(&named) } else { CHANGE.call(&named) };
            write.version_and_tokens(&mut call);
            compare(&mut call, expected);
            changes(&mut call, write, &delta.set, &delta.removed);
            if !keeps_time {
                write.time(&mut call);
            }
            return call;
        }
        let mut call = if self.merges_sealed(write) { COMMIT_SEALED.call(&named) } else { COMMIT.call(&named) };
        head(&mut call, write);
        call.arg("delta").arg(GRACE_MS);
        merge(&mut call, write);
        compare(&mut call, expected);
        call.arg(how);
        changes(&mut call, write, &delta.set, &delta.removed);
        call
    }

    pub(crate) async fn replace_session(&self, tag: &Tag, write: &Write, fields: &[RawField]) -> Result<Committed, StoreError> {
        let _changes = self.changes(tag);
        let mut call = COMMIT.call(&[self.keys().session(tag)]);
        head(&mut call, write);
        call.arg("replace").arg(GRACE_MS).arg("");
        compare(&mut call, None);
        call.arg("");
        changes(&mut call, write, &fields.iter().collect::<Vec<_>>(), &[]);
        let answer = self.script(&call).await?;
        self.committed(&answer, write, tag, None).await
    }

    /// Moves a session to a fresh id, with its cart, in one step. Where a script may not leave its slot, `rotation` does
    /// it in several.
    pub(crate) async fn rotate_session(
        &self,
        old: &Tag,
        binding: &Tag,
        write: &Write,
        delta: &Delta<'_>,
    ) -> Result<(Id, Committed), StoreError> {
        let _changes = self.changes(old);
        if !self.scripts_cross_slots() {
            return self.rotate_in_steps(old, binding, write, delta).await;
        }
        let keys = self.keys();
        let mut is_bound = binding != old;
        for _ in 0..ID_ATTEMPTS {
            let id = Id::default();
            let new = keys.session_tag(&id);
            let write = &Write { bind_field: self.vault().bind_field(&new, binding, is_bound)?, ..write.clone() };
            let mut named = vec![
                keys.session(old),
                keys.session(&new),
                keys.cart(old),
                keys.cart(&new),
                keys.cart_tokens(old),
                keys.cart_tokens(&new),
            ];
            if let (Merge::Here(_), Some(user)) = (&write.merge, &write.owner) {
                named.extend([keys.cart(user), keys.cart_merged(user), keys.cart_tokens(user)]);
            }
            let how = self.along(&write.along, &new, &mut named);
            let mut call = if self.merges_sealed(write) { ROTATE_SEALED.call(&named) } else { ROTATE.call(&named) };
            head(&mut call, write);
            call.arg(GRACE_MS);
            merge(&mut call, write);
            call.arg(how);
            changes(&mut call, write, &delta.set, &delta.removed);
            let answer = self.script(&call).await?;
            if integer(&answer[0])? == reply::UNREADABLE_LINE && self.vault().is_on() && write.bind_field.is_none() {
                // Another replica encrypts already, and there are such values, or lines in the cart.
                is_bound = true;
                continue;
            }
            if integer(&answer[0])? != reply::TAKEN {
                if let Some(stored) = &write.bind_field {
                    self.bindings().learn(&new, *binding, stored);
                }
                return Ok((id, self.committed(&answer, write, &new, Some(old)).await?));
            }
        }
        Err(StoreError::IdsTaken { attempts: ID_ATTEMPTS })
    }

    fn merges_sealed(&self, write: &Write) -> bool {
        self.vault().is_on() && write.merge.is_due()
    }

    /// Ends a session, whoever it belongs to. The list of its user's sessions is told when it is known who that is.
    pub(crate) async fn end_session(&self, tag: &Tag, user: Option<&Tag>) -> Result<(), StoreError> {
        self.end(tag, user, "").await.map(drop)
    }

    /// Ends a session if it is this user's, and tells whether it was.
    pub(crate) async fn end_session_of(&self, user: &Tag, tag: &Tag) -> Result<bool, StoreError> {
        let ended = self.end(tag, Some(user), user.as_str()).await?;
        if !self.scripts_cross_slots() {
            let mut command = redis::cmd("ZREM");
            command.arg(self.keys().user_sessions(user)).arg(tag.as_str());
            self.command(&command).await?;
        }
        Ok(ended)
    }

    async fn end(&self, tag: &Tag, user: Option<&Tag>, owner: &str) -> Result<bool, StoreError> {
        let _changes = self.changes(tag);
        let keys = self.keys();
        let mut named = vec![keys.session(tag)];
        // In a cluster the session alone: with keys that may be of nothing, nobody could log out while their slot moves. What is on another
        // slot, the list, finds out by itself.
        if self.scripts_cross_slots() {
            named.extend([keys.cart(tag), keys.cart_tokens(tag)]);
            named.extend(user.map(|user| keys.user_sessions(user)));
        }
        let mut call = END.call(&named);
        call.arg(GRACE_MS).arg(owner);
        let ended = integer(&self.script(&call).await?[0])? == reply::OK;
        if !self.scripts_cross_slots()
            && (ended || owner.is_empty())
            && let Err(error) = self.delete(&[keys.cart(tag), keys.cart_tokens(tag)]).await
        {
            // Nobody is shown it, and nobody can change it any more.
            tracing::debug!(%error, "the cart of an ended session is there until its time is over");
        }
        Ok(ended)
    }

    /// Deletes keys of one tag: in a cluster each by itself, since together nobody would while their slot moves and one of them is of nothing.
    pub(crate) async fn delete(&self, keys: &[Name<'_>]) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(keys.len());
        if self.scripts_cross_slots() {
            pipeline.cmd("DEL").arg(keys);
        } else {
            for key in keys {
                pipeline.cmd("DEL").arg(key);
            }
        }
        self.pipeline(&pipeline).await.map(drop)
    }

    /// What goes along in the same script, and its keys. A cluster has none of them there: what is in another slot is out of reach, and with
    /// the cart's key, which is in the session's and may be of nothing, no node would serve the script while their slot moves. They are left to
    /// [`list_elsewhere`] and [`extend_behind`].
    ///
    /// [`list_elsewhere`]: Self::list_elsewhere
    /// [`extend_behind`]: Self::extend_behind
    pub(crate) fn along<'a>(&'a self, along: &Along, session: &Tag, named: &mut impl Extend<Name<'a>>) -> String {
        let mut how = String::new();
        if along.logs_in {
            how.push('l');
        }
        if along.user.is_some() {
            how.push('s');
        }
        if !self.scripts_cross_slots() {
            return how;
        }
        if let Some(cart_ttl_ms) = along.cart_ttl_ms {
            how.push_str(&format!("c{cart_ttl_ms}"));
            named.extend([self.keys().cart(along.user.as_ref().unwrap_or(session))]);
        }
        if let Some(user) = &along.user {
            how.push_str(&format!("u{}", along.sessions_max));
            named.extend([self.keys().user_sessions(user)]);
        }
        how
    }

    /// The same for a user's list where a script cannot reach it.
    async fn list_elsewhere(&self, along: &Along, tag: &Tag, former: Option<&Tag>, kept_ms: i64) -> Result<i64, StoreError> {
        match along.user.as_ref().filter(|_| !self.scripts_cross_slots() && kept_ms > 0) {
            Some(user) => Box::pin(self.list(along, user, tag, former, kept_ms)).await,
            None => Ok(0),
        }
    }

    /// What goes along with the session's time where a script cannot reach it, and nobody need wait for: the cart's time, and the place on the
    /// list of its user's, which is a hint, of a session that is kept for `listed_ms`.
    fn extend_behind(&self, along: Along, tag: Tag, listed_ms: Option<i64>) {
        if self.scripts_cross_slots() || along.cart_ttl_ms.is_none() && (along.user.is_none() || listed_ms.is_none()) {
            return;
        }
        let store = self.clone();
        // At most one for each touch or commit, and of those in all as many as the pool lets wait, for the deadline at most.
        tokio::spawn(async move {
            let cart = async {
                if let Some(cart_ttl_ms) = along.cart_ttl_ms
                    && let Err(error) = store.extend_cart(along.user.as_ref(), &tag, cart_ttl_ms).await
                {
                    tracing::debug!(%error, "a cart is not kept as long as its session");
                }
            };
            let list = async {
                if let Some(listed_ms) = listed_ms
                    && let Err(error) = store.list_elsewhere(&along, &tag, None, listed_ms).await
                {
                    tracing::debug!(%error, "the list of a user's sessions was not told of a touch");
                }
            };
            tokio::join!(cart, list);
        });
    }

    /// Keeps the cart of a session that was extended a moment ago.
    async fn extend_cart(&self, user: Option<&Tag>, session: &Tag, cart_ttl_ms: i64) -> Result<(), StoreError> {
        let cart = self.keys().cart(user.unwrap_or(session));
        self.command(redis::cmd("PEXPIRE").arg(cart).arg(cart_ttl_ms)).await?;
        // A session that was given a new id since then has left its cart for the grace alone. Asked for behind the extension and not before: what
        // ends the session later puts the cart's time back by itself. A user's cart stays where it is.
        if user.is_none()
            && integer(&self.command(redis::cmd("HEXISTS").arg(self.keys().session(session)).arg("@rev")).await?)? == 0
        {
            self.command(redis::cmd("PEXPIRE").arg(cart).arg(GRACE_MS)).await?;
        }
        Ok(())
    }

    async fn list(&self, along: &Along, user: &Tag, tag: &Tag, former: Option<&Tag>, kept_ms: i64) -> Result<i64, StoreError> {
        let mut call = LIST.call(&[self.keys().user_sessions(user)]);
        call.arg(tag.as_str()).arg(former.map_or("", Tag::as_str)).arg(kept_ms).arg(along.sessions_max);
        number_at(&self.script(&call).await?, 1)
    }

    pub(crate) async fn committed(
        &self,
        answer: &[Value],
        write: &Write,
        tag: &Tag,
        former: Option<&Tag>,
    ) -> Result<Committed, StoreError> {
        match integer(&answer[0])? {
            reply::OK => {
                let kept_ms = answer.get(2).map_or_else(|| write.kept_ms(), integer)?;
                let its_own = answer.get(5).filter(|policy| **policy != Value::Nil);
                let policy = its_own.map_or(Ok(write.policy), |policy| ExpiryPolicy::parse(&bytes(policy.clone())?))?;
                let dropped = answer.get(3).map_or(Ok(0), integer)?;
                let dropped = u64::try_from(dropped).map_err(|_| unreadable("a merge dropped less than nothing"))?;
                let over = answer.get(4).map_or(Ok(0), integer)?;
                let over = over.max(self.list_elsewhere(&write.along, tag, former, kept_ms).await?);
                if kept_ms > 0 {
                    self.extend_behind(write.along, *tag, None);
                }
                Ok(Committed::Done { revision: revision(answer)?, kept_ms, policy, dropped, too_many: over > 0 })
            }
            reply::GONE => Ok(Committed::Gone),
            reply::ENDED => Ok(Committed::Ended),
            reply::CART_CHANGED => Ok(Committed::CartChanged),
            reply::CHANGED => {
                Ok(Committed::FieldChanged(answer.get(1).filter(|value| **value != Value::Nil).cloned().map(bytes).transpose()?))
            }
            reply::UNREADABLE_LINE => Err(damaged_line()),
            other => Err(unreadable(&format!("a commit answered {other}"))),
        }
    }
}

/// HGETALL and PTTL of a session, and HGETALL of a cart: written straight into the buffer that is sent.
pub(crate) struct SessionRead<'a> {
    pub(crate) session: Name<'a>,
    pub(crate) cart: Option<Name<'a>>,
    /// What goes along behind it.
    pub(crate) extension: Option<&'a Call>,
}

impl Packed for SessionRead<'_> {
    fn pack(&self, out: &mut Vec<u8>) {
        const HGETALL: &[u8] = b"*2\r\n$7\r\nHGETALL\r\n";
        out.extend_from_slice(HGETALL);
        self.session.pack(out);
        out.extend_from_slice(b"*2\r\n$4\r\nPTTL\r\n");
        self.session.pack(out);
        if let Some(cart) = &self.cart {
            out.extend_from_slice(HGETALL);
            cart.pack(out);
        }
        if let Some(extension) = self.extension {
            extension.pack(out);
        }
    }

    fn replies(&self) -> u32 {
        2 + u32::from(self.cart.is_some()) + u32::from(self.extension.is_some())
    }
}

/// What the scripts of a write begin with.
pub(crate) fn head(call: &mut Call, write: &Write) {
    call.arg(write.token.as_bytes()).arg(write.policy.encode().as_bytes());
    absolute(call, write.absolute_ms);
}

/// An absolute time as an argument.
pub(crate) fn absolute(call: &mut Call, absolute_ms: Option<i64>) {
    match absolute_ms {
        Some(ms) => call.arg(ms),
        None => call.arg(""),
    };
}

fn merge(call: &mut Call, write: &Write) {
    match &write.merge {
        Merge::Nothing => call.arg(""),
        Merge::Here(how) => call.arg(&how[..]),
        Merge::Done(merged) => call.parts(&[b"=", &merged.packed()]),
    };
}

fn compare(call: &mut Call, expected: Option<Expected<'_>>) {
    match expected {
        None => call.arg("").arg(""),
        Some(Expected { field, value: None }) => call.arg(field).arg("-"),
        Some(Expected { field, value: Some(value) }) => call.arg(field).parts(&[b"=", value]),
    };
}

pub(crate) fn changes(call: &mut Call, write: &Write, set: &[&RawField], removed: &[&[u8]]) {
    call.arg(write.count_reserved() + 2 * set.len());
    sets(call, write, set);
    for name in removed {
        call.arg(name);
    }
}

fn sets(call: &mut Call, write: &Write, set: &[&RawField]) {
    write.reserved_fields(call);
    for field in set {
        call.arg(field.name()).arg(field.stored());
    }
}

fn revision(answer: &[Value]) -> Result<u64, StoreError> {
    u64::try_from(number_at(answer, 1)?).map_err(|_| unreadable("the revision is negative"))
}

pub(crate) fn number_at(answer: &[Value], place: usize) -> Result<i64, StoreError> {
    integer(answer.get(place).ok_or_else(|| unreadable("the answer of a script is too short"))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use bytes::Bytes;
    use redis::Pipeline;
    use tower_sessions::session::Id;

    use super::SessionRead;
    use crate::{
        CacheStore, EncryptionKeys,
        record::StoredSession,
        wire::{Packed as _, Reply},
    };

    #[tokio::test]
    async fn a_read_is_packed_as_the_client_library_does() {
        let store = CacheStore::builder("redis://127.0.0.1:1").connect_lazy().unwrap();
        let tag = store.keys().session_tag(&Id(1));
        let (session, cart) = (store.keys().session(&tag), store.keys().cart(&tag));
        let (mut ours, mut theirs) = (Vec::new(), Pipeline::new());
        SessionRead { session, cart: Some(cart), extension: None }.pack(&mut ours);
        theirs.cmd("HGETALL").arg(session.to_string()).cmd("PTTL").arg(session).cmd("HGETALL").arg(cart);
        assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs.get_packed_pipeline()).unwrap());
    }

    #[tokio::test]
    async fn what_is_kept_of_a_session_keeps_no_answer() {
        let store = CacheStore::builder("redis://127.0.0.1:1").encryption(EncryptionKeys::new([1; 32])).connect_lazy().unwrap();
        let tag = store.keys().session_tag(&Id(1));
        let bind = store.vault().bind_field(&tag, &store.keys().session_tag(&Id(2)), true).unwrap().unwrap();
        let head = format!("*4\r\n$4\r\n@rev\r\n$1\r\n1\r\n$5\r\n@bind\r\n${}\r\n", bind.len());
        let answer = Bytes::from([head.as_bytes(), &bind, b"\r\n:1\r\n"].concat());
        let mut session = StoredSession::parse(&mut Reply::new(answer.clone())).unwrap();
        store.open(&tag, &mut session).unwrap();
        let kept = session.compact();
        drop(session);
        assert_eq!(kept.binding, Some(store.keys().session_tag(&Id(2))));
        assert!(answer.is_unique());
    }
}
