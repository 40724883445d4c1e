//! Old orders on topics that keep little.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use testkit::eventually;

use crate::common::{DEADLINE, Pipeline, Worker};

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// 2010-12-01T08:26:00Z, the first order of Online Retail.
const LONG_AGO_MS: i64 = 1_291_191_960_000;

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_2010_outlive_a_retention_of_a_minute_until_they_are_read() {
    let pipeline = Pipeline::without_topics().await;
    let observer = pipeline.broker.observer();
    for topic in pipeline.topics() {
        observer
            .create_topic_with(&topic, 1, &[("retention.ms", "60000")])
            .await;
    }
    let text: String = (1..=200)
        .map(|id| format!("{{\"order_id\":{id},\"amount\":5,\"country\":\"FR\",\"timestamp\":\"2010-12-01T08:26:00Z\"}}\n"))
        .collect();
    let file = pipeline.file("old.ndjson", text.as_bytes());
    let before = now_ms();
    let replayed = pipeline.replay(&file).run(DEADLINE).await;
    assert_eq!(replayed.code(), Some(0), "{}", replayed.stderr);
    let after = now_ms();

    // A record that was really stamped in 2010, in a topic of its own: when it is gone, the broker has
    // looked at what is too old since our orders came.
    let control = pipeline.broker.name("control");
    observer
        .create_topic_with(&control, 1, &[("retention.ms", "60000")])
        .await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", pipeline.broker.address());
    let producer: FutureProducer = config.create().unwrap();
    let record = FutureRecord::to(&control)
        .key("old")
        .payload("old")
        .timestamp(LONG_AGO_MS);
    producer.send(record, DEADLINE).await.unwrap();
    // The newest batch stays in devbroker until there is a newer one; in Kafka the segment goes as a whole.
    let record = FutureRecord::to(&control)
        .key("old")
        .payload("old")
        .timestamp(LONG_AGO_MS);
    producer.send(record, DEADLINE).await.unwrap();
    eventually(DEADLINE, || async {
        let left = observer.read_all(&control).await.len();
        if left < 2 {
            Ok(())
        } else {
            Err(format!(
                "{left} records of 2010 are still there; see `log.retention.check.interval.ms` of the broker"
            ))
        }
    })
    .await;

    let orders = pipeline.read(&pipeline.orders).await;
    assert_eq!(orders.len(), 200, "orders were deleted before they were read");
    for record in &orders {
        let sent = record.timestamp_ms.unwrap();
        assert!(
            (before - 1_000..=after + 1_000).contains(&sent),
            "{sent} is not the time of sending"
        );
        assert!(String::from_utf8_lossy(record.value.as_deref().unwrap()).contains("2010-12-01T08:26:00"));
    }

    // Readers come late, and what they make of the orders is kept as long.
    let mut running = Vec::new();
    for worker in Worker::ALL {
        running.push(pipeline.worker(worker).start());
    }
    pipeline.settled().await;
    let payments = pipeline.read(&pipeline.payments).await;
    assert_eq!(payments.len(), 200);
    assert!(
        payments
            .iter()
            .all(|payment| payment.timestamp_ms.unwrap() >= after)
    );
    let summary = pipeline.store().summary().await.unwrap();
    assert_eq!((summary.orders.documents, summary.payments.documents), (200, 200));
}
