//! The broker through Kafka's own client, in Java, which shares no code with librdkafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::*;

/// Run as it is: Java compiles a single source file by itself.
const PROGRAM: &str = "tests/JavaClient.java";

/// What the same program prints on Apache Kafka 4.3.1.
const ON_KAFKA: &str = "\
topics: true
partitions: 3
nodes: 1
has a controller: true
retention.ms: 3600000
retention.ms after the change: 7200000
the same topic again: TopicExistsException
records: 2500
each of them once: true
committed: 2500
offsets after the abort: 0
offsets after the commit: 2500
copies: 2500
different ones: 2500
last offset: 5000
more copies: 0
the first instance: ProducerFencedException
earliest: 0
latest: 5006
start after deleting: 100
groups: [auditors, copiers, readers]
state: Empty
offsets left: [1, 2]
one group less: true
transactions: {copier=CompleteCommit, twin=CompleteCommit}
described: CompleteCommit
producers of payments: 2
";

#[tokio::test(flavor = "multi_thread")]
async fn the_java_client_sees_what_it_sees_on_kafka() {
    let mut compiler = Command::new("java");
    if !present(
        "a Java compiler",
        compiler.args(["--describe-module", "jdk.compiler"]),
    ) {
        return;
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("../../scripts/kafka");
    let jars = || Command::new(&script).arg("jars").output();
    if !present("Kafka's jars", Command::new(&script).arg("jars")) {
        return;
    }
    let jars = String::from_utf8(jars().unwrap().stdout).unwrap();
    let broker = broker().await;
    let address = broker.address().to_string();
    let classes = format!("{}/*", jars.trim_end());
    // Without a configuration, logging is a complaint about that on the standard error.
    let mut java = Command::new("timeout");
    java.args(["120", "java", "-XX:TieredStopAtLevel=1", "-cp", &classes]);
    let output = run(java.arg(root.join(PROGRAM)).arg(&address));
    assert_eq!(output, ON_KAFKA);
    assert_eq!(broker.stats().malformed_total, 0);
}
