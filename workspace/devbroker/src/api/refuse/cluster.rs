//! Topics, settings, coordinators.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, BrokerId, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    MetadataRequest, MetadataResponse, alter_configs_response, incremental_alter_configs_response,
};

use super::super::{RequestContext, metadata};
use crate::core::Core;

/// The first version of FindCoordinator that asks for several keys.
const COORDINATORS_SINCE: i16 = 4;
/// The first version of DeleteTopics that names topics by id too.
const TOPIC_STATES_SINCE: i16 = 6;

/// The broker stays known, or the client would have nobody left to ask; each topic has the error.
pub(super) fn metadata(
    core: &Core,
    context: &RequestContext,
    request: MetadataRequest,
    code: i16,
) -> MetadataResponse {
    let request = request.with_allow_auto_topic_creation(false);
    let mut response = metadata::metadata(core, context, request);
    for topic in &mut response.topics {
        topic.error_code = code;
        topic.partitions.clear();
    }
    response
}

pub(super) fn describe(code: i16) -> DescribeClusterResponse {
    DescribeClusterResponse::default().with_error_code(code)
}

pub(super) fn find_coordinator(
    context: &RequestContext,
    request: FindCoordinatorRequest,
    code: i16,
) -> FindCoordinatorResponse {
    let nobody = BrokerId(-1);
    if context.version < COORDINATORS_SINCE {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_node_id(nobody)
            .with_port(-1);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code)
            .with_node_id(nobody)
            .with_port(-1)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

pub(super) fn create_topics(request: CreateTopicsRequest, code: i16) -> CreateTopicsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        CreatableTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code)
            .with_error_message(None)
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

pub(super) fn delete_topics(
    context: &RequestContext,
    request: DeleteTopicsRequest,
    code: i16,
) -> DeleteTopicsResponse {
    let refused = |name| {
        DeletableTopicResult::default()
            .with_name(name)
            .with_error_code(code)
    };
    let responses = if context.version >= TOPIC_STATES_SINCE {
        let states = request.topics.into_iter();
        states
            .map(|state| refused(state.name).with_topic_id(state.topic_id))
            .collect()
    } else {
        let names = request.topic_names.into_iter();
        names.map(|name| refused(Some(name))).collect()
    };
    DeleteTopicsResponse::default().with_responses(responses)
}

pub(super) fn grow(request: CreatePartitionsRequest, code: i16) -> CreatePartitionsResponse {
    let results = request.topics.into_iter().map(|topic| {
        CreatePartitionsTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code)
            .with_error_message(None)
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

pub(super) fn describe_configs(request: DescribeConfigsRequest, code: i16) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(code)
            .with_error_message(None)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

pub(super) fn alter_configs(request: AlterConfigsRequest, code: i16) -> AlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(code)
            .with_error_message(None)
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

pub(super) fn alter_configs_incrementally(
    request: IncrementalAlterConfigsRequest,
    code: i16,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(code)
            .with_error_message(None)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}
