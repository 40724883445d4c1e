//! What is about the records of partitions.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, TopicResponse};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, DescribeProducersRequest, DescribeProducersResponse,
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
};

use super::super::{Answer, Malformed, RequestContext};

/// The first version of Fetch with an error for the whole answer.
const FETCH_ERROR_SINCE: i16 = 7;

pub(super) fn produce(
    context: &RequestContext,
    request: ProduceRequest,
    error: ResponseError,
) -> Result<Answer, Malformed> {
    if request.acks == 0 {
        // Without an answer, closing is the only way to refuse; it is Kafka's.
        return Ok(Answer::Close(error.to_string()));
    }
    let topics = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|partition| {
            PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_base_offset(-1)
                .with_error_code(error.code())
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default()
            .with_name(topic.name)
            .with_partition_responses(partitions)
    });
    context.answer(&ProduceResponse::default().with_responses(topics.collect()))
}

pub(super) fn fetch(context: &RequestContext, request: FetchRequest, error: ResponseError) -> FetchResponse {
    let of_the_session = matches!(
        error,
        ResponseError::FetchSessionIdNotFound
            | ResponseError::InvalidFetchSessionEpoch
            | ResponseError::FetchSessionTopicIdError
    );
    let nothing_asked = request.topics.iter().all(|topic| topic.partitions.is_empty());
    if context.version >= FETCH_ERROR_SINCE && (of_the_session || nothing_asked) {
        return FetchResponse::default().with_error_code(error.code());
    }
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition)
                .with_error_code(error.code())
                .with_high_watermark(-1)
                .with_records(Some(Bytes::new()))
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.topic)
            .with_partitions(partitions)
    });
    FetchResponse::default().with_responses(topics.collect())
}

pub(super) fn list_offsets(request: ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

pub(super) fn for_epoch(request: OffsetForLeaderEpochRequest, code: i16) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic)
            .with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

pub(super) fn delete(request: DeleteRecordsRequest, code: i16) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index)
                .with_low_watermark(-1)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

pub(super) fn describe_producers(request: DescribeProducersRequest, code: i16) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            PartitionResponse::default()
                .with_partition_index(*index)
                .with_error_code(code)
                .with_error_message(None)
        });
        let partitions = partitions.collect();
        TopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}
