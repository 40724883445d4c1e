//! Producing, fetching, and finding offsets.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, ProduceRequest, TransactionalId};

use super::{Client, error, text, topic_name};
use crate::batches::{self, Batch};
use crate::stage::Stage;

const PRODUCE_VERSION: i16 = 10;
const FETCH_VERSION: i16 = 12;
const ACKS_ALL: i16 = -1;
/// NOT_ENOUGH_REPLICAS, which is how Produce says CONCURRENT_TRANSACTIONS: the transaction is still ending.
const NOT_VERIFIED_YET: i16 = 19;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Uncommitted = 0,
    Committed = 1,
}

/// Topic, partition, offset.
pub type Place<'a> = (&'a str, i32, i64);

/// What a fetch asks for beside the place.
#[derive(Clone, Copy)]
pub struct Limits {
    pub isolation: Isolation,
    pub max_wait: Duration,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl Limits {
    /// Whatever there is, at once.
    pub fn none(isolation: Isolation) -> Self {
        Self {
            isolation,
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1 << 24,
            partition_max_bytes: 1 << 24,
        }
    }
}

impl Client {
    pub fn produce_request(
        topic: &str,
        partition: i32,
        records: Bytes,
        transactional_id: Option<&str>,
    ) -> ProduceRequest {
        let partition = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(topic_name(topic))
            .with_partition_data(vec![partition]);
        ProduceRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_acks(ACKS_ALL)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic])
    }

    pub async fn produce(&mut self, topic: &str, batch: &Batch) -> PartitionProduceResponse {
        self.produce_bytes(topic, batch.bytes()).await
    }

    pub async fn produce_bytes(&mut self, topic: &str, records: Bytes) -> PartitionProduceResponse {
        let request = Self::produce_request(topic, 0, records, None);
        self.produce_as(PRODUCE_VERSION, &request).await
    }

    /// Produces in a transaction of `transactional_id`.
    pub async fn produce_in(
        &mut self,
        transactional_id: &str,
        topic: &str,
        partition: i32,
        batch: &Batch,
    ) -> PartitionProduceResponse {
        let request = Self::produce_request(topic, partition, batch.bytes(), Some(transactional_id));
        self.produce_as(PRODUCE_VERSION, &request).await
    }

    pub async fn produce_as(&mut self, version: i16, request: &ProduceRequest) -> PartitionProduceResponse {
        let answer = self
            .until(version, request, |answer| {
                answer.responses[0].partition_responses[0].error_code != NOT_VERIFIED_YET
            })
            .await;
        answer.responses[0].partition_responses[0].clone()
    }

    pub fn fetch_request(places: &[Place<'_>], limits: Limits) -> FetchRequest {
        let topics = places.iter().map(|(topic, partition, offset)| {
            let partition = FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(limits.partition_max_bytes)
                .with_current_leader_epoch(-1)
                .with_log_start_offset(-1);
            FetchTopic::default()
                .with_topic(topic_name(topic))
                .with_partitions(vec![partition])
        });
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(limits.max_wait.as_millis() as i32)
            .with_min_bytes(limits.min_bytes)
            .with_max_bytes(limits.max_bytes)
            .with_isolation_level(limits.isolation as i8)
            .with_session_epoch(-1)
            .with_topics(topics.collect())
    }

    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64, limits: Limits) -> PartitionData {
        let request = Self::fetch_request(&[(topic, partition, offset)], limits);
        let answer = self.call(FETCH_VERSION, &request).await;
        answer.responses[0].partitions[0].clone()
    }

    /// Waits until no transaction is open in a partition and all markers are in its log, which ends
    /// at `end` then.
    pub async fn until_stable(&mut self, topic: &str, partition: i32, end: i64) {
        let limits = Limits {
            partition_max_bytes: 1,
            ..Limits::none(Isolation::Uncommitted)
        };
        let request = Self::fetch_request(&[(topic, partition, 0)], limits);
        self.until(FETCH_VERSION, &request, |answer| {
            let partition = &answer.responses[0].partitions[0];
            partition.high_watermark == end && partition.last_stable_offset == end
        })
        .await;
    }

    pub fn list_offsets_request(
        topic: &str,
        partition: i32,
        timestamp: i64,
        isolation: Isolation,
    ) -> ListOffsetsRequest {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation as i8)
            .with_topics(vec![topic])
    }

    pub async fn list_offsets(
        &mut self,
        topic: &str,
        timestamp: i64,
        isolation: Isolation,
    ) -> ListOffsetsPartitionResponse {
        let request = Self::list_offsets_request(topic, 0, timestamp, isolation);
        let answer = self.call(7, &request).await;
        answer.topics[0].partitions[0].clone()
    }
}

