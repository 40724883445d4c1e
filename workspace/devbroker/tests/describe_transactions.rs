//! What is told of producers and transactions, with librdkafka's producer as the one who writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use devbroker::Broker;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::PartitionResponse;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::producer::{FutureProducer, Producer};
use support::*;
use wire::Wire;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn describe(wire: &mut Wire, id: &str) -> TransactionState {
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(id))]);
    wire.call(0, &request).await.transaction_states[0].clone()
}

async fn producers(wire: &mut Wire, topic: &str, partition: i32) -> PartitionResponse {
    let topic = TopicRequest::default()
        .with_name(TopicName(text(topic)))
        .with_partition_indexes(vec![partition]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    wire.call(0, &request).await.topics[0].partitions[0].clone()
}

/// The ids that pass the filters, sorted, and the states that are not known.
async fn list(wire: &mut Wire, request: ListTransactionsRequest) -> (Vec<String>, Vec<String>) {
    let answer = wire.call(1, &request).await;
    assert_eq!(answer.error_code, 0);
    let listed = answer.transaction_states.iter();
    let mut ids: Vec<String> = listed.map(|state| state.transactional_id.to_string()).collect();
    ids.sort();
    let unknown = answer.unknown_state_filters.iter();
    (ids, unknown.map(|state| state.to_string()).collect())
}

fn all() -> ListTransactionsRequest {
    ListTransactionsRequest::default().with_duration_filter(-1)
}

async fn transactional(broker: &Broker, id: &str) -> FutureProducer {
    let producer = producer(
        broker,
        &[("transactional.id", id), ("transaction.timeout.ms", "30000")],
    );
    producer.init_transactions(DEADLINE).unwrap();
    producer
}

/// The outcome is written a little after its answer.
async fn reaches(wire: &mut Wire, id: &str, state: &str) -> TransactionState {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let described = describe(wire, id).await;
        if described.transaction_state.as_str() == state {
            return described;
        }
        assert!(Instant::now() < deadline, "{described:?}");
    }
}

/// Fields and codes are those of Apache Kafka 4.3.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_described_from_its_begin_to_its_end() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    let mut wire = Wire::connect(&broker).await;
    let writer = transactional(&broker, "writer").await;
    let idle = describe(&mut wire, "writer").await;
    assert_eq!(
        (idle.transaction_state.as_str(), idle.transaction_start_time_ms),
        ("Empty", -1)
    );
    assert_eq!((idle.error_code, idle.transaction_timeout_ms), (0, 30_000));

    writer.begin_transaction().unwrap();
    send(&writer, "orders", "value-", 3).await;
    let open = describe(&mut wire, "writer").await;
    assert_eq!(open.transaction_state.as_str(), "Ongoing");
    assert_eq!(
        (
            open.topics[0].topic.as_str(),
            open.topics[0].partitions.as_slice()
        ),
        ("orders", &[0][..])
    );
    assert!(open.transaction_start_time_ms > 1_700_000_000_000);
    let state = producers(&mut wire, "orders", 0).await.active_producers[0].clone();
    assert_eq!(
        (state.producer_id, state.producer_epoch),
        (open.producer_id, i32::from(open.producer_epoch))
    );
    assert_eq!((state.last_sequence, state.current_txn_start_offset), (2, 0));
    assert_eq!(state.coordinator_epoch, -1);
    assert!(state.last_timestamp > 1_700_000_000_000);

    writer.commit_transaction(DEADLINE).unwrap();
    let done = reaches(&mut wire, "writer", "CompleteCommit").await;
    assert!(done.topics.is_empty());
    assert_eq!(done.transaction_start_time_ms, open.transaction_start_time_ms);
    let after = producers(&mut wire, "orders", 0).await.active_producers[0].clone();
    assert_eq!((after.last_sequence, after.current_txn_start_offset), (2, -1));
    assert_eq!(after.coordinator_epoch, 0);
    assert!(after.last_timestamp >= state.last_timestamp);

    assert_eq!(
        describe(&mut wire, "nobody").await.error_code,
        105,
        "TRANSACTIONAL_ID_NOT_FOUND"
    );
    assert_eq!(describe(&mut wire, "").await.error_code, 42, "INVALID_REQUEST");
    for (topic, partition, code) in [("orders", 7, 3), ("missing", 0, 3), ("a b", 0, 17)] {
        assert_eq!(
            producers(&mut wire, topic, partition).await.error_code,
            code,
            "{topic}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_listed_by_state_producer_and_duration() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    let mut wire = Wire::connect(&broker).await;
    let _idle = transactional(&broker, "idle").await;
    let busy = transactional(&broker, "busy").await;
    busy.begin_transaction().unwrap();
    send(&busy, "orders", "value-", 1).await;
    let both = vec!["busy".to_owned(), "idle".to_owned()];
    let only_busy = vec!["busy".to_owned()];
    assert_eq!(list(&mut wire, all()).await, (both, vec![]));
    let states = vec![text("Ongoing"), text("Dead"), text("Bogus")];
    let by_state = list(&mut wire, all().with_state_filters(states)).await;
    assert_eq!(by_state, (only_busy.clone(), vec!["Bogus".to_owned()]));
    let id = describe(&mut wire, "busy").await.producer_id;
    let by_producer = all().with_producer_id_filters(vec![id]);
    assert_eq!(list(&mut wire, by_producer).await.0, only_busy);

    // What did not begin is older than anything, as in Kafka.
    let long = all().with_duration_filter(25_000);
    assert_eq!(list(&mut wire, long.clone()).await.0, ["idle"]);
    broker.advance_clock(Duration::from_secs(26));
    assert_eq!(list(&mut wire, long).await.0, ["busy", "idle"]);
}
