//! Compacted topics as librdkafka's clients see them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use devbroker::{Broker, Options};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use support::*;
use wire::{PLAIN, Wire, batch};

/// Offset, key, value.
type Seen = (i64, String, Option<String>);

/// A broker that looks at its topics all the time, with a compacted topic `table`.
async fn compacting(settings: &[(&str, &str)]) -> Broker {
    let options = Options {
        retention_check_interval: Duration::from_millis(10),
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    let topic = NewTopic::new("table", 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("min.cleanable.dirty.ratio", "0.01");
    let topic = settings
        .iter()
        .fold(topic, |topic, (name, value)| topic.set(name, value));
    let created = admin(&broker)
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    assert!(created[0].is_ok(), "{created:?}");
    broker
}

/// Sends records together, so that they are a batch as a rule, and waits until they are in the log.
async fn write(producer: &FutureProducer, records: &[(&str, Option<&str>)]) {
    let send = |(key, value): &(&str, Option<&str>)| {
        let record = FutureRecord::<str, str>::to("table").key(*key);
        let record = value.iter().fold(record, |record, value| record.payload(*value));
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    };
    let deliveries: Vec<_> = records.iter().map(send).collect();
    for delivery in deliveries {
        delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
}

fn reader(broker: &Broker) -> BaseConsumer {
    let settings = [
        ("group.id", "reader"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
        // The end is reported when a fetch comes back empty.
        ("fetch.wait.max.ms", "10"),
    ];
    consumer(broker, &settings)
}

/// Everything that a reader of committed records sees, up to the end.
fn read_all(reader: &BaseConsumer) -> Vec<Seen> {
    let mut start = TopicPartitionList::new();
    start.add_partition_offset("table", 0, Offset::Beginning).unwrap();
    reader.assign(&start).unwrap();
    let mut seen = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the end did not come in time");
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let key = record.key().map(text).unwrap();
                seen.push((record.offset(), key, record.payload().map(text)));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return seen,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

fn table(seen: &[Seen]) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for (_, key, value) in seen {
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
    }
    table
}

/// Reads again and again until `done`.
fn read_until(reader: &BaseConsumer, done: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = read_all(reader);
        if done(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "not compacted in time: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_record_of_each_key_stays_with_its_offset_in_every_codec() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let broker = compacting(&[]).await;
        let reader = reader(&broker);
        let producer = producer(&broker, &[("compression.codec", codec), ("linger.ms", "20")]);
        for round in 0..30 {
            // Two keys of each round appear in this round alone.
            let own = [format!("once-{round}-a"), format!("once-{round}-b")];
            let shared = (0..20).map(|key| format!("key-{key}"));
            let records = shared
                .chain(own)
                .map(|key| (format!("{key} in round {round}"), key));
            let records: Vec<(String, String)> = records.collect();
            let records: Vec<_> = records
                .iter()
                .map(|(value, key)| (key.as_str(), Some(value.as_str())))
                .collect();
            write(&producer, &records).await;
        }
        // The newest batch, which has a whole round as a rule, is not looked at: the shared keys may be
        // there twice.
        let seen = read_until(&reader, |seen| {
            let compacted = broker.stats().compacted_records_total as usize;
            seen.len() <= 2 * 20 + 30 * 2 && seen.len() + compacted == 30 * 22
        });
        for (offset, key, value) in &seen {
            let round = offset / 22;
            assert_eq!(
                value.as_deref(),
                Some(format!("{key} in round {round}").as_str()),
                "{codec}"
            );
        }
        let table = table(&seen);
        assert_eq!(table.len(), 20 + 30 * 2);
        assert_eq!(table["key-7"], "key-7 in round 29");

        let mut times = TopicPartitionList::new();
        times.add_partition_offset("table", 0, Offset::Offset(0)).unwrap();
        let client = consumer(&broker, &[("group.id", "times")]);
        let found = client.offsets_for_times(times, DEADLINE).unwrap();
        let first = Offset::Offset(seen[0].0);
        assert_eq!(found.elements()[0].offset(), first, "{codec}");
        assert_ne!(first, Offset::Offset(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_goes_when_the_clock_passes_its_time() {
    let broker = compacting(&[("delete.retention.ms", "60000")]).await;
    let reader = reader(&broker);
    let producer = producer(&broker, &[]);
    for record in [("gone", Some("value")), ("gone", None), ("kept", Some("value"))] {
        write(&producer, &[record]).await;
    }
    let seen = read_until(&reader, |seen| seen.len() == 2);
    assert_eq!(
        seen[0],
        (1, "gone".to_owned(), None),
        "readers learn that the key is gone"
    );
    broker.advance_clock(Duration::from_secs(61));
    // Without anything new there is no pass.
    write(&producer, &[("other", Some("value"))]).await;
    let seen = read_until(&reader, |seen| seen.len() == 2);
    assert!(seen.iter().all(|(_, key, _)| key != "gone"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_keep_their_meaning() {
    let broker = compacting(&[("delete.retention.ms", "0")]).await;
    let mut expected = BTreeMap::new();
    let reader = reader(&broker);
    let writer = producer(&broker, &[("transactional.id", "writer")]);
    writer.init_transactions(DEADLINE).unwrap();
    for round in 0..20 {
        writer.begin_transaction().unwrap();
        let commits = round % 3 != 0;
        let value = format!("round {round}");
        for key in ["a", "b", "c", "d", "e"] {
            write(&writer, &[(key, Some(&value))]).await;
            if commits {
                expected.insert(key.to_owned(), value.clone());
            }
        }
        if commits {
            writer.commit_transaction(DEADLINE).unwrap();
        } else {
            writer.abort_transaction(DEADLINE).unwrap();
        }
        assert_eq!(table(&read_all(&reader)), expected, "round {round}");
    }
    let plain = producer(&broker, &[]);
    write(&plain, &[("last", Some("value"))]).await;
    expected.insert("last".to_owned(), "value".to_owned());
    let seen = read_until(&reader, |seen| seen.len() == 6);
    assert_eq!(table(&seen), expected);
    // The producer's numbering goes on.
    writer.begin_transaction().unwrap();
    write(&writer, &[("a", Some("again"))]).await;
    writer.commit_transaction(DEADLINE).unwrap();
    assert_eq!(table(&read_all(&reader))["a"], "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_key_is_refused() {
    let broker = compacting(&[]).await;
    let mut wire = Wire::connect(&broker).await;
    let answer = wire.produce("table", batch(2, b"x", 0, PLAIN)).await;
    assert_eq!(
        (answer.error_code, answer.base_offset),
        (87, -1),
        "INVALID_RECORD"
    );
    assert_eq!(broker.stats().records_appended_total, 0);
}
