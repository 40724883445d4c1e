//! A broker that is killed again and again while a producer writes: every record that was acknowledged
//! is there afterwards, once, in order.
//!
//! The broker runs in a process of its own, which is this test's program again; `serve` is its part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use devbroker::{Broker, DataOptions, Options};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const KILLS: usize = 25;
const PARTITIONS: i32 = 3;
const FOLDER: &str = "DEVBROKER_TEST_FOLDER";
const LISTEN: &str = "DEVBROKER_TEST_LISTEN";
const PATIENCE: Duration = Duration::from_secs(120);

/// The broker's process. Does nothing where the test did not start it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test in this file starts it in a process of its own"]
#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
async fn serve() {
    let (Ok(folder), Ok(listen)) = (std::env::var(FOLDER), std::env::var(LISTEN)) else {
        return;
    };
    let options = Options {
        listen: listen.parse().unwrap(),
        data: Some(DataOptions {
            segment_bytes: 16 * 1024,
            ..DataOptions::new(folder)
        }),
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    if broker.stats().topics == 0 {
        broker.create_topic("orders", PARTITIONS).unwrap();
    }
    println!("listening on {}", broker.address());
    std::future::pending::<()>().await;
}

/// The process, and where it listens.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(folder: &Path, listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(LISTEN, listen)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.map(|line| line.unwrap()).find_map(|line| {
            let address = line
                .split_once("listening on ")
                .map(|(_, address)| address.to_owned());
            address.map(|address| address.parse().unwrap())
        });
        Self {
            child,
            address: told.expect("the broker's process ended before it listened"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn producer(address: SocketAddr) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address.to_string());
    for (key, value) in [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.timeout.ms", "100000"),
        ("reconnect.backoff.ms", "5"),
        ("reconnect.backoff.max.ms", "20"),
        ("retry.backoff.ms", "5"),
        ("batch.num.messages", "20"),
        ("linger.ms", "1"),
    ] {
        config.set(key, value);
    }
    config.create().unwrap()
}

/// Sends numbers until it is told to stop, at most 500 ahead of the acknowledgements.
async fn write(producer: FutureProducer, acknowledged: Arc<AtomicUsize>, until: Arc<AtomicUsize>) -> usize {
    let mut open = std::collections::VecDeque::new();
    let mut sent = 0;
    while acknowledged.load(Ordering::SeqCst) < until.load(Ordering::SeqCst) {
        while open.len() < 500 {
            let value = sent.to_string();
            let partition = sent as i32 % PARTITIONS;
            let record = FutureRecord::<(), _>::to("orders")
                .partition(partition)
                .payload(&value);
            open.push_back(producer.send_result(record).map_err(|(error, _)| error).unwrap());
            sent += 1;
        }
        let delivery = open.pop_front().unwrap();
        delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    producer.flush(PATIENCE).unwrap();
    for delivery in open {
        delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
    sent
}

/// The values of a partition, up to its end.
fn values(address: SocketAddr, partition: i32) -> Vec<usize> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address.to_string())
        .set("group.id", "none");
    let consumer: BaseConsumer = config.create().unwrap();
    let (_, end) = consumer.fetch_watermarks("orders", partition, PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", partition, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut values = Vec::new();
    while values.len() < usize::try_from(end).unwrap() {
        assert!(Instant::now() < deadline, "the records did not come in time");
        if let Some(record) = consumer.poll(Duration::from_millis(50)) {
            let record = record.unwrap();
            assert_eq!(record.offset(), i64::try_from(values.len()).unwrap());
            values.push(
                std::str::from_utf8(record.payload().unwrap())
                    .unwrap()
                    .parse()
                    .unwrap(),
            );
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_has_every_acknowledged_record_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), "127.0.0.1:0");
    let address = process.address;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let until = Arc::new(AtomicUsize::new(usize::MAX));
    let writer = tokio::spawn(write(
        producer(address),
        Arc::clone(&acknowledged),
        Arc::clone(&until),
    ));
    // The points are spread by a multiplicative step, so that they fall at other places of a request.
    let mut step = 7_usize;
    for _ in 0..KILLS {
        step = step * 31 % 397;
        let target = acknowledged.load(Ordering::SeqCst) + 1 + step;
        let deadline = Instant::now() + PATIENCE;
        while acknowledged.load(Ordering::SeqCst) < target {
            assert!(
                Instant::now() < deadline && !writer.is_finished(),
                "the producer does not get on"
            );
            tokio::task::yield_now().await;
        }
        drop(process);
        process = Process::start(folder.path(), &address.to_string());
    }
    until.store(0, Ordering::SeqCst);
    let sent = writer.await.unwrap();
    // What the last process has only in its memory does not count.
    drop(process);
    let process = Process::start(folder.path(), &address.to_string());
    for partition in 0..PARTITIONS {
        let expected: Vec<usize> = (0..sent)
            .filter(|value| *value as i32 % PARTITIONS == partition)
            .collect();
        assert_eq!(values(process.address, partition), expected);
    }
}
