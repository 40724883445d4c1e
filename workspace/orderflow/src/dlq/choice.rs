//! Which dead letters can be replayed, and where to.
//!
//! Pure.

use std::collections::BTreeMap;

use stream::replay::LetterOrigin;
use stream::settings::{Delays, dead_letter_topic, retry_topic_prefix};

use super::letter::Letter;

/// The code of a repeat with other content.
const CONFLICT: &str = "conflicting_repeat";

/// Why a dead letter can not be replayed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unfit {
    /// Its headers do not say where it comes from, or say that it belongs elsewhere.
    NoOrigin,
    /// Another order with its id counts.
    Conflict,
    /// Its group tries nothing again later.
    NoRetryTopics { group: String },
    /// There are retry topics, but not the one that is configured to be the first.
    OtherDelays { group: String, wanted: String },
    /// The retry topic has no such partition.
    NoPartition { topic: String },
}

impl Unfit {
    /// Its name for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoOrigin => "no_origin",
            Self::Conflict => "conflicting_repeat",
            Self::NoRetryTopics { .. } => "no_retry_topics",
            Self::OtherDelays { .. } => "other_retry_delays",
            Self::NoPartition { .. } => "no_partition",
        }
    }

    /// What is wrong, and what to do.
    pub fn sentence(&self) -> String {
        match self {
            Self::NoOrigin => "the headers do not say where it comes from (`dlq-topic`, `dlq-partition`, \
                `dlq-offset`, `dlq-timestamp`, `dlq-group`), so no worker could take it up; discard it"
                .to_owned(),
            Self::Conflict => {
                "another order with the same id stands before it and counts, so it must never be \
                settled; discard it, or have the order sent anew under an id of its own"
                    .to_owned()
            }
            Self::NoRetryTopics { group } => format!(
                "group `{group}` has no retry topics: it tries nothing again later, and what it gives up is \
                 poison, which would fail again; have a corrected order sent, and discard this one"
            ),
            Self::OtherDelays { group, wanted } => format!(
                "there is no topic `{wanted}`, which `stream.retry_delays` says is the first retry topic of group \
                 `{group}`; run this with the configuration of its worker, or create the topic with \
                 `orderflow topics apply`"
            ),
            Self::NoPartition { topic } => format!(
                "topic `{topic}` has fewer partitions than the topic that it came from; grow it with \
                 `orderflow topics apply`"
            ),
        }
    }
}

/// The retry topics that are there.
#[derive(Debug)]
pub(super) struct Retries {
    /// All topics, with their numbers of partitions.
    pub topics: BTreeMap<String, i32>,
    pub delays: Delays,
}

impl Retries {
    /// Where a dead letter comes from, and the topic in which its group finds it again.
    pub fn target(&self, letter: &Letter) -> Result<(LetterOrigin, String), Unfit> {
        let origin = LetterOrigin::of(&letter.record.as_record()).ok_or(Unfit::NoOrigin)?;
        if dead_letter_topic(&origin.source, &origin.group) != letter.topic {
            return Err(Unfit::NoOrigin);
        }
        if letter.code() == CONFLICT {
            return Err(Unfit::Conflict);
        }
        let group = || origin.group.clone();
        let prefix = retry_topic_prefix(&origin.source, &origin.group);
        if !self.topics.keys().any(|name| name.starts_with(&prefix)) {
            return Err(Unfit::NoRetryTopics { group: group() });
        }
        let first = self.delays.topics(&origin.source, &origin.group).next();
        let first = first.unwrap_or(prefix);
        let Some(partitions) = self.topics.get(&first) else {
            return Err(Unfit::OtherDelays {
                group: group(),
                wanted: first,
            });
        };
        if origin.partition.0 >= *partitions {
            return Err(Unfit::NoPartition { topic: first });
        }
        Ok((origin, first))
    }
}

#[cfg(test)]
mod tests {
    use stream::OwnedRecord;
    use stream::position::{Offset, Partition, TopicIndex, TopicPartition};

    use super::*;

    fn letter(topic: &str, headers: &[(&str, &str)]) -> Letter {
        let record = OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(1),
            },
            offset: Offset(9),
            record_time_ms: 5,
            key: Some(b"7".to_vec()),
            value: Some(b"{}".to_vec()),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
        };
        Letter::new(topic, &record.as_record(), None, 0)
    }

    fn of<'a>(source: &'a str, group: &'a str, partition: &'a str, code: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("dlq-topic", source),
            ("dlq-partition", partition),
            ("dlq-offset", "41"),
            ("dlq-timestamp", "5"),
            ("dlq-group", group),
            ("dlq-error-code", code),
        ]
    }

    fn retries(delays: &str) -> Retries {
        let topics = [
            "orders.pay.retry.5s",
            "orders.pay.retry.1m",
            "orders.pay.dlq",
            "orders",
        ];
        Retries {
            topics: topics.map(|name| (name.to_owned(), 3)).into(),
            delays: Delays::parse(delays).expect("delays"),
        }
    }

    #[test]
    fn a_letter_goes_to_the_first_retry_topic_of_its_group_or_it_is_said_why_not() {
        let names_remedy = |unfit: &Unfit| {
            let sentence = unfit.sentence();
            ["discard", "topics apply"]
                .iter()
                .any(|word| sentence.contains(word))
        };
        for (what, topic, headers, delays, wanted) in [
            (
                "fits",
                "orders.pay.dlq",
                of("orders", "pay", "2", "x"),
                "5s,1m",
                Ok("orders.pay.retry.5s"),
            ),
            (
                "other delays",
                "orders.pay.dlq",
                of("orders", "pay", "2", "x"),
                "1m",
                Ok("orders.pay.retry.1m"),
            ),
            (
                "unknown delay",
                "orders.pay.dlq",
                of("orders", "pay", "2", "x"),
                "2s",
                Err("other_retry_delays"),
            ),
            (
                "no delays",
                "orders.pay.dlq",
                of("orders", "pay", "2", "x"),
                "off",
                Err("other_retry_delays"),
            ),
            (
                "no retry topics",
                "orders.fraud.dlq",
                of("orders", "fraud", "2", "x"),
                "5s",
                Err("no_retry_topics"),
            ),
            (
                "a conflict",
                "orders.pay.dlq",
                of("orders", "pay", "2", CONFLICT),
                "5s",
                Err("conflicting_repeat"),
            ),
            (
                "too few partitions",
                "orders.pay.dlq",
                of("orders", "pay", "3", "x"),
                "5s",
                Err("no_partition"),
            ),
            (
                "of another group",
                "orders.pay.dlq",
                of("orders", "fraud", "2", "x"),
                "5s",
                Err("no_origin"),
            ),
            (
                "a stray",
                "orders.pay.dlq",
                of("orders.pay.retry.5s", "pay", "2", "x"),
                "5s",
                Err("no_origin"),
            ),
            ("no headers", "orders.pay.dlq", Vec::new(), "5s", Err("no_origin")),
        ] {
            let target = retries(delays).target(&letter(topic, &headers));
            assert!(target.as_ref().err().is_none_or(names_remedy), "{what}");
            let found = target.map(|(origin, topic)| {
                assert_eq!(
                    (origin.partition, origin.offset),
                    (Partition(2), Offset(41)),
                    "{what}"
                );
                topic
            });
            assert_eq!(found.as_deref().map_err(Unfit::name), wanted, "{what}");
        }
    }
}
