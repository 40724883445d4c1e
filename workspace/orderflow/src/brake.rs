//! Brakes that are pulled: which, and releasing them.
//!
//! A worker pulls its brake where records become dead letters in such numbers that something else must be
//! wrong, and commits nothing more. It goes on when it reads the word in the topic of events. So a
//! release is kept with everything else that happens, and reaches a worker wherever it runs.

use std::collections::BTreeMap;
use std::process::ExitCode;

use domain::Priority;
use serde_json::json;
use service::{Exit, Process, ServiceInfo, launch, now_ms};
use stream::admin::{brakes, connect};
use stream::publisher::{NewRecord, Publisher};
use stream::{Partition, release_key};

use crate::cli::BrakeArgs;
use crate::cluster::{CONNECT_LIMIT, ClusterConfig, brokers_flag};
use crate::event::Event;

const INFO: ServiceInfo = ServiceInfo {
    name: "brake",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 0,
};

/// The brakes that are pulled, by topic and partition.
type Pulled = BTreeMap<(String, Partition), String>;

async fn pulled(config: &ClusterConfig, group: &str) -> Result<Pulled, Exit> {
    connect(&config.kafka, INFO.name, CONNECT_LIMIT).await?;
    let names = &config.topics;
    let sources = [&names.orders, &names.fraud_alerts, &names.payments].map(String::clone);
    Ok(brakes(&config.kafka, group, &sources).await?)
}

fn print(pulled: &Pulled) {
    for ((topic, partition), name) in pulled {
        println!("{topic}[{partition}]  {name}");
    }
}

/// Shows the brakes of a group.
pub fn show(args: BrakeArgs) -> ExitCode {
    run(args, |config, group| async move {
        let pulled = pulled(&config, &group).await?;
        if pulled.is_empty() {
            println!("no brake of group `{group}` is pulled");
            return Ok(());
        }
        print(&pulled);
        Err(Exit::failed(format!(
            "the brake of group `{group}` is pulled in {} partitions; look at its dead letters, mend the cause, \
             then `orderflow brake release --group {group}`",
            pulled.len()
        )))
    })
}

/// Releases the brakes of a group.
pub fn release(args: BrakeArgs) -> ExitCode {
    run(args, |config, group| async move {
        let pulled = pulled(&config, &group).await?;
        if pulled.is_empty() {
            println!("no brake of group `{group}` is pulled");
            return Ok(());
        }
        let event = released(&group, &pulled)?;
        let publisher = Publisher::connect(&config.kafka, INFO.name)?;
        let key = release_key(&group);
        let record = NewRecord {
            topic: &config.topics.order_events,
            key: key.as_bytes(),
            value: &event,
            headers: &[],
        };
        let delivery = publisher.send(record).await?;
        delivery.await?;
        print(&pulled);
        println!("released; whoever owns these partitions goes on within a second");
        Ok(())
    })
}

/// The event that a worker waits for, and that whoever looks later finds.
fn released(group: &str, pulled: &Pulled) -> Result<Vec<u8>, Exit> {
    let partitions: Vec<_> = pulled
        .iter()
        .map(|((topic, partition), name)| json!({"topic": topic, "partition": partition.0, "brake": name}))
        .collect();
    Event {
        kind: "brake.released",
        priority: Priority::High,
        data: json!({"group": group, "partitions": partitions}),
        by: None,
        at_ms: now_ms(),
    }
    .encode(rand::random())
}

fn run<F>(args: BrakeArgs, work: impl FnOnce(ClusterConfig, String) -> F + Send + 'static) -> ExitCode
where
    F: Future<Output = Result<(), Exit>> + Send,
{
    let flags = brokers_flag(args.brokers.as_ref());
    let group = args.group;
    launch(INFO, &args.common, &flags, |config: ClusterConfig, _: Process| {
        work(config, group)
    })
}
