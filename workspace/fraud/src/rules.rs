//! What makes an order suspicious, and how much.
//!
//! The rule: the amount is over the limit of its currency, and the country is not exempt. It is a
//! demonstration rule, and an honest one: on the orders of a real shop it hits about half.
//!
//! The score says how far the amount is over the limit, on a logarithmic scale: with `r = amount / limit`
//!
//! ```text
//! score = 25 + 60 * ln(r) / ln(5000 / 3), rounded half up, at most 100
//! ```
//!
//! So an amount just over the limit scores 25, one of 500,000 with a limit of 300 scores 85, and the
//! score never falls when the amount rises. Whether the rule hits is decided in exact minor units; the
//! logarithm only grades what was hit.
//!
//! Pure.

use std::sync::Arc;

use domain::{Country, Currency, Decimal, MinorUnits, Money, RiskLevel};

/// `500,000 / 300`: the ratio that scores 85.
const REFERENCE_RATIO: f64 = 5_000.0 / 3.0;
const LOWEST_SCORE: f64 = 25.0;
const REFERENCE_RISE: f64 = 60.0;

/// From which score on an alert has which level.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Medium from here.
    pub medium: u8,
    /// High from here.
    pub high: u8,
    /// Critical from here.
    pub critical: u8,
}

impl Levels {
    /// The level of a score.
    #[must_use]
    pub const fn of(&self, score: u8) -> RiskLevel {
        if score >= self.critical {
            RiskLevel::Critical
        } else if score >= self.high {
            RiskLevel::High
        } else if score >= self.medium {
            RiskLevel::Medium
        } else {
            RiskLevel::Low
        }
    }
}

/// The limit of each currency.
#[derive(Clone, Debug)]
pub struct Limits {
    general: Arc<str>,
    /// Few currencies occur, and the first ones most: a short list beats a map.
    known: Vec<(Currency, MinorUnits)>,
}

impl Limits {
    /// One limit in major units for every currency.
    #[must_use]
    pub fn new(general: &str) -> Self {
        Self {
            general: general.into(),
            known: Vec::new(),
        }
    }

    /// Another limit for one currency; text that is no amount of it is passed over, because the
    /// configuration was checked before.
    pub fn set(&mut self, currency: Currency, limit: &str) {
        if let Ok(money) = Money::parse(limit, currency) {
            self.known.retain(|(known, _)| *known != currency);
            self.known.push((currency, money.minor));
        }
    }

    /// The limit of a currency in its minor units.
    fn of(&mut self, currency: Currency) -> MinorUnits {
        if let Some((_, limit)) = self.known.iter().find(|(known, _)| *known == currency) {
            return *limit;
        }
        let limit = general_limit(&self.general, currency);
        self.known.push((currency, limit));
        limit
    }
}

/// The general limit in minor units, rounded half to even where the currency is coarser than the text, and
/// never 0: a limit of a few cents must not make every yen suspicious.
fn general_limit(text: &str, currency: Currency) -> MinorUnits {
    let rounded = Decimal::parse(text)
        .ok()
        .and_then(|limit| limit.round_half_even(currency));
    // A limit too large for the currency is never passed.
    rounded.map_or(MinorUnits(i64::MAX), |money| money.minor.max(MinorUnits(1)))
}

/// What the rules say about an order that they hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// 0 to 100.
    pub score: u8,
    /// The limit that the amount is over.
    pub limit: Money,
}

/// The rules in force.
#[derive(Clone, Debug)]
pub struct Rules {
    /// From which amount on an order is suspicious.
    pub limits: Limits,
    /// Where nothing is suspicious.
    pub exempt_countries: Vec<Country>,
    /// How scores are named.
    pub levels: Levels,
    /// Stands in every alert.
    pub version: String,
}

impl Rules {
    /// Judges an order; `None` = nothing suspicious. Not `&self`, because a currency's limit is worked
    /// out when it occurs for the first time.
    pub fn judge(&mut self, money: Money, country: Country) -> Option<Verdict> {
        if self.exempt_countries.contains(&country) {
            return None;
        }
        let limit = self.limits.of(money.currency);
        (money.minor > limit).then(|| Verdict {
            score: score(money.minor, limit),
            limit: Money {
                minor: limit,
                currency: money.currency,
            },
        })
    }
}

fn score(amount: MinorUnits, limit: MinorUnits) -> u8 {
    let ratio = amount.0 as f64 / limit.0.max(1) as f64;
    let rise = REFERENCE_RISE * ratio.ln() / REFERENCE_RATIO.ln();
    // The logarithm of the reference itself may miss 60 by the last bit: rounding takes care of it.
    (LOWEST_SCORE + rise).round().clamp(LOWEST_SCORE, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::FraudSettings;

    fn judge(amount: &str, currency: Currency, country: &str) -> Option<u8> {
        let mut settings = FraudSettings::default();
        settings.limits.insert("JPY".to_owned(), "45000".to_owned());
        let mut rules = settings.rules().expect("rules");
        let money = Money::parse(amount, currency).expect("amount");
        rules
            .judge(money, Country::parse(country).expect("country"))
            .map(|verdict| verdict.score)
    }

    fn currency(code: &str) -> Currency {
        Currency::parse(code).expect("currency")
    }

    #[test]
    fn the_limit_itself_is_not_over_the_limit() {
        assert_eq!(judge("300.00", Currency::USD, "FR"), None);
        assert_eq!(judge("300.01", Currency::USD, "FR"), Some(25));
    }

    #[test]
    fn exempt_countries_are_never_suspicious() {
        assert_eq!(judge("500000", Currency::USD, "US"), None);
        assert_eq!(judge("500000", Currency::USD, "CA"), None);
        assert_eq!(judge("500000", Currency::USD, "NG"), Some(85));
    }

    #[test]
    fn each_currency_is_compared_in_its_own_units() {
        // 0 decimals with a limit of its own, 3 decimals with the general one.
        assert_eq!(judge("45000", currency("JPY"), "JP"), None);
        assert_eq!(judge("45001", currency("JPY"), "JP"), Some(25));
        assert_eq!(judge("300.000", currency("KWD"), "KW"), None);
        assert_eq!(judge("300.001", currency("KWD"), "KW"), Some(25));
    }

    #[test]
    fn scores_by_hand() {
        // ln(10) = 2.302585, ln(5000/3) = 7.418581: 25 + 60 * 0.310381 = 43.6; ln(100): 62.2.
        assert_eq!(judge("3000", Currency::USD, "FR"), Some(44));
        assert_eq!(judge("30000", Currency::USD, "FR"), Some(62));
        // ln(2e12) is far beyond the end of the scale.
        assert_eq!(judge("600000000000000", Currency::USD, "FR"), Some(100));
    }

    #[test]
    fn levels_begin_at_their_boundary() {
        let levels = Levels {
            medium: 25,
            high: 50,
            critical: 75,
        };
        let names: Vec<&str> = [0, 24, 25, 49, 50, 74, 75, 100]
            .map(|score| levels.of(score).as_str())
            .to_vec();
        assert_eq!(
            names,
            [
                "Low", "Low", "Medium", "Medium", "High", "High", "Critical", "Critical"
            ]
        );
    }

    proptest! {
        #[test]
        fn a_larger_amount_never_scores_less(a in 30_001_i64.., b in 30_001_i64..) {
            let (low, high) = (a.min(b), a.max(b));
            let limit = MinorUnits(30_000);
            prop_assert!(score(MinorUnits(low), limit) <= score(MinorUnits(high), limit));
            prop_assert!((25..=100).contains(&score(MinorUnits(high), limit)));
        }
    }
}
