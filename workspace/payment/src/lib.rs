//! Settles orders: every order of `orders` is charged at the gateway and gets a record in `payments`,
//! under the order's key and in the order's partition.
//!
//! What it guarantees: an order is never passed over (see `stream`); the gateway is called with the same
//! idempotency key for the same order, however often it is tried; an order whose attempts are used up
//! gets the status `FAILED` and is in the dead letters too. Thousands of orders are in flight at once, so
//! the gateway's answer time does not bound the throughput.
//!
//! - [`config`]: the sections that this service reads.
//! - [`gateway`]: the trait, and what a gateway can answer.
//! - [`simulated`]: a gateway for demonstrations, with seeded outcomes.
//! - [`settle`]: an order in, a payment out.

pub mod config;
pub mod gateway;
pub mod settle;
pub mod simulated;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use config::Config;
use domain::{Currency, EventTime, Order};
use service::{Exit, Process, ServiceInfo};
use stream::worker::{Surroundings, WorkerSpec, run_concurrent};
use stream::{Record, Repeats};

/// What this service is called, and where its admin server listens by default.
pub const INFO: ServiceInfo = ServiceInfo {
    name: "payment",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 9463,
};

/// Runs until the process is told to stop.
///
/// # Errors
/// What made going on impossible, with the exit code that tells an orchestrator what to do.
pub async fn run(config: Config, process: Process) -> Result<(), Exit> {
    let default_currency = config.orders.default_currency;
    let spec = WorkerSpec {
        service: INFO.name,
        group: config.payment.group.clone(),
        inputs: vec![config.topics.orders],
        outputs: vec![config.topics.payments],
        events: config.topics.order_events.clone(),
        repeats: Repeats::EndOrDeadLetter(Arc::new(move |record| {
            is_keyed_by_its_id(record, default_currency)
        })),
    };
    let gateway = simulated::SimulatedGateway::new(config.payment.simulated);
    let settle = settle::Settle::new(gateway, default_currency, now);
    let surroundings = Surroundings {
        process,
        kafka: config.kafka,
        stream: config.stream,
    };
    run_concurrent(spec, surroundings, Arc::new(settle)).await?;
    Ok(())
}

/// The clock of the process, at the edge.
fn now() -> EventTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Whether the record's key is the id of its order, as our own producers write it.
fn is_keyed_by_its_id(record: &Record<'_>, default_currency: Currency) -> bool {
    let order = record.value.map(|value| Order::decode(value, default_currency));
    matches!((order, record.key), (Some(Ok(order)), Some(key)) if order.id.text().as_bytes() == key)
}
