//! What `tower_sessions::Session` does not have: typed keys, and changes that start from the value in the store.

use std::{borrow::Cow, fmt, future::Future, marker::PhantomData, time::Duration};

use rand::RngExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tower_sessions::{Session, session, session_store};

use crate::{
    StoreError,
    unit_of_work::{AtHand, Basis, Swap, Swapped},
};

/// How often [`SessionExt::update`] tries. Others of the same replica wait in line, so that only other replicas can be faster.
///
/// ```
/// assert_eq!(session_store::UPDATE_ATTEMPTS_MAX, 64);
/// ```
pub const UPDATE_ATTEMPTS_MAX: u32 = 64;
/// Attempts without a pause. After them chance decides which replica comes first.
const ATTEMPTS_AT_ONCE: u32 = 4;
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(8);

/// The name of a value in the session, with the type of it.
///
/// ```
/// use session_store::Key;
///
/// const VISITS: Key<u32> = Key::new("visits");
/// assert_eq!(VISITS.name(), "visits");
/// ```
pub struct Key<T> {
    name: Cow<'static, str>,
    // The key holds no value of this type.
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// A key that is known when the program is built.
    ///
    /// ```
    /// const CURRENCY: session_store::Key<String> = session_store::Key::new("currency");
    /// ```
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), value: PhantomData }
    }

    /// A key that is known only when the program runs.
    ///
    /// ```
    /// let seen = session_store::Key::<bool>::named(format!("seen-{}", 7));
    /// ```
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Cow::Owned(name.into()), value: PhantomData }
    }

    /// The name, under which `Session::get` finds the value too.
    ///
    /// ```
    /// assert_eq!(session_store::Key::<u32>::new("visits").name(), "visits");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

/// Why [`SessionExt::update`] did not change the value.
///
/// ```
/// use session_store::{StoreError, UpdateError};
///
/// assert!(UpdateError::Store(StoreError::SessionEnded).to_string().contains("ended"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The store could not be asked, the session ended meanwhile ([`StoreError::SessionEnded`]), or others were faster each
    /// time ([`StoreError::Contended`]).
    #[error(transparent)]
    Store(StoreError),
    /// The session could not be read or saved.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The value in the session has another type than the key.
    #[error("the value in the session has another type than its key: {0}")]
    OtherType(serde_json::Error),
    /// The new value cannot be written as JSON.
    #[error("the new value cannot be written as JSON: {0}")]
    Unwritable(serde_json::Error),
    /// The session is not one of [`SessionLayer`](crate::SessionLayer).
    #[error("the session belongs to another layer, which cannot update a value; put it behind session_store::SessionLayer")]
    OtherLayer,
}

/// Typed keys and [`update`](Self::update) for `tower_sessions::Session`.
///
/// ```
/// use session_store::{Key, Session, SessionExt as _, Unavailable};
///
/// const VISITS: Key<u32> = Key::new("visits");
///
/// async fn visits(session: Session) -> Result<String, Unavailable> {
///     let visits = session.update(&VISITS, |visits| visits.unwrap_or(0) + 1).await?;
///     Ok(format!("visit {visits}"))
/// }
/// # let route: axum::Router = axum::Router::new().route("/", axum::routing::get(visits));
/// ```
pub trait SessionExt {
    /// The value of this key. Cheaper than `Session::get` while the request has changed nothing: of the whole session only this value is
    /// decoded.
    ///
    /// # Errors
    ///
    /// As `Session::get`.
    ///
    /// ```
    /// use session_store::{Key, Session, SessionExt as _};
    /// # async fn example(session: Session) -> Result<(), Box<dyn std::error::Error>> {
    /// const VISITS: Key<u32> = Key::new("visits");
    /// let visits: Option<u32> = session.read(&VISITS).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn read<T>(&self, key: &Key<T>) -> impl Future<Output = Result<Option<T>, session::Error>> + Send
    where
        T: DeserializeOwned;

    /// Sets the value of this key, whatever it was. Committed with the request.
    ///
    /// # Errors
    ///
    /// As `Session::insert`.
    ///
    /// ```
    /// use session_store::{Key, Session, SessionExt as _};
    /// # async fn example(session: Session) -> Result<(), Box<dyn std::error::Error>> {
    /// const CURRENCY: Key<String> = Key::new("currency");
    /// session.write(&CURRENCY, &"EUR".to_owned()).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn write<T>(&self, key: &Key<T>, value: &T) -> impl Future<Output = Result<(), session::Error>> + Send
    where
        T: Serialize + Sync;

    /// Removes the value of this key, and returns it.
    ///
    /// # Errors
    ///
    /// As `Session::remove`.
    ///
    /// ```
    /// use session_store::{Key, Session, SessionExt as _};
    /// # async fn example(session: Session) -> Result<(), Box<dyn std::error::Error>> {
    /// const FLASH: Key<String> = Key::new("flash");
    /// let message: Option<String> = session.take(&FLASH).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn take<T>(&self, key: &Key<T>) -> impl Future<Output = Result<Option<T>, session::Error>> + Send
    where
        T: DeserializeOwned;

