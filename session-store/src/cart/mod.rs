//! The cart: lines that are changed in the store, each in one atomic step.

mod command;
mod error;
mod extract;
pub(crate) mod limits;
pub(crate) mod lines;
pub(crate) mod merge;
pub(crate) mod merged;
mod stored;
mod token;

use std::{fmt, sync::Arc};

use self::{command::Operation, limits::check_sku};
pub use self::{
    command::{RETRIES_REMEMBERED, TOKENS_REMEMBERED},
    error::CartError,
    limits::CartLimits,
    lines::{CartChange, CartLine, CartSnapshot},
    merge::MergePolicy,
    stored::Carts,
    token::{IdempotencyToken, InvalidToken},
};
use crate::unit_of_work::{CartSource, UnitOfWork};

/// How often one call follows the cart to another place: a stale id, a user's cart, a taken id.
const REDIRECTS_MAX: u32 = 4;

/// The cart of the visitor who makes this request: an extractor, wherever [`SessionLayer`](crate::SessionLayer) is.
///
/// A change is made in the store at once, in one atomic step, and does not wait for the end of the request: two requests
/// that add at the same time both count, on whichever replica. The first change of a visitor without a session makes one.
/// After [`log_in`](Self::log_in) it is the user's cart, on every device.
///
/// ```
/// use axum::{Router, routing::get};
/// use session_store::{Cart, CartError};
///
/// async fn count(cart: Cart) -> Result<String, axum::http::StatusCode> {
///     match cart.count().await {
///         Ok(count) => Ok(count.to_string()),
///         Err(_) => Err(axum::http::StatusCode::SERVICE_UNAVAILABLE),
///     }
/// }
///
/// let routes: Router = Router::new().route("/cart/count", get(count));
/// ```
#[derive(Clone)]
pub struct Cart {
    pub(crate) unit: Arc<UnitOfWork>,
    token: Option<IdempotencyToken>,
}

