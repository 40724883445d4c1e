//! Names and registration of the metrics.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::document::{Collection, Outcome};
use crate::error::StoreError;

/// Documents by `collection` and `result` (`applied`, `skipped`, `refused`), counted after the
/// batch was on disk.
pub const STORE_DOCUMENTS_TOTAL: &str = "orderflow_store_documents_total";
/// Seconds from a batch's arrival to its answer, waiting in the queue included, by `collection`.
pub const STORE_WRITE_SECONDS: &str = "orderflow_store_write_seconds";
/// Seconds of a read, by `query`.
pub const STORE_READ_SECONDS: &str = "orderflow_store_read_seconds";
/// Calls that failed, by `kind` (`transient`, `fatal`) and `code`.
pub const STORE_ERRORS_TOTAL: &str = "orderflow_store_errors_total";

/// Every metric of this crate.
pub const NAMES: [&str; 4] = [
    STORE_DOCUMENTS_TOTAL,
    STORE_WRITE_SECONDS,
    STORE_READ_SECONDS,
    STORE_ERRORS_TOTAL,
];

const BUCKETS_SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// The metrics; they count whether or not a registry shows them.
#[derive(Clone, Debug)]
pub(crate) struct StoreMetrics {
    documents: IntCounterVec,
    write_seconds: HistogramVec,
    read_seconds: HistogramVec,
    errors: IntCounterVec,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        // The names and labels are the constants of this file, and the test below builds them all.
        #[allow(clippy::expect_used)]
        Self::new().expect("metric names and labels are valid constants")
    }
}

impl StoreMetrics {
    fn new() -> prometheus::Result<Self> {
        let seconds = |name, help, label| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(BUCKETS_SECONDS.to_vec()),
                &[label],
            )
        };
        Ok(Self {
            documents: IntCounterVec::new(
                Opts::new(
                    STORE_DOCUMENTS_TOTAL,
                    "Documents by collection and result, once on disk.",
                ),
                &["collection", "result"],
            )?,
            write_seconds: seconds(
                STORE_WRITE_SECONDS,
                "Seconds from a batch's arrival to its answer.",
                "collection",
            )?,
            read_seconds: seconds(STORE_READ_SECONDS, "Seconds of a read.", "query")?,
            errors: IntCounterVec::new(
                Opts::new(STORE_ERRORS_TOTAL, "Calls that failed."),
                &["kind", "code"],
            )?,
        })
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 4] = [
            Box::new(self.documents.clone()),
            Box::new(self.write_seconds.clone()),
            Box::new(self.read_seconds.clone()),
            Box::new(self.errors.clone()),
        ];
        all.into_iter()
            .try_for_each(|collector| registry.register(collector))
    }

    pub(crate) fn wrote(&self, collection: Collection, outcome: &Outcome, seconds: f64) {
        let count = |result, documents: usize| {
            self.documents
                .with_label_values(&[collection.as_str(), result])
                .inc_by(documents as u64);
        };
        count("applied", outcome.applied);
        count("skipped", outcome.skipped);
        count("refused", outcome.refused.len());
        self.write_seconds
            .with_label_values(&[collection.as_str()])
            .observe(seconds);
    }

    pub(crate) fn read(&self, query: &'static str, seconds: f64) {
        self.read_seconds.with_label_values(&[query]).observe(seconds);
    }

    pub(crate) fn failed(&self, error: &StoreError) {
        self.errors
            .with_label_values(&[error.kind().as_str(), error.code()])
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_what_is_registered() {
        let registry = Registry::new();
        let metrics = StoreMetrics::default();
        metrics.register(&registry).unwrap();
        metrics.wrote(Collection::Orders, &Outcome::default(), 0.1);
        metrics.read("order", 0.1);
        metrics.failed(&StoreError::transient("locked", ""));
        let mut names: Vec<_> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        let mut want = NAMES.to_vec();
        names.sort_unstable();
        want.sort_unstable();
        assert_eq!(names, want);
        assert_eq!(
            NAMES,
            [
                "orderflow_store_documents_total",
                "orderflow_store_write_seconds",
                "orderflow_store_read_seconds",
                "orderflow_store_errors_total"
            ]
        );
    }
}
