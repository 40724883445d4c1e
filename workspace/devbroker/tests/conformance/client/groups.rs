//! The requests of a group's member.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::Encodable;

use super::{Client, Coordinator, error, text, topic_name};

const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const HEARTBEAT_VERSION: i16 = 3;
const LEAVE_VERSION: i16 = 3;
const COMMIT_VERSION: i16 = 7;
const OFFSET_FETCH_VERSION: i16 = 8;
/// UNSTABLE_OFFSET_COMMIT
pub const UNSTABLE: i16 = 88;

/// Who a member says that it is.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: String,
    pub generation: i32,
    pub instance: Option<String>,
}

impl Member {
    /// What a producer says that reads in no group, and an administrator who sets offsets.
    pub fn nobody() -> Self {
        Self {
            id: String::new(),
            generation: -1,
            instance: None,
        }
    }
}

/// How a member joins.
#[derive(Clone, Debug)]
pub struct Joined {
    pub group: String,
    pub topic: String,
    pub member_id: String,
    pub instance: Option<String>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    pub protocols: Vec<String>,
}

impl Joined {
    /// A new dynamic member with the protocol `range`.
    pub fn new(group: &str, topic: &str) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            member_id: String::new(),
            instance: None,
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec!["range".to_owned()],
        }
    }

    pub fn of_member(mut self, id: &str) -> Self {
        self.member_id = id.to_owned();
        self
    }

    pub fn of_instance(mut self, instance: &str) -> Self {
        self.instance = Some(instance.to_owned());
        self
    }

    pub fn request(&self) -> JoinGroupRequest {
        let protocols = self.protocols.iter().map(|name| {
            JoinGroupRequestProtocol::default()
                .with_name(text(name))
                .with_metadata(subscription(&self.topic))
        });
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(self.session_timeout_ms)
            .with_rebalance_timeout_ms(self.rebalance_timeout_ms)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_protocol_type(text(&self.protocol_type))
            .with_protocols(protocols.collect())
    }
}

fn subscription(topic: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    ConsumerProtocolSubscription::default()
        .with_topics(vec![text(topic)])
        .encode(&mut bytes, 0)
        .unwrap();
    bytes.freeze()
}

impl Client {
    pub async fn join(&mut self, how: &Joined) -> JoinGroupResponse {
        self.until_coordinated(Coordinator::Group, &how.group).await;
        self.patiently(JOIN_VERSION, &how.request(), |answer| answer.error_code)
            .await
    }

    /// Joins as a new member: the first answer gives a member id, the second one the generation.
    pub async fn join_new(&mut self, how: &Joined) -> (JoinGroupResponse, Member) {
        let first = self.join(how).await;
        let answer = if error(first.error_code) == "MEMBER_ID_REQUIRED" {
            self.join(&how.clone().of_member(&first.member_id)).await
        } else {
            first
        };
        let member = Member {
            id: answer.member_id.to_string(),
            generation: answer.generation_id,
            instance: how.instance.clone(),
        };
        (answer, member)
    }

    pub async fn sync(
        &mut self,
        group: &str,
        member: &Member,
        assignments: &[(&str, &str)],
    ) -> SyncGroupResponse {
        let request = Self::sync_request(group, member, assignments);
        self.patiently(SYNC_VERSION, &request, |answer| answer.error_code)
            .await
    }

    pub fn sync_request(group: &str, member: &Member, assignments: &[(&str, &str)]) -> SyncGroupRequest {
        let assignments = assignments.iter().map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(Bytes::from((*assignment).to_owned()))
        });
        SyncGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance.as_deref().map(text))
            .with_assignments(assignments.collect())
    }

    /// A member alone in its group, with its assignment.
    pub async fn only_member(&mut self, how: &Joined) -> Member {
        let (answer, member) = self.join_new(how).await;
        assert_eq!(answer.error_code, 0, "the first member of a group is let in");
        let synced = self.sync(&how.group, &member, &[(&member.id, "all")]).await;
        assert_eq!(synced.error_code, 0, "the leader's assignment is taken");
        member
    }

    pub async fn heartbeat(&mut self, group: &str, member: &Member) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance.as_deref().map(text));
        let answer = self
            .patiently(HEARTBEAT_VERSION, &request, |answer| answer.error_code)
            .await;
        answer.error_code
    }

    /// Leaves by member id and, if given, by instance.
    pub async fn leave(&mut self, group: &str, members: &[(&str, Option<&str>)]) -> LeaveGroupResponse {
        let members = members.iter().map(|(id, instance)| {
            MemberIdentity::default()
                .with_member_id(text(id))
                .with_group_instance_id(instance.map(text))
        });
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_members(members.collect());
        self.patiently(LEAVE_VERSION, &request, |answer| answer.error_code)
            .await
    }

    /// Commits the offset of partition 0.
    pub async fn commit_offset(&mut self, group: &str, member: &Member, topic: &str, offset: i64) -> i16 {
        self.commit_offset_of(group, member, topic, 0, offset).await
    }

    pub async fn commit_offset_of(
        &mut self,
        group: &str,
        member: &Member,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance.as_deref().map(text))
            .with_topics(vec![topic]);
        self.until_coordinated(Coordinator::Group, group).await;
        let answer = self
            .patiently(COMMIT_VERSION, &request, |answer| {
                answer.topics[0].partitions[0].error_code
            })
            .await;
        answer.topics[0].partitions[0].error_code
    }

    pub fn offset_fetch_request(group: &str, topic: &str, require_stable: bool) -> OffsetFetchRequest {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(vec![topic]));
        OffsetFetchRequest::default()
            .with_groups(vec![group])
            .with_require_stable(require_stable)
    }

    /// What is committed for partition 0: an offset, nothing, or an error.
    pub async fn committed(&mut self, group: &str, topic: &str, require_stable: bool) -> String {
        self.until_coordinated(Coordinator::Group, group).await;
        let request = Self::offset_fetch_request(group, topic, require_stable);
        let answer = self
            .patiently(OFFSET_FETCH_VERSION, &request, |answer| {
                answer.groups[0].error_code
            })
            .await;
        let group = &answer.groups[0];
        if group.error_code != 0 {
            return error(group.error_code);
        }
        let partition = &group.topics[0].partitions[0];
        match (partition.error_code, partition.committed_offset) {
            (0, -1) => "nothing".to_owned(),
            (0, offset) => format!(
                "offset {offset}, metadata `{}`",
                partition.metadata.as_deref().unwrap_or_default()
            ),
            (code, _) => error(code),
        }
    }

    /// Waits until no transaction holds an offset of partition 0, and says what is committed.
    pub async fn committed_when_stable(&mut self, group: &str, topic: &str) -> String {
        let request = Self::offset_fetch_request(group, topic, true);
        self.until(OFFSET_FETCH_VERSION, &request, |answer| {
            let group = &answer.groups[0];
            group.error_code == 0 && group.topics[0].partitions[0].error_code != UNSTABLE
        })
        .await;
        self.committed(group, topic, true).await
    }
}
