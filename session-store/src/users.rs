//! The sessions of a user: listed, and ended everywhere.

use std::{fmt, str::FromStr};

use redis::{Pipeline, Value};
use time::OffsetDateTime;
use tower_sessions::Session;

use crate::{
    CacheStore, StoreError,
    expiry::from_unix_ms,
    keys::Tag,
    metrics,
    record::{bytes, number, unreadable},
    unit_of_work::id_of,
};

/// How often "all" is asked for again: a session that gets a new id meanwhile is on the list under that one then.
const ROUNDS_MAX: u32 = 8;
/// Characters of the longest handle that is looked at.
const HANDLE_CHARS_MAX: usize = 64;
/// Sessions that are read in one round trip: in a cluster each of them takes a place in the pool.
const READ_AT_ONCE: usize = 64;
/// What is read of each session.
const FIELDS: [&str; 7] = ["@rev", "@owner", "@created", "@login", "@seen", "@device", "@network"];

/// The sessions in which a user is logged in, by [`Cart::log_in`](crate::Cart::log_in).
///
/// Made by [`CacheStore::sessions_of`]. What is ended here is ended for every replica: its next request finds no session,
/// and one that is under way can change nothing more.
///
/// ```no_run
/// # async fn example(store: session_store::CacheStore, session: session_store::Session) -> Result<(), session_store::StoreError> {
/// let devices = store.sessions_of("7");
/// for device in devices.list().await? {
///     println!("{} last seen {}", device.device, device.last_seen_at);
/// }
/// // After a change of the password:
/// devices.end_all_but(&session).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct UserSessions {
    store: CacheStore,
    user: Tag,
}

/// One session of a user, as it can be shown to that user.
///
/// ```no_run
/// # async fn example(store: session_store::CacheStore) -> Result<(), session_store::StoreError> {
/// for session in store.sessions_of("7").list().await? {
///     println!("{} from {}", session.device, session.network.as_deref().unwrap_or("somewhere"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserSession {
    /// What to call it in a form: it tells nothing of the session's id.
    pub handle: SessionHandle,
    /// The class of the device, such as `Firefox on Linux`, as its `User-Agent` had it at the login; `unknown` otherwise.
    pub device: String,
    /// The network from which the user logged in, such as `203.0.113.0/24`; `None` unless the layer was told how to find
    /// addresses: [`SessionLayer::with_client_address`](crate::SessionLayer::with_client_address).
    pub network: Option<String>,
    /// When the session began, which may be long before the login.
    pub created_at: OffsetDateTime,
    /// When the user logged in.
    pub logged_in_at: OffsetDateTime,
    /// When it was last used, to within an hour or a sixteenth of its idle timeout, whichever is shorter.
    pub last_seen_at: OffsetDateTime,
}

/// Names a session where its user can see it, without telling its id. A new id makes a new handle.
///
/// ```
/// use session_store::SessionHandle;
///
/// let from_a_form: SessionHandle = "h5Zt0Xq2bW8vYc1d".parse()?;
/// assert_eq!(from_a_form.to_string(), "h5Zt0Xq2bW8vYc1d");
/// # Ok::<(), session_store::InvalidHandle>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionHandle(Box<str>);

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionHandle {
    type Err = InvalidHandle;

    fn from_str(handle: &str) -> Result<Self, InvalidHandle> {
        let in_alphabet = handle.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if handle.is_empty() || handle.len() > HANDLE_CHARS_MAX || !in_alphabet {
            return Err(InvalidHandle);
        }
        Ok(Self(handle.into()))
    }
}

/// The text cannot be a [`SessionHandle`].
///
/// ```
/// use session_store::{InvalidHandle, SessionHandle};
///
/// assert_eq!("".parse::<SessionHandle>(), Err(InvalidHandle));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the handle of a session has 1 to 64 letters, digits, '-' and '_'")]
pub struct InvalidHandle;

