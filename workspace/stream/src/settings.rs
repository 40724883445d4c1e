//! The config sections `kafka`, `topics` and `stream`, and what they mean to the client.

mod membership;

use std::path::PathBuf;
use std::time::Duration;

use domain::Secret;
use serde::{Deserialize, Serialize};

use crate::brake::BrakeLimits;
pub use crate::parking::{Delays, retry_topic_prefix};
pub(crate) use membership::INSTANCE_PROPERTY;
pub use membership::{Assignor, GroupProtocol};

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated: loopback and private networks only.
    Plaintext,
    /// TLS; with a client certificate also authenticated.
    Ssl,
    /// Authenticated, not encrypted.
    SaslPlaintext,
    /// TLS and authenticated: Confluent Cloud, MSK.
    SaslSsl,
}

impl SecurityProtocol {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    const fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How the service proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// Key and secret as they are; with TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge, SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge, SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How outputs are compressed on the wire and in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// Little CPU, good ratio.
    #[default]
    Lz4,
    /// More CPU, better ratio.
    Zstd,
}

impl Compression {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The section `kafka`: where the brokers are and who we are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// What the brokers call us in their logs and quotas; default `orderflow-<service>`.
    pub client_id: Option<String>,
    /// Default: `SASL_SSL` with an API key, else `PLAINTEXT`.
    pub security_protocol: Option<SecurityProtocol>,
    /// Default: `PLAIN`.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// SASL user name.
    pub api_key: Option<String>,
    /// SASL password.
    pub api_secret: Option<Secret>,
    /// PEM file with the certificate authorities to trust; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate (mTLS).
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the client certificate's private key (mTLS).
    pub key_file: Option<PathBuf>,
    /// Rack or zone of this process: fetches go to the nearest replica.
    pub client_rack: Option<String>,
    /// Compression of what we produce.
    pub compression: Compression,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            client_id: None,
            security_protocol: None,
            sasl_mechanism: None,
            api_key: None,
            api_secret: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            client_rack: None,
            compression: Compression::default(),
        }
    }
}

impl KafkaSettings {
    /// The protocol in force.
    #[must_use]
    pub fn protocol(&self) -> SecurityProtocol {
        match self.security_protocol {
            Some(protocol) => protocol,
            None if self.api_key.is_some() => SecurityProtocol::SaslSsl,
            None => SecurityProtocol::Plaintext,
        }
    }

    /// What is wrong with the section, as (dotted key, sentence).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for broker in self.brokers.split(',') {
            let port = broker
                .trim()
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(1..))) if !host.is_empty()) {
                problems.push((
                    "kafka.brokers",
                    format!("`{broker}`, must be `host:port` (several separated by commas)"),
                ));
            }
        }
        let sasl = self.protocol().is_sasl();
        if sasl && self.api_key.is_none() {
            problems.push((
                "kafka.api_key",
                format!(
                    "missing, and {} needs it (KAFKA_API_KEY)",
                    self.protocol().as_str()
                ),
            ));
        }
        if sasl && self.api_secret.is_none() {
            problems.push((
                "kafka.api_secret",
                format!(
                    "missing, and {} needs it (KAFKA_API_SECRET)",
                    self.protocol().as_str()
                ),
            ));
        }
        if !sasl && self.api_key.is_some() {
            problems.push((
                "kafka.security_protocol",
                format!(
                    "`{}` would not use `kafka.api_key`; set SASL_SSL or leave one of them out",
                    self.protocol().as_str()
                ),
            ));
        }
        let files = [
            ("kafka.ca_file", &self.ca_file),
            ("kafka.certificate_file", &self.certificate_file),
            ("kafka.key_file", &self.key_file),
        ];
        for (key, file) in files {
            let opened = file.as_ref().map(|path| (path, std::fs::File::open(path)));
            if let Some((path, Err(error))) = opened {
                problems.push((
                    key,
                    format!(
                        "`{}`, must be a PEM file that can be read: {error}",
                        path.display()
                    ),
                ));
            }
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            problems.push((
                "kafka.certificate_file",
                "`kafka.certificate_file` and `kafka.key_file` go together".to_owned(),
            ));
        }
        problems
    }

    /// The client properties that producer, consumer and admin client share.
    pub(crate) fn properties(&self, service: &str) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> = Vec::new();
        let mut set = |key: &str, value: &str| list.push((key.to_owned(), value.to_owned()));
        set("bootstrap.servers", &self.brokers);
        set(
            "client.id",
            &self
                .client_id
                .clone()
                .unwrap_or_else(|| format!("orderflow-{service}")),
        );
        set("security.protocol", self.protocol().as_str());
        if self.protocol().is_sasl() {
            set(
                "sasl.mechanism",
                self.sasl_mechanism.unwrap_or(SaslMechanism::Plain).as_str(),
            );
            set("sasl.username", self.api_key.as_deref().unwrap_or_default());
            set(
                "sasl.password",
                self.api_secret.as_ref().map(Secret::expose).unwrap_or_default(),
            );
        }
        let files = [
            ("ssl.ca.location", &self.ca_file),
            ("ssl.certificate.location", &self.certificate_file),
            ("ssl.key.location", &self.key_file),
        ];
        for (key, file) in files {
            if let Some(path) = file {
                set(key, &path.to_string_lossy());
            }
        }
        if let Some(rack) = &self.client_rack {
            set("client.rack", rack);
        }
        // librdkafka sends its own telemetry to the broker unless told otherwise.
        set("enable.metrics.push", "false");
        set("log.connection.close", "false");
        set("socket.keepalive.enable", "true");
        set("reconnect.backoff.max.ms", "2000");
        list
    }
}

