//! Why a cart could not be read or changed.

use crate::StoreError;

/// Why a cart could not be read or changed. The cart is as it was, unless the store was told of the change and gave no
/// answer: see [`StoreError::may_be_done`].
///
/// ```
/// use session_store::{CartError, StoreError};
///
/// fn status(error: &CartError) -> u16 {
///     match error {
///         CartError::Unavailable(_) => 503,
///         CartError::SessionEnded => 409,
///         _ => 422,
///     }
/// }
/// assert_eq!(status(&CartError::QuantityTooLarge { max: 99 }), 422);
/// assert_eq!(status(&CartError::from(StoreError::SessionEnded)), 409);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CartError {
    /// The line would hold more than [`CartLimits::quantity_max`](crate::CartLimits::quantity_max).
    #[error("a line of the cart holds at most {max}")]
    QuantityTooLarge {
        /// The limit.
        max: u32,
    },
    /// Zero of something cannot be added or taken away.
    #[error("the quantity must be at least 1")]
    QuantityZero,
    /// The cart would have more lines than [`CartLimits::lines_max`](crate::CartLimits::lines_max).
    #[error("the cart holds at most {max} different items")]
    TooManyLines {
        /// The limit.
        max: u32,
    },
    /// Not 1 to 64 printable ASCII characters, or with `@` as the first.
    #[error("the SKU must be 1 to 64 printable ASCII characters without spaces, not beginning with @")]
    InvalidSku,
    /// The session ended, or got a new id, while this request was running.
    #[error("the session ended while the request was running; the cart was not changed")]
    SessionEnded,
    /// The cart is out of reach for a moment. It is not empty, and nothing is lost; a change may have been made or not.
    /// [`StoreError::UnreadableCart`] is no outage: a line cannot be read, and nothing was changed.
    #[error("the cart is out of reach: {0}")]
    Unavailable(#[source] StoreError),
}

impl From<StoreError> for CartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::SessionEnded => Self::SessionEnded,
            error => Self::Unavailable(error),
        }
    }
}
