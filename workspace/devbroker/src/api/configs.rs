//! DescribeConfigs: what is set, and what would be set elsewhere.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::topics::{FROM_BROKER, FROM_DEFAULT, FROM_TOPIC};
use super::{RequestContext, text};
use crate::batch::Refusal;
use crate::core::{Core, NODE_ID};
use crate::security::{Operation, Resource};
use crate::topic_config::ConfigEntry;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

pub(super) fn describe(
    core: &Core,
    context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        let entries = entries(core, context, &resource);
        let wanted = resource.configuration_keys;
        let given = if resource.resource_type == TOPIC {
            FROM_TOPIC
        } else {
            FROM_BROKER
        };
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        match entries {
            Err(refusal) => result
                .with_error_code(refusal.error.code())
                .with_error_message(Some(text(&refusal.message))),
            Ok(entries) => {
                let asked = |entry: &ConfigEntry| {
                    wanted
                        .as_ref()
                        .is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
                };
                result.with_configs(
                    entries
                        .into_iter()
                        .filter(asked)
                        .map(|entry| described(entry, given))
                        .collect(),
                )
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn entries(
    core: &Core,
    context: &RequestContext,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, Refusal> {
    let name = resource.resource_name.as_str();
    let asked = match resource.resource_type {
        TOPIC => Resource::Topic(name),
        _ => Resource::Cluster,
    };
    context
        .must(core, Operation::DescribeConfigs, asked)
        .map_err(|error| Refusal::new(error, "describing the settings is not allowed"))?;
    match resource.resource_type {
        TOPIC => match core.topics.get(name) {
            Some(topic) => Ok(topic.config().entries(core.options.max_message_bytes)),
            None => {
                let message = format!("topic `{name}` does not exist");
                Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message))
            }
        },
        BROKER if name.is_empty() || name == NODE_ID.to_string() => Ok(broker_entries(core)),
        BROKER => Err(Refusal::new(
            ResponseError::InvalidRequest,
            format!("there is no broker `{name}`"),
        )),
        other => Err(Refusal::new(
            ResponseError::InvalidRequest,
            format!("resource type `{other}` is not served"),
        )),
    }
}

fn broker_entries(core: &Core) -> Vec<ConfigEntry> {
    let options = &core.options;
    let entry = |name: &str, value: String| ConfigEntry {
        name: name.to_owned(),
        value,
        is_default: false,
    };
    vec![
        entry(
            "auto.create.topics.enable",
            options.auto_create_topics.to_string(),
        ),
        entry(
            "group.initial.rebalance.delay.ms",
            options.group_initial_rebalance_delay.as_millis().to_string(),
        ),
        entry("log.message.timestamp.type", "CreateTime".to_owned()),
        entry("message.max.bytes", options.max_message_bytes.to_string()),
        entry("num.partitions", options.default_partitions.to_string()),
        entry("socket.request.max.bytes", options.max_frame_bytes.to_string()),
    ]
}

fn described(entry: ConfigEntry, given: i8) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(text(&entry.name))
        .with_value(Some(text(&entry.value)))
        .with_config_source(if entry.is_default { FROM_DEFAULT } else { given })
}
