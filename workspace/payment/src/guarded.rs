//! A gateway that is asked by so many at once and not more, and that is left alone while it is away.
//!
//! An order takes a place first and then waits for the circuit, so that no more than the places wait
//! there. While the circuit is open, orders fill the places and then the budget of the pump, which pauses
//! its partitions; no order fails, and no attempt counts: whoever failed because of what opened the
//! circuit gets [`GatewayError::Away`] and comes again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::circuit::{Admission, Change, Circuit, Era, Limits, Sign, Why};
use crate::gateway::{Charge, Found, GatewayError, PaymentGateway, Settled};
use crate::metrics::{GatewayMetrics, label};

/// A gateway with its places and its circuit.
pub struct Guarded<G> {
    gateway: G,
    places: Semaphore,
    shared: Arc<Shared>,
    metrics: GatewayMetrics,
}

struct Shared {
    circuit: Mutex<Circuit>,
    /// The circuit has changed.
    changed: Notify,
}

impl Shared {
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        // Each change of the circuit is one assignment, so a panic elsewhere leaves it whole.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place at the gateway, taken until it is dropped.
struct Place<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    _probe: Option<Probe>,
}

/// The one that asks while the circuit is half open.
struct Probe {
    era: Era,
    shared: Arc<Shared>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.circuit().end_probe(self.era);
        self.shared.changed.notify_waiters();
    }
}

impl<G: PaymentGateway> Guarded<G> {
    /// Lets `places` ask this gateway at once.
    pub fn new(gateway: G, places: usize, limits: Limits, metrics: GatewayMetrics) -> Self {
        let shared = Shared {
            circuit: Mutex::new(Circuit::new(limits)),
            changed: Notify::new(),
        };
        Self {
            gateway,
            places: Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)),
            shared: Arc::new(shared),
            metrics,
        }
    }

    async fn place(&self) -> Place<'_> {
        // The semaphore is never closed.
        let permit = self.places.acquire().await.ok();
        loop {
            let changed = self.shared.changed.notified();
            let admission = self.shared.circuit().admit(Instant::now());
            let probe = match admission {
                Admission::Go => None,
                Admission::Probe(era) => Some(Probe {
                    era,
                    shared: Arc::clone(&self.shared),
                }),
                Admission::NotBefore(until) => {
                    tokio::time::sleep_until(until).await;
                    continue;
                }
                Admission::AfterProbe => {
                    changed.await;
                    continue;
                }
            };
            return Place {
                _permit: permit,
                _probe: probe,
            };
        }
    }

    /// Makes a call, and tells the circuit what came of it.
    async fn call<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, GatewayError>>,
        name: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, GatewayError> {
        let (asked_in, started) = (self.shared.circuit().era(), Instant::now());
        self.metrics.in_flight.inc();
        // Dropped with this future, also when it is cancelled.
        let _in_flight = OnDrop(|| self.metrics.in_flight.dec());
        let result = work.await;
        let answer = result.as_ref().map_or_else(label, name);
        self.metrics.answered(call, answer, started.elapsed());
        let mut circuit = self.shared.circuit();
        let change = circuit.report(asked_in, sign(&result), Instant::now());
        // It opened since this was asked, or because of it.
        let is_away = !circuit.is_closed() || circuit.era() != asked_in;
        drop(circuit);
        if let Some(change) = change {
            self.tell(change, result.as_ref().err());
        }
        result.map_err(|error| if is_away { away(error) } else { error })
    }

    fn tell(&self, change: Change, error: Option<&GatewayError>) {
        match change {
            Change::Opened { why, pause, openings } => {
                self.metrics.opened(why);
                // The first time, and then each time the number of openings has doubled.
                if openings.is_power_of_two() {
                    let error = error.map(tracing::field::display);
                    let pause_ms = pause.as_millis();
                    match why {
                        Why::Outage => {
                            tracing::warn!(error, openings, pause_ms, "gateway is away, orders wait");
                        }
                        Why::Configuration => {
                            tracing::error!(error, openings, pause_ms, "gateway refuses us, orders wait");
                        }
                    }
                }
            }
            Change::Closed => {
                self.metrics.closed();
                tracing::info!("gateway is back, orders go on");
            }
        }
        self.shared.changed.notify_waiters();
    }
}

/// What an outcome says about the gateway.
const fn sign<T>(result: &Result<T, GatewayError>) -> Sign {
    match result {
        Ok(_) | Err(GatewayError::InProgress { .. } | GatewayError::Refused { .. }) => Sign::Works,
        Err(GatewayError::NoAnswer { .. } | GatewayError::Away { .. }) => Sign::Fails { retry_after: None },
        Err(GatewayError::Unavailable { retry_after, .. }) => Sign::Fails {
            retry_after: *retry_after,
        },
        Err(GatewayError::Misconfigured { .. }) => Sign::RefusesUs,
    }
}

/// What a failure is while the circuit is open. What the gateway said of this very order stays.
fn away(error: GatewayError) -> GatewayError {
    match error {
        GatewayError::NoAnswer { .. }
        | GatewayError::Unavailable { .. }
        | GatewayError::Misconfigured { .. } => GatewayError::Away {
            message: error.to_string(),
        },
        error @ (GatewayError::InProgress { .. }
        | GatewayError::Refused { .. }
        | GatewayError::Away { .. }) => error,
    }
}

impl<G: PaymentGateway> PaymentGateway for Guarded<G> {
    fn ready(&self) -> impl Future<Output = impl Send> + Send {
        self.place()
    }

    async fn charge(&self, charge: Charge<'_>) -> Result<Settled, GatewayError> {
        let name = |settled: &Settled| match settled {
            Settled::Paid => "paid",
            Settled::Declined => "declined",
        };
        self.call("charge", self.gateway.charge(charge), name).await
    }

    async fn lookup(&self, payment_id: &str) -> Result<Found, GatewayError> {
        let name = |found: &Found| match found {
            Found::Settled(_) => "found",
            Found::Nothing => "nothing",
        };
        self.call("lookup", self.gateway.lookup(payment_id), name).await
    }
}

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests;
