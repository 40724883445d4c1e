//! Topics and their settings.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, DescribeClusterRequest};

use crate::batches::Batch;
use crate::client::{Change, Changes, Client, error, text, topic_name};
use crate::scenarios;
use crate::stage::Stage;

scenarios! {
    creating_topics: "Names, counts, replicas and settings are checked.";
    creating_for_the_try: "validate_only says what would be, and makes nothing.";
    deleting_topics: "A deleted topic is unknown, and its name is free again.";
    growing_topics: "Partitions are added, never removed.";
    settings_are_described: "A topic shows its own settings and the defaults.";
    settings_are_changed: "IncrementalAlterConfigs sets, deletes, appends and subtracts.";
    wrong_changes_are_refused: "Unknown settings, wrong values and unknown topics change nothing.";
    a_changed_limit_holds_at_once: "max.message.bytes is honoured after the change.";
    records_are_deleted: "DeleteRecords moves the start of the log, never back and never beyond the end.";
    the_cluster_is_described: "One broker, which is the controller.";
}

async fn note_create(stage: &mut Stage, what: &str, topic: CreatableTopic) {
    let mut client = stage.client().await;
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    let answer = client.call(7, &request).await;
    let made = &answer.topics[0];
    let seen = if made.error_code == 0 {
        format!(
            "{} partitions, {} replicas",
            made.num_partitions, made.replication_factor
        )
    } else {
        error(made.error_code)
    };
    stage.note(what, seen);
}

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1)
}

fn setting(name: &str, value: &str) -> Vec<CreatableTopicConfig> {
    vec![
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value))),
    ]
}

async fn creating_topics(stage: &mut Stage) {
    let name = stage.name("topic");
    note_create(stage, "a topic", topic(&name).with_num_partitions(2)).await;
    note_create(stage, "the same again", topic(&name)).await;
    let long = "x".repeat(250);
    for (what, name) in [
        ("an empty name", ""),
        ("a name with a space", "no spaces"),
        ("a name of one dot", "."),
        ("a name of 250 letters", &long),
    ] {
        note_create(stage, what, topic(name)).await;
    }
    let mut fresh = || topic(&stage.name("topic"));
    let cases = [
        ("no partitions", fresh().with_num_partitions(0)),
        ("partitions below 0", fresh().with_num_partitions(-2)),
        ("the default count", fresh().with_num_partitions(-1)),
        ("the default replicas", fresh().with_replication_factor(-1)),
        ("two replicas", fresh().with_replication_factor(2)),
        ("no replicas", fresh().with_replication_factor(0)),
        (
            "an unknown setting",
            fresh().with_configs(setting("colour", "blue")),
        ),
        (
            "a setting without sense",
            fresh().with_configs(setting("retention.ms", "soon")),
        ),
        (
            "an unknown policy",
            fresh().with_configs(setting("cleanup.policy", "burn")),
        ),
        (
            "both policies",
            fresh().with_configs(setting("cleanup.policy", "compact,delete")),
        ),
    ];
    for (what, topic) in cases {
        note_create(stage, what, topic).await;
    }
}

async fn creating_for_the_try(stage: &mut Stage) {
    let name = stage.name("topic");
    let mut client = stage.client().await;
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic(&name).with_num_partitions(4)])
        .with_timeout_ms(10_000)
        .with_validate_only(true);
    for _ in 0..2 {
        let answer = client.call(7, &request).await;
        stage.note("validate", error(answer.topics[0].error_code));
        stage.note("partitions", answer.topics[0].num_partitions);
    }
    let code = client.create_topic(&name, 1, &[]).await;
    stage.note("create", error(code));
    let answer = client.call(7, &request).await;
    stage.note("validate what exists", error(answer.topics[0].error_code));
}

async fn deleting_topics(stage: &mut Stage) {
    let name = stage.topic(1).await;
    let missing = stage.name("missing");
    let mut client = stage.client().await;
    client.produce(&name, &Batch::of(&["old"])).await;
    let code = client.delete_topic(&missing).await;
    stage.note("an unknown topic", error(code));
    let code = client.delete_topic(&name).await;
    stage.note("delete", error(code));
    let code = client.delete_topic(&name).await;
    stage.note("delete again", error(code));
    let code = client.create_topic(&name, 1, &[]).await;
    stage.note("create again", error(code));
    client.until_led(&name, 1).await;
    client.until_stable(&name, 0, 0).await;
    stage.note_log("the new one", &name, 0).await;
}

async fn growing_topics(stage: &mut Stage) {
    let name = stage.topic(2).await;
    let missing = stage.name("missing");
    let mut client = stage.client().await;
    for count in [2, 1, 0, 3] {
        let code = client.grow_topic(&name, count).await;
        stage.note(format!("from 2 to {count}"), error(code));
    }
    client.until_led(&name, 3).await;
    let code = client.grow_topic(&missing, 3).await;
    stage.note("an unknown topic", error(code));
}

const SHOWN: [&str; 4] = [
    "cleanup.policy",
    "retention.bytes",
    "max.message.bytes",
    "message.timestamp.type",
];

