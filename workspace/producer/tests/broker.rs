//! The binary against a broker: devbroker, or the real Kafka of `ORDERFLOW_TEST_BROKER`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::{Currency, Order};
use serde_json::{Value, json};
use testkit::{Ended, Launch, Record, TestBroker};

const DEADLINE: Duration = Duration::from_secs(60);

struct Stage {
    broker: TestBroker,
    topic: String,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let broker = TestBroker::start().await;
        let topic = broker.name("orders");
        broker.observer().create_topic(&topic, 3).await;
        Self {
            broker,
            topic,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn producer(&self) -> Launch {
        Launch::new(env!("CARGO_BIN_EXE_producer"))
            .env("KAFKA_BROKERS", self.broker.address())
            .env("ORDERFLOW__TOPICS__ORDERS", &self.topic)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    async fn records(&self) -> Vec<Record> {
        self.broker.observer().read_all(&self.topic).await
    }
}

fn summary(ended: &Ended) -> Value {
    let line = ended
        .stdout
        .lines()
        .last()
        .unwrap_or_else(|| panic!("no summary: {}", ended.stderr));
    serde_json::from_str(line).unwrap()
}

fn lines(ids: impl Iterator<Item = usize>) -> String {
    ids.map(|id| format!("{{\"order_id\":{id},\"amount\":1.50,\"country\":\"FR\"}}\n"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_puts_each_good_order_into_the_topic_under_its_id() {
    let stage = Stage::new().await;
    let text = lines(1..=500) + "broken\n{\"order_id\":\"A-1\",\"amount\":2,\"country\":\"US\"}\n";
    let file = stage.file(
        "orders.ndjson.zst",
        &zstd::encode_all(text.as_bytes(), 1).unwrap(),
    );
    let report = stage.folder.path().join("report.json");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let ended = stage
        .producer()
        .arg("replay")
        .arg(&file)
        .arg("--json")
        .arg("--report-file")
        .arg(&report)
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let summary = summary(&ended);
    assert_eq!(
        (
            &summary["sent"],
            &summary["acknowledged"],
            &summary["rejected"],
            &summary["finished"]
        ),
        (&json!(501), &json!(501), &json!(1), &json!(true))
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&std::fs::read(&report).unwrap()).unwrap(),
        summary
    );
    assert!(
        ended
            .stderr
            .contains(":501: rejected (invalid_json): the message is not JSON"),
        "{}",
        ended.stderr
    );

    let records = stage.records().await;
    let mut partitions = BTreeMap::<i32, u32>::new();
    for record in &records {
        let order = Order::decode(record.value.as_deref().unwrap(), Currency::USD).unwrap();
        assert_eq!(record.key.as_deref().unwrap(), order.id.text().as_bytes());
        // Retention works on the record's time, which is that of sending whatever the order says.
        assert!(record.timestamp_ms.unwrap() >= before - 1000);
        *partitions.entry(record.partition).or_default() += 1;
    }
    assert_eq!(records.len(), 501);
    assert_eq!(partitions.len(), 3, "{partitions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_a_file_too_and_many_bad_lines_do_not_flood() {
    let stage = Stage::new().await;
    let file = stage.file("orders", ("broken\n".repeat(1000) + &lines(1..=3)).as_bytes());
    let piped = format!(
        "cat {} | {} replay - --format ndjson --json",
        file.display(),
        env!("CARGO_BIN_EXE_producer")
    );
    let ended = Launch::new("/bin/sh")
        .env("KAFKA_BROKERS", stage.broker.address())
        .env("ORDERFLOW__TOPICS__ORDERS", &stage.topic)
        .arg("-c")
        .arg(piped)
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let summary = summary(&ended);
    assert_eq!(
        (&summary["acknowledged"], &summary["rejected"]),
        (&json!(3), &json!(1000))
    );
    assert_eq!(summary["rejected_by_code"], json!({"invalid_json": 1000}));
    assert_eq!(
        ended.stderr.matches("rejected (invalid_json)").count(),
        20,
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.lines().count() < 40, "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_orders_keep_their_event_time_and_get_a_new_record_time() {
    let stage = Stage::new().await;
    let csv = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n\
               536365,85123A,HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n\
               C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527,United Kingdom\n";
    let file = stage.file("retail.csv", csv.as_bytes());
    let ended = stage
        .producer()
        .arg("replay")
        .arg(&file)
        .arg("--json")
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(
        (&summary(&ended)["sent"], &summary(&ended)["skipped"]),
        (&json!(1), &json!(1))
    );
    let records = stage.records().await;
    let order: Value = serde_json::from_slice(records[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(
        (&order["timestamp"], &order["amount"]),
        (&json!("2010-12-01T08:26:00.000Z"), &json!(15.3))
    );
    assert!(records[0].timestamp_ms.unwrap() > 1_700_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_ends_with_1_and_a_file_of_unknown_layout_with_64() {
    let stage = Stage::new().await;
    let file = stage.file(
        "orders.ndjson",
        (lines(1..=2) + "broken\n" + &lines(3..=4)).as_bytes(),
    );
    let ended = stage
        .producer()
        .arg("replay")
        .arg(&file)
        .arg("--strict")
        .arg("--json")
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert_eq!(
        (&summary(&ended)["acknowledged"], &summary(&ended)["finished"]),
        (&json!(2), &json!(false))
    );
    assert!(
        ended.stderr.contains("line 3: the message is not JSON"),
        "{}",
        ended.stderr
    );

    let file = stage.file("orders.csv", b"a,b\n1,2\n");
    let ended = stage.producer().arg("replay").arg(&file).run(DEADLINE).await;
    assert_eq!(ended.code(), Some(64), "{}", ended.stderr);
    assert!(ended.stderr.contains("--map order_id="), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_the_middle_of_a_replay_loses_nothing_that_was_sent() {
    let stage = Stage::new().await;
    let file = stage.file("orders.ndjson", lines(1..=100_000).as_bytes());
    let running = stage
        .producer()
        .arg("replay")
        .arg(&file)
        .arg("--rate")
        .arg("200")
        .arg("--json")
        .start();
    let observer = stage.broker.observer();
    testkit::eventually(DEADLINE, || async {
        observer.end_offsets(&stage.topic).await.values().sum::<i64>() >= 50
    })
    .await;
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let summary = summary(&ended);
    let sent = summary["sent"].as_u64().unwrap();
    assert!((50..100_000).contains(&sent), "{summary}");
    assert_eq!(
        (&summary["acknowledged"], &summary["stopped_at_line"]),
        (&json!(sent), &json!(sent))
    );
    assert!(
        ended.stderr.contains(&format!("line {sent} (SIGTERM)")),
        "{}",
        ended.stderr
    );
    assert_eq!(stage.records().await.len() as u64, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_orders_are_the_same_for_a_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let stage = Stage::new().await;
        let mut launch = stage.producer().arg("generate");
        for argument in [
            "--count",
            "300",
            "--seed",
            "5",
            "--first-id",
            "1000",
            "--start-time",
            "2024-01-12T03:15:00Z",
            "--json",
        ] {
            launch = launch.arg(argument);
        }
        let ended = launch.run(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert_eq!(summary(&ended)["acknowledged"], 300);
        let records = stage.records().await;
        runs.push(
            records
                .into_iter()
                .map(|record| (record.key.unwrap(), record.value.unwrap()))
                .collect::<BTreeMap<_, _>>(),
        );
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains_key(&b"1000"[..]) && runs[0].contains_key(&b"1299"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_intake_answers_with_the_place_where_the_order_is() {
    let stage = Stage::new().await;
    let running = stage
        .producer()
        .arg("serve")
        .arg("--listen")
        .arg("127.0.0.1:0")
        .start();
    let line = running.wait_for_line("intake takes orders", DEADLINE).await;
    let url = line
        .split(['"', '=', ' '])
        .find(|part| part.starts_with("http://"))
        .unwrap()
        .to_owned();
    running.wait_ready(DEADLINE).await;
    let order = r#"{"order_id":77,"amount":2.50,"country":"FR","gift":true}"#;
    let response = testkit::http()
        .post(&url)
        .header("content-type", "application/json")
        .body(order)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 201);
    let place: Value = response.json().await.unwrap();
    let records = stage.records().await;
    assert_eq!(
        place,
        json!({"order_id": 77, "topic": stage.topic, "partition": records[0].partition, "offset": records[0].offset})
    );
    assert_eq!(records[0].key.as_deref(), Some(&b"77"[..]));
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_ends_a_replay_with_69_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    std::fs::write(&file, lines(1..=1)).unwrap();
    let ended = Launch::new(env!("CARGO_BIN_EXE_producer"))
        .env("KAFKA_BROKERS", "127.0.0.1:1")
        .env("ORDERFLOW__PRODUCER__CONNECT_TIMEOUT_MS", "500")
        .arg("replay")
        .arg(&file)
        .run(DEADLINE)
        .await;
    assert_eq!(ended.code(), Some(69), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("no Kafka broker answers at `127.0.0.1:1`"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("KAFKA_BROKERS"), "{}", ended.stderr);
}
