//! What a client hears that may not do what it asks, request by request.
//!
//! The codes were recorded on Apache Kafka 4.3.1, and `scripts/test` compares them again. By hand: start
//! one with `scripts/kafka start --properties scripts/kafka.d/sasl-plaintext.properties`, then
//! `ORDERFLOW_TEST_SECURE_BROKER=127.0.0.1:PORT cargo test -p devbroker --test authorization`; the
//! last test compares with a Kafka without security that `ORDERFLOW_TEST_BROKER` names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/codes.rs"]
mod codes;
#[path = "support/wire.rs"]
mod wire;

use bytes::Bytes;
use codes::*;
use devbroker::security::{Authorization, Sasl, Security};
use devbroker::{Broker, Options};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::*;
use wire::Wire;

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const BROKER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DELETE: i8 = 6;
const DESCRIBE: i8 = 8;
const ALTER_CONFIGS: i8 = 11;
const ALLOW: i8 = 3;

const TOPIC_DENIED: i16 = 29;
const GROUP_DENIED: i16 = 30;
const CLUSTER_DENIED: i16 = 31;
const ILLEGAL_SASL_STATE: i16 = 34;
const ID_DENIED: i16 = 53;
const SECURITY_DISABLED: i16 = 54;
const NOT_ATTEMPTED: i16 = 55;

