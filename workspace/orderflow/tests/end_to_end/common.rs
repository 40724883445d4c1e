//! A pipeline with topics, groups and files of its own, so that tests can share a broker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use docstore::{DocumentStore, StoreSettings};
use serde_json::Value;
use stream::StreamSettings;
use stream::settings::Delays;
use testkit::{Ended, Launch, Record, TestBroker, eventually};

/// Nothing that a test waits for takes so long, unless something is wrong.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The binary, as the demo and an orchestrator start it: `orderflow ARGUMENTS`.
pub fn orderflow(arguments: &[&str]) -> Launch {
    arguments
        .iter()
        .fold(Launch::new(env!("CARGO_BIN_EXE_orderflow")), Launch::arg)
}

/// The error that the process ended with, as its last line says it.
pub fn last_error(ended: &Ended) -> &str {
    let line = ended.stderr.lines().rfind(|line| line.contains(" exit_code="));
    let error = line
        .and_then(|line| line.split_once(" error="))
        .map(|(_, error)| error);
    error.unwrap_or_else(|| panic!("it ended without an error: {}", ended.stderr))
}

/// The last line of standard output as JSON.
pub fn json_of(ended: &Ended) -> Value {
    let line = ended
        .stdout
        .lines()
        .last()
        .unwrap_or_else(|| panic!("no result: {}", ended.stderr));
    serde_json::from_str(line).unwrap()
}

/// A topics file with these topics.
pub fn topics_file(topics: &[String], partitions: i32) -> String {
    let mut text = format!(
        "[defaults]\npartitions = {partitions}\nreplication = 1\nretention_ms = 604800000\ncompression = \"producer\"\ncleanup_policy = \"delete\"\n"
    );
    for topic in topics {
        text += &format!("[topics.\"{topic}\"]\nmax_message_bytes = 1048588\n");
    }
    text
}

/// Which worker; the order is that of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worker {
    Fraud,
    Payment,
    Analytics,
}

impl Worker {
    pub const ALL: [Self; 3] = [Self::Fraud, Self::Payment, Self::Analytics];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Fraud => "fraud",
            Self::Payment => "payment",
            Self::Analytics => "analytics",
        }
    }
}

pub struct Pipeline {
    pub broker: TestBroker,
    pub folder: tempfile::TempDir,
    pub orders: String,
    /// Made by the test that needs it.
    pub events: String,
    pub payments: String,
    pub alerts: String,
    groups: BTreeMap<Worker, String>,
}

impl Pipeline {
    /// A pipeline whose topics have so many partitions.
    pub async fn new(partitions: i32) -> Self {
        let pipeline = Self::without_topics().await;
        for topic in pipeline.topics() {
            pipeline.broker.observer().create_topic(&topic, partitions).await;
        }
        pipeline
    }

    /// Names only: nothing exists yet.
    pub async fn without_topics() -> Self {
        let broker = TestBroker::start().await;
        let groups = Worker::ALL
            .into_iter()
            .map(|worker| (worker, broker.name(worker.name())))
            .collect();
        Self {
            orders: broker.name("orders"),
            events: broker.name("order-events"),
            payments: broker.name("payments"),
            alerts: broker.name("fraud-alerts"),
            groups,
            folder: tempfile::tempdir().unwrap(),
            broker,
        }
    }

    pub fn group(&self, worker: Worker) -> &str {
        &self.groups[&worker]
    }

    /// What a worker reads.
    pub fn inputs(&self, worker: Worker) -> Vec<&str> {
        match worker {
            Worker::Fraud | Worker::Payment => vec![&self.orders],
            Worker::Analytics => vec![&self.orders, &self.alerts, &self.payments],
        }
    }

    pub fn dead_letters(&self, worker: Worker) -> Vec<String> {
        let group = self.group(worker);
        self.inputs(worker)
            .iter()
            .map(|input| stream::settings::dead_letter_topic(input, group))
            .collect()
    }

    /// Where orders wait whose payment has to be tried again later.
    pub fn retries(&self) -> Vec<String> {
        let delays = Delays::parse(&StreamSettings::default().retry_delays).unwrap();
        delays.topics(&self.orders, self.group(Worker::Payment)).collect()
    }

    /// Every topic of the pipeline.
    pub fn topics(&self) -> Vec<String> {
        let dead_letters = Worker::ALL
            .into_iter()
            .flat_map(|worker| self.dead_letters(worker));
        [&self.orders, &self.payments, &self.alerts]
            .into_iter()
            .cloned()
            .chain(dead_letters)
            .chain(self.retries())
            .collect()
    }

