//! How a worker is a member of its group.

use serde::{Deserialize, Serialize};

use super::StreamSettings;

/// What makes a consumer a static member.
pub(crate) const INSTANCE_PROPERTY: &str = "group.instance.id";

/// Who deals out the partitions of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// One of the members, at a rebalance of all of them.
    #[default]
    Classic,
    /// The broker, member by member (KIP-848; Kafka 4.0 and newer).
    Consumer,
}

/// How partitions move between the members of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// Only what moves is taken away.
    #[default]
    CooperativeSticky,
    /// Everything is taken away and dealt out anew.
    Range,
    /// As `range`, dealt out in turn.
    Roundrobin,
}

impl Assignor {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
            Self::Roundrobin => "roundrobin",
        }
    }
}

impl StreamSettings {
    pub(super) fn session_timeout(&self) -> u32 {
        self.session_timeout_ms.unwrap_or(10_000)
    }

    pub(super) fn membership_problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Some(name) = &self.group_instance_id {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.len() > 200 || !name.chars().all(legal) {
                let message = format!("`{name}`, must be 1 to 200 of a-z A-Z 0-9 . _ -");
                problems.push(("stream.group_instance_id", message));
            }
        }
        if self.group_protocol == GroupProtocol::Classic {
            return problems;
        }
        let own = "`stream.group_protocol` is `consumer`";
        if let Some(assignor) = self.assignor {
            let message = format!(
                "`{}`, which would not be used: {own}, and the broker deals out the partitions; leave one of them out",
                assignor.as_str()
            );
            problems.push(("stream.assignor", message));
        }
        if let Some(ms) = self.session_timeout_ms {
            let message = format!(
                "`{ms}`, which would not be used: {own}, and the broker has the time-out (`consumer.session.timeout.ms` of the group); leave one of them out"
            );
            problems.push(("stream.session_timeout_ms", message));
        }
        if let Some(name) = &self.group_instance_id {
            let message = format!(
                "`{name}`, which does not go together with another setting: {own}, where a static member that is stopped or killed keeps its partitions, and its name, until its session times out; leave one of them out"
            );
            problems.push(("stream.group_instance_id", message));
        }
        problems
    }

    /// What the consumer of a pump has beyond one that is no member of the group.
    pub(crate) fn member_properties(&self, pump: usize) -> Vec<(String, String)> {
        let timeout_ms = self.session_timeout();
        let properties = match self.group_protocol {
            GroupProtocol::Consumer => vec![("group.protocol", "consumer".to_owned())],
            GroupProtocol::Classic => vec![
                (
                    "partition.assignment.strategy",
                    self.assignor.unwrap_or_default().as_str().to_owned(),
                ),
                ("session.timeout.ms", timeout_ms.to_string()),
                ("heartbeat.interval.ms", (timeout_ms / 3).min(3_000).to_string()),
            ],
        };
        let instance = self.group_instance_id.as_ref();
        let instance = instance.map(|name| (INSTANCE_PROPERTY, format!("{name}-{pump}")));
        let all = properties.into_iter().chain(instance);
        all.map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_consumer_protocol_would_not_use_is_refused_where_it_was_set() {
        let keys = |settings: &StreamSettings| -> Vec<_> {
            settings.problems().into_iter().map(|(key, _)| key).collect()
        };
        let mut settings = StreamSettings {
            group_protocol: GroupProtocol::Consumer,
            ..StreamSettings::default()
        };
        assert_eq!(settings.problems(), []);
        settings.assignor = Some(Assignor::Range);
        settings.session_timeout_ms = Some(10_000);
        settings.group_instance_id = Some("a".to_owned());
        assert_eq!(
            keys(&settings),
            [
                "stream.assignor",
                "stream.session_timeout_ms",
                "stream.group_instance_id"
            ]
        );
        settings.group_protocol = GroupProtocol::Classic;
        assert_eq!(settings.problems(), []);
        settings.group_instance_id = Some("a b".to_owned());
        assert_eq!(keys(&settings), ["stream.group_instance_id"]);
    }
}
