//! Questions to a cluster and changes of its topics. Everything here has a deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as ClientOffset, TopicPartitionList};

use crate::brake::Note;
use crate::error::StreamError;
use crate::ffi::Producer;
use crate::position::{Offset, Partition};
use crate::settings::KafkaSettings;

/// One question may take so long.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
const TOPIC_POLL: Duration = Duration::from_millis(500);

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas; -1 is the broker's own default.
    pub replication: i32,
    /// Its configuration, e.g. `retention.ms`.
    pub config: BTreeMap<String, String>,
    /// How many topics stand upstream of it: 0 for orders, 1 for payments, 2 for the dead letters of payments.
    pub steps: usize,
}

/// What became of a topic's number of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicGrowth {
    /// It has partitions that it did not have before.
    Grown {
        /// Its name.
        name: String,
        /// What it had.
        from: i32,
        /// What it has.
        to: i32,
    },
    /// It has more than it should have, and partitions can not be taken away.
    Larger {
        /// Its name.
        name: String,
        /// What it has.
        partitions: i32,
        /// What it should have.
        wanted: i32,
    },
}

/// What became of a topic that should exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCreation {
    /// It was created.
    Created,
    /// It was there already.
    Exists,
}

/// Where a group stands in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// What it has committed, if anything.
    pub committed: Option<Offset>,
    /// The oldest offset that is there.
    pub start: Offset,
    /// The offset after the newest record.
    pub end: Offset,
}

impl GroupPosition {
    /// Records that the group has not finished.
    #[must_use]
    pub fn lag(&self) -> i64 {
        let from = self
            .committed
            .map_or(self.start.0, |committed| committed.0.max(self.start.0));
        (self.end.0 - from).max(0)
    }
}

pub(crate) fn client_config(settings: &KafkaSettings, service: &str) -> ClientConfig {
    settings.properties(service).into_iter().collect()
}

fn in_our_words(what: &str, error: &KafkaError) -> StreamError {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
    StreamError::client(what, code)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StreamError> + Send + 'static,
) -> Result<T, StreamError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StreamError::Client {
            what: "asking the cluster".to_owned(),
            cause: error.to_string(),
            retriable: false,
        })
    })
}

/// Waits until a broker answers.
///
/// # Errors
/// At once when the broker refuses our credentials; at the deadline when nobody answers.
pub async fn connect(settings: &KafkaSettings, service: &str, limit: Duration) -> Result<(), StreamError> {
    let properties = settings.properties(service);
    let brokers = settings.brokers.clone();
    blocking(move || {
        let producer = Producer::open(&brokers, &properties, true)?;
        let started = Instant::now();
        let mut told = false;
        loop {
            match producer.probe(PROBE_TIMEOUT) {
                Err(error @ StreamError::Unreachable { .. }) if started.elapsed() < limit => {
                    if !told {
                        tracing::warn!(%error, limit_s = limit.as_secs(), "waiting for Kafka");
                        told = true;
                    }
                    producer.poll(Duration::from_millis(200));
                }
                result => return result,
            }
        }
    })
    .await
}

/// The topics of the cluster with their numbers of partitions.
///
/// # Errors
/// When the cluster does not answer in time or does not let us.
pub async fn topics(settings: &KafkaSettings, service: &str) -> Result<BTreeMap<String, i32>, StreamError> {
    let config = client_config(settings, service);
    blocking(move || {
        let what = "listing topics";
        let client: BaseConsumer = config.create().map_err(|error| in_our_words(what, &error))?;
        let metadata = client
            .fetch_metadata(None, ASK_TIMEOUT)
            .map_err(|error| in_our_words(what, &error))?;
        let counted = metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| {
                (
                    topic.name().to_owned(),
                    i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
                )
            });
        Ok(counted.collect())
    })
    .await
}