impl CacheStore {
    /// The sessions of a user, by the name that was given to [`Cart::log_in`](crate::Cart::log_in).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// let devices = store.sessions_of("7");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sessions_of(&self, user_id: &str) -> UserSessions {
        UserSessions { user: self.keys().user_tag(user_id), store: self.clone() }
    }
}

impl UserSessions {
    /// The sessions that are alive, the last used first. Two round trips; a third when one of them had ended unseen.
    ///
    /// # Errors
    ///
    /// Any of an operation: an outage is never an empty list.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore) -> Result<(), session_store::StoreError> {
    /// println!("{} devices", store.sessions_of("7").list().await?.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self) -> Result<Vec<UserSession>, StoreError> {
        let mut sessions: Vec<_> = self.alive().await?.into_iter().map(|(_, session)| session).collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.logged_in_at)));
        Ok(sessions)
    }

    /// What the session of this request is called in the list; `None` while it has no id, or just gets a new one.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore, session: session_store::Session) -> Result<(), session_store::StoreError> {
    /// let devices = store.sessions_of("7");
    /// let here = devices.handle_of(&session);
    /// for device in devices.list().await? {
    ///     println!("{}{}", device.device, if Some(&device.handle) == here.as_ref() { ", this one" } else { "" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn handle_of(&self, session: &Session) -> Option<SessionHandle> {
        id_of(session).map(|id| self.handle(&self.store.keys().session_tag(&id)))
    }

    /// Ends one session, and tells whether it was there: it may have ended, or got a new id, since it was listed.
    ///
    /// # Errors
    ///
    /// Any of an operation.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore, from_the_form: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let ended = store.sessions_of("7").end(&from_the_form.parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end(&self, handle: &SessionHandle) -> Result<bool, StoreError> {
        for tag in self.tags().await? {
            if self.handle(&tag) == *handle {
                return self.revoke(&tag).await;
            }
        }
        Ok(false)
    }

    /// Ends all sessions of the user, and tells how many. One that gets a new id meanwhile is ended under that; a login that
    /// is not done when this begins may outlive it.
    ///
    /// # Errors
    ///
    /// Any of an operation, and [`StoreError::Contended`] when sessions kept coming. Some may have been ended then.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore) -> Result<(), session_store::StoreError> {
    /// store.sessions_of("7").end_all().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_all(&self) -> Result<u32, StoreError> {
        self.end_others(&[]).await
    }

    /// As [`end_all`](Self::end_all), without the session of this request: after a change of the password, for instance.
    ///
    /// # Errors
    ///
    /// As [`end_all`](Self::end_all).
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore, session: session_store::Session) -> Result<(), session_store::StoreError> {
    /// let ended = store.sessions_of("7").end_all_but(&session).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_all_but(&self, session: &Session) -> Result<u32, StoreError> {
        let kept = id_of(session).map_or_else(Vec::new, |id| self.store.keys().session_tags(&id).collect());
        self.end_others(&kept).await
    }

    async fn end_others(&self, kept: &[Tag]) -> Result<u32, StoreError> {
        let mut ended = 0;
        for _ in 0..ROUNDS_MAX {
            let mut tags = self.tags().await?;
            tags.retain(|tag| !kept.contains(tag));
            if tags.is_empty() {
                return Ok(ended);
            }
            for tag in tags {
                ended += u32::from(self.revoke(&tag).await?);
            }
        }
        Err(StoreError::Contended { attempts: ROUNDS_MAX })
    }

    async fn revoke(&self, tag: &Tag) -> Result<bool, StoreError> {
        let ended = self.store.end_session_of(&self.user, tag).await?;
        if ended {
            metrics::session_ended(metrics::End::Revoked);
        }
        Ok(ended)
    }

    /// The tags on the list, that of the session which ends first before the others.
    async fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.store.keys().user_sessions(&self.user)).arg(0).arg(-1);
        let Value::Array(tags) = self.store.command(&command).await? else {
            return Err(unreadable("the sessions of a user are no list"));
        };
        let tag = |tag| Tag::from_bytes(&bytes(tag)?).ok_or_else(|| unreadable("the tag of a session has another form"));
        tags.into_iter().map(tag).collect()
    }

    /// The sessions that are alive. Those that are not leave the list, which may not have been told.
    async fn alive(&self) -> Result<Vec<(Tag, UserSession)>, StoreError> {
        let tags = self.tags().await?;
        let (mut alive, mut dead) = (Vec::with_capacity(tags.len()), Vec::new());
        for (tag, fields) in tags.iter().zip(self.fields(&tags).await?) {
            match self.session(tag, fields)? {
                Found::Alive(session) => alive.push((*tag, session)),
                Found::Dead => dead.push(tag),
                Found::AnotherUsers => {}
            }
        }
        if !dead.is_empty() {
            let mut command = redis::cmd("ZREM");
            command.arg(self.store.keys().user_sessions(&self.user));
            for tag in dead {
                command.arg(tag.as_str());
            }
            self.store.command(&command).await?;
        }
        Ok(alive)
    }

    async fn fields(&self, tags: &[Tag]) -> Result<Vec<Value>, StoreError> {
        let mut answers = Vec::with_capacity(tags.len());
        for tags in tags.chunks(READ_AT_ONCE) {
            let mut pipeline = Pipeline::with_capacity(tags.len());
            for tag in tags {
                pipeline.cmd("HMGET").arg(self.store.keys().session(tag)).arg(&FIELDS[..]);
            }
            answers.extend(self.store.pipeline(&pipeline).await?);
        }
        Ok(answers)
    }

    fn session(&self, tag: &Tag, fields: Value) -> Result<Found, StoreError> {
        let Value::Array(fields) = fields else {
            return Err(unreadable("the fields of a session are no list"));
        };
        let Ok([revision, owner, created, login, seen, device, network]) = <[Value; FIELDS.len()]>::try_from(fields) else {
            return Err(unreadable("the fields of a session are not as many as were asked for"));
        };
        if revision == Value::Nil {
            return Ok(Found::Dead);
        }
        if text(owner)?.as_deref() != Some(self.user.as_str()) {
            return Ok(Found::AnotherUsers);
        }
        let created_at = at(created)?.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let logged_in_at = at(login)?.unwrap_or(created_at);
        Ok(Found::Alive(UserSession {
            handle: self.handle(tag),
            device: text(device)?.unwrap_or_else(|| "unknown".to_owned()),
            network: text(network)?,
            created_at,
            logged_in_at,
            last_seen_at: at(seen)?.unwrap_or(logged_in_at),
        }))
    }

    fn handle(&self, tag: &Tag) -> SessionHandle {
        SessionHandle(self.store.keys().handle(tag).into())
    }
}

