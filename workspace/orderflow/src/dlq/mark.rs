//! What became of dead letters, as it stands among them.
//!
//! Kafka can not take a record out of the middle of a topic. So whoever deals with dead letters appends a
//! *mark* to their partition, which says what was done with which offsets. A mark stands behind its letters,
//! so retention takes it after them and never before: what was replayed stays known for as long as it could
//! be replayed again ([decision 6](../../../../docs/decisions/0006-marks-stand-among-the-dead-letters.md)).
//!
//! A mark is a record with the header `dlq-mark` and without `dlq-topic`, which every dead letter has: an
//! order that came with such a header is none.
//!
//! Memory: some 40 bytes for each letter that was dealt with and is still there, and 200 for each mark.
//!
//! Pure.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use domain::EventTime;
use serde::{Deserialize, Serialize};
use stream::Record;

/// Tells a mark from a dead letter; its value is that of [`State::as_str`].
const HEADER: &str = "dlq-mark";
/// What every dead letter has, and no mark.
const OF_LETTERS: &str = "dlq-topic";

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing yet.
    Open,
    /// It was given to its group once more.
    Replayed,
    /// Somebody decided that nothing is to become of it.
    Discarded,
}

impl State {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// Who did something to dead letters, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Act {
    pub state: State,
    pub by: String,
    /// Milliseconds since the epoch.
    pub at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for Act {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} by {} at {}",
            self.state.as_str(),
            self.by,
            EventTime(self.at)
        )?;
        match &self.reason {
            Some(reason) => write!(out, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// Name and content.
type Header = (String, Vec<u8>);

/// What one mark says of the partition that it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    #[serde(flatten)]
    pub act: Act,
    pub offsets: Vec<i64>,
}

impl Mark {
    /// Value and header of its record.
    pub fn encode(&self) -> Result<(Vec<u8>, Header), serde_json::Error> {
        let header = (HEADER.to_owned(), self.act.state.as_str().as_bytes().to_vec());
        Ok((serde_json::to_vec(self)?, header))
    }
}

/// Whether a record of a topic of dead letters is a mark, and no dead letter.
pub(crate) fn is_mark(record: &Record<'_>) -> bool {
    record.headers.last(HEADER).is_some() && record.headers.last(OF_LETTERS).is_none()
}

/// What is known of a letter.
#[derive(Clone, Copy, Debug)]
struct Standing {
    act: u32,
    replays: u32,
}

/// The marks of one topic.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    acts: Vec<Act>,
    letters: BTreeMap<(i32, i64), Standing>,
    /// The first mark that says nothing that is understood here.
    unreadable: Option<(i32, i64)>,
}

impl Marks {
    /// Takes a mark in; those of a partition come in the order of their offsets, and the last one counts.
    pub fn take(&mut self, record: &Record<'_>) {
        let (partition, offset) = (record.at.partition.0, record.offset.0);
        let mark = record
            .value
            .and_then(|value| serde_json::from_slice::<Mark>(value).ok());
        let Some(Mark { act, offsets }) = mark.filter(|mark| mark.act.state != State::Open) else {
            self.unreadable.get_or_insert((partition, offset));
            return;
        };
        let number = u32::try_from(self.acts.len()).unwrap_or(u32::MAX);
        let replays = u32::from(act.state == State::Replayed);
        self.acts.push(act);
        for of in offsets.into_iter().filter(|of| *of < offset) {
            let standing = self.letters.entry((partition, of)).or_insert(Standing {
                act: number,
                replays: 0,
            });
            standing.act = number;
            standing.replays += replays;
        }
    }

    /// A mark that can not be read, if there is one: nobody knows what it is about.
    pub fn unreadable(&self) -> Option<(i32, i64)> {
        self.unreadable
    }

    /// What was done last with the letter that stands there.
    pub fn last_act(&self, partition: i32, offset: i64) -> Option<&Act> {
        let standing = self.letters.get(&(partition, offset))?;
        self.acts.get(standing.act as usize)
    }

    /// What became of the letter that stands there.
    pub fn state(&self, partition: i32, offset: i64) -> State {
        self.last_act(partition, offset)
            .map_or(State::Open, |act| act.state)
    }

    /// How often the letter that stands there was replayed.
    pub fn replays(&self, partition: i32, offset: i64) -> u32 {
        self.letters
            .get(&(partition, offset))
            .map_or(0, |standing| standing.replays)
    }
}

#[cfg(test)]
mod tests {
    use stream::OwnedRecord;
    use stream::position::{Offset, Partition, TopicIndex, TopicPartition};

    use super::*;

    fn record(offset: i64, value: Vec<u8>, headers: Vec<(String, Vec<u8>)>) -> OwnedRecord {
        OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(1),
            },
            offset: Offset(offset),
            record_time_ms: 5,
            key: None,
            value: Some(value),
            headers,
        }
    }

    fn mark(offset: i64, state: State, offsets: &[i64]) -> OwnedRecord {
        let act = Act {
            state,
            by: "me@here".to_owned(),
            at: 1_705_029_300_000,
            reason: (state == State::Discarded).then(|| "test orders".to_owned()),
        };
        let mark = Mark {
            act,
            offsets: offsets.to_vec(),
        };
        let (value, header) = mark.encode().expect("json");
        record(offset, value, vec![header])
    }

    #[test]
    fn the_last_mark_of_a_letter_counts_and_replays_are_counted() {
        let mut marks = Marks::default();
        for record in [
            mark(10, State::Replayed, &[1, 2, 3]),
            mark(11, State::Discarded, &[2]),
            mark(12, State::Replayed, &[3]),
        ] {
            assert!(is_mark(&record.as_record()));
            marks.take(&record.as_record());
        }
        let states = [0, 1, 2, 3].map(|offset| (marks.state(1, offset), marks.replays(1, offset)));
        assert_eq!(
            states,
            [
                (State::Open, 0),
                (State::Replayed, 1),
                (State::Discarded, 1),
                (State::Replayed, 2)
            ]
        );
        assert_eq!(marks.state(0, 1), State::Open, "of its own partition only");
        assert_eq!(
            marks.last_act(1, 2).expect("marked").to_string(),
            "discarded by me@here at 2024-01-12T03:15:00.000Z: test orders"
        );
        assert_eq!(marks.unreadable(), None);
    }

    #[test]
    fn a_mark_says_nothing_of_what_comes_after_it() {
        let mut marks = Marks::default();
        marks.take(&mark(10, State::Replayed, &[9, 10, 11]).as_record());
        let states = [9, 10, 11].map(|offset| marks.state(1, offset));
        assert_eq!(states, [State::Replayed, State::Open, State::Open]);
    }

    #[test]
    fn what_is_no_mark_is_a_letter_and_what_can_not_be_read_is_told() {
        let header = |name: &str| (name.to_owned(), b"replayed".to_vec());
        let letter = record(4, b"{}".to_vec(), vec![header("dlq-mark"), header("dlq-topic")]);
        assert!(!is_mark(&letter.as_record()), "an order may come with any header");
        let mut marks = Marks::default();
        for (offset, value) in [(7, "{}"), (8, "{\"state\":\"gone\"}")] {
            marks.take(&record(offset, value.into(), vec![header("dlq-mark")]).as_record());
        }
        assert_eq!(marks.unreadable(), Some((1, 7)));
    }
}
