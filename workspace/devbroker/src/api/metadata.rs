//! Metadata: who serves what.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};

use super::{RequestContext, cluster, text};
use crate::batch::LEADER_EPOCH;
use crate::core::{Core, NODE_ID};
use crate::security::{Operation, Resource};
use crate::topic_config::TopicConfig;
use crate::topics::Topic;

pub(super) fn metadata(core: &Core, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    // Version 0 says "all topics" with an empty list, later versions with none.
    let wanted = request
        .topics
        .filter(|topics| context.version > 0 || !topics.is_empty());
    let may_create = core.options.auto_create_topics && request.allow_auto_topic_creation;
    let topics = match wanted {
        None => {
            let all = core.topics.all();
            let visible = all.iter().filter(|topic| may_see(core, context, topic.name()));
            visible.map(|topic| described(topic)).collect()
        }
        Some(wanted) => wanted
            .into_iter()
            .map(|topic| one(core, context, topic, may_create))
            .collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(cluster::host(context))
        .with_port(cluster::port(context));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(&core.cluster_id)))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics)
}

fn may_see(core: &Core, context: &RequestContext, topic: &str) -> bool {
    context.may(core, Operation::Describe, Resource::Topic(topic))
}

fn may_make(core: &Core, context: &RequestContext, topic: &str) -> bool {
    let create = |resource| context.may(core, Operation::Create, resource);
    create(Resource::Cluster) || create(Resource::Topic(topic))
}

fn one(
    core: &Core,
    context: &RequestContext,
    wanted: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default();
    // What may not be seen is not told from what does not exist.
    let denied = ResponseError::TopicAuthorizationFailed.code();
    let Some(name) = wanted.name else {
        return match core.topics.get_by_id(wanted.topic_id) {
            Some(topic) if !may_see(core, context, topic.name()) => {
                answer.with_topic_id(wanted.topic_id).with_error_code(denied)
            }
            Some(topic) => described(&topic),
            None => answer
                .with_topic_id(wanted.topic_id)
                .with_error_code(ResponseError::UnknownTopicId.code()),
        };
    };
    if !may_see(core, context, &name) {
        return answer.with_name(Some(name)).with_error_code(denied);
    }
    if let Some(topic) = core.topics.get(&name) {
        return described(&topic);
    }
    let error = match crate::topic_config::check_name(&name) {
        Err(refusal) => refusal.error,
        Ok(()) if !may_create => ResponseError::UnknownTopicOrPartition,
        Ok(()) if !may_make(core, context, &name) => ResponseError::TopicAuthorizationFailed,
        Ok(()) => {
            let partitions = core.options.default_partitions;
            match core
                .topics
                .create(&name, partitions, TopicConfig::default(), false)
            {
                Ok(topic) => return described(&topic),
                // Another connection was quicker.
                Err(refusal) => match core.topics.get(&name) {
                    Some(topic) => return described(&topic),
                    None => refusal.error,
                },
            }
        }
    };
    answer.with_name(Some(name)).with_error_code(error.code())
}

fn described(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partition_count()).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name()))))
        .with_topic_id(topic.id())
        .with_partitions(partitions.collect())
}
