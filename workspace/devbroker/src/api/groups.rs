//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup, ListGroups, DescribeGroups, DeleteGroups.
//!
//! Bytes and texts of a request that a group keeps are copied: a slice would keep the whole frame.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{RequestContext, text};
use crate::core::Core;
use crate::groups::{
    Absent, Command, DescribedMember, Description, JoinRequest, Joined, Protocol, Speaker, SyncRequest,
};
use crate::security::{Operation, Resource};

/// The first version of JoinGroup whose clients come again with the id that they got (KIP-394).
const ID_REQUIRED_SINCE: i16 = 4;
/// The first version of JoinGroup that knows "skip the assignment" (KIP-814).
const SKIP_SINCE: i16 = 9;
/// The only type of group that this broker has.
const CLASSIC: &str = "classic";

pub(super) fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

pub(super) fn speaker(member_id: &StrBytes, instance_id: Option<&StrBytes>, generation: i32) -> Speaker {
    Speaker {
        member_id: member_id.to_string(),
        instance_id: owned(instance_id),
        generation,
    }
}

pub(super) async fn join(
    core: &Core,
    context: &RequestContext,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let asked = join_request(context, &request);
    let refused = |error: ResponseError, member_id: &str| {
        JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            // Null is known to the latest versions only.
            .with_protocol_name(if context.version >= 7 {
                None
            } else {
                Some(StrBytes::default())
            })
            .with_member_id(text(member_id))
    };
    if request.group_id.is_empty() {
        return refused(ResponseError::InvalidGroupId, &asked.member_id);
    }
    if let Err(error) = context.must(core, Operation::Read, Resource::Group(&request.group_id)) {
        return refused(error, &asked.member_id);
    }
    if !core.groups.accepts_session_timeout(asked.session_timeout) {
        return refused(ResponseError::InvalidSessionTimeout, &asked.member_id);
    }
    // Only a newcomer founds a group; an id in an unknown group is of a life before.
    let absent = if asked.member_id.is_empty() {
        Absent::Create
    } else {
        Absent::Leave
    };
    let answer = core
        .groups
        .ask(&request.group_id, absent, |sender| {
            Command::Join(asked.clone(), sender)
        })
        .await;
    match answer {
        Ok(Some(Ok(joined))) => accepted(joined),
        Ok(Some(Err(reason))) => refused(reason.error, &reason.member_id),
        Ok(None) => refused(ResponseError::UnknownMemberId, &asked.member_id),
        Err(error) => refused(error, &asked.member_id),
    }
}

fn join_request(context: &RequestContext, request: &JoinGroupRequest) -> JoinRequest {
    let milliseconds = |number: i32| Duration::from_millis(u64::try_from(number).unwrap_or(0));
    let instance_id = owned(request.group_instance_id.as_ref());
    let prefix = instance_id.as_deref().unwrap_or(&context.client_id);
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    JoinRequest {
        member_id: request.member_id.to_string(),
        fresh_id: format!("{prefix}-{}", Uuid::new_v4()),
        instance_id,
        client_id: context.client_id.clone(),
        client_host: format!("/{}", context.peer.ip()),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        session_timeout: milliseconds(request.session_timeout_ms),
        // Version 0 has one time-out for both.
        rebalance_timeout: milliseconds(match request.rebalance_timeout_ms {
            ..0 => request.session_timeout_ms,
            timeout => timeout,
        }),
        id_required: context.version >= ID_REQUIRED_SINCE,
        may_skip_assignment: context.version >= SKIP_SINCE,
    }
}

fn accepted(joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.as_deref().map(text))
        .with_protocol_name(Some(text(joined.protocol.as_deref().unwrap_or_default())))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(&joined.member_id))
        .with_members(members.collect())
}

