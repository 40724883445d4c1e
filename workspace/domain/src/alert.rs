//! Alerts: what fraud screening says about an order.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::MAX_DERIVED_BYTES;
use crate::country::Country;
use crate::currency::Currency;
use crate::fields::{Known, text_of, wrong_type};
use crate::json::{Elements, Kind, write_integer, write_string};
use crate::money::Money;
use crate::order::OrderId;
use crate::rejection::{Rejection, RejectionCode};
use crate::time::EventTime;

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RiskLevel {
    /// Hardly.
    Low,
    /// Worth a look.
    Medium,
    /// Look today.
    High,
    /// Look now.
    Critical,
}

impl RiskLevel {
    /// All levels from low to critical.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The text in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

/// An alert. The order's own currency and amount stand in it, the id in the type that the order had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert<'a> {
    /// From [`crate::ids::alert_id`].
    pub alert_id: Cow<'a, str>,
    /// Which order.
    pub order_id: OrderId<'a>,
    /// 0 to 100.
    pub risk_score: u8,
    /// The score's level.
    pub risk_level: RiskLevel,
    /// The order's amount.
    pub money: Money,
    /// The order's country.
    pub country: Country,
    /// The order's vendor.
    pub vendor: Option<Cow<'a, str>>,
    /// The order's event time; left out where the order has none.
    pub timestamp: Option<EventTime>,
    /// Why, in sentences for a person.
    pub reasons: Vec<Cow<'a, str>>,
    /// Which rules spoke.
    pub rules_version: Cow<'a, str>,
}

const ALERT_ID: usize = 0;
const ORDER_ID: usize = 1;
const RISK_SCORE: usize = 2;
const RISK_LEVEL: usize = 3;
const AMOUNT: usize = 4;
const CURRENCY: usize = 5;
const COUNTRY: usize = 6;
const VENDOR: usize = 7;
const TIMESTAMP: usize = 8;
const REASONS: usize = 9;
const RULES_VERSION: usize = 10;
static FIELDS: [&str; 11] = [
    "alertId",
    "orderId",
    "riskScore",
    "riskLevel",
    "amount",
    "currency",
    "country",
    "vendor",
    "timestamp",
    "reasons",
    "rulesVersion",
];

impl<'a> Alert<'a> {
    /// Appends the alert as JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"alertId\":");
        write_string(out, &self.alert_id);
        out.extend_from_slice(b",\"orderId\":");
        self.order_id.write_json(out);
        out.extend_from_slice(b",\"riskScore\":");
        write_integer(out, i64::from(self.risk_score));
        out.extend_from_slice(b",\"riskLevel\":");
        write_string(out, self.risk_level.as_str());
        out.extend_from_slice(b",\"amount\":");
        self.money.write_json(out);
        out.extend_from_slice(b",\"currency\":");
        write_string(out, self.money.currency.as_str());
        out.extend_from_slice(b",\"country\":");
        write_string(out, self.country.as_str());
        if let Some(vendor) = &self.vendor {
            out.extend_from_slice(b",\"vendor\":");
            write_string(out, vendor);
        }
        if let Some(time) = self.timestamp {
            out.extend_from_slice(format!(",\"timestamp\":\"{time}\"").as_bytes());
        }
        out.extend_from_slice(b",\"reasons\":[");
        for (index, reason) in self.reasons.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(out, reason);
        }
        out.extend_from_slice(b"],\"rulesVersion\":");
        write_string(out, &self.rules_version);
        out.push(b'}');
    }

    /// Reads an alert; unknown fields are passed over.
    ///
    /// # Errors
    /// A [`Rejection`] with a stable code.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let known = Known::read(text_of(bytes, MAX_DERIVED_BYTES)?, &FIELDS)?;
        let order_id = known.required(ORDER_ID, "an order id")?;
        let currency = known.currency(CURRENCY)?.unwrap_or(Currency::USD);
        let level = known.string(RISK_LEVEL, "a risk level")?;
        let risk_level = RiskLevel::ALL
            .into_iter()
            .find(|known| known.as_str() == level)
            .ok_or_else(|| {
                Rejection::value(
                    RejectionCode::InvalidValue,
                    "riskLevel",
                    &level,
                    "`Low`, `Medium`, `High` or `Critical`",
                )
            })?;
        Ok(Self {
            alert_id: known.string(ALERT_ID, "a string")?,
            order_id: OrderId::from_value("orderId", &order_id)?,
            // At most 100, so that it fits.
            risk_score: known.unsigned(RISK_SCORE, 100)? as u8,
            risk_level,
            money: known.money(AMOUNT, currency)?,
            country: known.country(COUNTRY)?,
            vendor: known.optional_name(VENDOR)?,
            timestamp: known.timestamp(TIMESTAMP)?,
            reasons: reasons(&known)?,
            rules_version: known
                .optional_string(RULES_VERSION, "a string")?
                .unwrap_or_default(),
        })
    }
}

fn reasons<'a>(known: &Known<'a, 11>) -> Result<Vec<Cow<'a, str>>, Rejection> {
    let must = "an array of strings";
    let Some(value) = known.optional(REASONS) else {
        return Ok(Vec::new());
    };
    let mut elements = match value.kind {
        Kind::Array => Elements::of(value.raw),
        _ => None,
    }
    .ok_or_else(|| wrong_type("reasons", &value, must))?;
    let mut reasons = Vec::new();
    while let Some(element) = elements.next_element()? {
        reasons.push(
            element
                .text()
                .ok_or_else(|| wrong_type("reasons", &element, must))?,
        );
    }
    Ok(reasons)
}
