//! A transactional copy job under fire: exactly one committed copy of each record.
//!
//! Workers of one group read a topic and copy it, offsets and copies in one transaction. Some
//! transactions are aborted, and some workers are killed in the middle of one: a worker is a child
//! process (this very test program), so that nothing of it can be closed properly. The seed of all
//! choices is printed, and taken from `ORDERFLOW_SEED` where that is set. It runs on devbroker, and
//! on the Apache Kafka that `ORDERFLOW_TEST_BROKER` names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod worker;

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use devbroker::{Broker, Options};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use worker::{Copier, Dice, Job, send, work};

const RECORDS: usize = 100_000;
const PARTITIONS: i32 = 12;
const WORKERS: usize = 3;
/// How many workers are killed before the rest may finish.
const KILLS: usize = 4;
/// For each part of the test. All of it takes half a minute where nothing else runs.
const DEADLINE: Duration = Duration::from_secs(90);
/// How often the test looks at what it waits for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest single call of a client.
const CALL: Duration = Duration::from_secs(10);

/// What a worker is told, over the environment.
const WORKER: &str = "ORDERFLOW_COPY_WORKER";

#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn now_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}

fn config(address: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// Fills the source; the value of each record is its number.
fn fill(address: &str, topic: &str) {
    let producer: Copier = config(
        address,
        &[
            ("enable.idempotence", "true"),
            ("compression.type", "lz4"),
            ("linger.ms", "20"),
        ],
    )
    .create()
    .unwrap();
    for number in 0..RECORDS {
        let value = number.to_string();
        let record = BaseRecord::to(topic)
            .partition(number as i32 % PARTITIONS)
            .key(&value)
            .payload(&value);
        send(&producer, record).unwrap();
    }
    producer.flush(CALL).unwrap();
}

/// A worker. It does not outlive the test.
struct Worker {
    child: Child,
    transactional_id: String,
}

impl Worker {
    fn start(job: &Job) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_worker_of_the_copy_job", "--nocapture"])
            .env(WORKER, job.words())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            transactional_id: job.transactional_id.clone(),
        }
    }

    fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How many workers died, by the test and by themselves.
#[derive(Debug, Default)]
struct Deaths {
    killed: usize,
    own: usize,
}

/// Lets workers copy everything, and kills some of them on the way.
fn run(job: &Job, dice: &mut Dice) -> Deaths {
    let began = Instant::now();
    // With read_committed it would wait for offsets that are always in some transaction.
    let settings = [
        ("group.id", job.group.as_str()),
        ("isolation.level", "read_uncommitted"),
    ];
    let observer: BaseConsumer = config(&job.address, &settings).create().unwrap();
    let mut deaths = Deaths::default();
    let mut lives = 0;
    let mut hire = |dice: &mut Dice, id: Option<String>| {
        lives += 1;
        let transactional_id = id.unwrap_or_else(|| format!("{}-{lives}", job.transactional_id));
        Worker::start(&Job {
            transactional_id,
            seed: dice.roll(u64::MAX >> 33) + 1,
            address: job.address.clone(),
            source: job.source.clone(),
            target: job.target.clone(),
            group: job.group.clone(),
        })
    };
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| hire(dice, None)).collect();
    loop {
        let copied = committed(&observer, &job.source);
        if copied == RECORDS {
            return deaths;
        }
        assert!(
            began.elapsed() < DEADLINE,
            "only {copied} records are copied after {deaths:?}"
        );
        // The kills are spread over the first two thirds of the work.
        if deaths.killed < KILLS && copied > RECORDS * 2 / 3 * deaths.killed / KILLS {
            let victim = dice.roll(WORKERS as u64) as usize;
            workers[victim].kill();
            deaths.killed += 1;
            // Its successor has its id, and ends its transaction at once, or one of its own.
            let id = (dice.roll(2) == 0).then(|| workers[victim].transactional_id.clone());
            workers[victim] = hire(dice, id);
        }
        for worker in &mut workers {
            if worker.is_dead() {
                deaths.own += 1;
                *worker = hire(dice, Some(worker.transactional_id.clone()));
            }
        }
        // It has no partitions: this only takes time.
        drop(observer.poll(LOOK_EVERY));
    }
}

fn all_partitions(topic: &str, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, offset).unwrap();
    }
    list
}

/// The records of the source that the group has behind it.
fn committed(observer: &BaseConsumer, source: &str) -> usize {
    let list = observer.committed_offsets(all_partitions(source, Offset::Invalid), CALL);
    list.unwrap()
        .elements()
        .iter()
        .filter_map(|one| one.offset().to_raw())
        .filter(|offset| *offset > 0)
        .sum::<i64>() as usize
}

