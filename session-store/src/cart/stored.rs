//! Carts of users, apart from any request.

use super::{CartSnapshot, command::move_call};
use crate::{
    CacheStore, StoreError, backend::number_at, encryption::damaged_line, record::unreadable, rotation::flat, scripts::reply,
};

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
        let user = self.store.keys().user_tag(user_id);
        self.store.read_cart(&user, &user).await
    }

    /// Encrypts the lines of a user's cart that are not yet under the current key anew, and tells how many those were: for the job that
    /// ends a change of [`EncryptionKeys`](crate::EncryptionKeys), or turns their encryption on, without waiting until each line is changed by
    /// its owner. The cart, its revision and its time stay what they are, also while its owner changes it. Nothing is done without keys; under
    /// [`clear_carts`](crate::EncryptionKeys::clear_carts) the lines become clear ones.
    /// Two round trips, one when nothing is to be done.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnreadableCart`] for a line that cannot be read, with all lines as they were; any of an operation.
    ///
    /// ```no_run
    /// # async fn example(store: session_store::CacheStore, users: Vec<String>) -> Result<(), session_store::StoreError> {
    /// for user in users {
    ///     store.carts().encrypt_anew(&user).await?;
    /// }
    /// // No user's cart needs the former key now.
    /// # Ok(())
    /// # }
    /// ```
    pub async fn encrypt_anew(&self, user_id: &str) -> Result<usize, StoreError> {
        let (keys, user, vault) = (self.store.keys(), self.store.keys().user_tag(user_id), self.store.vault());
        let Some(names) = vault.names_of_a_line() else {
            return Ok(0);
        };
        let mut command = redis::cmd("HGETALL");
        command.arg(keys.cart(&user));
        let lines = vault.lines(&user);
        let mut skus = Vec::new();
        for field in flat(self.store.command(&command).await?)?.chunks_exact(2).filter(|field| !field[0].starts_with(b"@")) {
            let (sku, _) = lines.open(&field[0], &field[1])?;
            if lines.would_move(&field[0], &sku) {
                skus.push(sku);
            }
        }
        skus.sort_unstable();
        skus.dedup();
        if skus.is_empty() {
            return Ok(0);
        }
        let answer = self.store.script(&move_call(&self.store, &user, names, &skus)?).await?;
        match number_at(&answer, 0)? {
            reply::OK => usize::try_from(number_at(&answer, 3)?).map_err(|_| unreadable("a number of a cart is out of range")),
            reply::UNREADABLE_LINE => Err(damaged_line()),
            other => Err(unreadable(&format!("a move of lines answered {other}"))),
        }
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
        let tokens = [keys.cart_tokens(&user), keys.cart_guards(&user), keys.cart_guards_before(&user)];
        self.store.delete(&[&[keys.cart(&user), keys.cart_merged(&user)], &tokens[..]].concat()).await
    }
}
