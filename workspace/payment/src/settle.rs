//! An order in, a payment out.

use std::borrow::Cow;
use std::time::Duration;

use domain::{Currency, EventTime, Money, Order, OrderId, Payment, PaymentStatus, ids};
use stream::{ConcurrentHandler, Failure, LastWord, OutputRecord, OutputTopic, Record};

use crate::gateway::{Charge, Found, GatewayError, PaymentGateway, Settled};

const PAYMENTS: OutputTopic = OutputTopic(0);

/// A last word asks so often what became of a payment, with this pause in between.
const LOOKUPS: u32 = 3;
const LOOKUP_PAUSE: Duration = Duration::from_millis(300);

/// What holds for all orders.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The currency of orders that name none.
    pub default_currency: Currency,
    /// How long the gateway keeps an idempotency key.
    pub key_lifetime: Duration,
    /// Tells when a payment ended, and how old an order is.
    pub clock: fn() -> EventTime,
}

/// Settles orders with a gateway.
pub struct Settle<G> {
    gateway: G,
    terms: Terms,
}

/// An order that is being settled.
#[derive(Debug)]
pub struct Job {
    order_id: OrderId<'static>,
    payment_id: String,
    money: Money,
    record_time_ms: i64,
}

impl<G: PaymentGateway> Settle<G> {
    /// Settles with this gateway.
    pub const fn new(gateway: G, terms: Terms) -> Self {
        Self { gateway, terms }
    }

    async fn settle(&self, job: &Job) -> Result<Settled, GatewayError> {
        // A key that the gateway has forgotten protects from nothing: a charge would be a second one.
        if self.may_be_forgotten(job)
            && let Found::Settled(settled) = self.gateway.lookup(&job.payment_id).await?
        {
            return Ok(settled);
        }
        let charge = Charge {
            payment_id: &job.payment_id,
            order_id: &job.order_id,
            money: job.money,
        };
        self.gateway.charge(charge).await
    }

    /// Whether a charge of this order may be so old that the gateway has forgotten its key. Nobody
    /// charged it before its record was sent.
    fn may_be_forgotten(&self, job: &Job) -> bool {
        let age_ms = (self.terms.clock)().0.saturating_sub(job.record_time_ms);
        let lifetime_ms = self.terms.key_lifetime.as_millis();
        u128::try_from(age_ms).is_ok_and(|age_ms| age_ms > lifetime_ms)
    }

    fn payment(&self, job: &Job, status: PaymentStatus, attempts: u32) -> Vec<OutputRecord> {
        let payment = Payment {
            order_id: job.order_id.clone(),
            status,
            payment_id: Cow::Borrowed(&job.payment_id),
            money: job.money,
            attempts,
            timestamp: (self.terms.clock)(),
        };
        let mut value = Vec::with_capacity(192);
        payment.encode(&mut value);
        vec![OutputRecord {
            topic: PAYMENTS,
            key: job.order_id.text().as_bytes().to_vec(),
            value,
        }]
    }
}

impl<G: PaymentGateway> ConcurrentHandler for Settle<G> {
    type Job = Job;

    fn decode(&self, record: &Record<'_>) -> Result<Job, Failure> {
        let value = record
            .value
            .ok_or_else(|| Failure::poison("empty", "the record has no value, must be an order"))?;
        let order = Order::decode(value, self.terms.default_currency)
            .map_err(|rejection| Failure::poison(rejection.code.as_str(), rejection.message))?;
        Ok(Job {
            payment_id: ids::payment_id(order.id.text()),
            money: order.money,
            order_id: order.id.into_owned(),
            record_time_ms: record.record_time_ms,
        })
    }

    fn ready(&self) -> impl Future<Output = impl Send> + Send {
        self.gateway.ready()
    }

    async fn attempt(&self, job: &Job, attempt: u32) -> Result<Vec<OutputRecord>, Failure> {
        let settled = self.settle(job).await.map_err(classify)?;
        Ok(self.payment(job, status(settled), attempt))
    }

    async fn give_up(&self, job: &Job, attempts: u32) -> Result<LastWord, Failure> {
        let mut lookups = 1;
        loop {
            match self.gateway.lookup(&job.payment_id).await {
                Ok(Found::Settled(settled)) => {
                    let outputs = self.payment(job, status(settled), attempts);
                    return Ok(LastWord::Settled(outputs));
                }
                Ok(Found::Nothing) => {
                    let outputs = self.payment(job, PaymentStatus::Failed, attempts);
                    return Ok(LastWord::GaveUp(outputs));
                }
                Err(error @ GatewayError::Away { .. }) => return Err(classify(error)),
                Err(error) if lookups == LOOKUPS => return Err(classify(error)),
                Err(_) => tokio::time::sleep(LOOKUP_PAUSE).await,
            }
            lookups += 1;
        }
    }
}

const fn status(settled: Settled) -> PaymentStatus {
    match settled {
        Settled::Paid => PaymentStatus::Paid,
        Settled::Declined => PaymentStatus::Declined,
    }
}

/// What an error of the gateway means for the record.
fn classify(error: GatewayError) -> Failure {
    let message = error.to_string();
    let transient = |code: &'static str, retry_after| Failure::Transient {
        code: code.into(),
        message: message.clone(),
        retry_after,
    };
    match error {
        GatewayError::NoAnswer { .. } => transient("gateway_no_answer", None),
        GatewayError::Unavailable { retry_after, .. } => transient("gateway_unavailable", retry_after),
        GatewayError::InProgress { retry_after, .. } => transient("gateway_in_progress", retry_after),
        GatewayError::Refused { .. } => Failure::poison("gateway_refused", message),
        GatewayError::Misconfigured { .. } => Failure::away("gateway_refuses_us", message),
        GatewayError::Away { .. } => Failure::away("gateway_away", message),
    }
}

#[cfg(test)]
mod tests;
