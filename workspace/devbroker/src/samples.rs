//! Sample requests and batches for the tests of this crate.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use crate::api::RequestContext;
use crate::batch::Sequenced;
use crate::security::Principal;

/// What the server knows of a request from a client that need not authenticate.
pub(crate) fn context(key: ApiKey, version: i16) -> RequestContext {
    RequestContext {
        key,
        version,
        correlation_id: 42,
        client_id: "samples".to_owned(),
        local: ([127, 0, 0, 1], 1).into(),
        peer: ([127, 0, 0, 1], 2).into(),
        principal: Principal::anonymous(),
    }
}

/// An uncompressed batch whose records have the times `base_timestamp`, one more, and so on.
pub(crate) fn batch(records: i32, base_timestamp: i64, sequenced: Option<Sequenced>) -> Vec<u8> {
    let record = |index: i32| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: sequenced.map_or(-1, |sequenced| sequenced.producer_id),
        producer_epoch: sequenced.map_or(-1, |sequenced| sequenced.epoch),
        timestamp_type: TimestampType::Creation,
        offset: i64::from(index),
        sequence: sequenced.map_or(-1, |sequenced| sequenced.first) + index,
        timestamp: base_timestamp + i64::from(index),
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static(b"value")),
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..records).map(record).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.to_vec()
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("topic"))
}

fn body(request: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

/// A whole request, as it comes behind its length.
pub(crate) fn frame(key: ApiKey, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text("sample")));
    let mut frame = BytesMut::new();
    header
        .encode(&mut frame, key.request_header_version(version))
        .unwrap();
    frame.extend_from_slice(body);
    frame.to_vec()
}

/// The body of a request with something in each of its arrays; topic `topic` has one partition.
pub(crate) fn request(key: ApiKey, version: i16) -> Bytes {
    let v = version;
    match key {
        ApiKey::Produce => produce(v, batch(2, 5, None)),
        ApiKey::Fetch => body(&fetch(), v),
        ApiKey::ListOffsets => {
            let partition = ListOffsetsPartition::default().with_timestamp(5);
            let topic = ListOffsetsTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition]);
            body(&ListOffsetsRequest::default().with_topics(vec![topic]), v)
        }
        ApiKey::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(topic()));
            body(&MetadataRequest::default().with_topics(Some(vec![topic])), v)
        }
        ApiKey::OffsetCommit => {
            let metadata = Some(text("note"));
            let partition = OffsetCommitRequestPartition::default().with_committed_metadata(metadata);
            let topic = OffsetCommitRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_group_id(GroupId(text("group")));
            body(&request.with_topics(vec![topic]), v)
        }
        ApiKey::OffsetFetch => offset_fetch(v),
        ApiKey::FindCoordinator if v >= 4 => body(
            &FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a"), text("b")]),
            v,
        ),
        ApiKey::FindCoordinator => body(&FindCoordinatorRequest::default().with_key(text("a")), v),
        ApiKey::JoinGroup => body(&join(), v),
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest::default().with_group_id(GroupId(text("group")));
            body(&request.with_member_id(text("member")), v)
        }
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(GroupId(text("group")));
            let member = MemberIdentity::default().with_member_id(text("member"));
            let request = if v >= 3 {
                request.with_members(vec![member])
            } else {
                request.with_member_id(text("member"))
            };
            body(&request, v)
        }
        ApiKey::SyncGroup => {
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(text("member"))
                .with_assignment(Bytes::from_static(b"parts"));
            let request = SyncGroupRequest::default().with_group_id(GroupId(text("group")));
            body(
                &request
                    .with_member_id(text("member"))
                    .with_assignments(vec![assignment]),
                v,
            )
        }
        ApiKey::DescribeGroups => body(
            &DescribeGroupsRequest::default().with_groups(vec![GroupId(text("group"))]),
            v,
        ),
        ApiKey::ListGroups if v >= 4 => body(
            &ListGroupsRequest::default().with_states_filter(vec![text("Stable")]),
            v,
        ),
        ApiKey::ListGroups => body(&ListGroupsRequest::default(), v),
        ApiKey::ApiVersions => body(&api_versions(), v),
        ApiKey::SaslHandshake => body(&SaslHandshakeRequest::default().with_mechanism(text("PLAIN")), v),
        ApiKey::SaslAuthenticate => {
            let token = Bytes::from_static(b"\0app\0app-secret");
            body(&SaslAuthenticateRequest::default().with_auth_bytes(token), v)
        }
        ApiKey::DescribeAcls | ApiKey::CreateAcls | ApiKey::DeleteAcls => acl_request(key, v),
        _ => admin_request(key, v),
    }
}

