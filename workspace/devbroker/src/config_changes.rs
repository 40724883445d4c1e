//! What a request to change a topic's settings makes of them.
//!
//! A request is done whole or not at all: either each of its changes is sound and so is what they
//! come to, or nothing changes. The codes are those that Apache Kafka 4.3 was seen to answer.
//!
//! Pure.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::error::ResponseError;

use crate::batch::Refusal;
use crate::topic_config::{TopicConfig, default_list, invalid, list_of, list_parts};

/// One change of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) setting: &'a str,
    pub(crate) operation: Operation,
    /// Deleting needs none.
    pub(crate) value: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Operation {
    /// As IncrementalAlterConfigs numbers them.
    pub(crate) fn numbered(number: i8) -> Option<Self> {
        match number {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// The settings with `changes` on top of what the topic said before.
pub(crate) fn changed(config: &TopicConfig, changes: &[Change<'_>]) -> Result<TopicConfig, Refusal> {
    each_once(changes)?;
    let mut given: BTreeMap<String, String> = config.all_given().clone();
    for change in changes {
        let value = match change.operation {
            Operation::Delete => None,
            Operation::Set => Some(needed(change)?.to_owned()),
            Operation::Append | Operation::Subtract => Some(list(config, change)?),
        };
        match value {
            Some(value) => given.insert(change.setting.to_owned(), value),
            None => given.remove(change.setting),
        };
    }
    parse(&given)
}

/// The settings with `changes`, which all set, instead of what the topic said before.
pub(crate) fn replaced(changes: &[Change<'_>]) -> Result<TopicConfig, Refusal> {
    changed(&TopicConfig::default(), changes)
}

fn parse(given: &BTreeMap<String, String>) -> Result<TopicConfig, Refusal> {
    TopicConfig::parse(
        given
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_str()))),
    )
}

fn each_once(changes: &[Change<'_>]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    match changes.iter().find(|change| !seen.insert(change.setting)) {
        None => Ok(()),
        Some(again) => {
            let message = format!("`{}` is named twice in one request", again.setting);
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
    }
}

fn needed<'a>(change: &Change<'a>) -> Result<&'a str, Refusal> {
    change.value.ok_or_else(|| {
        let message = format!("`{}` has no value", change.setting);
        Refusal::new(ResponseError::InvalidRequest, message)
    })
}

/// A list with parts more or less, counted from the list that the topic has now, said or not.
fn list(config: &TopicConfig, change: &Change<'_>) -> Result<String, Refusal> {
    let named = list_parts(needed(change)?);
    let Some(default) = default_list(change.setting) else {
        return Err(invalid(format!(
            "`{}` is not a list: it can be set or deleted, and not appended to or subtracted from",
            change.setting
        )));
    };
    let mut parts = list_parts(config.given(change.setting).unwrap_or(default));
    match change.operation {
        Operation::Append => parts.extend(named),
        _ => parts.retain(|part| !named.contains(part)),
    }
    Ok(list_of(&parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change<'a>(setting: &'a str, operation: Operation, value: &'a str) -> Change<'a> {
        Change {
            setting,
            operation,
            value: Some(value).filter(|value| !value.is_empty()),
        }
    }

    fn policy(config: &TopicConfig) -> Option<&str> {
        config.given("cleanup.policy")
    }

    #[test]
    fn a_list_grows_and_shrinks_from_what_it_was_or_from_its_default() {
        let start = TopicConfig::default();
        let appended = changed(
            &start,
            &[change("cleanup.policy", Operation::Append, "compact,delete")],
        )
        .unwrap();
        assert_eq!(policy(&appended), Some("delete,compact"));
        let less = changed(
            &appended,
            &[change("cleanup.policy", Operation::Subtract, "delete")],
        )
        .unwrap();
        assert_eq!(policy(&less), Some("compact"));
        let none = changed(&less, &[change("cleanup.policy", Operation::Subtract, "compact")]).unwrap();
        assert_eq!(policy(&none), Some(""), "Kafka 4.3 allows it: nothing ever goes");
        assert_eq!(
            changed(&none, &[change("cleanup.policy", Operation::Delete, "")]).unwrap(),
            start
        );
    }

    #[test]
    fn each_refusal_of_a_change_has_its_code_and_names_the_setting() {
        use ResponseError::{InvalidConfig, InvalidRequest};
        let config = TopicConfig::default();
        for (changes, code) in [
            (
                vec![change("retention.ms", Operation::Append, "1")],
                InvalidConfig,
            ),
            (vec![change("retention.ms", Operation::Set, "")], InvalidRequest),
            (
                vec![change("cleanup.policy", Operation::Append, "")],
                InvalidRequest,
            ),
            (
                vec![change("cleanup.policy", Operation::Append, "burn")],
                InvalidConfig,
            ),
            (vec![change("retention.mss", Operation::Set, "1")], InvalidConfig),
            (
                vec![change("retention.ms", Operation::Set, "soon")],
                InvalidConfig,
            ),
            (
                vec![change("retention.ms", Operation::Set, "1"); 2],
                InvalidRequest,
            ),
        ] {
            let refusal = changed(&config, &changes).unwrap_err();
            assert_eq!(refusal.error, code, "{changes:?}");
            assert!(refusal.message.contains(changes[0].setting), "{refusal:?}");
        }
    }

    #[test]
    fn deleting_what_is_not_set_is_fine_even_where_it_is_no_setting() {
        let config = TopicConfig::default();
        for setting in ["retention.ms", "retention.mss"] {
            assert_eq!(
                changed(&config, &[change(setting, Operation::Delete, "7")]),
                Ok(config.clone())
            );
        }
    }

    #[test]
    fn replacing_forgets_what_is_not_named() {
        let before = changed(
            &TopicConfig::default(),
            &[change("retention.ms", Operation::Set, "1")],
        )
        .unwrap();
        let after = replaced(&[change("retention.bytes", Operation::Set, "2")]).unwrap();
        assert_eq!(
            (before.given("retention.ms"), after.given("retention.ms")),
            (Some("1"), None)
        );
        assert_eq!(after.given("retention.bytes"), Some("2"));
    }
}
