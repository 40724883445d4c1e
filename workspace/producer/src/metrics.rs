//! What the producer measures.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Orders by how they ended: `acknowledged`, `rejected`, `skipped`, `undelivered`.
pub const ORDERS: &str = "orderflow_producer_orders_total";
/// Refused orders by code.
pub const REJECTIONS: &str = "orderflow_producer_rejections_total";
/// Requests of the intake by status.
pub const REQUESTS: &str = "orderflow_intake_requests_total";
/// Time until a request of the intake was answered, by status.
pub const REQUEST_SECONDS: &str = "orderflow_intake_request_duration_seconds";

/// The producer's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct ProducerMetrics {
    orders: IntCounterVec,
    rejections: IntCounterVec,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
}

impl ProducerMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// When the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, label| IntCounterVec::new(Opts::new(name, help), &[label]);
        let seconds = HistogramOpts::new(
            REQUEST_SECONDS,
            "Time until a request of the intake was answered.",
        )
        .buckets(vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ]);
        let metrics = Self {
            orders: counter(ORDERS, "Orders by how they ended.", "outcome")?,
            rejections: counter(REJECTIONS, "Refused orders by code.", "code")?,
            requests: counter(REQUESTS, "Requests of the intake by status.", "status")?,
            request_seconds: HistogramVec::new(seconds, &["status"])?,
        };
        registry.register(Box::new(metrics.orders.clone()))?;
        registry.register(Box::new(metrics.rejections.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        // Present from the start, so that a rate over them exists before the first event.
        for outcome in ["acknowledged", "rejected", "skipped", "undelivered"] {
            metrics.orders.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    pub(crate) fn acknowledged(&self) {
        self.orders.with_label_values(&["acknowledged"]).inc();
    }

    pub(crate) fn undelivered(&self) {
        self.orders.with_label_values(&["undelivered"]).inc();
    }

    pub(crate) fn skipped(&self) {
        self.orders.with_label_values(&["skipped"]).inc();
    }

    pub(crate) fn rejected(&self, code: &str) {
        self.orders.with_label_values(&["rejected"]).inc();
        self.rejections.with_label_values(&[code]).inc();
    }

    pub(crate) fn answered(&self, status: u16, seconds: f64) {
        let status = status.to_string();
        self.requests.with_label_values(&[&status]).inc();
        self.request_seconds
            .with_label_values(&[&status])
            .observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_as_documented() {
        let registry = Registry::new();
        let metrics = ProducerMetrics::register(&registry).unwrap();
        metrics.rejected("invalid_json");
        metrics.answered(201, 0.004);
        let names: Vec<_> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        assert_eq!(names, [REQUEST_SECONDS, REQUESTS, ORDERS, REJECTIONS]);
    }
}
