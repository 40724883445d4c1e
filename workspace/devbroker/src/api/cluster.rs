//! DescribeCluster and FindCoordinator: there is one broker, and it is everything.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, text};
use crate::core::{Core, NODE_ID};
use crate::security::{Operation, Resource};

/// The endpoint type of brokers; the other one is controllers.
const BROKERS: i8 = 1;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) fn host(context: &RequestContext) -> StrBytes {
    text(&context.local.ip().to_string())
}

pub(super) fn port(context: &RequestContext) -> i32 {
    i32::from(context.local.port())
}

pub(super) fn describe(
    core: &Core,
    context: &RequestContext,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default();
    if context.version >= 1 && request.endpoint_type != BROKERS {
        return response
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some(text("this is a broker's endpoint")));
    }
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(host(context))
        .with_port(port(context));
    response
        .with_cluster_id(text(&core.cluster_id))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![broker])
}

pub(super) fn find_coordinator(
    core: &Core,
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys = if context.version >= 4 {
        request.coordinator_keys
    } else {
        vec![request.key]
    };
    let coordinators = keys
        .into_iter()
        .map(|key| coordinator(core, context, key, request.key_type));
    if context.version >= 4 {
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let only = coordinators.last().unwrap_or_default();
    FindCoordinatorResponse::default()
        .with_error_code(only.error_code)
        .with_error_message(only.error_message)
        .with_node_id(only.node_id)
        .with_host(only.host)
        .with_port(only.port)
}

fn coordinator(core: &Core, context: &RequestContext, key: StrBytes, key_type: i8) -> Coordinator {
    let answer = Coordinator::default().with_key(key.clone());
    let refused = |error: ResponseError, message: &str| {
        let answer = answer.clone().with_node_id(BrokerId(-1)).with_port(-1);
        answer
            .with_error_code(error.code())
            .with_error_message(Some(text(message)))
    };
    let asked = match key_type {
        GROUP if key.is_empty() => return refused(ResponseError::InvalidGroupId, "the group id is empty"),
        GROUP => Resource::Group(&key),
        TRANSACTION => Resource::TransactionalId(&key),
        _ => {
            let message = "this broker coordinates groups and transactions only";
            return refused(ResponseError::InvalidRequest, message);
        }
    };
    if let Err(error) = context.must(core, Operation::Describe, asked) {
        return refused(error, "describing it is not allowed");
    }
    answer
        .with_node_id(BrokerId(NODE_ID))
        .with_host(host(context))
        .with_port(port(context))
}
