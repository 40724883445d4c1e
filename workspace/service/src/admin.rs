//! The admin server: `/live`, `/ready` and `/metrics`.

use std::io::ErrorKind;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::exit::Exit;
use crate::health::Health;
use crate::metrics::ShellMetrics;
use crate::shutdown::Shutdown;

/// What the server answers from.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
    pub(crate) registry: Registry,
    pub(crate) metrics: ShellMetrics,
}

/// Opens the listening socket; the message names the key and the remedy.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Exit> {
    TcpListener::bind(address).await.map_err(|error| {
        let problem = match error.kind() {
            ErrorKind::AddrInUse => "is in use by another process".to_owned(),
            ErrorKind::AddrNotAvailable => "is not an address of this machine".to_owned(),
            _ => format!("can not be listened on: {error}"),
        };
        Exit::unavailable(format!(
            "`admin.listen` is `{address}`, which {problem}: stop what holds it, or set another address, \
             as in `ORDERFLOW__ADMIN__LISTEN=127.0.0.1:0` (any free port) or `off`"
        ))
    })
}

/// Serves until the process ends: probes must be answered during the shutdown too.
pub(crate) async fn serve(listener: TcpListener, state: AdminState) {
    let router = Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "admin server ended");
    }
}

async fn live(State(state): State<AdminState>) -> Response {
    let stale = state.health.stale();
    if stale.is_empty() {
        return (StatusCode::OK, "live\n").into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not live: {}\n", stale.join("; ")),
    )
        .into_response()
}

async fn ready(State(state): State<AdminState>) -> Response {
    let reason = match state.shutdown.reason() {
        Some(reason) => Some(format!("shutting down ({reason})")),
        None => state.health.not_ready_reason(),
    };
    match reason {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    state
        .metrics
        .refresh(&state.health, state.shutdown.is_requested());
    match TextEncoder::new().encode_to_string(&state.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
