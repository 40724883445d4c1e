//! A payment gateway on loopback, with a ledger that tells how often each order was charged, and with
//! faults.
//!
//! It guarantees what a real one does: a key charges once, however often it is asked under it, also when
//! nobody waits for the answer any more; and while it is at work on a key, it answers 409 to it. What
//! goes wrong is drawn from seed, key and the count of its requests, so that a run can be repeated
//! whatever the order of its requests.
//!
//! * `POST /charges` charges, `GET /charges/<key>` tells what became of a key,
//! * `GET /charges` lists the ledger, one JSON object per line ([`Charged`]).

mod faults;
mod ledger;
mod line;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::faults::GatewayFaults;
use self::faults::{Fault, Subject};
pub use self::ledger::{Charged, Outcome, charged_twice};
use self::ledger::{Ledger, Turn};
use self::line::{Connection, Line};

/// A gateway that listens until this value is dropped.
#[derive(Debug)]
pub struct FakeGateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_down: watch::Sender<bool>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    faults: Mutex<GatewayFaults>,
    /// Requests that met one of them.
    struck: AtomicU64,
    /// Everybody gets this status, before anything else.
    refusal: Mutex<Option<u16>>,
    /// Who does not send this token gets 401.
    token: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeGateway {
    /// Listens on a free port of loopback.
    pub async fn start(faults: GatewayFaults) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let started = Self::listen(any, faults).await;
        started.unwrap_or_else(|error| panic!("the gateway can not listen: {error}"))
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// When the address is taken or is none of this machine.
    pub async fn listen(address: SocketAddr, faults: GatewayFaults) -> io::Result<Self> {
        let (is_down, watched) = watch::channel(false);
        let line = Line::bind(address, watched).await?;
        let address = line.address();
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults),
            ..Shared::default()
        });
        let router = Router::new()
            .route("/charges", get(list).post(charge))
            .route("/charges/{key}", get(lookup))
            .with_state(Arc::clone(&shared))
            .into_make_service_with_connect_info::<Connection>();
        let server = tokio::spawn(async move {
            // It ends with its task alone.
            let _ended = axum::serve(line, router).await;
        });
        Ok(Self {
            address,
            shared,
            is_down,
            server,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where charges are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/charges", self.address)
    }

    /// The ledger, by key.
    pub fn charges(&self) -> Vec<Charged> {
        locked(&self.shared.ledger).list()
    }

    /// How often it was asked to charge.
    pub fn asked(&self) -> u64 {
        self.charges()
            .iter()
            .map(|charged| u64::from(charged.asked))
            .sum()
    }

    /// How many requests met a fault that was drawn.
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::SeqCst)
    }

    /// From now on these faults happen.
    pub fn set_faults(&self, faults: GatewayFaults) {
        *locked(&self.shared.faults) = faults;
    }

    /// Answers everybody with this status and does nothing else; `None` ends it.
    pub fn refuse_all(&self, status: Option<u16>) {
        *locked(&self.shared.refusal) = status;
    }

    /// Wants this bearer token from now on.
    pub fn want_token(&self, token: &str) {
        *locked(&self.shared.token) = Some(token.to_owned());
    }

    /// The keys are too old: asked under one of them, it charges again. What became of a key is
    /// remembered.
    pub fn forget_keys(&self) {
        locked(&self.shared.ledger).forget_keys();
    }

    /// Refuses connections and breaks those that are there.
    pub fn go_down(&self) {
        self.is_down.send_replace(true);
    }

    /// Listens again, on the same address.
    pub fn come_up(&self) {
        self.is_down.send_replace(false);
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.go_down();
        self.server.abort();
    }
}

impl Shared {
    fn strike(&self) {
        self.struck.fetch_add(1, Ordering::SeqCst);
    }

    fn struck_with(&self, answer: Response) -> Response {
        self.strike();
        answer
    }
}

type Gateway = State<Arc<Shared>>;

