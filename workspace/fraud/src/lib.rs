//! Screens orders: every order of `orders` is judged once it is read, and a suspicious one raises one
//! alert in `fraud-alerts`, under the order's key and in the order's partition.
//!
//! What it guarantees: an order is never passed over (see `stream`), the same order gives the same
//! alert with the same id again, and amounts are compared exactly, in the order's own currency.
//!
//! - [`config`]: the sections that this service reads.
//! - [`rules`]: what makes an order suspicious, and how much.
//! - [`screen`]: a record in, perhaps an alert out.

pub mod config;
pub mod rules;
pub mod screen;

use std::sync::Arc;

pub use config::Config;
use domain::{Currency, Order};
use service::{Exit, Process, ServiceInfo};
use stream::worker::{Surroundings, WorkerSpec, run_handler};
use stream::{Record, Repeats};

/// What this service is called, and where its admin server listens by default.
pub const INFO: ServiceInfo = ServiceInfo {
    name: "fraud",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 9462,
};

/// Runs until the process is told to stop.
///
/// # Errors
/// What made going on impossible, with the exit code that tells an orchestrator what to do.
pub async fn run(config: Config, process: Process) -> Result<(), Exit> {
    let rules = config
        .fraud
        .rules()
        .map_err(|problem| Exit::config(problem.to_string()))?;
    let default_currency = config.orders.default_currency;
    let spec = WorkerSpec {
        service: INFO.name,
        group: config.fraud.group.clone(),
        inputs: vec![config.topics.orders],
        outputs: vec![config.topics.fraud_alerts],
        events: config.topics.order_events.clone(),
        repeats: Repeats::End(Arc::new(move |record| {
            is_keyed_by_its_id(record, default_currency)
        })),
    };
    let surroundings = Surroundings {
        process,
        kafka: config.kafka,
        stream: config.stream,
    };
    run_handler(spec, surroundings, || {
        screen::Screen::new(rules.clone(), default_currency)
    })
    .await?;
    Ok(())
}

/// Whether the record's key is the id of its order, as our own producers write it.
fn is_keyed_by_its_id(record: &Record<'_>, default_currency: Currency) -> bool {
    let order = record.value.map(|value| Order::decode(value, default_currency));
    matches!((order, record.key), (Some(Ok(order)), Some(key)) if order.id.text().as_bytes() == key)
}
