//! Producing and fetching with librdkafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::FutureRecord;
use rdkafka::{Offset, Timestamp, TopicPartitionList};
use support::*;

fn assign(consumer: &impl Consumer, topic: &str, partitions: i32, offset: Offset) {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, offset).unwrap();
    }
    consumer.assign(&list).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_comes_back_as_it_was_produced_idempotently() {
    let broker = broker().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        create_topic(&broker, codec, 3).await;
        let producer = producer(
            &broker,
            &[("enable.idempotence", "true"), ("compression.type", codec)],
        );
        let places: BTreeSet<_> = send(&producer, codec, "order-", 3_000)
            .await
            .into_iter()
            .collect();
        assert_eq!(places.len(), 3_000, "each record has a place of its own");

        let consumer = consumer(&broker, &[("group.id", "none"), ("check.crcs", "true")]);
        assign(&consumer, codec, 3, Offset::Beginning);
        let records = receive(&consumer, 3_000);
        let values: BTreeSet<_> = records.iter().map(value).collect();
        assert_eq!(values.len(), 3_000);
        let read: BTreeSet<_> = records
            .iter()
            .map(|record| (record.partition(), record.offset()))
            .collect();
        assert_eq!(
            read, places,
            "the offsets that were acknowledged are those that are read"
        );
    }
    assert_eq!(broker.stats().records_appended_total, 15_000);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_levels_of_acknowledgement_arrive() {
    let broker = broker().await;
    broker.create_topic("acks", 1).unwrap();
    for acks in ["0", "1", "all"] {
        let producer = producer(&broker, &[("acks", acks)]);
        send(&producer, "acks", acks, 10).await;
    }
    let consumer = consumer(&broker, &[("group.id", "none")]);
    assign(&consumer, "acks", 1, Offset::Beginning);
    assert_eq!(receive(&consumer, 30).len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_wakes_on_append() {
    let broker = broker().await;
    broker.create_topic("poll", 1).unwrap();
    let consumer = consumer(&broker, &[("group.id", "none"), ("fetch.wait.max.ms", "10000")]);
    assign(&consumer, "poll", 1, Offset::Beginning);
    let producer = producer(&broker, &[("linger.ms", "0")]);
    // The first record brings metadata and connections up; the ones after it find a poll that waits.
    send(&producer, "poll", "warm-up", 1).await;
    receive(&consumer, 1);
    for _ in 0..5 {
        let sent = Instant::now();
        send(&producer, "poll", "x", 1).await;
        receive(&consumer, 1);
        let waited = sent.elapsed();
        assert!(
            waited < Duration::from_secs(1),
            "waited {waited:?} of 10 s: the append did not wake the poll"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_by_time_are_exact_inside_batches() {
    let broker = broker().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        broker.create_topic(codec, 1).unwrap();
        let producer = producer(&broker, &[("compression.type", codec), ("linger.ms", "50")]);
        let mut deliveries = Vec::new();
        for index in 0..1_000_i64 {
            let record = FutureRecord::to(codec)
                .key("k")
                .payload("v")
                .timestamp(1_000_000 + index * 10);
            deliveries.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
        let consumer = consumer(&broker, &[("group.id", "none")]);
        for (timestamp, expected) in [
            (0, 0),
            (1_000_000, 0),
            (1_000_001, 1),
            (1_005_000, 500),
            (1_009_990, 999),
        ] {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(codec, 0, Offset::Offset(timestamp))
                .unwrap();
            let found = consumer.offsets_for_times(list, DEADLINE).unwrap();
            assert_eq!(
                found.elements()[0].offset(),
                Offset::Offset(expected),
                "{codec} {timestamp}"
            );
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(codec, 0, Offset::Offset(1_009_991))
            .unwrap();
        let found = consumer.offsets_for_times(list, DEADLINE).unwrap();
        assert_eq!(
            found.elements()[0].offset(),
            Offset::End,
            "{codec}: nothing is that late"
        );
        assert_eq!(consumer.fetch_watermarks(codec, 0, DEADLINE).unwrap(), (0, 1_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timestamp_of_a_record_is_the_producers() {
    let broker = broker().await;
    broker.create_topic("times", 1).unwrap();
    let producer = producer(&broker, &[]);
    let record = FutureRecord::to("times")
        .key("k")
        .payload("v")
        .timestamp(1_291_200_000_000);
    producer
        .send_result(record)
        .map_err(|(error, _)| error)
        .unwrap()
        .await
        .unwrap()
        .unwrap();
    let consumer = consumer(&broker, &[("group.id", "none")]);
    assign(&consumer, "times", 1, Offset::Beginning);
    assert_eq!(
        receive(&consumer, 1)[0].timestamp(),
        Timestamp::CreateTime(1_291_200_000_000)
    );
}
