//! Workers that stop, die and share their work, in the middle of a replay.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;
use testkit::{Ended, Running, Signal, eventually, get};

use crate::common::{DEADLINE, Pipeline, Worker};

const COUNTRIES: [&str; 5] = ["US", "FR", "CA", "DE", "NG"];

/// Made-up orders, and what has to become of them: computed here, from the rule as the issue words it.
struct Orders {
    text: String,
    ids: BTreeSet<String>,
    /// More than 300 and neither from the US nor from Canada.
    alerts: BTreeSet<String>,
}

impl Orders {
    fn new(count: u64) -> Self {
        let (mut text, mut ids, mut alerts) = (String::new(), BTreeSet::new(), BTreeSet::new());
        for id in 1..=count {
            // From 0.01 to 600.00 with no regard to the country.
            let cents = id * 7_919 % 60_000 + 1;
            let country = COUNTRIES[(id % 5) as usize];
            let (major, minor) = (cents / 100, cents % 100);
            writeln!(
                text,
                r#"{{"order_id":{id},"amount":{major}.{minor:02},"country":"{country}"}}"#
            )
            .unwrap();
            ids.insert(id.to_string());
            if cents > 30_000 && country != "US" && country != "CA" {
                alerts.insert(id.to_string());
            }
        }
        assert!(
            alerts.len() as u64 > count / 5,
            "the orders are made so that many are suspicious"
        );
        Self { text, ids, alerts }
    }
}

/// How often orders had more than one output.
struct Repeats {
    payments: usize,
    alerts: usize,
}

/// Every order has its payment, its document and, when due, its alert; nothing else is there. Where an
/// order has several payments or alerts, they have one id.
async fn check(pipeline: &Pipeline, wanted: &Orders) -> Repeats {
    let ids = |found: &BTreeMap<String, Vec<Value>>| found.keys().cloned().collect::<BTreeSet<_>>();
    let repeats = |found: &BTreeMap<String, Vec<Value>>, id: &str| -> usize {
        for (order, outputs) in found {
            let different: BTreeSet<String> = outputs.iter().map(|output| output[id].to_string()).collect();
            assert_eq!(different.len(), 1, "order {order}: {different:?}");
        }
        found.values().map(|outputs| outputs.len() - 1).sum()
    };
    assert_eq!(
        ids(&pipeline.by_order(&pipeline.orders, "order_id").await),
        wanted.ids
    );
    let payments = pipeline.by_order(&pipeline.payments, "order_id").await;
    let missing: Vec<_> = wanted.ids.difference(&ids(&payments)).cloned().collect();
    assert_eq!(missing, [""; 0], "orders without a payment");
    assert_eq!(payments.len(), wanted.ids.len());
    let alerts = pipeline.by_order(&pipeline.alerts, "orderId").await;
    assert_eq!(ids(&alerts), wanted.alerts);
    let (records, store) = (&wanted.ids, pipeline.store());
    for id in records {
        let record = store
            .order(id)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("order {id} has no document"));
        assert!(
            record.payment.is_some(),
            "the payment of order {id} has no document"
        );
        assert_eq!(
            record.alert.is_some(),
            wanted.alerts.contains(id),
            "the alert of order {id}"
        );
    }
    assert_eq!(
        store.summary().await.unwrap().orders.documents,
        wanted.ids.len() as u64
    );
    for topic in Worker::ALL
        .into_iter()
        .flat_map(|worker| pipeline.dead_letters(worker))
    {
        assert_eq!(pipeline.read(&topic).await, [], "{topic}");
    }
    Repeats {
        payments: repeats(&payments, "payment_id"),
        alerts: repeats(&alerts, "alertId"),
    }
}

/// Waits until the worker has committed some of the orders, signals it, and waits for its end. What it had
/// committed by then is returned, to show that it was in the middle.
async fn stop_in_the_middle(
    pipeline: &Pipeline,
    worker: Worker,
    running: Running,
    after: i64,
    signal: Signal,
) -> (Ended, i64) {
    eventually(DEADLINE, || async {
        let committed = pipeline.committed_orders(worker).await;
        if committed >= after {
            Ok(())
        } else {
            Err(format!("{worker:?} has committed {committed}"))
        }
    })
    .await;
    running.signal(signal);
    let ended = running.wait(DEADLINE).await;
    (ended, pipeline.committed_orders(worker).await)
}

