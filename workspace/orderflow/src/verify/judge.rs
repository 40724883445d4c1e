//! The verdict from a stream of facts.
//!
//! Facts come in this order: where topics begin and end ([`Judge::extent`]), orders, what became of dead letters
//! ([`Judge::mark`]), dead letters, records that are parked, payments, alerts; then documents, charges and offsets, in any order; and then [`Judge::verdict`]
//! looks at what is missing. Records of a partition come in the order of their offsets.
//!
//! What an order is, is what the decoder of `domain` takes. Its first occurrence in its partition counts, and
//! a later one is to have no effect: whatever it causes shows as a second payment or alert of the first.
//!
//! Pure: no clock, no I/O. `judge/tests.rs` makes a run that is right, breaks it in each way, and asks for
//! exactly that violation.

mod effects;
mod letters;
mod rest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use domain::{Currency, Order, RESERVED_FIELD};
use fraud::rules::Rules;
use stream::Record;

use super::canonical;
use super::findings::{Check, Count, Example, Findings};
use super::key::Key;
use super::table::{Entry, Group, Marks, Refused, Spot, Table};
use crate::dlq::mark::Marks as LetterMarks;

pub(super) use letters::Letters;
pub(super) use rest::{Charge, Document, Standing};

/// Records with this header are sent to see whether the pipeline lives, and nobody's order.
const PROBE: &str = "orderflow-probe";

/// The record times that are judged; open where there is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

impl Range {
    fn has(self, time_ms: i64) -> bool {
        self.from_ms.is_none_or(|from| time_ms >= from) && !self.ends_before(time_ms)
    }

    /// Whether a time is after the range: what stands there may be about orders that were not read.
    fn ends_before(self, time_ms: i64) -> bool {
        self.to_ms.is_some_and(|to| time_ms > to)
    }
}

/// What the judge has to know beforehand.
pub(super) struct Terms {
    pub rules: Rules,
    pub default_currency: Currency,
    pub range: Range,
    /// The groups whose work is judged.
    pub groups: Vec<Group>,
    /// What the topics are called, for examples.
    pub orders: String,
    pub payments: String,
    pub alerts: String,
    pub most_examples: usize,
}

/// The offsets of a partition that are there: `begin` is one, `end` is none yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub begin: i64,
    pub end: i64,
}

/// Judges.
pub(super) struct Judge {
    terms: Terms,
    findings: Findings,
    table: Table,
    refused: Refused,
    /// What became of the dead letters, by their topics.
    dealt_with: BTreeMap<String, LetterMarks>,
    extents: BTreeMap<(String, i32), Extent>,
    documents: rest::Documents,
    judges_charges: bool,
    hasher: RandomState,
    /// The canonical text at hand; its memory is used again.
    text: Vec<u8>,
}

impl Judge {
    pub fn new(terms: Terms) -> Self {
        let mut findings = Findings::new(terms.most_examples);
        let judged = |group| terms.groups.contains(&group);
        let mut checks = vec![
            Check::DeadLetterMissing,
            Check::DeadLetterUnexplained,
            Check::DeadLetterDoubled,
            Check::NotFinished,
        ];
        if judged(Group::Payments) {
            checks.extend([
                Check::PaymentMissing,
                Check::PaymentDoubled,
                Check::PaymentDiffers,
                Check::PaymentUnknown,
            ]);
        }
        if judged(Group::Fraud) {
            checks.extend([
                Check::AlertMissing,
                Check::AlertDoubled,
                Check::AlertUnexpected,
                Check::AlertDiffers,
                Check::AlertUnknown,
            ]);
        }
        for check in checks {
            findings.judges(check);
        }
        Self {
            terms,
            findings,
            table: Table::default(),
            refused: Refused::default(),
            dealt_with: BTreeMap::new(),
            extents: BTreeMap::new(),
            documents: rest::Documents::default(),
            judges_charges: false,
            hasher: RandomState::new(),
            text: Vec::new(),
        }
    }

