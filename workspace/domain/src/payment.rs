//! Payments: how an order was settled.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::MAX_DERIVED_BYTES;
use crate::currency::Currency;
use crate::fields::{Known, text_of};
use crate::json::{write_integer, write_string};
use crate::money::Money;
use crate::order::OrderId;
use crate::rejection::{Rejection, RejectionCode};
use crate::time::EventTime;

/// How a payment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PaymentStatus {
    /// Settled; final.
    Paid,
    /// The gateway said no; final.
    Declined,
    /// Given up; provisional, a replay of the dead letter may settle it.
    Failed,
}

impl PaymentStatus {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Paid, Self::Declined, Self::Failed];

    /// The text in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "PAID",
            Self::Declined => "DECLINED",
            Self::Failed => "FAILED",
        }
    }
}

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment<'a> {
    /// Which order, in the type that the order's id had.
    pub order_id: OrderId<'a>,
    /// How it ended.
    pub status: PaymentStatus,
    /// From [`crate::ids::payment_id`].
    pub payment_id: Cow<'a, str>,
    /// The order's amount.
    pub money: Money,
    /// How often the gateway was asked.
    pub attempts: u32,
    /// When the payment ended.
    pub timestamp: EventTime,
}

const ORDER_ID: usize = 0;
const STATUS: usize = 1;
const PAYMENT_ID: usize = 2;
const AMOUNT: usize = 3;
const CURRENCY: usize = 4;
const ATTEMPTS: usize = 5;
const TIMESTAMP: usize = 6;
static FIELDS: [&str; 7] = [
    "order_id",
    "status",
    "payment_id",
    "amount",
    "currency",
    "attempts",
    "timestamp",
];

impl<'a> Payment<'a> {
    /// Appends the payment as JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"order_id\":");
        self.order_id.write_json(out);
        out.extend_from_slice(b",\"status\":");
        write_string(out, self.status.as_str());
        out.extend_from_slice(b",\"payment_id\":");
        write_string(out, &self.payment_id);
        out.extend_from_slice(b",\"amount\":");
        self.money.write_json(out);
        out.extend_from_slice(b",\"currency\":");
        write_string(out, self.money.currency.as_str());
        out.extend_from_slice(b",\"attempts\":");
        write_integer(out, i64::from(self.attempts));
        out.extend_from_slice(format!(",\"timestamp\":\"{}\"}}", self.timestamp).as_bytes());
    }

    /// Reads a payment; unknown fields are passed over.
    ///
    /// # Errors
    /// A [`Rejection`] with a stable code.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let known = Known::read(text_of(bytes, MAX_DERIVED_BYTES)?, &FIELDS)?;
        let order_id = known.required(ORDER_ID, "an order id")?;
        let currency = known.currency(CURRENCY)?.unwrap_or(Currency::USD);
        let status = known.string(STATUS, "a payment status")?;
        let status = PaymentStatus::ALL
            .into_iter()
            .find(|known| known.as_str() == status)
            .ok_or_else(|| {
                Rejection::value(
                    RejectionCode::InvalidValue,
                    "status",
                    &status,
                    "`PAID`, `DECLINED` or `FAILED`",
                )
            })?;
        Ok(Self {
            order_id: OrderId::from_value("order_id", &order_id)?,
            status,
            payment_id: known.string(PAYMENT_ID, "a string")?,
            money: known.money(AMOUNT, currency)?,
            attempts: known.unsigned(ATTEMPTS, u32::MAX)?,
            timestamp: known
                .timestamp(TIMESTAMP)?
                .ok_or_else(|| Rejection::missing("timestamp", "an RFC 3339 time"))?,
        })
    }
}
