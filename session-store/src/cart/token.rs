//! Tokens with which a repeated request counts once.

use std::{fmt, str::FromStr};

use rand::RngExt as _;

/// Bytes of the longest token: that of the longest common `Idempotency-Key`, with room to spare.
const TOKEN_BYTES_MAX: usize = 255;

/// Names one intended change of a cart, so that a retry, a double click or a reload counts once.
///
/// A cart remembers the last [`TOKENS_REMEMBERED`](crate::cart::TOKENS_REMEMBERED) of them. A token names one change:
/// with the same token a second, different one is not made.
///
/// ```
/// use session_store::IdempotencyToken;
///
/// let from_a_header: IdempotencyToken = "3f8a".parse()?;
/// let for_a_form = IdempotencyToken::random();
/// assert_ne!(from_a_header, for_a_form);
/// # Ok::<(), session_store::InvalidToken>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyToken(Box<str>);

impl IdempotencyToken {
    /// A fresh token with 128 random bits, for a hidden field of a form.
    ///
    /// ```
    /// use session_store::IdempotencyToken;
    ///
    /// assert_ne!(IdempotencyToken::random(), IdempotencyToken::random());
    /// ```
    #[must_use]
    pub fn random() -> Self {
        let bits: u128 = rand::rng().random();
        Self(format!("{bits:032x}").into())
    }

    /// A token that a client sent, for instance as `Idempotency-Key`.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] unless it is 1 to 255 visible ASCII characters or spaces.
    ///
    /// ```
    /// use session_store::IdempotencyToken;
    ///
    /// assert!(IdempotencyToken::parse("order-7").is_ok());
    /// assert!(IdempotencyToken::parse("").is_err());
    /// ```
    pub fn parse(token: &str) -> Result<Self, InvalidToken> {
        let visible = token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !visible {
            return Err(InvalidToken);
        }
        Ok(Self(token.into()))
    }

    /// The token as text.
    ///
    /// ```
    /// use session_store::IdempotencyToken;
    ///
    /// assert_eq!(IdempotencyToken::parse("order-7")?.as_str(), "order-7");
    /// # Ok::<(), session_store::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyToken {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        Self::parse(token)
    }
}

impl fmt::Display for IdempotencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdempotencyToken").field(&self.0).finish()
    }
}

/// The text cannot be an [`IdempotencyToken`].
///
/// ```
/// use session_store::{IdempotencyToken, InvalidToken};
///
/// assert_eq!(IdempotencyToken::parse("\n"), Err(InvalidToken));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency token must be 1 to 255 visible ASCII characters")]
pub struct InvalidToken;
