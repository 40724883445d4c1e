//! A plain Kafka client for what a test does around the code under test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

/// No call to a broker on this machine takes longer, unless something is wrong.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Record timestamp in milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Creates topics, writes and reads records, reads offsets. Every call is bounded and panics where
/// the broker refuses it.
#[derive(Clone, Debug)]
pub struct Observer {
    brokers: String,
}

impl Observer {
    /// An observer of the brokers at `host:port`.
    pub fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("enable.metrics.push", "false");
        config
    }

    /// Creates a topic with default settings.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]).await;
    }

    /// Creates a topic with settings such as `retention.ms`.
    pub async fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().expect("an admin client can be made");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new()
            .operation_timeout(Some(TIMEOUT))
            .request_timeout(Some(TIMEOUT));
        let results = admin.create_topics([&topic], &options).await;
        let results = results.unwrap_or_else(|error| panic!("`{name}` can not be created: {error}"));
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("`{topic}` can not be created: {code}"));
        }
    }

    /// Gives a topic more partitions: so many in all. Returns when they are there for everybody.
    pub async fn grow_topic(&self, name: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().expect("an admin client can be made");
        let options = AdminOptions::new()
            .operation_timeout(Some(TIMEOUT))
            .request_timeout(Some(TIMEOUT));
        let wanted = NewPartitions::new(name, partitions);
        let results = admin.create_partitions([&wanted], &options).await;
        let results = results.unwrap_or_else(|error| panic!("`{name}` can not grow: {error}"));
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("`{topic}` can not grow: {code}"));
        }
        // Its leader hears of a partition a little later than the controller.
        crate::eventually(TIMEOUT, || async {
            let (observer, name) = (self.clone(), name.to_owned());
            let read = tokio::task::spawn_blocking(move || {
                let consumer = observer.consumer("observer");
                let found = self::partitions(&consumer, &name);
                for partition in &found {
                    consumer.fetch_watermarks(&name, *partition, TIMEOUT)?;
                }
                Ok::<_, KafkaError>(found.len())
            });
            match read.await.expect("the reader does not panic") {
                Ok(count) if count == partitions => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Writes records in order and returns when all of them are acknowledged, with partition and
    /// offset of each.
    pub async fn produce(&self, topic: &str, records: &[(&[u8], &[u8])]) -> Vec<(i32, i64)> {
        let producer = self.producer();
        let mut acknowledged = Vec::with_capacity(records.len());
        let mut open = Vec::with_capacity(records.len());
        for (key, value) in records {
            let mut record = FutureRecord::to(topic).key(*key).payload(*value);
            // A full local queue is the only refusal that waiting helps against.
            let sent = loop {
                match producer.send_result(record) {
                    Ok(sent) => break sent,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                        record = refused;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err((error, _)) => panic!("a record for `{topic}` was refused: {error}"),
                }
            };
            open.push(sent);
        }
        for sent in open {
            let delivered = sent.await.expect("the producer lives");
            let delivered =
                delivered.unwrap_or_else(|(error, _)| panic!("not delivered to `{topic}`: {error}"));
            acknowledged.push((delivered.partition, delivered.offset));
        }
        acknowledged
    }

    /// Writes one record with headers to a given partition, or where its key belongs.
    pub async fn produce_with_headers(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &[u8],
        value: &[u8],
        headers: &[(&str, &[u8])],
    ) -> (i32, i64) {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header {
                key,
                value: Some(*value),
            });
        }
        let record = FutureRecord::to(topic).key(key).payload(value).headers(owned);
        let record = match partition {
            Some(partition) => record.partition(partition),
            None => record,
        };
        let sent = self.producer().send(record, TIMEOUT).await;
        let delivered = sent.unwrap_or_else(|(error, _)| panic!("not delivered to `{topic}`: {error}"));
        (delivered.partition, delivered.offset)
    }

    fn producer(&self) -> FutureProducer {
        let mut config = self.config();
        config
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", "30000");
        config.create().expect("a producer can be made")
    }

    /// All records of a topic that are committed, from the first to the last stable offset at the
    /// time of the call, by partition and offset.
    pub async fn read_all(&self, topic: &str) -> Vec<Record> {
        let (observer, topic) = (self.clone(), topic.to_owned());
        let read = tokio::task::spawn_blocking(move || observer.read_all_blocking(&topic));
        read.await.expect("the reader does not panic")
    }

    fn read_all_blocking(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer("observer");
        let partitions = partitions(&consumer, topic);
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            let added = assignment.add_partition_offset(topic, *partition, Offset::Beginning);
            added.expect("an offset is valid");
        }
        consumer.assign(&assignment).expect("partitions can be assigned");
        let mut open = partitions.len();
        let mut records = Vec::new();
        while open > 0 {
            match consumer.poll(TIMEOUT) {
                Some(Ok(message)) => records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers(&message),
                }),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("`{topic}` can not be read: {error}"),
                None => panic!("`{topic}`: {open} partitions did not end within {TIMEOUT:?}"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// The offsets that a group has committed for a topic, per partition; partitions without one are
    /// left out.
    pub async fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let (observer, group, topic) = (self.clone(), group.to_owned(), topic.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            // What is committed, also while a transaction is about to move it: a client that asks for
            // stable offsets would wait until that has ended.
            let mut config = observer.consumer_config(&group);
            config.set("isolation.level", "read_uncommitted");
            let consumer: BaseConsumer = config.create().expect("a consumer can be made");
            let mut wanted = TopicPartitionList::new();
            for partition in partitions(&consumer, &topic) {
                wanted.add_partition(&topic, partition);
            }
            let committed = committed_offsets(&consumer, &wanted);
            let committed = committed.unwrap_or_else(|error| panic!("no offsets of `{group}`: {error}"));
            let offsets = committed
                .elements()
                .into_iter()
                .filter_map(|element| match element.offset() {
                    Offset::Offset(offset) => Some((element.partition(), offset)),
                    _ => None,
                });
            offsets.collect()
        });
        read.await.expect("the reader does not panic")
    }

    /// The next offset of each partition of a topic.
    pub async fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        let (observer, topic) = (self.clone(), topic.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let consumer = observer.consumer("observer");
            let end_of = |partition| {
                let watermarks = consumer.fetch_watermarks(&topic, partition, TIMEOUT);
                watermarks
                    .unwrap_or_else(|error| panic!("no offsets of `{topic}`: {error}"))
                    .1
            };
            partitions(&consumer, &topic)
                .into_iter()
                .map(|partition| (partition, end_of(partition)))
                .collect()
        });
        read.await.expect("the reader does not panic")
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let config = self.consumer_config(group);
        config.create().expect("a consumer can be made")
    }

    fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed");
        config
    }
}

/// The coordinator of a group moves in while the topic of the offsets is made, with the first group.
fn committed_offsets(
    consumer: &BaseConsumer,
    wanted: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    let end = Instant::now() + TIMEOUT;
    loop {
        match consumer.committed_offsets(wanted.clone(), TIMEOUT) {
            Err(error) if is_moving(&error) && Instant::now() < end => {
                // The pause between two questions; polling is what this client does meanwhile.
                let _event = consumer.poll(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

fn is_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT);
    let metadata = metadata.unwrap_or_else(|error| panic!("no metadata of `{topic}`: {error}"));
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.unwrap_or_else(|| panic!("there is no topic `{topic}`"));
    assert!(
        found.error().is_none(),
        "`{topic}` has no metadata: {:?}",
        found.error()
    );
    found
        .partitions()
        .iter()
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect()
}

fn headers(message: &impl Message) -> Vec<(String, Vec<u8>)> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    headers
        .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
        .collect()
}
