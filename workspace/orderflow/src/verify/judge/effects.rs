//! Payments and alerts.

use domain::{Alert, Payment, PaymentStatus, ids};
use stream::Record;

use super::{Check, Count, Example, Judge, Key, Marks, Spot, number, spot_of};
use crate::verify::table::{Effect, Entry, Group};

/// The header of an output that tells the offset of its input.
const SOURCE_OFFSET: &str = "source-offset";

impl Judge {
    /// A record of `payments`.
    pub fn payment(&mut self, record: &Record<'_>) {
        if !self.judges(Group::Payments) {
            return;
        }
        let (spot, place) = (spot_of(record), &self.terms.payments);
        let Some(payment) = record.value.and_then(|value| Payment::decode(value).ok()) else {
            let what = "is no payment";
            self.findings
                .violates(Check::PaymentUnknown, || at(place, spot, None, what));
            return;
        };
        let id = payment.order_id.text();
        let Some(entry) = self.table.get_mut(Key::of(id), spot.partition) else {
            let place = place.clone();
            return self.unknown(Check::PaymentUnknown, &place, record, id);
        };
        if !entry.is_judged() {
            return;
        }
        self.findings.holds(Check::PaymentUnknown);
        let (is_second, count) = match payment.status {
            PaymentStatus::Paid => (!entry.is_first(Effect::Final), Count::Paid),
            PaymentStatus::Declined => (!entry.is_first(Effect::Final), Count::Declined),
            PaymentStatus::Failed => {
                let is_first = entry.is_first(Effect::Failed);
                // A replay that failed again says so once more.
                let is_explained = is_first || entry.has_explained_failure();
                (!is_explained || entry.has(Effect::Final), Count::Failed)
            }
        };
        if payment.status == PaymentStatus::Paid {
            entry.mark(Marks::PAID);
        }
        self.findings.count(count);
        if is_second {
            let what = format!("{} follows another payment", payment.status.as_str());
            self.findings
                .violates(Check::PaymentDoubled, || at(place, spot, Some(id), &what));
        } else {
            self.findings.holds(Check::PaymentDoubled);
        }
        // Where the first occurrence became a dead letter, a later one may have been settled in its place.
        let is_of_later = number(record, SOURCE_OFFSET).is_some_and(|offset| offset > entry.spot().offset);
        if is_of_later && entry.is(Marks::dead_letter_of(Group::Payments)) {
            return;
        }
        let expected_id = ids::payment_id(id);
        if payment.payment_id != expected_id {
            let what = format!(
                "`payment_id` is `{}`, must be `{expected_id}`",
                payment.payment_id
            );
            self.findings
                .violates(Check::PaymentDiffers, || at(place, spot, Some(id), &what));
        } else if payment.money != entry.money() {
            let what = differing("amount", payment.money, entry.money());
            self.findings
                .violates(Check::PaymentDiffers, || at(place, spot, Some(id), &what));
        } else {
            self.findings.holds(Check::PaymentDiffers);
        }
    }

