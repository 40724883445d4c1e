//! The broker through kcat, an older librdkafka with its own ideas of versions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use devbroker::Broker;
use support::*;

fn kcat(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["30", "kcat", "-b", &broker.address().to_string(), "-q"])
        .args(arguments);
    command
}

fn produce(broker: &Broker, arguments: &[&str], lines: &str) {
    let mut arguments = arguments.to_vec();
    arguments.push("-P");
    let mut child = kcat(broker, &arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    succeeded(&child.wait_with_output().unwrap());
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| format!("order-{number}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_lists_produces_consumes_and_asks_for_offsets() {
    if !present("kcat", Command::new("kcat").arg("-V")) {
        return;
    }
    let broker = broker().await;
    broker.create_topic("orders", 2).unwrap();

    let listed = run(&mut kcat(&broker, &["-L"]));
    assert!(listed.contains("topic \"orders\" with 2 partitions"), "{listed}");
    assert!(
        listed.contains(&format!("broker 1 at {} (controller)", broker.address())),
        "{listed}"
    );

    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let before = broker.stats().bytes_appended_total;
        produce(&broker, &["-t", "orders", "-z", codec], &numbers(1_000));
        let bytes = broker.stats().bytes_appended_total - before;
        // 1,000 lines have 11 KB; an older librdkafka that finds no codec supported sends them plain.
        assert!(
            codec == "none" || bytes < 11_000,
            "{codec} was not compressed: {bytes} bytes"
        );
    }
    let consumed = run(&mut kcat(
        &broker,
        &["-C", "-t", "orders", "-o", "beginning", "-e"],
    ));
    assert_eq!(sorted(&consumed), sorted(&numbers(1_000).repeat(5)));

    let ends: Vec<String> = (0..2)
        .map(|partition| {
            run(&mut kcat(
                &broker,
                &["-Q", "-t", &format!("orders:{partition}:-1")],
            ))
        })
        .collect();
    let end = |text: &String| text.trim().rsplit(' ').next().unwrap().parse::<i64>().unwrap();
    assert_eq!(ends.iter().map(end).sum::<i64>(), 5_000, "{ends:?}");
    let start = run(&mut kcat(&broker, &["-Q", "-t", "orders:0:-2"]));
    assert!(start.contains("offset 0"), "{start}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_consumes_in_a_group_and_resumes() {
    if !present("kcat", Command::new("kcat").arg("-V")) {
        return;
    }
    let broker = broker().await;
    broker.create_topic("orders", 3).unwrap();
    let group = [
        "-e",
        "-X",
        "auto.offset.reset=earliest",
        "-G",
        "kcat-group",
        "orders",
    ];
    produce(&broker, &["-t", "orders"], &numbers(300));
    assert_eq!(sorted(&run(&mut kcat(&broker, &group))), sorted(&numbers(300)));
    produce(&broker, &["-t", "orders"], "late\n");
    assert_eq!(
        run(&mut kcat(&broker, &group)),
        "late\n",
        "only what came after the commit"
    );
}
