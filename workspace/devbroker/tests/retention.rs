//! Retention: bounded, oldest first, logged and counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/log.rs"]
mod log;
#[path = "support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use devbroker::{Broker, Options};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use log::Log;
use wire::*;

/// The lines about what retention dropped of a topic.
fn drops(log: &Log, topic: &str) -> Vec<String> {
    log.lines_with(&["retention dropped", &format!("topic=\"{topic}\"")])
}

async fn topic_with(wire: &mut Wire, name: &'static str, settings: &[(&'static str, &'static str)]) {
    let configs = settings.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let answer = wire
        .call(7, &CreateTopicsRequest::default().with_topics(vec![topic]))
        .await;
    assert_eq!(
        answer.topics[0].error_code, 0,
        "{:?}",
        answer.topics[0].error_message
    );
}

#[tokio::test]
async fn the_broker_drops_its_oldest_batches_and_says_so() {
    let log = Log::captured();
    let options = Options {
        retention_bytes: 200_000,
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    broker.create_topic("quiet", 1).unwrap();
    broker.create_topic("busy", 1).unwrap();
    let mut wire = Wire::connect(&broker).await;
    wire.produce("quiet", batch(2, &[1; 1_000], 0, PLAIN)).await;
    wire.produce("quiet", batch(1, &[1; 1_000], 0, PLAIN)).await;
    for _ in 0..300 {
        assert_eq!(
            wire.produce("busy", batch(1, &[2; 2_000], 0, PLAIN))
                .await
                .error_code,
            0
        );
    }
    let stats = broker.stats();
    assert!(stats.bytes_stored <= 200_000, "{stats:?}");
    assert!(
        stats.bytes_stored > 150_000,
        "it keeps what it may keep: {stats:?}"
    );
    assert_eq!(
        stats.bytes_appended_total,
        stats.bytes_stored + stats.retention_dropped_bytes_total
    );

    let quiet = wire.fetch("quiet", 2, Duration::ZERO).await;
    assert_eq!(
        (quiet.error_code, quiet.log_start_offset),
        (0, 2),
        "its newest batch stays"
    );
    assert_eq!(
        wire.fetch("quiet", 0, Duration::ZERO).await.error_code,
        1,
        "what was dropped is out of range"
    );
    let busy = wire.fetch("busy", 300, Duration::ZERO).await;
    assert_eq!(
        stats.retention_dropped_records_total,
        2 + busy.log_start_offset as u64
    );

    let lines = drops(&log, "quiet");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["WARN", "partition=0", "records=2", "bytes=", "log_start_offset=2"] {
        assert!(lines[0].contains(part), "{part} is missing in {}", lines[0]);
    }
    let lines = drops(&log, "busy");
    assert!(
        (1..60).contains(&lines.len()),
        "a line for many batches, not for each: {}",
        lines.len()
    );
}

#[tokio::test]
async fn a_topic_has_bounds_of_its_own() {
    let log = Log::captured();
    let options = Options {
        retention_check_interval: Duration::from_millis(20),
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    let mut wire = Wire::connect(&broker).await;
    topic_with(&mut wire, "small", &[("retention.bytes", "10000")]).await;
    topic_with(&mut wire, "short", &[("retention.ms", "60000")]).await;
    for _ in 0..50 {
        wire.produce("small", batch(1, &[2; 1_000], 0, PLAIN)).await;
    }
    let small = wire.fetch("small", 50, Duration::ZERO).await;
    assert!(
        (40..=42).contains(&small.log_start_offset),
        "{}",
        small.log_start_offset
    );
    assert!(!drops(&log, "small").is_empty());

    // Of 2010, so older than a minute; the newest batch stays all the same.
    for _ in 0..3 {
        wire.produce("short", batch(2, b"x", 1_291_200_000_000, PLAIN))
            .await;
    }
    dropped_up_to(&mut wire, "short", 4).await;
}

#[tokio::test]
async fn without_a_setting_the_age_of_a_record_does_not_matter() {
    let options = Options {
        retention_check_interval: Duration::from_millis(5),
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    broker.create_topic("old", 1).unwrap();
    let mut wire = Wire::connect(&broker).await;
    // The witness shows that ages were looked at after the records came.
    topic_with(&mut wire, "witness", &[("retention.ms", "60000")]).await;
    for topic in ["old", "old", "old", "witness", "witness"] {
        wire.produce(topic, batch(1, b"x", 1_291_200_000_000, PLAIN))
            .await;
    }
    dropped_up_to(&mut wire, "witness", 1).await;
    assert_eq!(wire.fetch("old", 0, Duration::ZERO).await.log_start_offset, 0);
    assert_eq!(broker.stats().retention_dropped_records_total, 1);
}

async fn dropped_up_to(wire: &mut Wire, topic: &str, log_start: i64) {
    let deadline = Instant::now() + DEADLINE;
    while wire
        .fetch(topic, log_start, Duration::ZERO)
        .await
        .log_start_offset
        != log_start
    {
        assert!(Instant::now() < deadline, "retention.ms was not looked at");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
