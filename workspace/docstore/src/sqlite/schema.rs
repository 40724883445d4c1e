//! Tables and migrations.
//!
//! `user_version` is the number of migrations that the file has seen; `application_id` marks the
//! file as ours, so that another program's database is never written to.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

use super::connection::File;

/// "ordf" in ASCII.
const APPLICATION_ID: i32 = 0x6f72_6466;

/// Each entry is applied once, in order, in one transaction. Never change one that was released:
/// add another.
const MIGRATIONS: &[&str] = &[
    // Rowid tables: documents are appended in the order in which they arrive, and only the small
    // entries of the key's index land at random places. `record_time` to `amount_minor` are the
    // values of the body that queries and totals need, extracted on write.
    "CREATE TABLE orders (
        key TEXT NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        source_offset INTEGER NOT NULL,
        record_time INTEGER NOT NULL,
        country TEXT NOT NULL,
        currency TEXT,
        amount_minor INTEGER,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX orders_by_arrival ON orders (record_time, source_offset);

    CREATE TABLE alerts (
        key TEXT NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        source_offset INTEGER NOT NULL,
        record_time INTEGER NOT NULL,
        risk_level TEXT NOT NULL,
        currency TEXT,
        amount_minor INTEGER,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX alerts_by_arrival ON alerts (record_time, source_offset);

    CREATE TABLE payments (
        key TEXT NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        source_offset INTEGER NOT NULL,
        record_time INTEGER NOT NULL,
        status TEXT NOT NULL,
        currency TEXT,
        amount_minor INTEGER,
        body TEXT NOT NULL
    ) STRICT;

    CREATE TABLE aggregates (
        key TEXT NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        source_offset INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;

    -- Exact totals, changed in the transaction that changes the documents. `facet` is an order's
    -- country, an alert's risk level or a payment's status; `amount_minor` is a decimal integer as
    -- text, because a sum can pass 64 bits.
    CREATE TABLE totals (
        collection TEXT NOT NULL,
        facet TEXT NOT NULL,
        currency TEXT NOT NULL,
        documents INTEGER NOT NULL,
        amount_minor TEXT NOT NULL,
        PRIMARY KEY (collection, facet, currency)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE arrivals (
        collection TEXT NOT NULL,
        slot_start INTEGER NOT NULL,
        documents INTEGER NOT NULL,
        PRIMARY KEY (collection, slot_start)
    ) STRICT, WITHOUT ROWID;",
];

/// Brings the file to the schema of this program. Safe when several programs start at once: what the
/// file is, is read at one moment, and again under the write lock.
pub(super) fn migrate(connection: &Connection, file: &File) -> Result<(), StoreError> {
    let failure = |error: rusqlite::Error| file.failure(&error);
    // One transaction, so that another program's schema is seen whole or not at all.
    let look =
        rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Deferred).map_err(failure)?;
    let seen = version(&look, file)?;
    look.commit().map_err(failure)?;
    if seen == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(failure)?;
    let seen = version(&transaction, file)?;
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(seen) {
        transaction.execute_batch(migration).map_err(failure)?;
        tracing::info!(file = %file.path().display(), schema_version = number + 1, "store schema created or upgraded");
    }
    transaction
        .pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(failure)?;
    transaction
        .pragma_update(None, "user_version", count(MIGRATIONS.len()))
        .map_err(failure)?;
    transaction.commit().map_err(failure)
}

/// SQLite has signed integers only.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How many migrations the file has seen; refuses a file that is not ours or from the future.
fn version(connection: &Connection, file: &File) -> Result<usize, StoreError> {
    let failure = |error: rusqlite::Error| file.failure(&error);
    let number = |pragma| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(failure)
    };
    let (owner, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failure)?;
    if owner != i64::from(APPLICATION_ID) && (owner != 0 || version != 0 || tables != 0) {
        return Err(StoreError::fatal(
            "foreign_database",
            format!(
                "{file} belongs to another program: set `store.sqlite.path` to another file, or move this one away"
            ),
        ));
    }
    usize::try_from(version).ok().filter(|version| *version <= MIGRATIONS.len()).ok_or_else(|| {
        StoreError::fatal(
            "newer_schema",
            format!(
                "{file} has schema version {version} and this program knows {}: it was written by a newer orderflow; \
                 use that one, or set `store.sqlite.path` to another file",
                MIGRATIONS.len()
            ),
        )
    })
}
