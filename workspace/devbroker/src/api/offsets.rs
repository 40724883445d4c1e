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

use kafka_protocol::protocol::StrBytes;

use super::groups::speaker;
use super::{RequestContext, text};
use crate::core::Core;
use crate::groups::{Absent, Command, Position};
use crate::offsets::{Committed, PartitionOffset};
use crate::security::{Operation, Resource};

/// The longest text that may be committed with an offset: `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4_096;
/// The first version of OffsetFetch that asks for several groups.
const GROUPS_SINCE: i16 = 8;

pub(super) async fn commit(
    core: &Core,
    context: &RequestContext,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let may_commit = context.must(core, Operation::Read, Resource::Group(&request.group_id));
    let speaker = speaker(
        &request.member_id,
        request.group_instance_id.as_ref(),
        request.generation_id_or_member_epoch,
    );
    let mut accepted = Vec::new();
    let mut checked = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let allowed = context.must(core, Operation::Read, Resource::Topic(&topic.name));
        for partition in &topic.partitions {
            let metadata = partition.committed_metadata.as_ref();
            let result = may_commit
                .and(allowed)
                .and_then(|()| check(core, &topic.name, partition.partition_index, metadata));
            if result.is_ok() {
                accepted.push(position(&topic.name, partition));
            }
            checked.push(result);
        }
    }
    let outcome = match may_commit {
        Ok(()) => store(core, &request, &speaker, accepted).await,
        Err(error) => Err(error),
    };
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

/// Whether a position may be committed, in a transaction or outside of one.
pub(super) fn check(
    core: &Core,
    topic: &str,
    partition: i32,
    metadata: Option<&StrBytes>,
) -> Result<(), ResponseError> {
    if core.topics.partition(topic, partition).is_none() {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
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
    let stable = request.require_stable;
    if context.version >= GROUPS_SINCE {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let found = positions(core, context, &group.group_id, group.topics.as_deref(), stable).await;
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
    match positions(core, context, &request.group_id, wanted.as_deref(), stable).await {
        Ok(found) => {
            OffsetFetchResponse::default().with_topics(by_topic(found).into_iter().map(single).collect())
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
    }
}

/// What a partition's entry of an answer says.
struct Found {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: String,
    error: i16,
}

impl Found {
    /// With `withheld` the position is not told, for this reason.
    fn new(position: Position, withheld: Option<ResponseError>) -> (String, Self) {
        let committed = position.committed.filter(|_| withheld.is_none());
        let committed = committed.unwrap_or_else(|| Committed {
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
        });
        let found = Self {
            partition: position.partition,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata,
            error: withheld.map_or(0, |error| error.code()),
        };
        (position.topic, found)
    }
}

async fn positions(
    core: &Core,
    context: &RequestContext,
    group: &str,
    wanted: Option<&[OffsetFetchRequestTopics]>,
    stable: bool,
) -> Result<Vec<(String, Found)>, ResponseError> {
    context.must(core, Operation::Describe, Resource::Group(group))?;
    let named = wanted.map(|topics| {
        let pairs = topics.iter().flat_map(|topic| {
            let partitions = topic.partition_indexes.iter();
            partitions.map(|partition| (topic.name.to_string(), *partition))
        });
        pairs.collect::<Vec<(String, i32)>>()
    });
    let command = |sender| Command::Fetch(named.clone(), sender);
    let found = core.groups.ask(group, Absent::Leave, command).await?;
    let found = found.unwrap_or_else(|| {
        let unknown = named.unwrap_or_default().into_iter();
        let unknown = unknown.map(|(topic, partition)| Position {
            topic,
            partition,
            committed: None,
            unstable: false,
        });
        unknown.collect()
    });
    let told = found.into_iter().filter_map(|position| {
        let visible = context.must(core, Operation::Describe, Resource::Topic(&position.topic));
        let withheld = match visible {
            // Who asked for everything is not told what there is besides.
            Err(_) if wanted.is_none() => return None,
            Err(error) => Some(error),
            // An open transaction may move it (KIP-447).
            Ok(()) => (stable && position.unstable).then_some(ResponseError::UnstableOffsetCommit),
        };
        Some(Found::new(position, withheld))
    });
    Ok(told.collect())
}

/// A topic with its partitions and their positions.
type TopicPositions = (String, Vec<Found>);

/// Neighbours with the same topic become one entry; the order stays.
fn by_topic(found: Vec<(String, Found)>) -> Vec<TopicPositions> {
    let mut topics: Vec<TopicPositions> = Vec::new();
    for (topic, found) in found {
        match topics.last_mut() {
            Some((last, partitions)) if *last == topic => partitions.push(found),
            _ => topics.push((topic, vec![found])),
        }
    }
    topics
}

fn batched((topic, partitions): TopicPositions) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|found| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(found.partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(text(&found.metadata)))
            .with_error_code(found.error)
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(text(&topic)))
        .with_partitions(partitions)
}

fn single((topic, partitions): TopicPositions) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|found| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(found.partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(text(&found.metadata)))
            .with_error_code(found.error)
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(text(&topic)))
        .with_partitions(partitions)
}
