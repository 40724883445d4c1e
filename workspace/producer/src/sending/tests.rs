//! The sending loop against an outlet in memory, in paused time.

use std::sync::{Arc, Mutex};

use domain::{Currency, EventTime, admit};
use prometheus::Registry;
use stream::{Offset, Partition};
use tokio::sync::oneshot;

use super::*;
use crate::progress::Measure;

type Answer = Result<Acknowledged, StreamError>;

/// Keeps what was sent and when, and answers as told.
#[derive(Clone, Default)]
struct Memory {
    sent: Arc<Mutex<Vec<(String, Instant)>>>,
    /// Orders from this one on fail.
    fails_from: Option<usize>,
    /// Orders from this one on are never answered.
    silent_from: Option<usize>,
    silent: Arc<Mutex<Vec<oneshot::Sender<Answer>>>>,
}

impl Outlet for Memory {
    type Delivery = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

    async fn send(&self, order: &AdmittedOrder) -> Result<Self::Delivery, StreamError> {
        let mut sent = self.sent.lock().unwrap();
        sent.push((order.key.clone(), Instant::now()));
        let (sender, receiver) = oneshot::channel();
        let answer = match sent.len() - 1 {
            index if self.fails_from.is_some_and(|from| index >= from) => Err(StreamError::Delivery {
                topic: "orders".to_owned(),
                failed: 1,
                cause: "message too large".to_owned(),
            }),
            index => Ok(Acknowledged {
                partition: Partition(0),
                offset: Offset(index as i64),
            }),
        };
        if self.silent_from.is_some_and(|from| sent.len() > from) {
            self.silent.lock().unwrap().push(sender);
        } else {
            sender.send(answer).unwrap();
        }
        Ok(Box::pin(async move { receiver.await.unwrap() }))
    }

    fn topic(&self) -> &str {
        "orders"
    }

    fn trouble(&self) -> Option<String> {
        Some("1/1 brokers are down".to_owned())
    }
}

fn order(line: u64) -> Entry {
    let json = format!(r#"{{"order_id":{line},"amount":1,"country":"US"}}"#);
    Entry::Order {
        line,
        order: admit(json.as_bytes(), Currency::USD, EventTime(0)).unwrap(),
    }
}

fn bad(line: u64) -> Entry {
    Entry::Rejected {
        line,
        rejection: Rejected::line("broken".to_owned()),
        counts: true,
    }
}

fn batch(entries: Vec<Entry>) -> Batch {
    Batch {
        entries,
        orders: None,
        error: None,
    }
}

struct Replay {
    outlet: Memory,
    shutdown: Shutdown,
    rate: Option<f64>,
    strict: bool,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            outlet: Memory::default(),
            shutdown: Shutdown::new(),
            rate: None,
            strict: false,
        }
    }
}

