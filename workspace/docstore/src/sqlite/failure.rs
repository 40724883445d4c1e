//! Which SQLite error is transient, poison or fatal, and its remedy.

use rusqlite::{Error, ErrorCode};

use crate::error::StoreError;

use super::connection::File;

/// Another program holds the lock that was needed.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// The class, code and remedy of an error of this file.
pub(super) fn classify(error: &Error, file: &File) -> StoreError {
    use ErrorCode as Code;
    let Some(code) = error.sqlite_error_code() else {
        // Not from SQLite but from rusqlite: a column or a parameter that does not fit our own SQL.
        return StoreError::fatal("store_bug", format!("{file}: {error}: please report this"));
    };
    let transient = |name, text: &str| StoreError::transient(name, format!("{file} {text} ({error})"));
    let fatal = |name, text: &str| StoreError::fatal(name, format!("{file} {text} ({error})"));
    match code {
        Code::DatabaseBusy | Code::DatabaseLocked => transient(
            "locked",
            "is locked by another program: close what has it open for writing (a database browser, a backup, \
             a second analytics); writing goes on by itself once the lock is gone",
        ),
        Code::DiskFull => transient(
            "disk_full",
            "can not grow, its disk is full or `store.sqlite.max_size_mb` is reached: free space or raise the limit; \
             writing goes on by itself",
        ),
        Code::SystemIoFailure => transient(
            "io_failed",
            "can not be read or written: look at the disk it is on (space, quota, mount, system log); \
             writing goes on by itself once the disk answers",
        ),
        Code::OutOfMemory => transient(
            "out_of_memory",
            "needs more memory than there is: lower `store.sqlite.cache_mb`",
        ),
        Code::SchemaChanged
        | Code::OperationInterrupted
        | Code::OperationAborted
        | Code::FileLockingProtocolFailed => transient(
            "interrupted",
            "was busy with another program's change; the same call is tried again",
        ),
        Code::TooBig | Code::ConstraintViolation | Code::TypeMismatch => StoreError::poison(
            "refused_by_engine",
            format!("{file} refuses the document ({error})"),
        ),
        Code::DatabaseCorrupt => fatal(
            "corrupt",
            "is damaged: stop all that use it, move it away together with its `-wal` and `-shm` files, start again with \
             an empty one and read the topics from the begin",
        ),
        Code::NotADatabase => fatal(
            "not_a_database",
            "is not an SQLite database: set `store.sqlite.path` to another file, or move this one away",
        ),
        Code::ReadOnly => fatal(
            "read_only",
            "can not be written: give this user the right to write the file and its folder, or mount the disk writable",
        ),
        Code::CannotOpen => fatal(
            "cannot_open",
            "can not be opened: check that the folder exists, that the path is a file, and that this user may write \
             both; or set `store.sqlite.path` to another place",
        ),
        Code::PermissionDenied | Code::AuthorizationForStatementDenied => fatal(
            "permission_denied",
            "can not be used by this user: give it the right to read and write the file and its folder",
        ),
        Code::NoLargeFileSupport => fatal(
            "no_large_files",
            "is on a file system without large files: move it to another disk",
        ),
        _ => fatal(
            "store_bug",
            "failed in a way that should not happen: please report this",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind::{self, Fatal, Poison, Transient};
    use crate::settings::SqliteSettings;

    #[test]
    fn every_class_of_sqlite_error_has_its_kind_and_names_the_file() {
        let file = File::new(&SqliteSettings {
            path: "data/x.db".into(),
            ..SqliteSettings::default()
        });
        // Result codes of https://www.sqlite.org/rescode.html, extended ones too.
        let cases: [(i32, StoreErrorKind, &str); 24] = [
            (5, Transient, "locked"),
            (6, Transient, "locked"),
            (261, Transient, "locked"), // SQLITE_BUSY_RECOVERY
            (517, Transient, "locked"), // SQLITE_BUSY_SNAPSHOT
            (13, Transient, "disk_full"),
            (10, Transient, "io_failed"),
            (778, Transient, "io_failed"),  // SQLITE_IOERR_WRITE
            (1034, Transient, "io_failed"), // SQLITE_IOERR_FSYNC
            (4874, Transient, "io_failed"), // SQLITE_IOERR_SHMSIZE
            (7, Transient, "out_of_memory"),
            (9, Transient, "interrupted"),
            (15, Transient, "interrupted"),
            (17, Transient, "interrupted"),
            (18, Poison, "refused_by_engine"),
            (19, Poison, "refused_by_engine"),
            (11, Fatal, "corrupt"),
            (779, Fatal, "corrupt"), // SQLITE_CORRUPT_INDEX
            (26, Fatal, "not_a_database"),
            (8, Fatal, "read_only"),
            (1032, Fatal, "read_only"), // SQLITE_READONLY_DBMOVED
            (14, Fatal, "cannot_open"),
            (3, Fatal, "permission_denied"),
            (1, Fatal, "store_bug"),
            (21, Fatal, "store_bug"),
        ];
        for (code, kind, name) in cases {
            let error = Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let error = classify(&error, &file);
            assert_eq!(
                (error.kind(), error.code()),
                (kind, name),
                "result code {code}: {error}"
            );
            assert!(error.message().contains("`data/x.db`"), "{error}");
        }
        assert_eq!(classify(&Error::InvalidQuery, &file).code(), "store_bug");
    }
}
