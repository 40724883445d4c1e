//! Deleting a group's offsets, and many members at the same time.
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
use std::time::{Duration, Instant};

use devbroker::Broker;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetDeleteRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use support::*;
use wire::Wire;

fn member(broker: &Broker, group: &str) -> BaseConsumer {
    let settings = [
        ("group.id", group),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("enable.auto.commit", "false"),
        ("heartbeat.interval.ms", "50"),
        ("topic.metadata.refresh.interval.ms", "300"),
    ];
    consumer(broker, &settings)
}

/// The code of the answer, and of each partition.
async fn delete_offsets(wire: &mut Wire, group: &str, partitions: &[(&str, i32)]) -> (i16, Vec<i16>) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let topics = partitions.iter().map(|(topic, index)| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(*index);
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition])
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(topics.collect());
    let answer = wire.call(0, &request).await;
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    (
        answer.error_code,
        partitions.map(|partition| partition.error_code).collect(),
    )
}

fn commit(member: &BaseConsumer, offsets: &[(&str, i32, i64)]) {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .unwrap();
    }
    member.commit(&list, CommitMode::Sync).unwrap();
}

fn committed(member: &BaseConsumer, topic: &str, partition: i32) -> Option<i64> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let committed = member.committed_offsets(list, DEADLINE).unwrap();
    committed.elements()[0]
        .offset()
        .to_raw()
        .filter(|offset| *offset >= 0)
}

/// The codes are those of Apache Kafka 4.3.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_deleted_except_of_topics_that_a_member_reads() {
    const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    const INVALID_GROUP_ID: i16 = 24;
    const GROUP_ID_NOT_FOUND: i16 = 69;
    const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
    let broker = broker().await;
    broker.create_topic("read", 2).unwrap();
    broker.create_topic("left", 1).unwrap();
    let mut wire = Wire::connect(&broker).await;
    for (group, code) in [("", INVALID_GROUP_ID), ("nobody", GROUP_ID_NOT_FOUND)] {
        assert_eq!(
            delete_offsets(&mut wire, group, &[("read", 0)]).await,
            (code, vec![])
        );
    }
    let member = member(&broker, "group");
    commit(&member, &[("read", 0, 5), ("read", 1, 6), ("left", 0, 7)]);
    let wanted = [("read", 0), ("read", 7), ("missing", 0)];
    let codes = vec![0, UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_OR_PARTITION];
    assert_eq!(delete_offsets(&mut wire, "group", &wanted).await, (0, codes));
    assert_eq!(committed(&member, "read", 0), None);
    assert_eq!(committed(&member, "read", 1), Some(6));

    member.subscribe(&["read"]).unwrap();
    poll_until(&[&member], || assigned(&member).len() == 2);
    let wanted = [("read", 1), ("left", 0)];
    assert_eq!(
        delete_offsets(&mut wire, "group", &wanted).await,
        (0, vec![GROUP_SUBSCRIBED_TO_TOPIC, 0])
    );
    assert_eq!(committed(&member, "read", 1), Some(6));
    assert_eq!(committed(&member, "left", 0), None);

    member.unsubscribe();
    let deadline = Instant::now() + DEADLINE;
    while delete_offsets(&mut wire, "group", &[("read", 1)]).await.1 != [0] {
        assert!(Instant::now() < deadline, "the member's leaving was not seen");
        member.poll(Duration::from_millis(10));
    }
    assert_eq!(committed(&member, "read", 1), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_members_share_a_topic_within_a_second() {
    let broker = broker().await;
    broker.create_topic("orders", 16).unwrap();
    let members: Vec<BaseConsumer> = (0..8).map(|_| member(&broker, "eight")).collect();
    let members: Vec<&BaseConsumer> = members.iter().collect();
    let began = Instant::now();
    for member in &members {
        member.subscribe(&["orders"]).unwrap();
    }
    poll_until(&members, || {
        let owned: Vec<Vec<i32>> = members.iter().map(|member| assigned(member)).collect();
        let distinct: BTreeSet<i32> = owned.iter().flatten().copied().collect();
        distinct.len() == 16 && owned.iter().all(|owned| owned.len() == 2)
    });
    let settled = began.elapsed();
    eprintln!("eight members settled after {settled:?}");
    assert!(settled < Duration::from_secs(1), "settled after {settled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_a_topic_gains_are_shared_out_by_the_members_themselves() {
    let broker = broker().await;
    broker.create_topic("orders", 2).unwrap();
    let members = [member(&broker, "grow"), member(&broker, "grow")];
    let members: Vec<&BaseConsumer> = members.iter().collect();
    for member in &members {
        member.subscribe(&["orders"]).unwrap();
    }
    poll_until(&members, || {
        members.iter().all(|member| assigned(member).len() == 1)
    });
    let grown = admin(&broker)
        .create_partitions(
            &[rdkafka::admin::NewPartitions::new("orders", 6)],
            &rdkafka::admin::AdminOptions::new(),
        )
        .await
        .unwrap();
    assert!(grown[0].is_ok(), "{grown:?}");
    poll_until(&members, || {
        members.iter().all(|member| assigned(member).len() == 3)
    });
}
