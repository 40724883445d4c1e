//! What all commands that ask a cluster share: where it is, and how long it may be away.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::{Flag, Problems, Settings};
use stream::{KafkaSettings, TopicNames};

/// How long Kafka may be away.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The configuration of a command that only looks at topics and groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterConfig {
    pub kafka: KafkaSettings,
    pub topics: TopicNames,
}

impl Settings for ClusterConfig {
    fn check(&self, problems: &mut Problems) {
        for (key, message) in self.kafka.problems().into_iter().chain(self.topics.problems()) {
            problems.add(key, message);
        }
    }
}

/// What `--brokers` says, where it is given.
pub(crate) fn brokers_flag(brokers: Option<&String>) -> Vec<Flag> {
    let flag = brokers.map(|brokers| Flag {
        key: "kafka.brokers",
        value: brokers.clone(),
        name: "--brokers",
    });
    flag.into_iter().collect()
}
