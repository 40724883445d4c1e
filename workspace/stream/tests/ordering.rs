//! The order of effects where work waits for somebody else: on the embedded broker, and on real Kafka where
//! `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::sync::{Arc, Mutex};

use stream::settings::Ordering;
use stream::worker::run_concurrent;
use stream::{ConcurrentHandler, Failure, LastWord, OutputRecord, OutputTopic, Record};
use support::{Bench, LIMIT, Running};
use tokio::sync::watch;

/// The other side: the record `a1` is not answered before `awaited` was asked for, and `a2` fails once.
struct OtherSide {
    awaited: &'static str,
    asked: watch::Sender<Vec<String>>,
    answered: Mutex<Vec<String>>,
}

impl ConcurrentHandler for OtherSide {
    type Job = (Vec<u8>, String);

    fn decode(&self, record: &Record<'_>) -> Result<Self::Job, Failure> {
        let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        Ok((record.key.unwrap_or_default().to_vec(), value))
    }

    async fn attempt(&self, (key, value): &Self::Job, attempt: u32) -> Result<Vec<OutputRecord>, Failure> {
        self.asked.send_modify(|asked| asked.push(value.clone()));
        if value == "a1" {
            let is_there = |asked: &Vec<String>| asked.iter().any(|asked| asked == self.awaited);
            self.asked.subscribe().wait_for(is_there).await.unwrap();
        }
        if value == "a2" && attempt == 1 {
            return Err(Failure::transient("busy", "not now"));
        }
        self.answered.lock().unwrap().push(value.clone());
        Ok(vec![OutputRecord {
            topic: OutputTopic(0),
            key: key.clone(),
            value: value.clone().into_bytes(),
        }])
    }

    async fn give_up(&self, _: &Self::Job, _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(Vec::new()))
    }
}

/// Works on three records of a key and one of another, and returns the order in which they were asked for and
/// in which they had their effect.
async fn work(ordering: Ordering, awaited: &'static str) -> (Vec<String>, Vec<String>) {
    let bench = Bench::new(1).await;
    let other_side = Arc::new(OtherSide {
        awaited,
        asked: watch::Sender::new(Vec::new()),
        answered: Mutex::default(),
    });
    let surroundings = bench.surroundings(|stream| {
        stream.ordering = ordering;
        stream.retry_delays = "5s".to_owned();
    });
    if ordering == Ordering::Any {
        let retries = format!("{}.{}.retry.5s", bench.input, bench.group);
        bench.observer.create_topic(&retries, 1).await;
    }
    let process = surroundings.process.clone();
    let task = tokio::spawn(run_concurrent(
        bench.spec(),
        surroundings,
        Arc::clone(&other_side),
    ));
    let records = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1")];
    let records = records.map(|(key, value)| (key.to_owned(), value.to_owned()));
    bench.produce(&records).await;
    bench.all_committed().await;
    Running { process, task }.stop().await.expect("ends cleanly");
    // Whatever the order of the effects, readers see that of the records.
    assert_eq!(bench.output_values().await, ["a1", "a2", "a3", "b1"]);
    let asked = other_side.asked.borrow().clone();
    let answered = other_side.answered.lock().unwrap().clone();
    (asked, answered)
}

fn of_a(values: &[String]) -> Vec<&str> {
    let of_a = values.iter().filter(|value| value.starts_with('a'));
    of_a.map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_order_per_key_the_records_of_a_key_wait_for_each_other_and_no_others() {
    // The first record of one key waits for that of the other, which is behind two more of its own.
    let worked = tokio::time::timeout(LIMIT, work(Ordering::PerKey, "b1"));
    let (asked, answered) = worked.await.expect("keys do not wait for each other");
    assert_eq!(
        of_a(&asked),
        ["a1", "a2", "a2", "a3"],
        "each after the one before it"
    );
    assert_eq!(of_a(&answered), ["a1", "a2", "a3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_order_nobody_waits() {
    let worked = tokio::time::timeout(LIMIT, work(Ordering::Any, "a3"));
    let (_, answered) = worked.await.expect("a record does not wait for its key");
    assert_eq!(of_a(&answered)[0], "a3");
}
