//! What is no request costs little, and leaves a line in the log that says what was wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/log.rs"]
mod log;
#[path = "support/wire.rs"]
mod wire;

use std::time::Instant;

use devbroker::{Broker, Options};
use log::Log;
use tokio::io::AsyncWriteExt;
use wire::*;

/// What a thousand connections may cost, with both of their ends in this process.
const MAX_GROWTH_KB: u64 = 48 * 1024;

/// The memory of this process; `None` where the system does not say.
fn resident_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn broker() -> Broker {
    let broker = Broker::start(Options::default()).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    works(&broker).await;
    broker
}

/// The broker still serves others.
async fn works(broker: &Broker) {
    let mut wire = Wire::connect(broker).await;
    let answer = wire.produce("orders", batch(1, b"x", 0, PLAIN)).await;
    assert_eq!(answer.error_code, 0);
}

/// Sends bytes, and nothing after them, on a connection that the broker must close.
async fn refused(broker: &Broker, bytes: &[u8]) -> String {
    let mut wire = Wire::connect(broker).await;
    let peer = wire.stream.local_addr().unwrap().to_string();
    // The broker may close while this is being written, which is as good.
    drop(wire.stream.write_all(bytes).await);
    drop(wire.stream.shutdown().await);
    assert!(wire.is_closed().await);
    peer
}

/// What was logged about a connection's end, which may be a moment after the client sees it.
async fn closing_lines(log: &Log, peer: &str) -> Vec<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let lines = log.lines_with(&["WARN", "connection closed", &format!("peer={peer}")]);
        if !lines.is_empty() {
            return lines;
        }
        assert!(Instant::now() < deadline, "nothing was logged about {peer}");
        tokio::task::yield_now().await;
    }
}

/// A frame with a header of version 1 and this body.
fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 4] = [
        &key.to_be_bytes(),
        &version.to_be_bytes(),
        &[0, 0, 0, 7, 255, 255],
        body,
    ];
    let request = parts.concat();
    [&(request.len() as u32).to_be_bytes()[..], &request].concat()
}

#[tokio::test]
async fn each_kind_of_nonsense_has_a_line_that_says_what_it_was() {
    let log = Log::captured();
    let broker = broker().await;
    let cases = [
        (
            i32::MAX.to_be_bytes().to_vec(),
            "length prefix `2147483647` is out of range",
        ),
        (
            (-1_i32).to_be_bytes().to_vec(),
            "length prefix `-1` is out of range",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "length prefix `1195725856` is out of range",
        ),
        (
            vec![0, 0, 0, 100, 0, 3],
            "the connection ended inside a request: 98 of 100 bytes are missing",
        ),
        (vec![0, 0], "the connection ended inside a request"),
        (frame(999, 0, &[]), "request key `999` is not known"),
        (frame(3, 99, &[]), "version `99` of Metadata is not supported"),
        (vec![0, 0, 0, 3, 0, 3, 0], "shorter than key and version"),
        (
            frame(3, 1, &i32::MAX.to_be_bytes()),
            "the body is not a request of Metadata version 1: it has more than",
        ),
        (
            frame(3, 1, &[0, 0, 0, 1, 0]),
            "the body is not a request of Metadata version 1: it ends inside a field",
        ),
    ];
    let count = cases.len() as u64;
    for (bytes, reason) in cases {
        let peer = refused(&broker, &bytes).await;
        let lines = closing_lines(&log, &peer).await;
        assert_eq!(lines.len(), 1, "{reason}: {lines:?}");
        assert!(lines[0].contains(reason), "{}", lines[0]);
    }
    assert_eq!(broker.stats().malformed_total, count);
    works(&broker).await;
}

#[tokio::test]
async fn who_announces_much_and_sends_nothing_holds_up_nobody() {
    let broker = broker().await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::connect(&broker).await;
        wire.stream
            .write_all(&100_000_000_u32.to_be_bytes())
            .await
            .unwrap();
        silent.push(wire);
    }
    works(&broker).await;
    // Long enough to need a share of the memory too.
    let mut wire = Wire::connect(&broker).await;
    let answer = wire.produce("orders", batch(1, &[7; 500_000], 0, PLAIN)).await;
    assert_eq!(answer.error_code, 0);
}

#[tokio::test]
async fn a_thousand_idle_connections_and_gigabytes_that_never_come_cost_little() {
    let broker = broker().await;
    let before = resident_kb();
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(Wire::connect(&broker).await);
    }
    // Each of them is known to the broker, and half of a length is all that it ever hears.
    for wire in &mut idle {
        wire.stream.write_all(&[0, 0]).await.unwrap();
    }
    for _ in 0..100 {
        refused(&broker, &i32::MAX.to_be_bytes()).await;
        // A length that is allowed, of which next to nothing comes.
        refused(&broker, &[&50_000_000_u32.to_be_bytes()[..], &[0; 100]].concat()).await;
    }
    works(&broker).await;
    let deadline = Instant::now() + DEADLINE;
    while broker.stats().connections_open < 1_000 {
        assert!(Instant::now() < deadline, "{:?}", broker.stats());
        tokio::task::yield_now().await;
    }
    match before.zip(resident_kb()) {
        Some((before, after)) => {
            eprintln!("{before} KiB before, {after} KiB with 1,000 idle connections");
            assert!(
                after.saturating_sub(before) < MAX_GROWTH_KB,
                "{before} to {after} KiB"
            );
        }
        None => eprintln!("the memory of the process is not known on this system"),
    }
    broker.stop().await;
}