/// The section `topics`: what the topics are called here.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicNames {
    /// Every order, keyed by its id.
    pub orders: String,
    /// One record per settled order.
    pub payments: String,
    /// One record per suspicious order.
    pub fraud_alerts: String,
    /// Envelopes of everything else that happens.
    pub order_events: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self {
            orders: "orders".to_owned(),
            payments: "payments".to_owned(),
            fraud_alerts: "fraud-alerts".to_owned(),
            order_events: "order-events".to_owned(),
        }
    }
}

impl TopicNames {
    /// What is wrong with the section, as (dotted key, sentence).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let names = [
            ("topics.orders", &self.orders),
            ("topics.payments", &self.payments),
            ("topics.fraud_alerts", &self.fraud_alerts),
            ("topics.order_events", &self.order_events),
        ];
        let mut problems = Vec::new();
        for (index, (key, name)) in names.iter().enumerate() {
            let legal = name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
            if name.is_empty() || name.len() > 200 || !legal {
                problems.push((*key, format!("`{name}`, must be 1 to 200 of a-z A-Z 0-9 . _ -")));
            }
            if let Some((other, _)) = names.iter().take(index).find(|(_, earlier)| earlier == name) {
                problems.push((*key, format!("`{name}` is the name of `{other}` already")));
            }
        }
        problems
    }
}

/// The name of the topic that takes the dead letters of a group that reads `source`.
#[must_use]
pub fn dead_letter_topic(source: &str, group: &str) -> String {
    format!("{source}.{group}.dlq")
}

/// When outputs and input offsets count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Outputs are acknowledged before the input offsets are committed: nothing is lost, and a crash
    /// in between does the work again.
    AtLeastOnce,
    /// Outputs and offsets go into one Kafka transaction: readers of committed records see all of it or
    /// nothing, and each record's effect once.
    #[default]
    ExactlyOnce,
}

/// In which order the effects of records come, where work waits for somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// In any order: nobody waits for anybody.
    #[default]
    Any,
    /// Those of one key in the order of its records. A record that fails for now holds up its key, and waits
    /// where it is instead of in a retry topic.
    PerKey,
}