impl fmt::Debug for Cart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cart").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Cart {
    pub(crate) fn new(unit: Arc<UnitOfWork>) -> Self {
        Self { unit, token: None }
    }

    /// A handle whose next change counts once, however often the request is repeated.
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), Box<dyn std::error::Error>> {
    /// let token: session_store::IdempotencyToken = "from the form".parse()?;
    /// assert!(cart.with_token(token.clone()).add("TEA-001", 1).await?.applied);
    /// assert!(!cart.with_token(token).add("TEA-001", 1).await?.applied);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the token belongs to the handle that is returned"]
    pub fn with_token(&self, token: IdempotencyToken) -> Self {
        Self { unit: Arc::clone(&self.unit), token: Some(token) }
    }

    /// Adds `quantity` to the line of `sku`, making it when there is none. One round trip.
    ///
    /// # Errors
    ///
    /// [`CartError::QuantityZero`], [`CartError::InvalidSku`], [`CartError::QuantityTooLarge`],
    /// [`CartError::TooManyLines`], [`CartError::SessionEnded`], [`CartError::Unavailable`].
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// let change = cart.add("TEA-001", 2).await?;
    /// assert!(change.applied && change.quantity >= 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add(&self, sku: &str, quantity: u32) -> Result<CartChange, CartError> {
        if quantity == 0 {
            return Err(CartError::QuantityZero);
        }
        check_sku(sku)?;
        self.change(Operation::Add, &[(sku, quantity)]).await
    }

    /// Makes the quantity of the line of `sku` exactly this; 0 removes the line. One round trip.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), 0 aside.
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// assert_eq!(cart.set_quantity("TEA-001", 3).await?.quantity, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_quantity(&self, sku: &str, quantity: u32) -> Result<CartChange, CartError> {
        check_sku(sku)?;
        self.change(Operation::Set, &[(sku, quantity)]).await
    }

    /// Removes the line of `sku`. No error when there is none. One round trip.
    ///
    /// # Errors
    ///
    /// [`CartError::InvalidSku`], [`CartError::SessionEnded`], [`CartError::Unavailable`].
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// cart.remove("TEA-001").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, sku: &str) -> Result<CartChange, CartError> {
        self.set_quantity(sku, 0).await
    }

    /// Removes all lines. The revision goes on. One round trip.
    ///
    /// # Errors
    ///
    /// [`CartError::SessionEnded`], [`CartError::Unavailable`].
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// assert_eq!(cart.clear().await?.count, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn clear(&self) -> Result<CartChange, CartError> {
        self.change(Operation::Clear, &[]).await
    }

    /// Takes these quantities out of the cart in one atomic step: what an order took leaves, what was added meanwhile
    /// stays. A line that has less loses all it has. One round trip.
    ///
    /// # Errors
    ///
    /// [`CartError::QuantityZero`], [`CartError::InvalidSku`], [`CartError::TooManyLines`] for a longer list than a cart
    /// can have, [`CartError::SessionEnded`], [`CartError::Unavailable`].
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// cart.subtract(&[("TEA-001", 2), ("CUP-003", 1)]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subtract(&self, taken: &[(&str, u32)]) -> Result<CartChange, CartError> {
        let max = self.unit.settings.limits.lines_max;
        if taken.len() > max as usize {
            return Err(CartError::TooManyLines { max });
        }
        for &(sku, quantity) in taken {
            check_sku(sku)?;
            if quantity == 0 {
                return Err(CartError::QuantityZero);
            }
        }
        self.change(Operation::Subtract, taken).await
    }

    /// The lines, ordered by SKU. One round trip, none when they came along with the session.
    ///
    /// # Errors
    ///
    /// [`CartError::Unavailable`]: an outage is never an empty cart.
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// for line in cart.lines().await? {
    ///     println!("{} × {}", line.quantity, line.sku);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lines(&self) -> Result<Vec<CartLine>, CartError> {
        Ok(self.snapshot().await?.lines)
    }

    /// The sum of all quantities.
    ///
    /// # Errors
    ///
    /// As [`lines`](Self::lines).
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// println!("{} items", cart.count().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn count(&self) -> Result<u64, CartError> {
        Ok(self.snapshot().await?.count())
    }

    /// The revision: grows with each change, also with `clear`. 0 for a visitor who never had a cart.
    ///
    /// # Errors
    ///
    /// As [`lines`](Self::lines).
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// let before = cart.revision().await?;
    /// assert!(cart.add("TEA-001", 1).await?.revision > before);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn revision(&self) -> Result<u64, CartError> {
        Ok(self.snapshot().await?.revision)
    }

    /// Revision and lines from one read.
    ///
    /// # Errors
    ///
    /// As [`lines`](Self::lines).
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// let cart = cart.snapshot().await?;
    /// println!("revision {}: {} lines", cart.revision, cart.lines.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn snapshot(&self) -> Result<CartSnapshot, CartError> {
        self.unit.settle_login().await?;
        for _ in 0..REDIRECTS_MAX {
            match self.unit.cart_source() {
                CartSource::Here(snapshot) => return Ok(snapshot),
                CartSource::At { cart, binding } => return Ok(self.unit.store.read_cart(&cart, &binding).await?),
                CartSource::AfterCommit(session) => self.unit.save_now(&session).await?,
                CartSource::WithSession => self.unit.read_once(true).await?,
            }
        }
        Err(CartError::SessionEnded)
    }

    /// From here on the visitor's cart is that of the user, on this and every other device.
    ///
    /// To be called at login, after `session.cycle_id()`. What was in the anonymous cart goes into the user's by the
    /// [`MergePolicy`] of the layer, capped at the limits; lines beyond the limit are left out. Each unit is merged once,
    /// even when the login is submitted twice or repeated after an error, and into the cart of one user only. When the
    /// session belongs to another user already, nothing is merged.
    ///
    /// It takes effect with the commit of the session, in the same step as the new id. A handler that asks for the cart
    /// after it, or changes it, makes that commit happen then, as `session.save()` would.
    ///
    /// # Errors
    ///
    /// [`CartError::SessionEnded`], [`CartError::Unavailable`]; the login can be repeated then.
    ///
    /// ```no_run
    /// use session_store::{Cart, Session};
    ///
    /// async fn log_in(session: Session, cart: Cart) -> Result<(), Box<dyn std::error::Error>> {
    ///     session.cycle_id().await?;
    ///     session.insert("user", 7).await?;
    ///     cart.log_in("7").await?;
    ///     Ok(())
    /// }
    /// ```
    pub async fn log_in(&self, user_id: &str) -> Result<(), CartError> {
        self.log_in_with(user_id, self.unit.settings.merge_policy).await
    }

    /// As [`log_in`](Self::log_in), with a policy for this login: what the visitor has chosen, for instance.
    ///
    /// # Errors
    ///
    /// As [`log_in`](Self::log_in).
    ///
    /// ```no_run
    /// # async fn example(cart: session_store::Cart) -> Result<(), session_store::CartError> {
    /// use session_store::MergePolicy;
    ///
    /// cart.log_in_with("7", MergePolicy::Keep).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn log_in_with(&self, user_id: &str, policy: MergePolicy) -> Result<(), CartError> {
        merge::log_in(&self.unit, user_id, policy).await
    }

    async fn change(&self, operation: Operation, lines: &[(&str, u32)]) -> Result<CartChange, CartError> {
        command::run(&self.unit, self.token.as_ref(), operation, lines, REDIRECTS_MAX).await
    }
}
