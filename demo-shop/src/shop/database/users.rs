//! Who has an account.

use sqlx::Row;

use crate::shop::database::{Database, now_ms};

/// An account to be made. The e-mail address is already in lower case.
#[derive(Debug)]
pub(crate) struct NewUser<'a> {
    pub(crate) id: &'a str,
    pub(crate) email: &'a str,
    pub(crate) name: &'a str,
    pub(crate) password_hash: &'a str,
}

/// An account as the database has it.
#[derive(Debug)]
pub(crate) struct StoredUser {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) password_hash: String,
}

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the e-mail address has an account already")]
    EmailTaken,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Database {
    pub(crate) async fn register(&self, user: &NewUser<'_>) -> Result<(), RegisterError> {
        let inserted = sqlx::query(
            "INSERT INTO users (id, email, name, password_hash, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (email) DO NOTHING",
        )
        .bind(user.id)
        .bind(user.email)
        .bind(user.name)
        .bind(user.password_hash)
        .bind(now_ms())
        .execute(&self.pool)
        .await?
        .rows_affected();
        if inserted == 1 { Ok(()) } else { Err(RegisterError::EmailTaken) }
    }

    pub(crate) async fn user_by_email(&self, email: &str) -> Result<Option<StoredUser>, sqlx::Error> {
        let row = sqlx::query("SELECT id, email, name, password_hash FROM users WHERE email = $1")
            .bind(email)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(StoredUser {
                id: row.try_get("id")?,
                email: row.try_get("email")?,
                name: row.try_get("name")?,
                password_hash: row.try_get("password_hash")?,
            })
        })
        .transpose()
    }
}
