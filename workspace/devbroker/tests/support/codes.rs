//! Requests by name: each is asked for one thing, and gives the code of the answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::wire::{self, DEADLINE, Numbering, PLAIN, Wire, batch};

/// A real broker loads its coordinators, and makes their topics, when they are asked for first.
pub const NOT_YET: std::ops::RangeInclusive<i16> = 14..=16;

/// Asks until the answer is one to keep; panics at the deadline.
pub async fn until<T>(mut ask: impl AsyncFnMut() -> T, keep: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = ask().await;
        if keep(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "the answer did not come in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

pub fn id(name: &str) -> TransactionalId {
    TransactionalId(text(name))
}

pub async fn metadata(wire: &mut Wire, name: &str) -> i16 {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    wire.call(12, &request).await.topics[0].error_code
}

pub async fn find_coordinator(wire: &mut Wire, key_type: i8, key: &str) -> i16 {
    let request = FindCoordinatorRequest::default()
        .with_key_type(key_type)
        .with_coordinator_keys(vec![text(key)]);
    let code = async || wire.call(4, &request).await.coordinators[0].error_code;
    until(code, |code| !NOT_YET.contains(code)).await
}

pub async fn list_offsets(wire: &mut Wire, name: &str) -> i16 {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(-1)
        .with_current_leader_epoch(-1);
    let wanted = ListOffsetsTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![wanted]);
    wire.call(7, &request).await.topics[0].partitions[0].error_code
}

pub async fn leader_epoch(wire: &mut Wire, name: &str) -> i16 {
    let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
    let wanted = OffsetForLeaderTopic::default()
        .with_topic(topic(name))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![wanted]);
    wire.call(4, &request).await.topics[0].partitions[0].error_code
}

pub async fn offset_commit(wire: &mut Wire, group_name: &str, name: &str) -> i16 {
    let wanted = OffsetCommitRequestTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![OffsetCommitRequestPartition::default()]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(group_name))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![wanted]);
    wire.call(8, &request).await.topics[0].partitions[0].error_code
}

/// The code of the group, or else those of the partitions.
pub async fn offset_fetch(wire: &mut Wire, group_name: &str, names: Option<&[&str]>) -> Vec<(String, i16)> {
    let wanted = |name: &&str| {
        OffsetFetchRequestTopics::default()
            .with_name(topic(name))
            .with_partition_indexes(vec![0])
    };
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group(group_name))
        .with_topics(names.map(|names| names.iter().map(wanted).collect()));
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let answer = wire.call(8, &request).await;
    let answer = &answer.groups[0];
    if answer.error_code != 0 {
        return vec![(group_name.to_owned(), answer.error_code)];
    }
    let mut codes: Vec<(String, i16)> = answer
        .topics
        .iter()
        .map(|topic| (topic.name.to_string(), topic.partitions[0].error_code))
        .collect();
    codes.sort();
    codes
}

pub async fn join(wire: &mut Wire, name: &str) -> i16 {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(6_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    wire.call(7, &request).await.error_code
}

pub async fn init_producer_id(wire: &mut Wire, name: Option<&str>) -> i16 {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(name.map(id))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let code = async || wire.call(4, &request).await.error_code;
    until(code, |code| !NOT_YET.contains(code)).await
}

pub async fn add_partitions(wire: &mut Wire, id_name: &str, names: &[&str]) -> Vec<i16> {
    let wanted = names.iter().map(|name| {
        AddPartitionsToTxnTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![0])
    });
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id(id_name))
        .with_v3_and_below_topics(wanted.collect());
    let answer = wire.call(3, &request).await;
    let code = |name: &&str| {
        let topics = &answer.results_by_topic_v3_and_below;
        let found = topics.iter().find(|topic| topic.name.as_str() == *name);
        found.unwrap().results_by_partition[0].partition_error_code
    };
    names.iter().map(code).collect()
}

pub async fn add_offsets(wire: &mut Wire, id_name: &str, group_name: &str) -> i16 {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id(id_name))
        .with_group_id(group(group_name));
    wire.call(3, &request).await.error_code
}

pub async fn end(wire: &mut Wire, id_name: &str) -> i16 {
    let request = EndTxnRequest::default().with_transactional_id(id(id_name));
    wire.call(3, &request).await.error_code
}

pub async fn txn_offset_commit(wire: &mut Wire, id_name: &str, group_name: &str, name: &str) -> i16 {
    let wanted = TxnOffsetCommitRequestTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(id(id_name))
        .with_group_id(group(group_name))
        .with_generation_id(-1)
        .with_topics(vec![wanted]);
    wire.call(3, &request).await.topics[0].partitions[0].error_code
}

