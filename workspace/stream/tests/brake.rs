//! Too many dead letters: on the embedded broker, and on real Kafka where `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stream::admin::brakes;
use stream::settings::Delivery;
use stream::worker::{run_concurrent, run_handler};
use stream::{
    ConcurrentHandler, Failure, Handler, LastWord, OutputRecord, OutputTopic, Outputs, Record,
    StreamSettings, release_key,
};
use support::{Bench, LIMIT, Running};
use testkit::eventually;

const RECORDS: usize = 1_000;
const IN_A_ROW: u32 = 50;

/// A rule that was deployed broken, until somebody mends it.
#[derive(Clone, Default)]
struct Rule {
    is_broken: Arc<AtomicBool>,
}

impl Rule {
    fn apply(&self, record: &Record<'_>) -> Result<OutputRecord, Failure> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(Failure::poison("broken_rule", "the rule refuses everything"));
        }
        Ok(OutputRecord {
            topic: OutputTopic(0),
            key: record.key.unwrap_or_default().to_vec(),
            value: record.value.unwrap_or_default().to_vec(),
        })
    }
}

impl Handler for Rule {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        let output = self.apply(record)?;
        outputs.send(output.topic, &output.key, &output.value);
        Ok(())
    }
}

impl ConcurrentHandler for Rule {
    type Job = OutputRecord;

    fn decode(&self, record: &Record<'_>) -> Result<OutputRecord, Failure> {
        self.apply(record)
    }

    async fn attempt(&self, job: &OutputRecord, _: u32) -> Result<Vec<OutputRecord>, Failure> {
        Ok(vec![job.clone()])
    }

    async fn give_up(&self, _: &OutputRecord, _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(Vec::new()))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Immediate,
    Concurrent,
    AtLeastOnce,
}

fn start(bench: &Bench, rule: &Rule, shape: Shape) -> Running {
    let surroundings = bench.surroundings(|stream: &mut StreamSettings| {
        stream.brake_in_a_row = IN_A_ROW;
        // Dead letters are committed before the brake is pulled.
        stream.batch_records = 20;
        if shape == Shape::AtLeastOnce {
            stream.delivery = Delivery::AtLeastOnce;
        }
    });
    let process = surroundings.process.clone();
    let (spec, rule) = (bench.spec(), rule.clone());
    let task = match shape {
        Shape::Concurrent => tokio::spawn(run_concurrent(spec, surroundings, Arc::new(rule))),
        Shape::Immediate | Shape::AtLeastOnce => {
            tokio::spawn(run_handler(spec, surroundings, move || rule.clone()))
        }
    };
    Running { process, task }
}

async fn is_braked(worker: &Running) {
    eventually(LIMIT, || async {
        match worker.process.health.not_ready_reason() {
            Some(reason) if reason.contains("brake") => Ok(()),
            other => Err(format!("not ready because {other:?}")),
        }
    })
    .await;
    assert_eq!(worker.process.health.stale(), Vec::<String>::new(), "it is alive");
}

/// Produces all records for a worker whose rule refuses them, and waits for its brake.
async fn brake_by_a_broken_rule(bench: &Bench, shape: Shape) -> (Rule, Running) {
    let records: Vec<_> = (0..RECORDS)
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect();
    bench.produce(&records).await;
    let rule = Rule::default();
    rule.is_broken.store(true, Ordering::SeqCst);
    let worker = start(bench, &rule, shape);
    is_braked(&worker).await;
    (rule, worker)
}

/// Gives the word that releases these brakes.
async fn release(bench: &Bench, names: impl Iterator<Item = String>) {
    let word = names.collect::<Vec<_>>().join(" ");
    let key = release_key(&bench.group);
    bench
        .observer
        .produce_with_headers(&bench.events, None, key.as_bytes(), word.as_bytes(), &[])
        .await;
}

fn counted(values: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

async fn the_brake_stops_the_topic_from_being_drained(shape: Shape) {
    let bench = Bench::new(3).await;
    bench.observer.create_topic(&bench.events, 2).await;
    let (rule, worker) = brake_by_a_broken_rule(&bench, shape).await;
    let kafka = bench.surroundings(|_| ()).kafka;
    let inputs = [bench.input.clone()];
    let pulled = || async { brakes(&kafka, &bench.group, &inputs).await.expect("notes") };
    eventually(LIMIT, || async { !pulled().await.is_empty() }).await;
    worker.stop().await.expect("a braked worker stops cleanly");
    let letters = bench.values_of(&bench.dead_letters()).await;
    let bound = IN_A_ROW as usize;
    assert!(
        letters.len() <= bound,
        "{} dead letters, {bound} allowed",
        letters.len()
    );
    let names = pulled().await;

    // A restart changes nothing: mended or not, nobody has said so.
    rule.is_broken.store(false, Ordering::SeqCst);
    let worker = start(&bench, &rule, shape);
    is_braked(&worker).await;
    assert_eq!(pulled().await, names);

    release(&bench, names.into_values()).await;
    bench.all_committed().await;
    eventually(LIMIT, || async {
        worker.process.health.not_ready_reason().is_none()
    })
    .await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(pulled().await, BTreeMap::new(), "the next owner is not braked");

    let outputs = counted(bench.output_values().await);
    let letters = counted(bench.values_of(&bench.dead_letters()).await);
    for number in 0..RECORDS {
        let number = number.to_string();
        let ends = (
            outputs.get(&number).copied().unwrap_or(0),
            letters.get(&number).copied().unwrap_or(0),
        );
        match shape {
            Shape::AtLeastOnce => assert!(ends.0 + ends.1 > 0, "{number} is lost"),
            _ => assert_eq!(ends.0 + ends.1, 1, "{number}: {ends:?}"),
        }
    }
    assert!(outputs.len() >= RECORDS - bound);
}

/// Records that were refused and wait behind the brake are no dead letters yet: what refused them was mended.
async fn what_waits_behind_the_brake_is_tried_again(shape: Shape) {
    let bench = Bench::new(3).await;
    bench.observer.create_topic(&bench.events, 2).await;
    let (rule, worker) = brake_by_a_broken_rule(&bench, shape).await;
    rule.is_broken.store(false, Ordering::SeqCst);
    let (kafka, inputs) = (bench.surroundings(|_| ()).kafka, [bench.input.clone()]);
    let names = eventually(LIMIT, || async {
        let names = brakes(&kafka, &bench.group, &inputs).await.expect("notes");
        if names.is_empty() {
            Err("not noted yet")
        } else {
            Ok(names)
        }
    });
    release(&bench, names.await.into_values()).await;
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    let letters = bench.values_of(&bench.dead_letters()).await;
    let bound = IN_A_ROW as usize;
    assert!(letters.len() <= bound, "{} dead letters", letters.len());
    let outputs = counted(bench.output_values().await);
    assert_eq!(outputs.len(), RECORDS - letters.len());
    assert!(outputs.values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_somebody_behind_the_brake_is_tried_again() {
    what_waits_behind_the_brake_is_tried_again(Shape::Concurrent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_once_behind_the_brake_is_tried_again() {
    what_waits_behind_the_brake_is_tried_again(Shape::Immediate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_done_at_once_is_braked() {
    the_brake_stops_the_topic_from_being_drained(Shape::Immediate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_waits_for_somebody_is_braked() {
    the_brake_stops_the_topic_from_being_drained(Shape::Concurrent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_transactions_the_brake_holds_too() {
    the_brake_stops_the_topic_from_being_drained(Shape::AtLeastOnce).await;
}
