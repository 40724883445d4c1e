//! How long a shutdown takes when the broker does not answer: never longer than the sum of its deadlines,
//! whatever the worker was waiting for when it was told to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stream::worker::{run_concurrent, run_handler};
use stream::{
    ConcurrentHandler, Failure, Handler, LastWord, OutputRecord, OutputTopic, Outputs, Record, StreamSettings,
};
use support::{Bench, LIMIT, Running};
use testkit::TestBroker;
use testkit::devbroker::{self, ApiKey, Fault, Injection};

const RECORDS: usize = 100;
const DRAIN: Duration = Duration::from_secs(1);

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

/// Waits for somebody who never answers, from the second hundred of records on.
struct Patient;

impl ConcurrentHandler for Patient {
    type Job = OutputRecord;

    fn decode(&self, record: &Record<'_>) -> Result<OutputRecord, Failure> {
        Ok(OutputRecord {
            topic: OutputTopic(0),
            key: record.key.unwrap_or_default().to_vec(),
            value: record.value.unwrap_or_default().to_vec(),
        })
    }

    async fn attempt(&self, job: &OutputRecord, _: u32) -> Result<Vec<OutputRecord>, Failure> {
        let number: usize = String::from_utf8_lossy(&job.value).parse().expect("a number");
        if number >= RECORDS && number.is_multiple_of(10) {
            std::future::pending::<()>().await;
        }
        Ok(vec![job.clone()])
    }

    async fn give_up(&self, _: &OutputRecord, _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(Vec::new()))
    }
}

/// Who else stops answering after the first request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Only requests of its kind.
    NobodyElse,
    Everybody,
    /// The broker is gone: connections are refused.
    Gone,
}

fn records(from: usize) -> Vec<(String, String)> {
    let numbers = from..from + RECORDS;
    numbers
        .map(|number| (format!("key-{number}"), number.to_string()))
        .collect()
}

/// Lets the broker fall silent at a request of this kind, tells the worker to stop, and returns how long that
/// took.
async fn time_to_stop(step: ApiKey, then: Then, concurrent: bool) -> Duration {
    let bench = Bench::on(TestBroker::embedded(devbroker::Options::default()).await, 2).await;
    let surroundings = bench.surroundings(|stream| {
        stream.drain_timeout_ms = DRAIN.as_millis() as u64;
    });
    let process = surroundings.process.clone();
    let task = if concurrent {
        tokio::spawn(run_concurrent(bench.spec(), surroundings, Arc::new(Patient)))
    } else {
        tokio::spawn(run_handler(bench.spec(), surroundings, || Copy))
    };
    let running = Running { process, task };
    bench.produce(&records(0)).await;
    bench.all_committed().await;
    let silence = |injection: Injection| bench.broker.inject(injection.always());
    let trigger = Fault::StopReading.on(step);
    let trigger = silence(match step {
        ApiKey::Produce => trigger.of_topic(&bench.output),
        _ => trigger,
    });
    bench.produce(&records(RECORDS)).await;
    assert_eq!(
        tokio::time::timeout(LIMIT, trigger.wait_until_struck(1)).await,
        Ok(true),
        "{step:?} was not asked"
    );
    // Faults go with their handles.
    let mut bench = Some(bench);
    let rest = match then {
        Then::NobodyElse => None,
        Then::Everybody => bench
            .as_ref()
            .map(|bench| bench.broker.inject(Fault::StopReading.on_any_request().always())),
        Then::Gone => {
            let gone = bench.take();
            tokio::task::spawn_blocking(move || drop(gone)).await.unwrap();
            None
        }
    };
    let began = Instant::now();
    let ended = running.stop().await;
    let took = began.elapsed();
    drop((rest, trigger, bench));
    println!("{step:?}, then {then:?}, concurrent {concurrent}: {took:?}, {ended:?}");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_broker_is_silent_ends_within_the_sum_of_its_deadlines() {
    let settings = StreamSettings {
        drain_timeout_ms: DRAIN.as_millis() as u64,
        ..StreamSettings::default()
    };
    let mut cases = Vec::new();
    for step in [
        ApiKey::AddPartitionsToTxn,
        ApiKey::Produce,
        ApiKey::AddOffsetsToTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::EndTxn,
    ] {
        for then in [Then::NobodyElse, Then::Everybody, Then::Gone] {
            for concurrent in [false, true] {
                cases.push(tokio::spawn(time_to_stop(step, then, concurrent)));
            }
        }
    }
    for case in cases {
        let took = case.await.unwrap();
        assert!(took <= settings.shutdown_limit(), "{took:?}");
    }
}
