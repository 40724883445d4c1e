//! The routes under `/api`.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use docstore::{Arrivals, DocumentStore};
use serde_json::json;
use service::now_ms;

use crate::problem::Problem;
use crate::{amounts, answer};

const JSON: &str = "application/json";
/// Orders in one answer of `/api/analytics`, when not asked otherwise and at the most.
const DEFAULT_LIMIT: u64 = 10;
const MAX_LIMIT: u64 = 1_000;
/// Minutes in one answer of `/api/arrivals`, when not asked otherwise and at the most.
const DEFAULT_MINUTES: u64 = 15;
const MAX_MINUTES: u64 = 24 * 60;

type Store = State<Arc<dyn DocumentStore>>;
type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(crate) fn routes(store: Arc<dyn DocumentStore>) -> Router {
    Router::new()
        .route("/api/analytics", get(analytics))
        .route("/api/orders/{id}", get(order))
        .route("/api/summary", get(summary))
        .route("/api/arrivals", get(arrivals))
        .route("/api/health", get(health))
        .route("/api/{*path}", any(nothing_here))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(store)
}

async fn analytics(
    State(store): Store,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let limit = number(parameters, "limit", DEFAULT_LIMIT, MAX_LIMIT)?;
    let records = store
        .recent_orders(usize::try_from(limit).unwrap_or(usize::MAX))
        .await?;
    Ok(answer::tagged(&headers, JSON, answer::orders(&records)))
}

async fn order(
    State(store): Store,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    // Refused when its percent-encoding is not UTF-8, which no stored key is.
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    match store.order(&id).await? {
        Some(record) => Ok(answer::tagged(&headers, JSON, answer::order(&record))),
        None => {
            let detail = format!(
                "there is no order `{}`, or it has not arrived here yet",
                domain::shown(&id)
            );
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown_order", detail))
        }
    }
}

async fn summary(State(store): Store, headers: HeaderMap) -> Result<Response, Problem> {
    let summary = amounts::summary(&store.summary().await?);
    Ok(answer::tagged(&headers, JSON, summary.to_string()))
}

async fn arrivals(
    State(store): Store,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let minutes = number(parameters, "minutes", DEFAULT_MINUTES, MAX_MINUTES)?;
    let since = now_ms().saturating_sub(i64::try_from(minutes).unwrap_or(i64::MAX).saturating_mul(60_000));
    let slots: Vec<_> = store
        .arrivals(since)
        .await?
        .into_iter()
        .map(|slot| {
            let Arrivals {
                slot_start_ms,
                orders,
                alerts,
                payments,
            } = slot;
            json!({ "start_ms": slot_start_ms, "orders": orders, "alerts": alerts, "payments": payments })
        })
        .collect();
    let body = json!({ "slot_ms": Arrivals::SLOT_MS, "minutes": minutes, "slots": slots });
    Ok(answer::tagged(&headers, JSON, body.to_string()))
}

/// Whether the store answers, and how old its newest order is. 503 when it does not answer.
async fn health(State(store): Store) -> Response {
    let newest = match store.summary().await {
        Ok(summary) => summary.newest_order_ms,
        Err(error) => {
            let body = json!({ "status": "unavailable", "store": { "status": "unavailable", "code": error.code() } });
            return (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response();
        }
    };
    let age_ms = newest.map(|newest| now_ms().saturating_sub(newest).max(0));
    axum::Json(json!({ "status": "ok", "store": { "status": "ok", "newest_order_age_ms": age_ms } }))
        .into_response()
}

async fn nothing_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        "nothing is served at this path",
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path answers GET and HEAD only",
    )
}

/// A whole number from 1 to `max` among the query's parameters; others are ignored.
fn number(parameters: Parameters, name: &str, default: u64, max: u64) -> Result<u64, Problem> {
    let bad = |code, detail| Err(Problem::new(StatusCode::BAD_REQUEST, code, detail));
    let Ok(Query(parameters)) = parameters else {
        return bad("bad_query", "the query of this URL can not be read".to_owned());
    };
    let mut values = parameters
        .iter()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(default),
        (Some(_), Some(_)) => bad("bad_parameter", format!("`{name}` is given more than once")),
        (Some(value), None) => match value.parse() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => bad(
                "bad_parameter",
                format!(
                    "`{name}` is `{}`, must be a whole number from 1 to {max}",
                    domain::shown(value)
                ),
            ),
        },
    }
}
