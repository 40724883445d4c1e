//! What was judged, what was found, and how it is told: a table for people, one line of JSON for programs.
//!
//! Every check counts what it looked at and what it found wrong, and keeps a few examples. A check that had
//! nothing to look with, as that of documents without a store, says that it did not judge. Bounded: the
//! examples per check, and the text of each.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::table::Spot;

/// Something that has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Check {
    PaymentMissing,
    PaymentDoubled,
    PaymentDiffers,
    PaymentUnknown,
    AlertMissing,
    AlertDoubled,
    AlertUnexpected,
    AlertDiffers,
    AlertUnknown,
    DocumentMissing,
    DocumentDiffers,
    DocumentUnknown,
    DeadLetterMissing,
    DeadLetterUnexplained,
    DeadLetterDoubled,
    NotFinished,
    OffsetBehind,
    TransactionOpen,
    InputMoved,
    ChargedTwice,
    ChargeMissing,
    ChargeUnpaid,
}

impl Check {
    pub const ALL: [Self; 22] = [
        Self::PaymentMissing,
        Self::PaymentDoubled,
        Self::PaymentDiffers,
        Self::PaymentUnknown,
        Self::AlertMissing,
        Self::AlertDoubled,
        Self::AlertUnexpected,
        Self::AlertDiffers,
        Self::AlertUnknown,
        Self::DocumentMissing,
        Self::DocumentDiffers,
        Self::DocumentUnknown,
        Self::DeadLetterMissing,
        Self::DeadLetterUnexplained,
        Self::DeadLetterDoubled,
        Self::NotFinished,
        Self::OffsetBehind,
        Self::TransactionOpen,
        Self::InputMoved,
        Self::ChargedTwice,
        Self::ChargeMissing,
        Self::ChargeUnpaid,
    ];

    /// Its name for programs: that of the violation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PaymentMissing => "payment_missing",
            Self::PaymentDoubled => "payment_doubled",
            Self::PaymentDiffers => "payment_differs",
            Self::PaymentUnknown => "payment_unknown",
            Self::AlertMissing => "alert_missing",
            Self::AlertDoubled => "alert_doubled",
            Self::AlertUnexpected => "alert_unexpected",
            Self::AlertDiffers => "alert_differs",
            Self::AlertUnknown => "alert_unknown",
            Self::DocumentMissing => "document_missing",
            Self::DocumentDiffers => "document_differs",
            Self::DocumentUnknown => "document_unknown",
            Self::DeadLetterMissing => "dead_letter_missing",
            Self::DeadLetterUnexplained => "dead_letter_unexplained",
            Self::DeadLetterDoubled => "dead_letter_doubled",
            Self::NotFinished => "not_finished",
            Self::OffsetBehind => "offset_behind",
            Self::TransactionOpen => "transaction_open",
            Self::InputMoved => "input_moved",
            Self::ChargedTwice => "charged_twice",
            Self::ChargeMissing => "charge_missing",
            Self::ChargeUnpaid => "charge_unpaid",
        }
    }

    /// What has to hold, for people.
    const fn sentence(self) -> &'static str {
        match self {
            Self::PaymentMissing => "every order has a final payment, or is a dead letter",
            Self::PaymentDoubled => "no order has a second final payment",
            Self::PaymentDiffers => "payments equal their orders",
            Self::PaymentUnknown => "every payment has its order",
            Self::AlertMissing => "every order that the rules hit has an alert",
            Self::AlertDoubled => "no order has a second alert",
            Self::AlertUnexpected => "no other order has an alert",
            Self::AlertDiffers => "alerts equal their orders",
            Self::AlertUnknown => "every alert has its order",
            Self::DocumentMissing => "every order has a document",
            Self::DocumentDiffers => "documents equal their orders",
            Self::DocumentUnknown => "every document has its order",
            Self::DeadLetterMissing => "what is no order is a dead letter of every group",
            Self::DeadLetterUnexplained => "every dead letter is explained",
            Self::DeadLetterDoubled => "no record is a dead letter twice",
            Self::NotFinished => "nothing waits in a retry topic",
            Self::OffsetBehind => "every group is at the end of its inputs",
            Self::TransactionOpen => "no transaction is open",
            Self::InputMoved => "no order came while it was judged",
            Self::ChargedTwice => "no order was charged twice",
            Self::ChargeMissing => "every paid order was charged",
            Self::ChargeUnpaid => "no declined order was charged",
        }
    }
}

