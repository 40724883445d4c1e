//! Workers on a real broker protocol: on the embedded broker, and on real Kafka where
//! `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use service::Process;
use stream::worker::{Surroundings, WorkerSpec, run_concurrent, run_handler, run_sink};
use stream::{
    ConcurrentHandler, Failure, Handler, LastWord, OutputRecord, OutputTopic, Outputs, Record, Repeats, Sink,
    StreamError, StreamSettings, TopicIndex,
};
use support::{Bench, INFO, LIMIT, Running};
use testkit::eventually;
use tokio::sync::Semaphore;

fn numbered(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect()
}

/// Copies every record; values that are no number are poison.
struct Copy;

impl Handler for Copy {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        let value = record.value.unwrap_or_default();
        // Sent before the check on purpose: outputs before an error count for nothing.
        outputs.send(OutputTopic(0), record.key.unwrap_or_default(), value);
        let text = std::str::from_utf8(value).unwrap_or("?");
        text.parse::<u64>()
            .map(|_| ())
            .map_err(|_| Failure::poison("no_number", format!("`{text}` is no number")))
    }
}

fn start_copy(bench: &Bench, change: impl FnOnce(&mut StreamSettings)) -> Running {
    start_copy_of(bench.spec(), bench, change)
}

/// As [`start_copy`], where a key names one thing.
fn start_copy_of_firsts(bench: &Bench) -> Running {
    let spec = WorkerSpec {
        repeats: Repeats::EndOrDeadLetter(Arc::new(|record| record.key != Some(b"unnamed"))),
        ..bench.spec()
    };
    start_copy_of(spec, bench, |_| ())
}