/// Runs a replay during which each worker is stopped by `signal` and started again.
async fn replay_with_stops(
    pipeline: &Pipeline,
    orders: &Orders,
    rate: &str,
    signal: Signal,
) -> BTreeMap<Worker, Ended> {
    let count = orders.ids.len() as i64;
    let mut running: BTreeMap<Worker, Running> = BTreeMap::new();
    for worker in Worker::ALL {
        running.insert(worker, pipeline.worker(worker).start());
    }
    for worker in running.values() {
        worker.wait_ready(DEADLINE).await;
    }
    let file = pipeline.file("orders.ndjson", orders.text.as_bytes());
    let replay = pipeline.replay(&file).arg("--rate").arg(rate).start();
    let mut ends = BTreeMap::new();
    for (worker, after) in Worker::ALL.into_iter().zip([count / 20, count / 5, count / 3]) {
        let stopped = running.remove(&worker).unwrap();
        let (ended, committed) = stop_in_the_middle(pipeline, worker, stopped, after, signal).await;
        assert!(
            committed < count,
            "{worker:?} was not stopped in the middle, it had committed {committed}"
        );
        ends.insert(worker, ended);
        running.insert(worker, pipeline.worker(worker).start());
    }
    let replayed = replay.wait(DEADLINE).await;
    assert_eq!(replayed.code(), Some(0), "{}", replayed.stderr);
    pipeline.settled().await;
    for worker in running.into_values() {
        worker.terminate();
        let ended = worker.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_told_to_stop_in_the_middle_go_on_where_they_stopped_and_do_nothing_twice() {
    let pipeline = Pipeline::new(3).await;
    let orders = Orders::new(12_000);
    let ends = replay_with_stops(&pipeline, &orders, "800", Signal::TERM).await;
    for (worker, ended) in ends {
        assert_eq!(ended.code(), Some(0), "{worker:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("left the group"),
            "{worker:?}: {}",
            ended.stderr
        );
    }
    let repeats = check(&pipeline, &orders).await;
    // What was published is committed before the process leaves: a clean stop costs no repeats.
    assert_eq!((repeats.payments, repeats.alerts), (0, 0));
    pipeline.holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_in_the_middle_leave_nothing_out_and_do_nothing_twice() {
    let pipeline = Pipeline::new(3).await;
    let orders = Orders::new(16_000);
    let ends = replay_with_stops(&pipeline, &orders, "800", Signal::KILL).await;
    assert!(
        ends.values().all(|ended| ended.code().is_none()),
        "killed, not ended"
    );
    // What a killed worker had not committed is aborted, and readers of committed records never see it.
    let repeats = check(&pipeline, &orders).await;
    assert_eq!((repeats.payments, repeats.alerts), (0, 0));
    pipeline.holds().await;
}

/// The value of the first series of a metric for the topic `orders`, as the process itself says.
async fn metric_of_orders(pipeline: &Pipeline, admin: &str, name: &str) -> Result<Option<u64>, String> {
    let (_, metrics) = get(&format!("http://{admin}/metrics")).await?;
    let start = format!("{name}{{");
    let topic = format!("topic=\"{}\"", pipeline.orders);
    let series = |line: &str| line.starts_with(&start) && line.contains(&topic);
    let value = metrics.lines().find(|line| series(line));
    Ok(value.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()))
}

/// Waits until the metric of each of these processes is there and is at least so much.
async fn each_shows(pipeline: &Pipeline, workers: &[(Worker, Running)], name: &str, least: u64) {
    for (worker, running) in workers {
        let admin = running.wait_ready(DEADLINE).await;
        eventually(DEADLINE, || async {
            match metric_of_orders(pipeline, &admin, name).await? {
                Some(value) if value >= least => Ok(()),
                value => Err(format!("{name} of the second {worker:?} is {value:?}")),
            }
        })
        .await;
    }
}

/// Two instances of each worker share a replay; when both have worked, the second one of each ends by `signal`.
/// The replay has three parts, so that what is meant to happen in its middle does so however slow the machine.
async fn replay_with_two_instances(pipeline: &Pipeline, orders: &Orders, signal: Signal) {
    let lines: Vec<&str> = orders.text.split_inclusive('\n').collect();
    let replay = |number: usize| {
        let part: String = lines
            .chunks(lines.len().div_ceil(3))
            .nth(number)
            .unwrap()
            .concat();
        let file = pipeline.file(&format!("orders-{number}.ndjson"), part.as_bytes());
        pipeline.replay(&file).arg("--rate").arg("400").start()
    };
    let mut first = Vec::new();
    for worker in Worker::ALL {
        let running = pipeline.worker(worker).start();
        running.wait_ready(DEADLINE).await;
        first.push((worker, running));
    }
    let mut replays = vec![replay(0)];
    // The second ones come in the middle: their partitions are taken from the first ones at work.
    let second: Vec<_> = Worker::ALL
        .into_iter()
        .map(|worker| (worker, pipeline.worker(worker).start()))
        .collect();
    each_shows(pipeline, &second, stream::metrics::LAG_RECORDS, 0).await;
    replays.push(replay(1));
    each_shows(pipeline, &second, stream::metrics::RECORDS_READ, 1).await;
    replays.push(replay(2));
    for (worker, running) in second {
        running.signal(signal);
        let ended = running.wait(DEADLINE).await;
        assert_eq!(
            ended.code(),
            (signal == Signal::TERM).then_some(0),
            "{worker:?}: {}",
            ended.stderr
        );
    }
    for replay in replays {
        let replayed = replay.wait(DEADLINE).await;
        assert_eq!(replayed.code(), Some(0), "{}", replayed.stderr);
    }
    pipeline.settled().await;
    for (worker, running) in first {
        running.terminate();
        let ended = running.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{worker:?}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_an_instance_that_is_killed_go_to_the_other_one_and_nothing_is_left_out() {
    let pipeline = Pipeline::new(4).await;
    let orders = Orders::new(3_000);
    replay_with_two_instances(&pipeline, &orders, Signal::KILL).await;
    check(&pipeline, &orders).await;
    pipeline.holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_joins_and_leaves_in_the_middle_leaves_nothing_out() {
    let pipeline = Pipeline::new(4).await;
    let orders = Orders::new(3_000);
    replay_with_two_instances(&pipeline, &orders, Signal::TERM).await;
    check(&pipeline, &orders).await;
    pipeline.holds().await;
}