    /// Makes a new value of the one that the store holds, and returns it: however many requests on however many replicas do
    /// so at once, each starts from the result of another.
    ///
    /// A compare-and-set of this one key, made at once and not at the end of the request, so that it stays when the request
    /// fails later. What else the request has changed so far is committed with it. `change` is called again when another
    /// request was faster, up to [`UPDATE_ATTEMPTS_MAX`] times, and should do nothing but compute. A visitor without a session
    /// gets one. One round trip if the session was read before and nobody else is at it.
    ///
    /// # Errors
    ///
    /// [`UpdateError`]: nothing was changed, unless [`StoreError::may_be_done`] says that it may have been.
    ///
    /// ```
    /// use session_store::{Key, Session, SessionExt as _, UpdateError};
    ///
    /// async fn earn(session: &Session, points: u64) -> Result<u64, UpdateError> {
    ///     const POINTS: Key<u64> = Key::new("points");
    ///     session.update(&POINTS, |before| before.unwrap_or(0) + points).await
    /// }
    /// ```
    fn update<T, F>(&self, key: &Key<T>, change: F) -> impl Future<Output = Result<T, UpdateError>> + Send
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnMut(Option<T>) -> T + Send;
}

impl SessionExt for Session {
    async fn read<T>(&self, key: &Key<T>) -> Result<Option<T>, session::Error>
    where
        T: DeserializeOwned,
    {
        if let Some(at_hand) = AtHand::of(self)
            && let Some(found) = at_hand.value(key.name()).await.map_err(session_store::Error::from)?
        {
            // The handle tells a value of another type from one that is damaged.
            if let Ok(value) = found.as_deref().map(serde_json::from_slice).transpose() {
                return Ok(value);
            }
        }
        self.get(key.name()).await
    }

    async fn write<T>(&self, key: &Key<T>, value: &T) -> Result<(), session::Error>
    where
        T: Serialize + Sync,
    {
        self.insert(key.name(), value).await
    }

    async fn take<T>(&self, key: &Key<T>) -> Result<Option<T>, session::Error>
    where
        T: DeserializeOwned,
    {
        self.remove(key.name()).await
    }

    async fn update<T, F>(&self, key: &Key<T>, mut change: F) -> Result<T, UpdateError>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnMut(Option<T>) -> T + Send,
    {
        let swap = Swap::of(key.name());
        let (mut from, mut before) = shown(self, key).await?;
        for attempt in 1..=UPDATE_ATTEMPTS_MAX {
            let after = change(before.take());
            let json = serde_json::to_value(&after).map_err(UpdateError::Unwritable)?;
            let bytes = serde_json::to_vec(&json).map_err(UpdateError::Unwritable)?;
            match swap.with(from, bytes, || save(self)).await {
                (Some(Swapped::Done), _) => {
                    if !AtHand::of(self).is_some_and(|at_hand| at_hand.is_unseen()) {
                        // The handle shows it, and the commit finds nothing left to do.
                        self.insert_value(key.name(), json).await?;
                    }
                    swap.is_shown();
                    return Ok(after);
                }
                (Some(Swapped::Changed(now)), _) => {
                    let value = now.as_deref().map(serde_json::from_slice).transpose();
                    before = value.map_err(UpdateError::OtherType)?;
                    from = Basis::Store(now);
                    swap.wait_turn().await.map_err(UpdateError::Store)?;
                }
                (Some(Swapped::Busy), _) => {
                    swap.wait_until_alone().await.map_err(UpdateError::Store)?;
                    (from, before) = shown(self, key).await?;
                }
                (Some(Swapped::Failed(error)), _) => return Err(UpdateError::Store(error)),
                (None, Err(error)) => return Err(error.into()),
                (None, Ok(())) => return Err(UpdateError::OtherLayer),
            }
            if attempt > ATTEMPTS_AT_ONCE {
                let pause = PAUSE_MAX.mul_f64(rand::rng().random_range(0.0..1.0));
                tokio::time::sleep(pause).await;
            }
        }
        Err(UpdateError::Store(StoreError::Contended { attempts: UPDATE_ATTEMPTS_MAX }))
    }
}

/// Saves the session through its handle, or past one that shows nothing yet.
async fn save(session: &Session) -> Result<(), session::Error> {
    if let Some(at_hand) = AtHand::of(session)
        && let Some(saved) = at_hand.save().await
    {
        return saved.map_err(|error| session_store::Error::from(error).into());
    }
    session.save().await
}

/// The value as the handle has it.
async fn shown<T: DeserializeOwned>(session: &Session, key: &Key<T>) -> Result<(Basis, Option<T>), UpdateError> {
    if let Some(at_hand) = AtHand::of(session) {
        let found = at_hand.value(key.name()).await.map_err(UpdateError::Store)?;
        if let Some(found) = found.filter(|_| at_hand.is_unseen())
            && let Ok(value) = found.as_deref().map(serde_json::from_slice).transpose()
        {
            return Ok((Basis::Handle(found.as_deref().map(<[u8]>::to_vec)), value));
        }
    }
    let value = session.get_value(key.name()).await?;
    let encoded = value.as_ref().map(serde_json::to_vec).transpose().map_err(UpdateError::Unwritable)?;
    let value = value.map(serde_json::from_value).transpose().map_err(UpdateError::OtherType)?;
    Ok((Basis::Handle(encoded), value))
}
