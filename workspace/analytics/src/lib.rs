//! Keeps a document of every order, alert and payment.
//!
//! What it guarantees: offsets are committed after the store has confirmed the documents; a document
//! carries the place in the log that it reflects, and a write that is not newer changes nothing, so
//! reading again after a crash is harmless. Of repeated orders the first stands.
//!
//! - [`config`]: the sections that this service reads.
//! - [`document`]: the document of a record.
//! - [`keep`]: records in, documents into the store.

pub mod config;
pub mod document;
pub mod keep;

use std::sync::Arc;

pub use config::Config;
use docstore::{StoreError, StoreErrorKind};
use service::{Exit, Process, ServiceInfo};
use stream::Repeats;
use stream::worker::{Surroundings, WorkerSpec, run_sink};

/// What this service is called, and where its admin server listens by default.
pub const INFO: ServiceInfo = ServiceInfo {
    name: "analytics",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 9464,
};

/// Runs until the process is told to stop.
///
/// # Errors
/// What made going on impossible, with the exit code that tells an orchestrator what to do.
pub async fn run(config: Config, process: Process) -> Result<(), Exit> {
    let (settings, registry) = (config.store.clone(), process.metrics.clone());
    let opened = tokio::task::spawn_blocking(move || docstore::open_observed(&settings, &registry)).await;
    let store = opened
        .map_err(|error| Exit::bug(error.to_string()))?
        .map_err(|error| exit_of(&error))?;
    let topics = config.topics;
    let inputs = vec![topics.orders, topics.fraud_alerts, topics.payments];
    let keep = keep::Keep::new(
        store,
        config.orders.default_currency,
        config.analytics.generation,
        inputs.clone(),
    );
    let spec = WorkerSpec {
        service: INFO.name,
        group: config.analytics.group,
        inputs,
        outputs: Vec::new(),
        // Its store keeps the first occurrence by itself.
        events: topics.order_events.clone(),
        repeats: Repeats::Count,
    };
    let surroundings = Surroundings {
        process,
        kafka: config.kafka,
        stream: config.stream,
    };
    run_sink(spec, surroundings, Arc::new(keep)).await?;
    Ok(())
}

fn exit_of(error: &StoreError) -> Exit {
    match error.kind() {
        StoreErrorKind::Transient | StoreErrorKind::Fatal => Exit::unavailable(error.to_string()),
        StoreErrorKind::Poison => Exit::bug(error.to_string()),
    }
}
