//! Dead letters, and records that wait in retry topics.

use domain::Order;
use stream::Record;
use stream::replay::REPLAYED_AT;
use stream::settings::retry_topic_prefix;

use super::effects::at;
use super::{Check, Count, Judge, Key, Marks, Spot, number, spot_of};
use crate::dlq::State;
use crate::dlq::mark::is_mark;
use crate::verify::table::{Group, Refusal};

const TOPIC: &str = "dlq-topic";
const PARTITION: &str = "dlq-partition";
const OFFSET: &str = "dlq-offset";
const TIMESTAMP: &str = "dlq-timestamp";
const GROUP: &str = "dlq-group";
const CODE: &str = "dlq-error-code";
/// What every dead letter carries.
const HEADERS: [&str; 9] = [
    TOPIC,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    GROUP,
    CODE,
    "dlq-error",
    "dlq-attempts",
    "dlq-service-version",
];
/// The code of a repeat with other content.
const CONFLICT: &str = "conflicting_repeat";

/// Whose dead letters these are.
#[derive(Clone, Debug)]
pub(in crate::verify) struct Letters {
    /// The topic that they stand in.
    pub topic: String,
    /// The topic that the group read.
    pub source: String,
    pub group: Group,
    /// What the group is called.
    pub group_name: String,
}

/// What a dead letter turned out to be.
enum Explained {
    /// It is what it says.
    Yes,
    /// It is of a record that was deleted since, or is not to be judged.
    OutOfSight,
    /// The same record is a dead letter of the group already.
    Again,
    No(String),
}

impl Judge {
    /// What became of dead letters: all of these marks come before any of the letters.
    pub fn mark(&mut self, letters: &Letters, record: &Record<'_>) {
        if is_mark(record) {
            let marks = self.dealt_with.entry(letters.topic.clone()).or_default();
            marks.take(record);
        }
    }

    /// What became of a dead letter.
    fn state(&self, letters: &Letters, spot: Spot) -> State {
        let marks = self.dealt_with.get(&letters.topic);
        marks.map_or(State::Open, |marks| marks.state(spot.partition, spot.offset))
    }

    /// A dead letter.
    pub fn dead_letter(&mut self, letters: &Letters, record: &Record<'_>) {
        if is_mark(record) {
            return;
        }
        self.findings.count(Count::DeadLetters);
        match self.state(letters, spot_of(record)) {
            State::Open => {}
            State::Replayed => self.findings.count(Count::LettersReplayed),
            State::Discarded => self.findings.count(Count::LettersDiscarded),
        }
        let spot = spot_of(record);
        let id = self.id_of(record);
        let explained = match origin(letters, record) {
            Err(what) => Explained::No(what),
            Ok((topic, origin)) if topic == self.terms.orders => self.of_order(letters, record, origin),
            Ok((topic, origin)) => self.of_another(&topic, record, origin),
        };
        let example = |what: &str| at(&letters.topic, spot, id.as_deref(), what);
        match explained {
            Explained::OutOfSight => self.findings.count(Count::OfDeletedOrders),
            Explained::Yes => {
                self.findings.holds(Check::DeadLetterUnexplained);
                self.findings.holds(Check::DeadLetterDoubled);
            }
            Explained::No(what) => self
                .findings
                .violates(Check::DeadLetterUnexplained, || example(&what)),
            Explained::Again => {
                self.findings.holds(Check::DeadLetterUnexplained);
                let what = "is a dead letter of the group already";
                self.findings.violates(Check::DeadLetterDoubled, || example(what));
            }
        }
    }

    /// A record of a retry topic that its group has not taken up.
    pub fn parked(&mut self, topic: &str, group: Group, record: &Record<'_>) {
        let id = self.id_of(record);
        let spot = spot_of(record);
        if let Some(id) = &id
            && let Some(entry) = self.table.get_mut(Key::of(id), spot.partition)
        {
            entry.mark(Marks::parked_by(group));
            if !entry.is_judged() {
                return;
            }
        }
        let example = at(topic, spot, id.as_deref(), "waits for its next attempt");
        self.findings.violates(Check::NotFinished, || example);
    }

    /// The id of the order that a record is, if it is one.
    fn id_of(&self, record: &Record<'_>) -> Option<String> {
        let order = Order::decode(record.value?, self.terms.default_currency).ok()?;
        Some(order.id.text().to_owned())
    }

