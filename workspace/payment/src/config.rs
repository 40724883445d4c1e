//! The sections that this service reads, and the section `payment` itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use domain::{OrderSettings, Secret};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use service::{Problems, Settings};
use stream::{KafkaSettings, StreamSettings, TopicNames};

use crate::circuit::Limits;

/// The configuration of this service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// What the topics are called.
    pub topics: TopicNames,
    /// How the consume loop works.
    pub stream: StreamSettings,
    /// What all services agree on about orders.
    pub orders: OrderSettings,
    /// The gateway.
    pub payment: PaymentSettings,
}

impl Default for Config {
    fn default() -> Self {
        // An order in work is a task with all that it carries. So many at once are twice what the wanted
        // 20,000 orders/s need with a gateway that takes 100 ms and commits every 100 ms.
        let stream = StreamSettings {
            budget_records: 8_000,
            ..StreamSettings::default()
        };
        Self {
            kafka: KafkaSettings::default(),
            topics: TopicNames::default(),
            stream,
            orders: OrderSettings::default(),
            payment: PaymentSettings::default(),
        }
    }
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        let sections = [
            self.kafka.problems(),
            self.topics.problems(),
            self.stream.problems(),
        ];
        for (key, message) in sections.into_iter().flatten() {
            problems.add(key, message);
        }
        self.payment.check(problems);
        self.payment
            .gateway
            .check(self.stream.attempt_timeout_ms, problems);
    }
}

/// The section `payment`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct PaymentSettings {
    /// The consumer group.
    pub group: String,
    /// Which gateway, and how it is asked.
    pub gateway: GatewaySettings,
    /// The simulated gateway.
    pub simulated: SimulatedSettings,
}

impl Default for PaymentSettings {
    fn default() -> Self {
        Self {
            group: "payments-group".to_owned(),
            gateway: GatewaySettings::default(),
            simulated: SimulatedSettings::default(),
        }
    }
}

/// Which gateway settles the orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayKind {
    /// The one of the section `payment.simulated`, for demonstrations.
    #[default]
    Simulated,
    /// The one at `payment.gateway.url`.
    Http,
}

/// The section `payment.gateway`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewaySettings {
    /// Which gateway.
    pub kind: GatewayKind,
    /// Where charges are posted to; `<url>/<payment_id>` is where they are looked up.
    pub url: Option<String>,
    /// Sent as `Authorization: Bearer`.
    pub bearer_token: Option<Secret>,
    /// PEM file with the certificate authorities to trust; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Time to connect.
    pub connect_timeout_ms: u64,
    /// Time from the start of a call until its answer is read to the end.
    pub request_timeout_ms: u64,
    /// Calls at once.
    pub max_in_flight: usize,
    /// How long the gateway keeps an idempotency key. An order that was sent longer ago is looked up
    /// before it is charged.
    pub key_lifetime_ms: u64,
    /// Failures in a row that open the circuit; half of the last 32 answers do too.
    pub circuit_failures: u32,
    /// How long the circuit is open the first time; doubled each time that the gateway is still away.
    pub circuit_open_ms: u64,
    /// The circuit is never open for longer, unless the gateway asks for it.
    pub circuit_open_most_ms: u64,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            kind: GatewayKind::default(),
            url: None,
            bearer_token: None,
            ca_file: None,
            connect_timeout_ms: 2_000,
            request_timeout_ms: 5_000,
            max_in_flight: 512,
            key_lifetime_ms: 24 * 3_600_000,
            circuit_failures: 5,
            circuit_open_ms: 1_000,
            circuit_open_most_ms: 30_000,
        }
    }
}

impl GatewaySettings {
    /// The URL, where there is one and it is one.
    #[must_use]
    pub fn parsed_url(&self) -> Option<Url> {
        Url::parse(self.url.as_deref()?).ok()
    }

