//! What orderflow asks of a payment gateway.
//!
//! The one thing that may never happen is that an order is charged twice. So every call carries the
//! idempotency key of its order, an error never says more than is known, and what is not known is looked
//! up before anybody gives up.

use std::future::Future;
use std::time::Duration;

use domain::{Money, OrderId};

/// One order to charge.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The idempotency key: charging twice under one key charges once.
    pub payment_id: &'a str,
    /// The order's id.
    pub order_id: &'a OrderId<'static>,
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

/// What the gateway knows of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has ended.
    Settled(Settled),
    /// The gateway never heard of it: nothing was charged.
    Nothing,
}

/// No final answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Nothing came back, or nothing that can be read: the order may be charged or not.
    #[error("the gateway gave no answer: {message}")]
    NoAnswer {
        /// What the client saw.
        message: String,
    },
    /// Not now: ask again under the same key.
    #[error("the gateway can not serve now: {message}")]
    Unavailable {
        /// The gateway's own words.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It is at work on this very payment: ask again under the same key.
    #[error("the gateway is at work on this payment: {message}")]
    InProgress {
        /// The gateway's own words.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It refuses this order and always will.
    #[error("the gateway refuses the order: {message}")]
    Refused {
        /// The gateway's own words.
        message: String,
    },
    /// It would answer every order so: credentials or address are wrong.
    #[error("the gateway refuses us, check `payment.gateway`: {message}")]
    Misconfigured {
        /// The gateway's own words.
        message: String,
    },
    /// It is away, for any order: a declared wait.
    #[error("the gateway is away: {message}")]
    Away {
        /// How that was seen.
        message: String,
    },
}

/// A payment gateway.
pub trait PaymentGateway: Send + Sync + 'static {
    /// Waits until a call makes sense; what it returns is kept until the call is over.
    fn ready(&self) -> impl Future<Output = impl Send> + Send {
        std::future::ready(())
    }

    /// Charges an order. Safe to repeat: the idempotency key makes a second charge the first one's echo.
    fn charge(&self, charge: Charge<'_>) -> impl Future<Output = Result<Settled, GatewayError>> + Send;

    /// Asks what became of a payment, and charges nothing.
    fn lookup(&self, payment_id: &str) -> impl Future<Output = Result<Found, GatewayError>> + Send;
}
