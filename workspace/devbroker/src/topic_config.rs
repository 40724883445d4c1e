//! Topic names and topic settings, checked as Kafka checks them.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use crate::batch::Refusal;

/// Settings that change what this broker does.
const HONOURED: [&str; 4] = [
    "cleanup.policy",
    "max.message.bytes",
    "retention.bytes",
    "retention.ms",
];

/// Settings of Kafka that are kept and shown, and change nothing in one process without a disk.
const WITHOUT_EFFECT: [&str; 20] = [
    "compression.type",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "segment.bytes",
    "segment.index.bytes",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// The settings of one topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TopicConfig {
    given: BTreeMap<String, String>,
    retention_bytes: Option<u64>,
    retention_ms: Option<i64>,
    max_message_bytes: Option<u32>,
}

/// One line of a DescribeConfigs answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConfigEntry {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) is_default: bool,
}

impl TopicConfig {
    pub(crate) fn parse<'a>(
        entries: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, Refusal> {
        let mut config = Self::default();
        for (name, value) in entries {
            let Some(value) = value else {
                return Err(invalid(format!("`{name}` has no value")));
            };
            config.set(name, value)?;
            config.given.insert(name.to_owned(), value.to_owned());
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "retention.bytes" => self.retention_bytes = unlimited_or(name, value)?.map(i64::unsigned_abs),
            "retention.ms" => self.retention_ms = unlimited_or(name, value)?,
            "max.message.bytes" => {
                let bytes: u32 = value.parse().map_err(|_| not_a_number(name, value))?;
                self.max_message_bytes = Some(bytes);
            }
            "cleanup.policy" if !["delete", "compact"].contains(&value) && !is_both_policies(value) => {
                return Err(invalid(format!(
                    "`{name}` is `{value}`, must be `delete`, `compact` or both"
                )));
            }
            "message.timestamp.type" if value != "CreateTime" => {
                return Err(invalid(format!(
                    "`{name}` is `{value}`; this broker keeps the producer's timestamps (`CreateTime`) only"
                )));
            }
            name if HONOURED.contains(&name) || WITHOUT_EFFECT.contains(&name) => {}
            _ => return Err(invalid(format!("unknown topic setting `{name}`"))),
        }
        Ok(())
    }

    /// The bound of each partition. A topic that is only compacted has none, as in Kafka.
    pub(crate) fn retention_bytes(&self) -> Option<u64> {
        self.retention_bytes.filter(|_| self.deletes())
    }

    /// The age at which a batch goes, in milliseconds.
    pub(crate) fn retention_ms(&self) -> Option<i64> {
        self.retention_ms.filter(|_| self.deletes())
    }

    pub(crate) fn max_message_bytes(&self) -> Option<u32> {
        self.max_message_bytes
    }

    fn deletes(&self) -> bool {
        self.given
            .get("cleanup.policy")
            .is_none_or(|policy| policy.contains("delete"))
    }

    /// What was asked for and is not done here; worth a log line when the topic is made.
    pub(crate) fn without_effect(&self) -> Vec<&str> {
        let compaction = self
            .given
            .get("cleanup.policy")
            .filter(|policy| policy.contains("compact"));
        let names = self.given.keys().map(String::as_str);
        names
            .filter(|name| {
                WITHOUT_EFFECT.contains(name) || (*name == "cleanup.policy" && compaction.is_some())
            })
            .collect()
    }

    pub(crate) fn entries(&self, default_max_message_bytes: u32) -> Vec<ConfigEntry> {
        let max_message_bytes = default_max_message_bytes.to_string();
        let defaults = [
            ("cleanup.policy", "delete"),
            ("max.message.bytes", max_message_bytes.as_str()),
            ("message.timestamp.type", "CreateTime"),
            ("retention.bytes", "-1"),
            ("retention.ms", "-1"),
        ];
        let defaults = defaults
            .iter()
            .filter(|(name, _)| !self.given.contains_key(*name))
            .map(|(name, value)| ConfigEntry {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                is_default: true,
            });
        let given = self.given.iter().map(|(name, value)| ConfigEntry {
            name: name.clone(),
            value: value.clone(),
            is_default: false,
        });
        given.chain(defaults).collect()
    }
}

fn is_both_policies(value: &str) -> bool {
    matches!(
        value.replace(' ', "").as_str(),
        "compact,delete" | "delete,compact"
    )
}

fn unlimited_or(name: &str, value: &str) -> Result<Option<i64>, Refusal> {
    match value.parse::<i64>().map_err(|_| not_a_number(name, value))? {
        -1 => Ok(None),
        number if number >= 0 => Ok(Some(number)),
        _ => Err(not_a_number(name, value)),
    }
}

fn not_a_number(name: &str, value: &str) -> Refusal {
    invalid(format!(
        "`{name}` is `{value}`, must be a whole number in its range"
    ))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, message)
}

/// The rules of Kafka's `Topic.validate`.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let invalid = |reason: &str| {
        Err(Refusal::new(
            ResponseError::InvalidTopicException,
            format!("topic name `{name}` {reason}"),
        ))
    };
    if name.is_empty() {
        return invalid("is empty");
    }
    if name == "." || name == ".." {
        return invalid("is not allowed");
    }
    if name.len() > 249 {
        return Err(Refusal::new(
            ResponseError::InvalidTopicException,
            format!("a topic name of {} characters is longer than 249", name.len()),
        ));
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        return invalid("has characters other than ASCII letters, digits, `.`, `_` and `-`");
    }
    Ok(())
}

/// Kafka takes `.` and `_` for the same character in a topic's metric names, and so refuses a topic
/// whose name would be another's.
pub(crate) fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_kafka_does() {
        for good in [
            "orders",
            "a",
            "fraud-alerts",
            "orders.payments-group.dlq",
            "_x",
            "A9",
            &"x".repeat(249),
        ] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ordrés", "a\n", &"x".repeat(250)] {
            let refusal = check_name(bad).unwrap_err();
            assert_eq!(refusal.error, ResponseError::InvalidTopicException, "{bad}");
        }
    }

    #[test]
    fn an_unknown_setting_or_a_bad_value_is_refused_by_name() {
        for (name, value) in [
            ("retention.mss", "1"),
            ("retention.ms", "soon"),
            ("retention.bytes", "-2"),
            ("cleanup.policy", "burn"),
            ("message.timestamp.type", "LogAppendTime"),
        ] {
            let refusal = TopicConfig::parse([(name, Some(value))]).unwrap_err();
            assert_eq!(refusal.error, ResponseError::InvalidConfig);
            assert!(refusal.message.contains(name), "{}", refusal.message);
        }
    }

    #[test]
    fn a_topic_that_is_only_compacted_has_no_retention() {
        let bounds = [("retention.ms", Some("60000")), ("retention.bytes", Some("10"))];
        let both = TopicConfig::parse(bounds).unwrap();
        assert_eq!(
            (both.retention_ms(), both.retention_bytes()),
            (Some(60_000), Some(10))
        );
        let compacted =
            TopicConfig::parse(bounds.into_iter().chain([("cleanup.policy", Some("compact"))])).unwrap();
        assert_eq!(
            (compacted.retention_ms(), compacted.retention_bytes()),
            (None, None)
        );
        assert_eq!(compacted.without_effect(), ["cleanup.policy"]);
    }

    #[test]
    fn minus_one_means_without_limit() {
        let config =
            TopicConfig::parse([("retention.ms", Some("-1")), ("retention.bytes", Some("-1"))]).unwrap();
        assert_eq!((config.retention_ms(), config.retention_bytes()), (None, None));
    }
}
