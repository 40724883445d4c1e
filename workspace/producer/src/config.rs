//! The sections `intake` and `producer`, beside those of Kafka.

use std::net::SocketAddr;
use std::time::Duration;

use domain::OrderSettings;
use serde::{Deserialize, Serialize};
use service::{Problems, Settings};
use stream::{KafkaSettings, TopicNames};

/// All that the producer can be told; the shell adds `service`, `admin` and `log`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// What the topics are called.
    pub topics: TopicNames,
    /// What all services agree on about orders.
    pub orders: OrderSettings,
    /// The HTTP intake.
    pub intake: IntakeSettings,
    /// What holds for all ways in.
    pub producer: ProducerSettings,
}

/// The section `intake`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntakeSettings {
    /// Address and port of the API; port 0 takes any free one.
    pub listen: String,
    /// How long a request waits for the broker before it is answered 503.
    pub acknowledge_timeout_ms: u64,
    /// Requests that are worked on at once; more are answered 503 at once. Each may hold 1 MiB.
    pub max_concurrent_requests: usize,
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            acknowledge_timeout_ms: 10_000,
            max_concurrent_requests: 256,
        }
    }
}

impl IntakeSettings {
    /// How long a request waits for the broker.
    pub fn acknowledge_timeout(&self) -> Duration {
        Duration::from_millis(self.acknowledge_timeout_ms)
    }
}

/// The section `producer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerSettings {
    /// How long to wait for Kafka at the start.
    pub connect_timeout_ms: u64,
    /// How long records that were sent may stay unacknowledged after the signal to stop.
    pub flush_timeout_ms: u64,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 30_000,
            flush_timeout_ms: 15_000,
        }
    }
}

impl ProducerSettings {
    /// How long to wait for Kafka at the start.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// How long to wait for acknowledgements after the signal to stop.
    pub fn flush_timeout(&self) -> Duration {
        Duration::from_millis(self.flush_timeout_ms)
    }
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        for (key, message) in self.kafka.problems().into_iter().chain(self.topics.problems()) {
            problems.add(key, message);
        }
        if self.intake.listen.parse::<SocketAddr>().is_err() {
            problems.add(
                "intake.listen",
                format!(
                    "`{}`, must be an address with a port such as `127.0.0.1:8080`",
                    self.intake.listen
                ),
            );
        }
        if !(1..=100_000).contains(&self.intake.max_concurrent_requests) {
            problems.add(
                "intake.max_concurrent_requests",
                format!(
                    "`{}`, must be from 1 to 100000",
                    self.intake.max_concurrent_requests
                ),
            );
        }
        let times = [
            (
                "intake.acknowledge_timeout_ms",
                self.intake.acknowledge_timeout_ms,
            ),
            ("producer.connect_timeout_ms", self.producer.connect_timeout_ms),
            ("producer.flush_timeout_ms", self.producer.flush_timeout_ms),
        ];
        for (key, value) in times {
            if !(100..=300_000).contains(&value) {
                problems.add(key, format!("`{value}`, must be from 100 to 300000"));
            }
        }
    }
}
