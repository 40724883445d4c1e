//! `orderflow dlq replay`, with a payment worker that takes up what is replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Ended, FakeGateway, GatewayFaults, Launch, Record, Running, charged_twice, eventually};

use crate::common::{DEADLINE, Pipeline, Worker, json_of, last_error};

const DELAY: &str = "200ms";

/// A pipeline with a retry topic that does not take long.
pub async fn pipeline() -> Pipeline {
    let pipeline = Pipeline::new(2).await;
    let observer = pipeline.broker.observer();
    observer.create_topic(&retry_topic(&pipeline), 2).await;
    observer.create_topic(&pipeline.events, 2).await;
    pipeline
}

pub fn retry_topic(pipeline: &Pipeline) -> String {
    let group = pipeline.group(Worker::Payment);
    format!("{}.{group}.retry.{DELAY}", pipeline.orders)
}

pub fn letters_topic(pipeline: &Pipeline) -> String {
    pipeline.dead_letters(Worker::Payment).remove(0)
}

fn launch(pipeline: &Pipeline, arguments: &[&str]) -> Launch {
    pipeline
        .launch(arguments)
        .env("ORDERFLOW__STREAM__RETRY_DELAYS", DELAY)
}

pub fn dlq(pipeline: &Pipeline, arguments: &[&str]) -> Launch {
    launch(pipeline, &[&["dlq"], arguments].concat())
}

/// Runs it to its end, which is a good one, and gives what it says to programs.
pub async fn told(launch: Launch) -> Value {
    let ended = launch.arg("--json").run(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    json_of(&ended)
}

/// A payment worker that gives up after one attempt in place and one later.
async fn payment(pipeline: &Pipeline, settings: &[(&str, &str)]) -> Running {
    let launch = launch(pipeline, &["run", "payment"])
        .env("ORDERFLOW__STREAM__RETRY_DEADLINE_MS", "1")
        .env("ORDERFLOW__STREAM__BRAKE_IN_A_ROW", "0")
        .env("ORDERFLOW__STREAM__BRAKE_PERCENT", "0")
        .env("ORDERFLOW__PAYMENT__GATEWAY__CIRCUIT_FAILURES", "32");
    let running = settings
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(name, value))
        .start();
    running.wait_ready(DEADLINE).await;
    running
}

