//! How workers are members of their group, as processes: what only a process can show.

use std::collections::BTreeSet;
use std::ops::Range;

use testkit::{Launch, eventually, get};

use crate::common::{DEADLINE, Pipeline, Worker, last_error, orderflow};

/// A counter of a process, over all its series.
async fn counter(admin: &str, name: &str) -> Result<f64, String> {
    let (_, metrics) = get(&format!("http://{admin}/metrics")).await?;
    let of_name = metrics.lines().filter(|line| line.starts_with(name));
    Ok(of_name
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum())
}

async fn send(pipeline: &Pipeline, ids: Range<usize>) {
    let records: Vec<_> = ids
        .map(|id| {
            let order = format!("{{\"order_id\":{id},\"amount\":900,\"country\":\"NG\"}}");
            (id.to_string(), order)
        })
        .collect();
    let records: Vec<(&[u8], &[u8])> = records
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    pipeline
        .broker
        .observer()
        .produce(&pipeline.orders, &records)
        .await;
}

async fn alerts(pipeline: &Pipeline, wanted: usize) -> Result<(), String> {
    let alerts = pipeline.read(&pipeline.alerts).await.len();
    if alerts >= wanted {
        Ok(())
    } else {
        Err(format!("{alerts} of {wanted} alerts"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_is_killed_and_comes_back_in_time_moves_no_partition_of_the_others() {
    let pipeline = Pipeline::new(4).await;
    let member = |name: &str| -> Launch {
        pipeline
            .worker(Worker::Fraud)
            .env("ORDERFLOW__STREAM__GROUP_INSTANCE_ID", name)
            .env("ORDERFLOW__STREAM__SESSION_TIMEOUT_MS", "30000")
    };
    let (first, second) = (member("first").start(), member("second").start());
    let admins = [
        first.wait_ready(DEADLINE).await,
        second.wait_ready(DEADLINE).await,
    ];
    let mut total = 0;
    for admin in &admins {
        while counter(admin, "orderflow_records_read_total").await.unwrap() == 0.0 {
            send(&pipeline, total..total + 40).await;
            total += 40;
            eventually(DEADLINE, || alerts(&pipeline, total)).await;
        }
    }
    let rebalances = counter(&admins[1], "orderflow_rebalances_total").await.unwrap();
    first.kill();
    first.wait(DEADLINE).await;
    let first = member("first").start();
    let admin = first.wait_ready(DEADLINE).await;
    // All partitions are worked on again long before the session of the killed one is over.
    send(&pipeline, total..total + 200).await;
    total += 200;
    eventually(DEADLINE / 3, || alerts(&pipeline, total)).await;
    assert!(counter(&admin, "orderflow_records_read_total").await.unwrap() > 0.0);
    assert_eq!(
        counter(&admins[1], "orderflow_rebalances_total").await.unwrap(),
        rebalances,
        "the other member was left alone: {}",
        second.stderr()
    );
    for worker in [first, second] {
        worker.terminate();
        let ended = worker.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    let records = pipeline.read(&pipeline.alerts).await;
    let keys: BTreeSet<_> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!((records.len(), keys.len()), (total, total), "each alert once");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_instance_id_the_older_ends_with_75_and_says_why() {
    let pipeline = Pipeline::new(2).await;
    let member = || {
        pipeline
            .worker(Worker::Fraud)
            .env("ORDERFLOW__STREAM__GROUP_INSTANCE_ID", "one")
            .start()
    };
    send(&pipeline, 0..20).await;
    let older = member();
    eventually(DEADLINE, || alerts(&pipeline, 20)).await;
    let newer = member();
    let ended = older.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(75), "{}", ended.stderr);
    let error = last_error(&ended);
    assert!(
        error.contains("two processes have the same `stream.group_instance_id`"),
        "{error}"
    );
    send(&pipeline, 20..60).await;
    eventually(DEADLINE, || alerts(&pipeline, 60)).await;
    newer.terminate();
    assert_eq!(newer.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(pipeline.read(&pipeline.alerts).await.len(), 60, "each alert once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_the_consumer_protocol_would_not_use_is_refused_by_its_name() {
    let ended = orderflow(&["run", "fraud", "--check-config"])
        .env("ORDERFLOW__STREAM__GROUP_PROTOCOL", "consumer")
        .env("ORDERFLOW__STREAM__ASSIGNOR", "range")
        .env("ORDERFLOW__STREAM__SESSION_TIMEOUT_MS", "6000")
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(64), "{}", ended.stderr);
    for (variable, sentence) in [
        (
            "ORDERFLOW__STREAM__ASSIGNOR: `stream.assignor` is `range`, which would not be used",
            "the broker deals out the partitions",
        ),
        (
            "ORDERFLOW__STREAM__SESSION_TIMEOUT_MS: `stream.session_timeout_ms` is `6000`, which would not be used",
            "the broker has the time-out",
        ),
    ] {
        let line = ended.stderr.lines().find(|line| line.contains(variable));
        let line = line.unwrap_or_else(|| panic!("no `{variable}` in {}", ended.stderr));
        assert!(line.contains(sentence), "{line}");
    }
}
