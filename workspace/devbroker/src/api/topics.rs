//! CreateTopics, DeleteTopics, CreatePartitions.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};

use uuid::Uuid;

use super::{RequestContext, text};
use crate::batch::Refusal;
use crate::core::{Core, NODE_ID};
use crate::security::{Operation, Resource};
use crate::topic_config::TopicConfig;

/// Where a setting's value comes from, as DescribeConfigs and CreateTopics number it.
pub(super) const FROM_TOPIC: i8 = 1;
pub(super) const FROM_BROKER: i8 = 4;
pub(super) const FROM_DEFAULT: i8 = 5;

pub(super) fn create(
    core: &Core,
    context: &RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let validate_only = request.validate_only;
    let may_create_all = context.may(core, Operation::Create, Resource::Cluster);
    let mut mentions: HashMap<TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *mentions.entry(topic.name.clone()).or_default() += 1;
    }
    let results = request.topics.into_iter().map(|topic| {
        let repeated = mentions.get(&topic.name).is_some_and(|count| *count > 1);
        if repeated {
            let message = "the topic is named twice in one request";
            return refused(topic.name, &Refusal::new(ResponseError::InvalidRequest, message));
        }
        if !may_create_all && !context.may(core, Operation::Create, Resource::Topic(&topic.name)) {
            return refused(topic.name, &denied());
        }
        create_one(core, context, topic, validate_only)
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

fn create_one(
    core: &Core,
    context: &RequestContext,
    topic: CreatableTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let settings = topic
        .configs
        .iter()
        .map(|config| (config.name.as_str(), config.value.as_deref()));
    let created = partition_count(core, &topic).and_then(|partitions| {
        let config = TopicConfig::parse(settings)?;
        core.topics.create(&topic.name, partitions, config, validate_only)
    });
    let created = match created {
        Ok(created) => created,
        Err(refusal) => return refused(topic.name, &refusal),
    };
    let may_describe = context.may(core, Operation::DescribeConfigs, Resource::Topic(&topic.name));
    let result = CreatableTopicResult::default().with_name(topic.name);
    if context.version < 5 {
        return result;
    }
    if !may_describe {
        // The topic is there, and the creator may not know its settings.
        let result = result.with_topic_config_error_code(denied().error.code());
        return result
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(Some(Vec::new()))
            .with_topic_id(shown_id(context, created.id()));
    }
    let configs = created
        .config()
        .entries(core.options.max_message_bytes)
        .into_iter()
        .map(|entry| {
            CreatableTopicConfigs::default()
                .with_name(text(&entry.name))
                .with_value(Some(text(&entry.value)))
                .with_config_source(if entry.is_default {
                    FROM_DEFAULT
                } else {
                    FROM_TOPIC
                })
        });
    let result = result
        .with_num_partitions(created.partition_count())
        .with_replication_factor(1);
    let result = result.with_configs(Some(configs.collect()));
    result.with_topic_id(shown_id(context, created.id()))
}

/// The id in an answer of CreateTopics, which has one since version 7.
fn shown_id(context: &RequestContext, id: Uuid) -> Uuid {
    if context.version >= 7 { id } else { Uuid::nil() }
}

fn denied() -> Refusal {
    Refusal::new(ResponseError::TopicAuthorizationFailed, "Authorization failed.")
}

fn refused(name: TopicName, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(refusal.error.code())
        .with_error_message(Some(text(&refusal.message)))
}

/// The partitions that a new topic gets: a count, or as many as a manual assignment names.
fn partition_count(core: &Core, topic: &CreatableTopic) -> Result<i32, Refusal> {
    if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            let message = format!(
                "replication factor `{}`, and there is one broker",
                topic.replication_factor
            );
            return Err(Refusal::new(ResponseError::InvalidReplicationFactor, message));
        }
        return Ok(match topic.num_partitions {
            -1 => core.options.default_partitions,
            count => count,
        });
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "a manual assignment excludes a partition count and a replication factor";
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|assignment| assignment.partition_index)
        .collect();
    indexes.sort_unstable();
    let only_here = |ids: &[kafka_protocol::messages::BrokerId]| matches!(ids, [id] if id.0 == NODE_ID);
    let placed = topic
        .assignments
        .iter()
        .all(|assignment| only_here(&assignment.broker_ids));
    if !placed
        || !indexes
            .iter()
            .copied()
            .eq(0..i32::try_from(indexes.len()).unwrap_or(0))
    {
        let message = format!("each partition from 0 on must be assigned to broker {NODE_ID}");
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    }
    i32::try_from(indexes.len())
        .map_err(|_| Refusal::new(ResponseError::InvalidPartitions, "too many partitions"))
}

pub(super) async fn delete(
    core: &Core,
    context: &RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = |name| DeleteTopicState::default().with_name(Some(name));
    let wanted: Vec<DeleteTopicState> = if context.version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut responses = Vec::with_capacity(wanted.len());
    for state in wanted {
        let known = match &state.name {
            Some(name) => Some(name.to_string()),
            None => core
                .topics
                .get_by_id(state.topic_id)
                .map(|topic| topic.name().to_owned()),
        };
        let answer = DeletableTopicResult::default();
        let Some(name) = known else {
            let answer = answer.with_name(None).with_topic_id(state.topic_id);
            responses.push(answer.with_error_code(ResponseError::UnknownTopicId.code()));
            continue;
        };
        let may = |operation| context.may(core, operation, Resource::Topic(&name));
        if !may(Operation::Delete) {
            // Who gave the id is told the name only where it may be seen.
            let named = state.name.is_some() || may(Operation::Describe);
            let answer = answer
                .with_name(named.then(|| TopicName(text(&name))))
                .with_topic_id(state.topic_id);
            responses.push(answer.with_error_code(denied().error.code()));
            continue;
        }
        let answer = answer.with_name(Some(TopicName(text(&name))));
        responses.push(match core.topics.delete(&name) {
            Ok(topic) => {
                core.groups.forget_topic(&name).await;
                if context.version >= 6 {
                    answer.with_topic_id(topic.id())
                } else {
                    answer
                }
            }
            Err(refusal) => {
                let answer = answer.with_error_code(refusal.error.code());
                if context.version >= 5 {
                    answer.with_error_message(Some(text(&refusal.message)))
                } else {
                    answer
                }
            }
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

pub(super) fn grow(
    core: &Core,
    context: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let validate_only = request.validate_only;
    let results = request.topics.into_iter().map(|topic| {
        let grown = if context.may(core, Operation::Alter, Resource::Topic(&topic.name)) {
            grow_one(core, &topic, validate_only)
        } else {
            Err(denied())
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        match grown {
            Ok(()) => result.with_error_message(None),
            Err(refusal) => result
                .with_error_code(refusal.error.code())
                .with_error_message(Some(text(&refusal.message))),
        }
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn grow_one(core: &Core, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    if let (Some(assignments), Some(known)) = (&topic.assignments, core.topics.get(&topic.name)) {
        let added = topic.count.saturating_sub(known.partition_count());
        if usize::try_from(added).ok() != Some(assignments.len()) {
            let message = format!("{} assignments for {added} new partitions", assignments.len());
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        }
    }
    core.topics.grow(&topic.name, topic.count, validate_only)
}
