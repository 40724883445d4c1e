//! Documents, charges and offsets.

use std::collections::BTreeMap;

use domain::{RESERVED_FIELD, ids};

use super::{Check, Count, Example, Judge, Key, Marks, canonical};
use crate::verify::table::{Effect, Entry, Group};

/// An order's document in the store.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Document<'a> {
    pub key: &'a str,
    pub body: &'a str,
    /// Which incarnation of the topics it is of.
    pub generation: i64,
}

/// What a gateway charged.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Charge<'a> {
    /// The idempotency key.
    pub key: &'a str,
    pub order_id: &'a str,
    pub times: u64,
}

/// Where a group stands in a partition of its input.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Standing<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub partition: i32,
    pub committed: Option<i64>,
    pub begin: i64,
    /// Behind the last record that can be read.
    pub end: i64,
    /// Its offset is part of a transaction that is open.
    pub unstable: bool,
}

impl Standing<'_> {
    /// Records that the group has not finished; below 0 where it says to have finished more than there is.
    pub fn lag(&self) -> i64 {
        let from = self.committed.map_or(self.begin, |next| next.max(self.begin));
        self.end - from
    }
}

/// Documents that have no order, by generation.
#[derive(Default)]
pub(super) struct Documents {
    newest: Option<i64>,
    unknown: BTreeMap<i64, Unknown>,
}

#[derive(Default)]
struct Unknown {
    count: u64,
    some: Vec<String>,
}

impl Judge {
    /// There is a store: documents are judged.
    pub fn has_store(&mut self) {
        for check in [
            Check::DocumentMissing,
            Check::DocumentDiffers,
            Check::DocumentUnknown,
        ] {
            self.findings.judges(check);
        }
        self.documents.newest = Some(i64::MIN);
    }

    /// A document of an order.
    pub fn document(&mut self, document: Document<'_>) {
        self.documents.newest = self.documents.newest.max(Some(document.generation));
        let key = Key::of(document.key);
        let Some(entry) = self.table.find_mut(key, |_| true) else {
            let unknown = self.documents.unknown.entry(document.generation).or_default();
            unknown.count += 1;
            if unknown.some.len() < self.terms.most_examples {
                unknown.some.push(document.key.to_owned());
            }
            return;
        };
        let is_judged = entry.is_judged();
        self.text.clear();
        let written = canonical::write_object(&mut self.text, document.body, RESERVED_FIELD);
        let content = written
            .is_ok()
            .then(|| std::hash::BuildHasher::hash_one(&self.hasher, &self.text));
        // Of an id that stands in two partitions, whichever came first to the store stands there.
        let equal = content.is_some_and(|content| {
            self.table
                .find_mut(key, |entry| entry.content == content)
                .is_some()
        });
        while let Some(entry) = self.table.find_mut(key, |entry| !entry.is(Marks::DOCUMENT)) {
            entry.mark(Marks::DOCUMENT);
        }
        if !is_judged {
            return;
        }
        self.findings.count(Count::Documents);
        if equal {
            self.findings.holds(Check::DocumentDiffers);
        } else {
            let what = "says something else than the first occurrence of the order";
            self.findings
                .violates(Check::DocumentDiffers, || in_store(document.key, what));
        }
    }

    /// Documents without an order; those of an earlier incarnation of the topics do no harm.
    pub(super) fn judge_unknown_documents(&mut self) {
        let Some(newest) = self.documents.newest else {
            return;
        };
        let ends = self.terms.range.to_ms.is_some();
        for (generation, unknown) in std::mem::take(&mut self.documents.unknown) {
            let mut some = unknown.some.into_iter();
            for _ in 0..unknown.count {
                let id = some.next();
                // Before the end of time more orders may have come since.
                if generation < newest || ends {
                    self.findings.count(Count::EarlierDocuments);
                    continue;
                }
                let what = "there is no such order";
                self.findings.violates(Check::DocumentUnknown, || {
                    in_store(id.as_deref().unwrap_or_default(), what)
                });
            }
        }
    }

    /// The gateway can tell what it charged: charges are judged.
    pub fn has_charges(&mut self) {
        for check in [Check::ChargedTwice, Check::ChargeMissing, Check::ChargeUnpaid] {
            self.findings.judges(check);
        }
        self.judges_charges = true;
    }