/// One violation, for whoever has to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Example {
    /// The topic, or what else the place is in.
    pub place: String,
    pub spot: Option<Spot>,
    pub id: Option<String>,
    pub what: String,
}

impl fmt::Display for Example {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.place)?;
        if let Some(spot) = self.spot {
            write!(out, " {spot}")?;
        }
        if let Some(id) = &self.id {
            write!(out, "  order {id}")?;
        }
        write!(out, "  {}", self.what)
    }
}

#[derive(Debug, Default)]
struct Tally {
    judged: u64,
    violated: u64,
    examples: Vec<Example>,
}

/// What is counted beside the checks, and fails nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Count {
    Records,
    Orders,
    OrdersOutside,
    Probes,
    Refused,
    Repeats,
    ConflictingRepeats,
    RepeatsAcrossPartitions,
    Paid,
    Declined,
    Failed,
    Alerts,
    DeadLetters,
    LettersReplayed,
    LettersDiscarded,
    Documents,
    EarlierDocuments,
    Charges,
    OfDeletedOrders,
}

impl Count {
    const ALL: [(Self, &'static str); 19] = [
        (Self::Records, "records"),
        (Self::Orders, "orders"),
        (Self::OrdersOutside, "orders_outside"),
        (Self::Probes, "probes"),
        (Self::Refused, "refused"),
        (Self::Repeats, "repeats"),
        (Self::ConflictingRepeats, "conflicting_repeats"),
        (Self::RepeatsAcrossPartitions, "repeats_across_partitions"),
        (Self::Paid, "paid"),
        (Self::Declined, "declined"),
        (Self::Failed, "failed"),
        (Self::Alerts, "alerts"),
        (Self::DeadLetters, "dead_letters"),
        (Self::LettersReplayed, "dead_letters_replayed"),
        (Self::LettersDiscarded, "dead_letters_discarded"),
        (Self::Documents, "documents"),
        (Self::EarlierDocuments, "documents_of_earlier_topics"),
        (Self::Charges, "charges"),
        (Self::OfDeletedOrders, "of_deleted_orders"),
    ];
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Findings {
    most_examples: usize,
    tallies: BTreeMap<Check, Tally>,
    counts: BTreeMap<Count, u64>,
}

impl Findings {
    pub const fn new(most_examples: usize) -> Self {
        Self {
            most_examples,
            tallies: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub fn count(&mut self, count: Count) {
        *self.counts.entry(count).or_default() += 1;
    }

    pub fn counted(&self, count: Count) -> u64 {
        self.counts.get(&count).copied().unwrap_or(0)
    }

    /// The check looked at something, and it was right.
    pub fn holds(&mut self, check: Check) {
        self.tallies.entry(check).or_default().judged += 1;
    }

    /// The check is one that judges, whether or not there is anything to look at.
    pub fn judges(&mut self, check: Check) {
        self.tallies.entry(check).or_default();
    }

    /// The check looked at something, and it was wrong.
    pub fn violates(&mut self, check: Check, example: impl FnOnce() -> Example) {
        let most = self.most_examples;
        let tally = self.tallies.entry(check).or_default();
        tally.judged += 1;
        tally.violated += 1;
        if tally.examples.len() < most {
            tally.examples.push(example());
        }
    }

    pub fn violations(&self) -> u64 {
        self.tallies.values().map(|tally| tally.violated).sum()
    }

    /// The checks that are violated, with how often.
    pub fn violated(&self) -> impl Iterator<Item = (Check, u64)> {
        let tallies = self.tallies.iter();
        tallies
            .filter(|(_, tally)| tally.violated > 0)
            .map(|(check, tally)| (*check, tally.violated))
    }

    /// One line of JSON.
    pub fn to_json(&self) -> Value {
        let checks: serde_json::Map<String, Value> = Check::ALL
            .into_iter()
            .filter_map(|check| {
                let tally = self.tallies.get(&check)?;
                let told: Vec<Value> = tally.examples.iter().map(example_json).collect();
                let tally = json!({"judged": tally.judged, "violated": tally.violated, "examples": told});
                Some((check.name().to_owned(), tally))
            })
            .collect();
        let not_judged: Vec<&str> = Check::ALL
            .into_iter()
            .filter(|check| !self.tallies.contains_key(check))
            .map(Check::name)
            .collect();
        let counts: serde_json::Map<String, Value> = Count::ALL
            .into_iter()
            .map(|(count, name)| (name.to_owned(), json!(self.counted(count))))
            .collect();
        json!({
            "verdict": if self.violations() == 0 { "held" } else { "violated" },
            "violations": self.violations(),
            "checks": checks,
            "not_judged": not_judged,
            "counts": counts,
        })
    }
}

fn example_json(example: &Example) -> Value {
    json!({
        "place": example.place,
        "partition": example.spot.map(|spot| spot.partition),
        "offset": example.spot.map(|spot| spot.offset),
        "id": example.id,
        "what": example.what,
    })
}

impl fmt::Display for Findings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<10}{:<54}{:>12}{:>12}", "", "check", "judged", "violated")?;
        for check in Check::ALL {
            let Some(tally) = self.tallies.get(&check) else {
                writeln!(out, "{:<10}{:<54}{:>12}", "-", check.sentence(), "not judged")?;
                continue;
            };
            let state = if tally.violated == 0 { "ok" } else { "VIOLATED" };
            writeln!(
                out,
                "{state:<10}{:<54}{:>12}{:>12}",
                check.sentence(),
                tally.judged,
                tally.violated
            )?;
            for example in &tally.examples {
                writeln!(out, "{:<12}{example}", "")?;
            }
            let more = tally.violated - tally.examples.len() as u64;
            if more > 0 && !tally.examples.is_empty() {
                writeln!(out, "{:<12}and {more} more", "")?;
            }
        }
        let counts = Count::ALL
            .into_iter()
            .filter(|(count, _)| self.counted(*count) > 0);
        for (count, name) in counts {
            writeln!(
                out,
                "{:<10}{:<54}{:>12}",
                "",
                name.replace('_', " "),
                self.counted(count)
            )?;
        }
        match self.violations() {
            0 => write!(out, "all held"),
            violations => write!(out, "{violations} violations"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_examples_are_kept_and_all_violations_counted() {
        let mut findings = Findings::new(2);
        for offset in 0..5 {
            findings.violates(Check::PaymentMissing, || Example {
                place: "orders".to_owned(),
                spot: Some(Spot { partition: 1, offset }),
                id: Some("7".to_owned()),
                what: "no payment".to_owned(),
            });
        }
        findings.holds(Check::AlertMissing);
        let table = findings.to_string();
        assert!(table.contains("orders 1@1  order 7  no payment"), "{table}");
        assert!(!table.contains("1@2") && table.contains("and 3 more"), "{table}");
        assert!(table.ends_with("5 violations"), "{table}");
        let line = findings.to_json();
        assert_eq!(line["checks"]["payment_missing"]["violated"], json!(5));
        assert_eq!(
            line["checks"]["payment_missing"]["examples"][1]["offset"],
            json!(1)
        );
        assert_eq!(line["checks"]["alert_missing"]["judged"], json!(1));
        assert_eq!(line["verdict"], json!("violated"));
        assert!(
            line["not_judged"]
                .as_array()
                .expect("list")
                .contains(&json!("charged_twice"))
        );
    }

    #[test]
    fn every_check_and_count_is_told() {
        let mut names: Vec<_> = Check::ALL.into_iter().map(Check::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Check::ALL.len());
        assert_eq!(Findings::new(1).to_json()["verdict"], json!("held"));
    }
}