    /// `orderflow ARGUMENTS`, configured by environment only.
    pub fn launch(&self, arguments: &[&str]) -> Launch {
        orderflow(arguments)
            .env("KAFKA_BROKERS", self.broker.address())
            .env("ORDERFLOW__TOPICS__ORDERS", &self.orders)
            .env("ORDERFLOW__TOPICS__PAYMENTS", &self.payments)
            .env("ORDERFLOW__TOPICS__FRAUD_ALERTS", &self.alerts)
            .env("ORDERFLOW__TOPICS__ORDER_EVENTS", &self.events)
            .env("ORDERFLOW__FRAUD__GROUP", self.group(Worker::Fraud))
            .env("ORDERFLOW__PAYMENT__GROUP", self.group(Worker::Payment))
            .env("ORDERFLOW__ANALYTICS__GROUP", self.group(Worker::Analytics))
            .env("ORDERFLOW__STORE__SQLITE__PATH", self.database())
            // The shortest that a broker allows by default: a test of a dead member waits for it.
            .env("ORDERFLOW__STREAM__SESSION_TIMEOUT_MS", "6000")
    }

    pub fn worker(&self, worker: Worker) -> Launch {
        self.launch(&["run", worker.name()])
    }

    pub fn replay(&self, file: &Path) -> Launch {
        self.launch(&["run", "producer", "replay", "--json"]).arg(file)
    }

    /// Asks `orderflow verify`, which waits until everything is done, whether the run was right.
    pub async fn holds(&self) {
        let verify = self.launch(&["verify", "--wait", "50"]).run(2 * DEADLINE).await;
        assert_eq!(verify.code(), Some(0), "{}\n{}", verify.stdout, verify.stderr);
        assert!(verify.stdout.ends_with("all held\n"), "{}", verify.stdout);
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("orderflow.db")
    }

    pub fn store(&self) -> Arc<dyn DocumentStore> {
        store_at(&self.database())
    }

    pub async fn read(&self, topic: &str) -> Vec<Record> {
        self.broker.observer().read_all(topic).await
    }

    /// The JSON of every record of a topic, by the text of its order id.
    pub async fn by_order(&self, topic: &str, id_field: &str) -> BTreeMap<String, Vec<Value>> {
        let mut found = BTreeMap::<String, Vec<Value>>::new();
        for record in self.read(topic).await {
            let value: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            let id = match &value[id_field] {
                Value::String(text) => text.clone(),
                number => number.to_string(),
            };
            assert_eq!(
                record.key.as_deref(),
                Some(id.as_bytes()),
                "outputs keep the key of their input"
            );
            found.entry(id).or_default().push(value);
        }
        found
    }

    /// Records that the group has committed in the topic `orders`.
    pub async fn committed_orders(&self, worker: Worker) -> i64 {
        self.broker
            .observer()
            .committed(self.group(worker), &self.orders)
            .await
            .values()
            .sum()
    }

    /// Waits until the group has ended every record of a topic.
    pub async fn caught_up(&self, worker: Worker, topic: &str) {
        let observer = self.broker.observer();
        let ends = observer.end_offsets(topic).await;
        eventually(DEADLINE, || async {
            let committed = observer.committed(self.group(worker), topic).await;
            let behind: Vec<String> = ends
                .iter()
                .filter(|(partition, end)| **end != committed.get(*partition).copied().unwrap_or(0))
                .map(|(partition, end)| {
                    format!(
                        "{topic}[{partition}] ends at {end}, committed {:?}",
                        committed.get(partition)
                    )
                })
                .collect();
            if behind.is_empty() {
                Ok(())
            } else {
                Err(format!("{worker:?}: {}", behind.join(", ")))
            }
        })
        .await;
    }

    /// Waits until every record is ended by every group: upstream first, because what those have ended
    /// is in the topics that analytics is asked about.
    pub async fn settled(&self) {
        self.caught_up(Worker::Fraud, &self.orders).await;
        self.caught_up(Worker::Payment, &self.orders).await;
        for input in self.inputs(Worker::Analytics) {
            self.caught_up(Worker::Analytics, input).await;
        }
    }
}

pub fn store_at(path: &Path) -> Arc<dyn DocumentStore> {
    let mut settings = StoreSettings::default();
    settings.sqlite.path = path.to_owned();
    docstore::open(&settings).unwrap()
}
