//! What the integration tests share: a broker, librdkafka clients, and other programs.
#![allow(dead_code)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use devbroker::{ApiKey, Broker, Fault, FaultHandle, Options};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// The longest that any single step of a test may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn broker() -> Broker {
    Broker::start(Options::default()).await.unwrap()
}

pub fn config(broker: &Broker, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address().to_string());
    config.set("allow.auto.create.topics", "false");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

pub fn producer(broker: &Broker, settings: &[(&str, &str)]) -> FutureProducer {
    config(broker, settings).create().unwrap()
}

pub fn consumer(broker: &Broker, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut config = config(broker, settings);
    config.set("fetch.queue.backoff.ms", "5");
    config.create().unwrap()
}

pub fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    config(broker, &[]).create().unwrap()
}

pub async fn create_topic(broker: &Broker, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let results = admin(broker)
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Sends `count` records `<prefix>0`, `<prefix>1`, ... and returns the (partition, offset) of each.
pub async fn send(producer: &FutureProducer, topic: &str, prefix: &str, count: usize) -> Vec<(i32, i64)> {
    let values: Vec<String> = (0..count).map(|index| format!("{prefix}{index}")).collect();
    let mut deliveries = Vec::new();
    for value in &values {
        let record = FutureRecord::to(topic).key(value).payload(value);
        deliveries.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    let mut places = Vec::new();
    for delivery in deliveries {
        let delivery = delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        places.push((delivery.partition, delivery.offset));
    }
    places
}

/// Polls until `count` records came; panics at the deadline.
pub fn receive(consumer: &BaseConsumer, count: usize) -> Vec<OwnedMessage> {
    let mut records = Vec::new();
    receive_until(consumer, |record| {
        records.push(record.detach());
        records.len() >= count
    });
    records
}

/// Polls until `done` says so; panics at the deadline.
pub fn receive_until(consumer: &BaseConsumer, mut done: impl FnMut(&BorrowedMessage<'_>) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the records did not come in time");
        if let Some(result) = consumer.poll(Duration::from_millis(50))
            && done(&result.unwrap())
        {
            return;
        }
    }
}

pub fn value(record: &impl Message) -> String {
    String::from_utf8(record.payload().unwrap_or_default().to_vec()).unwrap()
}

/// Polls all consumers in turn, for their group work, until `done`; panics at the deadline.
pub fn poll_until(consumers: &[&BaseConsumer], mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "the state did not come in time");
        for consumer in consumers {
            if let Some(result) = consumer.poll(Duration::from_millis(5)) {
                drop(result.unwrap());
            }
        }
    }
}

/// The partitions that a consumer owns now, sorted.
pub fn assigned(consumer: &BaseConsumer) -> Vec<i32> {
    let list = consumer.assignment().unwrap();
    let mut partitions: Vec<i32> = list
        .elements()
        .iter()
        .map(|element| element.partition())
        .collect();
    partitions.sort_unstable();
    partitions
}

/// A member that owns the only partition of a topic, with a session of ten minutes, of which the
/// coordinator hears nothing more while the fault is there. The fault goes first at the end of the
/// test, so that the member can leave.
pub async fn silent_member(broker: &Broker, group: &str, topic: &str) -> (FaultHandle, BaseConsumer) {
    let silence = Fault::StopReading.on(ApiKey::Heartbeat).of_group(group).always();
    let silence = broker.inject(silence).unwrap();
    let settings = [
        ("group.id", group),
        ("session.timeout.ms", "600000"),
        ("max.poll.interval.ms", "900000"),
        ("heartbeat.interval.ms", "50"),
        ("enable.auto.commit", "false"),
    ];
    let member = consumer(broker, &settings);
    member.subscribe(&[topic]).unwrap();
    poll_until(&[&member], || assigned(&member) == [0]);
    assert!(silence.wait_until_struck(1).await);
    (silence, member)
}

/// Whether a program that a test needs is there. Without it the test says so and ends; in CI its
/// absence is a failure.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
pub fn present(what: &str, probe: &mut Command) -> bool {
    let works = probe.output().is_ok_and(|output| output.status.success());
    if !works {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "{what} is missing, and CI=true requires it");
        eprintln!("skipped: {what} is not installed");
    }
    works
}

/// The interpreter for tests with kafka-python.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
pub fn python() -> String {
    std::env::var("ORDERFLOW_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Runs a program to its end and returns its output; panics when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

pub fn succeeded(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{errors}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
