//! Topics that grow while workers run: on the embedded broker, and on real Kafka where
//! `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/metrics.rs"]
mod metrics;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::series;
use service::Process;
use stream::settings::{Assignor, GroupProtocol};
use stream::worker::{WorkerSpec, run_concurrent, run_handler};
use stream::{
    ConcurrentHandler, Failure, Handler, LastWord, OutputRecord, OutputTopic, Outputs, Record, Repeats,
    StreamSettings,
};
use support::{Bench, LIMIT, Running};
use testkit::eventually;

const BEFORE: i32 = 3;
const AFTER: usize = 6;

fn numbered(range: std::ops::Range<usize>) -> Vec<(String, String)> {
    range
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect()
}

fn settings(stream: &mut StreamSettings) {
    stream.metadata_refresh_ms = 200;
}

/// Records of a key that was seen have no effect, so that what former owners settled has to be known.
fn spec(bench: &Bench) -> WorkerSpec {
    WorkerSpec {
        repeats: Repeats::End(Arc::new(|_| true)),
        ..bench.spec()
    }
}

struct Copy;

impl Handler for Copy {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        let value = record.value.unwrap_or_default();
        outputs.send(OutputTopic(0), record.key.unwrap_or_default(), value);
        Ok(())
    }
}

fn start(bench: &Bench, change: impl FnOnce(&mut StreamSettings)) -> Running {
    let surroundings = bench.surroundings(|stream| {
        settings(stream);
        change(stream);
    });
    let process = surroundings.process.clone();
    Running {
        process,
        task: tokio::spawn(run_handler(spec(bench), surroundings, || Copy)),
    }
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
    let outputs = bench.observer.read_all(&bench.output).await;
    let used: BTreeSet<i32> = outputs.iter().map(|record| record.partition).collect();
    assert_eq!(used.len(), AFTER, "all partitions are worked on: {used:?}");
}

fn waits_for_growth(process: &Process) -> bool {
    series(process, "orderflow_waiting_state", "growth") == Some(1.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_grow_from_the_end_of_the_pipeline_are_worked_on_from_their_first_record() {
    grow_from_the_end(&Bench::new(BEFORE).await, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_grow_are_worked_on_after_eager_rebalances() {
    let eager = |stream: &mut StreamSettings| stream.assignor = Some(Assignor::Range);
    grow_from_the_end(&Bench::new(BEFORE).await, eager).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_grow_are_worked_on_where_the_broker_deals_out_partitions() {
    let bench = Bench::new(BEFORE).await;
    if bench.broker.engine() != "kafka" {
        eprintln!("skipped: the embedded broker does not serve the group protocol `consumer`");
        return;
    }
    let consumer = |stream: &mut StreamSettings| {
        stream.group_protocol = GroupProtocol::Consumer;
        stream.session_timeout_ms = None;
    };
    grow_from_the_end(&bench, consumer).await;
}

async fn grow_from_the_end(bench: &Bench, change: impl Fn(&mut StreamSettings)) {
    let workers = [start(bench, &change), start(bench, &change)];
    bench.produce(&numbered(0..200)).await;
    bench.all_committed().await;
    for topic in [&bench.dead_letters(), &bench.output, &bench.input] {
        bench.observer.grow_topic(topic, AFTER).await;
        bench.produce(&[]).await;
    }
    bench.produce(&numbered(200..500)).await;
    bench.all_committed().await;
    for worker in workers {
        worker.stop().await.expect("stops cleanly");
    }
    wanted_once(bench, 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_grows_first_waits_for_the_topics_downstream_and_loses_nothing() {
    let bench = Bench::new(BEFORE).await;
    let workers = [start(&bench, |_| ()), start(&bench, |_| ())];
    bench.produce(&numbered(0..200)).await;
    bench.all_committed().await;
    bench.observer.grow_topic(&bench.input, AFTER).await;
    bench.produce(&numbered(200..500)).await;
    let [first, second] = &workers;
    eventually(LIMIT, || async {
        waits_for_growth(&first.process) || waits_for_growth(&second.process)
    })
    .await;
    // What can be worked on is.
    eventually(LIMIT, || async {
        let ends = bench.observer.end_offsets(&bench.input).await;
        let committed = bench.observer.committed(&bench.group, &bench.input).await;
        (0..BEFORE).all(|partition| committed.get(&partition) >= ends.get(&partition))
    })
    .await;
    let committed = bench.observer.committed(&bench.group, &bench.input).await;
    assert!(
        committed.keys().all(|partition| *partition < BEFORE),
        "{committed:?}"
    );
    bench.observer.grow_topic(&bench.dead_letters(), AFTER).await;
    bench.observer.grow_topic(&bench.output, AFTER).await;
    bench.all_committed().await;
    for worker in &workers {
        eventually(LIMIT, || async { !waits_for_growth(&worker.process) }).await;
    }
    for worker in workers {
        worker.stop().await.expect("stops cleanly");
    }
    wanted_once(&bench, 500).await;
}

/// Refuses every value once.
#[derive(Default)]
struct AtSecond(AtomicUsize);

impl ConcurrentHandler for AtSecond {
    type Job = (Vec<u8>, Vec<u8>);

    fn decode(&self, record: &Record<'_>) -> Result<Self::Job, Failure> {
        let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
        Ok((bytes(record.key), bytes(record.value)))
    }

    async fn attempt(&self, (key, value): &Self::Job, attempts: u32) -> Result<Vec<OutputRecord>, Failure> {
        if attempts == 1 {
            self.0.fetch_add(1, Ordering::SeqCst);
            return Err(Failure::Transient {
                code: "away".into(),
                message: "the other side is away".to_owned(),
                // Longer than attempts in place may take.
                retry_after: Some(std::time::Duration::from_secs(3_600)),
            });
        }
        Ok(vec![OutputRecord {
            topic: OutputTopic(0),
            key: key.clone(),
            value: value.clone(),
        }])
    }

    async fn give_up(&self, _: &Self::Job, _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(Vec::new()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_partition_whose_retry_topic_grows_later_waits_for_it_and_uses_it() {
    let bench = Bench::new(BEFORE).await;
    let retry = format!("{}.{}.retry.300ms", bench.input, bench.group);
    bench.observer.create_topic(&retry, BEFORE).await;
    let surroundings = bench.surroundings(|stream| {
        settings(stream);
        stream.retry_delays = "300ms".to_owned();
    });
    let handler = Arc::new(AtSecond::default());
    let worker = Running {
        process: surroundings.process.clone(),
        task: tokio::spawn(run_concurrent(spec(&bench), surroundings, Arc::clone(&handler))),
    };
    bench.produce(&numbered(0..60)).await;
    bench.all_committed().await;
    for topic in [&bench.output, &bench.input, &bench.dead_letters()] {
        bench.observer.grow_topic(topic, AFTER).await;
    }
    bench.produce(&numbered(60..160)).await;
    eventually(LIMIT, || async { waits_for_growth(&worker.process) }).await;
    bench.observer.grow_topic(&retry, AFTER).await;
    bench.all_committed().await;
    bench.all_committed_of(&retry).await;
    assert_eq!(
        handler.0.load(Ordering::SeqCst),
        160,
        "each was tried once and parked"
    );
    assert_eq!(
        series(&worker.process, "orderflow_parked_records_total", &retry),
        Some(160.0)
    );
    worker.stop().await.expect("stops cleanly");
    wanted_once(&bench, 160).await;
}
