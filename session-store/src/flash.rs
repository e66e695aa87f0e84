//! Messages that are shown once, on the page after the one that they come from.

use std::fmt;

use axum_core::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use serde::{Deserialize, Serialize};
use tower_sessions::Session;

use crate::{Key, SessionExt as _, StoreError, UpdateError};

/// How many messages wait at most. One more pushes the oldest one out.
///
/// ```
/// assert_eq!(session_store::FLASH_MESSAGES_MAX, 16);
/// ```
pub const FLASH_MESSAGES_MAX: usize = 16;

/// How many bytes the text of a message has at most. What is longer is cut, and ends with `…`.
///
/// ```
/// assert_eq!(session_store::FLASH_TEXT_BYTES_MAX, 1_024);
/// ```
pub const FLASH_TEXT_BYTES_MAX: usize = 1_024;

const CUT: char = '…';
const WAITING: Key<Vec<FlashMessage>> = Key::new("session-store.flash");

/// What a message is about.
///
/// ```
/// assert_eq!(session_store::FlashLevel::Warning.to_string(), "warning");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlashLevel {
    /// For the visitor to know.
    Info,
    /// It was done.
    Success,
    /// Something may go wrong, or is not as it was asked for.
    Warning,
    /// It was not done.
    Error,
}

/// In lower case, for a class of the style sheet.
impl fmt::Display for FlashLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A message that [`Flash`] has kept for the next page. A template must escape the text as any other.
///
/// ```
/// use session_store::{FlashLevel, FlashMessage};
///
/// fn html(message: &FlashMessage) -> String {
///     format!("<p class=\"{}\">{}</p>", message.level, message.text.replace('&', "&amp;").replace('<', "&lt;"))
/// }
/// # assert!(html(&FlashMessage { level: FlashLevel::Info, text: "1 < 2".into() }).contains("1 &lt; 2"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashMessage {
    /// What it is about.
    pub level: FlashLevel,
    /// What it says.
    pub text: String,
}

/// The messages of the visitor who makes this request: an extractor, wherever [`SessionLayer`](crate::SessionLayer) is.
///
/// They are in the session, so that a redirect may lead to any replica. Each is handed to one request: of two pages that are
/// loaded at once, one shows it. A page that does not arrive takes its messages with it.
///
/// ```
/// use axum::{Router, response::Redirect, routing::{get, post}};
/// use session_store::{Flash, Unavailable};
///
/// async fn save(flash: Flash) -> Result<Redirect, Unavailable> {
///     flash.success("Your address was saved.").await?;
///     Ok(Redirect::to("/"))
/// }
///
/// async fn page(flash: Flash) -> Result<String, Unavailable> {
///     let messages = flash.take().await?;
///     Ok(messages.into_iter().map(|message| message.text + "\n").collect())
/// }
///
/// let routes: Router = Router::new().route("/", get(page)).route("/save", post(save));
/// ```
#[derive(Debug, Clone)]
pub struct Flash {
    session: Session,
}

impl Flash {
    /// The messages of this session, where there is no extractor.
    ///
    /// ```
    /// use session_store::{Flash, Session};
    ///
    /// fn flash<B>(request: &http::Request<B>) -> Option<Flash> {
    ///     request.extensions().get::<Session>().map(Flash::of)
    /// }
    /// ```
    #[must_use]
    pub fn of(session: &Session) -> Self {
        Self { session: session.clone() }
    }

