//! Publishing all at once or not at all, and reading up to a place: on the embedded broker, and on real Kafka
//! where `ORDERFLOW_TEST_BROKER` names one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stream::reader::read_until;
use stream::transactions::{PlacedRecord, TransactionalPublisher};
use stream::{KafkaSettings, Offset, Partition, Record, StreamError};
use testkit::{TestBroker, eventually};

const LIMIT: Duration = Duration::from_secs(30);

struct Bench {
    broker: TestBroker,
    first: String,
    second: String,
    id: String,
}

async fn bench() -> Bench {
    let broker = TestBroker::start().await;
    let [first, second, id] = ["first", "second", "id"].map(|name| broker.name(name));
    for topic in [&first, &second] {
        broker.observer().create_topic(topic, 2).await;
    }
    Bench {
        broker,
        first,
        second,
        id,
    }
}

impl Bench {
    fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.broker.address().to_owned(),
            ..KafkaSettings::default()
        }
    }

    async fn open(&self) -> TransactionalPublisher {
        let (settings, id) = (self.settings(), self.id.clone());
        let opened =
            tokio::task::spawn_blocking(move || TransactionalPublisher::open(&settings, "test", &id, LIMIT));
        opened.await.unwrap().unwrap()
    }

    /// Values by topic: those of `first` and of `second`, in the order of partitions and offsets.
    async fn values(&self) -> [Vec<String>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        for (values, topic) in all.iter_mut().zip([&self.first, &self.second]) {
            let records = self.broker.observer().read_all(topic).await;
            values.extend(records.into_iter().map(|record| {
                let value = String::from_utf8(record.value.unwrap()).unwrap();
                format!("{}:{value}", record.partition)
            }));
        }
        all
    }
}

fn placed(topic: &str, partition: i32, value: impl Into<Vec<u8>>) -> PlacedRecord {
    PlacedRecord {
        topic: topic.to_owned(),
        partition: Some(Partition(partition)),
        key: None,
        value: Some(value.into()),
        headers: vec![("name".to_owned(), b"content".to_vec())],
    }
}

async fn publish(
    publisher: TransactionalPublisher,
    records: Vec<PlacedRecord>,
) -> Result<TransactionalPublisher, StreamError> {
    let published = tokio::task::spawn_blocking(move || publisher.publish(&records));
    published.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_as_a_whole_and_one_that_is_refused_leaves_nothing() {
    let bench = bench().await;
    let publisher = bench.open().await;
    let batch = vec![placed(&bench.first, 1, "a"), placed(&bench.second, 0, "b")];
    let publisher = publish(publisher, batch).await.unwrap();
    let publisher = publish(publisher, vec![placed(&bench.first, 0, "c")])
        .await
        .unwrap();
    let whole = [vec!["0:c".to_owned(), "1:a".to_owned()], vec!["0:b".to_owned()]];
    // The coordinator answers before its markers are written.
    eventually(LIMIT, || async {
        let values = bench.values().await;
        if values == whole {
            Ok(())
        } else {
            Err(format!("{values:?}"))
        }
    })
    .await;
    // The client itself takes no record of 3 MiB, after it has taken another one.
    let batch = vec![
        placed(&bench.first, 1, "d"),
        placed(&bench.second, 0, vec![b'x'; 3 << 20]),
    ];
    let refused = publish(publisher, batch).await.err().unwrap();
    assert!(refused.to_string().contains(&bench.second), "{refused}");
    assert_eq!(bench.values().await, whole);
    // Whoever comes next finds nothing open.
    let publisher = bench.open().await;
    publish(publisher, vec![placed(&bench.second, 1, "e")])
        .await
        .unwrap();
    assert_eq!(bench.values().await[1], ["0:b", "1:e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_with_one_id_the_later_one_goes_on_and_the_earlier_one_hears_of_it() {
    let bench = bench().await;
    let earlier = bench.open().await;
    let earlier = publish(earlier, vec![placed(&bench.first, 0, "a")])
        .await
        .unwrap();
    let later = bench.open().await;
    let fenced = publish(earlier, vec![placed(&bench.first, 0, "lost")])
        .await
        .err();
    assert!(
        matches!(&fenced, Some(StreamError::Fenced { id, .. }) if *id == bench.id),
        "{fenced:?}"
    );
    publish(later, vec![placed(&bench.first, 0, "b")]).await.unwrap();
    assert_eq!(bench.values().await[0], ["0:a", "0:b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_ends_at_the_places_that_were_given_and_where_the_reader_has_enough() {
    let bench = bench().await;
    let mut publisher = bench.open().await;
    // Partition 0: 0, 1 and a marker at 2, 3, 4 and a marker at 5; partition 1: 0 and a marker.
    for batch in [["a", "b"], ["c", "d"]] {
        let records = batch.map(|value| placed(&bench.first, 0, value)).to_vec();
        publisher = publish(publisher, records).await.unwrap();
    }
    publish(publisher, vec![placed(&bench.first, 1, "e")])
        .await
        .unwrap();
    let read = async |ends: &[(i32, i64)], most: usize| {
        let ends: BTreeMap<Partition, Offset> = ends
            .iter()
            .map(|(partition, end)| (Partition(*partition), Offset(*end)))
            .collect();
        let found = Arc::new(Mutex::new(Vec::new()));
        let taking = Arc::clone(&found);
        let each = move |record: &Record<'_>| {
            let mut found = taking.lock().unwrap();
            found.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            if found.len() < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let count = read_until(&bench.settings(), &bench.first, &ends, LIMIT, each).await;
        let mut found = std::mem::take(&mut *found.lock().unwrap());
        assert_eq!(count.unwrap(), found.len() as u64);
        found.sort();
        found
    };
    assert_eq!(read(&[(0, 6), (1, 2)], 100).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(read(&[(0, 4)], 100).await, ["a", "b", "c"]);
    assert_eq!(
        read(&[(0, 3)], 100).await,
        ["a", "b"],
        "a marker is the last before the end"
    );
    assert_eq!(read(&[(0, 6)], 3).await, ["a", "b", "c"]);
    assert!(read(&[], 100).await.is_empty());
}