/// The section `stream`: how the consume loop works.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// Consumer threads in this process.
    pub pumps: u16,
    /// When outputs and offsets count as one.
    pub delivery: Delivery,
    /// In which order effects come, where work waits for somebody else.
    pub ordering: Ordering,
    /// Who deals out the partitions of the group.
    pub group_protocol: GroupProtocol,
    /// How partitions move between members, default `cooperative-sticky`; with `classic` only.
    pub assignor: Option<Assignor>,
    /// Makes the pumps static members, with this name and their number: one that is back within the session
    /// time-out has its partitions without a rebalance of the others. Unique in the group, and the same after
    /// a restart; with `classic` only.
    pub group_instance_id: Option<String>,
    /// The oldest finished record waits at most so long for its commit while more are coming.
    pub commit_interval_ms: u64,
    /// The same while none are coming.
    pub idle_commit_interval_ms: u64,
    /// Records of one read at most.
    pub batch_records: usize,
    /// Records in work and not committed, per pump.
    pub budget_records: u64,
    /// Bytes in work and not committed, per pump.
    pub budget_bytes: u64,
    /// So many records of a partition are remembered, so that a repeat of one of them has no effect; 0
    /// remembers nothing.
    pub seen_records: usize,
    /// Records that are fetched ahead may take so much memory.
    pub prefetch_kbytes: u32,
    /// A member that is silent for so long loses its partitions, default 10,000; with `classic` only.
    pub session_timeout_ms: Option<u32>,
    /// How often the client looks whether topics have grown or moved: new partitions are found within it.
    pub metadata_refresh_ms: u32,
    /// One attempt of a concurrent handler may take so long.
    pub attempt_timeout_ms: u64,
    /// Attempts in place are over after so long, whatever their number.
    pub retry_deadline_ms: u64,
    /// The pause after the first failed attempt; it doubles from there.
    pub retry_first_ms: u64,
    /// How long a record waits whose attempts in place are over, one retry topic for each delay; `off`
    /// makes it a dead letter at once. Only work that waits for somebody else is tried again. With an order per
    /// key there are no retry topics, and the record waits as long in its place.
    pub retry_delays: String,
    /// So many dead letters in a row are allowed; one more pulls the brake. 0 is no limit.
    pub brake_in_a_row: u32,
    /// So many percent dead letters are allowed over the window; more pull the brake. 0 is no limit.
    pub brake_percent: u32,
    /// Over so many records that percentage counts.
    pub brake_window: usize,
    /// A partition that gets nowhere for so long, with records to read and without a reason that is known,
    /// ends the process.
    pub watchdog_ms: u64,
    /// At shutdown, work in flight may finish for so long.
    pub drain_timeout_ms: u64,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            pumps: 1,
            delivery: Delivery::default(),
            ordering: Ordering::default(),
            group_protocol: GroupProtocol::default(),
            assignor: None,
            group_instance_id: None,
            commit_interval_ms: 100,
            idle_commit_interval_ms: 5,
            batch_records: 2_000,
            budget_records: 50_000,
            budget_bytes: 32 << 20,
            seen_records: 100_000,
            prefetch_kbytes: 4_096,
            session_timeout_ms: None,
            metadata_refresh_ms: 30_000,
            attempt_timeout_ms: 30_000,
            retry_deadline_ms: 2_000,
            retry_first_ms: 50,
            retry_delays: "5s,1m,10m".to_owned(),
            brake_in_a_row: 100,
            brake_percent: 50,
            brake_window: 1_000,
            watchdog_ms: 120_000,
            drain_timeout_ms: 15_000,
        }
    }
}

/// At shutdown the last commit may take so long.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// At shutdown leaving the group may take so long.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// At shutdown flushing what is queued may take so long.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// A call about a transaction that takes so much longer than it was told is left behind.
pub(crate) const CALL_OVERRUN: Duration = Duration::from_millis(500);

