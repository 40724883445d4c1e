//! The requests of a transactional producer.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, GroupId,
    InitProducerIdRequest, InitProducerIdResponse, ProducerId, TransactionalId, TxnOffsetCommitRequest,
};

use super::groups::Member;
use super::{Client, Coordinator, text, topic_name};
use crate::batches::Batch;

/// Long enough that no transaction ends by itself.
pub const TRANSACTION_TIMEOUT_MS: i32 = 60_000;
/// The versions that librdkafka speaks, or the newest before transactions v2.
const INIT_VERSION: i16 = 4;
const ADD_PARTITIONS_VERSION: i16 = 3;
const ADD_OFFSETS_VERSION: i16 = 3;
const COMMIT_OFFSETS_VERSION: i16 = 3;
const END_VERSION: i16 = 3;

/// Who a producer says that it is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub transactional_id: String,
    pub producer_id: i64,
    pub epoch: i16,
}

impl Identity {
    /// The batch as the first one of this producer's epoch, or a later one.
    pub fn batch(&self, values: &[&str], sequence: i32) -> Batch {
        Batch::of(values)
            .numbered(self.producer_id, self.epoch, sequence)
            .transactional()
    }
}

impl Client {
    pub fn init_request(
        transactional_id: Option<&str>,
        timeout_ms: i32,
        producer_id: i64,
        epoch: i16,
    ) -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
    }

    /// InitProducerId without an id of its own; must succeed.
    pub async fn init(&mut self, transactional_id: &str) -> Identity {
        self.init_with_timeout(transactional_id, TRANSACTION_TIMEOUT_MS)
            .await
    }

    pub async fn init_with_timeout(&mut self, transactional_id: &str, timeout_ms: i32) -> Identity {
        self.until_coordinated(Coordinator::Transaction, transactional_id)
            .await;
        let request = Self::init_request(Some(transactional_id), timeout_ms, -1, -1);
        let answer = self.init_as(INIT_VERSION, &request).await;
        assert_eq!(answer.error_code, 0, "a new instance is always let in");
        Identity {
            transactional_id: transactional_id.to_owned(),
            producer_id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        }
    }

    /// InitProducerId that names the id and epoch that the producer has.
    pub async fn init_again(&mut self, identity: &Identity) -> InitProducerIdResponse {
        let request = Self::init_request(
            Some(&identity.transactional_id),
            TRANSACTION_TIMEOUT_MS,
            identity.producer_id,
            identity.epoch,
        );
        self.init_as(INIT_VERSION, &request).await
    }

    pub async fn init_as(&mut self, version: i16, request: &InitProducerIdRequest) -> InitProducerIdResponse {
        self.patiently(version, request, |answer| answer.error_code).await
    }

    pub fn add_request(identity: &Identity, topic: &str, partitions: &[i32]) -> AddPartitionsToTxnRequest {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.to_vec());
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(&identity.transactional_id)))
            .with_v3_and_below_producer_id(ProducerId(identity.producer_id))
            .with_v3_and_below_producer_epoch(identity.epoch)
            .with_v3_and_below_topics(vec![topic])
    }

    /// Adds partition 0 of a topic.
    pub async fn add(&mut self, identity: &Identity, topic: &str) -> i16 {
        let codes = self
            .add_as(ADD_PARTITIONS_VERSION, &Self::add_request(identity, topic, &[0]))
            .await;
        codes[0]
    }

    /// The code of each partition of one topic, in the order of the partitions.
    pub async fn add_as(&mut self, version: i16, request: &AddPartitionsToTxnRequest) -> Vec<i16> {
        let codes = |answer: &AddPartitionsToTxnResponse| -> Vec<i16> {
            let topics = answer.results_by_topic_v3_and_below.iter();
            let mut partitions: Vec<_> = topics.flat_map(|topic| &topic.results_by_partition).collect();
            partitions.sort_by_key(|partition| partition.partition_index);
            partitions
                .iter()
                .map(|partition| partition.partition_error_code)
                .collect()
        };
        let answer = self.patiently(version, request, |answer| codes(answer)[0]).await;
        codes(&answer)
    }

    /// One AddPartitionsToTxn, whatever is answered.
    pub async fn add_at_once(&mut self, identity: &Identity, topic: &str) -> i16 {
        let request = Self::add_request(identity, topic, &[0]);
        let answer = self.call(ADD_PARTITIONS_VERSION, &request).await;
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    pub async fn add_offsets(&mut self, identity: &Identity, group: &str) -> i16 {
        self.add_offsets_as(ADD_OFFSETS_VERSION, identity, group).await
    }

    pub async fn add_offsets_as(&mut self, version: i16, identity: &Identity, group: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text(&identity.transactional_id)))
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch)
            .with_group_id(GroupId(text(group)));
        let answer = self
            .patiently(version, &request, |answer| answer.error_code)
            .await;
        answer.error_code
    }

    /// TxnOffsetCommit of partition 0 for a member of the group, or for nobody.
    pub async fn commit_offset_in(
        &mut self,
        identity: &Identity,
        group: &str,
        member: &Member,
        topic: &str,
        offset: i64,
    ) -> i16 {
        self.commit_offset_as(
            COMMIT_OFFSETS_VERSION,
            identity,
            group,
            member,
            (topic, 0, offset),
        )
        .await
    }

    pub async fn commit_offset_as(
        &mut self,
        version: i16,
        identity: &Identity,
        group: &str,
        member: &Member,
        (topic, partition, offset): (&str, i32, i64),
    ) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let mut request = TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(text(&identity.transactional_id)))
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch)
            .with_group_id(GroupId(text(group)))
            .with_topics(vec![topic]);
        if version >= 3 {
            request = request
                .with_generation_id(member.generation)
                .with_member_id(text(&member.id))
                .with_group_instance_id(member.instance.as_deref().map(text));
        }
        let answer = self
            .patiently(version, &request, |answer| {
                answer.topics[0].partitions[0].error_code
            })
            .await;
        answer.topics[0].partitions[0].error_code
    }

    pub fn end_request(identity: &Identity, committed: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(&identity.transactional_id)))
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch)
            .with_committed(committed)
    }

    pub async fn end(&mut self, identity: &Identity, committed: bool) -> i16 {
        self.end_as(END_VERSION, identity, committed).await
    }

    pub async fn end_as(&mut self, version: i16, identity: &Identity, committed: bool) -> i16 {
        let request = Self::end_request(identity, committed);
        let answer = self
            .patiently(version, &request, |answer| answer.error_code)
            .await;
        answer.error_code
    }

    pub async fn commit(&mut self, identity: &Identity) -> i16 {
        self.end(identity, true).await
    }

    pub async fn abort(&mut self, identity: &Identity) -> i16 {
        self.end(identity, false).await
    }
}
