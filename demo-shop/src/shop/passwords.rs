//! Password hashing, away from the threads that answer requests.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, anyhow};
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Hashes at the same time. Each takes 19 MiB and a core, so more would only slow each other down.
const CONCURRENT_MAX: usize = 2;
/// Logins that wait for their turn; beyond that the answer is "busy" rather than a queue without end.
const WAITING_MAX: usize = 64;

/// argon2id with OWASP's minimum (Password Storage Cheat Sheet: m = 19 MiB, t = 2, p = 1).
const MEMORY_KIB: u32 = 19 * 1024;
const ITERATIONS: u32 = 2;
const LANES: u32 = 1;

/// What is compared with when there is no such account, so that both cases take the same time.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash(&crate::shop::ids::random_id()).expect("the parameters are constants within argon2's bounds"));

#[derive(Clone)]
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// Too many logins at once.
#[derive(Debug, thiserror::Error)]
#[error("too many people are signing in at this moment")]
pub(crate) struct Busy;

impl Passwords {
    pub(crate) fn new() -> Self {
        Passwords { running: Arc::new(Semaphore::new(CONCURRENT_MAX)), admitted: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// The hash of a new password, in PHC string format.
    pub(crate) async fn hash(&self, password: String) -> Result<anyhow::Result<String>, Busy> {
        self.run(move || hash(&password)).await
    }

    /// Whether `password` belongs to `stored`; `None` stands for an account that does not exist.
    pub(crate) async fn verify(&self, password: String, stored: Option<String>) -> Result<anyhow::Result<bool>, Busy> {
        self.run(move || {
            let exists = stored.is_some();
            let stored = stored.unwrap_or_else(|| NOBODY.clone());
            let parsed = PasswordHash::new(&stored).map_err(|error| anyhow!("the stored hash is unreadable: {error}"))?;
            let fits = argon2()?.verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(fits && exists)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<anyhow::Result<T>, Busy> {
        let _admitted = self.admitted.try_acquire().map_err(|_| Busy)?;
        // The permit moves into the work: a client that goes away does not let one more run beside it.
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        Ok(done.await.context("hashing a password failed").flatten())
    }
}

fn argon2() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(|error| anyhow!("argon2 parameters: {error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> anyhow::Result<String> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|error| anyhow!("salt: {error}"))?;
    let hash = argon2()?.hash_password(password.as_bytes(), &salt).map_err(|error| anyhow!("argon2: {error}"))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

    use super::Passwords;

    #[tokio::test]
    async fn only_the_right_password_of_an_account_fits() {
        let passwords = Passwords::new();
        let stored = passwords.hash("correct horse".to_owned()).await.unwrap().unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let verify = |password: &str, stored: Option<&str>| passwords.verify(password.to_owned(), stored.map(str::to_owned));
        assert!(verify("correct horse", Some(&stored)).await.unwrap().unwrap());
        assert!(!verify("wrong horse", Some(&stored)).await.unwrap().unwrap());
        assert!(!verify("correct horse", None).await.unwrap().unwrap());
    }
}
