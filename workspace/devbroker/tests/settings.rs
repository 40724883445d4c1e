//! Topic settings that change while the broker works.
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

use std::time::Duration;

use devbroker::{Broker, Options};
use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use support::admin;
use wire::{PLAIN, Wire, batch};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// A time long ago, so that any `retention.ms` has passed.
const IN_2010: i64 = 1_291_200_000_000;

type Change<'a> = (&'a str, i8, Option<&'a str>);

/// A broker whose own round comes too late for these tests: what they see is done at once.
async fn broker() -> Broker {
    let options = Options {
        retention_check_interval: Duration::from_secs(3_600),
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    broker
}

fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = changes.iter().map(|(name, operation, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

/// The codes of the answer.
async fn alter(wire: &mut Wire, resources: Vec<AlterConfigsResource>, validate_only: bool) -> Vec<i16> {
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources)
        .with_validate_only(validate_only);
    let answer = wire.call(1, &request).await;
    for response in &answer.responses {
        let explained = response.error_message.is_some();
        assert_eq!(explained, response.error_code != 0, "{response:?}");
    }
    answer
        .responses
        .iter()
        .map(|response| response.error_code)
        .collect()
}

async fn alter_orders(wire: &mut Wire, changes: &[Change<'_>]) -> i16 {
    alter(wire, vec![resource(TOPIC, "orders", changes)], false).await[0]
}

/// A setting as DescribeConfigs shows it, and whether it is the default.
async fn described(broker: &Broker, setting: &str) -> (String, bool) {
    let described = admin(broker)
        .describe_configs(&[ResourceSpecifier::Topic("orders")], &AdminOptions::new())
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let entry = described.get(setting).unwrap();
    (entry.value.clone().unwrap(), entry.is_default)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_setting_works_at_once_and_until_it_is_deleted() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    for _ in 0..3 {
        wire.produce("orders", batch(2, b"x", IN_2010, PLAIN)).await;
    }
    let ages = [resource(TOPIC, "orders", &[("retention.ms", SET, Some("60000"))])];
    assert_eq!(alter(&mut wire, ages.to_vec(), true).await, [0]);
    let untouched = wire.fetch("orders", 6, Duration::ZERO).await;
    assert_eq!(untouched.log_start_offset, 0, "to validate is not to change");
    assert_eq!(alter(&mut wire, ages.to_vec(), false).await, [0]);
    let aged = wire.fetch("orders", 6, Duration::ZERO).await;
    assert_eq!(aged.log_start_offset, 4, "the newest batch stays");
    assert_eq!(
        described(&broker, "retention.ms").await,
        ("60000".to_owned(), false)
    );

    let sizes = [
        ("retention.ms", DELETE, None),
        ("max.message.bytes", SET, Some("200")),
        ("retention.bytes", SET, Some("250")),
    ];
    assert_eq!(alter_orders(&mut wire, &sizes).await, 0);
    assert_eq!(described(&broker, "retention.ms").await, ("-1".to_owned(), true));
    let large = wire.produce("orders", batch(1, &[1; 200], IN_2010, PLAIN)).await;
    assert_eq!(large.error_code, 10, "MESSAGE_TOO_LARGE");
    for _ in 0..5 {
        let small = wire.produce("orders", batch(1, &[1; 50], IN_2010, PLAIN)).await;
        assert_eq!(small.error_code, 0);
    }
    let bounded = wire.fetch("orders", 11, Duration::ZERO).await;
    assert_eq!(bounded.log_start_offset, 9, "two batches of 119 bytes fit");

    assert_eq!(
        alter_orders(&mut wire, &[("max.message.bytes", DELETE, None)]).await,
        0
    );
    let large = wire.produce("orders", batch(1, &[1; 200], IN_2010, PLAIN)).await;
    assert_eq!(large.error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_cleanup_policy_come_and_go() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    for (operation, value, expected) in [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact,delete", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SET, "compact, delete", "compact,delete"),
    ] {
        let change = ("cleanup.policy", operation, Some(value));
        assert_eq!(alter_orders(&mut wire, &[change]).await, 0);
        assert_eq!(
            described(&broker, "cleanup.policy").await,
            (expected.to_owned(), false)
        );
    }
}

/// The codes are those of Apache Kafka 4.3, except that it answers an unknown operation with
/// UNKNOWN_SERVER_ERROR.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_changed_has_its_code_and_changes_nothing() {
    const UNKNOWN_TOPIC: i16 = 3;
    const INVALID_TOPIC: i16 = 17;
    const INVALID_CONFIG: i16 = 40;
    const INVALID_REQUEST: i16 = 42;
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    let good = ("retention.ms", SET, Some("60000"));
    let cases: &[(i8, &str, &[Change<'_>], i16)] = &[
        (TOPIC, "missing", &[good], UNKNOWN_TOPIC),
        (TOPIC, "a b", &[good], INVALID_TOPIC),
        (TOPIC, "", &[good], INVALID_REQUEST),
        (
            TOPIC,
            "orders",
            &[good, ("retention.mss", SET, Some("1"))],
            INVALID_CONFIG,
        ),
        (
            TOPIC,
            "orders",
            &[good, ("retention.bytes", SET, Some("many"))],
            INVALID_CONFIG,
        ),
        (
            TOPIC,
            "orders",
            &[("retention.ms", APPEND, Some("1"))],
            INVALID_CONFIG,
        ),
        (TOPIC, "orders", &[("retention.ms", SET, None)], INVALID_REQUEST),
        (
            TOPIC,
            "orders",
            &[("retention.ms", 9, Some("1"))],
            INVALID_REQUEST,
        ),
        (TOPIC, "orders", &[good, good], INVALID_REQUEST),
        (
            BROKER,
            "1",
            &[("num.partitions", SET, Some("7"))],
            INVALID_REQUEST,
        ),
        (99, "x", &[good], INVALID_REQUEST),
    ];
    for (kind, name, changes, code) in cases {
        let answered = alter(&mut wire, vec![resource(*kind, name, changes)], false).await;
        assert_eq!(answered, [*code], "{kind} `{name}` {changes:?}");
    }
    let twice = vec![resource(TOPIC, "orders", &[good]); 2];
    assert_eq!(
        alter(&mut wire, twice, false).await,
        [INVALID_REQUEST, INVALID_REQUEST]
    );
    assert_eq!(described(&broker, "retention.ms").await, ("-1".to_owned(), true));
    // One resource that is refused does not stop the other.
    let mixed = vec![
        resource(TOPIC, "missing", &[good]),
        resource(TOPIC, "orders", &[good]),
    ];
    assert_eq!(alter(&mut wire, mixed, false).await, [UNKNOWN_TOPIC, 0]);
    assert!(!described(&broker, "retention.ms").await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn librdkafka_replaces_all_settings_of_a_topic() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    let before = [
        ("retention.ms", SET, Some("60000")),
        ("retention.bytes", SET, Some("9")),
    ];
    assert_eq!(alter_orders(&mut wire, &before).await, 0);
    let replacement = AlterConfig::new(ResourceSpecifier::Topic("orders")).set("retention.bytes", "77");
    let altered = admin(&broker)
        .alter_configs([&replacement], &AdminOptions::new())
        .await
        .unwrap();
    assert!(altered[0].is_ok(), "{altered:?}");
    assert_eq!(described(&broker, "retention.ms").await, ("-1".to_owned(), true));
    assert_eq!(
        described(&broker, "retention.bytes").await,
        ("77".to_owned(), false)
    );
}
