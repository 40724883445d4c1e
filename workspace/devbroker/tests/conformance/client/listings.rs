//! Looking at groups and transactions from outside, and removing what is left of a group.

use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::PartitionResponse;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    GroupId, ListGroupsRequest, ListTransactionsRequest, OffsetDeleteRequest, OffsetDeleteResponse,
    TransactionalId,
};

use super::{Client, text, topic_name};

impl Client {
    pub async fn describe_group(&mut self, group: &str) -> DescribedGroup {
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let answer = self
            .patiently(5, &request, |answer| answer.groups[0].error_code)
            .await;
        answer.groups[0].clone()
    }

    /// How many members a group has.
    pub async fn members(&mut self, group: &str) -> usize {
        self.describe_group(group).await.members.len()
    }

    /// State and protocol type of a group in the list of those in one of `states`, all if empty.
    pub async fn listed_group(&mut self, group: &str, states: &[&str]) -> Option<(String, String)> {
        let states = states.iter().map(|state| text(state)).collect();
        let request = ListGroupsRequest::default().with_states_filter(states);
        let answer = self.patiently(4, &request, |answer| answer.error_code).await;
        let listed = answer.groups.iter().find(|listed| *listed.group_id == *group);
        listed.map(|listed| (listed.group_state.to_string(), listed.protocol_type.to_string()))
    }

    pub async fn delete_group(&mut self, group: &str) -> i16 {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
        let answer = self
            .patiently(2, &request, |answer| answer.results[0].error_code)
            .await;
        answer.results[0].error_code
    }

    /// Deletes the committed offset of partition 0.
    pub async fn delete_offset(&mut self, group: &str, topic: &str) -> OffsetDeleteResponse {
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![
                OffsetDeleteRequestPartition::default().with_partition_index(0),
            ]);
        let request = OffsetDeleteRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(vec![topic]);
        self.patiently(0, &request, |answer| answer.error_code).await
    }

    pub async fn describe_transaction(&mut self, id: &str) -> TransactionState {
        let ids = vec![TransactionalId(text(id))];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        let answer = self
            .patiently(0, &request, |answer| answer.transaction_states[0].error_code)
            .await;
        answer.transaction_states[0].clone()
    }

    /// The state of a transactional id in the list of those in one of `states`, all if empty.
    pub async fn listed_transaction(&mut self, id: &str, states: &[&str]) -> Option<String> {
        let states = states.iter().map(|state| text(state)).collect();
        let request = ListTransactionsRequest::default()
            .with_state_filters(states)
            .with_duration_filter(-1);
        let answer = self.patiently(1, &request, |answer| answer.error_code).await;
        let mut listed = answer.transaction_states.iter();
        let listed = listed.find(|listed| *listed.transactional_id.0 == *id);
        listed.map(|listed| listed.transaction_state.to_string())
    }

    /// The producers that a partition remembers.
    pub async fn producers(&mut self, topic: &str, partition: i32) -> PartitionResponse {
        let topic = TopicRequest::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![partition]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        self.call(0, &request).await.topics[0].partitions[0].clone()
    }
}
