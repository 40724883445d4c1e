//! Totals per currency, country, payment status and risk level.

use std::collections::BTreeMap;

/// How many documents, and their exact amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Documents, with and without an amount.
    pub documents: u64,
    /// Minor units per currency code. `i128`: no number of `i64` amounts that fits on a disk
    /// overflows it.
    pub amounts_minor: BTreeMap<String, i128>,
}

/// Totals of the documents that share a value.
pub type Group = BTreeMap<String, Total>;

/// What the store holds, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All orders.
    pub orders: Total,
    /// Orders by currency code.
    pub orders_by_currency: Group,
    /// Orders by country code.
    pub orders_by_country: Group,
    /// All payments, `FAILED` ones too.
    pub payments: Total,
    /// Payments by status: `PAID`, `DECLINED`, `FAILED`, and `OTHER` for a word we do not know.
    pub payments_by_status: Group,
    /// All alerts.
    pub alerts: Total,
    /// Alerts by risk level: `Low` to `Critical`, and `Other` for a word we do not know.
    pub alerts_by_level: Group,
    /// The record time of the newest order, in milliseconds since the epoch.
    pub newest_order_ms: Option<i64>,
}

/// How many documents arrived in a time slot, by record time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The begin of the slot, in milliseconds since the epoch; slots are [`Arrivals::SLOT_MS`] long.
    pub slot_start_ms: i64,
    /// Orders.
    pub orders: u64,
    /// Alerts.
    pub alerts: u64,
    /// Payments.
    pub payments: u64,
}

impl Arrivals {
    /// The length of a slot: short enough to see a burst begin, long enough that a day has a few
    /// thousand.
    pub const SLOT_MS: i64 = 10_000;
    /// How many slots a store keeps per collection: a day without a gap.
    pub const SLOTS_KEPT: usize = 8_640;
}
