//! ListOffsets and OffsetForLeaderEpoch: where logs begin, end, and what lies at a time.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::RequestContext;
use super::fetch::epoch_error;
use crate::batch::LEADER_EPOCH;
use crate::core::Core;
use crate::partition::{Isolation, Partition};
use crate::record_times::{RecordTime, first_at_or_after, first_of_largest};
use crate::security::{Operation, Resource};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The earliest on local disk, which is the earliest where there is no other.
const EARLIEST_LOCAL: i64 = -4;

pub(super) fn list(
    core: &Core,
    context: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    // Before version 4 the answer has no field for the epoch.
    let leader_epoch = if context.version >= 4 { LEADER_EPOCH } else { -1 };
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = context.must(core, Operation::Describe, Resource::Topic(&topic.name));
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
            let isolation = Isolation::of(request.isolation_level);
            match allowed.and_then(|()| list_one(core, &topic.name, wanted, isolation)) {
                Ok(Some(found)) => answer
                    .with_timestamp(found.timestamp)
                    .with_offset(found.offset)
                    .with_leader_epoch(leader_epoch),
                Ok(None) => answer,
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn list_one(
    core: &Core,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Option<RecordTime>, ResponseError> {
    let partition = core.topics.partition(topic, wanted.partition_index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    if let Some(error) = epoch_error(wanted.current_leader_epoch) {
        return Err(error);
    }
    let bounds = partition.bounds();
    let position = |offset| {
        Ok(Some(RecordTime {
            offset,
            timestamp: -1,
        }))
    };
    match wanted.timestamp {
        LATEST => position(bounds.end_for(isolation)),
        EARLIEST | EARLIEST_LOCAL => position(bounds.start),
        MAX_TIMESTAMP => latest_record(&partition),
        timestamp if timestamp >= 0 => {
            let found = record_at(&partition, bounds.start, timestamp)?;
            // What is not stable yet may still be aborted, and is not told to a reader who minds.
            Ok(found.filter(|found| found.offset < bounds.end_for(isolation)))
        }
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

fn record_at(partition: &Partition, start: i64, timestamp: i64) -> Result<Option<RecordTime>, ResponseError> {
    for batch in partition.candidates(timestamp) {
        let found = first_at_or_after(&batch, timestamp, start);
        if let Some(found) = found.map_err(|error| unreadable(partition, &error.to_string()))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn latest_record(partition: &Partition) -> Result<Option<RecordTime>, ResponseError> {
    let Some(batch) = partition.latest() else {
        return Ok(None);
    };
    first_of_largest(&batch).map_err(|error| unreadable(partition, &error.to_string()))
}

fn unreadable(partition: &Partition, reason: &str) -> ResponseError {
    tracing::warn!(
        topic = partition.topic(),
        partition = partition.index(),
        reason,
        "a batch's records can not be read to find an offset by time"
    );
    ResponseError::CorruptMessage
}

pub(super) fn for_epoch(
    core: &Core,
    context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = context.must(core, Operation::Describe, Resource::Topic(&topic.topic));
        let partitions = topic.partitions.iter().map(|wanted| match allowed {
            Ok(()) => epoch_end(core, &topic.topic, wanted),
            Err(error) => EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_error_code(error.code()),
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic)
            .with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn epoch_end(core: &Core, topic: &str, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(wanted.partition);
    let Some(partition) = core.topics.partition(topic, wanted.partition) else {
        return answer.with_error_code(ResponseError::UnknownTopicOrPartition.code());
    };
    match epoch_error(wanted.current_leader_epoch) {
        Some(error) => answer.with_error_code(error.code()),
        // There was one epoch only, so it ends where the log ends; of others nothing is known.
        None if wanted.leader_epoch == LEADER_EPOCH => answer
            .with_leader_epoch(LEADER_EPOCH)
            .with_end_offset(partition.bounds().end),
        None => answer,
    }
}
