//! What the tests of workers share: a broker with topics of their own, and a worker in a task.
#![allow(dead_code)] // Each test uses its part.

use std::time::Duration;

use service::{Process, ServiceInfo};
use stream::settings::dead_letter_topic;
use stream::worker::{Surroundings, WorkerSpec};
use stream::{KafkaSettings, Repeats, StreamError, StreamSettings};
use testkit::{Observer, TestBroker, eventually};
use tokio::task::JoinHandle;

pub const LIMIT: Duration = Duration::from_secs(60);
pub const INFO: ServiceInfo = ServiceInfo {
    name: "test",
    version: "0",
    admin_port: 0,
};

/// Topics and a group of one test, with the broker that they are on.
pub struct Bench {
    pub broker: TestBroker,
    pub observer: Observer,
    pub input: String,
    pub output: String,
    pub group: String,
    /// Made by the test that needs it.
    pub events: String,
}

impl Bench {
    pub async fn new(partitions: i32) -> Self {
        Self::on(TestBroker::start().await, partitions).await
    }

    /// On a broker that the test has chosen.
    pub async fn on(broker: TestBroker, partitions: i32) -> Self {
        let bench = Self::without_topics_on(broker);
        bench.observer.create_topic(&bench.input, partitions).await;
        bench.observer.create_topic(&bench.output, partitions).await;
        bench
            .observer
            .create_topic(&bench.dead_letters(), partitions)
            .await;
        bench
    }

    pub async fn without_topics() -> Self {
        Self::without_topics_on(TestBroker::start().await)
    }

    fn without_topics_on(broker: TestBroker) -> Self {
        let (input, output, group) = (broker.name("in"), broker.name("out"), broker.name("group"));
        let events = broker.name("events");
        Self {
            observer: broker.observer(),
            broker,
            input,
            output,
            group,
            events,
        }
    }

    pub fn dead_letters(&self) -> String {
        dead_letter_topic(&self.input, &self.group)
    }

    pub fn spec(&self) -> WorkerSpec {
        WorkerSpec {
            service: "test",
            group: self.group.clone(),
            inputs: vec![self.input.clone()],
            outputs: vec![self.output.clone()],
            repeats: Repeats::Count,
            events: self.events.clone(),
        }
    }

    pub fn surroundings(&self, change: impl FnOnce(&mut StreamSettings)) -> Surroundings {
        let mut stream = StreamSettings {
            session_timeout_ms: Some(6_000),
            retry_delays: "off".to_owned(),
            ..StreamSettings::default()
        };
        change(&mut stream);
        let kafka = KafkaSettings {
            brokers: self.broker.address().to_owned(),
            ..KafkaSettings::default()
        };
        // Two workers of one name would fence each other.
        let process = Process {
            instance: self.broker.name("instance"),
            ..Process::detached(INFO)
        };
        Surroundings {
            process,
            kafka,
            stream,
        }
    }

    pub async fn produce(&self, records: &[(String, String)]) {
        let records: Vec<(&[u8], &[u8])> = records
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
            .collect();
        self.observer.produce(&self.input, &records).await;
    }

    /// Waits until the group has committed every record of the input.
    pub async fn all_committed(&self) {
        self.all_committed_of(&self.input).await;
    }

    /// The same of any topic.
    pub async fn all_committed_of(&self, topic: &str) {
        eventually(LIMIT, || async {
            let ends = self.observer.end_offsets(topic).await;
            let committed = self.observer.committed(&self.group, topic).await;
            let behind: Vec<_> = ends
                .iter()
                .filter(|(partition, end)| **end > committed.get(partition).copied().unwrap_or(0))
                .collect();
            if behind.is_empty() {
                Ok(())
            } else {
                Err(format!("ends {ends:?}, committed {committed:?}"))
            }
        })
        .await;
    }

    pub async fn output_values(&self) -> Vec<String> {
        self.values_of(&self.output).await
    }

    pub async fn values_of(&self, topic: &str) -> Vec<String> {
        let records = self.observer.read_all(topic).await;
        records
            .into_iter()
            .map(|record| String::from_utf8(record.value.unwrap()).unwrap())
            .collect()
    }
}

/// A worker that runs in a task.
pub struct Running {
    pub process: Process,
    pub task: JoinHandle<Result<(), StreamError>>,
}

impl Running {
    pub async fn stop(self) -> Result<(), StreamError> {
        self.process.shutdown.request("the test is over");
        tokio::time::timeout(LIMIT, self.task)
            .await
            .expect("stops in time")
            .expect("does not panic")
    }
}