/// Waits until no transaction is open on the topic.
fn until_stable(address: &str, topic: &str) {
    let reader = |isolation| -> BaseConsumer {
        config(address, &[("group.id", "unused"), ("isolation.level", isolation)])
            .create()
            .unwrap()
    };
    let (stable, high) = (reader("read_committed"), reader("read_uncommitted"));
    let began = Instant::now();
    for partition in 0..PARTITIONS {
        let end = |consumer: &BaseConsumer| consumer.fetch_watermarks(topic, partition, CALL).unwrap().1;
        while end(&stable) != end(&high) {
            assert!(
                began.elapsed() < DEADLINE,
                "a transaction stays open in partition {partition}"
            );
            drop(high.poll(LOOK_EVERY));
        }
    }
}

/// All copies of each value in the topic, read to its end: where they stand, and who wrote them.
fn copies(address: &str, topic: &str, isolation: &str) -> HashMap<Vec<u8>, Vec<String>> {
    let settings = [
        ("group.id", "unused"),
        ("isolation.level", isolation),
        ("enable.partition.eof", "true"),
        ("fetch.queue.backoff.ms", "5"),
    ];
    let consumer: BaseConsumer = config(address, &settings).create().unwrap();
    consumer
        .assign(&all_partitions(topic, Offset::Beginning))
        .unwrap();
    let mut copies: HashMap<_, Vec<_>> = HashMap::new();
    let mut open = PARTITIONS;
    let began = Instant::now();
    while open > 0 {
        assert!(began.elapsed() < DEADLINE, "the end of the copies does not come");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let by = record.headers().map(|headers| headers.get(0).value);
                let by = String::from_utf8_lossy(by.flatten().unwrap_or_default());
                copies
                    .entry(record.payload().unwrap_or_default().to_vec())
                    .or_default()
                    .push(format!("{}@{} by {by}", record.partition(), record.offset()));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    copies
}

async fn create_topics(address: &str, names: [&str; 2]) {
    let admin: AdminClient<DefaultClientContext> = config(address, &[]).create().unwrap();
    let topics = names.map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
    let made = admin.create_topics(&topics, &AdminOptions::new()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_copied_once_whoever_is_killed() {
    let seed = variable("ORDERFLOW_SEED").map_or_else(now_ms, |seed| seed.parse().unwrap()) as u64;
    println!("ORDERFLOW_SEED={seed}");
    let embedded = match variable("ORDERFLOW_TEST_BROKER") {
        Some(_) => None,
        None => Some(Broker::start(Options::default()).await.unwrap()),
    };
    let address = embedded.as_ref().map(|broker| broker.address().to_string());
    let address = address.or_else(|| variable("ORDERFLOW_TEST_BROKER")).unwrap();
    let name = |what: &str| format!("copy-{what}-{:x}-{:x}", now_ms(), std::process::id());
    let job = Job {
        address,
        source: name("source"),
        target: name("target"),
        group: name("group"),
        transactional_id: name("worker"),
        seed,
    };
    create_topics(&job.address, [&job.source, &job.target]).await;
    let checked = tokio::task::spawn_blocking(move || {
        // A generator of this kind stands still at 0.
        let mut dice = Dice(job.seed | 1);
        fill(&job.address, &job.source);
        let deaths = run(&job, &mut dice);
        until_stable(&job.address, &job.target);
        let committed = copies(&job.address, &job.target, "read_committed");
        let written = copies(&job.address, &job.target, "read_uncommitted");
        (deaths, committed, written)
    });
    let (deaths, committed, written) = checked.await.unwrap();
    let written_of = &written;
    let written: usize = written.values().map(Vec::len).sum();
    println!("{deaths:?}, {} copies were aborted", written - RECORDS);
    let mut repeated: Vec<_> = committed.iter().filter(|(_, copies)| copies.len() != 1).collect();
    repeated.truncate(20);
    for (value, copies) in &repeated {
        let value_text = String::from_utf8_lossy(value);
        println!(
            "{value_text}: committed {copies:?}, written {:?}",
            written_of.get(*value)
        );
    }
    assert_eq!(
        (committed.len(), repeated.len()),
        (RECORDS, 0),
        "records, and those of them that are there twice"
    );
    assert_eq!(deaths.killed, KILLS);
    assert!(written > RECORDS, "no copy was ever aborted: nothing was shown");
}

#[test]
#[ignore = "the child process of the copy job"]
fn a_worker_of_the_copy_job() {
    // Without the job this is a run of all ignored tests by hand.
    if let Some(words) = variable(WORKER) {
        work(&Job::of_words(&words));
    }
}
