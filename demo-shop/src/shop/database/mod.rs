//! The shop's database: SQLite in a file by default, PostgreSQL for a real deployment.
//!
//! One code base serves both through sqlx's `Any` driver, so the SQL keeps to what both understand.

mod migrations;
mod open;
mod orders;
mod products;
mod users;

pub(crate) use orders::{Address, NewOrder, Order, PlaceError};
pub(crate) use products::Product;
pub(crate) use users::{NewUser, RegisterError};

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::AnyPool;

/// A bounded pool of connections to one database.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: AnyPool,
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// How a transaction begins that will write.
    ///
    /// SQLite's plain BEGIN takes the write lock at the first write, and answers SQLITE_BUSY without waiting when
    /// another process has written since the transaction's first read.
    fn begin_to_write(self) -> &'static str {
        match self {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN",
        }
    }
}

impl Database {
    /// Asks the database for anything at all.
    pub(crate) async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT COUNT(*) FROM products").fetch_one(&self.pool).await.map(drop)
    }

    /// Closes the pool, waiting for what is under way.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Whether a text can be in the database at all: PostgreSQL takes no NUL, and answers with an error that looks like an
/// outage.
fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// Milliseconds since 1970-01-01 UTC.
fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
