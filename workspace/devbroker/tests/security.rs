//! Security with librdkafka: each protocol and mechanism, and what is heard on both sides when a
//! client can not come in, or may not do what it wants.
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

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use certificates::{Authority, Issued};
use devbroker::security::{
    Acl, Authorization, Mechanism, Operation, Password, ResourcePattern, ResourceType, Sasl, Security,
};
use devbroker::{ApiKey, Broker, BrokerError, Fault, Options, ResponseError};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, FutureProducer, FutureRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use support::*;

const MECHANISMS: [Mechanism; 3] = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

async fn start(security: Security) -> Broker {
    let options = Options {
        security,
        ..Options::default()
    };
    Broker::start(options).await.unwrap()
}

fn users() -> Option<Sasl> {
    Some(Sasl::users([("admin", "admin-secret"), ("app", "app-secret")]))
}

type Settings = Vec<(&'static str, String)>;

fn login(protocol: &str, mechanism: Mechanism, user: &str, password: &str) -> Settings {
    vec![
        ("security.protocol", protocol.to_owned()),
        ("sasl.mechanism", mechanism.name().to_owned()),
        ("sasl.username", user.to_owned()),
        ("sasl.password", password.to_owned()),
    ]
}

fn plain(user: &str) -> Settings {
    login(
        "SASL_PLAINTEXT",
        Mechanism::Plain,
        user,
        &format!("{user}-secret"),
    )
}

fn tls(authority: &Authority, client: Option<&Issued>) -> Settings {
    let mut settings = vec![
        ("security.protocol", "SSL".to_owned()),
        ("ssl.ca.pem", authority.pem()),
    ];
    if let Some(client) = client {
        settings.push(("ssl.certificate.pem", client.certificate_pem.clone()));
        settings.push(("ssl.key.pem", client.key_pem.clone()));
    }
    settings
}

fn with<'a>(security: &'a Settings, others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let security = security.iter().map(|(key, value)| (*key, value.as_str()));
    security.chain(others.iter().copied()).collect()
}

/// A client that remembers what it was told is wrong.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Vec<(RDKafkaErrorCode, String)>>>);

impl ClientContext for Complaints {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap();
        self.0.lock().unwrap().push((code, reason.to_owned()));
    }
}

impl ProducerContext for Complaints {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}

/// What a client hears that can not come in, as soon as it hears `code`.
fn complaint(broker: &Broker, settings: &Settings, code: RDKafkaErrorCode) -> String {
    let heard = Complaints::default();
    let settings = with(settings, &[("reconnect.backoff.max.ms", "100")]);
    let client: BaseProducer<Complaints> = config(broker, &settings)
        .create_with_context(heard.clone())
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(
            client
                .client()
                .fetch_metadata(None, Duration::from_millis(100))
                .is_err()
        );
        client.poll(Duration::from_millis(10));
        let heard = heard.0.lock().unwrap();
        if let Some((_, reason)) = heard.iter().find(|(heard, _)| *heard == code) {
            return reason.clone();
        }
        assert!(Instant::now() < deadline, "{code:?} did not come, but {heard:?}");
    }
}