/// An embedded broker, or the real Kafka that the environment names.
struct Engine {
    address: String,
    _embedded: Option<Broker>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
async fn real_or_embedded(variable: &str, security: Security) -> Engine {
    if let Ok(address) = std::env::var(variable) {
        return Engine {
            address,
            _embedded: None,
        };
    }
    let options = Options {
        security,
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    Engine {
        address: broker.address().to_string(),
        _embedded: Some(broker),
    }
}

/// A broker with the users of `scripts/kafka.d/sasl-plaintext.properties`: `admin`, who may do
/// everything, `app`, and `eve`, who never gets a right.
async fn engine() -> Engine {
    let users = [
        ("admin", "admin-secret"),
        ("app", "app-secret"),
        ("eve", "eve-secret"),
    ];
    let security = Security {
        sasl: Some(Sasl::users(users)),
        authorization: Some(Authorization {
            super_users: vec!["User:admin".to_owned()],
            acls: Vec::new(),
        }),
        ..Security::default()
    };
    real_or_embedded("ORDERFLOW_TEST_SECURE_BROKER", security).await
}

impl Engine {
    async fn admin(&self) -> Wire {
        Wire::authenticated(&self.address, "admin", "admin-secret").await
    }

    async fn app(&self) -> Wire {
        Wire::authenticated(&self.address, "app", "app-secret").await
    }
}

/// Allows `app` something, and waits until that holds: a real broker learns of it a little later.
async fn allow(admin: &mut Wire, resource: i8, pattern: i8, name: &str, operation: i8) {
    let creation = AclCreation::default()
        .with_resource_type(resource)
        .with_resource_name(text(name))
        .with_resource_pattern_type(pattern)
        .with_principal(text("User:app"))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(ALLOW);
    let created = admin
        .call(3, &CreateAclsRequest::default().with_creations(vec![creation]))
        .await;
    assert_eq!(created.results[0].error_code, 0);
    let filter = DescribeAclsRequest::default()
        .with_resource_type_filter(resource)
        .with_resource_name_filter(Some(text(name)))
        .with_pattern_type_filter(pattern)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(operation)
        .with_permission_type(ALLOW);
    let described = until(
        async || admin.call(3, &filter).await,
        |described| !described.resources.is_empty(),
    );
    assert_eq!(described.await.error_code, 0);
}

async fn create(admin: &mut Wire, name: &str) {
    let wanted = CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![wanted]);
    assert_eq!(admin.call(7, &request).await.topics[0].error_code, 0);
    until(async || metadata(admin, name).await, |code| *code == 0).await;
}

#[tokio::test]
async fn topics_are_hidden_and_closed_without_the_right_to_them() {
    let engine = engine().await;
    let (mut admin, mut app) = (engine.admin().await, engine.app().await);
    create(&mut admin, "t-seen").await;
    create(&mut admin, "t-hidden").await;
    let mut eve = Wire::authenticated(&engine.address, "eve", "eve-secret").await;
    assert_eq!(init_producer_id(&mut eve, None).await, CLUSTER_DENIED);
    allow(&mut admin, TOPIC, LITERAL, "t-seen", DESCRIBE).await;

    assert_eq!(listed_topics(&mut app, "t-").await, ["t-seen"]);
    for (name, describe) in [
        ("t-seen", 0),
        ("t-hidden", TOPIC_DENIED),
        ("t-missing", TOPIC_DENIED),
    ] {
        assert_eq!(metadata(&mut app, name).await, describe, "{name}");
        assert_eq!(list_offsets(&mut app, name).await, describe, "{name}");
        assert_eq!(leader_epoch(&mut app, name).await, describe, "{name}");
        assert_eq!(produce(&mut app, name).await, TOPIC_DENIED, "{name}");
        assert_eq!(fetch(&mut app, name).await, TOPIC_DENIED, "{name}");
        assert_eq!(
            describe_configs(&mut app, TOPIC, name).await,
            TOPIC_DENIED,
            "{name}"
        );
        assert_eq!(describe_producers(&mut app, name).await, TOPIC_DENIED, "{name}");
        assert_eq!(
            alter_configs(&mut app, TOPIC, name).await,
            [TOPIC_DENIED; 2],
            "{name}"
        );
        assert_eq!(change_topics(&mut app, name).await, [TOPIC_DENIED; 4], "{name}");
    }
    assert_eq!(describe_configs(&mut app, BROKER, "1").await, CLUSTER_DENIED);
    assert_eq!(alter_configs(&mut app, BROKER, "1").await, [CLUSTER_DENIED; 2]);

    allow(&mut admin, TOPIC, PREFIXED, "t-se", WRITE).await;
    assert_eq!(produce(&mut app, "t-seen").await, 0);
    assert_eq!(produce(&mut app, "t-hidden").await, TOPIC_DENIED);
    assert_eq!(fetch(&mut app, "t-seen").await, TOPIC_DENIED);
    // Who may write somewhere may do so idempotently.
    assert_eq!(init_producer_id(&mut app, None).await, 0);
    allow(&mut admin, TOPIC, LITERAL, "t-seen", READ).await;
    assert_eq!(fetch(&mut app, "t-seen").await, 0);
    assert_eq!(describe_producers(&mut app, "t-seen").await, 0);
    assert_eq!(alter_configs(&mut app, TOPIC, "t-seen").await, [TOPIC_DENIED; 2]);
    allow(&mut admin, TOPIC, LITERAL, "t-seen", ALTER_CONFIGS).await;
    assert_eq!(alter_configs(&mut app, TOPIC, "t-seen").await, [0; 2]);
}

#[tokio::test]
async fn groups_are_hidden_and_closed_without_the_right_to_them() {
    let engine = engine().await;
    let (mut admin, mut app) = (engine.admin().await, engine.app().await);
    create(&mut admin, "g-topic").await;
    create(&mut admin, "g-other").await;
    for name in ["g-seen", "g-hidden"] {
        assert_eq!(find_coordinator(&mut admin, 0, name).await, 0);
        let committed = async || offset_commit(&mut admin, name, "g-topic").await;
        until(committed, |code| !NOT_YET.contains(code)).await;
        assert_eq!(offset_commit(&mut admin, name, "g-other").await, 0);
    }
    allow(&mut admin, GROUP, LITERAL, "g-seen", DESCRIBE).await;
    allow(&mut admin, TOPIC, LITERAL, "g-topic", READ).await;

    for (name, describe) in [("g-seen", 0), ("g-hidden", GROUP_DENIED)] {
        assert_eq!(find_coordinator(&mut app, 0, name).await, describe, "{name}");
        let request = DescribeGroupsRequest::default().with_groups(vec![group(name)]);
        assert_eq!(
            app.call(5, &request).await.groups[0].error_code,
            describe,
            "{name}"
        );
        assert_eq!(join(&mut app, name).await, GROUP_DENIED, "{name}");
        let request = SyncGroupRequest::default().with_group_id(group(name));
        assert_eq!(app.call(4, &request).await.error_code, GROUP_DENIED, "{name}");
        let request = HeartbeatRequest::default().with_group_id(group(name));
        assert_eq!(app.call(4, &request).await.error_code, GROUP_DENIED, "{name}");
        let request = LeaveGroupRequest::default()
            .with_group_id(group(name))
            .with_members(vec![MemberIdentity::default()]);
        assert_eq!(app.call(4, &request).await.error_code, GROUP_DENIED, "{name}");
        assert_eq!(
            offset_commit(&mut app, name, "g-topic").await,
            GROUP_DENIED,
            "{name}"
        );
        assert_eq!(
            offset_delete(&mut app, name, "g-topic").await,
            GROUP_DENIED,
            "{name}"
        );
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group(name)]);
        assert_eq!(
            app.call(2, &request).await.results[0].error_code,
            GROUP_DENIED,
            "{name}"
        );
    }
    let listed = app.call(4, &ListGroupsRequest::default()).await;
    let listed: Vec<_> = listed
        .groups
        .iter()
        .map(|group| group.group_id.to_string())
        .collect();
    assert_eq!(listed, ["g-seen"]);

    let pairs = |pairs: &[(&str, i16)]| -> Vec<(String, i16)> {
        pairs
            .iter()
            .map(|(name, code)| ((*name).to_owned(), *code))
            .collect()
    };
    assert_eq!(
        offset_fetch(&mut app, "g-hidden", None).await,
        pairs(&[("g-hidden", GROUP_DENIED)])
    );
    assert_eq!(
        offset_fetch(&mut app, "g-seen", Some(&["g-topic", "g-other"])).await,
        pairs(&[("g-other", TOPIC_DENIED), ("g-topic", 0)])
    );
    assert_eq!(
        offset_fetch(&mut app, "g-seen", None).await,
        pairs(&[("g-topic", 0)])
    );
    allow(&mut admin, GROUP, LITERAL, "g-seen", READ).await;
    assert_eq!(offset_commit(&mut app, "g-seen", "g-topic").await, 0);
    assert_eq!(offset_commit(&mut app, "g-seen", "g-other").await, TOPIC_DENIED);
    assert_eq!(offset_delete(&mut app, "g-seen", "g-topic").await, GROUP_DENIED);
    allow(&mut admin, GROUP, LITERAL, "g-seen", DELETE).await;
    assert_eq!(offset_delete(&mut app, "g-seen", "g-topic").await, 0);
    assert_eq!(offset_delete(&mut app, "g-seen", "g-other").await, TOPIC_DENIED);
}

