//! The admin port: faults, clock and figures over HTTP, for tests that are not written in Rust.
//!
//! Off unless [`Options::admin`](crate::Options::admin) says where to listen. There is no password,
//! so it belongs on loopback. Pages in a browser are kept out, for they reach loopback too: a request
//! with an `Origin` is refused, and so is one for a host name other than `localhost`, which any page
//! may let point to this machine. Bodies are taken as `application/json` only.
//! What is wrong with a request is answered as `{"error": "..."}`, a sentence that names the field.
//!
//! - `fault_body`: a fault as JSON.

mod fault_body;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use crate::core::{Core, NO_DATA_FOLDER};
use fault_body::FaultBody;

/// The largest body; a fault with four long names stays below it.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// The longest step of the clock: a hundred years.
const LONGEST_STEP_MS: u64 = 100 * 365 * 24 * 3_600 * 1_000;
/// How long requests may take to their end when the broker stops.
const GRACE: Duration = Duration::from_secs(1);

const GUIDE: &str = include_str!("guide.txt");

/// Serves until the broker stops.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener) {
    let stopping = core.stopping.clone();
    let overdue = async {
        stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let server =
        axum::serve(listener, router(core)).with_graceful_shutdown(stopping.clone().cancelled_owned());
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::error!(%error, "the admin port ended");
            }
        }
        () = overdue => {}
    }
}

fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/", get(async || GUIDE))
        .route("/stats", get(stats))
        .route("/faults", get(faults).post(inject).delete(clear))
        .route("/faults/{id}", delete(remove))
        .route("/clock/advance", post(advance))
        .route("/disk/fill", post(fill_disk))
        .route("/disk/free", post(free_disk))
        .route("/groups/{group}/forget", post(forget_group))
        .route("/groups/{group}/members/{member}/forget", post(forget_member))
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(keep_browsers_out))
        .with_state(core)
}

/// A request that can not be done, and why.
struct Refused(StatusCode, String);

impl Refused {
    fn bad(reason: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.into())
    }

    fn absent(what: String) -> Self {
        Self(StatusCode::NOT_FOUND, what)
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

async fn keep_browsers_out(request: Request, next: Next) -> Result<Response, Refused> {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        let reason = "the request has an `Origin`: pages in a browser can not use the admin port";
        return Err(Refused(StatusCode::FORBIDDEN, reason.to_owned()));
    }
    if let Some(host) = headers.get_all(header::HOST).iter().find(|host| !is_plain(host)) {
        let reason = format!(
            "`Host` is `{}`, must be an IP address or `localhost`",
            host.to_str().unwrap_or("?")
        );
        return Err(Refused(StatusCode::FORBIDDEN, reason));
    }
    Ok(next.run(request).await)
}

/// Whether a `Host` is an address or `localhost`, with or without a port: no name that somebody else
/// could let point here.
fn is_plain(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok(),
    }
}

async fn nothing_here(method: Method, uri: Uri) -> Refused {
    Refused::absent(format!(
        "there is no `{method} {}`; `GET /` lists what there is",
        uri.path()
    ))
}

async fn stats(State(core): State<Arc<Core>>) -> Response {
    Json(core.stats()).into_response()
}

/// A fault and how far it is.
#[derive(Serialize)]
struct KnownFault {
    id: u64,
    struck: u64,
    /// Whether it can strike once more.
    armed: bool,
    #[serde(flatten)]
    body: FaultBody,
}

async fn faults(State(core): State<Arc<Core>>) -> Response {
    let known = core.faults.known().into_iter().map(|known| KnownFault {
        id: known.id,
        struck: known.struck,
        armed: known.armed,
        body: FaultBody::from(known.injection),
    });
    Json(known.collect::<Vec<KnownFault>>()).into_response()
}

async fn inject(
    State(core): State<Arc<Core>>,
    body: Result<Json<FaultBody>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(body) = body?;
    let injection = body.injection().map_err(Refused::bad)?;
    let id = core.faults.inject(injection).map_err(Refused::bad)?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}

async fn remove(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    let number: u64 = id
        .parse()
        .map_err(|_| Refused::bad(format!("`id` is `{id}`, must be the number of a fault")))?;
    if core.faults.remove(number) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refused::absent(format!("there is no fault `{number}`")))
    }
}

async fn clear(State(core): State<Arc<Core>>) -> Response {
    Json(json!({ "removed": core.faults.clear() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    ms: u64,
}

async fn advance(
    State(core): State<Arc<Core>>,
    body: Result<Json<Step>, JsonRejection>,
) -> Result<StatusCode, Refused> {
    let Json(step) = body?;
    if !(1..=LONGEST_STEP_MS).contains(&step.ms) {
        let reason = format!("`ms` is `{}`, must be from 1 to {LONGEST_STEP_MS}", step.ms);
        return Err(Refused::bad(reason));
    }
    core.advance_clock(Duration::from_millis(step.ms));
    Ok(StatusCode::NO_CONTENT)
}

async fn fill_disk(State(core): State<Arc<Core>>) -> Result<StatusCode, Refused> {
    set_disk(&core, true)
}

async fn free_disk(State(core): State<Arc<Core>>) -> Result<StatusCode, Refused> {
    set_disk(&core, false)
}

fn set_disk(core: &Core, full: bool) -> Result<StatusCode, Refused> {
    if core.fill_disk(full) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refused(StatusCode::CONFLICT, NO_DATA_FOLDER.to_owned()))
    }
}

async fn forget_member(
    State(core): State<Arc<Core>>,
    Path((group, member)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    if core.groups.forget_member(&group, &member).await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        let what = format!("there is no member `{member}` in a group `{group}`");
        Err(Refused::absent(what))
    }
}

async fn forget_group(
    State(core): State<Arc<Core>>,
    Path(group): Path<String>,
) -> Result<StatusCode, Refused> {
    if core.groups.forget_members(&group).await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refused::absent(format!("there is no group `{group}`")))
    }
}
