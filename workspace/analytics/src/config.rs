//! The sections that this service reads, and the section `analytics` itself.

use docstore::StoreSettings;
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
    /// Where documents are kept.
    pub store: StoreSettings,
    /// The section of this service.
    pub analytics: AnalyticsSettings,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        let sections = [
            self.kafka.problems(),
            self.topics.problems(),
            self.stream.problems(),
            self.store.problems(),
        ];
        for (key, message) in sections.into_iter().flatten() {
            problems.add(key, message);
        }
        if self.analytics.group.is_empty() {
            problems.add("analytics.group", "empty, must name a consumer group");
        }
        if self.analytics.generation < 0 {
            problems.add(
                "analytics.generation",
                format!("`{}`, must be 0 or more", self.analytics.generation),
            );
        }
    }
}

/// The section `analytics`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AnalyticsSettings {
    /// The consumer group.
    pub group: String,
    /// Which incarnation of the topics this is. Raise it when topics were deleted and made anew, so that
    /// their offsets, which start at 0 again, count as newer than what the store has.
    pub generation: i64,
}

impl Default for AnalyticsSettings {
    fn default() -> Self {
        Self {
            group: "analytics-group".to_owned(),
            generation: 0,
        }
    }
}
