//! `orderflow verify` as a process, over runs that were laid out by hand: one that is right, and one for
//! each way in which a run goes wrong.

use std::time::Duration;

use docstore::{Collection, Version, VersionedDocument};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use testkit::Ended;

use crate::common::{DEADLINE, Pipeline, Worker, json_of};

const ORDERS: i64 = 30;
const PARTITIONS: i32 = 3;

fn order(id: i64) -> String {
    // Every tenth one is suspicious.
    let amount = if id % 10 == 0 { 450 } else { 50 };
    format!("{{\"order_id\":{id},\"amount\":{amount},\"country\":\"FR\",\"x\":[1.0]}}")
}

fn payment(id: i64) -> String {
    let (amount, payment_id) = (
        if id % 10 == 0 { 450 } else { 50 },
        domain::ids::payment_id(&id.to_string()),
    );
    format!(
        "{{\"order_id\":{id},\"status\":\"PAID\",\"payment_id\":\"{payment_id}\",\"amount\":{amount},\"currency\":\"USD\",\
         \"attempts\":1,\"timestamp\":\"2024-01-12T03:15:00.000Z\"}}"
    )
}

fn alert(id: i64) -> String {
    let alert_id = domain::ids::alert_id(None, &id.to_string());
    // 25 + 60 * ln(450 / 300) / ln(5000 / 3) = 28.3.
    format!(
        "{{\"alertId\":\"{alert_id}\",\"orderId\":{id},\"riskScore\":28,\"riskLevel\":\"Medium\",\"amount\":450,\
         \"currency\":\"USD\",\"country\":\"FR\",\"reasons\":[],\"rulesVersion\":\"1\"}}"
    )
}

fn document(id: i64, order: &str) -> VersionedDocument {
    let fields = order.strip_suffix('}').unwrap();
    let ours = format!(
        "\"_orderflow\":{{\"type\":\"order\",\"topic\":\"orders\",\"partition\":0,\"offset\":{id},\"record_time\":1,\
         \"event_time\":null,\"currency\":\"USD\",\"amount_minor\":5000,\"amount\":\"50.00\"}}"
    );
    VersionedDocument {
        key: id.to_string(),
        body: format!("{fields},{ours}}}"),
        version: Version {
            generation: 0,
            offset: id,
        },
    }
}

/// What of a run is laid out differently.
#[derive(Default)]
struct Flaw {
    lost_payment: Option<i64>,
    doubled_payment: Option<i64>,
    lost_alert: Option<i64>,
    doubled_alert: Option<i64>,
    differing_document: Option<i64>,
    lost_document: Option<i64>,
}

async fn write(pipeline: &Pipeline, topic: &str, records: impl Iterator<Item = (i64, String)>) {
    let records: Vec<(String, String)> = records.map(|(id, value)| (id.to_string(), value)).collect();
    let records: Vec<(&[u8], &[u8])> = records
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    pipeline.broker.observer().produce(topic, &records).await;
}

/// Lays out a run of [`ORDERS`] orders; groups have not committed yet.
async fn lay_out(flaw: &Flaw) -> Pipeline {
    let pipeline = Pipeline::new(PARTITIONS).await;
    let ids = || 1..=ORDERS;
    let twice =
        |id: i64, doubled: Option<i64>| std::iter::repeat_n(id, if doubled == Some(id) { 2 } else { 1 });
    write(&pipeline, &pipeline.orders, ids().map(|id| (id, order(id)))).await;
    let paid = ids().filter(|id| flaw.lost_payment != Some(*id));
    let paid = paid.flat_map(|id| twice(id, flaw.doubled_payment));
    write(&pipeline, &pipeline.payments, paid.map(|id| (id, payment(id)))).await;
    let hit = ids().filter(|id| id % 10 == 0 && flaw.lost_alert != Some(*id));
    let hit = hit.flat_map(|id| twice(id, flaw.doubled_alert));
    write(&pipeline, &pipeline.alerts, hit.map(|id| (id, alert(id)))).await;
    let kept = ids().filter(|id| flaw.lost_document != Some(*id));
    let documents: Vec<VersionedDocument> = kept
        .map(|id| {
            let order = order(id);
            let differs = flaw.differing_document == Some(id);
            let order = if differs {
                order.replace("[1.0]", "[1.1]")
            } else {
                order
            };
            document(id, &order)
        })
        .collect();
    let store = pipeline.store();
    store.insert_first(Collection::Orders, &documents).await.unwrap();
    pipeline
}