fn comes_in(broker: &Broker, settings: &Settings) {
    let client = consumer(broker, &with(settings, &[("group.id", "none")]));
    client.fetch_metadata(None, DEADLINE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_through_each_protocol_with_each_mechanism() {
    let authority = Authority::new("test authority");
    for encrypted in [false, true] {
        for sasl in [false, true] {
            let security = Security {
                tls: encrypted.then(|| authority.broker()),
                sasl: users().filter(|_| sasl),
                ..Security::default()
            };
            let protocol = security.protocol();
            let broker = start(security).await;
            broker.create_topic("orders", 3).unwrap();
            for (round, mechanism) in MECHANISMS.into_iter().enumerate() {
                let mut settings = if encrypted {
                    tls(&authority, None)
                } else {
                    Vec::new()
                };
                if sasl {
                    settings.extend(login(protocol, mechanism, "app", "app-secret"));
                }
                settings.retain(|(key, value)| *key != "security.protocol" || value == protocol);
                let producer = producer(&broker, &with(&settings, &[]));
                send(&producer, "orders", "order-", 500).await;
                let consumer = consumer(&broker, &with(&settings, &[("group.id", "none")]));
                let mut list = TopicPartitionList::new();
                for partition in 0..3 {
                    list.add_partition_offset("orders", partition, Offset::Beginning)
                        .unwrap();
                }
                consumer.assign(&list).unwrap();
                let expected = 500 * (round + 1);
                assert_eq!(receive(&consumer, expected).len(), expected);
                if !sasl {
                    break;
                }
            }
            assert_eq!(broker.stats().malformed_total, 0, "{protocol}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_records_go_through_tls_whole() {
    let authority = Authority::new("test authority");
    let security = Security {
        tls: Some(authority.broker()),
        ..Security::default()
    };
    let broker = start(security).await;
    broker.create_topic("large", 1).unwrap();
    let settings = tls(&authority, None);
    let producer = producer(&broker, &with(&settings, &[]));
    let payload: Vec<u8> = (0..900_000_u32).map(|index| (index % 251) as u8).collect();
    for _ in 0..10 {
        let record = FutureRecord::to("large").key("k").payload(&payload);
        producer.send(record, DEADLINE).await.unwrap();
    }
    let consumer = consumer(&broker, &with(&settings, &[("group.id", "none")]));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("large", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    for record in receive(&consumer, 10) {
        assert_eq!(rdkafka::Message::payload(&record), Some(&payload[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_with_its_cause_and_the_right_one_still_works() {
    let broker = start(Security {
        sasl: users(),
        ..Security::default()
    })
    .await;
    for mechanism in MECHANISMS {
        let cause = if mechanism == Mechanism::Plain {
            "Authentication failed: Invalid username or password"
        } else {
            "due to invalid credentials with SASL mechanism SCRAM-SHA-"
        };
        for (user, password) in [("app", "admin-secret"), ("nobody", "app-secret")] {
            let wrong = login("SASL_PLAINTEXT", mechanism, user, password);
            let reason = complaint(&broker, &wrong, RDKafkaErrorCode::Authentication);
            assert!(reason.contains(cause), "{reason}");
        }
        comes_in(&broker, &login("SASL_PLAINTEXT", mechanism, "app", "app-secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_strikes_a_login_that_it_names_and_otherwise_waits_until_the_client_is_known() {
    let broker = start(Security {
        sasl: users(),
        ..Security::default()
    })
    .await;
    let refused = Fault::AnswerError(ResponseError::SaslAuthenticationFailed);
    let refused = broker
        .inject(refused.on(ApiKey::SaslAuthenticate).always())
        .unwrap();
    let dropped = broker
        .inject(Fault::DropBefore.on_any_request().always())
        .unwrap();
    complaint(&broker, &plain("app"), RDKafkaErrorCode::Authentication);
    assert_eq!(dropped.struck(), 0);
    refused.remove();
    let client = consumer(&broker, &with(&plain("app"), &[("group.id", "none")]));
    client
        .fetch_metadata(None, Duration::from_millis(100))
        .unwrap_err();
    assert!(dropped.wait_until_struck(1).await);
    dropped.remove();
    client.fetch_metadata(None, DEADLINE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mechanism_that_is_not_offered_is_refused_by_name() {
    let sasl = Sasl {
        mechanisms: vec![Mechanism::ScramSha512],
        ..users().unwrap()
    };
    let broker = start(Security {
        sasl: Some(sasl),
        ..Security::default()
    })
    .await;
    let reason = complaint(&broker, &plain("app"), RDKafkaErrorCode::Authentication);
    assert!(reason.contains("SCRAM-SHA-512"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_know_the_authority_stays_away() {
    let authority = Authority::new("test authority");
    let broker = start(Security {
        tls: Some(authority.broker()),
        ..Security::default()
    })
    .await;
    let stranger = tls(&Authority::new("another authority"), None);
    let reason = complaint(&broker, &stranger, RDKafkaErrorCode::SSL);
    assert!(reason.contains("certificate verify failed"), "{reason}");
    comes_in(&broker, &tls(&authority, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_asked_for_and_names_the_client() {
    let authority = Authority::new("test authority");
    let clients = Authority::new("client authority");
    let mut server = authority.broker();
    server.client_ca_pem = Some(clients.pem());
    let principal = "User:CN=worker,O=Example\\, Inc.";
    let orders = ResourcePattern::literal(ResourceType::Topic, "orders");
    let broker = start(Security {
        tls: Some(server),
        authorization: Some(Authorization {
            acls: vec![Acl::allow(principal, Operation::Describe, orders)],
            ..Authorization::default()
        }),
        ..Security::default()
    })
    .await;
    broker.create_topic("orders", 1).unwrap();

    // With TLS 1.3 a client believes to be in before the broker has looked at its certificate.
    let refused = RDKafkaErrorCode::BrokerTransportFailure;
    let reason = complaint(&broker, &tls(&authority, None), refused);
    assert!(reason.contains("certificate required"), "{reason}");
    // The name of the authority alone is not enough.
    let stranger = Authority::new("client authority").client("worker");
    let reason = complaint(&broker, &tls(&authority, Some(&stranger)), refused);
    assert!(reason.contains("decrypt error"), "{reason}");
    for (name, seen) in [("worker", 1), ("other", 0)] {
        let client = clients.client(name);
        let settings = tls(&authority, Some(&client));
        let client = consumer(&broker, &with(&settings, &[("group.id", "none")]));
        let metadata = client.fetch_metadata(None, DEADLINE).unwrap();
        assert_eq!(metadata.topics().len(), seen, "{name}");
    }
}

#[tokio::test]
async fn certificates_that_can_not_be_used_are_an_error_that_names_them() {
    let good = Authority::new("test authority").broker();
    let other = Authority::new("test authority").broker();
    for (tls, expected) in [
        (
            devbroker::security::Tls {
                certificate_chain_pem: "no PEM".to_owned(),
                ..good.clone()
            },
            "`certificate_chain_pem` holds no certificate",
        ),
        (
            devbroker::security::Tls {
                private_key_pem: Password::new("no PEM"),
                ..good.clone()
            },
            "`private_key_pem` is not PEM",
        ),
        (
            devbroker::security::Tls {
                private_key_pem: other.private_key_pem,
                ..good.clone()
            },
            "do not go together",
        ),
        (
            devbroker::security::Tls {
                client_ca_pem: Some(String::new()),
                ..good
            },
            "`client_ca_pem` holds no certificate",
        ),
    ] {
        let options = Options {
            security: Security {
                tls: Some(tls),
                ..Security::default()
            },
            ..Options::default()
        };
        let error = Broker::start(options).await.unwrap_err();
        assert!(matches!(error, BrokerError::Security(_)));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A broker on which `app` may do what the rules say, with topics `orders` and `alerts`.
async fn ruled(acls: Vec<Acl>) -> Broker {
    let broker = start(Security {
        sasl: users(),
        authorization: Some(Authorization {
            super_users: vec!["User:admin".to_owned()],
            acls,
        }),
        ..Security::default()
    })
    .await;
    broker.create_topic("orders", 1).unwrap();
    broker.create_topic("alerts", 1).unwrap();
    let admin = plain("admin");
    send(&producer(&broker, &with(&admin, &[])), "orders", "order-", 1).await;
    broker
}

/// The least that a worker needs which copies from `orders` to `alerts` in transactions.
fn least_privileges() -> [Acl; 4] {
    let allow = |operation, resource, name| {
        Acl::allow("User:app", operation, ResourcePattern::literal(resource, name))
    };
    [
        allow(Operation::Read, ResourceType::Topic, "orders"),
        allow(Operation::Write, ResourceType::Topic, "alerts"),
        allow(Operation::Read, ResourceType::Group, "fraud"),
        allow(Operation::Write, ResourceType::TransactionalId, "fraud-1"),
    ]
}

/// Copies one record in a transaction, with its offset.
async fn copy(broker: &Broker) -> KafkaResult<()> {
    let app = plain("app");
    let settings = [
        ("transactional.id", "fraud-1"),
        ("message.timeout.ms", "9000"),
        ("retry.backoff.ms", "5"),
    ];
    let producer: FutureProducer = producer(broker, &with(&app, &settings));
    producer.init_transactions(DEADLINE)?;
    let settings = [("group.id", "fraud"), ("auto.offset.reset", "earliest")];
    let consumer: BaseConsumer = consumer(broker, &with(&app, &settings));
    consumer.subscribe(&["orders"])?;
    let deadline = Instant::now() + DEADLINE;
    let value = loop {
        assert!(Instant::now() < deadline, "no record and no error came in time");
        if let Some(record) = consumer.poll(Duration::from_millis(50)) {
            break value(&record?);
        }
    };
    producer.begin_transaction()?;
    let record = FutureRecord::to("alerts").key("k").payload(&value);
    let sent = producer.send(record, DEADLINE).await;
    sent.map_err(|(error, _)| error)?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("orders", 0, Offset::Offset(1))?;
    let group = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&offsets, &group, DEADLINE)?;
    producer.commit_transaction(DEADLINE)
}

#[tokio::test(flavor = "multi_thread")]
async fn least_privileges_suffice_for_a_transactional_worker_and_none_is_too_many() {
    let broker = ruled(least_privileges().to_vec()).await;
    copy(&broker).await.unwrap();

    let expected = [
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::GroupAuthorizationFailed,
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
    ];
    for (missing, expected) in least_privileges().into_iter().zip(expected) {
        let broker = ruled(least_privileges().to_vec()).await;
        assert!(broker.remove_acl(&missing).unwrap());
        let error = copy(&broker).await.unwrap_err();
        assert_eq!(error.rdkafka_error_code(), Some(expected), "{missing:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_hold_from_the_next_request_on() {
    let broker = ruled(Vec::new()).await;
    let app = plain("app");
    let producer = producer(&broker, &with(&app, &[]));
    let attempt = async || {
        let record = FutureRecord::to("alerts").key("k").payload("v");
        let sent = producer.send(record, DEADLINE).await;
        sent.map(drop)
            .map_err(|(error, _)| error.rdkafka_error_code().unwrap())
    };
    let denied = Err(RDKafkaErrorCode::TopicAuthorizationFailed);
    assert_eq!(attempt().await, denied);
    let alerts = ResourcePattern::prefixed(ResourceType::Topic, "al");
    let rule = Acl::allow("User:*", Operation::Write, alerts);
    broker.add_acl(rule.clone()).unwrap();
    // The client does not ask again for a topic that it just may not see.
    let deadline = Instant::now() + DEADLINE;
    while attempt().await.is_err() {
        assert!(Instant::now() < deadline, "the rule did not come to hold");
    }
    assert!(broker.remove_acl(&rule).unwrap());
    assert_eq!(attempt().await, denied);
    assert!(!broker.remove_acl(&rule).unwrap());
}
