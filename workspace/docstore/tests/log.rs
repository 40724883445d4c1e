//! What the log says while the store can not write. A test binary of its own: the writer is a thread,
//! so its lines go to the subscriber of the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::{Money, order, settings};
use docstore::Collection;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_lock_that_lasts_is_one_line_with_file_and_remedy_and_its_end_is_another() {
    let lines = Lines::default();
    let sink = lines.clone();
    tracing_subscriber::fmt()
        .with_writer(move || sink.clone())
        .with_ansi(false)
        .init();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.sqlite.busy_timeout_ms = 10;
    let store = docstore::open(&settings).unwrap();
    let batch = [order("1", (0, 0), 1, "GB", Money("GBP", 1))];

    let other = rusqlite::Connection::open(&settings.sqlite.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for _ in 0..20 {
        store.insert_first(Collection::Orders, &batch).await.unwrap_err();
    }
    other.execute_batch("ROLLBACK").unwrap();
    store.insert_first(Collection::Orders, &batch).await.unwrap();
    store.insert_first(Collection::Orders, &batch).await.unwrap();

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains("store can not write for now"), "{text}");
    assert!(
        warnings[0].contains("orderflow.db") && warnings[0].contains("close what has it open"),
        "{text}"
    );
    assert_eq!(text.matches("store writes again").count(), 1, "{text}");
}
