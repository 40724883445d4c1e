//! Members of a group that come, go and return: on the embedded broker, and on real Kafka where
//! `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use service::Process;
use stream::settings::{Assignor, Delivery, GroupProtocol};
use stream::worker::run_handler;
use stream::{Failure, Handler, OutputTopic, Outputs, Record, StreamError, StreamSettings};
use support::{Bench, LIMIT, Running};
use testkit::eventually;

fn numbered(range: std::ops::Range<usize>) -> Vec<(String, String)> {
    range
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect()
}

struct Forward;

impl Handler for Forward {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        let value = record.value.unwrap_or_default();
        outputs.send(OutputTopic(0), record.key.unwrap_or_default(), value);
        Ok(())
    }
}

fn start(bench: &Bench, change: impl FnOnce(&mut StreamSettings)) -> Running {
    let surroundings = bench.surroundings(change);
    let process = surroundings.process.clone();
    Running {
        process,
        task: tokio::spawn(run_handler(bench.spec(), surroundings, || Forward)),
    }
}

fn metric(process: &Process, name: &str) -> f64 {
    let families = process.metrics.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    metrics
        .iter()
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum()
}

async fn wanted_once(bench: &Bench, count: usize) {
    let mut values: Vec<usize> = bench
        .output_values()
        .await
        .iter()
        .map(|value| value.parse().unwrap())
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..count).collect::<Vec<_>>());
}

