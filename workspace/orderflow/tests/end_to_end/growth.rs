//! Topics that grow while the pipeline runs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use testkit::eventually;

use crate::common::{DEADLINE, Pipeline, Worker, topics_file};

#[tokio::test(flavor = "multi_thread")]
async fn topics_grow_while_workers_run_and_every_order_is_paid_and_alerted_once() {
    let pipeline = Pipeline::new(2).await;
    let file = |partitions: i32| {
        let mut text = topics_file(&pipeline.topics(), partitions);
        for derived in [&pipeline.payments, &pipeline.alerts] {
            let name = format!("[topics.\"{derived}\"]\n");
            text = text.replace(&name, &format!("{name}source = \"{}\"\n", pipeline.orders));
        }
        pipeline.file(&format!("topics-{partitions}.toml"), text.as_bytes())
    };
    let apply = |file: &Path| {
        pipeline
            .launch(&["topics", "apply", "--file"])
            .arg(file)
            .run(DEADLINE)
    };
    let workers: Vec<_> = [Worker::Fraud, Worker::Payment]
        .into_iter()
        .map(|worker| {
            pipeline
                .worker(worker)
                .env("ORDERFLOW__STREAM__METADATA_REFRESH_MS", "200")
                .start()
        })
        .collect();
    let order = |id: usize| format!("{{\"order_id\":{id},\"amount\":900,\"country\":\"NG\"}}");
    let send = |ids: Range<usize>| {
        let records: Vec<_> = ids.map(|id| (id.to_string(), order(id))).collect();
        let observer = pipeline.broker.observer();
        let orders = pipeline.orders.clone();
        async move {
            let records: Vec<(&[u8], &[u8])> = records
                .iter()
                .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
                .collect();
            observer.produce(&orders, &records).await;
        }
    };
    send(0..100).await;
    let applied = apply(&file(5)).await;
    assert_eq!(applied.code(), Some(0), "{}", applied.stderr);
    let grown: Vec<_> = applied
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("grown    "))
        .collect();
    assert_eq!(grown.len(), pipeline.topics().len());
    assert_eq!(
        grown.last().copied(),
        Some(format!("{}: 2 -> 5 partitions", pipeline.orders).as_str()),
        "what the others derive from grows last: {grown:?}"
    );
    send(100..300).await;
    for topic in [&pipeline.payments, &pipeline.alerts] {
        eventually(DEADLINE, || async {
            pipeline.broker.observer().read_all(topic).await.len() >= 300
        })
        .await;
    }
    for worker in workers {
        worker.terminate();
        let ended = worker.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    for topic in [&pipeline.payments, &pipeline.alerts] {
        let records = pipeline.broker.observer().read_all(topic).await;
        let keys: BTreeSet<_> = records.iter().map(|record| record.key.clone()).collect();
        assert_eq!((records.len(), keys.len()), (300, 300), "{topic}");
        let used: BTreeSet<_> = records.iter().map(|record| record.partition).collect();
        assert_eq!(used.len(), 5, "{topic}");
    }
    // Nothing is ever taken away.
    let applied = apply(&file(3)).await;
    assert_eq!(applied.code(), Some(0), "{}", applied.stderr);
    let kept = format!(
        "kept     {}: has 5 partitions and should have 3; partitions can not be taken away, so raise the number in the file",
        pipeline.orders
    );
    assert!(
        applied.stdout.lines().any(|line| line == kept),
        "{}",
        applied.stdout
    );
}
