//! What was asked and charged, by key. Pure.

use std::collections::BTreeMap;

use serde_json::json;

/// How a charge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The money is taken.
    Paid,
    /// The gateway said no.
    Declined,
}

impl Outcome {
    /// The text in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "PAID",
            Self::Declined => "DECLINED",
        }
    }
}

/// One key of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The idempotency key.
    pub key: String,
    /// The order that came with it first.
    pub order_id: String,
    /// Its amount, as the request wrote it.
    pub amount: String,
    /// How often a charge was asked for.
    pub asked: u32,
    /// How often the money was taken; never for an order that is declined.
    pub charged: u32,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
}

impl Charged {
    /// The line of the list.
    pub fn to_json(&self) -> String {
        json!({
            "key": self.key,
            "order_id": self.order_id,
            "amount": self.amount,
            "asked": self.asked,
            "charged": self.charged,
            "status": self.outcome.map(Outcome::as_str),
        })
        .to_string()
    }
}

/// The orders that were charged more than once, under one key or under several.
pub fn charged_twice(ledger: &[Charged]) -> Vec<String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for charged in ledger {
        *counts.entry(&charged.order_id).or_default() += charged.charged;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(order_id, _)| order_id.to_owned())
        .collect()
}

/// What somebody who asks under a key has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing: it has ended so.
    Ended(Outcome),
    /// Somebody else is at work on it.
    InProgress,
    /// Charge.
    Yours,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<String, Entry>,
    /// Lookups by key, of which some may have never been charged.
    lookups: BTreeMap<String, u32>,
}

#[derive(Debug)]
struct Entry {
    charged: Charged,
    in_progress: bool,
    key_is_known: bool,
}

impl Ledger {
    /// Writes down that a charge was asked for, and says how often that was, with this time.
    pub fn ask(&mut self, key: &str, order_id: &str, amount: &str) -> u32 {
        let entry = self.entries.entry(key.to_owned()).or_insert_with(|| Entry {
            charged: Charged {
                key: key.to_owned(),
                order_id: order_id.to_owned(),
                amount: amount.to_owned(),
                asked: 0,
                charged: 0,
                outcome: None,
            },
            in_progress: false,
            key_is_known: true,
        });
        entry.charged.asked += 1;
        entry.charged.asked
    }

    /// Writes down a lookup, and says how often that was, with this time.
    pub fn look(&mut self, key: &str) -> u32 {
        let count = self.lookups.entry(key.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Whose turn it is to charge a key that was asked for.
    pub fn begin(&mut self, key: &str) -> Turn {
        let Some(entry) = self.entries.get_mut(key) else {
            return Turn::Yours;
        };
        match entry.charged.outcome {
            _ if entry.in_progress => Turn::InProgress,
            Some(outcome) if entry.key_is_known => Turn::Ended(outcome),
            _ => {
                entry.in_progress = true;
                entry.key_is_known = true;
                Turn::Yours
            }
        }
    }

    /// The charge is done.
    pub fn end(&mut self, key: &str, outcome: Outcome) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.in_progress = false;
            entry.charged.charged += u32::from(outcome == Outcome::Paid);
            entry.charged.outcome = Some(outcome);
        }
    }

    pub fn outcome(&self, key: &str) -> Option<Outcome> {
        self.entries.get(key)?.charged.outcome
    }

    pub fn forget_keys(&mut self) {
        for entry in self.entries.values_mut() {
            entry.key_is_known = false;
        }
    }

    pub fn list(&self) -> Vec<Charged> {
        self.entries.values().map(|entry| entry.charged.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_charges_once_until_it_is_forgotten() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.ask("k", "1", "2.50"), 1);
        assert_eq!(ledger.begin("k"), Turn::Yours);
        assert_eq!(ledger.ask("k", "1", "2.50"), 2);
        assert_eq!(ledger.begin("k"), Turn::InProgress);
        assert_eq!(ledger.outcome("k"), None);
        ledger.end("k", Outcome::Paid);
        assert_eq!(ledger.begin("k"), Turn::Ended(Outcome::Paid));
        assert_eq!(charged_twice(&ledger.list()), [""; 0]);
        ledger.forget_keys();
        assert_eq!(
            ledger.outcome("k"),
            Some(Outcome::Paid),
            "payments are remembered"
        );
        assert_eq!(ledger.begin("k"), Turn::Yours);
        ledger.end("k", Outcome::Paid);
        assert_eq!(charged_twice(&ledger.list()), ["1"]);
        assert_eq!(
            ledger.list()[0].to_json(),
            r#"{"amount":"2.50","asked":2,"charged":2,"key":"k","order_id":"1","status":"PAID"}"#
        );
    }

    #[test]
    fn an_order_that_is_charged_under_two_keys_is_charged_twice() {
        let mut ledger = Ledger::default();
        for key in ["a", "b"] {
            ledger.ask(key, "1", "1");
            ledger.begin(key);
            ledger.end(key, Outcome::Paid);
        }
        assert_eq!(charged_twice(&ledger.list()), ["1"]);
    }
}
