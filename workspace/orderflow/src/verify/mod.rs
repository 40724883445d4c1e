//! A verdict over a whole run, or over a range of it.
//!
//! It reads what is there, the topics as a reader of committed records sees them, the groups' offsets, the
//! document store and what the gateway charged, and takes no worker's word for anything. What must hold:
//!
//! - Every order, the first occurrence of its id in its partition, has one final payment, `PAID` or
//!   `DECLINED`, which may follow one `FAILED`, and which equals it; or it is a dead letter of payments-group.
//! - It has one alert where the rules of the configuration hit it, and else none.
//! - It has one document, equal to it field by field with exact numbers, and no document has no order.
//! - Every record that is no order is a dead letter of each group, and every dead letter is explained.
//! - Nothing is left: groups are at the ends of their inputs, no transaction is open, nothing waits in a
//!   retry topic, and nothing came while it was judged.
//! - Each paid order was charged, under its own key, once.
//!
//! Repeats in the partition of the first occurrence have no effect. Repeats in other partitions, as after
//! these grew, are counted apart. Probe orders are left out.
//!
//! Memory is bounded by the orders: 56 bytes for each and 5 to 18 for the index, 690 MB for 10 million
//! (`table`), about 100 MB for the client, and 40 bytes for each dead letter that was replayed or
//! discarded. No JSON is kept.
//!
//! - `judge`: the verdict from a stream of facts, pure; `table`, `key`, `canonical`, `findings` are its parts.
//! - `read`: the facts from topics and store; `standing`: offsets, and waiting for them; `gateway`: charges.

mod canonical;
mod findings;
mod gateway;
mod judge;
mod key;
mod read;
mod standing;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use analytics::config::AnalyticsSettings;
use docstore::StoreSettings;
use domain::{EventTime, OrderSettings};
use fraud::config::FraudSettings;
use payment::config::PaymentSettings;
use serde::{Deserialize, Serialize};
use service::{Exit, Problems, Process, ServiceInfo, Settings, launch};
use stream::settings::{dead_letter_topic, retry_topic_prefix};
use stream::{KafkaSettings, TopicNames, admin};

use crate::cli::{Judged, VerifyArgs};
use crate::cluster::{CONNECT_LIMIT, brokers_flag};
use findings::Findings;
use judge::{Judge, Letters, Range, Terms};
use table::Group;

const INFO: ServiceInfo = ServiceInfo {
    name: "verify",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 0,
};

/// What the workers are configured with, as far as it decides what is right.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    kafka: KafkaSettings,
    topics: TopicNames,
    orders: OrderSettings,
    fraud: FraudSettings,
    payment: PaymentSettings,
    analytics: AnalyticsSettings,
    store: StoreSettings,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        // Each section is checked by the worker that it is of.
        let fraud = fraud::Config {
            kafka: self.kafka.clone(),
            topics: self.topics.clone(),
            fraud: self.fraud.clone(),
            ..fraud::Config::default()
        };
        let payment = payment::Config {
            payment: self.payment.clone(),
            ..payment::Config::default()
        };
        let analytics = analytics::Config {
            analytics: self.analytics.clone(),
            store: self.store.clone(),
            ..analytics::Config::default()
        };
        fraud.check(problems);
        payment.check(problems);
        analytics.check(problems);
    }

    fn open_tables() -> &'static [&'static str] {
        fraud::Config::open_tables()
    }
}

impl Config {
    fn group_name(&self, group: Group) -> &str {
        match group {
            Group::Fraud => &self.fraud.group,
            Group::Payments => &self.payment.group,
            Group::Analytics => &self.analytics.group,
        }
    }

    /// What a group reads.
    fn inputs(&self, group: Group) -> Vec<&str> {
        let topics = &self.topics;
        match group {
            Group::Fraud | Group::Payments => vec![&topics.orders],
            Group::Analytics => vec![&topics.orders, &topics.fraud_alerts, &topics.payments],
        }
    }

    fn letters(&self, group: Group) -> Vec<Letters> {
        let group_name = self.group_name(group);
        let inputs = self.inputs(group).into_iter();
        inputs
            .map(|source| Letters {
                topic: dead_letter_topic(source, group_name),
                source: source.to_owned(),
                group,
                group_name: group_name.to_owned(),
            })
            .collect()
    }

