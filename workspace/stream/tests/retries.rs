//! Records that wait for a later attempt: on the embedded broker, and on real Kafka where
//! `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stream::worker::{WorkerSpec, run_concurrent};
use stream::{
    ConcurrentHandler, Failure, LastWord, OutputRecord, OutputTopic, Record, Repeats, StreamSettings,
};
use support::{Bench, LIMIT, Running};
use testkit::eventually;

const DELAYS: [(&str, Duration); 2] = [
    ("300ms", Duration::from_millis(300)),
    ("700ms", Duration::from_millis(700)),
];

/// The other side: refuses a value so many times, and remembers when it was asked. `u32::MAX` is for ever.
#[derive(Default)]
struct OtherSide {
    refuses: Mutex<HashMap<String, u32>>,
    asked: Mutex<HashMap<String, Vec<Instant>>>,
}

impl OtherSide {
    fn refuse(&self, value: &str, times: u32) {
        self.refuses.lock().unwrap().insert(value.to_owned(), times);
    }

    fn asked(&self, value: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.get(value).cloned().unwrap_or_default()
    }
}

struct Ask(Arc<OtherSide>);

impl ConcurrentHandler for Ask {
    type Job = (Vec<u8>, String);

    fn decode(&self, record: &Record<'_>) -> Result<Self::Job, Failure> {
        let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        Ok((record.key.unwrap_or_default().to_vec(), value))
    }

    async fn attempt(&self, (key, value): &Self::Job, _: u32) -> Result<Vec<OutputRecord>, Failure> {
        let mut asked = self.0.asked.lock().unwrap();
        asked.entry(value.clone()).or_default().push(Instant::now());
        drop(asked);
        if let Some(left) = self
            .0
            .refuses
            .lock()
            .unwrap()
            .get_mut(value)
            .filter(|left| **left > 0)
        {
            *left = if *left == u32::MAX { u32::MAX } else { *left - 1 };
            // Longer than attempts in place may take: each visit is one attempt.
            return Err(Failure::Transient {
                code: "away".into(),
                message: "the other side is away".to_owned(),
                retry_after: Some(Duration::from_secs(3_600)),
            });
        }
        Ok(vec![OutputRecord {
            topic: OutputTopic(0),
            key: key.clone(),
            value: value.clone().into_bytes(),
        }])
    }

    async fn give_up(&self, (key, value): &Self::Job, _: u32) -> Result<LastWord, Failure> {
        Ok(LastWord::GaveUp(vec![OutputRecord {
            topic: OutputTopic(0),
            key: key.clone(),
            value: format!("gave up {value}").into_bytes(),
        }]))
    }
}

fn retry_topic(bench: &Bench, delay: &str) -> String {
    format!("{}.{}.retry.{delay}", bench.input, bench.group)
}

async fn bench(partitions: i32) -> Bench {
    let bench = Bench::new(partitions).await;
    for (delay, _) in DELAYS {
        bench
            .observer
            .create_topic(&retry_topic(&bench, delay), partitions)
            .await;
    }
    bench
}

fn settings(stream: &mut StreamSettings) {
    stream.retry_delays = DELAYS.map(|(label, _)| label).join(",");
}

fn start(bench: &Bench, other_side: &Arc<OtherSide>) -> Running {
    let spec = WorkerSpec {
        repeats: Repeats::EndOrDeadLetter(Arc::new(|_| true)),
        ..bench.spec()
    };
    let surroundings = bench.surroundings(settings);
    let process = surroundings.process.clone();
    let handler = Arc::new(Ask(Arc::clone(other_side)));
    Running {
        process,
        task: tokio::spawn(run_concurrent(spec, surroundings, handler)),
    }
}

