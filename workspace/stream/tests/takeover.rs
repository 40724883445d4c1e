//! A worker that is killed leaves its transaction open. What stands behind it stays hidden until the
//! transaction's time-out, a minute here, unless its successor ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use service::{Process, ServiceInfo};
use stream::settings::dead_letter_topic;
use stream::worker::{Surroundings, WorkerSpec, run_handler};
use stream::{Failure, Handler, KafkaSettings, OutputTopic, Outputs, Record, Repeats, StreamSettings};
use testkit::{TestBroker, eventually};

const LIMIT: Duration = Duration::from_secs(30);
const INFO: ServiceInfo = ServiceInfo {
    name: "test",
    version: "0",
    admin_port: 0,
};

struct Copy;

impl Handler for Copy {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        outputs.send(
            OutputTopic(0),
            record.key.unwrap_or_default(),
            record.value.unwrap_or_default(),
        );
        Ok(())
    }
}

/// What the dead worker was doing when it died.
#[derive(Clone, Copy, PartialEq)]
enum Died {
    /// It had written an output.
    Writing,
    /// It had sent its offsets too, and was about to commit.
    Committing,
}

/// A worker of the same service, as Kafka sees it: it commits one record, and dies over the next one.
fn live_and_die(broker: &TestBroker, group: &str, input: &str, output: &str, died: Died) {
    let client = |settings: &[(&str, &str)]| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.address());
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config
    };
    let id = broker.name("orderflow-test-dead");
    let producer: BaseProducer = client(&[
        ("transactional.id", id.as_str()),
        ("transaction.timeout.ms", "60000"),
    ])
    .create()
    .unwrap();
    let member: BaseConsumer = client(&[("group.id", group)]).create().unwrap();
    let offsets = |next| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(input, 0, Offset::Offset(next)).unwrap();
        let mut elements = list.elements();
        elements[0].set_metadata(&id);
        list
    };
    let send = |value: &str| {
        let record = BaseRecord::to(output).partition(0).key("k").payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
    };
    let send_offsets = |next| {
        let metadata = member.group_metadata().unwrap();
        producer
            .send_offsets_to_transaction(&offsets(next), &metadata, LIMIT)
            .unwrap();
    };
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    send("0");
    send_offsets(1);
    producer.commit_transaction(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    send("1");
    if died == Died::Committing {
        send_offsets(2);
    }
    // A client that is dropped would say goodbye; a dead one does not. It would go on serving its
    // connections, and asks for nothing more.
    std::mem::forget(producer);
}

async fn successor_ends_it(died: Died) {
    let broker = TestBroker::start().await;
    let (input, output, group) = (broker.name("in"), broker.name("out"), broker.name("group"));
    let observer = broker.observer();
    for topic in [&input, &output, &dead_letter_topic(&input, &group)] {
        observer.create_topic(topic, 2).await;
    }
    for (partition, value) in [(0, "0"), (0, "1"), (0, "2"), (1, "3")] {
        observer
            .produce_with_headers(&input, Some(partition), b"k", value.as_bytes(), &[])
            .await;
    }
    let broker = {
        let (group, input, output) = (group.clone(), input.clone(), output.clone());
        tokio::task::spawn_blocking(move || {
            live_and_die(&broker, &group, &input, &output, died);
            broker
        })
        .await
        .unwrap()
    };
    let process = Process {
        instance: broker.name("successor"),
        ..Process::detached(INFO)
    };
    let spec = WorkerSpec {
        service: "test",
        group: group.clone(),
        inputs: vec![input.clone()],
        outputs: vec![output.clone()],
        events: "events".to_owned(),
        repeats: Repeats::Count,
    };
    let surroundings = Surroundings {
        process: process.clone(),
        kafka: KafkaSettings {
            brokers: broker.address().to_owned(),
            ..KafkaSettings::default()
        },
        stream: StreamSettings::default(),
    };
    let started = Instant::now();
    let worker = tokio::spawn(run_handler(spec, surroundings, || Copy));
    let values = || async {
        let records = observer.read_all(&output).await;
        let mut values: Vec<String> = records
            .into_iter()
            .map(|record| String::from_utf8(record.value.unwrap()).unwrap())
            .collect();
        values.sort();
        values
    };
    eventually(LIMIT, || async {
        let seen = values().await;
        if seen.len() >= 4 {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let hidden_for = started.elapsed();
    assert_eq!(
        values().await,
        ["0", "1", "2", "3"],
        "each once, nothing of the dead one's open work"
    );
    assert!(
        hidden_for < Duration::from_secs(20),
        "hidden for {hidden_for:?}: the time-out was waited for"
    );
    println!("outputs behind the dead worker's transaction were hidden for {hidden_for:?}");
    process.shutdown.request("the test is over");
    worker.await.unwrap().expect("stops cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_wrote_before_it_was_killed_is_ended_by_its_successor() {
    successor_ends_it(Died::Writing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_a_killed_worker_was_about_to_commit_are_ended_by_its_successor() {
    successor_ends_it(Died::Committing).await;
}