#[tokio::test]
async fn transactional_ids_are_closed_without_the_right_to_them() {
    let engine = engine().await;
    let (mut admin, mut app) = (engine.admin().await, engine.app().await);
    create(&mut admin, "x-topic").await;
    create(&mut admin, "x-other").await;
    allow(&mut admin, TRANSACTIONAL_ID, LITERAL, "x-seen", DESCRIBE).await;
    for name in ["x-seen", "x-hidden"] {
        assert_eq!(find_coordinator(&mut admin, 1, name).await, 0);
        assert_eq!(init_producer_id(&mut admin, Some(name)).await, 0);
    }
    assert_eq!(listed_transactions(&mut app, "x-").await, ["x-seen"]);
    for (name, describe) in [("x-seen", 0), ("x-hidden", ID_DENIED)] {
        assert_eq!(describe_transaction(&mut app, name).await, describe, "{name}");
        assert_eq!(find_coordinator(&mut app, 1, name).await, describe, "{name}");
        assert_eq!(init_producer_id(&mut app, Some(name)).await, ID_DENIED, "{name}");
        let added = add_partitions(&mut app, name, &["x-topic"]).await;
        assert_eq!(added, [ID_DENIED], "{name}");
        assert_eq!(add_offsets(&mut app, name, "x-group").await, ID_DENIED, "{name}");
        assert_eq!(end(&mut app, name).await, ID_DENIED, "{name}");
        let produced = produce_in_transaction(&mut app, Some(name), "x-topic").await;
        assert_eq!(produced, ID_DENIED, "{name}");
        let committed = txn_offset_commit(&mut app, name, "x-group", "x-topic").await;
        assert_eq!(committed, ID_DENIED, "{name}");
    }
    allow(&mut admin, TRANSACTIONAL_ID, LITERAL, "x-seen", WRITE).await;
    allow(&mut admin, TOPIC, LITERAL, "x-topic", WRITE).await;
    let nameless = produce_in_transaction(&mut app, None, "x-topic").await;
    assert_eq!(nameless, ID_DENIED);
    let elsewhere = produce_in_transaction(&mut app, Some("x-seen"), "x-other").await;
    assert_eq!(elsewhere, TOPIC_DENIED);
    assert_eq!(
        add_partitions(&mut app, "x-seen", &["x-topic", "x-other"]).await,
        [NOT_ATTEMPTED, TOPIC_DENIED]
    );
    assert_eq!(add_offsets(&mut app, "x-seen", "x-group").await, GROUP_DENIED);
    assert_eq!(
        txn_offset_commit(&mut app, "x-seen", "x-group", "x-topic").await,
        GROUP_DENIED
    );
    allow(&mut admin, GROUP, LITERAL, "x-group", READ).await;
    assert_eq!(
        txn_offset_commit(&mut app, "x-seen", "x-group", "x-topic").await,
        TOPIC_DENIED
    );
}