/// Waits until all of these topics exist, and tells what it waits for. Ends when `stop` does.
///
/// # Errors
/// When the cluster refuses the question. `Ok(None)` when `stop` came first.
pub async fn wait_for_topics(
    settings: &KafkaSettings,
    service: &str,
    names: &[String],
    stop: impl Future<Output = ()>,
) -> Result<Option<BTreeMap<String, i32>>, StreamError> {
    let mut told: Vec<String> = Vec::new();
    let wait = async {
        loop {
            let there = match topics(settings, service).await {
                Err(error) if error.is_retriable() => {
                    tracing::warn!(%error, "listing topics, trying again");
                    tokio::time::sleep(TOPIC_POLL).await;
                    continue;
                }
                result => result?,
            };
            let missing: Vec<String> = names
                .iter()
                .filter(|name| !there.contains_key(*name))
                .cloned()
                .collect();
            if missing.is_empty() {
                return Ok(there);
            }
            if missing != told {
                tracing::warn!(
                    topics = missing.join(" "),
                    "waiting for topics that do not exist; create them with `orderflow topics apply`"
                );
                told = missing;
            }
            tokio::time::sleep(TOPIC_POLL).await;
        }
    };
    tokio::select! {
        found = wait => found.map(Some),
        () = stop => Ok(None),
    }
}

/// Creates what is missing; what is there stays as it is.
///
/// # Errors
/// The first topic that could not be created, with its name.
pub async fn create_topics(
    settings: &KafkaSettings,
    service: &str,
    specs: &[TopicSpec],
) -> Result<Vec<(String, TopicCreation)>, StreamError> {
    let client: AdminClient<DefaultClientContext> = client_config(settings, service)
        .create()
        .map_err(|error| in_our_words("creating topics", &error))?;
    let wanted: Vec<NewTopic<'_>> = specs
        .iter()
        .map(|spec| {
            let topic = NewTopic::new(
                &spec.name,
                spec.partitions,
                TopicReplication::Fixed(spec.replication),
            );
            spec.config
                .iter()
                .fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(ASK_TIMEOUT))
        .request_timeout(Some(ASK_TIMEOUT));
    let results = client
        .create_topics(&wanted, &options)
        .await
        .map_err(|error| in_our_words("creating topics", &error))?;
    let outcome = results.into_iter().map(|result| match result {
        Ok(name) => Ok((name, TopicCreation::Created)),
        Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => Ok((name, TopicCreation::Exists)),
        Err((name, code)) => Err(StreamError::client(format!("creating topic `{name}`"), code)),
    });
    outcome.collect()
}

/// Gives topics the partitions that they lack, those furthest downstream first: a worker writes into the
/// partition of its input, so its input must be the last to grow. A topic that has too many stays as it is.
///
/// # Errors
/// The first topic that could not grow, with its name; what is upstream of it has not grown then.
pub async fn grow_topics(
    settings: &KafkaSettings,
    service: &str,
    specs: &[TopicSpec],
) -> Result<Vec<TopicGrowth>, StreamError> {
    let client: AdminClient<DefaultClientContext> = client_config(settings, service)
        .create()
        .map_err(|error| in_our_words("growing topics", &error))?;
    let options = AdminOptions::new()
        .operation_timeout(Some(ASK_TIMEOUT))
        .request_timeout(Some(ASK_TIMEOUT));
    let there = topics(settings, service).await?;
    let mut downstream_first: Vec<&TopicSpec> = specs.iter().collect();
    downstream_first.sort_by_key(|spec| std::cmp::Reverse(spec.steps));
    let mut growths = Vec::new();
    for spec in downstream_first {
        let (name, to) = (spec.name.clone(), spec.partitions);
        let Some(from) = there.get(&name).copied().filter(|from| *from != to) else {
            continue;
        };
        if from > to {
            growths.push(TopicGrowth::Larger {
                name,
                partitions: from,
                wanted: to,
            });
            continue;
        }
        let what = format!("growing topic `{name}` from {from} to {to} partitions");
        let wanted = NewPartitions::new(&name, usize::try_from(to).unwrap_or_default());
        let results = client
            .create_partitions([&wanted], &options)
            .await
            .map_err(|error| in_our_words(&what, &error))?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            return Err(StreamError::client(what, code));
        }
        wait_for_partitions(settings, service, &name, to).await?;
        growths.push(TopicGrowth::Grown { name, from, to });
    }
    Ok(growths)
}

