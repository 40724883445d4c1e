//! A broker that is killed again and again while a producer writes: every record that was acknowledged
//! is there afterwards, once, in order, and every transaction whole or not at all, its records and its
//! offset alike.
//!
//! The broker runs in a process of its own, which is this test's program again; `serve` is
//! its part.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use devbroker::{Broker, DataOptions, Options};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::time::timeout;

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

fn producer(address: SocketAddr, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address.to_string());
    let common = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("reconnect.backoff.ms", "5"),
        ("reconnect.backoff.max.ms", "20"),
        ("retry.backoff.ms", "5"),
        ("batch.num.messages", "20"),
        ("linger.ms", "1"),
    ];
    for (key, value) in common.iter().chain(settings) {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// Sends numbers until it is told to stop, at most 500 ahead of the acknowledgements.
async fn write(producer: FutureProducer, acknowledged: watch::Sender<usize>, stop: Arc<AtomicBool>) -> usize {
    let mut open = std::collections::VecDeque::new();
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
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
        acknowledged.send_modify(|count| *count += 1);
    }
    producer.flush(PATIENCE).unwrap();
    for delivery in open {
        delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
    sent
}

/// What has come of a transaction, as far as its producer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Committed,
    Aborted,
    /// An error kept the producer from hearing it.
    Nothing,
}

/// Runs transactions that write their number to each partition, and commit it in a group of their
/// own, until it is told to stop. A producer
/// that met an error is given up, and a new one with its transactional id begun.
async fn transact(address: SocketAddr, progress: watch::Sender<usize>, stop: Arc<AtomicBool>) -> Vec<Known> {
    let mut known = Vec::new();
    let mut present: Option<FutureProducer> = None;
    while !stop.load(Ordering::SeqCst) {
        let producer = present.take().unwrap_or_else(|| transactional(address));
        let number = known.len();
        let outcome = one_transaction(address, &producer, number).await;
        if outcome.is_ok() {
            present = Some(producer);
        }
        known.push(outcome.unwrap_or(Known::Nothing));
        progress.send_modify(|count| *count += 1);
    }
    // Whoever begins with the id finds the last transaction ended.
    drop(present);
    drop(transactional(address));
    known
}

fn transactional(address: SocketAddr) -> FutureProducer {
    let settings = [("transactional.id", "worker"), ("message.timeout.ms", "30000")];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let producer = producer(address, &settings);
        match producer.init_transactions(PATIENCE) {
            Ok(()) => return producer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn one_transaction(
    address: SocketAddr,
    producer: &FutureProducer,
    number: usize,
) -> Result<Known, KafkaError> {
    let value = number.to_string();
    producer.begin_transaction()?;
    let mut open = Vec::new();
    for partition in 0..PARTITIONS {
        let record = FutureRecord::<(), _>::to("orders")
            .partition(partition)
            .payload(&value);
        open.push(producer.send_result(record).map_err(|(error, _)| error)?);
    }
    for delivery in open {
        delivery.await.unwrap().map_err(|(error, _)| error)?;
    }
    let group = consumer(address, &group(number)).group_metadata().unwrap();
    producer.send_offsets_to_transaction(&position(number), &group, PATIENCE)?;
    if number % 4 == 3 {
        producer.abort_transaction(PATIENCE)?;
        Ok(Known::Aborted)
    } else {
        producer.commit_transaction(PATIENCE)?;
        Ok(Known::Committed)
    }
}

/// The group in which a transaction commits. No two share one, so that no offset hides the loss of
/// one before it.
fn group(number: usize) -> String {
    format!("group-{number}")
}

fn position(number: usize) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Offset(number as i64))
        .unwrap();
    list
}

/// The offset that the group of a transaction has.
fn committed(address: SocketAddr, number: usize) -> Offset {
    let consumer = consumer(address, &group(number));
    let found = consumer.committed_offsets(position(number), PATIENCE).unwrap();
    found.find_partition("orders", 0).unwrap().offset()
}

/// A reader of committed records.
fn consumer(address: SocketAddr, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address.to_string());
    for (key, value) in [
        ("group.id", group),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
    ] {
        config.set(key, value);
    }
    config.create().unwrap()
}

/// The values of a partition that a reader of committed records sees, up to its end.
fn values(address: SocketAddr, partition: i32) -> Vec<usize> {
    let consumer = consumer(address, "none");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", partition, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut values = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "the records did not come in time");
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return values,
            Some(record) => {
                let record = record.unwrap();
                values.push(
                    std::str::from_utf8(record.payload().unwrap())
                        .unwrap()
                        .parse()
                        .unwrap(),
                );
            }
        }
    }
}

/// Kills the process and starts it again, each time a little further in the work that `progress` counts.
async fn kill_again_and_again(
    mut process: Process,
    folder: &Path,
    longest_step: usize,
    mut progress: watch::Receiver<usize>,
) -> Process {
    let address = process.address;
    // A multiplicative step spreads the kills over the work, at the same places in each run.
    let mut step = 7_usize;
    for _ in 0..KILLS {
        step = step * 31 % 397;
        let target = *progress.borrow() + 1 + step % longest_step;
        let reached = timeout(PATIENCE, progress.wait_for(|count| *count >= target)).await;
        drop(
            reached
                .expect("the producer does not get on")
                .expect("the producer ended"),
        );
        drop(process);
        process = Process::start(folder, &address.to_string());
    }
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_has_every_acknowledged_record_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), "127.0.0.1:0");
    let address = process.address;
    let (acknowledged, progress) = watch::channel(0);
    let stop = Arc::new(AtomicBool::new(false));
    let producer = producer(address, &[("message.timeout.ms", "100000")]);
    let writer = tokio::spawn(write(producer, acknowledged, Arc::clone(&stop)));
    let process = kill_again_and_again(process, folder.path(), 397, progress).await;
    stop.store(true, Ordering::SeqCst);
    let sent = writer.await.unwrap();
    // What the last process has only in its memory does not count.
    drop(process);
    let process = Process::start(folder.path(), &address.to_string());
    for partition in 0..PARTITIONS {
        let mine = (0..sent).filter(|value| *value as i32 % PARTITIONS == partition);
        assert_eq!(values(process.address, partition), mine.collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_has_every_transaction_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), "127.0.0.1:0");
    let address = process.address;
    let (ended, progress) = watch::channel(0);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(transact(address, ended, Arc::clone(&stop)));
    let process = kill_again_and_again(process, folder.path(), 11, progress).await;
    stop.store(true, Ordering::SeqCst);
    let known = writer.await.unwrap();
    drop(process);
    let process = Process::start(folder.path(), &address.to_string());
    let seen = values(process.address, 0);
    assert!(
        seen.windows(2).all(|pair| pair[0] < pair[1]),
        "once, in order: {seen:?}"
    );
    for partition in 1..PARTITIONS {
        assert_eq!(
            values(process.address, partition),
            seen,
            "in each partition or in none"
        );
    }
    for (number, known) in known.iter().enumerate() {
        let expected = if seen.contains(&number) {
            Offset::Offset(number as i64)
        } else {
            Offset::Invalid
        };
        assert_eq!(
            committed(process.address, number),
            expected,
            "the offset of {number} goes with its records"
        );
        match known {
            Known::Committed => assert!(seen.contains(&number), "{number} was committed"),
            Known::Aborted => assert!(!seen.contains(&number), "{number} was aborted"),
            Known::Nothing => {}
        }
    }
}
