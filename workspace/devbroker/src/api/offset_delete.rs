//! OffsetDelete: forgetting positions of a group.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::RequestContext;
use crate::core::Core;
use crate::groups::{Absent, Command};
use crate::security::{Operation, Resource};

pub(super) async fn delete(
    core: &Core,
    context: &RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let group = Resource::Group(&request.group_id);
    if let Err(error) = context.must(core, Operation::Delete, group) {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    let existing = request.topics.iter().flat_map(|topic| {
        let allowed = context.must(core, Operation::Read, Resource::Topic(&topic.name));
        let known = core.topics.get(&topic.name);
        topic.partitions.iter().map(move |partition| {
            allowed?;
            let known = known
                .as_ref()
                .and_then(|topic| topic.partition(partition.partition_index));
            let known = known.ok_or(ResponseError::UnknownTopicOrPartition)?;
            Ok((known.topic().to_owned(), partition.partition_index))
        })
    });
    let existing: Vec<Result<(String, i32), ResponseError>> = existing.collect();
    let unwanted = existing.iter().flatten().cloned().collect();
    let results = match forget(core, &request.group_id, unwanted).await {
        Ok(results) => results,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let mut results = results.into_iter();
    let mut existing = existing.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = match existing.next() {
                Some(Err(error)) => Err(error),
                _ => results.next().unwrap_or(Ok(())),
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(super::code(&result))
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

async fn forget(
    core: &Core,
    group: &str,
    unwanted: Vec<(String, i32)>,
) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let answer = core.groups.ask(group, Absent::Leave, |sender| {
        Command::DeleteOffsets(unwanted.clone(), sender)
    });
    answer.await?.unwrap_or(Err(ResponseError::GroupIdNotFound))
}
