//! What goes wrong at each step of a transaction, and what readers of committed records see afterwards:
//! every record once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};
use service::{Process, ServiceInfo};
use stream::settings::dead_letter_topic;
use stream::worker::{Surroundings, WorkerSpec, run_concurrent, run_handler};
use stream::{
    ConcurrentHandler, Failure, Handler, KafkaSettings, LastWord, OutputRecord, OutputTopic, Outputs, Record,
    Repeats, StreamError, StreamSettings,
};
use testkit::devbroker::{self, ApiKey, Fault, FaultHandle, ResponseError};
use testkit::{Observer, TestBroker, eventually};
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);
const RECORDS: usize = 300;
const INFO: ServiceInfo = ServiceInfo {
    name: "test",
    version: "0",
    admin_port: 0,
};

/// Answers at once: its outputs are published while it runs.
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

/// Waits for nobody, but could: its outputs wait in the ledger.
struct LateCopy;

impl ConcurrentHandler for LateCopy {
    type Job = OutputRecord;

    fn decode(&self, record: &Record<'_>) -> Result<OutputRecord, Failure> {
        Ok(OutputRecord {
            topic: OutputTopic(0),
            key: record.key.unwrap_or_default().to_vec(),
            value: record.value.unwrap_or_default().to_vec(),
        })
    }

    async fn attempt(&self, job: &OutputRecord, _: u32) -> Result<Vec<OutputRecord>, Failure> {
        Ok(vec![job.clone()])
    }

