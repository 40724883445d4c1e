//! Opening the store, listening, watching the store, shutdown.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use docstore::{DocumentStore, StoreErrorKind, StoreSettings};
use service::{Exit, Heartbeat, Process};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::metrics::ReportMetrics;

/// How often the store is asked whether it answers, and how long one answer may take.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a store that is held by another program is tried at the start.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long requests may still run after the signal to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// Serves until the shutdown is requested; then lets the requests in flight finish.
pub async fn run(config: Config, process: Process) -> Result<(), Exit> {
    let metrics = ReportMetrics::default();
    metrics
        .register(&process.metrics)
        .map_err(|error| Exit::bug(format!("metrics of the report: {error}")))?;
    let Some(store) = open(&config.store, &process).await? else {
        return Ok(());
    };
    let listen = &config.report.listen;
    let unavailable = |error: std::io::Error| {
        Exit::unavailable(format!(
            "can not listen on `{listen}`: {error}: stop what uses it, or set `report.listen` \
             (ORDERFLOW__REPORT__LISTEN) to another address or port"
        ))
    };
    let listener = TcpListener::bind(listen).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    let router = crate::router_with(Arc::clone(&store), &config.report, metrics);

    let heartbeat = process
        .health
        .task("store-watch", 3 * (PING_EVERY + PING_TIMEOUT));
    let shutdown = process.shutdown.clone();
    let stopping = process.shutdown.clone();
    tracing::info!(url = %format!("http://{address}/"), "report serves the page and its API");
    let serve =
        axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.requested().await });
    let served = tokio::select! {
        served = async { serve.await } => served.map_err(|error| Exit::failed(format!("serving on `{address}`: {error}"))),
        // A client that never reads its answer does not hold the process.
        () = async { stopping.requested().await; tokio::time::sleep(DRAIN).await } => Ok(()),
        never = watch(store.as_ref(), &process, &heartbeat) => match never {},
    };
    heartbeat.finish();
    served
}

/// Opens the store; waits, and says so, while another program holds it. `None` = told to stop.
async fn open(settings: &StoreSettings, process: &Process) -> Result<Option<Arc<dyn DocumentStore>>, Exit> {
    loop {
        let (settings, registry) = (settings.clone(), process.metrics.clone());
        let opened = tokio::task::spawn_blocking(move || docstore::open_observed(&settings, &registry)).await;
        match opened.map_err(|error| Exit::bug(format!("opening the store: {error}")))? {
            Ok(store) => {
                tracing::info!(store = store.describe(), "store opened");
                return Ok(Some(store));
            }
            Err(error) if error.kind() == StoreErrorKind::Transient => {
                tracing::warn!(%error, code = error.code(), "waiting for the store");
                process.health.not_ready("waiting for the store");
            }
            Err(error) => return Err(Exit::unavailable(error.to_string())),
        }
        tokio::select! {
            () = tokio::time::sleep(OPEN_AGAIN_AFTER) => {}
            () = process.shutdown.requested() => return Ok(None),
        }
    }
}

/// Ready while the store answers. A store that is away is a reason to wait, not to restart, so the
/// heart beats on.
async fn watch(store: &dyn DocumentStore, process: &Process, heartbeat: &Heartbeat) -> Infallible {
    let mut answered = None;
    loop {
        let ping = tokio::time::timeout(PING_TIMEOUT, store.ping()).await;
        let problem = match ping {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer in {} s", PING_TIMEOUT.as_secs())),
        };
        if answered != Some(problem.is_none()) && !process.shutdown.is_requested() {
            answered = Some(problem.is_none());
            match &problem {
                None => process.health.ready(),
                Some(error) => {
                    tracing::warn!(%error, store = store.describe(), "store does not answer");
                    process.health.not_ready("the store does not answer");
                }
            }
        }
        heartbeat.beat();
        tokio::time::sleep(PING_EVERY).await;
    }
}
