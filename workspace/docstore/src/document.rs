//! Collections, versions, documents and what a write did.

use crate::error::StoreError;

/// A set of documents of one kind; each has a key space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// Orders, under the order id's text.
    Orders,
    /// Fraud alerts, under the order id's text.
    Alerts,
    /// Payments, under the order id's text.
    Payments,
    /// Aggregates, one per (dimension, bucket, partition).
    Aggregates,
}

impl Collection {
    /// Every collection.
    pub const ALL: [Collection; 4] = [
        Collection::Orders,
        Collection::Alerts,
        Collection::Payments,
        Collection::Aggregates,
    ];

    /// The name of the collection: the table in SQLite, a label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Collection::Orders => "orders",
            Collection::Alerts => "alerts",
            Collection::Payments => "payments",
            Collection::Aggregates => "aggregates",
        }
    }
}

/// The place in the log that a document reflects. Versions compare by generation, then offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The incarnation of the topic; it grows when a topic was deleted and made anew.
    pub generation: i64,
    /// The offset in the document's one source partition.
    pub offset: i64,
}

/// A document to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedDocument {
    /// 1 to [`MAX_KEY_BYTES`] bytes.
    pub key: String,
    /// A JSON object of at most [`MAX_BODY_BYTES`] bytes.
    pub body: String,
    /// The place in the log that it reflects.
    pub version: Version,
}

/// The longest key that every engine takes (Couchbase has the lowest limit).
pub const MAX_KEY_BYTES: usize = 250;

/// The largest body: well above a record with its `_orderflow` (256 KiB plus 64 KiB), and one such
/// document still fits into one request to any engine.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A list ends early, after the document with which it passes this many bytes: a reader that asks
/// for a thousand of the largest documents does not get gigabytes.
pub const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// Its key.
    pub key: String,
    /// The JSON object, byte for byte as it was written.
    pub body: String,
    /// The place in the log that it reflects.
    pub version: Version,
}

/// An order with what the other workers found out about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRecord {
    /// The order.
    pub order: StoredDocument,
    /// Its payment, when it was settled or given up.
    pub payment: Option<StoredDocument>,
    /// Its alert, when it was found suspicious.
    pub alert: Option<StoredDocument>,
}

/// What a write did. `applied + skipped + refused.len()` is the length of the batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Documents that were written.
    pub applied: usize,
    /// Documents that changed nothing, because the store has them already, or something newer.
    pub skipped: usize,
    /// Documents that can never be stored, by their index in the batch.
    pub refused: Vec<(usize, StoreError)>,
}
