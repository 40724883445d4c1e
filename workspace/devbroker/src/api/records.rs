//! DeleteRecords.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::{RequestContext, code};
use crate::core::Core;
use crate::partition::NotDeleted;
use crate::security::{Operation, Resource};

/// The offset that stands for the end of the log.
const TO_THE_END: i64 = -1;

pub(super) fn delete(
    core: &Core,
    context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = context.must(core, Operation::Delete, Resource::Topic(&topic.name));
        let partitions = topic.partitions.iter().map(|wanted| {
            let result = allowed.and_then(|()| delete_one(core, &topic.name, wanted));
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code(&result))
                .with_low_watermark(result.unwrap_or(-1))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_one(core: &Core, topic: &str, wanted: &DeleteRecordsPartition) -> Result<i64, ResponseError> {
    let partition = core.topics.partition(topic, wanted.partition_index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let offset = if wanted.offset == TO_THE_END {
        partition.bounds().end
    } else {
        wanted.offset
    };
    let bounds = partition.delete_before(offset).map_err(|refused| match refused {
        NotDeleted::OutOfRange => ResponseError::OffsetOutOfRange,
        NotDeleted::NotKept => ResponseError::KafkaStorageError,
        NotDeleted::TopicDeleted => ResponseError::UnknownTopicOrPartition,
    })?;
    tracing::info!(
        topic,
        partition = wanted.partition_index,
        log_start_offset = bounds.start,
        "records deleted by request"
    );
    Ok(bounds.start)
}
