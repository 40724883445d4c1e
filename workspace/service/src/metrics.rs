//! What the shell itself measures.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::health::Health;
use crate::launch::ServiceInfo;

/// Constant 1, with the labels `service` and `version`.
pub const BUILD_INFO: &str = "orderflow_build_info";
/// Seconds since the last sign of life of a component, label `task`.
pub const HEARTBEAT_AGE_SECONDS: &str = "orderflow_heartbeat_age_seconds";
/// 1 when the process is ready, else 0.
pub const READY_STATE: &str = "orderflow_ready_state";

/// All names, for the reference and for the test that pins them.
pub const NAMES: [&str; 3] = [BUILD_INFO, HEARTBEAT_AGE_SECONDS, READY_STATE];

/// The shell's metrics in a registry, besides those of the operating system's process.
#[derive(Clone, Debug)]
pub(crate) struct ShellMetrics {
    heartbeat_age: GaugeVec,
    ready: Gauge,
}

impl ShellMetrics {
    pub(crate) fn register(registry: &Registry, info: &ServiceInfo) -> Result<Self, prometheus::Error> {
        let build = Gauge::with_opts(
            Opts::new(BUILD_INFO, "Constant 1; the labels tell what runs.")
                .const_label("service", info.name)
                .const_label("version", info.version),
        )?;
        build.set(1.0);
        let heartbeat_age = GaugeVec::new(
            Opts::new(
                HEARTBEAT_AGE_SECONDS,
                "Seconds since the last sign of life of a component.",
            ),
            &["task"],
        )?;
        let ready = Gauge::new(READY_STATE, "1 when the process is ready, else 0.")?;
        registry.register(Box::new(build))?;
        registry.register(Box::new(heartbeat_age.clone()))?;
        registry.register(Box::new(ready.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Self { heartbeat_age, ready })
    }

    /// Brings the gauges up to date, before each scrape.
    pub(crate) fn refresh(&self, health: &Health, stopping: bool) {
        // A component that ended must not keep its series.
        self.heartbeat_age.reset();
        for (task, age, _) in health.ages() {
            self.heartbeat_age
                .with_label_values(&[task.as_str()])
                .set(age.as_secs_f64());
        }
        let ready = !stopping && health.not_ready_reason().is_none();
        self.ready.set(if ready { 1.0 } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_these() {
        assert_eq!(
            NAMES,
            [
                "orderflow_build_info",
                "orderflow_heartbeat_age_seconds",
                "orderflow_ready_state"
            ]
        );
    }
}
