//! The topics as they should be: creating them, and growing them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use service::{Exit, Problems, Process, ServiceInfo, Settings, launch};
use stream::KafkaSettings;
use stream::admin::{TopicCreation, TopicGrowth, TopicSpec, connect, create_topics, grow_topics};

use crate::cli::TopicsArgs;
use crate::cluster::{CONNECT_LIMIT, brokers_flag};

const INFO: ServiceInfo = ServiceInfo {
    name: "topics",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 0,
};

/// The file that stands in the repository, so that the command works without it.
const BUILT_IN: &str = include_str!("../../../deploy/topics.toml");

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    kafka: KafkaSettings,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        for (key, message) in self.kafka.problems() {
            problems.add(key, message);
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    defaults: Defaults,
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    partitions: i32,
    replication: i32,
    retention_ms: i64,
    compression: String,
    cleanup_policy: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    /// What it derives from. Retry topics and dead letters say it by their names.
    source: Option<String>,
    partitions: Option<i32>,
    replication: Option<i32>,
    retention_ms: Option<i64>,
    max_message_bytes: u32,
    compression: Option<String>,
    cleanup_policy: Option<String>,
}

impl File {
    fn partitions(&self, name: &str) -> i32 {
        let own = self.topics.get(name).and_then(|topic| topic.partitions);
        own.unwrap_or(self.defaults.partitions)
    }

    /// What a topic derives from: as it says, or as its name does, `orders.payments-group.dlq`.
    fn source(&self, name: &str) -> Option<&str> {
        let said = self.topics.get(name).and_then(|topic| topic.source.as_deref());
        let is_source = |other: &&String| {
            name.strip_prefix(*other)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        said.or_else(|| {
            self.topics
                .keys()
                .filter(is_source)
                .max_by_key(|other| other.len())
                .map(String::as_str)
        })
    }

    /// How many topics stand upstream of this one.
    fn steps(&self, name: &str) -> anyhow::Result<usize> {
        let mut upstream = name;
        let mut steps = 0;
        while let Some(source) = self.source(upstream) {
            anyhow::ensure!(
                self.topics.contains_key(source),
                "`topics.{upstream}.source` is `{source}`, must be a topic of this file"
            );
            anyhow::ensure!(
                steps < self.topics.len(),
                "`topics.{name}.source`: it derives from itself"
            );
            upstream = source;
            steps += 1;
        }
        Ok(steps)
    }

    /// Outputs keep the partition of their input, so they need as many.
    fn check_partitions(&self, name: &str) -> anyhow::Result<()> {
        let own = self.partitions(name);
        anyhow::ensure!(own > 0, "`topics.{name}` has {own} partitions, must be 1 or more");
        if let Some(source) = self.source(name) {
            let wanted = self.partitions(source);
            anyhow::ensure!(
                own >= wanted,
                "`topics.{name}` has {own} partitions and its source `{source}` has {wanted}; give it as many"
            );
        }
        Ok(())
    }
}

/// Reads a topics file.
///
/// # Errors
/// Where and why the text is not one.
pub fn parse(text: &str) -> anyhow::Result<Vec<TopicSpec>> {
    let file: File = toml::from_str(text)?;
    let mut steps = BTreeMap::new();
    for name in file.topics.keys() {
        steps.insert(name.clone(), file.steps(name)?);
        file.check_partitions(name)?;
    }
    let File { defaults, topics } = file;
    let specs = topics.into_iter().map(|(name, topic)| TopicSpec {
        steps: steps.get(&name).copied().unwrap_or(0),
        name,
        partitions: topic.partitions.unwrap_or(defaults.partitions),
        replication: topic.replication.unwrap_or(defaults.replication),
        config: BTreeMap::from([
            (
                "retention.ms".to_owned(),
                topic.retention_ms.unwrap_or(defaults.retention_ms).to_string(),
            ),
            (
                "max.message.bytes".to_owned(),
                topic.max_message_bytes.to_string(),
            ),
            (
                "compression.type".to_owned(),
                topic.compression.unwrap_or_else(|| defaults.compression.clone()),
            ),
            (
                "cleanup.policy".to_owned(),
                topic
                    .cleanup_policy
                    .unwrap_or_else(|| defaults.cleanup_policy.clone()),
            ),
        ]),
    });
    Ok(specs.collect())
}

/// The topics of deploy/topics.toml.
///
/// # Errors
/// Never: a test reads the file.
pub fn built_in() -> anyhow::Result<Vec<TopicSpec>> {
    parse(BUILT_IN).context("the built-in topics")
}

/// The built-in retry topics of a source.
#[must_use]
pub fn retries_of(source: &str) -> Vec<String> {
    let is_retry = |name: &str| {
        let behind = name.strip_prefix(source).and_then(|rest| rest.strip_prefix('.'));
        behind.is_some_and(|rest| rest.contains(".retry."))
    };
    let names = built_in().unwrap_or_default().into_iter().map(|spec| spec.name);
    names.filter(|name| is_retry(name)).collect()
}

fn read(path: &Path) -> anyhow::Result<Vec<TopicSpec>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "`--file {}` can not be read; leave it out for the built-in topics",
            path.display()
        )
    })?;
    parse(&text).with_context(|| format!("`{}`", path.display()))
}

