//! Carts of users, apart from any request.

use super::CartSnapshot;
use crate::{CacheStore, StoreError};

/// The carts of users, for what runs without their sessions: reminders, exports, the deletion of an account.
///
/// Made by [`CacheStore::carts`].
///
/// ```no_run
/// # async fn example(store: session_store::CacheStore) -> Result<(), session_store::StoreError> {
/// let forgotten = store.carts().of_user("7").await?;
/// println!("{} items wait for user 7", forgotten.count());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Carts {
    store: CacheStore,
}

impl CacheStore {
    /// The carts of users, apart from any request. In a request, [`Cart`](crate::Cart) is the visitor's.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_store::StoreError> {
    /// let store = session_store::CacheStore::builder("redis://127.0.0.1:6379").connect_lazy()?;
    /// let carts = store.carts();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn carts(&self) -> Carts {
        Carts { store: self.clone() }
    }
}

impl Carts {
    /// The cart of a user, by the name that was given to [`Cart::log_in`](crate::Cart::log_in); an empty one at revision 0
    /// for somebody who has none. One round trip.
    ///
    /// # Errors
    ///
    /// Any of an operation: an outage is never an empty cart.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore) -> Result<(), session_store::StoreError> {
    /// for line in store.carts().of_user("7").await?.lines {
    ///     println!("{} × {}", line.quantity, line.sku);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn of_user(&self, user_id: &str) -> Result<CartSnapshot, StoreError> {
        self.store.read_cart(&self.store.keys().user_tag(user_id)).await
    }

    /// Forgets the cart of a user and all that is remembered about it, as for an account that is deleted. The next cart of
    /// that user begins at revision 0. One round trip.
    ///
    /// # Errors
    ///
    /// Any of an operation.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore) -> Result<(), session_store::StoreError> {
    /// store.carts().forget_user("7").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forget_user(&self, user_id: &str) -> Result<(), StoreError> {
        let (keys, user) = (self.store.keys(), self.store.keys().user_tag(user_id));
        let mut command = redis::cmd("DEL");
        command.arg(keys.cart(&user)).arg(keys.cart_merged(&user));
        command.arg(keys.cart_tokens(&user)).arg(keys.cart_guards(&user)).arg(keys.cart_guards_before(&user));
        self.store.command(&command).await.map(drop)
    }
}
