//! The sections that this service reads, and the section `fraud` itself.

use std::collections::BTreeMap;

use domain::{Country, Currency, Money, OrderSettings};
use serde::{Deserialize, Serialize};
use service::{Problems, Settings};
use stream::{KafkaSettings, StreamSettings, TopicNames};

use crate::rules::{Levels, Limits, Rules};

/// The configuration of this service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// What the topics are called.
    pub topics: TopicNames,
    /// How the consume loop works.
    pub stream: StreamSettings,
    /// What all services agree on about orders.
    pub orders: OrderSettings,
    /// The rules.
    pub fraud: FraudSettings,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        let sections = [
            self.kafka.problems(),
            self.topics.problems(),
            self.stream.problems(),
        ];
        for (key, message) in sections.into_iter().flatten() {
            problems.add(key, message);
        }
        self.fraud.check(problems);
    }

    fn open_tables() -> &'static [&'static str] {
        &["fraud.limits"]
    }
}

/// The section `fraud`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct FraudSettings {
    /// The consumer group.
    pub group: String,
    /// An order is suspicious above this amount, in major units of its own currency.
    pub limit: String,
    /// The same for single currencies: `JPY = "45000"`.
    pub limits: BTreeMap<String, String>,
    /// Orders from these countries are never suspicious.
    pub exempt_countries: Vec<String>,
    /// From this score on an alert is Medium.
    pub medium_from: u8,
    /// From this score on an alert is High.
    pub high_from: u8,
    /// From this score on an alert is Critical.
    pub critical_from: u8,
    /// Stands in every alert; raise it when the rules change.
    pub rules_version: String,
}

impl Default for FraudSettings {
    fn default() -> Self {
        Self {
            group: "fraud-group".to_owned(),
            limit: "300".to_owned(),
            limits: BTreeMap::new(),
            exempt_countries: vec!["US".to_owned(), "CA".to_owned()],
            medium_from: 25,
            high_from: 50,
            critical_from: 75,
            rules_version: "1".to_owned(),
        }
    }
}

/// A value that can not be a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    key: String,
    message: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "`{}` is {}", self.key, self.message)
    }
}

impl FraudSettings {
    fn check(&self, problems: &mut Problems) {
        if self.group.is_empty() {
            problems.add("fraud.group", "empty, must name a consumer group");
        }
        for mistake in self.mistakes() {
            problems.add(&mistake.key, mistake.message);
        }
    }

    fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut add = |key: String, message: String| mistakes.push(Mistake { key, message });
        // The general limit is an amount with at most two decimals; coarser currencies round it.
        if let Err(message) = positive(&self.limit, Currency::USD) {
            add("fraud.limit".to_owned(), message);
        }
        for (code, limit) in &self.limits {
            let checked = match Currency::parse(code) {
                Ok(currency) => positive(limit, currency),
                Err(_) => Err(format!("`{limit}`, but `{code}` is no currency code of ISO 4217")),
            };
            if let Err(message) = checked {
                add(format!("fraud.limits.{code}"), message);
            }
        }
        for country in &self.exempt_countries {
            if Country::parse(country).is_err() {
                let message = format!("`{country}`, must be two letters A to Z, as in ISO 3166-1");
                add("fraud.exempt_countries".to_owned(), message);
            }
        }
        if !(self.medium_from < self.high_from
            && self.high_from < self.critical_from
            && self.critical_from <= 100)
        {
            let found = format!("{}, {}, {}", self.medium_from, self.high_from, self.critical_from);
            let message = format!("`{found}` (medium, high, critical), must rise and end at 100 or below");
            add("fraud.medium_from".to_owned(), message);
        }
        mistakes
    }

    /// The rules that the section describes.
    ///
    /// # Errors
    /// The first value that can not be a rule.
    pub fn rules(&self) -> Result<Rules, Mistake> {
        if let Some(mistake) = self.mistakes().into_iter().next() {
            return Err(mistake);
        }
        let mut limits = Limits::new(&self.limit);
        for (code, limit) in &self.limits {
            if let Ok(currency) = Currency::parse(code) {
                limits.set(currency, limit);
            }
        }
        Ok(Rules {
            limits,
            exempt_countries: self
                .exempt_countries
                .iter()
                .filter_map(|code| Country::parse(code).ok())
                .collect(),
            levels: Levels {
                medium: self.medium_from,
                high: self.high_from,
                critical: self.critical_from,
            },
            version: self.rules_version.clone(),
        })
    }
}

fn positive(limit: &str, currency: Currency) -> Result<(), String> {
    match Money::parse(limit, currency) {
        Ok(money) if money.minor.0 > 0 => Ok(()),
        Ok(_) => Err(format!("`{limit}`, must be more than 0")),
        Err(_) => Err(format!(
            "`{limit}`, must be an amount of {currency} with at most its decimals"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_section_describes_rules() {
        let rules = FraudSettings::default().rules().expect("rules");
        assert_eq!(rules.exempt_countries.len(), 2);
    }

    #[test]
    fn every_mistake_is_found_with_its_key() {
        let settings = FraudSettings {
            limit: "-1".to_owned(),
            limits: BTreeMap::from([
                ("XXQ".to_owned(), "5".to_owned()),
                ("JPY".to_owned(), "1.5".to_owned()),
            ]),
            exempt_countries: vec!["usa".to_owned()],
            medium_from: 80,
            ..FraudSettings::default()
        };
        let keys: Vec<String> = settings
            .mistakes()
            .into_iter()
            .map(|mistake| mistake.key)
            .collect();
        assert_eq!(
            keys,
            [
                "fraud.limit",
                "fraud.limits.JPY",
                "fraud.limits.XXQ",
                "fraud.exempt_countries",
                "fraud.medium_from"
            ]
        );
    }
}