fn start_copy_of(spec: WorkerSpec, bench: &Bench, change: impl FnOnce(&mut StreamSettings)) -> Running {
    let surroundings = bench.surroundings(change);
    let process = surroundings.process.clone();
    Running {
        process,
        task: tokio::spawn(run_handler(spec, surroundings, || Copy)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_ends_as_output_or_dead_letter_and_is_committed() {
    let bench = Bench::new(3).await;
    let mut records = numbered(500);
    records.insert(250, ("bad".to_owned(), "poison".to_owned()));
    bench.produce(&records).await;
    let worker = start_copy(&bench, |_| ());
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");

    let inputs = bench.observer.read_all(&bench.input).await;
    let outputs = bench.observer.read_all(&bench.output).await;
    let place = |record: &testkit::Record| (record.partition, record.key.clone(), record.value.clone());
    let wanted: Vec<_> = inputs
        .iter()
        .filter(|record| record.key.as_deref() != Some(b"bad"))
        .map(place)
        .collect();
    assert_eq!(
        outputs.iter().map(place).collect::<Vec<_>>(),
        wanted,
        "key, value and partition of the input, in order"
    );
    let sources: Vec<String> = outputs
        .iter()
        .map(|record| header(record, "source-offset"))
        .collect();
    let offsets: Vec<String> = inputs
        .iter()
        .filter(|record| record.key.as_deref() != Some(b"bad"))
        .map(|record| record.offset.to_string())
        .collect();
    assert_eq!(sources, offsets);

    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    assert_eq!(letters.len(), 1);
    let bad = inputs
        .iter()
        .find(|record| record.key.as_deref() == Some(b"bad"))
        .unwrap();
    assert_eq!(place(&letters[0]), place(bad), "the original key and bytes");
    assert_eq!(header(&letters[0], "dlq-error-code"), "no_number");
    assert_eq!(header(&letters[0], "dlq-error"), "`poison` is no number");
    assert_eq!(header(&letters[0], "dlq-offset"), bad.offset.to_string());
    assert_eq!(header(&letters[0], "dlq-group"), bench.group);
}

fn header(record: &testkit::Record, name: &str) -> String {
    let found = record.headers.iter().find(|(key, _)| key == name);
    let value = &found.unwrap_or_else(|| panic!("no header `{name}`")).1;
    String::from_utf8(value.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_goes_on_where_the_first_one_ended() {
    let bench = Bench::new(2).await;
    bench.produce(&numbered(100)).await;
    let first = start_copy(&bench, |_| ());
    bench.all_committed().await;
    first.stop().await.expect("stops cleanly");
    let more: Vec<_> = (100..150)
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect();
    bench.produce(&more).await;
    let second = start_copy(&bench, |_| ());
    bench.all_committed().await;
    second.stop().await.expect("stops cleanly");
    let values = bench.output_values().await;
    assert_eq!(values.len(), 150, "nothing is done twice after a clean stop");
    assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), 150);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_transactional_id_is_taken_over_ends_and_its_successor_doubles_nothing() {
    let bench = Bench::new(3).await;
    bench.produce(&numbered(50)).await;
    let surroundings = bench.surroundings(|_| ());
    let start = || {
        // The shutdown and the metrics are their own; the name is the same.
        let process = Process {
            instance: surroundings.process.instance.clone(),
            ..Process::detached(INFO)
        };
        let surroundings = Surroundings {
            process: process.clone(),
            ..surroundings.clone()
        };
        Running {
            process,
            task: tokio::spawn(run_handler(bench.spec(), surroundings, || Copy)),
        }
    };
    let first = start();
    bench.all_committed().await;
    let second = start();
    // The first hears of it when it commits again.
    let mut total = 50;
    while !first.task.is_finished() {
        assert!(total < 10_000, "two workers of one name live side by side");
        let records: Vec<_> = (total..total + 10)
            .map(|number| (format!("key-{number}"), number.to_string()))
            .collect();
        bench.produce(&records).await;
        bench.all_committed().await;
        total += 10;
    }
    let ended = first.task.await.expect("does not panic").expect_err("is fenced");
    assert!(matches!(ended, StreamError::Fenced { .. }), "{ended}");
    bench.all_committed().await;
    second.stop().await.expect("stops cleanly");
    let mut values: Vec<u64> = bench
        .output_values()
        .await
        .iter()
        .map(|value| value.parse().unwrap())
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..total).collect::<Vec<_>>());
}

/// Holds records back until the test lets them go.
#[derive(Default)]
struct Gate {
    closed: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    started: AtomicUsize,
    failing: AtomicBool,
}

impl Gate {
    fn hold(&self, value: &str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.closed
            .lock()
            .unwrap()
            .insert(value.to_owned(), Arc::clone(&gate));
        gate
    }
}

struct Gated(Arc<Gate>);

impl ConcurrentHandler for Gated {
    type Job = (Vec<u8>, String);

    fn decode(&self, record: &Record<'_>) -> Result<Self::Job, Failure> {
        let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        if value == "poison" {
            return Err(Failure::poison("poison", "asked for"));
        }
        Ok((record.key.unwrap_or_default().to_vec(), value))
    }

    async fn attempt(&self, (key, value): &Self::Job, _: u32) -> Result<Vec<OutputRecord>, Failure> {
        self.0.started.fetch_add(1, Ordering::SeqCst);
        let gate = self.0.closed.lock().unwrap().get(value).cloned();
        if let Some(gate) = gate {
            gate.acquire().await.expect("never closed").forget();
        }
        if value.starts_with("fail") && self.0.failing.load(Ordering::SeqCst) {
            return Err(Failure::transient("away", "the other side is away"));
        }
        Ok(vec![OutputRecord {
            topic: OutputTopic(0),
            key: key.clone(),
            value: value.clone().into_bytes(),
        }])
    }

    async fn give_up(&self, (key, value): &Self::Job, attempts: u32) -> Result<LastWord, Failure> {
        assert!(attempts > 1, "it was tried again");
        Ok(LastWord::GaveUp(vec![OutputRecord {
            topic: OutputTopic(0),
            key: key.clone(),
            value: format!("gave up {value}").into_bytes(),
        }]))
    }
}

fn start_gated(bench: &Bench, gate: &Arc<Gate>, change: impl FnOnce(&mut StreamSettings)) -> Running {
    let surroundings = bench.surroundings(change);
    let process = surroundings.process.clone();
    let handler = Arc::new(Gated(Arc::clone(gate)));
    Running {
        process,
        task: tokio::spawn(run_concurrent(bench.spec(), surroundings, handler)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_record_holds_back_the_commits_of_its_own_partition_and_nothing_else() {
    let bench = Bench::new(2).await;
    let gate = Arc::new(Gate::default());
    let slow = gate.hold("slow");
    for (partition, value) in [(0, "slow"), (0, "after-slow"), (1, "other"), (1, "another")] {
        bench
            .observer
            .produce_with_headers(&bench.input, Some(partition), b"k", value.as_bytes(), &[])
            .await;
    }
    let worker = start_gated(&bench, &gate, |_| ());
    eventually(LIMIT, || async {
        bench.observer.committed(&bench.group, &bench.input).await.get(&1) == Some(&2)
    })
    .await;
    // Reading goes on behind the slow record.
    eventually(LIMIT, || async { gate.started.load(Ordering::SeqCst) == 4 }).await;
    assert_eq!(bench.output_values().await, ["other", "another"]);
    assert!(
        !bench
            .observer
            .committed(&bench.group, &bench.input)
            .await
            .contains_key(&0)
    );
    slow.add_permits(1);
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(
        bench.output_values().await,
        ["slow", "after-slow", "other", "another"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_what_is_in_flight_finish() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(Gate::default());
    let last = gate.hold("1");
    bench.produce(&numbered(2)).await;
    let worker = start_gated(&bench, &gate, |_| ());
    eventually(LIMIT, || async { gate.started.load(Ordering::SeqCst) == 2 }).await;
    worker.process.shutdown.request("the test wants it");
    eventually(LIMIT, || async {
        worker.process.health.not_ready_reason().is_some()
    })
    .await;
    last.add_permits(1);
    worker.stop().await.expect("stops cleanly");
    bench.all_committed().await;
    assert_eq!(bench.output_values().await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_past_its_deadline_leaves_the_record_to_the_next_owner() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(Gate::default());
    let stuck = gate.hold("1");
    bench.produce(&numbered(2)).await;
    let worker = start_gated(&bench, &gate, |stream| stream.drain_timeout_ms = 200);
    eventually(LIMIT, || async { gate.started.load(Ordering::SeqCst) == 2 }).await;
    worker.stop().await.expect("stops at its deadline");
    assert_eq!(
        bench.observer.committed(&bench.group, &bench.input).await.get(&0),
        Some(&1)
    );
    stuck.add_permits(10);
    let next = start_gated(&bench, &gate, |_| ());
    bench.all_committed().await;
    next.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_are_used_up_end_in_the_last_word_and_a_dead_letter() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(Gate {
        failing: AtomicBool::new(true),
        ..Gate::default()
    });
    let records = ["0", "fail", "poison", "3"].map(|value| ("k".to_owned(), value.to_owned()));
    bench.produce(&records).await;
    let worker = start_gated(&bench, &gate, |stream| {
        stream.retry_deadline_ms = 300;
        stream.retry_first_ms = 20;
    });
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await, ["0", "gave up fail", "3"]);
    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    let codes: Vec<String> = letters
        .iter()
        .map(|letter| header(letter, "dlq-error-code"))
        .collect();
    assert_eq!(codes, ["away", "poison"]);
    assert!(header(&letters[0], "dlq-attempts").parse::<u32>().unwrap() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_budget_pauses_reading_and_goes_on_when_there_is_room() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(Gate::default());
    let head = gate.hold("0");
    bench.produce(&numbered(500)).await;
    let worker = start_gated(&bench, &gate, |stream| {
        stream.budget_records = 50;
        stream.batch_records = 10;
    });
    eventually(LIMIT, || async {
        metric(&worker.process, "orderflow_partition_pauses_total") > 0.0
    })
    .await;
    let started = gate.started.load(Ordering::SeqCst);
    assert!(
        started <= 70,
        "{started} started with a budget of 50 and batches of 10"
    );
    head.add_permits(1);
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    let wanted: Vec<String> = (0..500).map(|number: usize| number.to_string()).collect();
    assert_eq!(bench.output_values().await, wanted);
}

/// A store in memory that can be away and that refuses what it is told to.
#[derive(Default)]
struct Memory {
    away: AtomicBool,
    asked: AtomicUsize,
    items: Mutex<Vec<String>>,
}

struct Keep(Arc<Memory>);

impl Sink for Keep {
    type Item = String;

    fn prepare(&self, _: TopicIndex, record: &Record<'_>) -> Result<String, Failure> {
        let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        if value == "poison" {
            return Err(Failure::poison("poison", "can not be prepared"));
        }
        Ok(value)
    }

    async fn write(&self, items: &[&String]) -> Result<Vec<(usize, Failure)>, Failure> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Failure::transient("store_away", "the store is away"));
        }
        let mut refused = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if *item == "refused" {
                refused.push((index, Failure::poison("refused", "the store does not want it")));
            } else {
                self.0.items.lock().unwrap().push((*item).clone());
            }
        }
        Ok(refused)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_delays_documents_and_loses_none() {
    let bench = Bench::new(1).await;
    let memory = Arc::new(Memory {
        away: AtomicBool::new(true),
        ..Memory::default()
    });
    let mut records = numbered(300);
    records.insert(10, ("k".to_owned(), "refused".to_owned()));
    records.insert(20, ("k".to_owned(), "poison".to_owned()));
    bench.produce(&records).await;
    let surroundings = bench.surroundings(|_| ());
    let process = surroundings.process.clone();
    let task = tokio::spawn(run_sink(
        bench.spec(),
        surroundings,
        Arc::new(Keep(Arc::clone(&memory))),
    ));
    let worker = Running { process, task };
    eventually(LIMIT, || async { memory.asked.load(Ordering::SeqCst) >= 3 }).await;
    assert!(
        bench
            .observer
            .committed(&bench.group, &bench.input)
            .await
            .is_empty(),
        "nothing is stored yet"
    );
    assert!(metric(&worker.process, "orderflow_waiting_state") > 0.0);
    memory.away.store(false, Ordering::SeqCst);
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    let wanted: Vec<String> = (0..300).map(|number: usize| number.to_string()).collect();
    assert_eq!(*memory.items.lock().unwrap(), wanted);
    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    let codes: BTreeSet<String> = letters
        .iter()
        .map(|letter| header(letter, "dlq-error-code"))
        .collect();
    assert_eq!(codes, BTreeSet::from(["poison".to_owned(), "refused".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_topics_and_begins_when_they_are_there() {
    let bench = Bench::without_topics().await;
    let worker = start_copy(&bench, |_| ());
    bench.observer.create_topic(&bench.input, 1).await;
    bench.produce(&numbered(10)).await;
    assert!(
        worker.process.health.not_ready_reason().is_some(),
        "not ready while a topic is missing"
    );
    bench.observer.create_topic(&bench.output, 1).await;
    bench.observer.create_topic(&bench.dead_letters(), 1).await;
    bench.all_committed().await;
    assert_eq!(worker.process.health.not_ready_reason(), None);
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_topic_with_too_few_partitions_is_refused_at_start() {
    let bench = Bench::without_topics().await;
    bench.observer.create_topic(&bench.input, 3).await;
    bench.observer.create_topic(&bench.output, 2).await;
    bench.observer.create_topic(&bench.dead_letters(), 3).await;
    let worker = start_copy(&bench, |_| ());
    let error = tokio::time::timeout(LIMIT, worker.task)
        .await
        .expect("in time")
        .expect("no panic")
        .expect_err("refused");
    assert!(
        matches!(
            error,
            StreamError::TooFewPartitions {
                partitions: 2,
                wanted: 3,
                ..
            }
        ),
        "{error}"
    );
}

/// Transaction markers stand at the end of a partition like records and are never given to a reader.
/// Real Kafka alone, until the embedded broker serves transactions.
#[tokio::test(flavor = "multi_thread")]
async fn the_gap_of_a_transaction_marker_is_passed_and_no_lag_stays_behind() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    let bench = Bench::new(1).await;
    if bench.broker.engine() != "kafka" {
        eprintln!("skipped: the embedded broker serves no transactions yet");
        return;
    }
    let (address, topic, id) = (
        bench.broker.address().to_owned(),
        bench.input.clone(),
        bench.broker.name("txn"),
    );
    let produced = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("transactional.id", id)
            .create()
            .expect("a producer");
        producer.init_transactions(LIMIT).expect("initialised");
        for value in ["1", "2"] {
            producer.begin_transaction().expect("begun");
            producer
                .send(BaseRecord::to(&topic).key("k").payload(value))
                .expect("queued");
            producer.commit_transaction(LIMIT).expect("committed");
        }
        producer.begin_transaction().expect("begun");
        producer
            .send(BaseRecord::to(&topic).key("k").payload("3"))
            .expect("queued");
        producer.flush(LIMIT).expect("flushed");
        producer.abort_transaction(LIMIT).expect("aborted");
    });
    produced.await.expect("produces");
    let worker = start_copy(&bench, |_| ());
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(
        bench.output_values().await,
        ["1", "2"],
        "what was aborted is not read"
    );
}

/// Where a partition has been read to its end, a rebalance must not make the client skip what comes next.
#[tokio::test(flavor = "multi_thread")]
async fn idle_partitions_lose_nothing_when_a_member_joins() {
    let bench = Bench::new(6).await;
    for partition in 0..6 {
        bench
            .observer
            .produce_with_headers(&bench.input, Some(partition), b"k", b"1", &[])
            .await;
    }
    let first = start_copy(&bench, |_| ());
    bench.all_committed().await;
    let second = start_copy(&bench, |_| ());
    eventually(LIMIT, || async {
        metric(&second.process, "orderflow_rebalances_total") > 0.0
    })
    .await;
    for partition in 0..6 {
        bench
            .observer
            .produce_with_headers(&bench.input, Some(partition), b"k", b"2", &[])
            .await;
    }
    bench.all_committed().await;
    first.stop().await.expect("leaves cleanly");
    second.stop().await.expect("leaves cleanly");
    let mut values = bench.output_values().await;
    values.sort();
    assert_eq!(values, [["1"; 6], ["2"; 6]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pumps_in_one_process_share_the_work_and_all_of_them_leave() {
    let bench = Bench::new(4).await;
    bench.produce(&numbered(400)).await;
    let worker = start_copy(&bench, |stream| stream.pumps = 3);
    bench.all_committed().await;
    worker.stop().await.expect("all pumps leave");
    // Members that had not left would hold their partitions until their session times out (6 s).
    let started = std::time::Instant::now();
    bench.produce(&[("k".to_owned(), "400".to_owned())]).await;
    let next = start_copy(&bench, |_| ());
    bench.all_committed().await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    next.stop().await.expect("stops cleanly");
    let values: BTreeSet<u64> = bench
        .output_values()
        .await
        .iter()
        .map(|value| value.parse().unwrap())
        .collect();
    assert_eq!(values, (0..=400).collect());
}

/// Panics on one record.
struct Panicking;

impl ConcurrentHandler for Panicking {
    type Job = ();

    fn decode(&self, _: &Record<'_>) -> Result<(), Failure> {
        Ok(())
    }

    async fn attempt(&self, (): &(), _: u32) -> Result<Vec<OutputRecord>, Failure> {
        panic!("the test wants it")
    }

    async fn give_up(&self, (): &(), _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(Vec::new()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_ends_the_worker_and_commits_nothing() {
    let bench = Bench::new(1).await;
    bench.produce(&numbered(1)).await;
    let surroundings = bench.surroundings(|_| ());
    let ended = run_concurrent(bench.spec(), surroundings, Arc::new(Panicking));
    let error = tokio::time::timeout(LIMIT, ended)
        .await
        .expect("in time")
        .expect_err("it can not go on");
    assert!(matches!(error, StreamError::Halted { .. }), "{error}");
    assert!(
        bench
            .observer
            .committed(&bench.group, &bench.input)
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_hangs_is_bounded() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(Gate::default());
    let _never = gate.hold("hangs");
    bench.produce(&[("k".to_owned(), "hangs".to_owned())]).await;
    let worker = start_gated(&bench, &gate, |stream| {
        stream.attempt_timeout_ms = 50;
        stream.retry_deadline_ms = 200;
        stream.retry_first_ms = 10;
    });
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await, ["gave up hangs"]);
    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    assert_eq!(header(&letters[0], "dlq-error-code"), "attempt_timeout");
}

/// Produces the same records again and again, near and far apart, with a record of its own in between.
fn with_repeats(count: usize) -> Vec<(String, String)> {
    let mut records = Vec::new();
    for number in 0..count {
        let record = (format!("key-{number}"), number.to_string());
        records.push(record.clone());
        if number % 20 == 0 {
            records.push(record);
        }
        if number >= 100 && number % 20 == 10 {
            let earlier = number - 100;
            records.push((format!("key-{earlier}"), earlier.to_string()));
        }
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_record_has_its_effect_once_also_over_restarts_and_rebalances() {
    let bench = Bench::new(3).await;
    let records = with_repeats(600);
    let (early, late) = records.split_at(records.len() / 3);
    bench.produce(early).await;
    let first = start_copy_of_firsts(&bench);
    bench.all_committed().await;
    first.stop().await.expect("stops cleanly");
    // A new process knows what was settled before, and a second one takes half of it over.
    let (middle, late) = late.split_at(late.len() / 2);
    let second = start_copy_of_firsts(&bench);
    bench.produce(middle).await;
    let third = start_copy_of_firsts(&bench);
    eventually(LIMIT, || async {
        metric(&third.process, "orderflow_rebalances_total") > 0.0
    })
    .await;
    bench.produce(late).await;
    bench.all_committed().await;
    second.stop().await.expect("stops cleanly");
    third.stop().await.expect("stops cleanly");
    let mut values: Vec<usize> = bench
        .output_values()
        .await
        .iter()
        .map(|value| value.parse().unwrap())
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..600).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_with_other_content_becomes_a_dead_letter_and_a_mended_record_counts() {
    let bench = Bench::new(1).await;
    let records = [
        ("a", "1"),
        ("a", "2"),
        ("b", "poison"),
        ("b", "3"),
        ("b", "3"),
        // Keys of a foreign producer name nothing.
        ("unnamed", "4"),
        ("unnamed", "5"),
    ];
    let records = records.map(|(key, value)| (key.to_owned(), value.to_owned()));
    bench.produce(&records).await;
    let worker = start_copy_of_firsts(&bench);
    bench.all_committed().await;
    assert_eq!(metric(&worker.process, "orderflow_repeated_records_total"), 2.0);
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await, ["1", "3", "4", "5"]);
    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    let told: Vec<_> = letters
        .iter()
        .map(|letter| (header(letter, "dlq-error-code"), header(letter, "dlq-offset")))
        .collect();
    let wanted = [("no_number", "2"), ("conflicting_repeat", "1")];
    let wanted = wanted.map(|(code, offset)| (code.to_owned(), offset.to_owned()));
    let mut told = told;
    told.sort_by_key(|(code, _)| std::cmp::Reverse(code.clone()));
    assert_eq!(told, wanted);
}
