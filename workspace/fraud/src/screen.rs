//! A record in, perhaps an alert out.

use std::borrow::Cow;

use domain::{Alert, Currency, Order, ids};
use stream::{Failure, Handler, OutputTopic, Outputs, Record};

use crate::rules::{Rules, Verdict};

const ALERTS: OutputTopic = OutputTopic(0);

/// Screens the orders of one pump.
pub struct Screen {
    rules: Rules,
    default_currency: Currency,
    /// The encoded alert; its memory is used again.
    value: Vec<u8>,
}

impl Screen {
    /// Screens by these rules.
    #[must_use]
    pub fn new(rules: Rules, default_currency: Currency) -> Self {
        Self {
            rules,
            default_currency,
            value: Vec::new(),
        }
    }

    fn alert<'a>(&self, order: Order<'a>, verdict: Verdict) -> Alert<'a> {
        let over = format!(
            "amount {} {} is over the limit of {}",
            order.money, order.money.currency, verdict.limit
        );
        let abroad = format!("country {} is not exempt", order.country);
        Alert {
            alert_id: Cow::Owned(ids::alert_id(order.timestamp, order.id.text())),
            order_id: order.id,
            risk_score: verdict.score,
            risk_level: self.rules.levels.of(verdict.score),
            money: order.money,
            country: order.country,
            vendor: order.vendor,
            timestamp: order.timestamp,
            reasons: vec![Cow::Owned(over), Cow::Owned(abroad)],
            rules_version: Cow::Owned(self.rules.version.clone()),
        }
    }
}

impl Handler for Screen {
    fn handle(&mut self, record: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        let value = record
            .value
            .ok_or_else(|| Failure::poison("empty", "the record has no value, must be an order"))?;
        let order = Order::decode(value, self.default_currency)
            .map_err(|rejection| Failure::poison(rejection.code.as_str(), rejection.message))?;
        let Some(verdict) = self.rules.judge(order.money, order.country) else {
            return Ok(());
        };
        let alert = self.alert(order, verdict);
        self.value.clear();
        alert.encode(&mut self.value);
        outputs.send(ALERTS, alert.order_id.text().as_bytes(), &self.value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use domain::RiskLevel;
    use stream::position::{Offset, Partition, TopicIndex, TopicPartition};
    use stream::record::NoHeaders;

    use super::*;
    use crate::config::FraudSettings;

    #[derive(Default)]
    struct Sent(Vec<(Vec<u8>, Vec<u8>)>);

    impl Outputs for Sent {
        fn send(&mut self, _: OutputTopic, key: &[u8], value: &[u8]) {
            self.0.push((key.to_vec(), value.to_vec()));
        }
    }

    fn screen(value: Option<&str>) -> (Result<(), Failure>, Sent) {
        let rules = FraudSettings::default().rules().expect("rules");
        let mut sent = Sent::default();
        let record = Record {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(0),
            },
            offset: Offset(0),
            record_time_ms: 0,
            key: None,
            value: value.map(str::as_bytes),
            headers: &NoHeaders,
        };
        let result = Screen::new(rules, Currency::USD).handle(&record, &mut sent);
        (result, sent)
    }

    #[test]
    fn a_suspicious_order_raises_the_documented_alert() {
        let order = r#"{"order_id":1,"amount":500000,"country":"NG","vendor":"ABC Construction","timestamp":"2024-01-12T03:15:00Z","x":[1]}"#;
        let (result, sent) = screen(Some(order));
        assert_eq!(result, Ok(()));
        let (key, value) = sent.0.first().expect("one alert");
        assert_eq!(key, b"1");
        let alert = Alert::decode(value).expect("alert");
        assert_eq!(alert.risk_score, 85);
        assert_eq!(alert.risk_level, RiskLevel::Critical);
        assert_eq!(alert.vendor.as_deref(), Some("ABC Construction"));
        assert!(
            alert.alert_id.starts_with("ALERT-1705029300000-"),
            "{}",
            alert.alert_id
        );
        assert_eq!(
            alert.timestamp.map(|time| time.to_string()).as_deref(),
            Some("2024-01-12T03:15:00.000Z")
        );
        let (_, again) = screen(Some(order));
        assert_eq!(sent.0, again.0, "the same order gives the same alert");
    }

    #[test]
    fn an_order_that_is_not_suspicious_raises_nothing() {
        let (result, sent) = screen(Some(r#"{"order_id":1,"amount":249.99,"country":"FR"}"#));
        assert_eq!((result, sent.0.len()), (Ok(()), 0));
    }

    #[test]
    fn what_is_no_order_is_poison_with_the_code_of_its_mistake() {
        for (value, code) in [
            (None, "empty"),
            (Some("{"), "invalid_json"),
            (
                Some(r#"{"order_id":1,"amount":-3.10,"country":"FR"}"#),
                "amount_not_positive",
            ),
        ] {
            let (result, sent) = screen(value);
            assert!(
                matches!(&result, Err(Failure::Poison { code: found, .. }) if found == code),
                "{result:?}"
            );
            assert!(sent.0.is_empty());
        }
    }
}