/// Creates the topics that are missing, and grows those that are too small.
pub fn main(args: TopicsArgs) -> ExitCode {
    let flags = brokers_flag(args.brokers.as_ref());
    let file = args.file;
    launch(
        INFO,
        &args.common,
        &flags,
        |config: Config, _: Process| async move {
            let specs = match &file {
                Some(path) => read(path),
                None => built_in(),
            };
            let specs = specs.map_err(|error| Exit::config(format!("{error:#}")))?;
            connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
            for (name, creation) in create_topics(&config.kafka, INFO.name, &specs).await? {
                match creation {
                    TopicCreation::Created => println!("created  {name}"),
                    TopicCreation::Exists => println!("exists   {name}"),
                }
            }
            for growth in grow_topics(&config.kafka, INFO.name, &specs).await? {
                match growth {
                    TopicGrowth::Grown { name, from, to } => {
                        println!("grown    {name}: {from} -> {to} partitions")
                    }
                    TopicGrowth::Larger {
                        name,
                        partitions,
                        wanted,
                    } => println!(
                        "kept     {name}: has {partitions} partitions and should have {wanted}; partitions can not be taken away, so raise the number in the file"
                    ),
                }
            }
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use stream::StreamSettings;
    use stream::settings::Delays;

    use super::*;

    fn find<'a>(specs: &'a [TopicSpec], name: &str) -> &'a TopicSpec {
        specs.iter().find(|spec| spec.name == name).expect("listed")
    }

    fn max_bytes(spec: &TopicSpec) -> u32 {
        spec.config["max.message.bytes"].parse().expect("number")
    }

    #[test]
    fn the_built_in_topics_are_all_that_the_workers_ask_for() {
        let specs = built_in().expect("built in");
        let inputs = [
            ("fraud-group", vec!["orders"]),
            ("payments-group", vec!["orders"]),
            ("analytics-group", vec!["orders", "fraud-alerts", "payments"]),
        ];
        for (group, sources) in inputs {
            for source in sources {
                let letters = find(&specs, &stream::settings::dead_letter_topic(source, group));
                let source = find(&specs, source);
                assert_eq!(letters.partitions, source.partitions);
                assert!(
                    max_bytes(letters) >= max_bytes(source) + 65_536,
                    "{}",
                    letters.name
                );
            }
        }
        let delays = Delays::parse(&StreamSettings::default().retry_delays).expect("delays");
        let mut retries: Vec<_> = delays.topics("orders", "payments-group").collect();
        for name in &retries {
            let (retry, source) = (find(&specs, name), find(&specs, "orders"));
            assert_eq!(retry.partitions, source.partitions);
            assert!(max_bytes(retry) >= max_bytes(source) + 65_536, "{name}");
        }
        retries.sort();
        assert_eq!(retries_of("orders"), retries);
        for derived in ["payments", "fraud-alerts"] {
            let derived = find(&specs, derived);
            assert!(
                max_bytes(derived) >= max_bytes(find(&specs, "orders")) + 65_536,
                "{}",
                derived.name
            );
        }
    }

    #[test]
    fn topics_grow_from_the_end_of_the_pipeline_and_orders_last() {
        let specs = built_in().expect("built in");
        let steps = |name| find(&specs, name).steps;
        assert_eq!(steps("orders"), 0);
        for name in [
            "payments",
            "fraud-alerts",
            "orders.fraud-group.dlq",
            "orders.payments-group.retry.5s",
        ] {
            assert_eq!(steps(name), 1, "{name}");
        }
        assert_eq!(steps("payments.analytics-group.dlq"), 2);
    }

    #[test]
    fn a_derived_topic_with_fewer_partitions_than_its_source_is_refused_with_both_names() {
        let smaller = |section: &str| {
            let grown = BUILT_IN.replacen(section, &format!("{section}\npartitions = 6"), 1);
            parse(&grown).expect_err("refused").to_string()
        };
        let error = smaller("[topics.orders]");
        assert!(
            error.contains("`orders` has 6") && error.contains("has 3 partitions"),
            "{error}"
        );
        let error = smaller("[topics.payments]");
        assert!(error.contains("topics.payments.analytics-group.dlq"), "{error}");
        let text = BUILT_IN.replacen("source = \"orders\"", "source = \"order\"", 1);
        let error = parse(&text).expect_err("unknown").to_string();
        assert!(error.contains("`order`, must be a topic of this file"), "{error}");
        let text = BUILT_IN.replacen("[topics.orders]", "[topics.orders]\nsource = \"payments\"", 1);
        let error = parse(&text).expect_err("a circle").to_string();
        assert!(error.contains("derives from itself"), "{error}");
    }

    #[test]
    fn an_unknown_key_in_a_topics_file_is_an_error_with_its_line() {
        let text = BUILT_IN.replacen("retention_ms = 2592000000", "retention_sm = 1", 1);
        let error = parse(&text).expect_err("unknown key").to_string();
        assert!(
            error.contains("retention_sm") && error.contains("line"),
            "{error}"
        );
    }
}