/// What is behind an entry of the list.
enum Found {
    Alive(UserSession),
    Dead,
    /// Somebody else has logged in with it since.
    AnotherUsers,
}

/// Ends the sessions that a user has beyond the number allowed, those first whose time would be over first; the one that
/// was begun last stays whatever its time. A failure is made up for at the next login.
pub(crate) async fn end_too_many(store: &CacheStore, user: Tag, max: u32) {
    let sessions = UserSessions { store: store.clone(), user };
    let ended = async {
        let alive = sessions.alive().await?;
        let newest = alive.iter().map(|(_, session)| session.logged_in_at).max();
        let too_many = alive.len().saturating_sub(max as usize);
        for (tag, _) in alive.iter().filter(|(_, session)| Some(session.logged_in_at) != newest).take(too_many) {
            sessions.revoke(tag).await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = ended.await {
        tracing::debug!(%error, "sessions beyond the number that a user may have were not ended");
    }
}

fn at(value: Value) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(text(value)?.map(|ms| number::<i64>(ms.as_bytes())).transpose()?.map(from_unix_ms))
}

fn text(value: Value) -> Result<Option<String>, StoreError> {
    if value == Value::Nil {
        return Ok(None);
    }
    let text = String::from_utf8(bytes(value)?).map_err(|_| unreadable("a reserved field is not UTF-8"))?;
    Ok((!text.is_empty()).then_some(text))
}
