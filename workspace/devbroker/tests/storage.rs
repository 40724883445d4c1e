//! A data folder across restarts: topics, records, offsets, groups, transactions.
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

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use devbroker::{Broker, BrokerError, DataOptions, Flush, Options, StorageError};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    GroupId, IncrementalAlterConfigsRequest, InitProducerIdRequest, OffsetDeleteRequest, ProducerId,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use support::*;
use wire::Wire;

const NO_TIMEOUT: &str = "600000";

fn options(folder: &Path, flush: Flush) -> Options {
    Options {
        data: Some(DataOptions {
            flush,
            segment_bytes: 4_096,
            ..DataOptions::new(folder)
        }),
        ..Options::default()
    }
}

async fn start(folder: &Path) -> Broker {
    Broker::start(options(folder, Flush::Always)).await.unwrap()
}

async fn restart(broker: Broker, folder: &Path) -> Broker {
    broker.stop().await;
    start(folder).await
}

fn transactional(broker: &Broker, id: &str, timeout_ms: &str) -> FutureProducer {
    let settings = [
        ("transactional.id", id),
        ("transaction.timeout.ms", timeout_ms),
        ("message.timeout.ms", "1000"),
        ("retry.backoff.ms", "5"),
    ];
    let producer = producer(broker, &settings);
    producer.init_transactions(DEADLINE).unwrap();
    producer
}