    /// How the names of the retry topics of a group begin.
    fn retry_prefixes(&self, group: Group) -> Vec<String> {
        let group_name = self.group_name(group);
        let inputs = self.inputs(group).into_iter();
        inputs
            .map(|source| retry_topic_prefix(source, group_name))
            .collect()
    }
}

/// What one call judges.
#[derive(Clone)]
struct Scope {
    groups: Vec<Group>,
    range: Range,
    store: Option<StoreSettings>,
}

/// A time on the command line: RFC 3339, or milliseconds since 1970.
///
/// # Errors
/// What it must be.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    EventTime::parse(text)
        .map(|time| time.0)
        .map_err(|_| "must be milliseconds since 1970, or a time such as 2024-01-12T03:15:00Z".to_owned())
}

/// Judges.
pub fn main(args: VerifyArgs) -> ExitCode {
    let flags = brokers_flag(args.brokers.as_ref());
    let common = args.common.clone();
    launch(
        INFO,
        &common,
        &flags,
        |config: Config, process: Process| async move {
            tokio::select! {
                verdict = run(&args, &config) => tell(&args, &verdict?),
                () = process.shutdown.requested() => Err(Exit::failed("stopped before the verdict")),
            }
        },
    )
}

async fn run(args: &VerifyArgs, config: &Config) -> Result<Findings, Exit> {
    let scope = Scope {
        groups: groups(&args.only),
        range: Range {
            from_ms: args.from,
            to_ms: args.to,
        },
        store: store(args, config)?,
    };
    let rules = config
        .fraud
        .rules()
        .map_err(|mistake| Exit::config(mistake.to_string()))?;
    let topics = &config.topics;
    let mut judge = Judge::new(Terms {
        rules,
        default_currency: config.orders.default_currency,
        range: scope.range,
        groups: scope.groups.clone(),
        orders: topics.orders.clone(),
        payments: topics.payments.clone(),
        alerts: topics.fraud_alerts.clone(),
        most_examples: usize::from(args.examples),
    });
    admin::connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
    standing::wait(config, &scope, Duration::from_secs(args.wait)).await?;
    judge = read::topics(config, &scope, judge).await?;
    if let Some(settings) = &scope.store {
        read::documents(settings, &mut judge).await?;
    }
    if let Some(url) = &args.gateway {
        gateway::charges(url, &mut judge).await?;
    }
    standing::judge(config, &scope, &mut judge).await?;
    Ok(judge.verdict())
}

fn groups(only: &[Judged]) -> Vec<Group> {
    let chosen = |group: &Group| {
        only.contains(&match group {
            Group::Fraud => Judged::Fraud,
            Group::Payments => Judged::Payment,
            Group::Analytics => Judged::Analytics,
        })
    };
    Group::ALL.into_iter().filter(chosen).collect()
}

/// The store to judge. That of the defaults may be absent; one that somebody named must be there, because
/// opening it would make it.
fn store(args: &VerifyArgs, config: &Config) -> Result<Option<StoreSettings>, Exit> {
    if args.no_store || !args.only.contains(&Judged::Analytics) {
        return Ok(None);
    }
    let path = &config.store.sqlite.path;
    if path.exists() {
        return Ok(Some(config.store.clone()));
    }
    if *path == StoreSettings::default().sqlite.path {
        tracing::warn!(path = %path.display(), "no document store here, documents are not judged");
        return Ok(None);
    }
    Err(Exit::unavailable(format!(
        "`store.sqlite.path`: there is no store at `{}`; `--no-store` judges without one",
        path.display()
    )))
}

fn tell(args: &VerifyArgs, findings: &Findings) -> Result<(), Exit> {
    if args.json {
        eprintln!("{findings}");
        println!("{}", findings.to_json());
    } else {
        println!("{findings}");
    }
    if findings.violations() == 0 {
        return Ok(());
    }
    let violated: Vec<String> = findings
        .violated()
        .map(|(check, count)| format!("{} {count}", check.name()))
        .collect();
    Err(Exit::failed(violated.join(", ")))
}