/// Waits until a topic's new partitions are there for everybody who asks.
async fn wait_for_partitions(
    settings: &KafkaSettings,
    service: &str,
    name: &str,
    wanted: i32,
) -> Result<(), StreamError> {
    let started = Instant::now();
    while topics(settings, service).await?.get(name).copied().unwrap_or(0) < wanted {
        if started.elapsed() > ASK_TIMEOUT {
            return Err(StreamError::Timeout {
                what: format!("growing topic `{name}` to {wanted} partitions"),
                limit_ms: ASK_TIMEOUT.as_millis(),
                cause: "the brokers do not show them".to_owned(),
            });
        }
        tokio::time::sleep(TOPIC_POLL).await;
    }
    Ok(())
}

/// The brakes of a group that are pulled, by topic and partition, and their names.
///
/// # Errors
/// When the cluster does not answer in time or does not let us.
pub async fn brakes(
    settings: &KafkaSettings,
    group: &str,
    topics: &[String],
) -> Result<BTreeMap<(String, Partition), String>, StreamError> {
    let mut config = client_config(settings, "brake");
    // A transaction that is open on an offset says nothing about the note beside the last one.
    config
        .set("group.id", group)
        .set("isolation.level", "read_uncommitted");
    let (group, topics) = (group.to_owned(), topics.to_vec());
    blocking(move || {
        let what = format!("asking for the brakes of group `{group}`");
        let refused = |error: KafkaError| in_our_words(&what, &error);
        let client: BaseConsumer = config.create().map_err(refused)?;
        let asked = partitions_of(&client, &topics).map_err(refused)?;
        let committed = client.committed_offsets(asked, ASK_TIMEOUT).map_err(refused)?;
        let pulled = committed.elements().into_iter().filter_map(|entry| {
            let name = Note::parse(entry.metadata()).brake?.to_owned();
            Some(((entry.topic().to_owned(), Partition(entry.partition())), name))
        });
        Ok(pulled.collect())
    })
    .await
}

pub(crate) fn partitions_of(
    client: &BaseConsumer,
    topics: &[String],
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
        for partition in metadata.topics().iter().flat_map(|found| found.partitions()) {
            list.add_partition(topic, partition.id());
        }
    }
    Ok(list)
}

/// Where a group stands in the partitions of these topics.
///
/// # Errors
/// When the cluster does not answer in time or does not let us.
pub async fn group_positions(
    settings: &KafkaSettings,
    group: &str,
    topics: &[String],
) -> Result<BTreeMap<(String, Partition), GroupPosition>, StreamError> {
    let mut config = client_config(settings, "lag");
    config.set("group.id", group);
    let (group, topics) = (group.to_owned(), topics.to_vec());
    blocking(move || {
        let what = format!("asking where group `{group}` stands");
        let refused = |error: KafkaError| in_our_words(&what, &error);
        let client: BaseConsumer = config.create().map_err(refused)?;
        let asked = partitions_of(&client, &topics).map_err(refused)?;
        let committed = client.committed_offsets(asked, ASK_TIMEOUT).map_err(refused)?;
        let mut positions = BTreeMap::new();
        for entry in committed.elements() {
            let (topic, partition) = (entry.topic(), entry.partition());
            let (start, end) = client
                .fetch_watermarks(topic, partition, ASK_TIMEOUT)
                .map_err(refused)?;
            let committed = match entry.offset() {
                ClientOffset::Offset(offset) => Some(Offset(offset)),
                _ => None,
            };
            let position = GroupPosition {
                committed,
                start: Offset(start),
                end: Offset(end),
            };
            positions.insert((topic.to_owned(), Partition(partition)), position);
        }
        Ok(positions)
    })
    .await
}
