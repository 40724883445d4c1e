//! The helpers against a broker: written once, run on both engines.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;

use testkit::TestBroker;

#[tokio::test]
async fn what_the_observer_writes_it_reads_back() {
    let broker = TestBroker::start().await;
    let observer = broker.observer();
    let topic = broker.name("orders");
    observer.create_topic(&topic, 3).await;

    let values: Vec<String> = (0..100)
        .map(|number| format!("{{\"order_id\":{number}}}"))
        .collect();
    let keys: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let records: Vec<(&[u8], &[u8])> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    let acknowledged = observer.produce(&topic, &records).await;

    let read = observer.read_all(&topic).await;
    assert_eq!(read.len(), 100);
    for (index, (partition, offset)) in acknowledged.into_iter().enumerate() {
        let found = read
            .iter()
            .find(|record| (record.partition, record.offset) == (partition, offset))
            .unwrap();
        assert_eq!(found.value.as_deref(), Some(values[index].as_bytes()));
        assert_eq!(found.key.as_deref(), Some(keys[index].as_bytes()));
    }
    let ends = observer.end_offsets(&topic).await;
    assert_eq!(ends.len(), 3);
    assert_eq!(ends.values().sum::<i64>(), 100);
}

#[tokio::test]
async fn headers_and_the_partition_are_kept() {
    let broker = TestBroker::start().await;
    let observer = broker.observer();
    let topic = broker.name("dead-letters");
    observer.create_topic(&topic, 2).await;
    let headers: [(&str, &[u8]); 2] = [("dlq-error-code", b"bad_json"), ("dlq-offset", b"7")];
    let place = observer
        .produce_with_headers(&topic, Some(1), b"key", b"{", &headers)
        .await;
    assert_eq!(place, (1, 0));
    let read = observer.read_all(&topic).await;
    let expected: Vec<(String, Vec<u8>)> = headers
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.to_vec()))
        .collect();
    assert_eq!(read[0].headers, expected);
}

#[tokio::test]
async fn a_group_that_committed_nothing_has_no_offsets() {
    let broker = TestBroker::start().await;
    let topic = broker.name("orders");
    broker.observer().create_topic(&topic, 2).await;
    assert_eq!(
        broker.observer().committed(&broker.name("group"), &topic).await,
        BTreeMap::new()
    );
}

#[tokio::test]
async fn names_never_repeat() {
    let broker = TestBroker::start().await;
    assert_ne!(broker.name("orders"), broker.name("orders"));
}
