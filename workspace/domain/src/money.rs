//! Amounts: an integer of minor units and a currency.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::currency::Currency;
use crate::decimal::{parse_money, write_scaled};
use crate::json::write_integer;
use crate::rejection::Rejection;

/// An amount in the currency's smallest unit: cents, pence, yen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct MinorUnits(pub i64);

/// An exact amount of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// How many of the smallest unit.
    pub minor: MinorUnits,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// Reads an amount in major units, a number by the grammar of JSON, exactly and never through a float.
    /// Exponents and trailing zeros are fine as long as the value has no more decimals than the currency.
    /// Zero and negative amounts are money too; that an order's amount is more than 0 is the order's rule.
    ///
    /// ```
    /// use domain::{Currency, Money};
    /// assert_eq!(Money::parse("249.99", Currency::USD).unwrap().minor.0, 24_999);
    /// assert_eq!(Money::parse("2.4999e2", Currency::USD).unwrap().minor.0, 24_999);
    /// assert_eq!(Money::parse("1.234", Currency::USD).unwrap_err().code.as_str(), "amount_too_precise");
    /// ```
    ///
    /// # Errors
    /// `invalid_amount`, `amount_too_precise` or `amount_too_large`.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, Rejection> {
        parse_money("amount", text, currency)
    }

    /// Appends the amount as a JSON number of major units, without trailing zeros after the point:
    /// `249.99`, `249.9`, `500000`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let unit = 10i64.saturating_pow(u32::from(self.currency.exponent()));
        let (major, mut minor) = (self.minor.0 / unit, (self.minor.0 % unit).unsigned_abs());
        if major == 0 && self.minor.0 < 0 {
            out.push(b'-');
        }
        write_integer(out, major);
        if minor == 0 {
            return;
        }
        out.push(b'.');
        let mut weight = unit.unsigned_abs() / 10;
        while minor > 0 && weight > 0 {
            // A quotient below ten by construction: `minor` is below ten times `weight`.
            out.push(b'0' + (minor / weight) as u8);
            minor %= weight;
            weight /= 10;
        }
    }
}

impl fmt::Display for Money {
    /// Plain decimal text with all decimals of the currency, without its code: `249.90`, `500` (JPY).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(
            formatter,
            i128::from(self.minor.0),
            u32::from(self.currency.exponent()),
        )
    }
}