    /// Keeps a message for the next page. It is in the store when this returns, with what else this request has changed in the session
    /// so far; a visitor without a session gets one. Call it last, and the request needs no other commit.
    ///
    /// # Errors
    ///
    /// As [`SessionExt::update`](crate::SessionExt::update).
    ///
    /// ```
    /// use session_store::{Flash, FlashLevel};
    /// # async fn example(flash: Flash) -> Result<(), session_store::UpdateError> {
    /// flash.push(FlashLevel::Warning, "Only two are left.").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn push(&self, level: FlashLevel, text: impl Into<String>) -> Result<(), UpdateError> {
        let message = FlashMessage { level, text: cut(text.into()) };
        let add = |waiting: Option<Vec<FlashMessage>>| {
            let mut waiting = waiting.unwrap_or_default();
            waiting.push(message.clone());
            waiting.drain(..waiting.len().saturating_sub(FLASH_MESSAGES_MAX));
            waiting
        };
        self.session.update(&WAITING, add).await.map(drop)
    }

    /// [`push`](Self::push) at [`FlashLevel::Info`].
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    ///
    /// ```
    /// # async fn example(flash: session_store::Flash) -> Result<(), session_store::UpdateError> {
    /// flash.info("You are logged out.").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn info(&self, text: impl Into<String>) -> Result<(), UpdateError> {
        self.push(FlashLevel::Info, text).await
    }

    /// [`push`](Self::push) at [`FlashLevel::Success`].
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    ///
    /// ```
    /// # async fn example(flash: session_store::Flash) -> Result<(), session_store::UpdateError> {
    /// flash.success("Saved.").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn success(&self, text: impl Into<String>) -> Result<(), UpdateError> {
        self.push(FlashLevel::Success, text).await
    }

    /// [`push`](Self::push) at [`FlashLevel::Warning`].
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    ///
    /// ```
    /// # async fn example(flash: session_store::Flash) -> Result<(), session_store::UpdateError> {
    /// flash.warning("The voucher ends today.").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn warning(&self, text: impl Into<String>) -> Result<(), UpdateError> {
        self.push(FlashLevel::Warning, text).await
    }

    /// [`push`](Self::push) at [`FlashLevel::Error`].
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    ///
    /// ```
    /// # async fn example(flash: session_store::Flash) -> Result<(), session_store::UpdateError> {
    /// flash.error("The card was refused.").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn error(&self, text: impl Into<String>) -> Result<(), UpdateError> {
        self.push(FlashLevel::Error, text).await
    }

    /// The messages that wait, the oldest first; nobody gets them again. Costs one round trip when there are any, beside that of reading
    /// the session. When the session ended meanwhile there are none.
    ///
    /// # Errors
    ///
    /// As [`SessionExt::update`](crate::SessionExt::update), a session that ended aside.
    ///
    /// ```
    /// # async fn example(flash: session_store::Flash) -> Result<(), session_store::UpdateError> {
    /// for message in flash.take().await? {
    ///     println!("{}: {}", message.level, message.text);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn take(&self) -> Result<Vec<FlashMessage>, UpdateError> {
        if self.session.read(&WAITING).await?.unwrap_or_default().is_empty() {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        let take = |waiting: Option<Vec<FlashMessage>>| {
            taken = waiting.unwrap_or_default();
            Vec::new()
        };
        match self.session.update(&WAITING, take).await {
            Ok(_) => Ok(taken),
            Err(UpdateError::Store(StoreError::SessionEnded)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Fails with 500 where there is no [`SessionLayer`](crate::SessionLayer).
impl<S: Sync> FromRequestParts<S> for Flash {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let missing =
            (StatusCode::INTERNAL_SERVER_ERROR, "There is no session here: add session_store::SessionLayer to the routes.");
        parts.extensions.get::<Session>().map(Self::of).ok_or(missing)
    }
}

fn cut(mut text: String) -> String {
    if text.len() > FLASH_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(FLASH_TEXT_BYTES_MAX - CUT.len_utf8()));
        text.push(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{FLASH_TEXT_BYTES_MAX, cut};

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let whole = "a".repeat(FLASH_TEXT_BYTES_MAX);
        assert_eq!(cut(whole.clone()), whole);
        for character in ["a", "ä", "€", "🦀"] {
            let cut = cut(character.repeat(FLASH_TEXT_BYTES_MAX + 1));
            assert!(cut.len() <= FLASH_TEXT_BYTES_MAX && cut.len() > FLASH_TEXT_BYTES_MAX - 8, "{}", cut.len());
            assert!(cut.ends_with('…'));
        }
    }
}
