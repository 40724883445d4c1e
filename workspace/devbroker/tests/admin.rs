//! Topics and their settings through librdkafka's admin client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use devbroker::{Broker, BrokerError, Options};
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use support::*;

fn topic<'a>(name: &'a str, partitions: i32, settings: &[(&'a str, &'a str)]) -> NewTopic<'a> {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    settings
        .iter()
        .fold(topic, |topic, (key, value)| topic.set(key, value))
}

async fn created(broker: &Broker, topic: &NewTopic<'_>) -> Result<(), RDKafkaErrorCode> {
    let results = admin(broker)
        .create_topics([topic], &AdminOptions::new())
        .await
        .unwrap();
    results
        .into_iter()
        .next()
        .unwrap()
        .map(drop)
        .map_err(|(_, code)| code)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_created_says_why_by_its_code() {
    let broker = broker().await;
    let unreplicated = NewTopic::new("orders", 1, TopicReplication::Fixed(3));
    for (topic, expected) in [
        (topic("bad name", 1, &[]), RDKafkaErrorCode::InvalidTopic),
        (topic("orders", 0, &[]), RDKafkaErrorCode::InvalidPartitions),
        (
            topic("orders", 1, &[("retention.mss", "1")]),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (
            topic("orders", 1, &[("retention.ms", "soon")]),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (unreplicated, RDKafkaErrorCode::InvalidReplicationFactor),
    ] {
        assert_eq!(created(&broker, &topic).await, Err(expected), "{topic:?}");
    }
    assert_eq!(created(&broker, &topic("orders", 1, &[])).await, Ok(()));
    assert_eq!(
        created(&broker, &topic("orders", 1, &[])).await,
        Err(RDKafkaErrorCode::TopicAlreadyExists)
    );
    let error = broker.create_topic("orders", 1).unwrap_err();
    assert!(matches!(error, BrokerError::Topic { .. }));
    assert_eq!(
        error.to_string(),
        "can not create topic `orders`: topic `orders` exists already"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_grow_and_end_and_their_settings_can_be_read() {
    let broker = broker().await;
    let settings = [("retention.ms", "60000"), ("cleanup.policy", "delete")];
    created(&broker, &topic("orders", 2, &settings)).await.unwrap();
    let admin = admin(&broker);
    let options = AdminOptions::new();

    let resource = [ResourceSpecifier::Topic("orders")];
    let described = admin
        .describe_configs(&resource, &options)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let value = |name: &str| described.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("retention.ms").as_deref(), Some("60000"));
    assert_eq!(value("retention.bytes").as_deref(), Some("-1"));
    assert!(!described.get("retention.ms").unwrap().is_default);

    let grown = admin
        .create_partitions(&[NewPartitions::new("orders", 5)], &options)
        .await
        .unwrap();
    assert!(grown[0].is_ok(), "{grown:?}");
    let shrunk = admin
        .create_partitions(&[NewPartitions::new("orders", 3)], &options)
        .await
        .unwrap();
    assert_eq!(
        shrunk[0].clone().unwrap_err().1,
        RDKafkaErrorCode::InvalidPartitions
    );
    let client = consumer(&broker, &[("group.id", "none")]);
    let metadata = client.fetch_metadata(Some("orders"), DEADLINE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 5);

    let deleted = admin
        .delete_topics(&["orders", "missing"], &options)
        .await
        .unwrap();
    assert!(deleted[0].is_ok(), "{deleted:?}");
    assert_eq!(
        deleted[1].clone().unwrap_err().1,
        RDKafkaErrorCode::UnknownTopicOrPartition
    );
    let metadata = client.fetch_metadata(None, DEADLINE).unwrap();
    assert!(metadata.topics().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_by_its_first_use_only_where_that_is_allowed() {
    for auto_create_topics in [false, true] {
        let options = Options {
            auto_create_topics,
            default_partitions: 4,
            ..Options::default()
        };
        let broker = Broker::start(options).await.unwrap();
        let producer = producer(
            &broker,
            &[
                ("allow.auto.create.topics", "true"),
                ("message.timeout.ms", "2000"),
                ("topic.metadata.propagation.max.ms", "500"),
            ],
        );
        let record = FutureRecord::to("surprise").key("k").payload("v");
        let sent = producer
            .send_result(record)
            .map_err(|(error, _)| error)
            .unwrap()
            .await
            .unwrap();
        assert_eq!(sent.is_ok(), auto_create_topics, "{sent:?}");
        if auto_create_topics {
            let metadata = producer
                .client()
                .fetch_metadata(Some("surprise"), DEADLINE)
                .unwrap();
            assert_eq!(metadata.topics()[0].partitions().len(), 4);
        }
    }
}

#[tokio::test]
async fn a_busy_address_is_an_error_that_names_it() {
    let first = broker().await;
    let options = Options {
        listen: first.address(),
        ..Options::default()
    };
    let error = Broker::start(options).await.unwrap_err().to_string();
    assert!(error.contains(&first.address().to_string()), "{error}");
    assert!(error.contains("choose another port"), "{error}");
}
