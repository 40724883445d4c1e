//! Exact decimals: how the text of a number becomes minor units without a float in between.

use std::fmt;

use crate::currency::Currency;
use crate::money::{MinorUnits, Money};
use crate::rejection::{Rejection, RejectionCode};

/// Digits after the point that [`Decimal`] keeps at most; prices of real data have up to 3.
const MAX_SCALE: u32 = 18;

const MUST_BE_NUMBER: &str = "a decimal number";

/// The parts of a number by the grammar of RFC 8259, leading and trailing zeros removed: the value is
/// `digits * 10^power`, and no digits mean zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    power: i64,
}

impl<'a> Parts<'a> {
    /// Splits a number; `None` when the text is no number by the grammar of JSON.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (whole, rest) = split_digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => match split_digits(rest) {
                ([], _) => return None,
                split => split,
            },
            rest => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', exponent @ ..] => read_exponent(exponent)?,
            _ => return None,
        };
        Some(Self::trimmed(negative, whole, fraction, exponent))
    }

    fn trimmed(negative: bool, mut whole: &'a [u8], mut fraction: &'a [u8], exponent: i64) -> Self {
        fraction = trim_end_zeros(fraction);
        if whole == b"0" {
            whole = &[];
            let zeros = fraction.iter().take_while(|&&digit| digit == b'0').count();
            // Zeros before the first digit of a fraction weigh nothing, but they move the point.
            let power = exponent.saturating_sub(length(fraction));
            return Self {
                negative,
                whole,
                fraction: fraction.get(zeros..).unwrap_or_default(),
                power,
            };
        }
        let mut power = exponent.saturating_sub(length(fraction));
        if fraction.is_empty() {
            let kept = trim_end_zeros(whole);
            power = power.saturating_add(length(whole) - length(kept));
            whole = kept;
        }
        Self {
            negative,
            whole,
            fraction,
            power,
        }
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    /// `value * 10^scale` as an integer: `Err(true)` when it is none, `Err(false)` when it has too many digits.
    fn scaled(&self, scale: u32, max_digits: i64) -> Result<i128, bool> {
        if self.is_zero() {
            return Ok(0);
        }
        let shift = self.power.saturating_add(i64::from(scale));
        if shift < 0 {
            return Err(true);
        }
        let digits = length(self.whole) + length(self.fraction);
        if digits.saturating_add(shift) > max_digits {
            return Err(false);
        }
        let mut value: i128 = 0;
        for digit in self.whole.iter().chain(self.fraction) {
            value = value * 10 + i128::from(digit - b'0');
        }
        for _ in 0..shift {
            value *= 10;
        }
        Ok(if self.negative { -value } else { value })
    }
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.split_at_checked(count).unwrap_or((bytes, &[]))
}

fn trim_end_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|&&digit| digit == b'0').count();
    digits.get(..digits.len() - zeros).unwrap_or_default()
}

/// Exponents beyond the range of i64 saturate, which decides the same way as the true value would.
fn read_exponent(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    Some(if negative { -value } else { value })
}

/// Reads an amount exactly. `field` is the name for the sentence of a rejection.
#[inline]
pub(crate) fn parse_money(field: &str, text: &str, currency: Currency) -> Result<Money, Rejection> {
    match plain_minor_units(text.as_bytes(), currency.exponent()) {
        Some(minor) => Ok(Money {
            minor: MinorUnits(minor),
            currency,
        }),
        None => parse_any_money(field, text, currency),
    }
}

/// The usual spelling, `249.99` or `500000`: at most 18 digits, no sign, no exponent, no more decimals written
/// than the currency has. Everything else is `None` and takes the general way.
#[inline]
fn plain_minor_units(text: &[u8], decimals: u8) -> Option<i64> {
    if text.len() > 18 {
        return None;
    }
    let mut minor = 0i64;
    let mut point = None;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => minor = minor * 10 + i64::from(byte - b'0'),
            b'.' if point.is_none() && at > 0 => point = Some(at),
            _ => return None,
        }
    }
    let written = match point {
        Some(at) => text.len() - at - 1,
        None => 0,
    };
    let whole = point.unwrap_or(text.len());
    let leading_zero = whole > 1 && text.first() == Some(&b'0');
    if whole == 0 || leading_zero || (point.is_some() && written == 0) {
        return None;
    }
    let missing = usize::from(decimals).checked_sub(written)?;
    (0..missing).try_fold(minor, |minor, _| minor.checked_mul(10))
}

