//! The report: an HTTP API over the document store, and the live page.
//!
//! What it guarantees:
//! - **Amounts are exact.** Documents are answered as the text in which they are stored, sums as
//!   decimal strings; no amount ever passes through a float.
//! - **Every error is a problem document** (RFC 9457) with a stable `code`, and what is wrong on our
//!   side says so (503 and `retry-after`) instead of hanging: time and concurrency are bounded.
//! - **Nothing that an order contains can run in the page**: scripts come from this server alone
//!   (content security policy), and the page sets text, never markup.
//!
//! Who may call it: the binary `report` and `orderflow run report` call [`run`]; tests serve
//! [`router`] on a port of their own.
//!
//! - [`config`]: the config section `report`.
//! - [`metrics`]: names and registration of the metrics.
//! - `api`: the routes under `/api`.
//! - `answer`: JSON answers with entity tags, assembled from stored text.
//! - `amounts`: sums as JSON.
//! - `assets`: the page's files, embedded in the program.
//! - `guard`: time-out, concurrency limit, security headers and counting around every route.
//! - `problem`: RFC 9457 problem documents.
//! - `serve`: opening the store, listening, watching the store, shutdown.

mod amounts;
mod answer;
mod api;
mod assets;
pub mod config;
mod guard;
pub mod metrics;
mod problem;
mod serve;

use std::sync::Arc;

use axum::Router;
use docstore::DocumentStore;

pub use config::{Config, ReportSettings};
pub use serve::run;

use metrics::ReportMetrics;
use service::ServiceInfo;

/// What this service is called, and where its admin server listens by default.
pub const INFO: ServiceInfo = ServiceInfo {
    name: "report",
    version: env!("CARGO_PKG_VERSION"),
    admin_port: 9465,
};

/// The page and the API over this store, with the default limits and without a metrics registry.
pub fn router(store: Arc<dyn DocumentStore>) -> Router {
    router_with(store, &ReportSettings::default(), ReportMetrics::default())
}

/// The page and the API over this store.
pub fn router_with(
    store: Arc<dyn DocumentStore>,
    settings: &ReportSettings,
    metrics: ReportMetrics,
) -> Router {
    guard::around(api::routes(store).merge(assets::routes()), settings, metrics)
}
