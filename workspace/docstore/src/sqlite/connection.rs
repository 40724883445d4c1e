//! PRAGMAs and opening.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::error::StoreError;
use crate::settings::{SqliteSettings, Synchronous};

use super::{failure, schema};

/// The database file and how to open it.
#[derive(Clone, Debug)]
pub(super) struct File {
    path: PathBuf,
    settings: SqliteSettings,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())
    }
}

impl File {
    pub(super) fn new(settings: &SqliteSettings) -> Self {
        Self {
            path: settings.path.clone(),
            settings: settings.clone(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn failure(&self, error: &rusqlite::Error) -> StoreError {
        failure::classify(error, self)
    }

    /// Opens the one connection that writes; makes the folder, the file and the schema.
    pub(super) fn open_writer(&self) -> Result<Connection, StoreError> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::fatal(
                    "cannot_open",
                    format!(
                        "can not make the folder `{}`: {error}: make it and allow this user to write in it, \
                         or set `store.sqlite.path` to another place",
                        folder.display()
                    ),
                )
            })?;
        }
        let connection = self.connect(self.settings.cache_mb)?;
        let give_up = Instant::now() + self.settings.busy_timeout();
        loop {
            match self.prepare(&connection) {
                // SQLite does not wait by itself where two programs switch the same new file to WAL
                // at once, so that step is tried again; it takes the other one a few milliseconds.
                Err(error) if failure::is_locked(&error) && Instant::now() < give_up => {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                Err(error) => return Err(self.failure(&error)),
                Ok(()) => break,
            }
        }
        schema::migrate(&connection, self)?;
        Ok(connection)
    }

    fn prepare(&self, connection: &Connection) -> rusqlite::Result<()> {
        // Readers do not block the writer, and the writer does not block readers.
        connection.pragma_update(None, "journal_mode", "wal")?;
        let synchronous = match self.settings.synchronous {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // 32 MiB of log between checkpoints: each checkpoint writes a page once, however often it
        // changed since the last one, and the inner pages of the indexes change with every batch.
        connection.pragma_update(None, "wal_autocheckpoint", 8_192)?;
        // A log that grew under a long read gives its space back.
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        if self.settings.max_size_mb > 0 {
            let page_size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let bytes =
                i64::try_from(self.settings.max_size_mb.saturating_mul(1024 * 1024)).unwrap_or(i64::MAX);
            let pages = bytes / page_size.max(1);
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Opens a connection that can only read. The writer has made the schema before.
    pub(super) fn open_reader(&self) -> Result<Connection, StoreError> {
        let connection = self.connect((self.settings.cache_mb / 8).max(1))?;
        // Not opened read-only: a reader of a WAL database takes part in its shared memory.
        connection
            .pragma_update(None, "query_only", true)
            .map_err(|error| self.failure(&error))?;
        Ok(connection)
    }

    fn connect(&self, cache_mb: u64) -> Result<Connection, StoreError> {
        // NO_MUTEX: a connection is used by one thread at a time, which rusqlite's types enforce.
        // No URI: a path that begins with `file:` is a path.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            // First of all: every statement after it waits for a lock instead of failing at once.
            connection.busy_timeout(self.settings.busy_timeout())?;
            // Negative = kibibytes instead of pages.
            connection.pragma_update(
                None,
                "cache_size",
                -(i64::try_from(cache_mb * 1024).unwrap_or(i64::MAX)),
            )?;
            connection.pragma_update(None, "temp_store", "memory")?;
            // A file made by someone else can not run functions through its schema.
            connection.pragma_update(None, "trusted_schema", false)?;
            Ok(connection)
        };
        open().map_err(|error| self.failure(&error))
    }
}
