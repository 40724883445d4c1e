//! What orderflow asks of a payment gateway.

use std::future::Future;
use std::time::Duration;

use domain::Money;

/// One order to charge.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The idempotency key: charging twice under one key charges once.
    pub payment_id: &'a str,
    /// The order's id.
    pub order_id: &'a str,
    /// How much.
    pub money: Money,
}

/// A final answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The money is taken.
    Paid,
    /// The gateway said no.
    Declined,
}

/// No final answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Nobody knows, or not now: ask again under the same key.
    #[error("the gateway does not answer: {message}")]
    Unavailable {
        /// The gateway's own words.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

/// A payment gateway.
pub trait PaymentGateway: Send + Sync + 'static {
    /// Charges an order. Safe to repeat: the idempotency key makes a second charge the first one's echo.
    fn charge(&self, charge: Charge<'_>) -> impl Future<Output = Result<Settled, GatewayError>> + Send;
}
