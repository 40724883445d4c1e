//! The sections of the configuration that every process has.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::config::Problems;

/// The sections of the shell itself. [`crate::load`] reads them for every binary.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShellSettings {
    /// Section `service`.
    pub service: ServiceSettings,
    /// Section `admin`.
    pub admin: AdminSettings,
    /// Section `log`.
    pub log: LogSettings,
}

impl ShellSettings {
    pub(crate) fn check(&self, problems: &mut Problems) {
        self.service.check(problems);
        self.admin.check(problems);
        self.log.check(problems);
    }
}

/// Section `service`: the process as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceSettings {
    /// Name of this instance, unique per service; the default is host name and process id.
    pub instance: Option<String>,
    /// Time from the first signal until the process ends by force. Must be above the sum of the
    /// drain, commit, leave and flush deadlines (28 s) and below the orchestrator's stop timeout.
    pub shutdown_timeout_ms: u64,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            instance: None,
            shutdown_timeout_ms: 45_000,
        }
    }
}

impl ServiceSettings {
    /// The name of this instance.
    pub fn instance(&self) -> String {
        self.instance.clone().unwrap_or_else(|| {
            let host = gethostname::gethostname();
            format!("{}-{}", host.to_string_lossy(), std::process::id())
        })
    }

    pub(crate) fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }

    fn check(&self, problems: &mut Problems) {
        // It becomes part of transactional ids and metric labels.
        let fits = |name: &str| {
            (1..=100).contains(&name.len())
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if let Some(name) = self.instance.as_deref().filter(|name| !fits(name)) {
            problems.add(
                "service.instance",
                format!("`{name}`, must be 1 to 100 letters, digits, dots, dashes or underscores"),
            );
        }
        if !(1_000..=600_000).contains(&self.shutdown_timeout_ms) {
            problems.add(
                "service.shutdown_timeout_ms",
                format!("`{}`, must be from 1000 to 600000", self.shutdown_timeout_ms),
            );
        }
    }
}

/// Section `admin`: the server of `/live`, `/ready` and `/metrics`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminSettings {
    /// `address:port`, with port 0 for any free one, or `off`. The default is the service's own
    /// port on loopback: an address that others can reach is set on purpose or not at all.
    pub listen: Option<String>,
}

/// Where the admin server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminListen {
    Off,
    At(SocketAddr),
}

impl AdminSettings {
    /// The address, given the service's default port; a default of 0 means no server unless asked.
    pub(crate) fn address(&self, default_port: u16) -> AdminListen {
        match self.listen.as_deref() {
            None if default_port == 0 => AdminListen::Off,
            None => AdminListen::At(SocketAddr::from(([127, 0, 0, 1], default_port))),
            Some(text) => text.parse().map_or(AdminListen::Off, AdminListen::At),
        }
    }

    fn check(&self, problems: &mut Problems) {
        if let Some(text) = self.listen.as_deref()
            && text != "off"
            && text.parse::<SocketAddr>().is_err()
        {
            problems.add(
                "admin.listen",
                format!("`{text}`, must be an address with a port such as `127.0.0.1:9462`, or `off`"),
            );
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// Section `log`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A level (`info`), or directives per crate (`info,stream=debug`). `RUST_LOG` sets it too.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

impl LogSettings {
    fn check(&self, problems: &mut Problems) {
        if EnvFilter::try_new(&self.level).is_err() {
            problems.add(
                "log.level",
                format!(
                    "`{}`, must be `error`, `warn`, `info`, `debug` or `trace`, or directives such as \
                     `info,stream=debug`",
                    self.level
                ),
            );
        }
    }
}
