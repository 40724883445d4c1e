//! What the tests of the worker share: its topics, and the worker in a task.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{Payment, PaymentStatus};
use payment::Config;
use payment::config::{GatewayKind, GatewaySettings};
use service::{Exit, Process};
use stream::settings::dead_letter_topic;
use testkit::{FakeGateway, Observer, TestBroker, eventually};
use tokio::task::JoinHandle;

pub const LIMIT: Duration = Duration::from_secs(120);

/// Topics of one test.
pub struct Bench {
    pub broker: TestBroker,
    pub observer: Observer,
    pub orders: String,
}

/// Where one run of the worker reads and writes.
pub struct Run {
    pub group: String,
    pub payments: String,
}

impl Bench {
    pub async fn new() -> Self {
        let broker = TestBroker::start().await;
        let bench = Self {
            observer: broker.observer(),
            orders: broker.name("orders"),
            broker,
        };
        bench.observer.create_topic(&bench.orders, 3).await;
        bench
    }

    /// A group with topics of its own.
    pub async fn run(&self) -> Run {
        let run = Run {
            group: self.broker.name("payments-group"),
            payments: self.broker.name("payments"),
        };
        for topic in [&run.payments, &self.dead_letters(&run)] {
            self.observer.create_topic(topic, 3).await;
        }
        run
    }

    pub fn dead_letters(&self, run: &Run) -> String {
        dead_letter_topic(&self.orders, &run.group)
    }

    /// Writes so many orders.
    pub async fn order(&self, count: usize) {
        let orders: Vec<(String, String)> = (1..=count)
            .map(|id| {
                let order = format!("{{\"order_id\":{id},\"amount\":{id}.07,\"country\":\"FR\"}}");
                (id.to_string(), order)
            })
            .collect();
        let records: Vec<(&[u8], &[u8])> = orders
            .iter()
            .map(|(key, order)| (key.as_bytes(), order.as_bytes()))
            .collect();
        self.observer.produce(&self.orders, &records).await;
    }

    /// A configuration for this gateway: short time-outs, and no retry topics, so that what is not
    /// settled in place is a dead letter.
    pub fn config(&self, run: &Run, gateway: &FakeGateway) -> Config {
        let mut config = Config::default();
        config.kafka.brokers = self.broker.address().to_owned();
        config.topics.orders.clone_from(&self.orders);
        config.topics.payments.clone_from(&run.payments);
        config.stream.session_timeout_ms = Some(6_000);
        config.stream.retry_delays = "off".to_owned();
        config.payment.group.clone_from(&run.group);
        config.payment.gateway = GatewaySettings {
            kind: GatewayKind::Http,
            url: Some(gateway.url()),
            request_timeout_ms: 1_000,
            circuit_open_ms: 50,
            circuit_open_most_ms: 400,
            ..GatewaySettings::default()
        };
        config
    }

    pub fn start(&self, config: Config) -> Worker {
        // Two workers of one name would fence each other.
        let process = Process {
            instance: self.broker.name("instance"),
            ..Process::detached(payment::INFO)
        };
        Worker {
            process: process.clone(),
            task: tokio::spawn(payment::run(config, process)),
        }
    }

    /// Waits until every order has ended.
    pub async fn all_committed(&self, run: &Run) {
        eventually(LIMIT, || async {
            let ends = self.observer.end_offsets(&self.orders).await;
            let committed = self.observer.committed(&run.group, &self.orders).await;
            let is_behind =
                |(partition, end): (&i32, &i64)| *end > committed.get(partition).copied().unwrap_or(0);
            if ends.iter().any(is_behind) {
                return Err(format!("ends {ends:?}, committed {committed:?}"));
            }
            Ok(())
        })
        .await;
    }

    /// The payments by order: all of them, so that a second one shows.
    pub async fn payments(&self, run: &Run) -> BTreeMap<String, Vec<PaymentStatus>> {
        let mut payments: BTreeMap<String, Vec<PaymentStatus>> = BTreeMap::new();
        for record in self.observer.read_all(&run.payments).await {
            let value = record.value.expect("a payment");
            let payment = Payment::decode(&value).expect("a payment");
            let of_order = payments.entry(payment.order_id.text().to_owned()).or_default();
            of_order.push(payment.status);
        }
        payments
    }

    /// The error codes of the dead letters.
    pub async fn letters(&self, run: &Run) -> Vec<String> {
        let letters = self.observer.read_all(&self.dead_letters(run)).await;
        letters
            .iter()
            .map(|letter| {
                let code = letter
                    .headers
                    .iter()
                    .find(|(name, _)| name == "dlq-error-code")
                    .expect("a code");
                String::from_utf8_lossy(&code.1).into_owned()
            })
            .collect()
    }
}

/// A worker that runs in a task.
pub struct Worker {
    pub process: Process,
    pub task: JoinHandle<Result<(), Exit>>,
}

impl Worker {
    pub async fn stop(self) {
        self.process.shutdown.request("the test is over");
        let ended = tokio::time::timeout(LIMIT, self.task).await;
        ended
            .expect("stops in time")
            .expect("does not panic")
            .expect("stops cleanly");
    }

    /// The sum of a metric, over the series with this label value where one is given.
    pub fn metric(&self, name: &str, label: Option<&str>) -> f64 {
        let families = self.process.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        family
            .map(|family| family.get_metric())
            .unwrap_or_default()
            .iter()
            .filter(|metric| {
                label.is_none_or(|wanted| metric.get_label().iter().any(|label| label.value() == wanted))
            })
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}