impl Replay {
    /// `open` leaves the source without an end, as a pipe that goes on.
    async fn run(&self, batches: Vec<Batch>, open: bool) -> Ended {
        let (sender, receiver) = mpsc::channel(64);
        for batch in batches {
            sender
                .send(batch)
                .await
                .unwrap_or_else(|_| panic!("room for every batch"));
        }
        let _held = open.then_some(sender);
        let manner = Manner {
            rate: self.rate,
            strict: self.strict,
            endless: false,
            flush_timeout: Duration::from_secs(15),
        };
        let metrics = ProducerMetrics::register(&Registry::new()).unwrap();
        let progress = Progress::new(Measure::Open, Instant::now());
        let name = "orders.ndjson".to_owned();
        send_all(
            receiver,
            &self.outlet,
            &metrics,
            manner,
            progress,
            name,
            &self.shutdown,
        )
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn bad_lines_are_counted_and_the_rest_goes_on() {
    let replay = Replay::default();
    let entries = vec![order(1), bad(2), Entry::Skipped, order(4)];
    let (summary, result) = replay
        .run(vec![batch(entries), batch(vec![order(5)])], false)
        .await;
    result.unwrap();
    assert_eq!(
        (
            summary.sent,
            summary.acknowledged,
            summary.rejected,
            summary.skipped
        ),
        (3, 3, 1, 1)
    );
    assert_eq!(summary.rejected_by_code["invalid_line"], 1);
    assert!(summary.finished && summary.stopped_at_line.is_none());
}

#[tokio::test(start_paused = true)]
async fn strict_stops_at_the_first_bad_line_with_what_came_before_it_acknowledged() {
    let replay = Replay {
        strict: true,
        ..Replay::default()
    };
    let (summary, result) = replay
        .run(vec![batch(vec![order(1), bad(2), order(3)])], true)
        .await;
    let exit = result.unwrap_err();
    assert_eq!(exit.code(), 1);
    assert_eq!(
        exit.to_string(),
        "stopped at `orders.ndjson` line 2: broken (`--strict`)"
    );
    assert_eq!((summary.sent, summary.acknowledged, summary.rejected), (1, 1, 1));
    assert!(!summary.finished);
}

#[tokio::test(start_paused = true)]
async fn orders_are_sent_at_the_rate() {
    let replay = Replay {
        rate: Some(50.0),
        ..Replay::default()
    };
    let started = Instant::now();
    let (summary, result) = replay
        .run(vec![batch((1..=51).map(order).collect())], false)
        .await;
    result.unwrap();
    assert_eq!(summary.acknowledged, 51);
    let sent = replay.outlet.sent.lock().unwrap();
    let after = |index: usize| sent[index].1.duration_since(started).as_millis();
    // Timers of the runtime have a resolution of a millisecond.
    assert!(
        (499..=502).contains(&after(25)) && (999..=1002).contains(&after(50)),
        "{} {}",
        after(25),
        after(50)
    );
}

/// In real time, because paused time has no timers that round up: with one per order this takes three seconds.
#[tokio::test]
async fn without_a_rate_no_order_waits_for_a_timer() {
    let replay = Replay::default();
    let started = std::time::Instant::now();
    let (summary, result) = replay
        .run(vec![batch((1..=3000).map(order).collect())], false)
        .await;
    result.unwrap();
    assert_eq!(summary.acknowledged, 3000);
    assert!(
        started.elapsed() < Duration::from_millis(1500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_delivery_ends_the_replay_and_names_its_cause() {
    let outlet = Memory {
        fails_from: Some(2),
        ..Memory::default()
    };
    let replay = Replay {
        outlet,
        ..Replay::default()
    };
    let batches = (0..10).map(|number| batch(vec![order(number + 1)])).collect();
    let (summary, result) = replay.run(batches, true).await;
    let exit = result.unwrap_err();
    assert_eq!(exit.code(), 69);
    assert!(exit.to_string().contains("message too large"), "{exit}");
    assert_eq!(summary.acknowledged, 2);
    assert!(summary.sent < 10 && !summary.finished);
}

#[tokio::test(start_paused = true)]
async fn the_signal_to_stop_ends_the_reading_and_tells_where() {
    let replay = Replay {
        rate: Some(10.0),
        ..Replay::default()
    };
    let shutdown = replay.shutdown.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(250)).await;
        shutdown.request("SIGTERM");
    });
    let (summary, result) = replay
        .run(vec![batch((11..=90).map(order).collect())], true)
        .await;
    let exit = result.unwrap_err();
    assert_eq!(exit.code(), 1);
    assert_eq!(
        exit.to_string(),
        "stopped after `orders.ndjson` line 13 (SIGTERM); everything sent was acknowledged"
    );
    assert_eq!(
        (summary.sent, summary.acknowledged, summary.stopped_at_line),
        (3, 3, Some(13))
    );
}

#[tokio::test(start_paused = true)]
async fn a_signal_after_the_last_order_only_bounds_the_wait_for_kafka() {
    let outlet = Memory {
        silent_from: Some(1),
        ..Memory::default()
    };
    let replay = Replay {
        outlet,
        ..Replay::default()
    };
    let shutdown = replay.shutdown.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        shutdown.request("SIGTERM");
    });
    let started = Instant::now();
    let (summary, result) = replay
        .run(vec![batch(vec![order(1), order(2), order(3)])], false)
        .await;
    let exit = result.unwrap_err();
    assert_eq!(exit.code(), 69);
    assert_eq!(
        exit.to_string(),
        "2 orders were sent and not acknowledged: 1/1 brokers are down"
    );
    assert_eq!((summary.sent, summary.acknowledged), (3, 1));
    assert_eq!(started.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_file_counts_after_the_orders_before_it() {
    let replay = Replay {
        rate: Some(10.0),
        ..Replay::default()
    };
    let mut broken = batch(vec![order(1), order(2), order(3)]);
    broken.error = Some(SourceError::Unreadable(
        "`orders.ndjson` can not be read at line 4: cut".to_owned(),
    ));
    let (summary, result) = replay.run(vec![broken], false).await;
    let exit = result.unwrap_err();
    assert_eq!(
        (exit.code(), exit.to_string().as_str()),
        (1, "`orders.ndjson` can not be read at line 4: cut")
    );
    assert_eq!(
        (summary.sent, summary.acknowledged, summary.finished),
        (3, 3, false)
    );
}

/// A queue that never has room.
#[derive(Clone)]
struct Full;

impl Outlet for Full {
    type Delivery = std::future::Pending<Answer>;

    async fn send(&self, _order: &AdmittedOrder) -> Result<Self::Delivery, StreamError> {
        std::future::pending().await
    }

    fn topic(&self) -> &str {
        "orders"
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_not_hold_up_the_signal_to_stop() {
    let (sender, receiver) = mpsc::channel(1);
    sender
        .send(batch(vec![order(1)]))
        .await
        .unwrap_or_else(|_| panic!("room for a batch"));
    let shutdown = Shutdown::new();
    let later = shutdown.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        later.request("SIGTERM");
    });
    let manner = Manner {
        rate: None,
        strict: false,
        endless: false,
        flush_timeout: Duration::from_secs(15),
    };
    let metrics = ProducerMetrics::register(&Registry::new()).unwrap();
    let progress = Progress::new(Measure::Open, Instant::now());
    let started = Instant::now();
    let sent = send_all(
        receiver,
        &Full,
        &metrics,
        manner,
        progress,
        "pipe".to_owned(),
        &shutdown,
    );
    let (summary, result) = sent.await;
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!((summary.sent, result.unwrap_err().code()), (0, 1));
}