    async fn give_up(&self, _: &OutputRecord, _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(Vec::new()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Immediate,
    Concurrent,
}

struct Scene {
    broker: TestBroker,
    observer: Observer,
    group: String,
    input: String,
    output: String,
    process: Process,
    worker: JoinHandle<Result<(), StreamError>>,
}

/// A worker of the group, with a name of its own.
fn start_worker(
    broker: &TestBroker,
    spec: WorkerSpec,
    shape: Shape,
    change: impl FnOnce(&mut StreamSettings),
) -> (Process, JoinHandle<Result<(), StreamError>>) {
    let mut stream = StreamSettings {
        retry_delays: "off".to_owned(),
        ..StreamSettings::default()
    };
    change(&mut stream);
    let process = Process {
        instance: broker.name("instance"),
        ..Process::detached(INFO)
    };
    let surroundings = Surroundings {
        process: process.clone(),
        kafka: KafkaSettings {
            brokers: broker.address().to_owned(),
            ..KafkaSettings::default()
        },
        stream,
    };
    let worker = match shape {
        Shape::Immediate => tokio::spawn(run_handler(spec, surroundings, || Copy)),
        Shape::Concurrent => tokio::spawn(run_concurrent(spec, surroundings, Arc::new(LateCopy))),
    };
    (process, worker)
}

fn spec(group: &str, input: &str, output: &str) -> WorkerSpec {
    WorkerSpec {
        service: "test",
        group: group.to_owned(),
        inputs: vec![input.to_owned()],
        outputs: vec![output.to_owned()],
        events: "events".to_owned(),
        repeats: Repeats::Count,
    }
}

impl Scene {
    async fn start(shape: Shape) -> Self {
        Self::start_with(shape, |_| ()).await
    }

    async fn start_with(shape: Shape, change: impl FnOnce(&mut StreamSettings)) -> Self {
        let broker = TestBroker::embedded(devbroker::Options::default()).await;
        let (input, output, group) = (broker.name("in"), broker.name("out"), broker.name("group"));
        let observer = broker.observer();
        for topic in [&input, &output, &dead_letter_topic(&input, &group)] {
            observer.create_topic(topic, 2).await;
        }
        let (process, worker) = start_worker(&broker, spec(&group, &input, &output), shape, change);
        Self {
            broker,
            observer,
            group,
            input,
            output,
            process,
            worker,
        }
    }

    async fn produce(&self, numbers: std::ops::Range<usize>) {
        let records: Vec<(String, String)> = numbers
            .map(|number| (format!("key-{number}"), number.to_string()))
            .collect();
        let records: Vec<(&[u8], &[u8])> = records
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
            .collect();
        self.observer.produce(&self.input, &records).await;
    }

    async fn wait_for(&self, count: usize) {
        eventually(LIMIT, || async {
            let seen = self.observer.read_all(&self.output).await.len();
            if seen >= count {
                Ok(())
            } else {
                Err(format!("{seen} of {count}"))
            }
        })
        .await;
    }

    /// Lets the fault strike a worker that is at work, and checks that each record has its output once.
    async fn survives(self, what: &str, inject: impl Fn(&TestBroker) -> FaultHandle) {
        self.produce(0..RECORDS).await;
        self.wait_for(RECORDS).await;
        let fault = inject(&self.broker);
        self.produce(RECORDS..2 * RECORDS).await;
        let struck = tokio::time::timeout(LIMIT, fault.wait_until_struck(1)).await;
        assert_eq!(struck, Ok(true), "{what}: the fault did not strike");
        // Something after the fault too: what follows a failed unit is not what it was before.
        self.produce(2 * RECORDS..3 * RECORDS).await;
        self.has_each_once(what, 3 * RECORDS).await;
    }

    /// Waits for the outputs of so many records, stops the worker, and checks that each is there once.
    async fn has_each_once(self, what: &str, count: usize) {
        self.wait_for(count).await;
        self.process.shutdown.request("the test is over");
        self.worker.await.unwrap().expect("the worker survives");
        let expected: Vec<usize> = (0..count).collect();
        let values = self.observer.read_all(&self.output).await;
        let mut numbers: Vec<usize> = values.into_iter().map(number_of).collect();
        numbers.sort_unstable();
        assert!(
            numbers == expected,
            "{what}: {} outputs of {}",
            numbers.len(),
            expected.len()
        );
    }
}

fn number_of(record: testkit::Record) -> usize {
    String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap()
}

/// The steps of a transaction, in the order in which a worker takes them.
const STEPS: [ApiKey; 5] = [
    ApiKey::AddPartitionsToTxn,
    ApiKey::Produce,
    ApiKey::AddOffsetsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];

async fn every_step_survives(fault: Fault) {
    for shape in [Shape::Immediate, Shape::Concurrent] {
        for step in STEPS {
            let what = format!("{fault:?} on {step:?}, {shape:?}");
            let scene = Scene::start(shape).await;
            let output = scene.output.clone();
            let inject = |broker: &TestBroker| {
                let injection = fault.on(step);
                broker.inject(match step {
                    ApiKey::Produce => injection.of_topic(&output),
                    _ => injection,
                })
            };
            scene.survives(&what, inject).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_its_effect_doubles_nothing() {
    every_step_survives(Fault::DropAfter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_lost_before_its_effect_loses_nothing() {
    every_step_survives(Fault::DropBefore).await;
}

/// The commit has its effect, and its answer comes after the worker has given it up: the group knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_too_late_is_not_believed_and_not_worked_on_twice() {
    for shape in [Shape::Immediate, Shape::Concurrent] {
        for step in [ApiKey::TxnOffsetCommit, ApiKey::EndTxn] {
            let scene = Scene::start(shape).await;
            let what = format!("late answer to {step:?}, {shape:?}");
            let late = Fault::DelayAnswer(Duration::from_secs(7));
            scene.survives(&what, |broker| broker.inject(late.on(step))).await;
        }
    }
}

async fn strikes(fault: &FaultHandle, what: &str) {
    let struck = tokio::time::timeout(LIMIT, fault.wait_until_struck(1)).await;
    assert_eq!(struck, Ok(true), "{what} does not strike");
}

/// A request that its client has given up may still be on its way. Before KIP-890 it names no transaction:
/// whatever its producer has open when it arrives, it ends. Only a new epoch keeps it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_it_was_given_up_ends_no_later_transaction() {
    for shape in [Shape::Immediate, Shape::Concurrent] {
        let scene = Scene::start(shape).await;
        scene.produce(0..RECORDS).await;
        scene.wait_for(RECORDS).await;
        let stopped = scene.broker.inject(Fault::StopReading.on(ApiKey::EndTxn));
        scene.produce(RECORDS..2 * RECORDS).await;
        strikes(&stopped, "the stop").await;
        // It is given up, and its records get through in another way.
        scene.wait_for(2 * RECORDS).await;
        // A transaction stands open, with outputs and without offsets, and will be taken back.
        let held = Fault::Delay(Duration::from_secs(2)).on(ApiKey::AddOffsetsToTxn);
        let held = scene.broker.inject(held);
        let refused = Fault::AnswerError(ResponseError::IllegalGeneration).on(ApiKey::TxnOffsetCommit);
        let refused = scene.broker.inject(refused);
        scene.produce(2 * RECORDS..3 * RECORDS).await;
        strikes(&held, "the delay").await;
        // Now the commit of long ago arrives.
        drop(stopped);
        strikes(&refused, "the refusal").await;
        scene.produce(3 * RECORDS..4 * RECORDS).await;
        let what = format!("a late commit, {shape:?}");
        scene.has_each_once(&what, 4 * RECORDS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_group_takes_the_transaction_back_and_the_work_is_done_again() {
    for shape in [Shape::Immediate, Shape::Concurrent] {
        for error in [
            ResponseError::IllegalGeneration,
            ResponseError::NotCoordinator,
            ResponseError::CoordinatorLoadInProgress,
        ] {
            let scene = Scene::start(shape).await;
            let what = format!("{error:?} to the offsets, {shape:?}");
            let refusal = Fault::AnswerError(error);
            scene
                .survives(&what, |broker| broker.inject(refusal.on(ApiKey::TxnOffsetCommit)))
                .await;
        }
    }
}

async fn stop(process: &Process, worker: JoinHandle<Result<(), StreamError>>) -> Result<(), StreamError> {
    process.shutdown.request("the test is over");
    worker.await.unwrap()
}

/// Slow answers about offsets are no proof that a former owner holds them up, and a slow transaction of
/// one's own hides outputs as well as that of a former owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_is_alive_is_not_fenced_because_the_broker_is_slow() {
    for slow in [
        Fault::DelayAnswer(Duration::from_millis(1_500))
            .on(ApiKey::OffsetFetch)
            .times(3),
        Fault::Delay(Duration::from_millis(1_500))
            .on(ApiKey::TxnOffsetCommit)
            .times(3),
    ] {
        let scene = Scene::start(Shape::Immediate).await;
        scene.produce(0..RECORDS).await;
        scene.wait_for(RECORDS).await;
        let fault = scene.broker.inject(slow);
        let spec = spec(&scene.group, &scene.input, &scene.output);
        let (process, second) = start_worker(&scene.broker, spec, Shape::Immediate, |_| ());
        let mut produced = RECORDS;
        let struck = async {
            while fault.struck() < 3 {
                scene.produce(produced..produced + 10).await;
                produced += 10;
                scene.wait_for(produced).await;
            }
        };
        tokio::time::timeout(LIMIT, struck)
            .await
            .expect("the fault strikes");
        stop(&process, second).await.expect("the newcomer is well");
        let first = stop(&scene.process, scene.worker).await;
        first.expect("the neighbour was alive and well");
        assert_eq!(scene.observer.read_all(&scene.output).await.len(), produced);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_reads_on_where_retention_has_cut_the_outputs() {
    let scene = Scene::start(Shape::Immediate).await;
    scene.produce(0..RECORDS).await;
    scene.wait_for(RECORDS).await;
    stop(&scene.process, scene.worker).await.expect("stops cleanly");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", scene.broker.address())
        .create()
        .unwrap();
    let mut cut = TopicPartitionList::new();
    for partition in 0..2 {
        cut.add_partition_offset(&scene.output, partition, Offset::Offset(20))
            .unwrap();
    }
    admin.delete_records(&cut, &AdminOptions::new()).await.unwrap();
    let kept = scene.observer.read_all(&scene.output).await.len();
    let spec = WorkerSpec {
        repeats: Repeats::End(Arc::new(|_| true)),
        ..spec(&scene.group, &scene.input, &scene.output)
    };
    let (process, second) = start_worker(&scene.broker, spec, Shape::Immediate, |_| ());
    let more: Vec<(String, String)> = (RECORDS..RECORDS + 50)
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect();
    let more: Vec<(&[u8], &[u8])> = more
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    scene.observer.produce(&scene.input, &more).await;
    eventually(LIMIT, || async {
        scene.observer.read_all(&scene.output).await.len() == kept + 50
    })
    .await;
    stop(&process, second).await.expect("stops cleanly");
}

/// A client that fetches nothing looks alive: it polls, and the group keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_gets_nowhere_without_a_reason_ends_the_worker() {
    let scene = Scene::start_with(Shape::Immediate, |stream| stream.watchdog_ms = 3_000).await;
    scene.produce(0..10).await;
    scene.wait_for(10).await;
    let unread = Fault::AnswerError(ResponseError::NotLeaderOrFollower)
        .on(ApiKey::Fetch)
        .always();
    let fault = scene.broker.inject(unread);
    let struck = tokio::time::timeout(LIMIT, fault.wait_until_struck(1)).await;
    assert_eq!(struck, Ok(true), "nothing is fetched any more");
    scene.produce(10..20).await;
    let ended = tokio::time::timeout(LIMIT, scene.worker)
        .await
        .expect("ends")
        .unwrap();
    let error = ended.expect_err("the watchdog speaks").to_string();
    assert!(error.starts_with("watchdog: nothing of"), "{error}");
}

/// Nothing to read is no reason to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_nothing_to_do_stays() {
    let scene = Scene::start_with(Shape::Immediate, |stream| stream.watchdog_ms = 1_000).await;
    scene.produce(0..10).await;
    scene.wait_for(10).await;
    let idle = tokio::time::timeout(Duration::from_secs(4), scene.worker).await;
    assert!(idle.is_err(), "{idle:?}");
    scene.process.shutdown.request("the test is over");
}
