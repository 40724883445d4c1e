//! The HTTP intake: `POST /api/orders` with one order or an array of them.
//!
//! An order is answered 201 only after the broker acknowledged it. What is refused is answered with problem details
//! (RFC 9457) that bear a stable code and a sentence. Requests, bodies and waiting are bounded.
//!
//! | request | answer |
//! |---|---|
//! | one good order | 201, `{"order_id","topic","partition","offset"}` |
//! | an array of good orders | 201, an array of these |
//! | some of an array not good | 207, an array with `status` and the result or the problem per order |
//! | none of an array good | 422, a problem with `problems`, one per order |
//! | one bad order | 400 (no JSON), 413 (too large) or 422 |
//! | Kafka does not acknowledge in time, or too many requests | 503 with `retry-after` |
//!
//! After a 503 the order may still arrive: send it again under the same id, which makes it the same order.
//!
//! - `answer` words the answers,
//! - `request` reads bodies and cuts them into orders.

mod answer;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use domain::{AdmittedOrder, Currency, admit};
use service::{Exit, Process};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::IntakeSettings;
use crate::metrics::ProducerMetrics;
use crate::outlet::Outlet;
use answer::{OrderAnswer, Problem};
use request::Body;

/// Most bytes of a request.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Most orders of a request.
pub const MAX_ORDERS: usize = 1000;

/// How long requests may still run after the signal to stop.
const DRAIN: Duration = Duration::from_secs(15);
/// How often the task that watches the intake says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// When a client may try again after a 503.
const RETRY_AFTER_SECONDS: u16 = 5;

struct Intake<O> {
    outlet: O,
    metrics: ProducerMetrics,
    default_currency: Currency,
    acknowledge_timeout: Duration,
    places: Semaphore,
}

/// Serves until the shutdown is requested; then lets the requests in flight finish.
///
/// # Errors
/// When the address can not be listened on.
pub async fn serve(
    settings: &IntakeSettings,
    default_currency: Currency,
    outlet: impl Outlet,
    metrics: ProducerMetrics,
    process: &Process,
) -> Result<(), Exit> {
    let listen = &settings.listen;
    let unavailable = |error: std::io::Error| {
        Exit::unavailable(format!(
            "can not listen on `{listen}`: {error}; stop what uses it, or set `intake.listen` \
             (ORDERFLOW__INTAKE__LISTEN) to another address or port"
        ))
    };
    let listener = TcpListener::bind(listen).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    let router = router(settings, default_currency, outlet, metrics);
    tracing::info!(url = %format!("http://{address}/api/orders"), "intake takes orders");
    process.health.ready();
    let alive = tokio::spawn(beat(process.clone()));
    let shutdown = process.shutdown.clone();
    let stopping = process.shutdown.clone();
    let serve =
        axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.requested().await });
    let served = tokio::select! {
        served = async { serve.await } => {
            served.map_err(|error| Exit::failed(format!("serving on `{address}`: {error}")))
        }
        // A client that never reads its answer does not hold the process.
        () = async { stopping.requested().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    };
    alive.abort();
    served
}

async fn beat(process: Process) {
    let heartbeat = process.health.task("intake", 10 * HEARTBEAT);
    loop {
        heartbeat.beat();
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = process.shutdown.requested() => return heartbeat.finish(),
        }
    }
}

/// The API as a router, for tests and for [`serve`].
pub fn router(
    settings: &IntakeSettings,
    default_currency: Currency,
    outlet: impl Outlet,
    metrics: ProducerMetrics,
) -> Router {
    let intake = Intake {
        outlet,
        metrics,
        default_currency,
        acknowledge_timeout: settings.acknowledge_timeout(),
        places: Semaphore::new(settings.max_concurrent_requests),
    };
    Router::new()
        .route("/api/orders", post(take).fallback(wrong_method))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(intake))
}

async fn nothing_here() -> Response {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here, orders go to `POST /api/orders`",
    )
    .response()
}