    /// A record of `fraud-alerts`.
    pub fn alert(&mut self, record: &Record<'_>) {
        if !self.judges(Group::Fraud) {
            return;
        }
        let (spot, place) = (spot_of(record), &self.terms.alerts);
        let Some(alert) = record.value.and_then(|value| Alert::decode(value).ok()) else {
            let what = "is no alert";
            self.findings
                .violates(Check::AlertUnknown, || at(place, spot, None, what));
            return;
        };
        let id = alert.order_id.text();
        let Some(entry) = self.table.get_mut(Key::of(id), spot.partition) else {
            let place = place.clone();
            return self.unknown(Check::AlertUnknown, &place, record, id);
        };
        if !entry.is_judged() {
            return;
        }
        self.findings.holds(Check::AlertUnknown);
        self.findings.count(Count::Alerts);
        if entry.is_first(Effect::Alert) {
            self.findings.holds(Check::AlertDoubled);
        } else {
            let what = "follows another alert";
            self.findings
                .violates(Check::AlertDoubled, || at(place, spot, Some(id), what));
        }
        let is_of_later = number(record, SOURCE_OFFSET).is_some_and(|offset| offset > entry.spot().offset);
        if is_of_later && entry.is(Marks::dead_letter_of(Group::Fraud)) {
            return;
        }
        if entry.score == 0 {
            let what = format!(
                "the rules do not hit {} {}",
                entry.money(),
                entry.money().currency
            );
            self.findings
                .violates(Check::AlertUnexpected, || at(place, spot, Some(id), &what));
            return;
        }
        self.findings.holds(Check::AlertUnexpected);
        match difference(&alert, entry) {
            Some(what) => self
                .findings
                .violates(Check::AlertDiffers, || at(place, spot, Some(id), &what)),
            None => self.findings.holds(Check::AlertDiffers),
        }
    }

    /// An output whose order is not there.
    fn unknown(&mut self, check: Check, place: &str, record: &Record<'_>, id: &str) {
        let spot = spot_of(record);
        let source_offset = number(record, SOURCE_OFFSET);
        if self.may_be_unknown(spot.partition, source_offset, record.record_time_ms) {
            self.findings.count(Count::OfDeletedOrders);
            return;
        }
        let what = "there is no such order in this partition";
        self.findings.violates(check, || at(place, spot, Some(id), what));
    }

    /// Whether an order has the payment and the alert that it must have.
    pub(super) fn look_for_effects(&mut self, entry: &Entry) {
        if self.judges(Group::Payments) {
            let excused = entry.is(Marks::LETTER_STANDS) || entry.is(Marks::parked_by(Group::Payments));
            if entry.has(Effect::Final) || excused {
                self.findings.holds(Check::PaymentMissing);
            } else {
                let what = if entry.is(Marks::dead_letter_of(Group::Payments)) {
                    "was replayed, and nothing came of it: neither payment nor another dead letter"
                } else if entry.has(Effect::Failed) {
                    "is FAILED, but no dead letter"
                } else {
                    "has neither payment nor dead letter"
                };
                let example = self.example(entry, what);
                self.findings.violates(Check::PaymentMissing, || example);
            }
        }
        if self.judges(Group::Fraud) && entry.score > 0 {
            let excused =
                entry.is(Marks::dead_letter_of(Group::Fraud)) || entry.is(Marks::parked_by(Group::Fraud));
            if entry.has(Effect::Alert) || excused {
                self.findings.holds(Check::AlertMissing);
            } else {
                let what = format!("has no alert, must have one of score {}", entry.score);
                let example = self.example(entry, &what);
                self.findings.violates(Check::AlertMissing, || example);
            }
        }
    }
}

/// What an alert says of its order that is not so.
fn difference(alert: &Alert<'_>, entry: &Entry) -> Option<String> {
    let expected_id = ids::alert_id(alert.timestamp, alert.order_id.text());
    if alert.alert_id != expected_id {
        return Some(format!(
            "`alertId` is `{}`, must be `{expected_id}`",
            alert.alert_id
        ));
    }
    if alert.money != entry.money() {
        return Some(differing("amount", alert.money, entry.money()));
    }
    (alert.risk_score != entry.score)
        .then(|| format!("`riskScore` is `{}`, must be {}", alert.risk_score, entry.score))
}

fn differing(field: &str, found: domain::Money, wanted: domain::Money) -> String {
    let (in_found, in_wanted) = (found.currency, wanted.currency);
    format!("`{field}` is `{found} {in_found}`, must be {wanted} {in_wanted}")
}

pub(super) fn at(place: &str, spot: Spot, id: Option<&str>, what: &str) -> Example {
    Example {
        place: place.to_owned(),
        spot: Some(spot),
        id: id.map(str::to_owned),
        what: what.to_owned(),
    }
}
