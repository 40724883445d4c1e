//! Time-out, concurrency limit, security headers and counting around every route.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::config::ReportSettings;
use crate::metrics::ReportMetrics;
use crate::problem::Problem;

/// Everything comes from this server; nothing is embedded anywhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Guard {
    timeout: Duration,
    requests: Semaphore,
    metrics: ReportMetrics,
}

pub(crate) fn around(routes: Router, settings: &ReportSettings, metrics: ReportMetrics) -> Router {
    let guard = Guard {
        timeout: settings.request_timeout(),
        requests: Semaphore::new(settings.max_concurrent_requests),
        metrics,
    };
    let unknown = || async {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown_path",
            "nothing is served at this path",
        )
    };
    routes
        .fallback(unknown)
        .layer(from_fn_with_state(Arc::new(guard), handle))
}

async fn handle(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = route(request.uri().path());
    let mut response = match guard.requests.try_acquire() {
        Err(_) => Problem::unavailable("too_busy", "too many requests at once, ask again", 1).into_response(),
        Ok(_permit) => tokio::time::timeout(guard.timeout, next.run(request))
            .await
            .unwrap_or_else(|_| {
                Problem::unavailable("timed_out", "the answer took too long, ask again", 1).into_response()
            }),
    };
    secure(response.headers_mut());
    guard
        .metrics
        .answered(route, response.status().as_u16(), start.elapsed().as_secs_f64());
    response
}

fn secure(headers: &mut HeaderMap) {
    let fixed: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The label of a path in metrics: few, and never an id.
fn route(path: &str) -> &'static str {
    match path {
        "/" => "page",
        "/api/analytics" => "analytics",
        "/api/summary" => "summary",
        "/api/arrivals" => "arrivals",
        "/api/health" => "health",
        path if path.starts_with("/api/orders/") => "order",
        path if path.starts_with("/api/") => "unknown",
        _ => "asset",
    }
}