async fn wrong_method() -> Response {
    let detail = "orders are sent with the method `POST`";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).response()
}

async fn take<O: Outlet>(State(intake): State<Arc<Intake<O>>>, request: Request) -> Response {
    let started = Instant::now();
    let response = match intake.places.try_acquire() {
        Ok(_place) => intake.answer(request).await,
        Err(_) => Problem::unavailable("too_many_requests", "the intake is busy, ask again").response(),
    };
    intake
        .metrics
        .answered(response.status().as_u16(), started.elapsed().as_secs_f64());
    response
}

impl<O: Outlet> Intake<O> {
    async fn answer(&self, request: Request) -> Response {
        let deadline = Instant::now() + self.acknowledge_timeout;
        let bytes = match request::read(request, deadline).await {
            Ok(bytes) => bytes,
            Err(problem) => return problem.response(),
        };
        match request::split(&bytes) {
            Err(problem) => {
                self.metrics.rejected(problem.code());
                problem.response()
            }
            Ok(Body::One(order)) => {
                let mut answers = self.take_all(&[order], deadline).await;
                answers
                    .pop()
                    .map_or_else(|| answer::none().response(), OrderAnswer::alone)
            }
            Ok(Body::Many(orders)) => answer::together(self.take_all(&orders, deadline).await),
        }
    }

    /// An answer per order, in their order. All are sent before the first acknowledgement is waited for.
    async fn take_all(&self, orders: &[&[u8]], deadline: Instant) -> Vec<OrderAnswer> {
        let mut sent = Vec::with_capacity(orders.len());
        for bytes in orders {
            sent.push(self.send(bytes, deadline).await);
        }
        let mut answers = Vec::with_capacity(orders.len());
        for sent in sent {
            answers.push(match sent {
                Err(problem) => OrderAnswer::Refused(problem),
                Ok((order, delivery)) => self.wait(order, delivery, deadline).await,
            });
        }
        answers
    }

    async fn send(&self, bytes: &[u8], deadline: Instant) -> Result<(AdmittedOrder, O::Delivery), Problem> {
        let order = admit(bytes, self.default_currency, crate::now()).map_err(|rejection| {
            self.metrics.rejected(rejection.code.as_str());
            Problem::from(rejection)
        })?;
        match tokio::time::timeout_at(deadline, self.outlet.send(&order)).await {
            Ok(Ok(delivery)) => Ok((order, delivery)),
            Ok(Err(error)) => Err(self.undelivered(&error.to_string())),
            Err(_) => Err(self.undelivered("the queue to Kafka stays full")),
        }
    }

    async fn wait(&self, order: AdmittedOrder, delivery: O::Delivery, deadline: Instant) -> OrderAnswer {
        match tokio::time::timeout_at(deadline, delivery).await {
            Ok(Ok(at)) => {
                self.metrics.acknowledged();
                OrderAnswer::taken(&order, self.outlet.topic(), at)
            }
            Ok(Err(error)) => OrderAnswer::Refused(self.undelivered(&error.to_string())),
            Err(_) => {
                let cause = self
                    .outlet
                    .trouble()
                    .unwrap_or_else(|| "Kafka did not acknowledge in time".to_owned());
                OrderAnswer::Refused(self.undelivered(&cause))
            }
        }
    }

    /// The cause is for the operator's log: it names brokers, which are no business of a client.
    fn undelivered(&self, cause: &str) -> Problem {
        static TOLD: service::Throttle = service::Throttle::every_seconds(5);
        self.metrics.undelivered();
        if let Some(suppressed) = TOLD.allow() {
            tracing::warn!(error = cause, suppressed, "an order was not acknowledged");
        }
        let detail = "the order was not acknowledged in time and may or may not have arrived; \
                      send it again under the same `order_id`, which makes it the same order";
        Problem::unavailable("not_acknowledged", detail)
    }
}
