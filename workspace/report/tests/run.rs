//! The process from its settings to its end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::Path;
use std::time::Duration;

use docstore::{SqliteSettings, StoreSettings};
use report::{Config, ReportSettings};
use service::{Process, ServiceInfo};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(20);

fn process() -> Process {
    Process::detached(ServiceInfo {
        name: "report",
        version: "0",
        admin_port: 0,
    })
}

fn config(folder: &Path, listen: &str) -> Config {
    let path = folder.join("missing").join("orderflow.db");
    Config {
        store: StoreSettings {
            sqlite: SqliteSettings {
                path,
                busy_timeout_ms: 50,
                ..SqliteSettings::default()
            },
        },
        report: ReportSettings {
            listen: listen.into(),
            ..ReportSettings::default()
        },
    }
}

async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn until_answered(url: &str) -> reqwest::Response {
    tokio::time::timeout(DEADLINE, async {
        loop {
            match testkit::fetch(url).await {
                Ok(response) => return response,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
    .expect("no answer")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_report_that_starts_first_makes_the_store_is_ready_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = (process(), free_address().await);
    let config = config(folder.path(), &address);
    let running = tokio::spawn(report::run(config.clone(), process.clone()));
    let response = until_answered(&format!("http://{address}/api/summary")).await;
    assert_eq!(response.status(), 200);
    until("ready", || process.health.not_ready_reason().is_none()).await;
    assert!(config.store.sqlite.path.exists());
    let families: Vec<_> = process
        .metrics
        .gather()
        .iter()
        .map(|family| family.name().to_owned())
        .collect();
    assert!(
        families.contains(&"orderflow_report_requests_total".to_owned()),
        "{families:?}"
    );
    assert!(
        families.contains(&"orderflow_store_read_seconds".to_owned()),
        "{families:?}"
    );

    process.shutdown.request("test");
    tokio::time::timeout(DEADLINE, running)
        .await
        .expect("ends")
        .unwrap()
        .unwrap();
    assert!(testkit::fetch(format!("http://{address}/")).await.is_err());
}

#[tokio::test]
async fn a_busy_port_ends_with_69_and_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let exit = report::run(config(folder.path(), &address), process())
        .await
        .unwrap_err();
    assert_eq!(exit.code(), 69);
    let text = exit.to_string();
    assert!(
        text.starts_with(&format!("can not listen on `{address}`: ")),
        "{text}"
    );
    assert!(
        text.contains("set `report.listen` (ORDERFLOW__REPORT__LISTEN) to another"),
        "{text}"
    );
}

#[tokio::test]
async fn a_store_that_can_not_be_opened_ends_with_69_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "127.0.0.1:0");
    config.store.sqlite.path = folder.path().join("notes.txt");
    std::fs::write(
        &config.store.sqlite.path,
        "not a database, only notes".repeat(100),
    )
    .unwrap();
    let exit = report::run(config, process()).await.unwrap_err();
    assert_eq!(exit.code(), 69);
    assert!(
        exit.to_string().contains("notes.txt` is not an SQLite database"),
        "{exit}"
    );
}

#[tokio::test]
async fn a_store_that_is_held_by_another_program_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = (process(), free_address().await);
    let config = config(folder.path(), &address);
    std::fs::create_dir_all(config.store.sqlite.path.parent().unwrap()).unwrap();
    let other = rusqlite::Connection::open(&config.store.sqlite.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let running = tokio::spawn(report::run(config, process.clone()));
    until("says what it waits for", || {
        process
            .health
            .not_ready_reason()
            .is_some_and(|reason| reason == "waiting for the store")
    })
    .await;
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    let response = until_answered(&format!("http://{address}/api/summary")).await;
    assert_eq!(response.status(), 200);
    process.shutdown.request("test");
    tokio::time::timeout(DEADLINE, running)
        .await
        .expect("ends")
        .unwrap()
        .unwrap();
}
