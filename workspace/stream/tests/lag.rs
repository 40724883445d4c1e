//! How far a worker is behind: on the embedded broker, and on real Kafka where `ORDERFLOW_TEST_BROKER`
//! names one.
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

use std::time::Duration;

use metrics::series;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use stream::worker::run_handler;
use stream::{Failure, Handler, OutputTopic, Outputs, Record};
use support::{Bench, LIMIT, Running};
use testkit::eventually;

struct Copy;

impl Handler for Copy {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        let value = record.value.unwrap_or_default();
        outputs.send(OutputTopic(0), record.key.unwrap_or_default(), value);
        Ok(())
    }
}

/// A transaction with two records that stays open until it is told to commit.
fn open_transaction(bench: &Bench) -> BaseProducer {
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", bench.broker.address())
        .set("transactional.id", bench.broker.name("txn"))
        .create()
        .expect("a producer");
    producer.init_transactions(LIMIT).expect("initialised");
    producer.begin_transaction().expect("begun");
    for value in ["hidden", "hidden too"] {
        let record = BaseRecord::to(&bench.input).key("k").payload(value);
        producer.send(record).expect("queued");
    }
    producer.flush(LIMIT).expect("acknowledged");
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_an_open_transaction_is_no_lag_until_it_can_be_read() {
    let bench = Bench::new(1).await;
    let numbered = |range: std::ops::Range<usize>| -> Vec<_> {
        range.map(|number| ("k".to_owned(), number.to_string())).collect()
    };
    bench.produce(&numbered(0..5)).await;
    let open = tokio::task::block_in_place(|| open_transaction(&bench));
    bench.produce(&numbered(5..12)).await;
    let surroundings = bench.surroundings(|_| ());
    let worker = Running {
        process: surroundings.process.clone(),
        task: tokio::spawn(run_handler(bench.spec(), surroundings, || Copy)),
    };
    eventually(LIMIT, || async {
        bench.observer.committed(&bench.group, &bench.input).await.get(&0) == Some(&5)
    })
    .await;
    // The client knows of 14 records from its first fetch on, and of these five can be read.
    let lag = || series(&worker.process, "orderflow_lag_records", &bench.input);
    eventually(LIMIT, || async {
        match lag() {
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    tokio::task::block_in_place(|| open.commit_transaction(LIMIT)).expect("committed");
    bench.all_committed().await;
    eventually(Duration::from_secs(10), || async { lag() == Some(0.0) }).await;
    worker.stop().await.expect("stops cleanly");
    assert_eq!(bench.output_values().await.len(), 14);
}
