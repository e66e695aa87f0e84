//! What makes the tables, in the order in which it is done.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, name and SQL, as the file is called and as a database that has it remembers it: never changed afterwards.
///
/// Not by sqlx's macro: for its sake all of sqlx, SQLite's C included, would be compiled a second time, for the compiler.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "shop", include_str!("../../../migrations/0001_shop.sql"))];

pub(super) fn all() -> Migrator {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn every_file_is_in_the_list_as_sqlx_reads_it() {
        let files = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).await.unwrap();
        let told = |migrator: &Migrator| {
            migrator
                .iter()
                .map(|migration| (migration.version, migration.description.clone(), migration.checksum.clone(), migration.no_tx))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&all()), told(&files));
    }
}
