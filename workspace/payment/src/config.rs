//! The sections that this service reads, and the section `payment` itself.

use domain::OrderSettings;
use serde::{Deserialize, Serialize};
use service::{Problems, Settings};
use stream::{KafkaSettings, StreamSettings, TopicNames};

/// The configuration of this service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    }
}

/// The section `payment`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct PaymentSettings {
    /// The consumer group.
    pub group: String,
    /// The simulated gateway.
    pub simulated: SimulatedSettings,
}

impl Default for PaymentSettings {
    fn default() -> Self {
        Self {
            group: "payments-group".to_owned(),
            simulated: SimulatedSettings::default(),
        }
    }
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
