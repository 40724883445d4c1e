//! Settles orders: every order of `orders` is charged at the gateway and gets a record in `payments`,
//! under the order's key and in the order's partition.
//!
//! What it guarantees: an order is never passed over (see `stream`); the gateway is called with the same
//! idempotency key for the same order, however often it is tried; an order whose attempts are used up
//! is looked up, and only where the gateway knows nothing of it gets the status `FAILED` and is in the
//! dead letters too. A gateway that is away delays orders and fails none. Thousands of orders are in
//! flight at once, so the gateway's answer time does not bound the throughput.
//!
//! - [`config`]: the sections that this service reads.
//! - [`gateway`]: the trait, and what a gateway can answer.
//! - [`simulated`]: a gateway for demonstrations, with seeded outcomes.
//! - [`http_gateway`]: a gateway behind HTTP, and what its answers mean.
//! - [`guarded`]: so many calls at once and no more, and none while the gateway is away.
//! - [`circuit`]: when that is.
//! - [`settle`]: an order in, a payment out.
//! - [`metrics`]: what is measured of the calls to the gateway.

pub mod circuit;
pub mod config;
pub mod gateway;
pub mod guarded;
pub mod http_gateway;
pub mod metrics;
pub mod settle;
pub mod simulated;

use std::sync::Arc;
use std::time::Duration;

pub use config::Config;
use config::{GatewayKind, GatewaySettings};
use domain::{Currency, EventTime, Order};
use gateway::{GatewayError, PaymentGateway};
use guarded::Guarded;
use http_gateway::HttpGateway;
use metrics::GatewayMetrics;
use service::{Exit, Process, ServiceInfo};
use settle::{Settle, Terms};
use simulated::SimulatedGateway;
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
    let surroundings = Surroundings {
        process: process.clone(),
        kafka: config.kafka,
        stream: config.stream,
    };
    let key_lifetime = Duration::from_millis(config.payment.gateway.key_lifetime_ms);
    let terms = Terms {
        default_currency,
        key_lifetime,
        clock: now,
    };
    match config.payment.gateway.kind {
        GatewayKind::Simulated => {
            let gateway = SimulatedGateway::new(config.payment.simulated);
            run_concurrent(spec, surroundings, Arc::new(Settle::new(gateway, terms))).await?;
        }
        GatewayKind::Http => {
            let gateway = http_gateway(&config.payment.gateway, &process).await?;
            run_concurrent(spec, surroundings, Arc::new(Settle::new(gateway, terms))).await?;
        }
    }
    Ok(())
}

/// No order has this payment: its lookup asks whether the gateway talks to us.
const NOBODYS_PAYMENT: &str = "pay_00000000000000000000000000000000";

/// The gateway behind HTTP. One that refuses us at the start stops the start; one that is away does not:
/// orders wait for it.
async fn http_gateway(settings: &GatewaySettings, process: &Process) -> Result<Guarded<HttpGateway>, Exit> {
    let metrics = GatewayMetrics::register(&process.metrics)
        .map_err(|error| Exit::bug(format!("the metrics of the gateway: {error}")))?;
    let gateway = HttpGateway::new(settings).map_err(|error| Exit::config(error.to_string()))?;
    match gateway.lookup(NOBODYS_PAYMENT).await {
        Ok(_) => {}
        Err(error @ GatewayError::Misconfigured { .. }) => {
            return Err(Exit::unavailable(error.to_string()));
        }
        Err(error) => tracing::warn!(%error, "gateway can not be asked yet, orders wait for it"),
    }
    Ok(Guarded::new(
        gateway,
        settings.max_in_flight,
        settings.limits(),
        metrics,
    ))
}

/// The clock of the process, at the edge.
fn now() -> EventTime {
    EventTime(service::now_ms())
}

/// Whether the record's key is the id of its order, as our own producers write it.
fn is_keyed_by_its_id(record: &Record<'_>, default_currency: Currency) -> bool {
    let order = record.value.map(|value| Order::decode(value, default_currency));
    matches!((order, record.key), (Some(Ok(order)), Some(key)) if order.id.text().as_bytes() == key)
}