#[inline(never)]
fn parse_any_money(field: &str, text: &str, currency: Currency) -> Result<Money, Rejection> {
    let Some(parts) = Parts::of(text) else {
        return Err(Rejection::value(
            RejectionCode::InvalidAmount,
            field,
            text,
            MUST_BE_NUMBER,
        ));
    };
    let too_large = || {
        let must = format!(
            "at most {} {currency}",
            Money {
                minor: MinorUnits(i64::MAX),
                currency
            }
        );
        Rejection::value(RejectionCode::AmountTooLarge, field, text, &must)
    };
    match parts.scaled(u32::from(currency.exponent()), 19) {
        Ok(value) => match i64::try_from(value) {
            Ok(minor) => Ok(Money {
                minor: MinorUnits(minor),
                currency,
            }),
            Err(_) => Err(too_large()),
        },
        Err(false) => Err(too_large()),
        Err(true) => {
            let must = format!(
                "an amount with at most {} decimals, as {currency} has",
                currency.exponent()
            );
            Err(Rejection::value(
                RejectionCode::AmountTooPrecise,
                field,
                text,
                &must,
            ))
        }
    }
}

/// An exact decimal of any currency and precision: `mantissa / 10^scale`. For adding up prices that are finer
/// than a minor unit; [`Decimal::round_half_even`] turns the sum into [`Money`] once.
///
/// ```
/// use domain::{Currency, Decimal};
/// let line = Decimal::parse("0.125").unwrap().times(3).unwrap();       // 0.375
/// let sum = line.plus(Decimal::parse("0.03").unwrap()).unwrap();       // 0.405
/// assert_eq!(sum.round_half_even(Currency::USD).unwrap().to_string(), "0.40");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    mantissa: i128,
    scale: u32,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self {
        mantissa: 0,
        scale: 0,
    };

    /// Reads a number by the grammar of JSON with at most 18 decimals and 30 digits.
    ///
    /// # Errors
    /// `invalid_amount`, `amount_too_precise` or `amount_too_large`.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let reject = |code, must: &str| Rejection::value(code, "price", text, must);
        let parts = Parts::of(text).ok_or_else(|| reject(RejectionCode::InvalidAmount, MUST_BE_NUMBER))?;
        let scale =
            u32::try_from(parts.power.saturating_neg().clamp(0, i64::from(MAX_SCALE) + 1)).unwrap_or(0);
        if scale > MAX_SCALE && !parts.is_zero() {
            return Err(reject(
                RejectionCode::AmountTooPrecise,
                "a number with at most 18 decimals",
            ));
        }
        let scale = if parts.is_zero() { 0 } else { scale };
        match parts.scaled(scale, 30) {
            Ok(mantissa) => Ok(Self { mantissa, scale }),
            Err(_) => Err(reject(
                RejectionCode::AmountTooLarge,
                "a number with at most 30 digits",
            )),
        }
    }

    /// The product with an integer; `None` on overflow.
    pub fn times(self, factor: i64) -> Option<Self> {
        Some(Self {
            mantissa: self.mantissa.checked_mul(i128::from(factor))?,
            scale: self.scale,
        })
    }

    /// The sum; `None` on overflow.
    pub fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let mantissa = self.rescaled(scale)?.checked_add(other.rescaled(scale)?)?;
        Some(Self { mantissa, scale })
    }

    fn rescaled(self, scale: u32) -> Option<i128> {
        self.mantissa
            .checked_mul(10i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    /// Whether the number is more than 0.
    pub const fn is_positive(self) -> bool {
        self.mantissa > 0
    }

    /// The nearest amount of the currency, a tie going to the even neighbour; `None` on overflow.
    pub fn round_half_even(self, currency: Currency) -> Option<Money> {
        let decimals = u32::from(currency.exponent());
        let minor = if self.scale <= decimals {
            self.rescaled(decimals)?
        } else {
            let unit = 10i128.checked_pow(self.scale - decimals)?;
            let (quotient, remainder) = (self.mantissa.div_euclid(unit), self.mantissa.rem_euclid(unit));
            match (remainder * 2).cmp(&unit) {
                std::cmp::Ordering::Less => quotient,
                std::cmp::Ordering::Greater => quotient + 1,
                std::cmp::Ordering::Equal => quotient + quotient.rem_euclid(2),
            }
        };
        Some(Money {
            minor: MinorUnits(i64::try_from(minor).ok()?),
            currency,
        })
    }
}

impl fmt::Display for Decimal {
    /// Plain decimal text, which is also a JSON number.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(formatter, self.mantissa, self.scale)
    }
}

/// Writes `mantissa / 10^scale` with exactly `scale` decimals.
pub(crate) fn write_scaled(out: &mut impl fmt::Write, mantissa: i128, scale: u32) -> fmt::Result {
    let sign = if mantissa < 0 { "-" } else { "" };
    let magnitude = mantissa.unsigned_abs();
    let unit = 10u128.saturating_pow(scale);
    if scale == 0 {
        write!(out, "{sign}{magnitude}")
    } else {
        write!(
            out,
            "{sign}{}.{:0width$}",
            magnitude / unit,
            magnitude % unit,
            width = scale as usize
        )
    }
}

impl From<Money> for Decimal {
    fn from(money: Money) -> Self {
        Self {
            mantissa: i128::from(money.minor.0),
            scale: u32::from(money.currency.exponent()),
        }
    }
}
