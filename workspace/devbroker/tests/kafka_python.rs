//! The broker through kafka-python, a client that shares no code with librdkafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::process::Command;

use certificates::Authority;
use devbroker::security::{Authorization, Sasl, Security};
use devbroker::{Broker, Options};
use support::*;

const SCRIPT: &str = include_str!("kafka_python.py");
const SECURITY_SCRIPT: &str = include_str!("kafka_python_security.py");

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

#[tokio::test(flavor = "multi_thread")]
async fn kafka_python_authenticates_over_tls_and_does_what_it_may() {
    if !present(
        "kafka-python",
        Command::new(python()).args(["-c", "import kafka"]),
    ) {
        return;
    }
    let authority = Authority::new("test authority");
    let security = Security {
        tls: Some(authority.broker()),
        sasl: Some(Sasl::users([("admin", "admin-secret"), ("app", "app-secret")])),
        authorization: Some(Authorization {
            super_users: vec!["User:admin".to_owned()],
            acls: Vec::new(),
        }),
        ..Security::default()
    };
    let options = Options {
        security,
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    let address = broker.address().to_string();
    let script = ["60", &python(), "-c", SECURITY_SCRIPT, &address, &authority.pem()];
    let output = run(Command::new("timeout").args(script));
    assert_eq!(output.trim_end(), "done", "{output}");
    assert_eq!(broker.stats().malformed_total, 0);
}
