//! OffsetCommit and OffsetFetch.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};

use super::groups::speaker;
use super::{RequestContext, text};
use crate::core::Core;
use crate::groups::{Absent, Command};
use crate::offsets::{Committed, PartitionOffset};

/// The longest text that may be committed with an offset: `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4_096;
/// The first version of OffsetFetch that asks for several groups.
const GROUPS_SINCE: i16 = 8;

pub(super) async fn commit(core: &Core, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let speaker = speaker(
        &request.member_id,
        request.group_instance_id.as_ref(),
        request.generation_id_or_member_epoch,
    );
    let mut accepted = Vec::new();
    let mut checked = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let known = core.topics.get(&topic.name);
        for partition in &topic.partitions {
            let exists = known
                .as_ref()
                .is_some_and(|known| known.partition(partition.partition_index).is_some());
            let result = check(exists, partition);
            if result.is_ok() {
                accepted.push(position(&topic.name, partition));
            }
            checked.push(result);
        }
    }
    let outcome = store(core, &request, &speaker, accepted).await;
    let mut checked = checked.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = checked.next().unwrap_or(Ok(())).and(outcome);
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(super::code(&result))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn check(exists: bool, partition: &OffsetCommitRequestPartition) -> Result<(), ResponseError> {
    if !exists {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let metadata = partition.committed_metadata.as_ref();
    if metadata.is_some_and(|metadata| metadata.len() > MAX_METADATA_BYTES) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(())
}

fn position(topic: &str, partition: &OffsetCommitRequestPartition) -> PartitionOffset {
    PartitionOffset {
        topic: topic.to_owned(),
        partition: partition.partition_index,
        committed: Committed {
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: super::groups::owned(partition.committed_metadata.as_ref()).unwrap_or_default(),
        },
    }
}

async fn store(
    core: &Core,
    request: &OffsetCommitRequest,
    speaker: &crate::groups::Speaker,
    accepted: Vec<PartitionOffset>,
) -> Result<(), ResponseError> {
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    // A client without membership may be the first to name a group.
    let absent = if speaker.generation < 0 {
        Absent::Create
    } else {
        Absent::Leave
    };
    let command = |sender| Command::Commit(speaker.clone(), accepted.clone(), sender);
    let answer = core.groups.ask(&request.group_id, absent, command).await?;
    answer.unwrap_or(Err(ResponseError::IllegalGeneration))
}

pub(super) async fn fetch(
    core: &Core,
    context: &RequestContext,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if context.version >= GROUPS_SINCE {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let found = positions(core, &group.group_id, group.topics.as_deref()).await;
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
            groups.push(match found {
                Ok(found) => answer.with_topics(by_topic(found).into_iter().map(batched).collect()),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    // The older form has the same content under other names.
    let wanted: Option<Vec<OffsetFetchRequestTopics>> = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        topics.collect()
    });
    match positions(core, &request.group_id, wanted.as_deref()).await {
        Ok(found) => {
            OffsetFetchResponse::default().with_topics(by_topic(found).into_iter().map(single).collect())
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
    }
}

/// A partition and its position, if one is committed.
type Found = (String, i32, Option<Committed>);

async fn positions(
    core: &Core,
    group: &str,
    wanted: Option<&[OffsetFetchRequestTopics]>,
) -> Result<Vec<Found>, ResponseError> {
    let Some(wanted) = wanted else {
        let all = core
            .groups
            .ask(group, Absent::Leave, Command::FetchAll)
            .await?
            .unwrap_or_default();
        return Ok(all
            .into_iter()
            .map(|found| (found.topic, found.partition, Some(found.committed)))
            .collect());
    };
    let named = wanted.iter().flat_map(|topic| {
        topic
            .partition_indexes
            .iter()
            .map(|partition| (topic.name.to_string(), *partition))
    });
    let named: Vec<(String, i32)> = named.collect();
    let command = |sender| Command::Fetch(named.clone(), sender);
    let found = core.groups.ask(group, Absent::Leave, command).await?;
    let found = found.unwrap_or_else(|| vec![None; named.len()]);
    Ok(named
        .into_iter()
        .zip(found)
        .map(|((topic, partition), found)| (topic, partition, found))
        .collect())
}

/// A topic with its partitions and their positions.
type TopicPositions = (String, Vec<(i32, Option<Committed>)>);

/// Neighbours with the same topic become one entry; the order stays.
fn by_topic(found: Vec<Found>) -> Vec<TopicPositions> {
    let mut topics: Vec<TopicPositions> = Vec::new();
    for (topic, partition, committed) in found {
        match topics.last_mut() {
            Some((last, partitions)) if *last == topic => partitions.push((partition, committed)),
            _ => topics.push((topic, vec![(partition, committed)])),
        }
    }
    topics
}

fn nothing() -> Committed {
    Committed {
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
    }
}

fn batched((topic, partitions): TopicPositions) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(partition, committed)| {
        let committed = committed.unwrap_or_else(nothing);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(text(&topic)))
        .with_partitions(partitions)
}

fn single((topic, partitions): TopicPositions) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(partition, committed)| {
        let committed = committed.unwrap_or_else(nothing);
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata)))
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(text(&topic)))
        .with_partitions(partitions)
}
