//! Transactions with librdkafka: what readers of committed and of all records see, and when.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::time::{Duration, Instant};

use devbroker::{Broker, Options};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use support::*;

/// Longer than any test takes: what ends a transaction is the test, not the time.
const NO_TIMEOUT: &str = "600000";

fn transactional(broker: &Broker, id: &str, timeout_ms: &str) -> FutureProducer {
    let settings = [
        ("transactional.id", id),
        ("transaction.timeout.ms", timeout_ms),
        ("message.timeout.ms", "9000"),
        ("retry.backoff.ms", "5"),
    ];
    let producer = producer(broker, &settings);
    producer.init_transactions(DEADLINE).unwrap();
    producer
}

fn reader(broker: &Broker, topic: &str, isolation: &str) -> BaseConsumer {
    let consumer = consumer(
        broker,
        &[
            ("group.id", "none"),
            ("isolation.level", isolation),
            ("fetch.wait.max.ms", "10000"),
        ],
    );
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

fn values(consumer: &BaseConsumer, count: usize) -> Vec<String> {
    receive(consumer, count).iter().map(value).collect()
}

/// What the library says is wrong, and whether it says that the producer has to go.
fn broken(error: &KafkaError) -> (RDKafkaErrorCode, bool) {
    let KafkaError::Transaction(error) = error else {
        panic!("{error:?}");
    };
    let error: &RDKafkaError = error;
    (error.code(), error.is_fatal())
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_readers_see_what_was_committed_and_others_see_all() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    let producer = transactional(&broker, "worker", NO_TIMEOUT);
    for (prefix, commit) in [("a", true), ("b", false), ("c", true)] {
        producer.begin_transaction().unwrap();
        send(&producer, "orders", prefix, 2).await;
        if commit {
            producer.commit_transaction(DEADLINE).unwrap();
        } else {
            producer.abort_transaction(DEADLINE).unwrap();
        }
    }
    let committed = reader(&broker, "orders", "read_committed");
    assert_eq!(values(&committed, 4), ["a0", "a1", "c0", "c1"]);
    let all = reader(&broker, "orders", "read_uncommitted");
    assert_eq!(values(&all, 6), ["a0", "a1", "b0", "b1", "c0", "c1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_back_what_comes_after_it_and_its_marker_wakes_readers() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    let slow = transactional(&broker, "slow", NO_TIMEOUT);
    slow.begin_transaction().unwrap();
    send(&slow, "orders", "slow", 1).await;
    let plain = producer(&broker, &[]);
    send(&plain, "orders", "plain", 1).await;

    let reader = reader(&broker, "orders", "read_committed");
    let (low, high) = reader.fetch_watermarks("orders", 0, DEADLINE).unwrap();
    assert_eq!(
        (low, high),
        (0, 0),
        "a reader of committed records sees no end yet"
    );
    assert!(reader.poll(Duration::from_millis(500)).is_none());
    slow.commit_transaction(DEADLINE).unwrap();
    let committed = Instant::now();
    assert_eq!(values(&reader, 2), ["slow0", "plain0"]);
    let waited = committed.elapsed();
    assert!(
        waited < Duration::from_secs(2),
        "waited {waited:?} of 10 s: the marker did not wake the poll"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_transaction_count_when_it_commits() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    send(&producer(&broker, &[]), "orders", "o", 10).await;
    let group = consumer(&broker, &[("group.id", "fraud")]);
    group.subscribe(&["orders"]).unwrap();
    poll_until(&[&group], || assigned(&group) == [0]);
    let producer = transactional(&broker, "worker", NO_TIMEOUT);

    let committed = || {
        let offsets = group.committed(DEADLINE).unwrap();
        offsets.elements()[0].offset()
    };
    let mut positions = TopicPartitionList::new();
    positions
        .add_partition_offset("orders", 0, Offset::Offset(7))
        .unwrap();
    for (commit, expected) in [(false, Offset::Invalid), (true, Offset::Offset(7))] {
        producer.begin_transaction().unwrap();
        let metadata = group.group_metadata().unwrap();
        producer
            .send_offsets_to_transaction(&positions, &metadata, DEADLINE)
            .unwrap();
        if commit {
            producer.commit_transaction(DEADLINE).unwrap();
        } else {
            producer.abort_transaction(DEADLINE).unwrap();
        }
        assert_eq!(
            committed(),
            expected,
            "the library asks for stable offsets, and waits for them"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_with_the_same_id_fences_the_first_and_aborts_its_transaction() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    let first = transactional(&broker, "worker", NO_TIMEOUT);
    first.begin_transaction().unwrap();
    send(&first, "orders", "first", 1).await;
    let second = transactional(&broker, "worker", NO_TIMEOUT);
    second.begin_transaction().unwrap();
    send(&second, "orders", "second", 1).await;
    second.commit_transaction(DEADLINE).unwrap();

    let error = first.commit_transaction(DEADLINE).unwrap_err();
    assert_eq!(broken(&error), (RDKafkaErrorCode::Fenced, true));
    let reader = reader(&broker, "orders", "read_committed");
    assert_eq!(values(&reader, 1), ["second0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_out_of_time_is_aborted_and_hides_nothing_any_more() {
    let broker = broker().await;
    broker.create_topic("orders", 1).unwrap();
    let dead = transactional(&broker, "dead", "10000");
    dead.begin_transaction().unwrap();
    send(&dead, "orders", "dead", 1).await;
    send(&producer(&broker, &[]), "orders", "alive", 1).await;
    let reader = reader(&broker, "orders", "read_committed");
    assert!(reader.poll(Duration::from_millis(200)).is_none());
    broker.advance_clock(Duration::from_secs(10));
    assert_eq!(values(&reader, 1), ["alive0"]);
    let error = dead.commit_transaction(DEADLINE).unwrap_err();
    assert_eq!(broken(&error).0, RDKafkaErrorCode::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_back_to_back_wait_for_the_markers_of_the_one_before() {
    let delay = Duration::from_millis(300);
    let broker = Broker::start(Options {
        transaction_marker_delay: delay,
        ..Options::default()
    })
    .await
    .unwrap();
    broker.create_topic("orders", 1).unwrap();
    let producer = transactional(&broker, "worker", NO_TIMEOUT);
    let started = Instant::now();
    for prefix in ["a", "b"] {
        producer.begin_transaction().unwrap();
        send(&producer, "orders", prefix, 1).await;
        producer.commit_transaction(DEADLINE).unwrap();
    }
    assert!(
        started.elapsed() >= delay,
        "the second began before the first was over"
    );
    let reader = reader(&broker, "orders", "read_committed");
    assert_eq!(values(&reader, 2), ["a0", "b0"]);
}