fn admin_request(key: ApiKey, v: i16) -> Bytes {
    match key {
        ApiKey::CreateTopics => {
            let config = CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000")));
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatableTopic::default()
                .with_name(TopicName(text("created")))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assignment])
                .with_configs(vec![config]);
            body(&CreateTopicsRequest::default().with_topics(vec![topic]), v)
        }
        ApiKey::DeleteTopics if v >= 6 => {
            let topic = DeleteTopicState::default().with_name(Some(TopicName(text("created"))));
            body(&DeleteTopicsRequest::default().with_topics(vec![topic]), v)
        }
        ApiKey::DeleteTopics => body(
            &DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text("created"))]),
            v,
        ),
        ApiKey::DeleteRecords => {
            let topic = DeleteRecordsTopic::default()
                .with_name(topic())
                .with_partitions(vec![DeleteRecordsPartition::default()]);
            body(&DeleteRecordsRequest::default().with_topics(vec![topic]), v)
        }
        ApiKey::InitProducerId => body(&InitProducerIdRequest::default().with_transactional_id(None), v),
        ApiKey::OffsetForLeaderEpoch => {
            let topic = OffsetForLeaderTopic::default()
                .with_topic(topic())
                .with_partitions(vec![OffsetForLeaderPartition::default()]);
            body(
                &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]),
                v,
            )
        }
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("topic"))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            body(
                &DescribeConfigsRequest::default().with_resources(vec![resource]),
                v,
            )
        }
        ApiKey::CreatePartitions => {
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatePartitionsTopic::default()
                .with_name(topic())
                .with_count(2)
                .with_assignments(Some(vec![assignment]));
            body(
                &CreatePartitionsRequest::default()
                    .with_validate_only(true)
                    .with_topics(vec![topic]),
                v,
            )
        }
        ApiKey::DeleteGroups => body(
            &DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("group"))]),
            v,
        ),
        ApiKey::AddPartitionsToTxn => {
            let topic = AddPartitionsToTxnTopic::default()
                .with_name(topic())
                .with_partitions(vec![0]);
            let request = AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(TransactionalId(text("transaction")));
            body(&request.with_v3_and_below_topics(vec![topic]), v)
        }
        ApiKey::AddOffsetsToTxn => {
            let request =
                AddOffsetsToTxnRequest::default().with_transactional_id(TransactionalId(text("transaction")));
            body(&request.with_group_id(GroupId(text("group"))), v)
        }
        ApiKey::EndTxn => {
            let request =
                EndTxnRequest::default().with_transactional_id(TransactionalId(text("transaction")));
            body(&request.with_committed(true), v)
        }
        ApiKey::TxnOffsetCommit => {
            let partition =
                TxnOffsetCommitRequestPartition::default().with_committed_metadata(Some(text("note")));
            let topic = TxnOffsetCommitRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition]);
            let request =
                TxnOffsetCommitRequest::default().with_transactional_id(TransactionalId(text("transaction")));
            body(
                &request
                    .with_group_id(GroupId(text("group")))
                    .with_topics(vec![topic]),
                v,
            )
        }
        ApiKey::AlterConfigs => {
            let config = alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000")));
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("topic"))
                .with_configs(vec![config]);
            body(&AlterConfigsRequest::default().with_resources(vec![resource]), v)
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = incremental_alter_configs_request::AlterableConfig::default()
                .with_name(text("cleanup.policy"))
                .with_config_operation(2)
                .with_value(Some(text("compact")));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("topic"))
                .with_configs(vec![config]);
            body(
                &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
                v,
            )
        }
        ApiKey::DescribeProducers => {
            let topic = describe_producers_request::TopicRequest::default()
                .with_name(topic())
                .with_partition_indexes(vec![0, 1]);
            body(&DescribeProducersRequest::default().with_topics(vec![topic]), v)
        }
        ApiKey::ListTransactions => {
            let request = ListTransactionsRequest::default()
                .with_state_filters(vec![text("Ongoing"), text("Unknown")])
                .with_producer_id_filters(vec![ProducerId(1)]);
            body(&request, v)
        }
        ApiKey::DescribeTransactions => {
            let ids = ["transaction", ""].map(|id| TransactionalId(text(id)));
            body(
                &DescribeTransactionsRequest::default().with_transactional_ids(ids.to_vec()),
                v,
            )
        }
        ApiKey::OffsetDelete => {
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
            let request = OffsetDeleteRequest::default().with_group_id(GroupId(text("group")));
            body(&request.with_topics(vec![topic]), v)
        }
        ApiKey::DescribeCluster => body(&DescribeClusterRequest::default(), v),
        other => panic!("no sample of {other:?}"),
    }
}

