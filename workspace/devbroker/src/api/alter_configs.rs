//! IncrementalAlterConfigs and AlterConfigs: topics only.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_request, alter_configs_response,
    incremental_alter_configs_request, incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

use super::configs::{BROKER, TOPIC};
use super::{RequestContext, text};
use crate::batch::Refusal;
use crate::config_changes::{Change, Operation, changed, replaced};
use crate::core::Core;
use crate::security::{Operation as SecuredOperation, Resource};
use crate::topic_config::{TopicConfig, check_name};

/// A resource of a request, and what is wanted of its settings.
struct Wanted<'a> {
    kind: i8,
    name: &'a str,
    changes: Result<Vec<Change<'a>>, Refusal>,
}

pub(super) fn alter_incrementally(
    core: &Core,
    context: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let wanted = request.resources.iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: &resource.resource_name,
        changes: incremental_changes(&resource.configs),
    });
    let altered = alter_each(core, context, wanted.collect(), request.validate_only, changed);
    let responses = altered.into_iter().map(|(resource, result)| {
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.kind)
            .with_resource_name(text(resource.name))
            .with_error_code(code(&result))
            .with_error_message(message(&result))
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

pub(super) fn alter(
    core: &Core,
    context: &RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let wanted = request.resources.iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: &resource.resource_name,
        changes: Ok(settings(&resource.configs)),
    });
    let replace = |_: &TopicConfig, changes: &[Change<'_>]| replaced(changes);
    let altered = alter_each(core, context, wanted.collect(), request.validate_only, replace);
    let responses = altered.into_iter().map(|(resource, result)| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.kind)
            .with_resource_name(text(resource.name))
            .with_error_code(code(&result))
            .with_error_message(message(&result))
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

fn incremental_changes(
    configs: &[incremental_alter_configs_request::AlterableConfig],
) -> Result<Vec<Change<'_>>, Refusal> {
    let changes = configs.iter().map(|config| {
        let operation = Operation::numbered(config.config_operation).ok_or_else(|| {
            invalid_request(format!(
                "`{}` is not an operation on a setting",
                config.config_operation
            ))
        })?;
        Ok(Change {
            setting: &config.name,
            operation,
            value: config.value.as_deref(),
        })
    });
    changes.collect()
}

fn settings(configs: &[alter_configs_request::AlterableConfig]) -> Vec<Change<'_>> {
    let changes = configs.iter().map(|config| Change {
        setting: &config.name,
        operation: Operation::Set,
        value: config.value.as_deref(),
    });
    changes.collect()
}

/// Alters each resource by itself: one that is refused stops no other.
fn alter_each<'a>(
    core: &Core,
    context: &RequestContext,
    wanted: Vec<Wanted<'a>>,
    validate_only: bool,
    change: impl Fn(&TopicConfig, &[Change<'_>]) -> Result<TopicConfig, Refusal>,
) -> Vec<(Wanted<'a>, Result<(), Refusal>)> {
    let mut mentions: HashMap<(i8, &str), usize> = HashMap::new();
    for resource in &wanted {
        *mentions.entry((resource.kind, resource.name)).or_default() += 1;
    }
    let altered = wanted.into_iter().map(|resource| {
        let (kind, name) = (resource.kind, resource.name);
        let result = if mentions.get(&(kind, name)).is_some_and(|count| *count > 1) {
            Err(invalid_request(format!("`{name}` is named twice in one request")))
        } else {
            alter_one(core, context, &resource, validate_only, &change)
        };
        (resource, result)
    });
    altered.collect()
}

fn alter_one(
    core: &Core,
    context: &RequestContext,
    resource: &Wanted<'_>,
    validate_only: bool,
    change: impl Fn(&TopicConfig, &[Change<'_>]) -> Result<TopicConfig, Refusal>,
) -> Result<(), Refusal> {
    let name = resource.name;
    let altered = match resource.kind {
        TOPIC => Resource::Topic(name),
        _ => Resource::Cluster,
    };
    context
        .must(core, SecuredOperation::AlterConfigs, altered)
        .map_err(|error| Refusal::new(error, "altering the settings is not allowed"))?;
    let changes = resource.changes.as_ref().map_err(Clone::clone)?;
    match resource.kind {
        TOPIC if name.is_empty() => {
            return Err(invalid_request("there are no settings for all topics"));
        }
        TOPIC => {}
        BROKER => {
            return Err(invalid_request(
                "this broker's settings are given when it starts and can not be changed",
            ));
        }
        other => return Err(invalid_request(format!("resource type `{other}` is not served"))),
    }
    check_name(name)?;
    let topic = core
        .topics
        .alter(name, |config| change(config, changes), validate_only)?;
    if !validate_only {
        core.enforce_settings(&topic);
    }
    Ok(())
}

fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, message)
}

fn code(altered: &Result<(), Refusal>) -> i16 {
    altered.as_ref().err().map_or(0, |refusal| refusal.error.code())
}

fn message(altered: &Result<(), Refusal>) -> Option<StrBytes> {
    altered.as_ref().err().map(|refusal| text(&refusal.message))
}
