//! Topic names and topic settings, checked as Kafka checks them.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;

use crate::batch::Refusal;

/// Settings that change what this broker does.
const HONOURED: [&str; 7] = [
    "cleanup.policy",
    "delete.retention.ms",
    "max.message.bytes",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "retention.bytes",
    "retention.ms",
];

/// Settings of Kafka that are kept and shown, and change nothing in one process.
const WITHOUT_EFFECT: [&str; 17] = [
    "compression.type",
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
    "min.insync.replicas",
    "preallocate",
    "segment.bytes",
    "segment.index.bytes",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// Settings whose value is a list, with what the list is when the topic does not say.
const LISTS: [(&str, &str); 1] = [("cleanup.policy", "delete")];

/// What becomes of records that are old or that a newer one of the same key replaces. Neither is
/// allowed too: then everything is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CleanupPolicy {
    deletes: bool,
    compacts: bool,
}

impl Default for CleanupPolicy {
    fn default() -> Self {
        Self {
            deletes: true,
            compacts: false,
        }
    }
}

/// How a topic is compacted. The defaults are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CompactionSettings {
    /// The part of the bytes that must be new before a pass is made.
    pub(crate) min_dirty_ratio: f64,
    /// How old a batch is at the least when it is compacted.
    pub(crate) min_lag_ms: i64,
    /// How old a tombstone is at the least when it goes.
    pub(crate) delete_retention_ms: i64,
}

impl Default for CompactionSettings {
    fn default() -> Self {
        Self {
            min_dirty_ratio: 0.5,
            min_lag_ms: 0,
            delete_retention_ms: 86_400_000,
        }
    }
}

/// The settings of one topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TopicConfig {
    /// What the topic says itself, each value in the form that DescribeConfigs shows.
    given: BTreeMap<String, String>,
    cleanup: CleanupPolicy,
    compaction: CompactionSettings,
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
            let value = value.trim();
            config.set(name, value)?;
            config.given.insert(name.to_owned(), shown(name, value));
        }
        Ok(config)
    }

    /// What the topic says itself about a setting.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// All that the topic says itself.
    pub(crate) fn all_given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "retention.bytes" => self.retention_bytes = unlimited_or(name, value)?.map(i64::unsigned_abs),
            "retention.ms" => self.retention_ms = unlimited_or(name, value)?,
            "max.message.bytes" => {
                let bytes: i32 = value.parse().map_err(|_| not_a_number(name, value))?;
                let bytes = u32::try_from(bytes).map_err(|_| not_a_number(name, value))?;
                self.max_message_bytes = Some(bytes);
            }
            "cleanup.policy" => self.cleanup = cleanup_policy(name, value)?,
            "delete.retention.ms" => self.compaction.delete_retention_ms = not_negative(name, value)?,
            "min.compaction.lag.ms" => self.compaction.min_lag_ms = not_negative(name, value)?,
            "min.cleanable.dirty.ratio" => self.compaction.min_dirty_ratio = ratio(name, value)?,
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
        self.retention_bytes.filter(|_| self.cleanup.deletes)
    }

    /// The age at which a batch goes, in milliseconds.
    pub(crate) fn retention_ms(&self) -> Option<i64> {
        self.retention_ms.filter(|_| self.cleanup.deletes)
    }

    pub(crate) fn max_message_bytes(&self) -> Option<u32> {
        self.max_message_bytes
    }

    /// How the topic is compacted, if it is.
    pub(crate) fn compaction(&self) -> Option<CompactionSettings> {
        self.cleanup.compacts.then_some(self.compaction)
    }

    /// What was asked for and is not done here; worth a log line.
    pub(crate) fn without_effect(&self) -> Vec<&str> {
        let names = self.given.keys().map(String::as_str);
        names.filter(|name| WITHOUT_EFFECT.contains(name)).collect()
    }

    pub(crate) fn entries(&self, default_max_message_bytes: u32) -> Vec<ConfigEntry> {
        let max_message_bytes = default_max_message_bytes.to_string();
        let defaults = [
            ("cleanup.policy", "delete"),
            ("delete.retention.ms", "86400000"),
            ("max.message.bytes", max_message_bytes.as_str()),
            ("message.timestamp.type", "CreateTime"),
            ("min.cleanable.dirty.ratio", "0.5"),
            ("min.compaction.lag.ms", "0"),
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

/// The value of a list setting where the topic says nothing; `None` if the setting is no list.
pub(crate) fn default_list(name: &str) -> Option<&'static str> {
    LISTS
        .iter()
        .find(|(list, _)| *list == name)
        .map(|(_, default)| *default)
}

/// The parts of a list setting, each once.
pub(crate) fn list_parts(value: &str) -> IndexSet<&str> {
    let parts = value.split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).collect()
}

pub(crate) fn list_of(parts: &IndexSet<&str>) -> String {
    parts.iter().copied().collect::<Vec<_>>().join(",")
}

fn shown(name: &str, value: &str) -> String {
    match default_list(name) {
        Some(_) => list_of(&list_parts(value)),
        None => value.to_owned(),
    }
}

fn cleanup_policy(name: &str, value: &str) -> Result<CleanupPolicy, Refusal> {
    let mut policy = CleanupPolicy {
        deletes: false,
        compacts: false,
    };
    for part in list_parts(value) {
        match part {
            "delete" => policy.deletes = true,
            "compact" => policy.compacts = true,
            _ => {
                return Err(invalid(format!(
                    "`{name}` is `{value}`, must be a list of `delete` and `compact`"
                )));
            }
        }
    }
    Ok(policy)
}

fn unlimited_or(name: &str, value: &str) -> Result<Option<i64>, Refusal> {
    match value.parse::<i64>().map_err(|_| not_a_number(name, value))? {
        -1 => Ok(None),
        number if number >= 0 => Ok(Some(number)),
        _ => Err(not_a_number(name, value)),
    }
}

fn not_negative(name: &str, value: &str) -> Result<i64, Refusal> {
    let number = value.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| not_a_number(name, value))
}

fn ratio(name: &str, value: &str) -> Result<f64, Refusal> {
    let number = value.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| invalid(format!("`{name}` is `{value}`, must be a number from 0 to 1")))
}

fn not_a_number(name: &str, value: &str) -> Refusal {
    invalid(format!(
        "`{name}` is `{value}`, must be a whole number in its range"
    ))
}

pub(crate) fn invalid(message: String) -> Refusal {
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
            ("delete.retention.ms", "-1"),
            ("min.compaction.lag.ms", "-1"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("min.cleanable.dirty.ratio", "NaN"),
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
        assert_eq!(
            (both.compaction(), compacted.compaction()),
            (None, Some(CompactionSettings::default()))
        );
    }

    #[test]
    fn minus_one_means_without_limit() {
        let config =
            TopicConfig::parse([("retention.ms", Some("-1")), ("retention.bytes", Some("-1"))]).unwrap();
        assert_eq!((config.retention_ms(), config.retention_bytes()), (None, None));
    }
}
