//! Settings of topics.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use super::{Client, error, text};

const TOPIC: i8 = 2;

/// What IncrementalAlterConfigs does to a setting.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    Set(&'a str),
    Delete,
    Append(&'a str),
    Subtract(&'a str),
}

/// Settings and what is done to them.
pub type Changes<'a> = &'a [(&'a str, Change<'a>)];

impl Change<'_> {
    fn parts(&self) -> (i8, Option<&str>) {
        match self {
            Self::Set(value) => (0, Some(value)),
            Self::Delete => (1, None),
            Self::Append(value) => (2, Some(value)),
            Self::Subtract(value) => (3, Some(value)),
        }
    }
}

impl Client {
    pub async fn describe_topic(&mut self, topic: &str, names: &[&str]) -> DescribeConfigsResult {
        let names = names.iter().map(|name| text(name)).collect();
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configuration_keys(Some(names));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        self.call(4, &request).await.results[0].clone()
    }

    /// The value of a setting and where it comes from.
    pub async fn setting(&mut self, topic: &str, name: &str) -> String {
        let described = self.describe_topic(topic, &[name]).await;
        if described.error_code != 0 {
            return error(described.error_code);
        }
        let Some(config) = described.configs.first() else {
            return "(no such setting)".to_owned();
        };
        let source = match config.config_source {
            1 => "of the topic",
            4 => "of the broker's properties",
            5 => "default",
            _ => "of something else",
        };
        format!("`{}`, {source}", config.value.as_deref().unwrap_or("(none)"))
    }

    pub async fn alter_topic(&mut self, topic: &str, changes: Changes<'_>) -> i16 {
        self.alter_topic_if(topic, changes, false).await
    }

    pub async fn alter_topic_if(&mut self, topic: &str, changes: Changes<'_>, validate_only: bool) -> i16 {
        let configs = changes.iter().map(|(name, change)| {
            let (operation, value) = change.parts();
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value.map(text))
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![resource])
            .with_validate_only(validate_only);
        self.call(1, &request).await.responses[0].error_code
    }
}
