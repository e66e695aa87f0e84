//! Opening: the file, the schema, the products.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Any, AnyConnection, ConnectOptions, Connection, Executor, Transaction};
use tracing::{info, warn};

use crate::shop::catalogue;
use crate::shop::database::{Database, Engine, migrations};

/// Connections per replica. SQLite has one writer at a time, so more would only queue inside the database.
const CONNECTIONS_MAX: u32 = 8;
/// How long a request waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long SQLite waits for another process's write transaction, in milliseconds.
const BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON";
/// Tries at opening: replicas that start together all want to switch a new file to write-ahead logging.
const OPEN_ATTEMPTS: u32 = 20;
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("--database {0:?} is no database this shop knows: give sqlite:FILE or postgres://USER@HOST/NAME")]
    UnknownScheme(String),
    #[error("--database {0:?} is in memory, which replicas cannot share: give sqlite:FILE")]
    InMemory(String),
    #[error("cannot open the database {url:?}")]
    Connect { url: String, source: sqlx::Error },
    #[error("cannot bring the tables of {url:?} up to date")]
    Migrate { url: String, source: MigrateError },
    #[error("cannot put the products into {url:?}")]
    Seed { url: String, source: sqlx::Error },
}

impl Database {
    /// Opens the database at `url`, brings its tables up to date and puts the products in, each only once however
    /// many replicas start at the same time.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        let engine = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Engine::Sqlite,
            Some("postgres" | "postgresql") => Engine::Postgres,
            _ => return Err(OpenError::UnknownScheme(without_password(url))),
        };
        sqlx::any::install_default_drivers();
        if engine == Engine::Sqlite {
            prepare_sqlite_file(url).await?;
        }
        let database = Database { pool: connect(url, engine).await?, engine };
        database.migrate(url).await?;
        let added = database.seed().await.map_err(|source| OpenError::Seed { url: without_password(url), source })?;
        info!(database = %without_password(url), products_added = added, "database is open");
        Ok(database)
    }

    async fn migrate(&self, url: &str) -> Result<(), OpenError> {
        let failed = |source| OpenError::Migrate { url: without_password(url), source };
        match self.engine {
            // Under an advisory lock that sqlx takes.
            Engine::Postgres => migrations::all().run(&self.pool).await.map_err(failed),
            // sqlx has no lock for SQLite, so the database's own write lock is held around all of it.
            Engine::Sqlite => {
                let mut lock = self.begin_to_write().await.map_err(|error| failed(error.into()))?;
                let connection: &mut AnyConnection = &mut lock;
                migrations::all().run_direct(None, connection, false).await.map_err(failed)?;
                lock.commit().await.map_err(|error| failed(error.into()))
            }
        }
    }

    /// Adds what is not there yet; what is there keeps its stock and its price.
    async fn seed(&self) -> Result<u64, sqlx::Error> {
        let mut transaction = self.begin_to_write().await?;
        let mut added = 0;
        for (position, item) in catalogue::ITEMS.iter().enumerate() {
            added += sqlx::query(
                "INSERT INTO products (sku, name, category, description, price_cents, stock, position) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (sku) DO NOTHING",
            )
            .bind(item.sku)
            .bind(item.name)
            .bind(item.category.slug())
            .bind(item.description)
            .bind(item.price_cents)
            .bind(item.stock)
            .bind(i64::try_from(position).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        }
        transaction.commit().await?;
        Ok(added)
    }

    pub(super) async fn begin_to_write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin_with(self.engine.begin_to_write()).await
    }
}

async fn connect(url: &str, engine: Engine) -> Result<sqlx::AnyPool, OpenError> {
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if engine == Engine::Sqlite {
                    connection.execute(BUSY_TIMEOUT).await?;
                }
                Ok(())
            })
        })
        .connect(url)
        .await;
    let source = match pool {
        Ok(pool) => return Ok(pool),
        // It has tried for as long as it may, and does not say what it met each time.
        Err(sqlx::Error::PoolTimedOut) => {
            let once = tokio::time::timeout(ACQUIRE_TIMEOUT, AnyConnection::connect(url)).await;
            once.ok().and_then(Result::err).unwrap_or(sqlx::Error::PoolTimedOut)
        }
        Err(error) => error,
    };
    Err(OpenError::Connect { url: without_password(url), source })
}

/// Creates the file when it is missing and switches it to write-ahead logging, so that readers and the writer do
/// not wait for each other. The mode is a property of the file: the pool's connections find it there.
async fn prepare_sqlite_file(url: &str) -> Result<(), OpenError> {
    let failed = |source| OpenError::Connect { url: url.to_owned(), source };
    let options = SqliteConnectOptions::from_str(url).map_err(failed)?;
    if options.get_filename().as_os_str() == ":memory:" || url.contains("mode=memory") || url.contains(":memory:") {
        return Err(OpenError::InMemory(url.to_owned()));
    }
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let mut attempt = 1;
    loop {
        match options.connect().await {
            Ok(connection) => return connection.close().await.map_err(failed),
            // Switching the mode needs the file alone, and SQLite does not wait for that by itself.
            Err(error) if is_busy(&error) && attempt < OPEN_ATTEMPTS => {
                warn!(attempt, "the database file is busy; trying again");
                attempt += 1;
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY (5) and SQLITE_LOCKED (6), with their extended codes in the upper bytes.
    error
        .as_database_error()
        .and_then(DatabaseError::code)
        .and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The URL as it may be logged.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let Some((credentials, host)) = rest.split_once('@') else {
        return url.to_owned();
    };
    let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
    format!("{scheme}://{user}@{host}")
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_does_not_reach_the_log() {
        assert_eq!(without_password("postgres://shop:secret@db/shop"), "postgres://shop@db/shop");
        assert_eq!(without_password("postgres://db/shop"), "postgres://db/shop");
        assert_eq!(without_password("sqlite:shop.db"), "sqlite:shop.db");
    }
}