async fn end(worker: Running) {
    worker.terminate();
    let ended = worker.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

async fn order(pipeline: &Pipeline, count: usize) {
    let records: Vec<(String, String)> = (1..=count)
        .map(|id| {
            let value = format!("{{\"order_id\":{id},\"amount\":50,\"country\":\"FR\"}}");
            (id.to_string(), value)
        })
        .collect();
    let records: Vec<(&[u8], &[u8])> = records
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    pipeline
        .broker
        .observer()
        .produce(&pipeline.orders, &records)
        .await;
}

/// The dead letters, without the marks among them.
async fn letters(pipeline: &Pipeline) -> Vec<Record> {
    let mut records = pipeline.read(&letters_topic(pipeline)).await;
    records.retain(|record| header(record, "dlq-topic").is_some());
    records
}

async fn letters_come(pipeline: &Pipeline, count: usize) {
    eventually(DEADLINE, || async {
        let found = letters(pipeline).await.len();
        if found == count {
            Ok(())
        } else {
            Err(format!("{found} dead letters"))
        }
    })
    .await;
}

fn header(record: &Record, name: &str) -> Option<String> {
    let found = record.headers.iter().rfind(|(key, _)| key == name);
    found.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
}

/// How often each order has a payment of that status.
async fn payments(pipeline: &Pipeline, status: &str) -> BTreeMap<String, usize> {
    let all = pipeline.by_order(&pipeline.payments, "order_id").await;
    let count = |list: &[Value]| list.iter().filter(|payment| payment["status"] == status).count();
    let counted = all.iter().map(|(id, list)| (id.clone(), count(list)));
    counted.filter(|(_, count)| *count > 0).collect()
}

pub async fn events(pipeline: &Pipeline) -> Vec<Value> {
    let records = pipeline.read(&pipeline.events).await;
    let value = |record: &Record| serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    records.iter().map(value).collect()
}

/// The verdict over payment, once everything is done.
async fn holds(pipeline: &Pipeline, more: &[&str]) -> Value {
    let arguments = [
        &[
            "verify",
            "--wait",
            "50",
            "--only",
            "payment",
            "--no-store",
            "--json",
        ],
        more,
    ]
    .concat();
    let ended = launch(pipeline, &arguments).run(2 * DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    json_of(&ended)["counts"].clone()
}

fn every(count: usize, times: usize) -> BTreeMap<String, usize> {
    (1..=count).map(|id| (id.to_string(), times)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_replayed_fails_again_is_replayed_again_and_paid_once() {
    let pipeline = pipeline().await;
    order(&pipeline, 5).await;
    let failing = [("ORDERFLOW__PAYMENT__SIMULATED__FAIL_SHARE", "1")];
    let worker = payment(&pipeline, &failing).await;
    letters_come(&pipeline, 5).await;
    assert_eq!(payments(&pipeline, "FAILED").await, every(5, 1));

    let dry = told(dlq(&pipeline, &["replay"])).await;
    assert_eq!(
        (&dry["dry_run"], &dry["chosen"], &dry["done"]),
        (&json!(true), &json!(5), &json!(0))
    );
    let list = told_lines(dlq(&pipeline, &["list", "--state", "open"])).await;
    assert!(list.last().unwrap().contains("5  dead letters"), "{list:?}");
    assert!(events(&pipeline).await.is_empty());

    // It fails once more, and says so.
    let first = told(dlq(&pipeline, &["replay", "--yes", "--by", "ops@desk"])).await;
    assert_eq!((&first["done"], &first["by"]), (&json!(5), &json!("ops@desk")));
    letters_come(&pipeline, 10).await;
    end(worker).await;
    let mut counts = BTreeMap::<_, usize>::new();
    for letter in letters(&pipeline).await {
        let by = header(&letter, "replayed-by");
        assert_eq!(by.is_some(), header(&letter, "replayed-at").is_some());
        assert!(header(&letter, "retry-first-failure").is_some());
        *counts.entry((by, header(&letter, "replayed-count"))).or_default() += 1;
    }
    let by_ops = (Some("ops@desk".to_owned()), Some("1".to_owned()));
    assert_eq!(counts, BTreeMap::from([((None, None), 5), (by_ops, 5)]));
    let verdict = holds(&pipeline, &[]).await;
    assert_eq!(
        (
            &verdict["failed"],
            &verdict["dead_letters"],
            &verdict["dead_letters_replayed"]
        ),
        (&json!(10), &json!(10), &json!(5))
    );

    // Nothing is to become of order 5.
    let reason = ["discard", "--key", "5", "--reason", "a test order", "--yes"];
    let discarded = told(dlq(&pipeline, &reason)).await;
    assert_eq!(discarded["done"], json!(1));
    // The others are replayed before anybody works again, and then settled.
    let second = told(dlq(&pipeline, &["replay", "--yes"])).await;
    assert_eq!(second["done"], json!(4));
    let again = told(dlq(&pipeline, &["replay", "--yes"])).await;
    assert_eq!(
        (&again["chosen"], &again["done"]),
        (&json!(0), &json!(0)),
        "a second run takes none"
    );
    let worker = payment(&pipeline, &[]).await;
    let verdict = holds(&pipeline, &[]).await;
    assert_eq!(
        (
            &verdict["paid"],
            &verdict["failed"],
            &verdict["dead_letters_discarded"]
        ),
        (&json!(4), &json!(10), &json!(1))
    );
    assert_eq!(payments(&pipeline, "PAID").await, every(4, 1));

    // Whoever insists does no harm: what was paid is not paid again.
    let refused = dlq(&pipeline, &["replay", "--state", "replayed"])
        .run(DEADLINE)
        .await;
    assert_eq!(refused.code(), Some(64), "{}", refused.stderr);
    let insisting = ["replay", "--state", "replayed", "--again", "--yes"];
    let insisted = told(dlq(&pipeline, &insisting)).await;
    assert_eq!(insisted["done"], json!(9));
    let verdict = holds(&pipeline, &[]).await;
    assert_eq!((&verdict["paid"], &verdict["failed"]), (&json!(5), &json!(10)));
    // The earlier one of the two dead letters of order 5 was replayed, and not discarded.
    assert_eq!(payments(&pipeline, "PAID").await, every(5, 1));
    end(worker).await;
}

pub async fn told_lines(launch: Launch) -> Vec<String> {
    let ended = launch.run(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(str::to_owned).collect()
}

/// Which letters the events say were replayed, and in how many events.
async fn replayed(pipeline: &Pipeline) -> (Vec<(i64, i64)>, usize) {
    let events = events(pipeline).await;
    let mut places = Vec::new();
    for event in &events {
        assert_eq!(event["eventType"], "dlq.replayed");
        let letters = event["data"]["letters"].as_array().unwrap();
        assert_eq!(event["data"]["count"], json!(letters.len()));
        places.extend(letters.iter().map(|letter| {
            assert!(letter.get("value").is_none());
            (
                letter["partition"].as_i64().unwrap(),
                letter["offset"].as_i64().unwrap(),
            )
        }));
    }
    places.sort_unstable();
    (places, events.len())
}

/// Begins a replay that would take 20 seconds, and waits until it has dealt with some letters.
async fn begin(pipeline: &Pipeline) -> Running {
    let running = dlq(pipeline, &["replay", "--yes", "--rate", "4"]).start();
    running.wait_for_line("going on", DEADLINE).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_stopped_or_overtaken_goes_on_and_takes_each_letter_once() {
    const ORDERS: usize = 80;
    let pipeline = pipeline().await;
    order(&pipeline, ORDERS).await;
    let gateway = FakeGateway::start(GatewayFaults::default()).await;
    let url = gateway.url();
    let over_http = [
        ("ORDERFLOW__PAYMENT__GATEWAY__KIND", "http"),
        ("ORDERFLOW__PAYMENT__GATEWAY__URL", &url),
    ];
    gateway.refuse_all(Some(422));
    let worker = payment(&pipeline, &over_http).await;
    letters_come(&pipeline, ORDERS).await;
    gateway.refuse_all(None);

    let killed = begin(&pipeline).await;
    killed.kill();
    let killed: Ended = killed.wait(DEADLINE).await;
    assert_eq!(killed.code(), None, "{}", killed.stderr);

    let (some, _) = replayed(&pipeline).await;
    assert!((1..ORDERS).contains(&some.len()), "{some:?}");
    let stopped = begin(&pipeline).await;
    stopped.terminate();
    let stopped = stopped.wait(DEADLINE).await;
    assert_eq!(stopped.code(), Some(1), "{}", stopped.stderr);
    assert!(
        last_error(&stopped).contains("goes on with the others"),
        "{}",
        stopped.stderr
    );

    let overtaken = begin(&pipeline).await;
    let last = told(dlq(&pipeline, &["replay", "--yes"])).await;
    let overtaken = overtaken.wait(DEADLINE).await;
    assert_eq!(overtaken.code(), Some(75), "{}", overtaken.stderr);
    assert!(
        last_error(&overtaken).contains("somebody else"),
        "{}",
        overtaken.stderr
    );
    let done = last["done"].as_u64().unwrap() as usize;
    // Each of the three before it dealt with one batch of two at least.
    assert!((1..=ORDERS - 6).contains(&done), "{last}");

    let again = told(dlq(&pipeline, &["replay", "--yes"])).await;
    assert_eq!(again["chosen"], json!(0));
    let (places, _) = replayed(&pipeline).await;
    let mut once = places.clone();
    once.dedup();
    assert_eq!(
        (once.len(), places.len()),
        (ORDERS, ORDERS),
        "each letter is in one event"
    );
    let mut origins: Vec<_> = pipeline
        .read(&retry_topic(&pipeline))
        .await
        .iter()
        .map(|record| (record.partition, header(record, "origin-offset")))
        .collect();
    origins.sort_unstable();
    origins.dedup();
    let records = pipeline.read(&retry_topic(&pipeline)).await.len();
    assert_eq!(
        (origins.len(), records),
        (ORDERS, ORDERS),
        "and once in the retry topic"
    );

    let base = url.strip_suffix("/charges").unwrap().to_owned();
    let verdict = holds(&pipeline, &["--gateway", &base]).await;
    assert_eq!(verdict["paid"], json!(ORDERS));
    assert_eq!(verdict["dead_letters_replayed"], json!(ORDERS));
    assert_eq!(payments(&pipeline, "PAID").await, every(ORDERS, 1));
    assert!(charged_twice(&gateway.charges()).is_empty());
    assert_eq!(gateway.charges().len(), ORDERS);
    end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_acts_while_a_transaction_hides_what_became_of_letters() {
    use rdkafka::config::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    let pipeline = pipeline().await;
    let topic = letters_topic(&pipeline);
    let observer = pipeline.broker.observer();
    let group = pipeline.group(Worker::Payment).to_owned();
    let headers: [(&str, &[u8]); 5] = [
        ("dlq-topic", pipeline.orders.as_bytes()),
        ("dlq-partition", b"0"),
        ("dlq-offset", b"0"),
        ("dlq-timestamp", b"5"),
        ("dlq-group", group.as_bytes()),
    ];
    observer
        .produce_with_headers(&topic, Some(0), b"key", b"{}", &headers)
        .await;
    // A worker has a transaction open behind the letter, and in front of the mark of its replay.
    let worker: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.broker.address())
        .set("transactional.id", pipeline.broker.name("worker"))
        .create()
        .unwrap();
    let limit = Duration::from_secs(20);
    worker.init_transactions(limit).unwrap();
    worker.begin_transaction().unwrap();
    let record = BaseRecord::<str, str>::to(&topic)
        .partition(0)
        .key("other")
        .payload("{}");
    worker.send(record).unwrap();
    worker.flush(limit).unwrap();

    let first = dlq(&pipeline, &["replay", "--yes", "--json"]).start();
    let second = dlq(&pipeline, &["replay", "--yes", "--json"]).start();
    for waiting in [&first, &second] {
        waiting.wait_for_line("a transaction is open", DEADLINE).await;
    }
    assert!(pipeline.read(&retry_topic(&pipeline)).await.is_empty());
    worker.commit_transaction(limit).unwrap();
    let ends = [first.wait(DEADLINE).await, second.wait(DEADLINE).await];
    let done: u64 = ends
        .iter()
        .filter(|ended| ended.code() == Some(0))
        .map(|ended| json_of(ended)["done"].as_u64().unwrap())
        .sum();
    let codes: Vec<_> = ends.iter().map(Ended::code).collect();
    assert_eq!(done, 1, "{codes:?}");
    assert_eq!(pipeline.read(&retry_topic(&pipeline)).await.len(), 1, "{codes:?}");
}