fn reader(broker: &Broker, isolation: &str) -> BaseConsumer {
    let settings = [("group.id", "none"), ("isolation.level", isolation)];
    let consumer = consumer(broker, &settings);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

fn read(broker: &Broker, isolation: &str, count: usize) -> Vec<String> {
    receive(&reader(broker, isolation), count)
        .iter()
        .map(value)
        .collect()
}

fn committed(broker: &Broker, group: &str) -> Option<i64> {
    let consumer = consumer(broker, &[("group.id", group)]);
    let mut list = TopicPartitionList::new();
    list.add_partition("orders", 0);
    let committed = consumer.committed_offsets(list, DEADLINE).unwrap();
    match committed.find_partition("orders", 0).unwrap().offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

fn commit(broker: &Broker, group: &str, offset: i64) {
    let consumer = consumer(broker, &[("group.id", group)]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Offset(offset))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_records_offsets_and_settings_are_there_after_a_restart() {
    for flush in [
        Flush::Always,
        Flush::Interval(Duration::from_millis(10)),
        Flush::Never,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(options(folder.path(), flush)).await.unwrap();
        let topic = NewTopic::new("orders", 1, TopicReplication::Fixed(1)).set("retention.ms", "86400000");
        admin(&broker)
            .create_topics([&topic], &AdminOptions::new())
            .await
            .unwrap();
        create_topic(&broker, "gone", 2).await;
        let producer = producer(&broker, &[("enable.idempotence", "true")]);
        send(&producer, "orders", "a", 300).await;
        commit(&broker, "readers", 123);
        admin(&broker)
            .delete_topics(&["gone"], &AdminOptions::new())
            .await
            .unwrap();
        broker.stop().await;

        let broker = Broker::start(options(folder.path(), flush)).await.unwrap();
        let expected: Vec<String> = (0..300).map(|index| format!("a{index}")).collect();
        assert_eq!(read(&broker, "read_committed", 300), expected);
        assert_eq!(committed(&broker, "readers"), Some(123));
        let stats = broker.stats();
        assert_eq!(
            (stats.topics, stats.groups),
            (1, 2),
            "the reader's group is the second"
        );
        let described = admin(&broker)
            .describe_configs(
                [&rdkafka::admin::ResourceSpecifier::Topic("orders")],
                &AdminOptions::new(),
            )
            .await
            .unwrap();
        let settings = described[0].as_ref().unwrap().entry_map();
        assert_eq!(settings["retention.ms"].value.as_deref(), Some("86400000"));
        // And it goes on where it was.
        let places = send(&producer_of(&broker), "orders", "b", 1).await;
        assert_eq!(places, [(0, 300)]);
        broker.stop().await;
    }
}

fn producer_of(broker: &Broker) -> FutureProducer {
    producer(broker, &[("enable.idempotence", "true")])
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_stay_deleted_and_their_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.create_topic("orders", 1).unwrap();
    let producer = producer(&broker, &[("batch.num.messages", "10")]);
    send(&producer, "orders", "a", 1_000).await;
    let files = || {
        let files = std::fs::read_dir(folder.path().join("topics")).unwrap();
        let topic = files.map(|entry| entry.unwrap().path()).next().unwrap();
        std::fs::read_dir(topic.join("0")).unwrap().count()
    };
    let before = files();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Offset(900))
        .unwrap();
    admin(&broker)
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
    assert!(before > 3 && files() < before, "{before} files, then {}", files());
    let broker = restart(broker, folder.path()).await;
    let watermarks = reader(&broker, "read_committed").fetch_watermarks("orders", 0, DEADLINE);
    assert_eq!(watermarks.unwrap(), (900, 1_000));
    assert_eq!(read(&broker, "read_committed", 100)[0], "a900");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let refused = Broker::start(options(folder.path(), Flush::Always))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, BrokerError::Data(StorageError::Locked { .. })),
        "{refused}"
    );
    restart(broker, folder.path()).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_ended_are_committed_or_aborted_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.create_topic("orders", 1).unwrap();
    let producer = transactional(&broker, "worker", NO_TIMEOUT);
    for (prefix, commits) in [("a", true), ("b", false), ("c", true)] {
        producer.begin_transaction().unwrap();
        send(&producer, "orders", prefix, 2).await;
        if commits {
            producer.commit_transaction(DEADLINE).unwrap();
        } else {
            producer.abort_transaction(DEADLINE).unwrap();
        }
    }
    // The last marker may not be written yet: then the next process writes it.
    let broker = restart(broker, folder.path()).await;
    assert_eq!(read(&broker, "read_committed", 4), ["a0", "a1", "c0", "c1"]);
    assert_eq!(read(&broker, "read_uncommitted", 6).len(), 6);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_was_decided_is_made_true_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    // The markers of this process would come long after its end.
    let slow = Options {
        transaction_marker_delay: Duration::from_secs(3_600),
        ..options(folder.path(), Flush::Always)
    };
    let broker = Broker::start(slow).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    let producer = transactional(&broker, "worker", NO_TIMEOUT);
    producer.begin_transaction().unwrap();
    send(&producer, "orders", "a", 2).await;
    commit(&broker, "readers", 1);
    let group = consumer(&broker, &[("group.id", "readers")]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Offset(77))
        .unwrap();
    let metadata = group.group_metadata().unwrap();
    producer
        .send_offsets_to_transaction(&list, &metadata, DEADLINE)
        .unwrap();
    producer.commit_transaction(DEADLINE).unwrap();
    let broker = restart(broker, folder.path()).await;
    assert_eq!(read(&broker, "read_committed", 2), ["a0", "a1"]);
    let deadline = Instant::now() + DEADLINE;
    while committed(&broker, "readers") != Some(77) {
        assert!(
            Instant::now() < deadline,
            "the offset of the transaction was not committed"
        );
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_readers_back_after_a_restart_and_runs_out_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.create_topic("orders", 1).unwrap();
    send(&producer_of(&broker), "orders", "before", 1).await;
    let open = transactional(&broker, "worker", "60000");
    open.begin_transaction().unwrap();
    send(&open, "orders", "open", 2).await;
    send(&producer_of(&broker), "orders", "after", 1).await;
    let broker = restart(broker, folder.path()).await;
    let watermarks = |isolation| {
        reader(&broker, isolation)
            .fetch_watermarks("orders", 0, DEADLINE)
            .unwrap()
    };
    assert_eq!(watermarks("read_committed"), (0, 1));
    assert_eq!(watermarks("read_uncommitted"), (0, 4));
    broker.advance_clock(Duration::from_secs(61));
    assert_eq!(read(&broker, "read_committed", 2), ["before0", "after0"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_is_fenced_by_one_that_began_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let address = broker.address();
    broker.create_topic("orders", 1).unwrap();
    let former = transactional(&broker, "worker", NO_TIMEOUT);
    former.begin_transaction().unwrap();
    send(&former, "orders", "former", 1).await;
    broker.stop().await;
    let broker = Broker::start(Options {
        listen: address,
        ..options(folder.path(), Flush::Always)
    })
    .await
    .unwrap();
    let present = transactional(&broker, "worker", NO_TIMEOUT);
    present.begin_transaction().unwrap();
    send(&present, "orders", "present", 1).await;
    present.commit_transaction(DEADLINE).unwrap();
    let refused = former.commit_transaction(DEADLINE).unwrap_err();
    assert!(refused.to_string().contains("fenced"), "{refused}");
    assert_eq!(read(&broker, "read_committed", 1), ["present0"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_files_and_a_start_keeps_to_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let small = || Options {
        retention_bytes: 64 * 1024,
        ..options(folder.path(), Flush::Always)
    };
    let broker = Broker::start(small()).await.unwrap();
    broker.create_topic("orders", 3).unwrap();
    let producer = producer(&broker, &[("batch.num.messages", "10")]);
    for _ in 0..5 {
        send(&producer, "orders", &"x".repeat(100), 500).await;
    }
    broker.stop().await;
    let kept = bytes_under(folder.path());
    assert!(kept < 64 * 1024 + 4 * 4_096, "{kept} bytes of files");
    let broker = Broker::start(small()).await.unwrap();
    let stored = broker.stats().bytes_stored;
    assert!(stored > 0 && stored <= 64 * 1024, "{stored}");
    broker.stop().await;
}

fn bytes_under(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| match entry.path().extension() {
        Some(extension) if extension == "log" => entry.metadata().unwrap().len(),
        _ if entry.metadata().unwrap().is_dir() => bytes_under(&entry.path()),
        _ => 0,
    });
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_ids_are_never_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let broker = start(folder.path()).await;
        for _ in 0..3 {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let answer = Wire::connect(&broker).await.call(4, &request).await;
            assert_eq!(answer.error_code, 0);
            assert!(seen.insert(answer.producer_id.0), "{seen:?}");
        }
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_and_deleted_offsets_stay_so() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    create_topic(&broker, "orders", 1).await;
    commit(&broker, "readers", 1);
    let mut wire = Wire::connect(&broker).await;
    let setting = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("retention.ms"))
        .with_value(Some(StrBytes::from_static_str("86400000")));
    let topic = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("orders"))
        .with_configs(vec![setting]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![topic]);
    assert_eq!(wire.call(1, &request).await.responses[0].error_code, 0);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("orders")))
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("readers")))
        .with_topics(vec![topic]);
    let answer = wire.call(0, &request).await;
    assert_eq!(
        (answer.error_code, answer.topics[0].partitions[0].error_code),
        (0, 0)
    );

    let broker = restart(broker, folder.path()).await;
    assert_eq!(committed(&broker, "readers"), None);
    let described = admin(&broker)
        .describe_configs(
            [&rdkafka::admin::ResourceSpecifier::Topic("orders")],
            &AdminOptions::new(),
        )
        .await
        .unwrap();
    let settings = described[0].as_ref().unwrap().entry_map();
    assert_eq!(settings["retention.ms"].value.as_deref(), Some("86400000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_nothing_of_what_was_refused_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.create_topic("orders", 1).unwrap();
    let once = producer(&broker, &[("retries", "0")]);
    assert_eq!(send(&once, "orders", "before", 1).await, [(0, 0)]);
    broker.fill_disk().unwrap();
    let refused = once.send(FutureRecord::to("orders").key("key").payload("lost"), DEADLINE);
    let error = refused.await.unwrap_err().0.rdkafka_error_code();
    assert_eq!(error, Some(RDKafkaErrorCode::KafkaStorageError));
    assert!(broker.create_topic("other", 1).is_err());
    broker.free_disk().unwrap();
    assert_eq!(send(&once, "orders", "after", 1).await, [(0, 1)]);
    let broker = restart(broker, folder.path()).await;
    assert_eq!(read(&broker, "read_uncommitted", 2), ["before0", "after0"]);
    let in_memory = support::broker().await;
    assert!(matches!(in_memory.fill_disk(), Err(BrokerError::Fault { .. })));
}
