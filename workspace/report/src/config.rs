//! The config section `report`.

use std::net::SocketAddr;
use std::time::Duration;

use docstore::StoreSettings;
use serde::{Deserialize, Serialize};
use service::{Problems, Settings};

/// All that the report can be told; the shell adds `service`, `admin` and `log`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the documents are.
    pub store: StoreSettings,
    /// The API and the page.
    pub report: ReportSettings,
}

/// The section `report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportSettings {
    /// Address and port of the API and the page; port 0 takes any free one.
    pub listen: String,
    /// When a request that has no answer yet is given up with 503.
    pub request_timeout_ms: u64,
    /// Requests that are worked on at once; more are answered 503 with `retry-after`.
    pub max_concurrent_requests: usize,
}

impl Default for ReportSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".to_owned(),
            request_timeout_ms: 10_000,
            max_concurrent_requests: 256,
        }
    }
}

impl ReportSettings {
    /// When a request that has no answer yet is given up.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        for (key, message) in self.store.problems() {
            problems.add(key, message);
        }
        let report = &self.report;
        if report.listen.parse::<SocketAddr>().is_err() {
            problems.add(
                "report.listen",
                format!(
                    "`{}`, must be an address with a port such as `127.0.0.1:8000`",
                    report.listen
                ),
            );
        }
        if !(100..=300_000).contains(&report.request_timeout_ms) {
            problems.add(
                "report.request_timeout_ms",
                format!("`{}`, must be from 100 to 300000", report.request_timeout_ms),
            );
        }
        if !(1..=100_000).contains(&report.max_concurrent_requests) {
            problems.add(
                "report.max_concurrent_requests",
                format!("`{}`, must be from 1 to 100000", report.max_concurrent_requests),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use service::{Environment, load};

    use super::*;

    #[test]
    fn the_defaults_load() {
        let loaded = load::<Config>(None, &Environment::default(), &[]).unwrap();
        assert_eq!(loaded.settings.report, ReportSettings::default());
        assert_eq!(loaded.settings.store, StoreSettings::default());
    }

    #[test]
    fn the_environment_sets_values_and_every_bad_one_is_named_with_its_source() {
        let good = [
            ("ORDERFLOW__REPORT__LISTEN", "0.0.0.0:80"),
            ("ORDERFLOW__STORE__SQLITE__SYNCHRONOUS", "normal"),
        ];
        let loaded = load::<Config>(None, &good.into_iter().collect(), &[])
            .unwrap()
            .settings;
        assert_eq!(loaded.report.listen, "0.0.0.0:80");
        assert_eq!(loaded.store.sqlite.synchronous, docstore::Synchronous::Normal);

        let bad = [
            ("ORDERFLOW__REPORT__LISTEN", "8000"),
            ("ORDERFLOW__REPORT__REQUEST_TIMEOUT_MS", "5"),
            ("ORDERFLOW__REPORT__MAX_CONCURRENT_REQUESTS", "0"),
            ("ORDERFLOW__STORE__SQLITE__READ_CONNECTIONS", "0"),
        ];
        let error = load::<Config>(None, &bad.into_iter().collect(), &[])
            .unwrap_err()
            .to_string();
        for (variable, value) in bad {
            let line = error
                .lines()
                .find(|line| line.contains(variable))
                .unwrap_or_else(|| panic!("{error}"));
            assert!(line.contains(&format!("`{value}`, must be ")), "{line}");
        }
    }
}
