//! Locked files, full disks, and files that are not ours: for real, with SQLite's own errors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::process::Command;

use common::{Money, order, settings};
use docstore::{Collection, DocumentStore, StoreError, StoreErrorKind, StoreSettings, VersionedDocument};

fn batch(from: i64, count: i64) -> Vec<VersionedDocument> {
    (from..from + count)
        .map(|n| {
            let mut document = order(&n.to_string(), (0, n), n, "GB", Money("GBP", 100));
            document
                .body
                .insert_str(1, &format!("\"note\":\"{}\",", "x".repeat(300)));
            document
        })
        .collect()
}

fn refused(settings: &StoreSettings) -> StoreError {
    docstore::open(settings).err().expect("the store must not open")
}

/// Writes batches until one fails; how many documents were stored before, and the error.
async fn fill(store: &dyn DocumentStore) -> (i64, StoreError) {
    let mut stored = 0;
    while stored < 100_000 {
        match store.insert_first(Collection::Orders, &batch(stored, 100)).await {
            Ok(_) => stored += 100,
            Err(error) => return (stored, error),
        }
    }
    panic!("the disk never got full");
}

#[tokio::test]
async fn a_locked_file_is_transient_and_writing_goes_on_when_the_lock_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.sqlite.busy_timeout_ms = 50;
    let store = docstore::open(&settings).unwrap();
    store
        .insert_first(Collection::Orders, &batch(0, 1))
        .await
        .unwrap();

    let other = rusqlite::Connection::open(&settings.sqlite.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = store
        .insert_first(Collection::Orders, &batch(1, 1))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (StoreErrorKind::Transient, "locked")
    );
    let text = error.to_string();
    assert!(
        text.contains("orderflow.db") && text.contains("close what has it open"),
        "{text}"
    );
    assert_eq!(store.summary().await.unwrap().orders.documents, 1, "reads go on");
    other.execute_batch("ROLLBACK").unwrap();

    let outcome = store
        .insert_first(Collection::Orders, &batch(1, 1))
        .await
        .unwrap();
    assert_eq!(outcome.applied, 1);
    assert_eq!(store.summary().await.unwrap().orders.documents, 2);
}

#[tokio::test]
async fn a_short_lock_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.sqlite.busy_timeout_ms = 60_000;
    let store = docstore::open(&settings).unwrap();
    let other = rusqlite::Connection::open(&settings.sqlite.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let documents = batch(0, 1);
    let mut write = store.insert_first(Collection::Orders, &documents);
    let waits = tokio::time::timeout(std::time::Duration::from_millis(100), &mut write).await;
    assert!(waits.is_err(), "the write waits for the lock");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(write.await.unwrap().applied, 1);
}

#[tokio::test]
async fn a_file_at_its_size_limit_is_transient_keeps_what_it_has_and_goes_on_with_a_higher_limit() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.sqlite.max_size_mb = 1;
    let store = docstore::open(&settings).unwrap();
    let (stored, error) = fill(store.as_ref()).await;
    assert!(stored > 500, "{stored}");
    assert_eq!(
        (error.kind(), error.code()),
        (StoreErrorKind::Transient, "disk_full")
    );
    assert!(
        error.to_string().contains("`store.sqlite.max_size_mb`"),
        "{error}"
    );
    let summary = store.summary().await.unwrap();
    assert_eq!(
        summary.orders.documents as i64, stored,
        "the failed batch left nothing behind"
    );
    assert_eq!(summary.orders.amounts_minor["GBP"], i128::from(stored) * 100);
    drop(store);

    settings.sqlite.max_size_mb = 100;
    let store = docstore::open(&settings).unwrap();
    store
        .insert_first(Collection::Orders, &batch(stored, 100))
        .await
        .unwrap();
    assert_eq!(
        store.summary().await.unwrap().orders.documents as i64,
        stored + 100
    );
}