async fn settings_are_described(stage: &mut Stage) {
    let plain = stage.topic(1).await;
    let own = stage
        .topic_with(1, &[("retention.ms", "5000"), ("cleanup.policy", "compact")])
        .await;
    let mut client = stage.client().await;
    for name in SHOWN {
        let seen = client.setting(&plain, name).await;
        stage.note(format!("defaults, {name}"), seen);
    }
    for name in ["retention.ms", "cleanup.policy", "retention.bytes", "colour"] {
        let seen = client.setting(&own, name).await;
        stage.note(format!("own, {name}"), seen);
    }
    let missing = stage.name("missing");
    let seen = client.setting(&missing, "retention.ms").await;
    stage.note("an unknown topic", seen);
}

/// Changes settings and waits until the broker shows it, which Kafka's does a moment later.
async fn changed(client: &mut Client, topic: &str, name: &str, change: Change<'_>, wanted: &str) -> String {
    let code = client.alter_topic(topic, &[(name, change)]).await;
    if code != 0 {
        return error(code);
    }
    let deadline = std::time::Instant::now() + crate::wire::DEADLINE;
    loop {
        let seen = client.setting(topic, name).await;
        if seen.starts_with(wanted) || std::time::Instant::now() > deadline {
            return seen;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn settings_are_changed(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let steps = [
        ("retention.bytes", Change::Set("12345"), "`12345`"),
        ("retention.bytes", Change::Set("54321"), "`54321`"),
        ("retention.bytes", Change::Delete, "`-1`"),
        ("cleanup.policy", Change::Append("compact"), "`delete,compact`"),
        ("cleanup.policy", Change::Subtract("delete"), "`compact`"),
        ("max.message.bytes", Change::Set("2000"), "`2000`"),
    ];
    for (name, change, wanted) in steps {
        let seen = changed(&mut client, &topic, name, change, wanted).await;
        stage.note(name, seen);
    }
    let code = client
        .alter_topic_if(&topic, &[("retention.bytes", Change::Set("7"))], true)
        .await;
    stage.note("validate only", error(code));
    let seen = client.setting(&topic, "retention.bytes").await;
    stage.note("retention.bytes", seen);
}

async fn wrong_changes_are_refused(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let missing = stage.name("missing");
    let mut client = stage.client().await;
    let cases: [(&str, &str, Changes<'_>); 6] = [
        ("an unknown setting", &topic, &[("colour", Change::Set("blue"))]),
        (
            "a value without sense",
            &topic,
            &[("retention.ms", Change::Set("soon"))],
        ),
        (
            "an unknown policy",
            &topic,
            &[("cleanup.policy", Change::Set("burn"))],
        ),
        (
            "appending to a number",
            &topic,
            &[("retention.ms", Change::Append("1"))],
        ),
        (
            "a good and a wrong one",
            &topic,
            &[
                ("retention.bytes", Change::Set("99")),
                ("retention.ms", Change::Set("soon")),
            ],
        ),
        (
            "an unknown topic",
            &missing,
            &[("retention.ms", Change::Set("5"))],
        ),
    ];
    for (what, topic, changes) in cases {
        let code = client.alter_topic(topic, changes).await;
        stage.note(what, error(code));
    }
    let seen = client.setting(&topic, "retention.bytes").await;
    stage.note("retention.bytes", seen);
}

async fn a_changed_limit_holds_at_once(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let large = Batch::of(&[&"x".repeat(3_000)]);
    let answer = client.produce(&topic, &large).await;
    stage.note("before", error(answer.error_code));
    changed(
        &mut client,
        &topic,
        "max.message.bytes",
        Change::Set("1000"),
        "`1000`",
    )
    .await;
    let answer = client.produce(&topic, &large).await;
    stage.note("with a limit of 1000", error(answer.error_code));
    changed(
        &mut client,
        &topic,
        "max.message.bytes",
        Change::Set("5000"),
        "`5000`",
    )
    .await;
    let answer = client.produce(&topic, &large).await;
    stage.note("with a limit of 5000", error(answer.error_code));
}

async fn records_are_deleted(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let missing = stage.name("missing");
    let mut client = stage.client().await;
    client.produce(&topic, &Batch::of(&["a", "b", "c", "d"])).await;
    for before in [2, 1, 4, 5, -1, -2] {
        let (code, start) = client.delete_records(&topic, before).await;
        stage.note(
            format!("before {before}"),
            format!("{}, start {start}", error(code)),
        );
    }
    for (what, topic, partition) in [
        ("an unknown topic", &missing, 0),
        ("an unknown partition", &topic, 3),
    ] {
        let (code, start) = client.delete_records_of(topic, partition, 0).await;
        stage.note(what, format!("{}, start {start}", error(code)));
    }
    stage.note_log("at the end", &topic, 0).await;
}

async fn the_cluster_is_described(stage: &mut Stage) {
    let mut client = stage.client().await;
    let answer = client.call(0, &DescribeClusterRequest::default()).await;
    stage.note("error", error(answer.error_code));
    stage.note("brokers", answer.brokers.len());
    stage.note(
        "the controller is one of them",
        answer
            .brokers
            .iter()
            .any(|broker| broker.broker_id == answer.controller_id),
    );
}