/// What came of a batch: the error, or the offset of its first record.
pub fn placed(answer: &PartitionProduceResponse) -> String {
    if answer.error_code == 0 {
        format!("at {}", answer.base_offset)
    } else {
        error(answer.error_code)
    }
}

/// What ListOffsets found: an offset and its time after the beginning.
pub fn found_at(answer: &ListOffsetsPartitionResponse) -> String {
    match (answer.error_code, answer.offset, answer.timestamp) {
        (0, -1, -1) => "nothing".to_owned(),
        (0, offset, -1) => format!("offset {offset}"),
        (0, offset, time) => format!("offset {offset} of time {}", time - batches::moment(0)),
        (code, ..) => error(code),
    }
}

impl Stage {
    /// Notes all that a fetch shows.
    pub fn note_fetch(&mut self, what: &str, answer: &PartitionData) {
        let seen = self.fetched(answer);
        self.note(what, seen);
    }

    /// Fetches a partition from its start and notes what is seen at both isolation levels.
    pub async fn note_log(&mut self, what: &str, topic: &str, partition: i32) {
        let mut client = self.client().await;
        for (isolation, name) in [
            (Isolation::Uncommitted, "read_uncommitted"),
            (Isolation::Committed, "read_committed"),
        ] {
            let answer = client.fetch(topic, partition, 0, Limits::none(isolation)).await;
            self.note_fetch(&format!("{what}, {name}"), &answer);
        }
    }

    fn fetched(&self, answer: &PartitionData) -> String {
        if answer.error_code != 0 {
            return error(answer.error_code);
        }
        let mut parts = vec![format!(
            "high watermark {}, last stable {}, start {}",
            answer.high_watermark, answer.last_stable_offset, answer.log_start_offset
        )];
        let records = batches::records(&answer.records.clone().unwrap_or_default());
        let last = records.last().map_or(-1, |record| record.offset);
        if let Some(aborted) = &answer.aborted_transactions {
            // How far beyond the records Kafka's list goes depends on its index.
            let aborted = aborted
                .iter()
                .filter(|one| one.first_offset <= last)
                .map(|one| format!("{} from {}", self.producer(one.producer_id.0), one.first_offset));
            parts.push(format!("aborted [{}]", aborted.collect::<Vec<_>>().join(", ")));
        }
        let records = records.iter().map(|record| {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            if record.control {
                // The key of a control record: version, then 0 for abort and 1 for commit.
                let commits = record.key.as_ref().is_some_and(|key| key.get(3) == Some(&1));
                let kind = if commits { "commit" } else { "abort" };
                return format!(
                    "{} {kind} of {}",
                    record.offset,
                    self.producer(record.producer_id)
                );
            }
            let value = record.value.as_ref().map_or("(none)".to_owned(), text);
            match &record.key {
                Some(key) => format!("{} {}={value}", record.offset, text(key)),
                None => format!("{} {value}", record.offset),
            }
        });
        parts.push(format!("records [{}]", records.collect::<Vec<_>>().join(", ")));
        parts.join(", ")
    }
}
