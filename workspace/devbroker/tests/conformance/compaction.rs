//! What is left of a compacted topic.

use std::time::{Duration, Instant};

use kafka_protocol::records::Record;

use crate::batches::{self, Batch};
use crate::client::{Client, Isolation, Limits, placed};
use crate::scenarios;
use crate::stage::Stage;
use crate::transactions::producer;

scenarios! {
    the_latest_value_of_each_key_stays: "After compaction each key has its latest value, at its own offset.";
    a_record_without_a_value_removes_its_key: "A tombstone takes the older values with it.";
    compaction_keeps_offsets: "High watermark and start stay, and a fetch from a removed offset gives the next record.";
    aborted_records_do_not_hide_older_ones: "The value of an aborted transaction is no value.";
}

/// How Kafka is made to compact at once: what is not in the newest segment is cleaned.
const SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "100"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("delete.retention.ms", "100"),
];
const DEADLINE: Duration = Duration::from_secs(50);

fn text(bytes: Option<&bytes::Bytes>) -> String {
    bytes.map_or("(none)".to_owned(), |bytes| {
        String::from_utf8_lossy(bytes).into_owned()
    })
}

/// All records that a read_committed client sees, markers and padding left out.
async fn visible(client: &mut Client, topic: &str) -> Vec<Record> {
    let mut seen = Vec::new();
    let mut offset = 0;
    loop {
        // A fetch of Kafka reads one segment; there are several.
        let answer = client
            .fetch(topic, 0, offset, Limits::none(Isolation::Committed))
            .await;
        let aborted = answer.aborted_transactions.unwrap_or_default();
        let records = batches::records(&answer.records.unwrap_or_default());
        let Some(last) = records.last() else {
            if offset >= answer.last_stable_offset {
                return seen;
            }
            // A batch of which nothing is left.
            offset += 1;
            continue;
        };
        let next = last.offset + 1;
        // A producer has one transaction at the most in these scenarios.
        let is_aborted = |record: &Record| {
            aborted
                .iter()
                .any(|one| one.producer_id.0 == record.producer_id && one.first_offset <= record.offset)
        };
        let fresh = |record: &Record| record.offset >= offset && !record.control && !is_aborted(record);
        seen.extend(records.into_iter().filter(fresh));
        offset = next;
    }
}

/// Appends padding, which begins new segments, until compaction has left what is wanted; panics at the
/// deadline.
async fn until_compacted(client: &mut Client, topic: &str, left: &[&str]) -> Vec<Record> {
    let began = Instant::now();
    loop {
        // The segment that is written to is never cleaned: this ends it.
        let now = began.elapsed().as_millis() as i64;
        let padding = Batch::keyed(&[("padding", Some("x"))]).at(60_000 + now);
        client.produce(topic, &padding).await;
        let seen = visible(client, topic).await;
        let others = |record: &&Record| text(record.key.as_ref()) != "padding";
        let others: Vec<Record> = seen.iter().filter(others).cloned().collect();
        let values: Vec<String> = others.iter().map(shown).collect();
        if values == left {
            return others;
        }
        assert!(began.elapsed() < DEADLINE, "still there: {values:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn shown(record: &Record) -> String {
    format!("{}={}", text(record.key.as_ref()), text(record.value.as_ref()))
}

fn note_records(stage: &mut Stage, records: &[Record]) {
    for record in records {
        stage.note(format!("offset {}", record.offset), shown(record));
    }
}

async fn the_latest_value_of_each_key_stays(stage: &mut Stage) {
    let topic = stage.topic_with(1, &SETTINGS).await;
    let mut client = stage.client().await;
    for round in 0..3 {
        let value = format!("round {round}");
        let batch = Batch::keyed(&[("a", Some(&value)), ("b", Some(&value))]);
        client.produce(&topic, &batch).await;
    }
    let batch = Batch::keyed(&[("a", Some("last")), ("c", Some("only"))]);
    client.produce(&topic, &batch).await;
    let left = until_compacted(&mut client, &topic, &["b=round 2", "a=last", "c=only"]).await;
    note_records(stage, &left);
}

async fn a_record_without_a_value_removes_its_key(stage: &mut Stage) {
    let topic = stage.topic_with(1, &SETTINGS).await;
    let mut client = stage.client().await;
    let batch = Batch::keyed(&[("a", Some("1")), ("b", Some("1"))]);
    client.produce(&topic, &batch).await;
    client.produce(&topic, &Batch::keyed(&[("a", None)])).await;
    let left = until_compacted(&mut client, &topic, &["b=1"]).await;
    note_records(stage, &left);
}

async fn compaction_keeps_offsets(stage: &mut Stage) {
    let topic = stage.topic_with(1, &SETTINGS).await;
    let mut client = stage.client().await;
    for value in ["1", "2", "3", "4"] {
        let answer = client.produce(&topic, &Batch::keyed(&[("a", Some(value))])).await;
        stage.note("produce", placed(&answer));
    }
    let left = until_compacted(&mut client, &topic, &["a=4"]).await;
    note_records(stage, &left);
    let answer = client
        .fetch(&topic, 0, 1, Limits::none(Isolation::Uncommitted))
        .await;
    let records = batches::records(&answer.records.unwrap_or_default());
    stage.note("a fetch from 1", crate::client::error(answer.error_code));
    stage.note(
        "its first record",
        records.first().map_or(-1, |record| record.offset),
    );
    stage.note("log start", answer.log_start_offset);
}

async fn aborted_records_do_not_hide_older_ones(stage: &mut Stage) {
    let topic = stage.topic_with(1, &SETTINGS).await;
    let mut client = stage.client().await;
    let batch = Batch::keyed(&[("a", Some("0")), ("a", Some("1"))]);
    client.produce(&topic, &batch).await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    let batch = Batch::keyed(&[("a", Some("2"))])
        .numbered(a.producer_id, a.epoch, 0)
        .transactional();
    client.produce_in(&a.transactional_id, &topic, 0, &batch).await;
    client.abort(&a).await;
    client.until_stable(&topic, 0, 4).await;
    let left = until_compacted(&mut client, &topic, &["a=1"]).await;
    note_records(stage, &left);
}