/// Commits the ends of these topics for a group, all but the last `behind` records of each partition.
async fn commit_ends(pipeline: &Pipeline, group: &str, topics: &[&str], behind: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.broker.address())
        .set("group.id", group)
        .create()
        .unwrap();
    let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let commit = move || {
        let mut offsets = TopicPartitionList::new();
        for topic in &topics {
            for partition in 0..PARTITIONS {
                let (_, end) = consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
                let next = Offset::Offset((end - behind).max(0));
                offsets.add_partition_offset(topic, partition, next).unwrap();
            }
        }
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    };
    tokio::task::spawn_blocking(commit).await.unwrap();
}

async fn commit(pipeline: &Pipeline, worker: Worker, behind: i64) {
    commit_ends(pipeline, pipeline.group(worker), &pipeline.inputs(worker), behind).await;
}

async fn commit_all(pipeline: &Pipeline) {
    tokio::join!(
        commit(pipeline, Worker::Fraud, 0),
        commit(pipeline, Worker::Payment, 0),
        commit(pipeline, Worker::Analytics, 0),
    );
}

async fn verify(pipeline: &Pipeline, arguments: &[&str]) -> Ended {
    let launch = pipeline.launch(&["verify", "--json"]);
    let launch = arguments
        .iter()
        .fold(launch, |launch, argument| launch.arg(argument));
    launch.run(DEADLINE).await
}

/// Asks for exactly these violations, each with how often.
fn shows(ended: &Ended, wanted: &[(&str, u64)]) -> Value {
    let line = json_of(ended);
    let checks = line["checks"].as_object().unwrap().iter();
    let found: Vec<(&str, u64)> = checks
        .map(|(name, tally)| (name.as_str(), tally["violated"].as_u64().unwrap()))
        .filter(|(_, violated)| *violated > 0)
        .collect();
    assert_eq!(found, wanted, "{}", ended.stderr);
    let (code, verdict) = if wanted.is_empty() {
        (0, "held")
    } else {
        (1, "violated")
    };
    assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
    assert_eq!(line["verdict"], verdict);
    line
}