pub(super) async fn sync(
    core: &Core,
    context: &RequestContext,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    if let Err(error) = context.must(core, Operation::Read, Resource::Group(&request.group_id)) {
        return SyncGroupResponse::default().with_error_code(error.code());
    }
    let assignments = request.assignments.iter().map(|assignment| {
        (
            assignment.member_id.to_string(),
            Bytes::copy_from_slice(&assignment.assignment),
        )
    });
    let asked = SyncRequest {
        speaker: speaker(
            &request.member_id,
            request.group_instance_id.as_ref(),
            request.generation_id,
        ),
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        assignments: assignments.collect(),
    };
    let answer = core.groups.ask(&request.group_id, Absent::Leave, |sender| {
        Command::Sync(asked.clone(), sender)
    });
    let result = answer
        .await
        .and_then(|answer| answer.unwrap_or(Err(ResponseError::UnknownMemberId)));
    match result {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.as_deref().map(text))
            .with_protocol_name(synced.protocol.as_deref().map(text))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

pub(super) async fn heartbeat(
    core: &Core,
    context: &RequestContext,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    if let Err(error) = context.must(core, Operation::Read, Resource::Group(&request.group_id)) {
        return HeartbeatResponse::default().with_error_code(error.code());
    }
    let speaker = speaker(
        &request.member_id,
        request.group_instance_id.as_ref(),
        request.generation_id,
    );
    let answer = core.groups.ask(&request.group_id, Absent::Leave, |sender| {
        Command::Heartbeat(speaker.clone(), sender)
    });
    let result = answer
        .await
        .and_then(|answer| answer.unwrap_or(Err(ResponseError::UnknownMemberId)));
    HeartbeatResponse::default().with_error_code(super::code(&result))
}

pub(super) async fn leave(
    core: &Core,
    context: &RequestContext,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    if let Err(error) = context.must(core, Operation::Read, Resource::Group(&request.group_id)) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    if context.version < 3 {
        let member = MemberIdentity::default().with_member_id(request.member_id);
        let result = leave_one(core, &request.group_id, &member).await;
        return LeaveGroupResponse::default().with_error_code(super::code(&result));
    }
    let mut members = Vec::with_capacity(request.members.len());
    for member in request.members {
        let result = leave_one(core, &request.group_id, &member).await;
        members.push(
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(super::code(&result)),
        );
    }
    LeaveGroupResponse::default().with_members(members)
}

async fn leave_one(core: &Core, group: &str, member: &MemberIdentity) -> Result<(), ResponseError> {
    let answer = core.groups.ask(group, Absent::Leave, |answer| Command::Leave {
        member_id: member.member_id.to_string(),
        instance_id: owned(member.group_instance_id.as_ref()),
        answer,
    });
    answer.await?.unwrap_or(Err(ResponseError::UnknownMemberId))
}

pub(super) async fn list(
    core: &Core,
    context: &RequestContext,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let sees_all = context.may(core, Operation::Describe, Resource::Cluster);
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let mut groups = Vec::new();
    for id in core.groups.ids() {
        if !sees_all && !context.may(core, Operation::Describe, Resource::Group(&id)) {
            continue;
        }
        let Ok(Some(described)) = core.groups.ask(&id, Absent::Leave, Command::Describe).await else {
            continue;
        };
        if wanted(&request.states_filter, described.state) && wanted(&request.types_filter, CLASSIC) {
            groups.push(
                ListedGroup::default()
                    .with_group_id(GroupId(text(&id)))
                    .with_protocol_type(text(&described.protocol_type))
                    .with_group_state(text(described.state))
                    .with_group_type(text(CLASSIC)),
            );
        }
    }
    ListGroupsResponse::default().with_groups(groups)
}

pub(super) async fn describe(
    core: &Core,
    context: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for id in request.groups {
        let answer = match context.must(core, Operation::Describe, Resource::Group(&id)) {
            Ok(()) => core.groups.ask(&id, Absent::Leave, Command::Describe).await,
            Err(error) => Err(error),
        };
        let group = DescribedGroup::default().with_group_id(id);
        groups.push(match answer {
            Ok(Some(described)) => filled(group, described),
            // Before version 6 a group that does not exist is described as dead.
            Ok(None) => group.with_group_state(text("Dead")),
            Err(error) => group.with_error_code(error.code()),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn filled(group: DescribedGroup, described: Description) -> DescribedGroup {
    let member = |member: DescribedMember| {
        DescribedGroupMember::default()
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    };
    group
        .with_group_state(text(described.state))
        .with_protocol_type(text(&described.protocol_type))
        .with_protocol_data(text(&described.protocol))
        .with_members(described.members.into_iter().map(member).collect())
}

pub(super) async fn delete(
    core: &Core,
    context: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let answer = match context.must(core, Operation::Delete, Resource::Group(&id)) {
            Ok(()) => core.groups.ask(&id, Absent::Leave, Command::Delete).await,
            Err(error) => Err(error),
        };
        let result = answer.and_then(|answer| answer.unwrap_or(Err(ResponseError::GroupIdNotFound)));
        results.push(
            DeletableGroupResult::default()
                .with_group_id(id)
                .with_error_code(super::code(&result)),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
