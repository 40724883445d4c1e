//! The embedded engine: one SQLite file.
//!
//! One writer thread owns the only connection that writes and takes batches from a bounded channel;
//! whatever waits there goes into one transaction, so that many small batches share one flush to
//! disk. Reads run on connections of their own and see the last committed state without waiting
//! for the writer (WAL).
//!
//! - `connection`: PRAGMAs and opening.
//! - `failure`: which SQLite error is transient, poison or fatal, and its remedy.
//! - `schema`: tables and migrations.
//! - `writer`: the thread and its transactions.
//! - `apply`: the guarded write of one document.
//! - `totals`: the sums that every transaction keeps up to date.
//! - `read`: the queries.

mod apply;
mod connection;
mod failure;
mod read;
mod schema;
mod totals;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::document::{Collection, OrderRecord, Outcome, StoredDocument, VersionedDocument};
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::settings::SqliteSettings;
use crate::store::DocumentStore;
use crate::summary::{Arrivals, Summary};

use apply::Rule;
use connection::File;
use writer::Writer;

/// A document store in one SQLite file.
pub(crate) struct SqliteStore {
    file: File,
    writer: Writer,
    readers: Arc<Mutex<Vec<Connection>>>,
    reads: Arc<Semaphore>,
    metrics: StoreMetrics,
}

impl SqliteStore {
    pub(crate) fn open(settings: &SqliteSettings, metrics: StoreMetrics) -> Result<Self, StoreError> {
        let file = File::new(settings);
        let writer = Writer::start(file.clone())?;
        let readers = (0..settings.read_connections.max(1))
            .map(|_| file.open_reader())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            file,
            writer,
            reads: Arc::new(Semaphore::new(readers.len())),
            readers: Arc::new(Mutex::new(readers)),
            metrics,
        })
    }

    async fn write(
        &self,
        collection: Collection,
        rule: Rule,
        documents: &[VersionedDocument],
    ) -> Result<Outcome, StoreError> {
        let start = Instant::now();
        match self.writer.write(collection, rule, documents).await {
            Ok(outcome) => {
                self.metrics
                    .wrote(collection, &outcome, start.elapsed().as_secs_f64());
                Ok(outcome)
            }
            Err(error) => {
                self.metrics.failed(&error);
                Err(error)
            }
        }
    }

    /// Runs a query on a read connection, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let permit = Arc::clone(&self.reads)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::fatal("store_closed", format!("the store {} is closed", self.file)))?;
        let file = self.file.clone();
        let readers = Arc::clone(&self.readers);
        let run = move || -> Result<T, StoreError> {
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            // None only where a query panicked and took its connection with it.
            let connection = idle.map_or_else(|| file.open_reader(), Ok)?;
            let result = query(&connection);
            readers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            // Held to here, also when the caller has given up: as many queries run as there are
            // connections.
            drop(permit);
            result.map_err(|error| file.failure(&error))
        };
        let result = tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| {
            Err(StoreError::fatal(
                "query_panicked",
                format!("query `{name}`: {error}"),
            ))
        });
        match &result {
            Ok(_) => self.metrics.read(name, start.elapsed().as_secs_f64()),
            Err(error) => self.metrics.failed(error),
        }
        result
    }
}

#[async_trait]
impl DocumentStore for SqliteStore {
    async fn upsert_newer(
        &self,
        collection: Collection,
        documents: &[VersionedDocument],
    ) -> Result<Outcome, StoreError> {
        self.write(collection, Rule::Newer, documents).await
    }

    async fn insert_first(
        &self,
        collection: Collection,
        documents: &[VersionedDocument],
    ) -> Result<Outcome, StoreError> {
        self.write(collection, Rule::First, documents).await
    }

    async fn recent_orders(&self, limit: usize) -> Result<Vec<OrderRecord>, StoreError> {
        self.read("recent_orders", move |connection| {
            read::recent_orders(connection, limit)
        })
        .await
    }

    async fn order(&self, id: &str) -> Result<Option<OrderRecord>, StoreError> {
        let id = id.to_owned();
        self.read("order", move |connection| read::order(connection, &id))
            .await
    }

    async fn summary(&self) -> Result<Summary, StoreError> {
        self.read("summary", read::summary).await
    }

    async fn alerts(&self, limit: usize) -> Result<Vec<StoredDocument>, StoreError> {
        self.read("alerts", move |connection| read::alerts(connection, limit))
            .await
    }

    async fn page(
        &self,
        collection: Collection,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, StoreError> {
        let after = after.map(str::to_owned);
        self.read("page", move |connection| {
            read::page(connection, collection, after.as_deref(), limit)
        })
        .await
    }

    async fn arrivals(&self, since_ms: i64) -> Result<Vec<Arrivals>, StoreError> {
        self.read("arrivals", move |connection| read::arrivals(connection, since_ms))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read("ping", read::ping).await
    }

    fn describe(&self) -> String {
        format!("sqlite {}", self.file)
    }
}
