//! Everything from one command.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docstore::Summary;
use serde_json::{Value, json};
use testkit::{Ended, Launch, Running, TestBroker, data_file, eventually, get};

use crate::common::{DEADLINE, json_of, last_error, orderflow, store_at};

/// A demo on ports of its own.
fn demo(arguments: &[&str]) -> Launch {
    orderflow(&["demo", "--port", "0", "--broker-port", "0"]).args(arguments)
}

trait Arguments {
    fn args(self, arguments: &[&str]) -> Self;
}

impl Arguments for Launch {
    fn args(self, arguments: &[&str]) -> Self {
        arguments.iter().fold(self, Launch::arg)
    }
}

fn succeeded(ended: &Ended) -> Value {
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    json_of(ended)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("`{value}` is no count"))
}

async fn documents(data: &Path) -> Summary {
    store_at(&data.join("orderflow.db")).summary().await.unwrap()
}

/// What follows `label` in the greeting.
async fn greeted(running: &Running, label: &str) -> String {
    let line = running.wait_for_line(label, DEADLINE).await;
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_of_a_run_agree_with_the_documents_and_a_second_run_goes_on_after_the_highest_id() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let run = |count: &'static str| {
        demo(&["--exit-when-done", "--json", "--count", count])
            .arg("--data")
            .arg(&data)
            .run(2 * DEADLINE)
    };
    let first = succeeded(&run("300").await);
    for (field, wanted) in [
        ("orders", 300),
        ("distinct_orders", 300),
        ("documents", 300),
        ("rejected", 0),
        ("skipped", 0),
        ("dead_letters", 0),
    ] {
        assert_eq!(first[field], json!(wanted), "{field} in {first}");
    }
    assert_eq!(
        first["payments"],
        json!({"PAID": 300, "DECLINED": 0, "FAILED": 0})
    );
    assert!(first["seconds"].as_f64().unwrap() > 0.0);
    let stored = documents(&data).await;
    assert_eq!((stored.orders.documents, stored.payments.documents), (300, 300));
    assert_eq!(stored.alerts.documents, number(&first["alerts"]));
    assert!(
        stored.alerts.documents > 0,
        "the generator makes suspicious orders too"
    );
    // The sums were made of records, those of the store of documents: two ways to the same amount.
    let amounts = first["amounts"].as_object().unwrap();
    assert_eq!(amounts.len(), stored.orders.amounts_minor.len());
    for (currency, minor) in &stored.orders.amounts_minor {
        let digits = amounts[currency].as_str().unwrap().replace('.', "");
        assert_eq!(digits.parse::<i128>().unwrap(), *minor, "{currency}");
    }

    let second = succeeded(&run("100").await);
    assert_eq!(
        (&second["orders"], &second["payments"]["PAID"]),
        (&json!(100), &json!(100)),
        "a new embedded broker"
    );
    assert_eq!(second["documents"], json!(400), "the documents of both runs");
    let store = store_at(&data.join("orderflow.db"));
    for id in 1..=400 {
        let record = store.order(&id.to_string()).await.unwrap();
        assert!(
            record.is_some_and(|record| record.payment.is_some()),
            "order {id}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_ends_a_run_with_1_unless_it_is_allowed() {
    let failing = |arguments: &[&str]| {
        demo(&["--count", "50", "--exit-when-done", "--json"])
            .args(arguments)
            .env("ORDERFLOW__PAYMENT__SIMULATED__FAIL_SHARE", "0.2")
            .env("ORDERFLOW__PAYMENT__SIMULATED__DECLINE_SHARE", "0.2")
            // Else it is given up after minutes only.
            .env("ORDERFLOW__STREAM__RETRY_DELAYS", "off")
            .run(2 * DEADLINE)
    };
    let (refused, allowed) = tokio::join!(failing(&[]), failing(&["--allow-dead-letters"]));
    let counts = succeeded(&allowed);
    let of = |status: &str| number(&counts["payments"][status]);
    let failed = of("FAILED");
    assert!(failed > 0 && of("DECLINED") > 0, "{counts}");
    assert_eq!(of("PAID") + of("DECLINED") + failed, 50, "{counts}");
    assert_eq!(
        counts["dead_letters"],
        json!(failed),
        "what was given up, and nothing else"
    );
    assert_eq!(counts["documents"], json!(50));

    assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
    let mut same = json_of(&refused);
    same["seconds"] = counts["seconds"].clone();
    assert_eq!(same, counts, "the counts are printed all the same");
    assert_eq!(
        last_error(&refused),
        format!("{failed} records became dead letters (`--allow-dead-letters` accepts them)")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_a_kafka_of_its_own_leaves_its_records_there_and_the_next_one_goes_on() {
    // The demo's topics have fixed names, so it gets a broker for itself, which it can not know is embedded.
    let broker = TestBroker::embedded(devbroker::Options::default()).await;
    let run = |count: &'static str| {
        orderflow(&[
            "demo",
            "--port",
            "0",
            "--exit-when-done",
            "--json",
            "--count",
            count,
            "--brokers",
            broker.address(),
        ])
        .run(2 * DEADLINE)
    };
    let first = succeeded(&run("100").await);
    assert_eq!(
        (&first["orders"], &first["documents"], &first["payments"]["PAID"]),
        (&json!(100), &json!(100), &json!(100))
    );
    let second = succeeded(&run("50").await);
    let observer = broker.observer();
    let kept = |topic: &'static str| {
        let observer = observer.clone();
        async move { observer.read_all(topic).await.len() }
    };
    assert_eq!((kept("orders").await, kept("payments").await), (150, 150));
    assert_eq!(
        second["orders"],
        json!(150),
        "what is in the topic, whoever wrote it"
    );
    assert_eq!(
        second["distinct_orders"],
        json!(150),
        "the ids go on after the highest one in the topic"
    );
    assert_eq!(second["alerts"], json!(kept("fraud-alerts").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_run_without_an_end_is_refused_with_the_remedy() {
    let ended = demo(&["--exit-when-done"]).run(DEADLINE).await;
    assert_eq!(ended.code(), Some(64));
    assert_eq!(
        ended.stderr,
        "demo: `--exit-when-done` needs `--orders FILE` or `--count N`: made-up orders never end by themselves\n"
    );
}

/// A running process and what tells it from a later one with the same id.
#[cfg(target_os = "linux")]
type Descendant = (u32, String);

/// The fields of /proc/PID/stat behind the name: state, parent, ..., start time (the 20th).
#[cfg(target_os = "linux")]
fn stat(id: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(
        text.rsplit_once(") ")?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(target_os = "linux")]
fn children_of(parent: u32) -> Vec<Descendant> {
    let ids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| {
        let fields = stat(id)?;
        (fields[1] == parent.to_string()).then(|| (id, fields[19].clone()))
    })
    .collect()
}

/// A process that ended and that nobody has waited for is not alive.
#[cfg(target_os = "linux")]
fn is_alive((id, started): &Descendant) -> bool {
    stat(*id).is_some_and(|fields| fields[19] == *started && fields[0] != "Z")
}

#[cfg(target_os = "linux")]
async fn have_ended(children: &[Descendant], deadline: Duration) {
    eventually(deadline, || async {
        let alive: Vec<String> = children
            .iter()
            .filter(|child| is_alive(child))
            .map(|(id, _)| {
                std::fs::read_to_string(format!("/proc/{id}/cmdline"))
                    .unwrap_or_default()
                    .replace('\0', " ")
            })
            .collect();
        if alive.is_empty() {
            Ok(())
        } else {
            Err(format!("still running: {}", alive.join("; ")))
        }
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn it_stays_up_on_the_next_free_ports_and_leaves_nothing_behind_when_it_is_told_to_stop() {
    let busy = [
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    ];
    let [page_port, broker_port] = [&busy[0], &busy[1]].map(|listener| listener.local_addr().unwrap().port());
    let temporary = tempfile::tempdir().unwrap();
    let running = orderflow(&["demo", "--rate", "100"])
        .args(&[
            "--port",
            &page_port.to_string(),
            "--broker-port",
            &broker_port.to_string(),
        ])
        .env("TMPDIR", temporary.path())
        .start();
    let page = greeted(&running, "  page ").await;
    let kafka = greeted(&running, "  kafka ").await;
    running
        .wait_for_line(&format!("kcat -b {kafka} -C -t payments"), DEADLINE)
        .await;
    let port = |address: &str| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    assert!(
        (1..=100).contains(&(i32::from(port(&page)) - i32::from(page_port))),
        "{page}, {page_port} was busy"
    );
    assert!(
        (1..=100).contains(&(i32::from(port(&kafka)) - i32::from(broker_port))),
        "{kafka}, {broker_port} was busy"
    );

    let orders = eventually(DEADLINE, || async {
        let (status, body) = get(&format!("{page}/api/analytics?limit=10")).await?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let orders = answer["orders"].as_array().cloned().unwrap_or_default();
        if status == 200 && orders.len() == 10 {
            Ok(orders)
        } else {
            Err(format!("{status}: {body}"))
        }
    })
    .await;
    let ids: Vec<u64> = orders.iter().map(|order| number(&order["order_id"])).collect();
    assert!(ids.iter().max() > Some(&9), "{ids:?}");
    // The embedded broker is a real one for other clients.
    let observer = testkit::Observer::new(&kafka);
    assert!(observer.end_offsets("orders").await.values().sum::<i64>() >= 10);

    let children = children_of(running.id());
    assert_eq!(children.len(), 5, "the producer, three workers and the report");
    running.terminate();
    let ended = running.wait(DEADLINE).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let alive: Vec<_> = children.iter().filter(|child| is_alive(child)).collect();
    assert!(alive.is_empty(), "left behind: {alive:?}");
    let left: Vec<PathBuf> = std::fs::read_dir(temporary.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "the temporary folder is removed: {left:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn its_children_end_when_it_is_killed() {
    // Who is killed can not remove its folder.
    let temporary = tempfile::tempdir().unwrap();
    let running = demo(&["--rate", "100"]).env("TMPDIR", temporary.path()).start();
    greeted(&running, "  page ").await;
    let children = eventually(DEADLINE, || async {
        let children = children_of(running.id());
        (children.len() == 5).then_some(children)
    })
    .await;
    running.kill();
    assert_eq!(running.wait(DEADLINE).await.code(), None);
    have_ended(&children, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn online_retail_gives_the_published_counts() {
    let Some(file) = data_file("online-retail.csv.zst") else {
        return;
    };
    let ended = demo(&["--exit-when-done", "--json"])
        .arg("--orders")
        .arg(&file)
        .run(3 * DEADLINE)
        .await;
    let mut counts = succeeded(&ended);
    counts.as_object_mut().unwrap().remove("seconds");
    assert_eq!(
        counts,
        json!({
            "orders": 19_960, "distinct_orders": 19_960, "rejected": 0, "skipped": 5_940, "alerts": 10_314,
            "payments": {"PAID": 19_960, "DECLINED": 0, "FAILED": 0}, "documents": 19_960, "dead_letters": 0,
            "amounts": {"GBP": "10666684.54"},
        })
    );
}