async fn members_come_and_go(change: impl Fn(&mut StreamSettings) + Copy, delivery: Delivery) {
    let change = |stream: &mut StreamSettings| {
        change(stream);
        stream.delivery = delivery;
    };
    let bench = Arc::new(Bench::new(4).await);
    let first = start(&bench, change);
    bench.produce(&numbered(0..400)).await;
    let second = start(&bench, change);
    let everybody_worked = Arc::new(AtomicBool::new(false));
    let producing = {
        let (bench, enough) = (Arc::clone(&bench), Arc::clone(&everybody_worked));
        tokio::spawn(async move {
            let mut total = 400;
            // A round after the last member has worked, so that there is something left when one leaves.
            let mut last = false;
            while !last {
                last = enough.load(Ordering::SeqCst) || total > 100_000;
                bench.produce(&numbered(total..total + 200)).await;
                total += 200;
            }
            total
        })
    };
    let third = start(&bench, change);
    // Each of them has worked before one leaves: then partitions have moved twice.
    for worker in [&first, &second, &third] {
        eventually(LIMIT, || async {
            metric(&worker.process, "orderflow_records_read_total") > 0.0
        })
        .await;
    }
    everybody_worked.store(true, Ordering::SeqCst);
    first.stop().await.expect("leaves cleanly");
    let total: usize = producing.await.expect("produces");
    bench.all_committed().await;
    second.stop().await.expect("leaves cleanly");
    third.stop().await.expect("leaves cleanly");
    let values = bench.output_values().await;
    let distinct: BTreeSet<usize> = values.iter().map(|value| value.parse().unwrap()).collect();
    let lost: Vec<usize> = (0..total).filter(|number| !distinct.contains(number)).collect();
    assert_eq!(lost, [0_usize; 0], "nothing is lost while members come and go");
    if delivery == Delivery::ExactlyOnce {
        assert_eq!(values.len(), total, "and nothing is doubled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing_with_the_cooperative_protocol() {
    members_come_and_go(
        |stream| stream.assignor = Some(Assignor::CooperativeSticky),
        Delivery::ExactlyOnce,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing_with_ranges_and_eager_rebalances() {
    members_come_and_go(
        |stream| stream.assignor = Some(Assignor::Range),
        Delivery::ExactlyOnce,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing_in_turn_and_with_eager_rebalances() {
    members_come_and_go(
        |stream| stream.assignor = Some(Assignor::Roundrobin),
        Delivery::ExactlyOnce,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing_without_transactions() {
    members_come_and_go(|_| (), Delivery::AtLeastOnce).await;
}

/// KIP-848.
fn consumer_protocol(stream: &mut StreamSettings) {
    stream.group_protocol = GroupProtocol::Consumer;
    stream.session_timeout_ms = None;
}

/// Real Kafka alone: the embedded broker does not serve it, which has a test of its own.
async fn serves_the_consumer_protocol() -> bool {
    let is_served = Bench::without_topics().await.broker.engine() == "kafka";
    if !is_served {
        eprintln!("skipped: the embedded broker does not serve the group protocol `consumer`");
    }
    is_served
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing_where_the_broker_deals_out_partitions() {
    if serves_the_consumer_protocol().await {
        members_come_and_go(consumer_protocol, Delivery::ExactlyOnce).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_lose_nothing_without_transactions_where_the_broker_deals_out_partitions() {
    if serves_the_consumer_protocol().await {
        members_come_and_go(consumer_protocol, Delivery::AtLeastOnce).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_deal_out_partitions_are_told_of_with_the_setting_that_helps() {
    let bench = Bench::new(1).await;
    if bench.broker.engine() == "kafka" {
        eprintln!("skipped: this Kafka serves the group protocol `consumer`");
        return;
    }
    let worker = start(&bench, consumer_protocol);
    let ended = tokio::time::timeout(LIMIT, worker.task).await.expect("in time");
    let error = ended.expect("no panic").expect_err("refused");
    assert!(matches!(error, StreamError::GroupProtocol { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("set `stream.group_protocol` to `classic`"),
        "{error}"
    );
    assert_eq!(service::Exit::from(error).code(), 64);
}

/// One of two static members: its pump is `<name>-0`.
fn named(name: &'static str) -> impl Fn(&mut StreamSettings) + Copy {
    move |stream| stream.group_instance_id = Some(name.to_owned())
}

async fn has_worked(worker: &Running) {
    eventually(LIMIT, || async {
        metric(&worker.process, "orderflow_records_read_total") > 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_is_stopped_leaves_its_partitions_to_the_others_at_once() {
    for assignor in [Assignor::CooperativeSticky, Assignor::Range] {
        let bench = Bench::new(4).await;
        let member = |name| {
            move |stream: &mut StreamSettings| {
                named(name)(stream);
                stream.assignor = Some(assignor);
                // Who waits for it waits too long.
                stream.session_timeout_ms = Some(60_000);
            }
        };
        let first = start(&bench, member("first"));
        let second = start(&bench, member("second"));
        let mut total = 0;
        for worker in [&first, &second] {
            while metric(&worker.process, "orderflow_records_read_total") == 0.0 {
                bench.produce(&numbered(total..total + 40)).await;
                bench.all_committed().await;
                total += 40;
            }
        }
        first.stop().await.expect("leaves cleanly");
        let left = Instant::now();
        bench.produce(&numbered(total..total + 100)).await;
        bench.all_committed().await;
        let waited = left.elapsed();
        assert!(waited < Duration::from_secs(20), "{assignor:?}: {waited:?}");
        second.stop().await.expect("leaves cleanly");
        wanted_once(&bench, total + 100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_members_with_one_name_the_older_ends_and_nothing_is_doubled() {
    let bench = Bench::new(3).await;
    bench.produce(&numbered(0..50)).await;
    let older = start(&bench, named("one"));
    has_worked(&older).await;
    let newer = start(&bench, named("one"));
    let producing = async {
        let mut total = 50;
        while !older.task.is_finished() {
            assert!(total < 100_000, "two members of one name live side by side");
            bench.produce(&numbered(total..total + 10)).await;
            total += 10;
        }
        total
    };
    let total = tokio::time::timeout(LIMIT, producing).await.expect("in time");
    let ended = older.task.await.expect("no panic").expect_err("fenced");
    assert!(matches!(ended, StreamError::FencedMember { .. }), "{ended}");
    assert!(
        ended.to_string().contains("`stream.group_instance_id`"),
        "{ended}"
    );
    assert_eq!(service::Exit::from(ended).code(), 75);
    bench.all_committed().await;
    newer.stop().await.expect("stops cleanly");
    wanted_once(&bench, total).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_partitions_is_ready_and_takes_over_what_another_one_leaves() {
    let bench = Bench::new(1).await;
    bench.produce(&numbered(0..50)).await;
    let busy = start(&bench, |_| ());
    has_worked(&busy).await;
    let idle = start(&bench, |_| ());
    // It has been told that there is nothing for it, or it is about to be.
    eventually(LIMIT, || async {
        idle.process.health.not_ready_reason().is_none()
    })
    .await;
    bench.produce(&numbered(50..100)).await;
    bench.all_committed().await;
    assert_eq!(metric(&idle.process, "orderflow_records_read_total"), 0.0);
    assert_eq!(idle.process.health.not_ready_reason(), None);
    assert_eq!(
        idle.process.health.stale(),
        Vec::<String>::new(),
        "an idle pump turns"
    );
    busy.stop().await.expect("stops cleanly");
    bench.produce(&numbered(100..150)).await;
    bench.all_committed().await;
    assert!(metric(&idle.process, "orderflow_records_read_total") > 0.0);
    idle.stop().await.expect("stops cleanly");
    wanted_once(&bench, 150).await;
}