async fn list(State(shared): Gateway) -> Response {
    let lines: Vec<String> = locked(&shared.ledger)
        .list()
        .iter()
        .map(|charged| format!("{}\n", charged.to_json()))
        .collect();
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    (kind, lines.concat()).into_response()
}

async fn lookup(State(shared): Gateway, Path(key): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let nth = locked(&shared.ledger).look(&key);
    let (fault, faults) = draw(&shared, Subject::Lookup, &key, nth);
    match fault {
        Some(Fault::Fails) => shared.struck_with(status(500)),
        Some(Fault::Throttles) => shared.struck_with(throttled(&faults)),
        Some(Fault::IsSlow) => {
            shared.strike();
            tokio::time::sleep(faults.slow_delay).await;
            known(&shared, &key)
        }
        Some(Fault::LosesAnswer) | None => known(&shared, &key),
    }
}

fn known(shared: &Shared, key: &str) -> Response {
    match locked(&shared.ledger).outcome(key) {
        Some(outcome) => settled(outcome),
        None => status(404),
    }
}

async fn charge(
    State(shared): Gateway,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let key = headers
        .get("Idempotency-Key")
        .and_then(|value| value.to_str().ok());
    let (Some(key), Some(order)) = (key, Order::read(&body)) else {
        return (StatusCode::BAD_REQUEST, "a key, an order id and an amount").into_response();
    };
    let key = key.to_owned();
    let nth = locked(&shared.ledger).ask(&key, &order.order_id, &order.amount);
    let (fault, faults) = draw(&shared, Subject::Charge, &key, nth);
    match fault {
        Some(Fault::Fails) => return shared.struck_with(status(500)),
        Some(Fault::Throttles) => return shared.struck_with(throttled(&faults)),
        Some(Fault::LosesAnswer | Fault::IsSlow) | None => {}
    }
    let turn = locked(&shared.ledger).begin(&key);
    let outcome = match turn {
        Turn::Ended(outcome) => outcome,
        Turn::InProgress => return status(409),
        Turn::Yours => {
            let delay = if fault == Some(Fault::IsSlow) {
                shared.strike();
                faults.slow_delay
            } else {
                faults.delay
            };
            let outcome = faults.outcome(&key);
            // A task of its own: who hangs up does not undo a charge.
            let work = tokio::spawn(work(Arc::clone(&shared), key, outcome, delay));
            match work.await {
                Ok(()) => outcome,
                Err(_) => return status(500),
            }
        }
    };
    if fault == Some(Fault::LosesAnswer) {
        return shared.struck_with(connection.cut());
    }
    settled(outcome)
}

async fn work(shared: Arc<Shared>, key: String, outcome: Outcome, delay: Duration) {
    tokio::time::sleep(delay).await;
    locked(&shared.ledger).end(&key, outcome);
}

/// What is charged. The amount keeps its digits.
struct Order {
    order_id: String,
    amount: String,
}

impl Order {
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Fields<'a> {
            order_id: Value,
            #[serde(borrow)]
            amount: &'a RawValue,
        }
        let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
        let order_id = match fields.order_id {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some(Self {
            order_id,
            amount: fields.amount.get().to_owned(),
        })
    }
}

/// What everybody gets, whatever they ask.
fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    if let Some(code) = *locked(&shared.refusal) {
        return Some(status(code));
    }
    let wanted = locked(&shared.token)
        .as_ref()
        .map(|token| format!("Bearer {token}"))?;
    let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    (sent != Some(wanted.as_bytes())).then(|| status(401))
}

fn draw(shared: &Shared, subject: Subject, key: &str, nth: u32) -> (Option<Fault>, GatewayFaults) {
    let faults = *locked(&shared.faults);
    (faults.draw(subject, key, nth), faults)
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        .into_response()
}

fn throttled(faults: &GatewayFaults) -> Response {
    let wait = faults.retry_after_seconds.to_string();
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, wait)]).into_response()
}

fn settled(outcome: Outcome) -> Response {
    let body = format!("{{\"status\":\"{}\"}}", outcome.as_str());
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
