//! The trait, and [`open`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::document::{Collection, OrderRecord, Outcome, StoredDocument, VersionedDocument};
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::settings::StoreSettings;
use crate::sqlite::SqliteStore;
use crate::summary::{Arrivals, Summary};

/// A store of versioned documents. Every method may be called from many tasks at once; dropping a
/// call's future abandons the answer, never half a batch.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// Writes each document that is absent or of a lower [`Version`](crate::Version) in the store;
    /// an equal or higher one stays and counts as skipped. Documents of one batch count in order,
    /// so a key may occur twice.
    async fn upsert_newer(
        &self,
        collection: Collection,
        documents: &[VersionedDocument],
    ) -> Result<Outcome, StoreError>;

    /// Writes each document that is absent or of a lower *generation* in the store; a document of
    /// the same generation stays, whatever its offset, and counts as skipped: the first stands.
    async fn insert_first(
        &self,
        collection: Collection,
        documents: &[VersionedDocument],
    ) -> Result<Outcome, StoreError>;

    /// At most `limit` orders and about [`MAX_LIST_BYTES`](crate::document::MAX_LIST_BYTES), newest
    /// first: by record time, then by offset.
    async fn recent_orders(&self, limit: usize) -> Result<Vec<OrderRecord>, StoreError>;

    /// The order of this id, with its payment and alert.
    async fn order(&self, id: &str) -> Result<Option<OrderRecord>, StoreError>;

    /// Totals of everything stored.
    async fn summary(&self) -> Result<Summary, StoreError>;

    /// At most `limit` alerts and about [`MAX_LIST_BYTES`](crate::document::MAX_LIST_BYTES), newest
    /// first: by record time, then by offset.
    async fn alerts(&self, limit: usize) -> Result<Vec<StoredDocument>, StoreError>;

    /// The documents of a collection whose keys come after `after` (all of them for `None`), in the order
    /// of their keys: at most `limit` and about [`MAX_LIST_BYTES`](crate::document::MAX_LIST_BYTES). An
    /// empty page is the end.
    async fn page(
        &self,
        collection: Collection,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, StoreError>;

    /// The slots since `since_ms` in which something arrived, oldest first, at most
    /// [`Arrivals::SLOTS_KEPT`] of them.
    async fn arrivals(&self, since_ms: i64) -> Result<Vec<Arrivals>, StoreError>;

    /// Reads something, to learn whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What and where the store is, for logs and error texts: ``sqlite `orderflow.db` ``.
    fn describe(&self) -> String;
}

/// Opens the store that the settings name, and makes or upgrades it where that is needed. Blocks
/// for at most a few times `busy_timeout_ms` when another program holds the file.
pub fn open(settings: &StoreSettings) -> Result<Arc<dyn DocumentStore>, StoreError> {
    Ok(Arc::new(SqliteStore::open(
        &settings.sqlite,
        StoreMetrics::default(),
    )?))
}

/// Like [`open`], with the store's metrics in the registry of the process.
pub fn open_observed(
    settings: &StoreSettings,
    registry: &prometheus::Registry,
) -> Result<Arc<dyn DocumentStore>, StoreError> {
    let metrics = StoreMetrics::default();
    // Registered after opening: who waits for a locked file calls this again.
    let store = SqliteStore::open(&settings.sqlite, metrics.clone())?;
    metrics.register(registry).map_err(|error| {
        StoreError::fatal(
            "metrics",
            format!("can not register the store's metrics: {error}"),
        )
    })?;
    Ok(Arc::new(store))
}