async fn shows_after(flaw: Flaw, wanted: &[(&str, u64)]) -> Value {
    let pipeline = lay_out(&flaw).await;
    commit_all(&pipeline).await;
    shows(&verify(&pipeline, &[]).await, wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_right_holds() {
    let pipeline = lay_out(&Flaw::default()).await;
    commit_all(&pipeline).await;
    let ended = verify(&pipeline, &[]).await;
    let line = shows(&ended, &[]);
    assert!(ended.stderr.contains("all held"), "{}", ended.stderr);
    let counts = &line["counts"];
    let told: Vec<_> = ["orders", "paid", "alerts", "documents"]
        .map(|name| &counts[name])
        .into();
    assert_eq!(told, [&json!(30), &json!(30), &json!(3), &json!(30)]);
    assert_eq!(
        line["not_judged"],
        json!(["charged_twice", "charge_missing", "charge_unpaid"])
    );
    let without = verify(&pipeline, &["--no-store", "--only", "fraud,payment"]).await;
    let line = shows(&without, &[]);
    assert!(
        line["not_judged"]
            .as_array()
            .unwrap()
            .contains(&json!("document_missing"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_payment_is_found_and_its_order_named() {
    let flaw = Flaw {
        lost_payment: Some(7),
        ..Flaw::default()
    };
    let pipeline = lay_out(&flaw).await;
    commit_all(&pipeline).await;
    let ended = verify(&pipeline, &[]).await;
    let line = shows(&ended, &[("payment_missing", 1)]);
    let records = pipeline.read(&pipeline.orders).await;
    let lost = records
        .iter()
        .find(|record| record.key.as_deref() == Some(b"7"))
        .unwrap();
    let example = &line["checks"]["payment_missing"]["examples"][0];
    assert_eq!(
        (&example["id"], &example["partition"], &example["offset"]),
        (&json!("7"), &json!(lost.partition), &json!(lost.offset))
    );
    let place = format!("{}@{}  order 7", lost.partition, lost.offset);
    assert!(ended.stderr.contains(&place), "{}", ended.stderr);
    // Order 7 was sent before this time.
    let later = (lost.timestamp_ms.unwrap() + 1_000_000).to_string();
    shows(&verify(&pipeline, &["--from", &later]).await, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubled_payment_is_found() {
    let flaw = Flaw {
        doubled_payment: Some(8),
        ..Flaw::default()
    };
    shows_after(flaw, &[("payment_doubled", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_and_a_doubled_alert_are_found() {
    let flaw = Flaw {
        lost_alert: Some(10),
        doubled_alert: Some(20),
        ..Flaw::default()
    };
    shows_after(flaw, &[("alert_doubled", 1), ("alert_missing", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_differing_and_a_lost_document_are_found() {
    let flaw = Flaw {
        differing_document: Some(3),
        lost_document: Some(4),
        ..Flaw::default()
    };
    shows_after(flaw, &[("document_differs", 1), ("document_missing", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_without_a_record_is_not_explained() {
    let pipeline = lay_out(&Flaw::default()).await;
    commit_all(&pipeline).await;
    let topic = &pipeline.dead_letters(Worker::Fraud)[0];
    let group = pipeline.group(Worker::Fraud).to_owned();
    let headers: Vec<(&str, &[u8])> = vec![
        ("dlq-topic", pipeline.orders.as_bytes()),
        ("dlq-partition", b"0"),
        ("dlq-offset", b"5000"),
        ("dlq-timestamp", b"1"),
        ("dlq-group", group.as_bytes()),
        ("dlq-error-code", b"invalid_json"),
        ("dlq-error", b"why"),
        ("dlq-attempts", b"1"),
        ("dlq-service-version", b"0.1.0"),
    ];
    let observer = pipeline.broker.observer();
    observer
        .produce_with_headers(topic, Some(0), b"1", b"{", &headers)
        .await;
    observer
        .produce_with_headers(topic, Some(0), b"1", b"{", &headers[..5])
        .await;
    let line = shows(&verify(&pipeline, &[]).await, &[("dead_letter_unexplained", 2)]);
    let examples = &line["checks"]["dead_letter_unexplained"]["examples"];
    assert!(
        examples[0]["what"].as_str().unwrap().contains("0@5000"),
        "{examples}"
    );
    assert!(
        examples[1]["what"].as_str().unwrap().contains("dlq-error-code"),
        "{examples}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_order_has_to_be_a_dead_letter_of_each_group() {
    let pipeline = lay_out(&Flaw::default()).await;
    write(&pipeline, &pipeline.orders, [(99, "{".to_owned())].into_iter()).await;
    commit_all(&pipeline).await;
    shows(&verify(&pipeline, &[]).await, &[("dead_letter_missing", 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_found_and_not_waited_for() {
    let pipeline = lay_out(&Flaw::default()).await;
    commit_all(&pipeline).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.broker.address())
        .set("transactional.id", pipeline.broker.name("open"))
        .create()
        .unwrap();
    let topic = pipeline.payments.clone();
    let producer = tokio::task::spawn_blocking(move || {
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        let value = payment(1);
        let record = BaseRecord::to(&topic).partition(0).key("1").payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
        producer
    })
    .await
    .unwrap();
    // What the transaction would add is not there for readers, and so no second payment.
    shows(&verify(&pipeline, &[]).await, &[("transaction_open", 1)]);
    tokio::task::spawn_blocking(move || producer.abort_transaction(DEADLINE).unwrap())
        .await
        .unwrap();
    // What is left of it, behind what analytics has committed, is nothing that anybody could read.
    shows(&verify(&pipeline, &["--wait", "50"]).await, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_behind_is_found_and_waited_for() {
    let pipeline = lay_out(&Flaw::default()).await;
    commit(&pipeline, Worker::Fraud, 0).await;
    commit(&pipeline, Worker::Analytics, 0).await;
    commit(&pipeline, Worker::Payment, 1).await;
    let partitions = pipeline
        .broker
        .observer()
        .end_offsets(&pipeline.orders)
        .await
        .len() as u64;
    shows(&verify(&pipeline, &[]).await, &[("offset_behind", partitions)]);
    let (waiting, ()) = tokio::join!(verify(&pipeline, &["--wait", "50"]), async {
        commit(&pipeline, Worker::Payment, 0).await;
    });
    shows(&waiting, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_a_retry_topic_is_not_finished_until_its_group_has_taken_it() {
    let flaw = Flaw {
        lost_payment: Some(7),
        ..Flaw::default()
    };
    let pipeline = lay_out(&flaw).await;
    commit_all(&pipeline).await;
    let group = pipeline.group(Worker::Payment).to_owned();
    let retry = pipeline.retries()[0].clone();
    write(&pipeline, &retry, [(7, order(7))].into_iter()).await;
    let line = shows(&verify(&pipeline, &[]).await, &[("not_finished", 1)]);
    let example = &line["checks"]["not_finished"]["examples"][0];
    assert_eq!((&example["id"], &example["place"]), (&json!("7"), &json!(retry)));
    write(&pipeline, &pipeline.payments, [(7, payment(7))].into_iter()).await;
    commit(&pipeline, Worker::Analytics, 0).await;
    commit_ends(&pipeline, &group, &[&retry], 0).await;
    shows(&verify(&pipeline, &[]).await, &[]);
}

/// A gateway that tells these charges to whoever asks.
async fn gateway(charges: Vec<Value>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lines: Vec<String> = charges.iter().map(Value::to_string).collect();
    let body = lines.join("\n");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4_096];
            let _read = stream.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _written = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn charge(id: i64, charged: Value) -> Value {
    let key = domain::ids::payment_id(&id.to_string());
    json!({"key": key, "order_id": id.to_string(), "charged": charged})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_charged_twice_or_not_at_all_is_found() {
    let pipeline = lay_out(&Flaw::default()).await;
    commit_all(&pipeline).await;
    let right: Vec<Value> = (1..=ORDERS).map(|id| charge(id, json!(1))).collect();
    let url = gateway(right.clone()).await;
    let line = shows(&verify(&pipeline, &["--gateway", &url]).await, &[]);
    assert_eq!(line["checks"]["charge_missing"]["judged"], json!(30));
    let mut wrong = right;
    wrong[4] = charge(5, json!(2));
    wrong.remove(9);
    let url = gateway(wrong).await;
    let line = shows(
        &verify(&pipeline, &["--gateway", &url]).await,
        &[("charge_missing", 1), ("charged_twice", 1)],
    );
    assert_eq!(line["checks"]["charged_twice"]["examples"][0]["id"], json!("5"));
    assert_eq!(line["checks"]["charge_missing"]["examples"][0]["id"], json!("10"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_reached_is_69_and_what_is_configured_wrong_64() {
    let pipeline = lay_out(&Flaw::default()).await;
    commit_all(&pipeline).await;
    for (arguments, code, told) in [
        (&["--gateway", "http://127.0.0.1:9"][..], 69, "--gateway"),
        (&["--from", "yesterday"], 64, "must be milliseconds"),
        (&["--only", "report"], 64, "report"),
    ] {
        let ended = verify(&pipeline, arguments).await;
        assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "no verdict");
    }
    let no_store = pipeline
        .launch(&["verify", "--json"])
        .env(
            "ORDERFLOW__STORE__SQLITE__PATH",
            pipeline.folder.path().join("none.db"),
        )
        .run(DEADLINE)
        .await;
    assert_eq!(no_store.code(), Some(69), "{}", no_store.stderr);
    assert!(no_store.stderr.contains("--no-store"), "{}", no_store.stderr);
    assert!(
        !pipeline.folder.path().join("none.db").exists(),
        "looking makes nothing"
    );
    let empty = pipeline
        .launch(&["verify", "--json"])
        .env("ORDERFLOW__TOPICS__ORDERS", "no-such-topic")
        .run(DEADLINE + Duration::from_secs(5))
        .await;
    assert_eq!(empty.code(), Some(69), "{}", empty.stderr);
    assert!(empty.stderr.contains("no-such-topic"), "{}", empty.stderr);
}
