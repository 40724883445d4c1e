//! DescribeProducers, ListTransactions, DescribeTransactions: who writes, and what is open.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as DescribedTransaction,
};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerId, TopicName,
    TransactionalId,
};

use super::{RequestContext, text};
use crate::core::Core;
use crate::partition::Partition;
use crate::producers::DescribedProducer;
use crate::security::{Operation, Resource};
use crate::topic_config::check_name;
use crate::transactions::Transaction;

/// The states that a filter may name. This broker is never in the last two.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];
/// The epoch of the only coordinator that there ever is.
const COORDINATOR_EPOCH: i32 = 0;

pub(super) fn producers(
    core: &Core,
    context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let named = check_name(&topic.name).map_err(|refusal| refusal.error);
        let named = named.and(context.must(core, Operation::Read, Resource::Topic(&topic.name)));
        let partitions = topic.partition_indexes.iter().map(|index| {
            let partition = named.and_then(|()| {
                let partition = core.topics.partition(&topic.name, *index);
                partition.ok_or(ResponseError::UnknownTopicOrPartition)
            });
            let answer = PartitionResponse::default().with_partition_index(*index);
            match partition {
                Ok(partition) => answer.with_active_producers(active(&partition)),
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn active(partition: &Partition) -> Vec<ProducerState> {
    let state = |producer: DescribedProducer| {
        ProducerState::default()
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(producer.last_sequence.unwrap_or(-1))
            .with_last_timestamp(producer.last_timestamp)
            .with_coordinator_epoch(if producer.has_marker {
                COORDINATOR_EPOCH
            } else {
                -1
            })
            .with_current_txn_start_offset(producer.open.unwrap_or(-1))
    };
    partition.producers().into_iter().map(state).collect()
}

pub(super) fn list(
    core: &Core,
    context: &RequestContext,
    request: &ListTransactionsRequest,
) -> ListTransactionsResponse {
    let states = &request.state_filters;
    let unknown = states.iter().filter(|name| !STATES.contains(&name.as_str()));
    let now_ms = core.clock.unix_ms();
    let wanted = |transaction: &Transaction| {
        let name = transaction.state.name();
        let of_state = states.is_empty() || states.iter().any(|state| state.as_str() == name);
        let producers = &request.producer_id_filters;
        let of_producer = producers.is_empty() || producers.iter().any(|id| id.0 == transaction.producer_id);
        let age_ms = now_ms.saturating_sub(transaction.started_ms);
        let is_old_enough = request.duration_filter < 0 || age_ms > request.duration_filter;
        of_state && of_producer && is_old_enough
    };
    let coordinator = core.transactions.coordinator();
    let listed = coordinator
        .all()
        .filter(|(_, transaction)| wanted(transaction))
        .filter(|(id, _)| context.may(core, Operation::Describe, Resource::TransactionalId(id)))
        .map(|(id, transaction)| {
            ListedTransaction::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(transaction.producer_id))
                .with_transaction_state(text(transaction.state.name()))
        });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown.cloned().collect())
        .with_transaction_states(listed.collect())
}

pub(super) fn describe(
    core: &Core,
    context: &RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let coordinator = core.transactions.coordinator();
    let states = request.transactional_ids.into_iter().map(|id| {
        let allowed = context.must(core, Operation::Describe, Resource::TransactionalId(&id));
        let known = coordinator.get(&id);
        let empty = id.is_empty();
        let answer = DescribedTransaction::default().with_transactional_id(id);
        if let Err(error) = allowed {
            return answer.with_error_code(error.code());
        }
        match known {
            Some(transaction) => described(answer, transaction),
            None if empty => answer.with_error_code(ResponseError::InvalidRequest.code()),
            None => answer.with_error_code(ResponseError::TransactionalIdNotFound.code()),
        }
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn described(answer: DescribedTransaction, transaction: &Transaction) -> DescribedTransaction {
    let mut topics: Vec<TopicData> = Vec::new();
    // Sorted by topic, so those of one topic follow each other.
    for (topic, partition) in &transaction.partitions {
        match topics.last_mut() {
            Some(last) if last.topic.as_str() == topic => last.partitions.push(*partition),
            _ => topics.push(
                TopicData::default()
                    .with_topic(TopicName(text(topic)))
                    .with_partitions(vec![*partition]),
            ),
        }
    }
    answer
        .with_transaction_state(text(transaction.state.name()))
        .with_transaction_timeout_ms(i32::try_from(transaction.timeout.as_millis()).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(transaction.started_ms)
        .with_producer_id(ProducerId(transaction.producer_id))
        .with_producer_epoch(transaction.epoch)
        .with_topics(topics)
}
