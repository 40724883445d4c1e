//! What a request names: topics, groups and transactional ids, for faults that look for them.
//!
//! A request that names none of them, or that can not be decoded, names nothing.

use std::borrow::Borrow;

use bytes::Bytes;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest, ApiKey, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, FetchRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::{Malformed, RequestContext};
use crate::faults::Names;

/// Numbers of FindCoordinator, and of the requests about settings.
const KEY_OF_GROUP: i8 = 0;
const KEY_OF_TRANSACTION: i8 = 1;
const RESOURCE_TOPIC: i8 = 2;

pub(crate) fn of(context: &RequestContext, body: &Bytes) -> Names {
    // What can not be decoded is told to the client by the handler.
    find(context, body.clone()).unwrap_or_default()
}

fn find(context: &RequestContext, body: Bytes) -> Result<Names, Malformed> {
    Ok(match context.key {
        ApiKey::Produce => {
            let request: ProduceRequest = context.decode(body)?;
            Names {
                topics: texts(request.topic_data.iter().map(|topic| &topic.name)),
                transactional_ids: texts(request.transactional_id.iter()),
                ..Names::default()
            }
        }
        ApiKey::OffsetCommit => {
            let request: OffsetCommitRequest = context.decode(body)?;
            Names {
                topics: texts(request.topics.iter().map(|topic| &topic.name)),
                ..group(&request.group_id)
            }
        }
        ApiKey::OffsetFetch => offset_fetch(&context.decode(body)?),
        ApiKey::FindCoordinator => find_coordinator(&context.decode(body)?),
        ApiKey::JoinGroup => group(&context.decode::<JoinGroupRequest>(body)?.group_id),
        ApiKey::SyncGroup => group(&context.decode::<SyncGroupRequest>(body)?.group_id),
        ApiKey::Heartbeat => group(&context.decode::<HeartbeatRequest>(body)?.group_id),
        ApiKey::LeaveGroup => group(&context.decode::<LeaveGroupRequest>(body)?.group_id),
        ApiKey::OffsetDelete => {
            let request: OffsetDeleteRequest = context.decode(body)?;
            Names {
                topics: texts(request.topics.iter().map(|topic| &topic.name)),
                ..group(&request.group_id)
            }
        }
        ApiKey::DescribeGroups => groups(context.decode::<DescribeGroupsRequest>(body)?.groups.iter()),
        ApiKey::DeleteGroups => groups(context.decode::<DeleteGroupsRequest>(body)?.groups_names.iter()),
        ApiKey::InitProducerId
        | ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::EndTxn
        | ApiKey::DescribeTransactions => transactions(context, body)?,
        _ => Names {
            topics: topics(context, body)?,
            ..Names::default()
        },
    })
}

/// Of the requests of transactions.
fn transactions(context: &RequestContext, body: Bytes) -> Result<Names, Malformed> {
    Ok(match context.key {
        ApiKey::InitProducerId => {
            let request: InitProducerIdRequest = context.decode(body)?;
            Names {
                transactional_ids: texts(request.transactional_id.iter()),
                ..Names::default()
            }
        }
        ApiKey::AddPartitionsToTxn => {
            let request: AddPartitionsToTxnRequest = context.decode(body)?;
            Names {
                topics: texts(request.v3_and_below_topics.iter().map(|topic| &topic.name)),
                ..transaction(&request.v3_and_below_transactional_id)
            }
        }
        ApiKey::AddOffsetsToTxn => {
            let request: AddOffsetsToTxnRequest = context.decode(body)?;
            Names {
                groups: texts([&request.group_id].into_iter()),
                ..transaction(&request.transactional_id)
            }
        }
        ApiKey::TxnOffsetCommit => {
            let request: TxnOffsetCommitRequest = context.decode(body)?;
            Names {
                topics: texts(request.topics.iter().map(|topic| &topic.name)),
                groups: texts([&request.group_id].into_iter()),
                ..transaction(&request.transactional_id)
            }
        }
        ApiKey::EndTxn => transaction(&context.decode::<EndTxnRequest>(body)?.transactional_id),
        ApiKey::DescribeTransactions => {
            let request: DescribeTransactionsRequest = context.decode(body)?;
            Names {
                transactional_ids: texts(request.transactional_ids.iter()),
                ..Names::default()
            }
        }
        _ => Names::default(),
    })
}