#[tokio::test]
async fn rules_are_made_shown_and_removed_by_those_who_may() {
    let engine = engine().await;
    let (mut admin, mut app) = (engine.admin().await, engine.app().await);
    let creation = AclCreation::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("r-topic"))
        .with_resource_pattern_type(LITERAL)
        .with_principal(text("User:app"))
        .with_host(text("*"))
        .with_operation(READ)
        .with_permission_type(ALLOW);
    let create = CreateAclsRequest::default().with_creations(vec![creation]);
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(Some(text("r-topic")))
        .with_pattern_type_filter(1)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(1)
        .with_permission_type(1);
    let delete = DeleteAclsRequest::default().with_filters(vec![filter]);
    let describe = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_resource_name_filter(Some(text("r-topic-1")))
        .with_pattern_type_filter(2)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(1)
        .with_permission_type(1);
    assert_eq!(app.call(3, &create).await.results[0].error_code, CLUSTER_DENIED);
    assert_eq!(app.call(3, &describe).await.error_code, CLUSTER_DENIED);
    assert_eq!(
        app.call(3, &delete).await.filter_results[0].error_code,
        CLUSTER_DENIED
    );

    allow(&mut admin, TOPIC, LITERAL, "r-topic", READ).await;
    allow(&mut admin, TOPIC, PREFIXED, "r-topic-", WRITE).await;
    let shown = admin.call(3, &describe).await;
    assert_eq!(shown.resources.len(), 1, "what holds for `r-topic-1`: {shown:?}");
    let resource = &shown.resources[0];
    assert_eq!(
        (resource.resource_name.as_str(), resource.pattern_type),
        ("r-topic-", PREFIXED)
    );
    assert_eq!(resource.acls[0].principal.as_str(), "User:app");
    assert_eq!(
        (resource.acls[0].operation, resource.acls[0].permission_type),
        (WRITE, ALLOW)
    );
    let deleted = admin.call(3, &delete).await;
    let matching = &deleted.filter_results[0].matching_acls;
    assert_eq!(matching.len(), 1, "{matching:?}");
    assert_eq!(
        (matching[0].resource_name.as_str(), matching[0].operation),
        ("r-topic", READ)
    );
}

