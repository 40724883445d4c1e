//! The broker through kafka-python, a client that shares no code with librdkafka.
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

const SCRIPT: &str = include_str!("kafka_python.py");

#[tokio::test(flavor = "multi_thread")]
async fn kafka_python_creates_lists_produces_and_consumes() {
    if !present(
        "kafka-python",
        Command::new(python()).args(["-c", "import kafka"]),
    ) {
        return;
    }
    let broker = broker().await;
    let address = broker.address().to_string();
    let output = run(Command::new("timeout").args(["60", &python(), "-c", SCRIPT, &address]));
    assert_eq!(output.trim_end(), "done", "{output}");
    assert_eq!(broker.stats().malformed_total, 0);
}
