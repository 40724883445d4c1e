//! Making topics, and unmaking them and their records.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, MetadataRequest,
};

use super::{Client, Isolation, text, topic_name};

/// NOT_LEADER_OR_FOLLOWER and UNKNOWN_TOPIC_OR_PARTITION: the topic is still being made.
const NOT_THERE_YET: [i16; 2] = [6, 3];

impl Client {
    /// Creates a topic and returns the code of the answer.
    pub async fn create_topic(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> i16 {
        let configs = settings.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        self.call(7, &request).await.topics[0].error_code
    }

    /// Waits until each partition has a leader that serves it.
    pub async fn until_led(&mut self, name: &str, partitions: i32) {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        self.until(9, &request, |answer| {
            let topic = &answer.topics[0];
            topic.partitions.len() == partitions as usize
                && topic.partitions.iter().all(|partition| partition.error_code == 0)
        })
        .await;
        for partition in 0..partitions {
            let request = Self::list_offsets_request(name, partition, -2, Isolation::Uncommitted);
            self.until(7, &request, |answer| {
                !NOT_THERE_YET.contains(&answer.topics[0].partitions[0].error_code)
            })
            .await;
        }
    }

    /// Raises the number of partitions.
    pub async fn grow_topic(&mut self, name: &str, partitions: i32) -> i16 {
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(partitions)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        self.call(3, &request).await.results[0].error_code
    }

    pub async fn delete_topic(&mut self, name: &str) -> i16 {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(name)])
            .with_timeout_ms(10_000);
        self.call(5, &request).await.responses[0].error_code
    }

    /// Deletes the records of partition 0 before an offset, -1 for all. The code, and the new start.
    pub async fn delete_records(&mut self, name: &str, before: i64) -> (i16, i64) {
        self.delete_records_of(name, 0, before).await
    }

    pub async fn delete_records_of(&mut self, name: &str, partition: i32, before: i64) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = self.call(2, &request).await;
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    }
}
