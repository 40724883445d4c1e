//! What becomes of good and of bad input.

use serde_json::{Value, json};
use testkit::Running;

use crate::common::{DEADLINE, Pipeline, Worker, json_of};

async fn start_all(pipeline: &Pipeline) -> Vec<Running> {
    let running: Vec<Running> = Worker::ALL
        .into_iter()
        .map(|worker| pipeline.worker(worker).start())
        .collect();
    for worker in &running {
        worker.wait_ready(DEADLINE).await;
    }
    running
}

async fn end_all(running: Vec<Running>) {
    for worker in running {
        worker.terminate();
        let ended = worker.wait(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
}

fn order(id: u32, amount: &str, country: &str) -> Vec<u8> {
    format!(r#"{{"order_id":{id},"amount":{amount},"country":"{country}"}}"#).into_bytes()
}

/// Good and bad lines in one file. The lines count from 1, and a good line's id is its number.
fn mixed_file() -> Vec<u8> {
    let lines: Vec<Vec<u8>> = vec![
        order(1, "300.00", "US"),
        order(2, "300.01", "US"),
        order(3, "300.00", "CA"),
        order(4, "300.01", "CA"),
        order(5, "300.00", "FR"),
        order(6, "300.01", "FR"),
        br#"{"order_id":7,"amount":"#.to_vec(),
        br#"{"order_id":8,"amount":5,"country":"FR","currency":"XXQ"}"#.to_vec(),
        br#"{"order_id":9,"amount":10.123,"country":"FR","currency":"EUR"}"#.to_vec(),
        br#"{"order_id":10,"amount":1.5,"country":"JP","currency":"JPY"}"#.to_vec(),
        // The first one stands, whatever the repeat says.
        br#"{"order_id":"6","amount":7.77,"country":"DE"}"#.to_vec(),
        vec![b'x'; 10_000_000],
        br#"{"order_id":13,"amount":-3.10,"country":"FR"}"#.to_vec(),
        Vec::new(),
        br#"{"order_id":15,"amount":12.345,"country":"KW","currency":"KWD"}"#.to_vec(),
        // The last line has no end.
        order(16, "0.01", "FR"),
    ];
    lines.join(&b'\n')
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_a_bad_file_is_taken_or_reported_with_its_number_and_nothing_else_suffers() {
    let pipeline = Pipeline::new(3).await;
    let running = start_all(&pipeline).await;
    let file = pipeline.file("mixed.ndjson", &mixed_file());
    let report_file = pipeline.folder.path().join("report.json");
    let replayed = pipeline
        .replay(&file)
        .arg("--report-file")
        .arg(&report_file)
        .run(DEADLINE)
        .await;
    assert_eq!(replayed.code(), Some(0), "{}", replayed.stderr);
    pipeline.settled().await;

    let report = json_of(&replayed);
    assert_eq!(
        serde_json::from_slice::<Value>(&std::fs::read(&report_file).unwrap()).unwrap(),
        report
    );
    assert_eq!(report["sent"], json!(9));
    assert_eq!(report["acknowledged"], json!(9));
    assert_eq!(report["rejected"], json!(6));
    assert_eq!(
        report["rejected_by_code"],
        json!({"invalid_json": 1, "unknown_currency": 1, "amount_too_precise": 2, "too_large": 1, "amount_not_positive": 1})
    );
    for (line, code, named) in [
        (7, "invalid_json", "JSON"),
        (8, "unknown_currency", "`currency` is `XXQ`"),
        (9, "amount_too_precise", "`amount` is `10.123`"),
        (10, "amount_too_precise", "`amount` is `1.5`"),
        (12, "too_large", "10000000 bytes"),
        (
            13,
            "amount_not_positive",
            "`amount` is `-3.10`, must be more than 0",
        ),
    ] {
        let start = format!("{}:{line}: rejected ({code}): ", file.display());
        let told = replayed.stderr.lines().find(|text| text.contains(&start));
        assert!(
            told.is_some_and(|text| text.contains(named)),
            "{start}{named} is missing in\n{}",
            replayed.stderr
        );
    }

    let taken = ["1", "15", "16", "2", "3", "4", "5", "6"];
    let orders = pipeline.by_order(&pipeline.orders, "order_id").await;
    assert_eq!(orders.keys().collect::<Vec<_>>(), taken);
    assert_eq!(
        orders["6"].len(),
        2,
        "intake does not remember ids, the workers do"
    );

    let alerts = pipeline.by_order(&pipeline.alerts, "orderId").await;
    assert_eq!(
        alerts.keys().collect::<Vec<_>>(),
        ["6"],
        "more than 300 and neither US nor CA"
    );
    assert_eq!(alerts["6"].len(), 1);
    let alert = &alerts["6"][0];
    assert!(alert["riskScore"].as_u64().unwrap() >= 25, "{alert}");
    assert_eq!(
        (&alert["amount"], &alert["currency"], &alert["country"]),
        (&json!(300.01), &json!("USD"), &json!("FR"))
    );

    let payments = pipeline.by_order(&pipeline.payments, "order_id").await;
    assert_eq!(payments.keys().collect::<Vec<_>>(), taken);
    assert!(
        payments
            .values()
            .flatten()
            .all(|payment| payment["status"] == "PAID"),
        "{payments:?}"
    );
    assert_eq!(payments["15"][0]["amount"], json!(12.345));
    assert_eq!(payments["6"].len(), 1, "one order, one payment");
    assert_eq!(
        payments["6"][0]["amount"],
        json!(300.01),
        "that of the first occurrence"
    );

    let store = pipeline.store();
    let summary = store.summary().await.unwrap();
    assert_eq!(
        (
            summary.orders.documents,
            summary.payments.documents,
            summary.alerts.documents
        ),
        (8, 8, 1)
    );
    let repeated: Value = serde_json::from_str(&store.order("6").await.unwrap().unwrap().order.body).unwrap();
    assert_eq!(
        (&repeated["amount"], &repeated["country"]),
        (&json!(300.01), &json!("FR")),
        "the first one stands"
    );
    assert!(store.order("8").await.unwrap().is_none());

    // The repeat has other content, and payment wants somebody to look.
    for worker in Worker::ALL {
        let wanted: &[&str] = match worker {
            Worker::Payment => &["conflicting_repeat"],
            _ => &[],
        };
        let mut codes = Vec::new();
        for topic in pipeline.dead_letters(worker) {
            let letters = pipeline.read(&topic).await;
            codes.extend(letters.iter().map(|letter| {
                let code = letter.headers.iter().find(|(name, _)| name == "dlq-error-code");
                String::from_utf8(code.unwrap().1.clone()).unwrap()
            }));
        }
        assert_eq!(codes, wanted, "{worker:?}");
    }
    pipeline.holds().await;
    end_all(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_foreign_producer_writes_wrongly_becomes_a_dead_letter_of_each_group_with_its_cause() {
    let pipeline = Pipeline::new(1).await;
    let observer = pipeline.broker.observer();
    // Nobody listens yet: an order before and one behind the bad ones show that both are passed by nobody.
    let large = format!(
        r#"{{"order_id":4,"amount":5,"country":"FR","note":"{}"}}"#,
        "x".repeat(300 * 1024)
    );
    let bad: [(&[u8], &[u8], &str); 3] = [
        (b"broken", b"\xff\x00 garbage", "invalid_utf8"),
        (
            b"3",
            br#"{"order_id":3,"amount":1.999,"country":"FR"}"#,
            "amount_too_precise",
        ),
        (b"4", large.as_bytes(), "too_large"),
    ];
    let (first, last) = (order(1, "5", "FR"), order(5, "5", "FR"));
    let mut records: Vec<(&[u8], &[u8])> = vec![(b"1", &first)];
    records.extend(bad.iter().map(|(key, value, _)| (*key, *value)));
    records.push((b"5", &last));
    observer.produce(&pipeline.orders, &records).await;
    let running = start_all(&pipeline).await;
    pipeline.settled().await;

    for worker in Worker::ALL {
        let topic = &pipeline.dead_letters(worker)[0];
        let letters = pipeline.read(topic).await;
        assert_eq!(letters.len(), bad.len(), "{topic}");
        for (index, (letter, (key, value, code))) in letters.iter().zip(bad).enumerate() {
            assert_eq!(letter.key.as_deref(), Some(key));
            assert!(
                letter.value.as_deref() == Some(value),
                "the bytes of `{code}` were changed"
            );
            let header = |name: &str| {
                let found = letter.headers.iter().find(|(header, _)| header == name);
                String::from_utf8(found.unwrap_or_else(|| panic!("no {name}")).1.clone()).unwrap()
            };
            assert_eq!(header("dlq-error-code"), code);
            assert_eq!(header("dlq-topic"), pipeline.orders);
            assert_eq!(header("dlq-offset"), (index + 1).to_string());
            assert_eq!(header("dlq-group"), pipeline.group(worker));
            assert!(!header("dlq-error").is_empty());
        }
    }
    let payments = pipeline.by_order(&pipeline.payments, "order_id").await;
    assert_eq!(payments.keys().collect::<Vec<_>>(), ["1", "5"]);
    assert_eq!(pipeline.store().summary().await.unwrap().orders.documents, 2);
    pipeline.holds().await;
    end_all(running).await;
}
