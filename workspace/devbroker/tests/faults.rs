//! Each fault by name, and what librdkafka makes of it.
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

use devbroker::{ApiKey, Broker, Fault, ResponseError};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use support::*;

const RECORDS: usize = 200;

async fn with_topic(topic: &str) -> Broker {
    let broker = broker().await;
    broker.create_topic(topic, 1).unwrap();
    broker
}

/// Tries again soon, so that a test does not wait for it.
fn idempotent(broker: &Broker) -> FutureProducer {
    producer(
        broker,
        &[
            ("enable.idempotence", "true"),
            ("retry.backoff.ms", "10"),
            ("reconnect.backoff.ms", "10"),
        ],
    )
}

async fn send_one(producer: &FutureProducer, topic: &str) -> Result<i64, RDKafkaErrorCode> {
    let record = FutureRecord::to(topic).key("key").payload("value");
    match producer.send(record, Duration::ZERO).await {
        Ok(delivery) => Ok(delivery.offset),
        Err((KafkaError::MessageProduction(code), _)) => Err(code),
        Err((error, _)) => panic!("{error}"),
    }
}

/// Every record of the only partition, by hand, so that no group is in the way.
fn read_all(broker: &Broker, topic: &str) -> Vec<String> {
    let consumer = consumer(broker, &[("group.id", "reader")]);
    let (_, end) = consumer.fetch_watermarks(topic, 0, DEADLINE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    receive(&consumer, end as usize).iter().map(value).collect()
}

fn member(broker: &Broker, group: &str, topic: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut all = vec![
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("heartbeat.interval.ms", "50"),
        ("retry.backoff.ms", "10"),
    ];
    all.extend(settings);
    let member = consumer(broker, &all);
    member.subscribe(&[topic]).unwrap();
    member
}

/// The ids of a group's members, as its coordinator knows them.
fn member_ids(broker: &Broker, group: &str) -> BTreeSet<String> {
    let observer = consumer(broker, &[("group.id", "observer")]);
    let groups = observer.fetch_group_list(Some(group), DEADLINE).unwrap();
    let members = groups.groups().iter().flat_map(|group| group.members());
    members.map(|member| member.id().to_owned()).collect()
}

/// Polls until the group has one member that is not of `former`, with the whole topic.
fn rejoined(broker: &Broker, member: &BaseConsumer, group: &str, former: &BTreeSet<String>) {
    poll_until(&[member], || {
        let ids = member_ids(broker, group);
        ids.len() == 1 && ids.is_disjoint(former) && assigned(member) == [0]
    });
}

fn position(topic: &str, offset: i64) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .unwrap();
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_acknowledgement_is_tried_again_and_each_record_is_there_once() {
    let broker = with_topic("orders").await;
    let drop_after = Fault::DropAfter.on(ApiKey::Produce).of_topic("orders").times(2);
    let fault = broker.inject(drop_after).unwrap();
    send(&idempotent(&broker), "orders", "order-", RECORDS).await;
    assert_eq!(fault.struck(), 2);
    let stats = broker.stats();
    assert!(
        stats.duplicate_batches_total >= 2,
        "the effect had happened: {stats:?}"
    );
    assert_eq!(stats.records_appended_total, RECORDS as u64);
    let values = read_all(&broker, "orders");
    let distinct: BTreeSet<&String> = values.iter().collect();
    assert_eq!((values.len(), distinct.len()), (RECORDS, RECORDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_dropped_before_the_effect_left_nothing_behind() {
    let broker = with_topic("orders").await;
    let fault = broker
        .inject(Fault::DropBefore.on(ApiKey::Produce).times(2))
        .unwrap();
    send(&idempotent(&broker), "orders", "order-", RECORDS).await;
    assert_eq!(fault.struck(), 2);
    let stats = broker.stats();
    assert_eq!(stats.duplicate_batches_total, 0, "there was no effect to repeat");
    assert_eq!(stats.records_appended_total, RECORDS as u64);
    assert_eq!(stats.malformed_total, 0, "a fault is not held against the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retriable_error_is_tried_again_and_a_fatal_one_is_told() {
    let broker = with_topic("orders").await;
    let producer = idempotent(&broker);
    let retriable = Fault::AnswerError(ResponseError::NotEnoughReplicas)
        .on(ApiKey::Produce)
        .times(3);
    let fault = broker.inject(retriable).unwrap();
    assert_eq!(send_one(&producer, "orders").await, Ok(0));
    assert_eq!(fault.struck(), 3);
    let refusal = Fault::AnswerError(ResponseError::TopicAuthorizationFailed).on(ApiKey::Produce);
    let _fault = broker.inject(refusal).unwrap();
    assert_eq!(
        send_one(&producer, "orders").await,
        Err(RDKafkaErrorCode::TopicAuthorizationFailed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_answered_with_an_error_so_often_and_then_succeeds() {
    let broker = with_topic("orders").await;
    let member = member(&broker, "payment", "orders", &[]);
    poll_until(&[&member], || assigned(&member) == [0]);

    let not_yet = Fault::AnswerError(ResponseError::CoordinatorLoadInProgress);
    let not_yet = not_yet.on(ApiKey::OffsetCommit).of_group("payment").times(2);
    let other = Fault::AnswerError(ResponseError::GroupAuthorizationFailed);
    let other = broker
        .inject(other.on(ApiKey::OffsetCommit).of_group("fraud"))
        .unwrap();
    let fault = broker.inject(not_yet).unwrap();
    let commit = |offset| member.commit(&position("orders", offset), CommitMode::Sync);
    let mut refused = 0;
    while commit(7).is_err() {
        refused += 1;
        assert!(refused <= 2, "it was refused more often than asked for");
    }
    assert_eq!((fault.struck(), other.struck()), (2, 0));
    let committed = member.committed(DEADLINE).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(7));

    let denied = Fault::AnswerError(ResponseError::GroupAuthorizationFailed).on(ApiKey::OffsetCommit);
    let _fault = broker.inject(denied).unwrap();
    let error = commit(8).unwrap_err();
    assert_eq!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_too_late_is_tried_again_and_its_effect_happened_once() {
    let broker = with_topic("orders").await;
    let late = Fault::DelayAnswer(Duration::from_secs(10)).on(ApiKey::Produce);
    let fault = broker.inject(late).unwrap();
    let producer = producer(
        &broker,
        &[
            ("enable.idempotence", "true"),
            ("socket.timeout.ms", "1000"),
            ("request.timeout.ms", "500"),
            ("retry.backoff.ms", "10"),
        ],
    );
    assert_eq!(send_one(&producer, "orders").await, Ok(0));
    assert_eq!(fault.struck(), 1);
    let stats = broker.stats();
    assert_eq!(
        (stats.records_appended_total, stats.duplicate_batches_total),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_holds_the_client_it_was_meant_for_and_no_other() {
    const DELAY: Duration = Duration::from_millis(700);
    let broker = with_topic("orders").await;
    let slow = producer(&broker, &[("client.id", "slow")]);
    let quick = producer(&broker, &[("client.id", "quick")]);
    for warm_up in [&slow, &quick] {
        send_one(warm_up, "orders").await.unwrap();
    }
    let delay = Fault::Delay(DELAY).on(ApiKey::Produce).of_client("slow").always();
    let fault = broker.inject(delay).unwrap();
    let timed = async |producer: &FutureProducer| {
        let started = Instant::now();
        send_one(producer, "orders").await.unwrap();
        started.elapsed()
    };
    assert!(timed(&slow).await >= DELAY);
    assert!(timed(&quick).await < DELAY);
    assert_eq!(fault.struck(), 1);
    fault.remove();
    assert!(timed(&slow).await < DELAY, "removed with its handle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_reading_lets_its_client_time_out_and_goes_on_when_released() {
    let broker = with_topic("orders").await;
    let patient = [("message.timeout.ms", "1000"), ("client.id", "stopped")];
    let producer = producer(&broker, &patient);
    send_one(&producer, "orders").await.unwrap();
    let stop = Fault::StopReading.on_any_request().of_client("stopped").always();
    let fault = broker.inject(stop).unwrap();
    assert_eq!(
        send_one(&producer, "orders").await,
        Err(RDKafkaErrorCode::MessageTimedOut)
    );
    assert!(fault.struck() >= 1);
    assert_eq!(
        broker.stats().records_appended_total,
        1,
        "nothing was looked into"
    );
    broker.clear_faults();
    // What was stopped is handled now, as after a pause of the process; the next one follows.
    assert!(send_one(&producer, "orders").await.is_ok());
    assert_eq!(broker.stats().records_appended_total, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_requests_may_pass() {
    let broker = with_topic("orders").await;
    let producer = producer(&broker, &[("linger.ms", "0")]);
    let refusal = Fault::AnswerError(ResponseError::PolicyViolation);
    let fault = broker.inject(refusal.on(ApiKey::Produce).after(2)).unwrap();
    assert_eq!(send_one(&producer, "orders").await, Ok(0));
    assert_eq!(send_one(&producer, "orders").await, Ok(1));
    assert_eq!(fault.struck(), 0);
    assert_eq!(
        send_one(&producer, "orders").await,
        Err(RDKafkaErrorCode::PolicyViolation)
    );
    assert!(fault.wait_until_struck(1).await);
    assert_eq!(send_one(&producer, "orders").await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_member_joins_anew() {
    let broker = with_topic("orders").await;
    let member = member(&broker, "payment", "orders", &[]);
    poll_until(&[&member], || assigned(&member) == [0]);
    let former = member_ids(&broker, "payment");
    assert_eq!(former.len(), 1);
    for id in &former {
        assert!(broker.forget_member("payment", id).await);
        assert!(!broker.forget_member("payment", id).await, "known no more");
    }
    assert!(!broker.forget_member("no such group", "member").await);
    rejoined(&broker, &member, "payment", &former);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_group_forms_anew_and_keeps_its_positions() {
    let broker = with_topic("orders").await;
    let member = member(&broker, "payment", "orders", &[]);
    poll_until(&[&member], || assigned(&member) == [0]);
    let former = member_ids(&broker, "payment");
    member.commit(&position("orders", 5), CommitMode::Sync).unwrap();
    assert!(broker.forget_group("payment").await);
    assert!(!broker.forget_group("no such group").await);
    rejoined(&broker, &member, "payment", &former);
    let committed = member.committed(DEADLINE).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_clock_ends_a_session() {
    let broker = with_topic("orders").await;
    let _silent = silent_member(&broker, "payment", "orders").await;
    broker.advance_clock(Duration::from_secs(500));
    assert_eq!(member_ids(&broker, "payment").len(), 1, "its time is not over");
    broker.advance_clock(Duration::from_secs(100));
    poll_until(&[], || member_ids(&broker, "payment").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_clock_ends_the_time_that_records_are_kept() {
    let broker = broker().await;
    let topic = NewTopic::new("orders", 1, TopicReplication::Fixed(1)).set("retention.ms", "3600000");
    let created = admin(&broker).create_topics([&topic], &AdminOptions::new()).await;
    assert!(created.unwrap().iter().all(Result::is_ok));
    let producer = producer(&broker, &[]);
    for _ in 0..2 {
        send_one(&producer, "orders").await.unwrap();
    }
    let observer = consumer(&broker, &[("group.id", "observer")]);
    let first_offset = || observer.fetch_watermarks("orders", 0, DEADLINE).unwrap().0;
    assert_eq!(first_offset(), 0);
    broker.advance_clock(Duration::from_secs(3_700));
    // The newest batch always stays.
    poll_until(&[], || first_offset() == 1);
}

fn transactional(broker: &Broker, id: &str) -> FutureProducer {
    let settings = [
        ("transactional.id", id),
        ("transaction.timeout.ms", "600000"),
        ("retry.backoff.ms", "10"),
        ("reconnect.backoff.ms", "10"),
    ];
    let producer = producer(broker, &settings);
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// Every record of the only partition that readers of committed records see.
fn committed(broker: &Broker, topic: &str, count: usize) -> Vec<String> {
    let consumer = consumer(
        broker,
        &[("group.id", "reader"), ("isolation.level", "read_committed")],
    );
    consumer.assign(&position(topic, 0)).unwrap();
    receive(&consumer, count).iter().map(value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_transaction_whose_answer_is_lost_is_tried_again_and_holds() {
    let broker = with_topic("orders").await;
    let not_yet = Fault::AnswerError(ResponseError::ConcurrentTransactions);
    let not_yet = broker
        .inject(not_yet.on(ApiKey::AddPartitionsToTxn).times(2))
        .unwrap();
    let lost = Fault::DropAfter
        .on(ApiKey::EndTxn)
        .of_transactional_id("payment-0");
    let lost = broker.inject(lost).unwrap();
    let producer = transactional(&broker, "payment-0");
    send(&producer, "orders", "order-", 3).await;
    producer.commit_transaction(DEADLINE).unwrap();
    assert_eq!((not_yet.struck(), lost.struck()), (2, 1));
    assert_eq!(committed(&broker, "orders", 3), ["order-0", "order-1", "order-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_clock_aborts_a_transaction() {
    let broker = with_topic("orders").await;
    let producer = transactional(&broker, "payment-0");
    send(&producer, "orders", "aborted-", 1).await;
    broker.advance_clock(Duration::from_secs(601));
    let other = transactional(&broker, "payment-1");
    send(&other, "orders", "kept-", 1).await;
    other.commit_transaction(DEADLINE).unwrap();
    // It would wait for the end of the older transaction, were it still open.
    assert_eq!(committed(&broker, "orders", 1), ["kept-0"]);
    assert!(
        producer.commit_transaction(DEADLINE).is_err(),
        "its time was over"
    );
}