/// Of the requests that name nothing but topics.
fn topics(context: &RequestContext, body: Bytes) -> Result<Vec<String>, Malformed> {
    Ok(match context.key {
        ApiKey::Fetch => {
            let request: FetchRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.topic))
        }
        ApiKey::ListOffsets => {
            let request: ListOffsetsRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.name))
        }
        ApiKey::Metadata => {
            let request: MetadataRequest = context.decode(body)?;
            texts(
                request
                    .topics
                    .iter()
                    .flatten()
                    .filter_map(|topic| topic.name.as_ref()),
            )
        }
        ApiKey::OffsetForLeaderEpoch => {
            let request: OffsetForLeaderEpochRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.topic))
        }
        ApiKey::DeleteRecords => {
            let request: DeleteRecordsRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.name))
        }
        ApiKey::CreateTopics => {
            let request: CreateTopicsRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.name))
        }
        ApiKey::DeleteTopics => {
            let request: DeleteTopicsRequest = context.decode(body)?;
            let states = request.topics.iter().filter_map(|topic| topic.name.as_ref());
            texts(states.chain(&request.topic_names))
        }
        ApiKey::CreatePartitions => {
            let request: CreatePartitionsRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.name))
        }
        ApiKey::DescribeProducers => {
            let request: DescribeProducersRequest = context.decode(body)?;
            texts(request.topics.iter().map(|topic| &topic.name))
        }
        ApiKey::DescribeConfigs => {
            let resources = context.decode::<DescribeConfigsRequest>(body)?.resources;
            topics_among(resources.iter().map(|it| (it.resource_type, &it.resource_name)))
        }
        ApiKey::AlterConfigs => {
            let resources = context.decode::<AlterConfigsRequest>(body)?.resources;
            topics_among(resources.iter().map(|it| (it.resource_type, &it.resource_name)))
        }
        ApiKey::IncrementalAlterConfigs => {
            let resources = context.decode::<IncrementalAlterConfigsRequest>(body)?.resources;
            topics_among(resources.iter().map(|it| (it.resource_type, &it.resource_name)))
        }
        _ => Vec::new(),
    })
}

/// The topics among the resources that have settings.
fn topics_among<'a>(resources: impl Iterator<Item = (i8, &'a StrBytes)>) -> Vec<String> {
    let topics = resources.filter(|(kind, _)| *kind == RESOURCE_TOPIC);
    texts(topics.map(|(_, name)| name))
}

fn offset_fetch(request: &OffsetFetchRequest) -> Names {
    let old = request.topics.iter().flatten().map(|topic| &topic.name);
    let of_groups = request
        .groups
        .iter()
        .flat_map(|group| group.topics.iter().flatten());
    Names {
        topics: texts(old.chain(of_groups.map(|topic| &topic.name))),
        groups: texts(
            [&request.group_id]
                .into_iter()
                .chain(request.groups.iter().map(|group| &group.group_id)),
        ),
        ..Names::default()
    }
}

fn find_coordinator(request: &FindCoordinatorRequest) -> Names {
    let keys = || texts([&request.key].into_iter().chain(&request.coordinator_keys));
    match request.key_type {
        KEY_OF_GROUP => Names {
            groups: keys(),
            ..Names::default()
        },
        KEY_OF_TRANSACTION => Names {
            transactional_ids: keys(),
            ..Names::default()
        },
        _ => Names::default(),
    }
}

fn transaction(id: &TransactionalId) -> Names {
    Names {
        transactional_ids: texts([id].into_iter()),
        ..Names::default()
    }
}

fn group(id: &GroupId) -> Names {
    groups([id].into_iter())
}

fn groups<'a>(ids: impl Iterator<Item = &'a GroupId>) -> Names {
    Names {
        groups: texts(ids),
        ..Names::default()
    }
}

fn texts<'a, T: Borrow<StrBytes> + 'a>(names: impl Iterator<Item = &'a T>) -> Vec<String> {
    names.map(|name| name.borrow().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::versions::SUPPORTED;

    /// What the sample of a request names.
    fn named(key: ApiKey, version: i16) -> Names {
        of(&samples::context(key, version), &samples::request(key, version))
    }

    #[test]
    fn every_request_about_topics_groups_or_transactions_is_found_by_them() {
        let about_the_cluster = [
            ApiKey::ApiVersions,
            ApiKey::DescribeCluster,
            ApiKey::ListGroups,
            ApiKey::ListTransactions,
            ApiKey::SaslHandshake,
            ApiKey::SaslAuthenticate,
            ApiKey::DescribeAcls,
            ApiKey::CreateAcls,
            ApiKey::DeleteAcls,
            // The sample has no transactional id.
            ApiKey::InitProducerId,
        ];
        for api in SUPPORTED {
            for version in api.min..=api.max {
                let names = named(api.key, version);
                let names_something = names != Names::default();
                let should = !about_the_cluster.contains(&api.key);
                assert_eq!(names_something, should, "{:?} {version}: {names:?}", api.key);
            }
        }
    }

    #[test]
    fn a_commit_names_its_group_and_its_topics() {
        let names = named(ApiKey::OffsetCommit, 9);
        assert_eq!(names.topics, ["topic"]);
        assert_eq!(names.groups, ["group"]);
        assert!(named(ApiKey::OffsetFetch, 9).groups.contains(&"group".to_owned()));
        assert!(named(ApiKey::OffsetFetch, 7).groups.contains(&"group".to_owned()));
    }

    #[test]
    fn what_can_not_be_decoded_names_nothing() {
        let context = samples::context(ApiKey::Fetch, 12);
        assert_eq!(of(&context, &Bytes::from_static(b"?")), Names::default());
    }
}
