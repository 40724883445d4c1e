//! What is measured of the calls to the gateway.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::circuit::Why;
use crate::gateway::GatewayError;

/// How long calls took, by call (`charge`, `lookup`) and answer (`paid`, `declined`, `found`, `nothing`,
/// `no_answer`, `unavailable`, `in_progress`, `refused`, `misconfigured`).
pub const REQUEST_SECONDS: &str = "orderflow_gateway_request_seconds";
/// Calls that are under way.
pub const IN_FLIGHT: &str = "orderflow_gateway_in_flight_requests";
/// 1 while orders wait for the gateway to be back, by reason (`outage`, `configuration`): a declared wait.
pub const WAITING: &str = "orderflow_gateway_waiting_state";
/// How often the circuit opened, by reason.
pub const OPENINGS: &str = "orderflow_gateway_circuit_openings_total";

/// The metrics of the gateway. Clones share them.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    request_seconds: HistogramVec,
    pub(crate) in_flight: IntGauge,
    waiting: IntGaugeVec,
    openings: IntCounterVec,
}

const REASONS: [Why; 2] = [Why::Outage, Why::Configuration];

const fn reason(why: Why) -> &'static str {
    match why {
        Why::Outage => "outage",
        Why::Configuration => "configuration",
    }
}

impl GatewayMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// When the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = HistogramOpts::new(REQUEST_SECONDS, "Duration of calls to the gateway").buckets(vec![
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ]);
        let metrics = Self {
            request_seconds: HistogramVec::new(seconds, &["call", "answer"])?,
            in_flight: IntGauge::new(IN_FLIGHT, "Calls to the gateway that are under way")?,
            waiting: IntGaugeVec::new(
                Opts::new(WAITING, "1 while orders wait for the gateway"),
                &["reason"],
            )?,
            openings: IntCounterVec::new(Opts::new(OPENINGS, "Times the circuit opened"), &["reason"])?,
        };
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.openings.clone()))?;
        // Present from the start, so that an alert has something to look at.
        for why in REASONS {
            metrics.waiting.with_label_values(&[reason(why)]);
            metrics.openings.with_label_values(&[reason(why)]);
        }
        Ok(metrics)
    }

    pub(crate) fn answered(&self, call: &str, answer: &str, took: Duration) {
        self.request_seconds
            .with_label_values(&[call, answer])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn opened(&self, why: Why) {
        self.openings.with_label_values(&[reason(why)]).inc();
        self.wait(Some(why));
    }

    pub(crate) fn closed(&self) {
        self.wait(None);
    }

    fn wait(&self, present: Option<Why>) {
        for why in REASONS {
            let gauge = self.waiting.with_label_values(&[reason(why)]);
            gauge.set(i64::from(present == Some(why)));
        }
    }
}

/// The label of an error.
pub(crate) const fn label(error: &GatewayError) -> &'static str {
    match error {
        GatewayError::NoAnswer { .. } => "no_answer",
        GatewayError::Unavailable { .. } => "unavailable",
        GatewayError::InProgress { .. } => "in_progress",
        GatewayError::Refused { .. } => "refused",
        GatewayError::Misconfigured { .. } => "misconfigured",
        GatewayError::Away { .. } => "away",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_metrics_is_as_documented() {
        let registry = Registry::new();
        let metrics = GatewayMetrics::register(&registry).unwrap();
        metrics.answered("charge", "paid", Duration::from_millis(4));
        let mut names: Vec<_> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        let mut listed = [REQUEST_SECONDS, IN_FLIGHT, WAITING, OPENINGS];
        names.sort();
        listed.sort_unstable();
        assert_eq!(names, listed);
    }

    #[test]
    fn a_wait_has_one_reason_at_a_time() {
        let metrics = GatewayMetrics::register(&Registry::new()).unwrap();
        let shown = || REASONS.map(|why| metrics.waiting.with_label_values(&[reason(why)]).get());
        metrics.opened(Why::Outage);
        assert_eq!(shown(), [1, 0]);
        metrics.opened(Why::Configuration);
        assert_eq!(shown(), [0, 1]);
        metrics.closed();
        assert_eq!(shown(), [0, 0]);
    }
}