    /// A dead letter of a record of `orders`.
    fn of_order(&mut self, letters: &Letters, record: &Record<'_>, origin: Spot) -> Explained {
        let bytes = self.short_print(record.value);
        let time_ms = number(record, TIMESTAMP).unwrap_or(record.record_time_ms);
        let extent = self.extents.get(&(self.terms.orders.clone(), origin.partition));
        let end = extent.map_or(0, |extent| extent.end);
        let may_be_unknown = self.may_be_unknown(origin.partition, Some(origin.offset), time_ms);
        let nowhere = || {
            Explained::No(format!(
                "there is no such record at {origin} of `{}`",
                letters.source
            ))
        };
        // It was tried once more, and failed again.
        let is_of_replay = record.headers.last(REPLAYED_AT).is_some();
        // At least once is what a sink promises for its dead letters.
        let may_repeat = letters.group == Group::Analytics || is_of_replay;
        // One that was replayed stands for nothing any more: something has to have come of it.
        let stands = self.state(letters, spot_of(record)) != State::Replayed;
        let Some(id) = self.id_of(record) else {
            return match self.refused.get_mut(origin) {
                Some(refusal) => of_refused(refusal, letters.group, bytes, may_repeat, stands),
                None if may_be_unknown => Explained::OutOfSight,
                None => nowhere(),
            };
        };
        let Some(entry) = self.table.get_mut(Key::of(&id), origin.partition) else {
            return if may_be_unknown {
                Explained::OutOfSight
            } else {
                nowhere()
            };
        };
        let mark = Marks::dead_letter_of(letters.group);
        let had = entry.is(mark);
        if origin.offset == entry.spot().offset {
            if entry.bytes != bytes {
                return Explained::No(format!("its bytes are not those of {origin}"));
            }
            entry.mark(mark);
            if letters.group == Group::Payments && stands {
                entry.mark(Marks::LETTER_STANDS);
            }
            if letters.group == Group::Payments && is_of_replay {
                entry.explain_failure();
            }
            return match entry.is_judged() {
                false => Explained::OutOfSight,
                true if had && !may_repeat => Explained::Again,
                true => Explained::Yes,
            };
        }
        let is_there = (entry.spot().offset..end).contains(&origin.offset);
        if !entry.is_judged() || !is_there && may_be_unknown {
            return Explained::OutOfSight;
        }
        if !is_there {
            return nowhere();
        }
        // What it repeats may itself have failed, and then another occurrence stood for it.
        if code(record) == Some(CONFLICT) && entry.bytes == bytes && !had {
            return Explained::No(format!(
                "it says what the first occurrence at {} says",
                entry.spot()
            ));
        }
        Explained::Yes
    }

    /// A dead letter of a payment or an alert, or of something that stood in a retry topic by itself.
    fn of_another(&self, topic: &str, record: &Record<'_>, origin: Spot) -> Explained {
        let time_ms = number(record, TIMESTAMP).unwrap_or(record.record_time_ms);
        if self.terms.range.ends_before(time_ms) {
            return Explained::OutOfSight;
        }
        match self.extents.get(&(topic.to_owned(), origin.partition)) {
            Some(extent) if origin.offset < extent.begin => Explained::OutOfSight,
            Some(extent) if origin.offset < extent.end => Explained::Yes,
            _ => Explained::No(format!("there is no such record at {origin} of `{topic}`")),
        }
    }

    /// Whether every record that is no order is a dead letter of every group that reads it.
    pub(super) fn look_for_dead_letters(&mut self) {
        let groups = self.terms.groups.clone();
        for (spot, refusal) in self.refused.iter().filter(|(_, refusal)| refusal.judged) {
            for group in &groups {
                if refusal.standing & group.bit() != 0 {
                    self.findings.holds(Check::DeadLetterMissing);
                    continue;
                }
                let what = if refusal.letters & group.bit() == 0 {
                    format!("is no order, and no dead letter of {}", group.worker())
                } else {
                    let worker = group.worker();
                    format!("is no order, was replayed, and {worker} made no other dead letter of it")
                };
                let place = &self.terms.orders;
                self.findings
                    .violates(Check::DeadLetterMissing, || at(place, spot, None, &what));
            }
        }
    }
}

fn of_refused(refusal: &mut Refusal, group: Group, bytes: u32, may_repeat: bool, stands: bool) -> Explained {
    if refusal.bytes != bytes {
        return Explained::No("its bytes are not those of the record that it names".to_owned());
    }
    let had = refusal.letters & group.bit() != 0;
    refusal.letters |= group.bit();
    refusal.standing |= if stands { group.bit() } else { 0 };
    match refusal.judged {
        false => Explained::OutOfSight,
        true if had && !may_repeat => Explained::Again,
        true => Explained::Yes,
    }
}

/// Where a dead letter says that it comes from, once its headers are found complete.
fn origin(letters: &Letters, record: &Record<'_>) -> Result<(String, Spot), String> {
    let missing = HEADERS
        .into_iter()
        .find(|name| record.headers.last(name).is_none_or(<[u8]>::is_empty));
    if let Some(name) = missing {
        return Err(format!("the header `{name}` is missing or empty"));
    }
    let text = |name: &str| {
        record
            .headers
            .last(name)
            .map(String::from_utf8_lossy)
            .unwrap_or_default()
    };
    let (topic, group) = (text(TOPIC), text(GROUP));
    let retries = retry_topic_prefix(&letters.source, &letters.group_name);
    for (name, found, wanted, fits) in [
        (GROUP, &group, &letters.group_name, group == letters.group_name),
        (
            TOPIC,
            &topic,
            &letters.source,
            topic == letters.source || topic.starts_with(&retries),
        ),
    ] {
        if !fits {
            return Err(format!("`{name}` is `{found}`, must be `{wanted}`"));
        }
    }
    let partition = number(record, PARTITION).and_then(|partition| i32::try_from(partition).ok());
    match (partition, number(record, OFFSET)) {
        (Some(partition), Some(offset)) => Ok((topic.into_owned(), Spot { partition, offset })),
        _ => Err(format!("`{PARTITION}` or `{OFFSET}` is no number")),
    }
}

fn code<'a>(record: &'a Record<'_>) -> Option<&'a str> {
    std::str::from_utf8(record.headers.last(CODE)?).ok()
}
