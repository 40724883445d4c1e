//! Consumer groups and their positions.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupResponse,
};

use super::super::RequestContext;

/// The first version of OffsetFetch with an error for the whole answer, and the first that asks for
/// several groups, each with an error of its own.
const POSITIONS_ERROR_SINCE: i16 = 2;
const POSITIONS_GROUPS_SINCE: i16 = 8;
/// The first version of LeaveGroup that names several members.
const LEAVE_MEMBERS_SINCE: i16 = 3;

pub(super) fn commit(request: OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

pub(super) fn positions(
    context: &RequestContext,
    request: OffsetFetchRequest,
    error: ResponseError,
) -> OffsetFetchResponse {
    // These are told of single partitions; all others are of the group or its coordinator.
    let of_partitions = matches!(
        error,
        ResponseError::UnstableOffsetCommit
            | ResponseError::UnknownTopicOrPartition
            | ResponseError::TopicAuthorizationFailed
    );
    let code = error.code();
    if context.version >= POSITIONS_GROUPS_SINCE {
        let groups = request.groups.into_iter().map(|group| {
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
            let Some(topics) = group.topics.filter(|_| of_partitions) else {
                return answer.with_error_code(code);
            };
            let topics = topics.into_iter().map(|topic| {
                let partitions = topic.partition_indexes.iter().map(|index| {
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(*index)
                        .with_committed_offset(-1)
                        .with_error_code(code)
                });
                let partitions = partitions.collect();
                OffsetFetchResponseTopics::default()
                    .with_name(topic.name)
                    .with_partitions(partitions)
            });
            answer.with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let of_partitions = of_partitions || context.version < POSITIONS_ERROR_SINCE;
    let Some(topics) = request.topics.filter(|_| of_partitions) else {
        return OffsetFetchResponse::default().with_error_code(code);
    };
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(*index)
                .with_committed_offset(-1)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

pub(super) fn join(request: &JoinGroupRequest, code: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code)
        .with_generation_id(-1)
        .with_member_id(request.member_id.clone())
}

pub(super) fn sync(code: i16) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(code)
}

pub(super) fn heartbeat(code: i16) -> HeartbeatResponse {
    HeartbeatResponse::default().with_error_code(code)
}

pub(super) fn leave(
    context: &RequestContext,
    request: LeaveGroupRequest,
    error: ResponseError,
) -> LeaveGroupResponse {
    let of_members = matches!(
        error,
        ResponseError::UnknownMemberId | ResponseError::FencedInstanceId
    );
    if context.version < LEAVE_MEMBERS_SINCE || !of_members {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let members = request.members.into_iter().map(|member| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(error.code())
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(super) fn list(code: i16) -> ListGroupsResponse {
    ListGroupsResponse::default().with_error_code(code)
}

pub(super) fn describe(request: DescribeGroupsRequest, code: i16) -> DescribeGroupsResponse {
    let groups = request
        .groups
        .into_iter()
        .map(|id| DescribedGroup::default().with_group_id(id).with_error_code(code));
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn delete(request: DeleteGroupsRequest, code: i16) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|id| {
        DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(code)
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

pub(super) fn delete_offsets(code: i16) -> OffsetDeleteResponse {
    OffsetDeleteResponse::default().with_error_code(code)
}