#[tokio::test]
async fn a_disk_that_is_really_full_is_transient_and_writing_goes_on_when_it_has_space() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |options: &str| {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output();
        status.is_ok_and(|output| output.status.success())
    };
    if !mount("size=2m") {
        println!("skipped: a small tmpfs can be mounted by root only");
        return;
    }
    let store = docstore::open(&settings(folder.path())).unwrap();
    let (stored, error) = fill(store.as_ref()).await;
    let more = mount("remount,size=64m");
    let reads = store.summary().await;
    let goes_on = store.insert_first(Collection::Orders, &batch(stored, 100)).await;
    let total = store.summary().await;
    drop(store);
    // Lazily: the writer thread may have the file open for another moment.
    let unmounted = Command::new("umount")
        .arg("-l")
        .arg(folder.path())
        .status()
        .unwrap();

    assert!(unmounted.success() && more);
    assert_eq!(error.kind(), StoreErrorKind::Transient, "{error}");
    assert!(["disk_full", "io_failed"].contains(&error.code()), "{error}");
    assert_eq!(reads.unwrap().orders.documents as i64, stored);
    assert_eq!(goes_on.unwrap().applied, 100);
    assert_eq!(total.unwrap().orders.documents as i64, stored + 100);
}

#[test]
fn a_file_that_is_not_a_database_is_fatal_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::create_dir_all(settings.sqlite.path.parent().unwrap()).unwrap();
    std::fs::write(&settings.sqlite.path, "these are my notes\n".repeat(100)).unwrap();
    let error = refused(&settings);
    assert_eq!(
        (error.kind(), error.code()),
        (StoreErrorKind::Fatal, "not_a_database")
    );
    assert!(
        error
            .to_string()
            .contains("set `store.sqlite.path` to another file"),
        "{error}"
    );
    assert!(
        std::fs::read_to_string(&settings.sqlite.path)
            .unwrap()
            .starts_with("these are my notes")
    );
}

#[test]
fn another_programs_database_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::create_dir_all(settings.sqlite.path.parent().unwrap()).unwrap();
    let other = rusqlite::Connection::open(&settings.sqlite.path).unwrap();
    other.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    assert_eq!(refused(&settings).code(), "foreign_database");
    let tables: i64 = other
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn a_file_of_a_newer_program_is_fatal() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    drop(docstore::open(&settings).unwrap());
    let other = rusqlite::Connection::open(&settings.sqlite.path).unwrap();
    other.pragma_update(None, "user_version", 999).unwrap();
    let error = refused(&settings);
    assert_eq!(
        (error.kind(), error.code()),
        (StoreErrorKind::Fatal, "newer_schema")
    );
    assert!(error.to_string().contains("schema version 999"), "{error}");
}

#[test]
fn a_path_that_can_not_be_a_file_is_fatal_and_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.sqlite.path = folder.path().to_owned();
    let error = refused(&settings);
    assert_eq!(
        (error.kind(), error.code()),
        (StoreErrorKind::Fatal, "cannot_open")
    );
    assert!(error.to_string().contains("`store.sqlite.path`"), "{error}");

    std::fs::write(folder.path().join("file"), "").unwrap();
    settings.sqlite.path = folder.path().join("file").join("orderflow.db");
    let error = refused(&settings);
    assert_eq!(
        (error.kind(), error.code()),
        (StoreErrorKind::Fatal, "cannot_open")
    );
}

#[tokio::test]
async fn a_damaged_file_is_fatal_and_says_what_to_move_away() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let store = docstore::open(&settings).unwrap();
    store
        .insert_first(Collection::Orders, &batch(0, 2_000))
        .await
        .unwrap();
    drop(store);
    let other = rusqlite::Connection::open(&settings.sqlite.path).unwrap();
    other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(other);
    let mut bytes = std::fs::read(&settings.sqlite.path).unwrap();
    // The first page stays as it is (header and schema), the others lose their headers.
    for page in bytes.chunks_mut(4_096).skip(1) {
        page[..64].fill(0xff);
    }
    std::fs::write(&settings.sqlite.path, bytes).unwrap();
    let failed = match docstore::open(&settings) {
        Err(error) => error,
        Ok(store) => store
            .insert_first(Collection::Orders, &batch(0, 10))
            .await
            .unwrap_err(),
    };
    assert_eq!((failed.kind(), failed.code()), (StoreErrorKind::Fatal, "corrupt"));
    assert!(failed.to_string().contains("`-wal` and `-shm`"), "{failed}");
}