pub async fn describe_configs(wire: &mut Wire, resource: i8, name: &str) -> i16 {
    let wanted = DescribeConfigsResource::default()
        .with_resource_type(resource)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![wanted]);
    wire.call(4, &request).await.results[0].error_code
}

pub async fn alter_configs(wire: &mut Wire, resource: i8, name: &str) -> [i16; 2] {
    let incremental = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(resource)
        .with_resource_name(text(name));
    let incremental = IncrementalAlterConfigsRequest::default().with_resources(vec![incremental]);
    let whole = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(resource)
        .with_resource_name(text(name));
    let whole = AlterConfigsRequest::default().with_resources(vec![whole]);
    [
        wire.call(1, &incremental).await.responses[0].error_code,
        wire.call(2, &whole).await.responses[0].error_code,
    ]
}

/// The code of the group, or else that of the partition.
pub async fn offset_delete(wire: &mut Wire, group_name: &str, name: &str) -> i16 {
    let wanted = OffsetDeleteRequestTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(group(group_name))
        .with_topics(vec![wanted]);
    let answer = wire.call(0, &request).await;
    if answer.error_code != 0 {
        return answer.error_code;
    }
    answer.topics[0].partitions[0].error_code
}

pub async fn describe_producers(wire: &mut Wire, name: &str) -> i16 {
    let wanted = describe_producers_request::TopicRequest::default()
        .with_name(topic(name))
        .with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![wanted]);
    wire.call(0, &request).await.topics[0].partitions[0].error_code
}

pub async fn describe_transaction(wire: &mut Wire, id_name: &str) -> i16 {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id(id_name)]);
    wire.call(0, &request).await.transaction_states[0].error_code
}

/// The transactional ids with this prefix that the client sees.
pub async fn listed_transactions(wire: &mut Wire, prefix: &str) -> Vec<String> {
    let request = ListTransactionsRequest::default().with_duration_filter(-1);
    let answer = wire.call(1, &request).await;
    let states = answer.transaction_states.iter();
    let names = states.map(|state| state.transactional_id.to_string());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

pub async fn change_topics(wire: &mut Wire, name: &str) -> [i16; 4] {
    let created = CreatableTopic::default()
        .with_name(topic(&format!("new-{name}")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let created = CreateTopicsRequest::default()
        .with_timeout_ms(5_000)
        .with_topics(vec![created]);
    let deleted = DeleteTopicState::default().with_name(Some(topic(name)));
    let deleted = DeleteTopicsRequest::default()
        .with_timeout_ms(5_000)
        .with_topics(vec![deleted]);
    let grown = CreatePartitionsTopic::default()
        .with_name(topic(name))
        .with_count(2)
        .with_assignments(None);
    let grown = CreatePartitionsRequest::default()
        .with_timeout_ms(5_000)
        .with_topics(vec![grown]);
    let records = DeleteRecordsTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![DeleteRecordsPartition::default().with_offset(-1)]);
    let records = DeleteRecordsRequest::default()
        .with_timeout_ms(5_000)
        .with_topics(vec![records]);
    [
        wire.call(7, &created).await.topics[0].error_code,
        wire.call(6, &deleted).await.responses[0].error_code,
        wire.call(3, &grown).await.results[0].error_code,
        wire.call(2, &records).await.topics[0].partitions[0].error_code,
    ]
}

pub async fn produce(wire: &mut Wire, name: &str) -> i16 {
    let batch = batch(1, b"x", 0, PLAIN);
    wire.produce(name, batch).await.error_code
}

/// Produces a batch of a transaction.
pub async fn produce_in_transaction(wire: &mut Wire, id_name: Option<&str>, name: &str) -> i16 {
    let numbering = Numbering {
        producer: 1,
        epoch: 0,
        sequence: 0,
    };
    let mut batch = batch(1, b"x", 0, numbering).to_vec();
    // The attributes have a bit for it, and the checksum covers all that begins with them.
    batch[22] |= 0x10;
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    let request = wire::produce(name, Bytes::from(batch), -1).with_transactional_id(id_name.map(id));
    wire.call(9, &request).await.responses[0].partition_responses[0].error_code
}

pub async fn fetch(wire: &mut Wire, name: &str) -> i16 {
    wire.fetch(name, 0, Duration::ZERO).await.error_code
}

/// The topics with this prefix that the client sees; a real broker has those of other tests too.
pub async fn listed_topics(wire: &mut Wire, prefix: &str) -> Vec<String> {
    let answer = wire.call(12, &MetadataRequest::default().with_topics(None)).await;
    let names = answer
        .topics
        .iter()
        .map(|topic| topic.name.as_ref().unwrap().to_string());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}
