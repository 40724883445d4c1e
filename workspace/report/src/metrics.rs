//! Names and registration of the metrics.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Requests by `route` and `status`, counted when the answer's head is ready.
pub const REPORT_REQUESTS_TOTAL: &str = "orderflow_report_requests_total";
/// Seconds until the answer's head was ready, by `route`.
pub const REPORT_REQUEST_SECONDS: &str = "orderflow_report_request_seconds";

/// Every metric of this crate.
pub const NAMES: [&str; 2] = [REPORT_REQUESTS_TOTAL, REPORT_REQUEST_SECONDS];

const BUCKETS_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];

/// The metrics; they count whether or not a registry shows them.
#[derive(Clone, Debug)]
pub struct ReportMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Default for ReportMetrics {
    fn default() -> Self {
        // Names and labels are the constants of this file, and the test below builds them.
        #[allow(clippy::expect_used)]
        Self::new().expect("metric names and labels are valid constants")
    }
}

impl ReportMetrics {
    fn new() -> prometheus::Result<Self> {
        let requests = Opts::new(REPORT_REQUESTS_TOTAL, "Requests by route and status.");
        let seconds = HistogramOpts::new(
            REPORT_REQUEST_SECONDS,
            "Seconds until the answer's head was ready.",
        );
        Ok(Self {
            requests: IntCounterVec::new(requests, &["route", "status"])?,
            seconds: HistogramVec::new(seconds.buckets(BUCKETS_SECONDS.to_vec()), &["route"])?,
        })
    }

    /// Shows the metrics in this registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.seconds.clone()))
    }

    pub(crate) fn answered(&self, route: &str, status: u16, seconds: f64) {
        self.requests
            .with_label_values(&[route, &status.to_string()])
            .inc();
        self.seconds.with_label_values(&[route]).observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_what_is_registered() {
        let registry = Registry::new();
        let metrics = ReportMetrics::default();
        metrics.register(&registry).unwrap();
        metrics.answered("page", 200, 0.1);
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
                "orderflow_report_requests_total",
                "orderflow_report_request_seconds"
            ]
        );
    }
}
