//! Consumer groups with librdkafka: both kinds of rebalance, commits, admin.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use devbroker::Broker;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use support::*;

const EAGER: &str = "range";
const COOPERATIVE: &str = "cooperative-sticky";

/// A process that does not outlive its test.
struct Child(std::process::Child);

impl Child {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn member(broker: &Broker, group: &str, strategy: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut all = vec![
        ("group.id", group),
        ("partition.assignment.strategy", strategy),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "50"),
        ("topic.metadata.refresh.interval.ms", "500"),
    ];
    all.extend(settings);
    consumer(broker, &all)
}

fn whole(members: &[&BaseConsumer], partitions: i32) -> bool {
    let owned: Vec<i32> = members.iter().flat_map(|member| assigned(member)).collect();
    let distinct: BTreeSet<i32> = owned.iter().copied().collect();
    owned.len() == distinct.len() && distinct.into_iter().eq(0..partitions)
}

/// One member owns all, a second one joins and gets half, and leaves, and the first has all again.
fn members_come_and_go(broker: &Broker, strategy: &str) {
    let topic = format!("topic-{strategy}");
    broker.create_topic(&topic, 6).unwrap();
    let first = member(broker, strategy, strategy, &[]);
    first.subscribe(&[&topic]).unwrap();
    poll_until(&[&first], || assigned(&first).len() == 6);

    let second = member(broker, strategy, strategy, &[]);
    second.subscribe(&[&topic]).unwrap();
    let joined = Instant::now();
    poll_until(&[&first, &second], || {
        assigned(&second).len() == 3 && assigned(&first).len() == 3 && whole(&[&first, &second], 6)
    });
    assert!(
        joined.elapsed() < Duration::from_secs(5),
        "{strategy}: settled after {:?}",
        joined.elapsed()
    );

    second.unsubscribe();
    poll_until(&[&first, &second], || assigned(&first).len() == 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_with_eager_rebalancing() {
    members_come_and_go(&broker().await, EAGER);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_with_cooperative_rebalancing() {
    members_come_and_go(&broker().await, COOPERATIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_resumes_where_it_committed() {
    let broker = broker().await;
    broker.create_topic("orders", 3).unwrap();
    let producer = producer(&broker, &[]);
    send(&producer, "orders", "first-", 500).await;
    {
        let member = member(&broker, "resume", COOPERATIVE, &[]);
        member.subscribe(&["orders"]).unwrap();
        assert_eq!(receive(&member, 500).len(), 500);
        member.commit_consumer_state(CommitMode::Sync).unwrap();
    }
    send(&producer, "orders", "second-", 500).await;
    let member = member(&broker, "resume", COOPERATIVE, &[]);
    member.subscribe(&["orders"]).unwrap();
    let values: BTreeSet<String> = receive(&member, 500).iter().map(value).collect();
    assert_eq!(values.len(), 500);
    assert!(
        values.iter().all(|value| value.starts_with("second-")),
        "a committed record came again"
    );

    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("orders", 0);
    wanted.add_partition("orders", 2);
    let committed = member.committed_offsets(wanted, DEADLINE).unwrap();
    assert!(
        committed
            .elements()
            .iter()
            .all(|element| matches!(element.offset(), Offset::Offset(1..)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_group_sees_every_record() {
    let broker = broker().await;
    broker.create_topic("orders", 4).unwrap();
    let members: Vec<BaseConsumer> = ["fraud-group", "payments-group", "analytics-group"]
        .iter()
        .map(|group| {
            let member = member(&broker, group, COOPERATIVE, &[]);
            member.subscribe(&["orders"]).unwrap();
            member
        })
        .collect();
    send(&producer(&broker, &[]), "orders", "order-", 1_000).await;
    for member in &members {
        let values: BTreeSet<String> = receive(member, 1_000).iter().map(value).collect();
        assert_eq!(values.len(), 1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_killed_loses_its_partitions_after_its_session() {
    if !present("kcat", Command::new("kcat").arg("-V")) {
        return;
    }
    let broker = broker().await;
    broker.create_topic("orders", 4).unwrap();
    let survivor = member(&broker, "session", EAGER, &[]);
    survivor.subscribe(&["orders"]).unwrap();
    let mut doomed = Child(
        Command::new("kcat")
            .args([
                "-b",
                &broker.address().to_string(),
                "-q",
                "-X",
                "session.timeout.ms=1500",
            ])
            .args([
                "-X",
                "partition.assignment.strategy=range",
                "-G",
                "session",
                "orders",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    poll_until(&[&survivor], || assigned(&survivor).len() == 2);
    let killed = Instant::now();
    doomed.kill();
    poll_until(&[&survivor], || assigned(&survivor).len() == 4);
    assert!(
        killed.elapsed() >= Duration::from_secs(1),
        "it was taken for dead before its session was over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    let broker = broker().await;
    broker.create_topic("orders", 4).unwrap();
    let first = member(&broker, "static", EAGER, &[("group.instance.id", "one")]);
    first.subscribe(&["orders"]).unwrap();
    poll_until(&[&first], || assigned(&first).len() == 4);
    let second = member(&broker, "static", EAGER, &[("group.instance.id", "two")]);
    second.subscribe(&["orders"]).unwrap();
    poll_until(&[&first, &second], || {
        assigned(&first).len() == 2 && assigned(&second).len() == 2
    });
    let before = assigned(&second);
    drop(second);
    let second = member(&broker, "static", EAGER, &[("group.instance.id", "two")]);
    second.subscribe(&["orders"]).unwrap();
    poll_until(&[&first, &second], || !assigned(&second).is_empty());
    assert_eq!(assigned(&second), before);
    assert_eq!(assigned(&first).len(), 2, "the other member kept its partitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_and_deleted_when_empty() {
    let broker = broker().await;
    broker.create_topic("orders", 2).unwrap();
    send(&producer(&broker, &[]), "orders", "x", 10).await;
    let worker = member(&broker, "listed", COOPERATIVE, &[]);
    worker.subscribe(&["orders"]).unwrap();
    receive(&worker, 10);
    worker.commit_consumer_state(CommitMode::Sync).unwrap();

    let groups = worker.fetch_group_list(None, DEADLINE).unwrap();
    let group = groups
        .groups()
        .iter()
        .find(|group| group.name() == "listed")
        .unwrap();
    assert_eq!(
        (group.state(), group.protocol_type(), group.protocol()),
        ("Stable", "consumer", COOPERATIVE)
    );
    assert_eq!(group.members().len(), 1);
    assert!(!group.members()[0].assignment().unwrap().is_empty());

    let admin = admin(&broker);
    let busy = admin
        .delete_groups(&["listed"], &AdminOptions::new())
        .await
        .unwrap();
    assert!(
        busy[0].is_err(),
        "a group with members can not be deleted: {busy:?}"
    );
    drop(worker);
    let gone = admin
        .delete_groups(&["listed"], &AdminOptions::new())
        .await
        .unwrap();
    assert!(gone[0].is_ok(), "{gone:?}");
    let watcher = member(&broker, "other", COOPERATIVE, &[]);
    assert!(
        watcher
            .fetch_group_list(Some("listed"), DEADLINE)
            .unwrap()
            .groups()
            .iter()
            .all(|group| group.state() == "Dead")
    );
}