    /// A charge of the gateway.
    pub fn charge(&mut self, charge: Charge<'_>) {
        let key = Key::of(charge.order_id);
        let Some(entry) = self.table.find_mut(key, |_| true) else {
            return;
        };
        if !entry.is_judged() {
            return;
        }
        self.findings.count(Count::Charges);
        let again = entry.is(Marks::CHARGED);
        if charge.times > 0 {
            while let Some(entry) = self.table.find_mut(key, |entry| !entry.is(Marks::CHARGED)) {
                entry.mark(Marks::CHARGED);
            }
        }
        let what = if charge.times > 1 || again {
            format!("charged {} times", charge.times.max(2))
        } else if charge.key != ids::payment_id(charge.order_id) {
            format!("charged under the key `{}`", charge.key)
        } else {
            self.findings.holds(Check::ChargedTwice);
            return;
        };
        self.findings.violates(Check::ChargedTwice, || Example {
            place: "gateway".to_owned(),
            spot: None,
            id: Some(charge.order_id.to_owned()),
            what,
        });
    }

    /// Whether an order has the document and the charge that it must have.
    pub(super) fn look_for_the_rest(&mut self, entry: &Entry) {
        if self.documents.newest.is_some() {
            let excused = entry.is(Marks::dead_letter_of(Group::Analytics))
                || entry.is(Marks::parked_by(Group::Analytics));
            if entry.is(Marks::DOCUMENT) || excused {
                self.findings.holds(Check::DocumentMissing);
            } else {
                let example = self.example(entry, "has neither document nor dead letter");
                self.findings.violates(Check::DocumentMissing, || example);
            }
        }
        if !self.judges_charges {
            return;
        }
        let (paid, charged) = (entry.is(Marks::PAID), entry.is(Marks::CHARGED));
        if paid && charged {
            self.findings.holds(Check::ChargeMissing);
        } else if paid {
            let example = self.example(entry, "is PAID, and the gateway has no charge of it");
            self.findings.violates(Check::ChargeMissing, || example);
        } else if entry.has(Effect::Final) && charged {
            let example = self.example(entry, "is DECLINED, and the gateway charged it");
            self.findings.violates(Check::ChargeUnpaid, || example);
        }
    }

    /// Where a group stands.
    pub fn standing(&mut self, standing: &Standing<'_>) {
        let Standing { topic, partition, .. } = *standing;
        let example = |what: String| Example {
            place: format!("{topic}[{partition}]"),
            spot: None,
            id: None,
            what,
        };
        let group = standing.group;
        if standing.unstable {
            self.findings.violates(Check::TransactionOpen, || {
                example(format!("an open transaction holds the offset of `{group}`"))
            });
        } else {
            self.findings.holds(Check::TransactionOpen);
        }
        if standing.lag() == 0 {
            self.findings.holds(Check::OffsetBehind);
            return;
        }
        self.findings.violates(Check::OffsetBehind, || {
            let committed = standing
                .committed
                .map_or_else(|| "nothing".to_owned(), |next| next.to_string());
            let end = standing.end;
            example(format!(
                "`{group}` has committed {committed}, and the end is {end}"
            ))
        });
    }

    /// How far a partition can be read, and how far it goes.
    pub fn ends(&mut self, topic: &str, partition: i32, last_stable: i64, end: i64) {
        if last_stable == end {
            self.findings.holds(Check::TransactionOpen);
            return;
        }
        self.findings.violates(Check::TransactionOpen, || Example {
            place: format!("{topic}[{partition}]"),
            spot: None,
            id: None,
            what: format!("a transaction is open at offset {last_stable}, and the end is {end}"),
        });
    }

    /// Where a partition of `orders` ends now, after it was read.
    pub fn input(&mut self, topic: &str, partition: i32, now: i64) {
        let extent = self.extents.get(&(topic.to_owned(), partition));
        let end = extent.map_or(0, |extent| extent.end);
        if end == now {
            self.findings.holds(Check::InputMoved);
            return;
        }
        self.findings.violates(Check::InputMoved, || Example {
            place: format!("{topic}[{partition}]"),
            spot: None,
            id: None,
            what: format!(
                "went from offset {end} to {now}; judge when nothing comes, or a range with `--to`"
            ),
        });
    }
}

fn in_store(id: &str, what: &str) -> Example {
    Example {
        place: "store".to_owned(),
        spot: None,
        id: Some(id.to_owned()),
        what: what.to_owned(),
    }
}
