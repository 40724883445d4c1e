//! What the broker counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of the broker's counters. Totals count from the start of the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that are open now.
    pub connections_open: u64,
    /// Connections that were accepted.
    pub connections_total: u64,
    /// Connections that were closed at once because too many were open.
    pub connections_refused_total: u64,
    /// Requests that were read whole.
    pub requests_total: u64,
    /// Connections that were closed because what they sent is not a Kafka request.
    pub malformed_total: u64,
    /// Records that were appended.
    pub records_appended_total: u64,
    /// Bytes of batches that were appended, as they came in.
    pub bytes_appended_total: u64,
    /// Batches that were recognised as repeats of an idempotent producer and not appended again.
    pub duplicate_batches_total: u64,
    /// Bytes of batches that are kept now.
    pub bytes_stored: u64,
    /// Records that retention dropped.
    pub retention_dropped_records_total: u64,
    /// Bytes that retention dropped.
    pub retention_dropped_bytes_total: u64,
    /// Records that compaction removed.
    pub compacted_records_total: u64,
    /// Topics that exist now.
    pub topics: u64,
    /// Consumer groups that exist now.
    pub groups: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_open: Counter,
    pub(crate) connections: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) requests: Counter,
    pub(crate) malformed: Counter,
    pub(crate) records_appended: Counter,
    pub(crate) bytes_appended: Counter,
    pub(crate) duplicate_batches: Counter,
    pub(crate) bytes_stored: Counter,
    pub(crate) retention_dropped_records: Counter,
    pub(crate) retention_dropped_bytes: Counter,
    pub(crate) compacted_records: Counter,
}