fn acl_request(key: ApiKey, v: i16) -> Bytes {
    // A literal topic name, Read, Allow.
    match key {
        ApiKey::CreateAcls => {
            let creation = AclCreation::default()
                .with_resource_type(2)
                .with_resource_name(text("topic"))
                .with_resource_pattern_type(3)
                .with_principal(text("User:app"))
                .with_host(text("*"))
                .with_operation(3)
                .with_permission_type(3);
            body(&CreateAclsRequest::default().with_creations(vec![creation]), v)
        }
        ApiKey::DeleteAcls => {
            let filter = DeleteAclsFilter::default()
                .with_resource_type_filter(2)
                .with_resource_name_filter(Some(text("topic")))
                .with_pattern_type_filter(3)
                .with_operation(1)
                .with_permission_type(1);
            body(&DeleteAclsRequest::default().with_filters(vec![filter]), v)
        }
        _ => {
            let filter = DescribeAclsRequest::default()
                .with_resource_type_filter(1)
                .with_pattern_type_filter(1)
                .with_principal_filter(Some(text("User:app")))
                .with_operation(1)
                .with_permission_type(1);
            body(&filter, v)
        }
    }
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1"))
}

/// The body of a request that produces this batch to partition 0 of `topic`.
pub(crate) fn produce(version: i16, batch: Vec<u8>) -> Bytes {
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default()
        .with_name(topic())
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    body(&request, version)
}

fn fetch() -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let topics = vec![
        FetchTopic::default()
            .with_topic(topic())
            .with_partitions(vec![partition]),
    ];
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(topics);
    // Every version has room for it, as an empty list where the field is absent.
    request.with_forgotten_topics_data(Vec::<ForgottenTopic>::new())
}

fn offset_fetch(version: i16) -> Bytes {
    let request = OffsetFetchRequest::default();
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic())
            .with_partition_indexes(vec![0, 1]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text("group")))
            .with_topics(Some(vec![topic]));
        return body(&request.with_groups(vec![group]), version);
    }
    let topic = OffsetFetchRequestTopic::default()
        .with_name(topic())
        .with_partition_indexes(vec![0, 1]);
    body(
        &request
            .with_group_id(GroupId(text("group")))
            .with_topics(Some(vec![topic])),
        version,
    )
}

fn join() -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"topics"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text("group")))
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(6_000)
        .with_member_id(text("unknown"))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}