    /// Which offsets of a partition are there.
    pub fn extent(&mut self, topic: &str, partition: i32, extent: Extent) {
        self.extents.insert((topic.to_owned(), partition), extent);
    }

    /// A record of `orders`.
    pub fn order(&mut self, record: &Record<'_>) {
        self.findings.count(Count::Records);
        let spot = spot_of(record);
        let probe = record.headers.last(PROBE).is_some();
        let inside = self.terms.range.has(record.record_time_ms);
        let decoded = record
            .value
            .and_then(|value| Order::decode(value, self.terms.default_currency).ok());
        let Some(order) = decoded else {
            if !probe {
                self.findings.count(Count::Refused);
                let bytes = self.short_print(record.value);
                self.refused.add(spot, bytes, inside);
            }
            return;
        };
        let key = Key::of(order.id.text());
        let (content, bytes) = (self.content_print(record.value), self.short_print(record.value));
        if let Some(first) = self.table.get_mut(key, spot.partition) {
            let same = first.bytes == bytes;
            if first.is_judged() {
                self.findings.count(if same {
                    Count::Repeats
                } else {
                    Count::ConflictingRepeats
                });
            }
            return;
        }
        let mut entry = Entry::new(key, spot, order.money);
        entry.content = content;
        entry.bytes = bytes;
        let hit = self.terms.rules.judge(order.money, order.country);
        entry.score = hit.map_or(0, |verdict| verdict.score);
        if probe {
            entry.mark(Marks::PROBE);
            self.findings.count(Count::Probes);
        } else if inside {
            self.findings.count(Count::Orders);
        } else {
            entry.mark(Marks::OUTSIDE);
            self.findings.count(Count::OrdersOutside);
        }
        if self.table.add(entry) {
            self.findings.count(Count::RepeatsAcrossPartitions);
        }
    }

    /// A fingerprint of what an order says, however it is spelled, without our own field.
    fn content_print(&mut self, value: Option<&[u8]>) -> u64 {
        self.text.clear();
        let text = value
            .and_then(|value| std::str::from_utf8(value).ok())
            .unwrap_or_default();
        match canonical::write_object(&mut self.text, text, RESERVED_FIELD) {
            Ok(()) => self.hasher.hash_one(&self.text),
            // The decoder takes no such text.
            Err(_) => 0,
        }
    }

    /// A fingerprint of the bytes of a value.
    fn short_print(&self, value: Option<&[u8]>) -> u32 {
        // The low half of 64 bits is as good as any.
        self.hasher.hash_one(value) as u32
    }

    fn judges(&self, group: Group) -> bool {
        self.terms.groups.contains(&group)
    }

    /// Whether a record of an order that is not there is about one that was deleted, or may come yet.
    fn may_be_unknown(&self, partition: i32, source_offset: Option<i64>, time_ms: i64) -> bool {
        let extent = self.extents.get(&(self.terms.orders.clone(), partition));
        let begin = extent.map_or(0, |extent| extent.begin);
        source_offset.is_some_and(|offset| offset < begin) || self.terms.range.ends_before(time_ms)
    }

    /// What is missing, once everything was told.
    pub fn verdict(mut self) -> Findings {
        let table = std::mem::take(&mut self.table);
        for entry in table.iter() {
            if entry.is_judged() {
                self.look_for_effects(entry);
                self.look_for_the_rest(entry);
            }
        }
        self.look_for_dead_letters();
        self.judge_unknown_documents();
        self.findings
    }

    fn example(&self, entry: &Entry, what: &str) -> Example {
        Example {
            place: self.terms.orders.clone(),
            spot: Some(entry.spot()),
            id: Some(entry.key.to_string()),
            what: what.to_owned(),
        }
    }
}

fn spot_of(record: &Record<'_>) -> Spot {
    Spot {
        partition: record.at.partition.0,
        offset: record.offset.0,
    }
}

/// A number that a header carries as text.
fn number(record: &Record<'_>, header: &str) -> Option<i64> {
    std::str::from_utf8(record.headers.last(header)?)
        .ok()?
        .parse()
        .ok()
}