/// Starts a worker with these delays and waits for it to end by itself, or to be at work.
async fn refusal(bench: &Bench, delays: &str) -> Option<String> {
    let other_side = Arc::new(OtherSide::default());
    let surroundings = bench.surroundings(|stream| stream.retry_delays = delays.to_owned());
    let process = surroundings.process.clone();
    let handler = Arc::new(Ask(other_side));
    let mut task = tokio::spawn(run_concurrent(bench.spec(), surroundings, handler));
    let ready = async {
        eventually(LIMIT, || async {
            process.health.not_ready_reason().map_or(Ok(()), Err)
        })
        .await;
    };
    tokio::select! {
        ended = &mut task => ended.unwrap().err().map(|error| error.to_string()),
        () = ready => {
            Running { process: process.clone(), task }.stop().await.expect("ends cleanly");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_not_start_while_records_wait_in_a_retry_topic_that_it_would_not_read() {
    let bench = bench(2).await;
    bench.observer.create_topic(&retry_topic(&bench, "1h"), 2).await;
    let other_side = Arc::new(OtherSide::default());
    other_side.refuse("late", u32::MAX);
    let surroundings = bench.surroundings(|stream| stream.retry_delays = "300ms,1h".to_owned());
    let process = surroundings.process.clone();
    let handler = Arc::new(Ask(Arc::clone(&other_side)));
    let task = tokio::spawn(run_concurrent(bench.spec(), surroundings, handler));
    bench.produce(&[("key".to_owned(), "late".to_owned())]).await;
    eventually(LIMIT, || async {
        match bench.values_of(&retry_topic(&bench, "1h")).await.len() {
            0 => Err("not parked for an hour yet"),
            _ => Ok(()),
        }
    })
    .await;
    Running { process, task }.stop().await.expect("ends cleanly");
    // The other topics that are not named any more are empty, and nobody minds.
    for delays in ["off", "300ms", "300ms,700ms"] {
        let why = refusal(&bench, delays).await.expect("refuses to start");
        assert!(why.contains(&retry_topic(&bench, "1h")), "{why}");
    }
    assert_eq!(refusal(&bench, "300ms,1h").await, None);
}

async fn everything_is_committed(bench: &Bench) {
    bench.all_committed().await;
    for (delay, _) in DELAYS {
        bench.all_committed_of(&retry_topic(bench, delay)).await;
    }
}

fn header(record: &testkit::Record, name: &str) -> Option<String> {
    let found = record.headers.iter().find(|(key, _)| key == name)?;
    Some(String::from_utf8_lossy(&found.1).into_owned())
}

async fn counts(bench: &Bench) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in bench.output_values().await {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fails_waits_elsewhere_and_nobody_waits_for_it() {
    let bench = bench(2).await;
    let other_side = Arc::new(OtherSide::default());
    let values: Vec<String> = (0..60).map(|number| format!("v{number}")).collect();
    other_side.refuse("v7", 1);
    other_side.refuse("v20", 2);
    other_side.refuse("v33", u32::MAX);
    let records: Vec<_> = values
        .iter()
        .map(|value| (format!("k-{value}"), value.clone()))
        .collect();
    bench.produce(&records).await;
    let worker = start(&bench, &other_side);
    bench.all_committed().await;
    let first = other_side.asked("v20").len();
    assert!(
        first < 3,
        "the input is committed before its last attempt, and {first} were made"
    );
    everything_is_committed(&bench).await;
    worker.stop().await.expect("stops cleanly");

    let mut wanted: BTreeMap<String, usize> = values.iter().map(|value| (value.clone(), 1)).collect();
    wanted.remove("v33");
    wanted.insert("gave up v33".to_owned(), 1);
    assert_eq!(counts(&bench).await, wanted);

    for (value, attempts) in [("v7", 2), ("v20", 3), ("v33", 3)] {
        let asked = other_side.asked(value);
        assert_eq!(asked.len(), attempts, "{value}");
        for (pair, (label, delay)) in asked.windows(2).zip(DELAYS) {
            let waited = pair[1] - pair[0];
            // Due times are whole milliseconds of the wall clock.
            assert!(
                waited + Duration::from_millis(2) >= delay,
                "{value} waited {waited:?} in {label}"
            );
        }
    }

    let input = bench.observer.read_all(&bench.input).await;
    let of_value = |value: &str| {
        let is_it = |record: &&testkit::Record| record.value.as_deref() == Some(value.as_bytes());
        input.iter().find(is_it).expect("in the input")
    };
    let outputs = bench.observer.read_all(&bench.output).await;
    let retried = outputs
        .iter()
        .find(|output| output.value.as_deref() == Some(b"v20"))
        .unwrap();
    let origin = of_value("v20");
    assert_eq!(retried.partition, origin.partition);
    assert_eq!(header(retried, "source-offset"), Some(origin.offset.to_string()));

    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    let origin = of_value("v33");
    assert_eq!((&letter.key, &letter.value), (&origin.key, &origin.value));
    let wanted = [
        ("dlq-topic", bench.input.clone()),
        ("dlq-partition", origin.partition.to_string()),
        ("dlq-offset", origin.offset.to_string()),
        ("dlq-timestamp", origin.timestamp_ms.unwrap().to_string()),
        ("dlq-error-code", "away".to_owned()),
        ("dlq-attempts", "3".to_owned()),
    ];
    for (name, value) in wanted {
        assert_eq!(header(letter, name), Some(value), "{name}");
    }
    assert!(header(letter, "retry-first-failure").is_some());
    assert_eq!(header(letter, "retry-not-before"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_takes_up_what_waits_and_knows_its_repeats() {
    let bench = bench(1).await;
    let other_side = Arc::new(OtherSide::default());
    other_side.refuse("waits", 2);
    bench.produce(&[("k".to_owned(), "waits".to_owned())]).await;
    let worker = start(&bench, &other_side);
    bench.all_committed().await;
    worker.stop().await.expect("stops cleanly");
    // While it waits a client sends another content under its key, and then the same once more.
    let again = ["other", "waits"].map(|value| ("k".to_owned(), value.to_owned()));
    bench.produce(&again).await;
    let worker = start(&bench, &other_side);
    everything_is_committed(&bench).await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await, ["waits"]);
    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    let codes: Vec<_> = letters
        .iter()
        .map(|letter| header(letter, "dlq-error-code"))
        .collect();
    assert_eq!(codes, [Some("conflicting_repeat".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_replayed_twice_has_its_effect_once() {
    let bench = bench(1).await;
    let other_side = Arc::new(OtherSide::default());
    other_side.refuse("v", u32::MAX);
    bench.produce(&[("k".to_owned(), "v".to_owned())]).await;
    let worker = start(&bench, &other_side);
    eventually(LIMIT, || async {
        bench.observer.read_all(&bench.dead_letters()).await.len() == 1
    })
    .await;
    let letter = bench.observer.read_all(&bench.dead_letters()).await.remove(0);
    other_side.refuse("v", 0);
    let headers: [(&str, &[u8]); 2] = [
        ("origin-offset", letter_number(&letter, "dlq-offset")),
        ("origin-timestamp", letter_number(&letter, "dlq-timestamp")),
    ];
    let topic = retry_topic(&bench, DELAYS[0].0);
    for _ in 0..3 {
        bench
            .observer
            .produce_with_headers(&topic, Some(0), b"k", b"v", &headers)
            .await;
    }
    everything_is_committed(&bench).await;
    worker.stop().await.expect("stops cleanly");
    // Once more, to a worker that has seen none of it.
    bench
        .observer
        .produce_with_headers(&topic, Some(0), b"k", b"v", &headers)
        .await;
    let worker = start(&bench, &other_side);
    everything_is_committed(&bench).await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await, ["gave up v", "v"]);
}

fn letter_number<'a>(letter: &'a testkit::Record, name: &str) -> &'a [u8] {
    let found = letter.headers.iter().find(|(key, _)| key == name);
    &found.expect("every dead letter has it").1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_origin_is_a_dead_letter_with_its_place() {
    let bench = bench(1).await;
    let other_side = Arc::new(OtherSide::default());
    let topic = retry_topic(&bench, DELAYS[1].0);
    bench
        .observer
        .produce_with_headers(&topic, Some(0), b"k", b"stray", &[])
        .await;
    let worker = start(&bench, &other_side);
    everything_is_committed(&bench).await;
    worker.stop().await.expect("stops cleanly");
    let letters = bench.observer.read_all(&bench.dead_letters()).await;
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!(header(letter, "dlq-topic"), Some(topic));
    assert_eq!(
        header(letter, "dlq-error-code"),
        Some("retry_without_origin".to_owned())
    );
    assert!(bench.output_values().await.is_empty());
}