    /// When the circuit opens, and for how long.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            failures: self.circuit_failures,
            first: Duration::from_millis(self.circuit_open_ms),
            most: Duration::from_millis(self.circuit_open_most_ms),
        }
    }

    fn check(&self, attempt_timeout_ms: u64, problems: &mut Problems) {
        match (self.kind, &self.url) {
            (GatewayKind::Http, None) => {
                problems.add(
                    "payment.gateway.url",
                    "missing, and `payment.gateway.kind` is `http`",
                );
            }
            (GatewayKind::Http, Some(url)) => self.check_url(url, problems),
            (GatewayKind::Simulated, Some(_)) => problems.add(
                "payment.gateway.kind",
                "`simulated`, which would not use `payment.gateway.url`: set `http` or leave the URL out",
            ),
            (GatewayKind::Simulated, None) => {}
        }
        if let Some(path) = &self.ca_file
            && let Err(error) = std::fs::File::open(path)
        {
            let path = path.display();
            problems.add(
                "payment.gateway.ca_file",
                format!("`{path}`, must be a PEM file that can be read: {error}"),
            );
        }
        let ranges = [
            ("connect_timeout_ms", self.connect_timeout_ms, 1, 60_000),
            ("request_timeout_ms", self.request_timeout_ms, 1, 60_000),
            (
                "max_in_flight",
                u64::try_from(self.max_in_flight).unwrap_or(u64::MAX),
                1,
                100_000,
            ),
            ("key_lifetime_ms", self.key_lifetime_ms, 0, 366 * 24 * 3_600_000),
            ("circuit_failures", u64::from(self.circuit_failures), 1, 32),
            ("circuit_open_ms", self.circuit_open_ms, 1, 600_000),
            (
                "circuit_open_most_ms",
                self.circuit_open_most_ms,
                self.circuit_open_ms,
                3_600_000,
            ),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                problems.add(
                    &format!("payment.gateway.{key}"),
                    format!("`{value}`, must be {least} to {most}"),
                );
            }
        }
        // An attempt makes two calls at the most, and a last word three: each must be heard to its end.
        if self.kind == GatewayKind::Http && self.request_timeout_ms.saturating_mul(4) > attempt_timeout_ms {
            problems.add(
                "payment.gateway.request_timeout_ms",
                format!(
                    "`{}`, must be at most a quarter of `stream.attempt_timeout_ms` ({attempt_timeout_ms})",
                    self.request_timeout_ms
                ),
            );
        }
    }

    fn check_url(&self, text: &str, problems: &mut Problems) {
        let key = "payment.gateway.url";
        let Some(url) = self.parsed_url().filter(|url| url.has_host()) else {
            problems.add(key, format!("`{text}`, must be an `https` or `http` URL"));
            return;
        };
        if !url.username().is_empty() || url.password().is_some() {
            // Not shown: it holds a secret.
            problems.add(
                key,
                "holds credentials, which belong into `payment.gateway.bearer_token`",
            );
            return;
        }
        if !matches!(url.scheme(), "https" | "http") {
            problems.add(key, format!("`{text}`, must be an `https` or `http` URL"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            problems.add(key, format!("`{text}`, must end with its path"));
        }
        if url.scheme() == "http" && self.bearer_token.is_some() && !is_loopback(&url) {
            problems.add(
                key,
                format!("`{text}`, which would send `payment.gateway.bearer_token` unprotected, use `https`"),
            );
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The section `payment.simulated`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SimulatedSettings {
    /// How long the gateway takes for an answer.
    pub delay_ms: u64,
    /// Which share of the orders it declines, 0 to 1.
    pub decline_share: f64,
    /// For which share of the orders it never answers with success or refusal, 0 to 1.
    pub fail_share: f64,
    /// Another seed, other orders.
    pub seed: u64,
}

impl Default for SimulatedSettings {
    fn default() -> Self {
        Self {
            delay_ms: 100,
            decline_share: 0.0,
            fail_share: 0.0,
            seed: 0,
        }
    }
}

impl PaymentSettings {
    fn check(&self, problems: &mut Problems) {
        if self.group.is_empty() {
            problems.add("payment.group", "empty, must name a consumer group");
        }
        let simulated = &self.simulated;
        if simulated.delay_ms > 60_000 {
            problems.add(
                "payment.simulated.delay_ms",
                format!("`{}`, must be 0 to 60000", simulated.delay_ms),
            );
        }
        for (key, share) in [
            ("payment.simulated.decline_share", simulated.decline_share),
            ("payment.simulated.fail_share", simulated.fail_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                problems.add(key, format!("`{share}`, must be 0 to 1"));
            }
        }
        if simulated.decline_share + simulated.fail_share > 1.0 {
            problems.add(
                "payment.simulated.fail_share",
                "adds up to more than 1 with `payment.simulated.decline_share`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use service::{Environment, load};

    use super::*;

    /// The lines of the refusal of these variables, or nothing where they are fine.
    fn refusal(variables: &[(&str, &str)]) -> Vec<String> {
        let named = variables
            .iter()
            .map(|(key, value)| (format!("ORDERFLOW__PAYMENT__GATEWAY__{key}"), (*value).to_owned()));
        match load::<Config>(None, &Environment::from_iter(named), &[]) {
            Ok(_) => Vec::new(),
            Err(error) => {
                let text = error.to_string();
                text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
            }
        }
    }

    const HTTP: (&str, &str) = ("KIND", "http");

    #[test]
    fn an_address_that_can_be_used_is_accepted() {
        for url in [
            "https://payments.example/charges",
            "http://127.0.0.1:8080/charges",
            "http://[::1]:8080/",
            "https://payments.example:8443",
        ] {
            let variables = [HTTP, ("URL", url), ("BEARER_TOKEN", "hunter2")];
            assert_eq!(refusal(&variables), [""; 0], "{url}");
        }
        assert_eq!(refusal(&[]), [""; 0], "the default is the simulated one");
    }

    #[test]
    fn each_mistake_is_named_with_its_remedy() {
        let url = ("URL", "https://payments.example");
        let table: [(&[(&str, &str)], &str); 12] = [
            (
                &[HTTP],
                "`payment.gateway.url` is missing, and `payment.gateway.kind` is `http`",
            ),
            (&[url], "`payment.gateway.url`: set `http` or leave the URL out"),
            (
                &[HTTP, ("URL", "payments.example")],
                "must be an `https` or `http` URL",
            ),
            (
                &[HTTP, ("URL", "ftp://payments.example")],
                "must be an `https` or `http` URL",
            ),
            (
                &[HTTP, ("URL", "https://payments.example/?a=1")],
                "must end with its path",
            ),
            (
                &[HTTP, ("URL", "https://me:hunter2@payments.example")],
                "belong into `payment.gateway.bearer_token`",
            ),
            (
                &[
                    HTTP,
                    ("URL", "http://payments.example"),
                    ("BEARER_TOKEN", "hunter2"),
                ],
                "unprotected, use `https`",
            ),
            (
                &[HTTP, url, ("REQUEST_TIMEOUT_MS", "20000")],
                "at most a quarter of `stream.attempt_timeout_ms` (30000)",
            ),
            (&[HTTP, url, ("MAX_IN_FLIGHT", "0")], "must be 1 to 100000"),
            (&[HTTP, url, ("CIRCUIT_FAILURES", "33")], "must be 1 to 32"),
            (
                &[
                    HTTP,
                    url,
                    ("CIRCUIT_OPEN_MS", "5000"),
                    ("CIRCUIT_OPEN_MOST_MS", "1000"),
                ],
                "must be 5000 to 3600000",
            ),
            (
                &[HTTP, url, ("CA_FILE", "/nowhere/ca.pem")],
                "must be a PEM file that can be read",
            ),
        ];
        for (variables, wanted) in table {
            let lines = refusal(variables);
            assert_eq!(lines.len(), 1, "{variables:?}: {lines:?}");
            assert!(lines[0].contains(wanted), "{variables:?}: {lines:?}");
            assert!(!lines[0].contains("hunter2"), "{lines:?}");
        }
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config/orderflow.toml");
        let text = std::fs::read_to_string(example).unwrap();
        let loaded = load::<Config>(Some(example.as_ref()), &Environment::default(), &[]);
        let payment = loaded.unwrap().settings.payment;
        assert_eq!(payment.gateway, GatewaySettings::default());
        assert_eq!(payment.simulated, SimulatedSettings::default());
        // Each key stands there, those without a default as a comment.
        let section = text.split("[payment.gateway]").nth(1).unwrap();
        let section = section.split("[payment.simulated]").next().unwrap();
        let keys = serde_json::to_value(GatewaySettings::default()).unwrap();
        for key in keys.as_object().unwrap().keys() {
            let named = |line: &str| line.trim_start_matches("# ").starts_with(key.as_str());
            assert!(section.lines().any(named), "`{key}` is missing");
        }
    }

    #[test]
    fn the_token_can_be_read_from_a_file() {
        let file = std::env::temp_dir().join(format!("orderflow-token-{}", std::process::id()));
        std::fs::write(&file, "hunter2\n").unwrap();
        let variables = [
            (
                "ORDERFLOW__PAYMENT__GATEWAY__BEARER_TOKEN_FILE",
                file.to_str().unwrap(),
            ),
            ("ORDERFLOW__PAYMENT__GATEWAY__KIND", "http"),
            ("ORDERFLOW__PAYMENT__GATEWAY__URL", "https://payments.example"),
        ];
        let loaded = load::<Config>(None, &Environment::from_iter(variables), &[]);
        std::fs::remove_file(&file).unwrap();
        let gateway = loaded.unwrap().settings.payment.gateway;
        assert_eq!(gateway.bearer_token, Some(Secret::new("hunter2")));
    }
}
