//! The broker through confluent-kafka, the Python binding that most people use librdkafka by.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::process::Command;

use support::*;

const SCRIPT: &str = include_str!("confluent_client.py");

/// What the same script prints on Apache Kafka 4.3.1.
const ON_KAFKA: &str = "\
partitions: [3, 1]
nodes: 1
retention.ms: 7200000
left to send with none: 0
left to send with gzip: 0
left to send with snappy: 0
left to send with lz4: 0
left to send with zstd: 0
records: 10000
all values: True
committed: 10000
offsets after the abort: 0
offsets after the commit: 10000
copies: 10000
more copies: 0
the first instance: fatal True, _FENCED
last stable offset: 20004
start after deleting: 100
groups: ['auditors', 'copiers', 'readers']
state: EMPTY
partitions with offsets: 3
one group less: True
";

#[tokio::test(flavor = "multi_thread")]
async fn confluent_kafka_sees_what_it_sees_on_kafka() {
    let mut import = Command::new(python());
    if !present("confluent-kafka", import.args(["-c", "import confluent_kafka"])) {
        return;
    }
    let broker = broker().await;
    let address = broker.address().to_string();
    let output = run(Command::new("timeout").args(["120", &python(), "-c", SCRIPT, &address]));
    assert_eq!(output, ON_KAFKA);
    assert_eq!(broker.stats().malformed_total, 0);
}