#[tokio::test]
async fn who_is_known_can_not_authenticate_again() {
    let engine = engine().await;
    let mut app = engine.app().await;
    let plain = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    for version in [0, 1] {
        let answer = app.call(version, &plain).await;
        assert_eq!(
            (answer.error_code, answer.mechanisms.len()),
            (ILLEGAL_SASL_STATE, 0)
        );
    }
    let answer = app.prove("app", "app-secret").await;
    assert_eq!(answer.error_code, ILLEGAL_SASL_STATE);
    assert_eq!(
        answer.error_message.unwrap().as_str(),
        "SaslAuthenticate request received after successful authentication"
    );
    assert_eq!(metadata(&mut app, "missing").await, TOPIC_DENIED);
}

#[tokio::test]
async fn who_can_not_authenticate_hears_why_and_is_closed() {
    let engine = engine().await;
    let plain = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    let mut wire = Wire::to(&engine.address).await;
    wire.call(1, &plain).await;
    let answer = wire.prove("app", "wrong").await;
    assert_eq!(answer.error_code, 58);
    assert_eq!(
        answer.error_message.unwrap().as_str(),
        "Authentication failed: Invalid username or password"
    );
    assert!(wire.is_closed().await);

    let mut wire = Wire::to(&engine.address).await;
    let unknown = SaslHandshakeRequest::default().with_mechanism(text("GSSAPI"));
    let answer = wire.call(1, &unknown).await;
    assert_eq!(answer.error_code, 33);
    assert!(answer.mechanisms.iter().any(|name| name.as_str() == "PLAIN"));
    assert!(wire.is_closed().await);

    for version in [0, 1] {
        let mut wire = Wire::to(&engine.address).await;
        wire.call(
            3,
            &ApiVersionsRequest::default()
                .with_client_software_name(text("x"))
                .with_client_software_version(text("1")),
        )
        .await;
        wire.send(version, &MetadataRequest::default()).await;
        assert!(wire.is_closed().await, "a request before the handshake");
    }
}

#[tokio::test]
async fn version_0_of_the_handshake_takes_bare_tokens() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let engine = engine().await;
    let plain = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    for (password, accepted) in [("app-secret", true), ("wrong", false)] {
        let mut wire = Wire::to(&engine.address).await;
        assert_eq!(wire.call(0, &plain).await.error_code, 0);
        let token = Bytes::from(format!("\0app\0{password}"));
        wire.stream.write_i32(token.len() as i32).await.unwrap();
        wire.stream.write_all(&token).await.unwrap();
        if accepted {
            assert_eq!(wire.stream.read_i32().await.unwrap(), 0);
            assert_eq!(metadata(&mut wire, "missing").await, TOPIC_DENIED);
        } else {
            assert!(wire.is_closed().await);
        }
    }
}

#[tokio::test]
async fn a_broker_without_security_says_so() {
    let engine = real_or_embedded("ORDERFLOW_TEST_BROKER", Security::default()).await;
    let mut wire = Wire::to(&engine.address).await;
    let plain = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    assert_eq!(wire.call(1, &plain).await.error_code, ILLEGAL_SASL_STATE);
    assert_eq!(
        wire.prove("app", "app-secret").await.error_code,
        ILLEGAL_SASL_STATE
    );
    let describe = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(1)
        .with_permission_type(1);
    assert_eq!(wire.call(3, &describe).await.error_code, SECURITY_DISABLED);
    assert_eq!(metadata(&mut wire, "missing").await, 3);
}