/// An open transaction hides what comes after it from readers of committed records. Ours last
/// milliseconds, so one that takes so long has a dead owner, and Kafka aborts it.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What a producer of transactions has beyond any other producer of ours.
pub(crate) fn transaction_properties(id: &str) -> Vec<(String, String)> {
    [
        ("transactional.id", id),
        ("transaction.timeout.ms", "10000"),
        // An output that is not acknowledged in time fails before its transaction does.
        ("message.timeout.ms", "8000"),
        // Above COMMIT_TIMEOUT. A request that takes longer is sent again by librdkafka, which tells nobody;
        // the first one may still arrive when the next transaction is open, and end that one. Given up by
        // ourselves it meets a new epoch.
        ("socket.timeout.ms", "6000"),
        // A transaction that begins right after another one meets CONCURRENT_TRANSACTIONS while the
        // coordinator still writes markers, and the default of 100 ms would be the price of each commit.
        ("retry.backoff.ms", "1"),
        ("retry.backoff.max.ms", "5"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

impl StreamSettings {
    /// When the brake is pulled.
    #[must_use]
    pub const fn brake_limits(&self) -> BrakeLimits {
        BrakeLimits {
            in_a_row: self.brake_in_a_row,
            percent: self.brake_percent,
            window: self.brake_window,
        }
    }

    /// The longest that a shutdown takes: the orchestrator's own limit has to be above it.
    #[must_use]
    pub fn shutdown_limit(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms) + COMMIT_TIMEOUT + LEAVE_TIMEOUT + FLUSH_TIMEOUT
    }

    /// What is wrong with the section, as (dotted key, sentence).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut within = |key: &'static str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push((key, format!("`{value}`, must be {least} to {most}")));
            }
        };
        within("stream.pumps", self.pumps.into(), 1, 64);
        within("stream.commit_interval_ms", self.commit_interval_ms, 1, 60_000);
        within(
            "stream.idle_commit_interval_ms",
            self.idle_commit_interval_ms,
            1,
            60_000,
        );
        within("stream.batch_records", self.batch_records as u64, 1, 100_000);
        within("stream.budget_records", self.budget_records, 1, 10_000_000);
        within("stream.budget_bytes", self.budget_bytes, 1 << 20, 4 << 30);
        within("stream.seen_records", self.seen_records as u64, 0, 10_000_000);
        within(
            "stream.prefetch_kbytes",
            self.prefetch_kbytes.into(),
            1_024,
            1 << 20,
        );
        within(
            "stream.session_timeout_ms",
            self.session_timeout().into(),
            1_000,
            300_000,
        );
        within(
            "stream.metadata_refresh_ms",
            self.metadata_refresh_ms.into(),
            100,
            900_000,
        );
        within("stream.attempt_timeout_ms", self.attempt_timeout_ms, 1, 300_000);
        within("stream.retry_deadline_ms", self.retry_deadline_ms, 1, 60_000);
        within("stream.retry_first_ms", self.retry_first_ms, 1, 10_000);
        within("stream.drain_timeout_ms", self.drain_timeout_ms, 0, 45_000);
        within("stream.watchdog_ms", self.watchdog_ms, 1_000, 3_600_000);
        within("stream.brake_percent", self.brake_percent.into(), 0, 100);
        within("stream.brake_window", self.brake_window as u64, 10, 1_000_000);
        if let Err(message) = Delays::parse(&self.retry_delays) {
            problems.push(("stream.retry_delays", message));
        }
        problems.extend(self.membership_problems());
        problems
    }

    pub(crate) fn consumer_properties(&self, group: &str) -> Vec<(String, String)> {
        [
            ("group.id", group.to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            // A group without an offset starts at the earliest record, which the pump says explicitly;
            // an offset that the log no longer has is an error for a person to look at.
            ("auto.offset.reset", "error".to_owned()),
            // An end of partition inside of a batch moves the client's position one too far (librdkafka
            // 2.12, `rd_kafka_q_serve_rkmessages`), and the next pause or rebalance skips a record.
            ("enable.partition.eof", "false".to_owned()),
            ("isolation.level", "read_committed".to_owned()),
            (
                "topic.metadata.refresh.interval.ms",
                self.metadata_refresh_ms.to_string(),
            ),
            ("queued.max.messages.kbytes", self.prefetch_kbytes.to_string()),
            ("queued.min.messages", "10000".to_owned()),
            // The default of a second stalls a fast reader whenever its queue was full once.
            ("fetch.queue.backoff.ms", "5".to_owned()),
            // What a partition has fetched is in memory unpacked, several times as large.
            ("fetch.message.max.bytes", "262144".to_owned()),
            ("fetch.max.bytes", "8388608".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }
}

impl KafkaSettings {
    pub(crate) fn producer_properties(&self) -> Vec<(String, String)> {
        [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", self.compression.as_str()),
            ("linger.ms", "5"),
            // As Kafka's own client: whoever produces an order, its repeats meet in one partition.
            ("partitioner", "murmur2_random"),
            ("message.timeout.ms", "30000"),
            // A dead letter is its original with headers: it must fit whatever its source allowed.
            ("message.max.bytes", "2097152"),
            // Batches stay below what topics allow by default.
            ("batch.size", "1000000"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "65536"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_is_over_before_an_orchestrator_loses_patience() {
        // drain 15 + commit 5 + leave 3 + flush 5; the shell's own limit is 45 s, `stopTimeout` 60 s.
        assert_eq!(
            StreamSettings::default().shutdown_limit(),
            Duration::from_secs(28)
        );
    }

    #[test]
    fn we_give_up_a_request_before_the_client_sends_it_again() {
        let properties = transaction_properties("id");
        let limit = properties
            .iter()
            .find(|(key, _)| key == "socket.timeout.ms")
            .and_then(|(_, value)| value.parse().ok())
            .map(Duration::from_millis);
        assert!(limit > Some(COMMIT_TIMEOUT), "{limit:?}");
    }

    #[test]
    fn the_defaults_have_no_problems() {
        assert_eq!(StreamSettings::default().problems(), []);
        assert_eq!(KafkaSettings::default().problems(), []);
        assert_eq!(TopicNames::default().problems(), []);
    }

    #[test]
    fn an_api_key_means_an_encrypted_login_unless_told_otherwise() {
        let mut settings = KafkaSettings {
            api_key: Some("key".to_owned()),
            ..KafkaSettings::default()
        };
        assert_eq!(settings.protocol(), SecurityProtocol::SaslSsl);
        let keys: Vec<_> = settings.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["kafka.api_secret"]);
        settings.security_protocol = Some(SecurityProtocol::Plaintext);
        let keys: Vec<_> = settings.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["kafka.security_protocol"], "a key that would not be used");
    }
}
