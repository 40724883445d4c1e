//! Dead letters of one topic that are dealt with together, and what is written then, all of it in one
//! transaction: the records for the retry topics, a mark in each partition, and an event.
//!
//! Everything is bounded: letters and bytes of a batch, and so the offsets of a mark and the places in an event.
//!
//! Pure.

use std::collections::BTreeMap;

use domain::Priority;
use serde_json::{Value, json};
use service::Exit;
use sha2::{Digest, Sha256};
use stream::Partition;
use stream::replay::{LetterOrigin, Replay, replays, retry_headers};
use stream::transactions::PlacedRecord;

use super::letter::Letter;
use super::mark::{Act, Mark, State};
use crate::event::Event;

/// Letters of one transaction at most; an event tells the place of each, in some 200 bytes.
pub(super) const MOST_LETTERS: usize = 500;
/// Bytes of one transaction at most, but for its last letter. The client queues 64 MiB.
const MOST_BYTES: usize = 4 << 20;
/// A code that is longer is nobody's.
const MOST_CODE_CHARS: usize = 64;
/// An order's id has at most 64 characters; what is longer is told as its hash.
const MOST_KEY_CHARS: usize = 64;

/// A dead letter that was chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    pub letter: Letter,
    /// Where it is tried again; `None` where it is discarded.
    pub target: Option<(LetterOrigin, String)>,
}

/// Dead letters that are dealt with together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chosen: Vec<Chosen>,
    bytes: usize,
}

impl Batch {
    pub fn add(&mut self, chosen: Chosen) {
        let record = &chosen.letter.record;
        let headers: usize = record
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.bytes += usize::try_from(record.as_record().size()).unwrap_or(usize::MAX) + headers;
        self.chosen.push(chosen);
    }

    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    pub fn is_full(&self, most: usize) -> bool {
        self.chosen.len() >= most.min(MOST_LETTERS) || self.bytes >= MOST_BYTES
    }

    /// Everything that is written; `random` tells the event from others of the same millisecond.
    pub fn records(&self, act: &Act, events: &str, random: u64) -> Result<Vec<PlacedRecord>, Exit> {
        let mut records: Vec<PlacedRecord> = self
            .chosen
            .iter()
            .filter_map(|chosen| retry(chosen, act))
            .collect();
        let Some(first) = self.chosen.first() else {
            return Ok(records);
        };
        let topic = &first.letter.topic;
        let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for chosen in &self.chosen {
            let (partition, offset) = chosen.letter.place();
            offsets.entry(partition).or_default().push(offset);
        }
        for (partition, offsets) in offsets {
            let act = act.clone();
            let mark = Mark { act, offsets }.encode();
            let (value, header) = mark.map_err(|error| Exit::bug(error.to_string()))?;
            records.push(PlacedRecord {
                topic: topic.clone(),
                partition: Some(Partition(partition)),
                // No two marks have one key: a topic that is compacted keeps them all.
                key: Some(format!("dlq-mark:{random:016x}:{partition}").into_bytes()),
                value: Some(value),
                headers: vec![header],
            });
        }
        records.push(PlacedRecord {
            topic: events.to_owned(),
            partition: None,
            key: Some(format!("dlq:{topic}").into_bytes()),
            value: Some(event(topic, &self.chosen, act, random)?),
            headers: Vec::new(),
        });
        Ok(records)
    }
}

fn retry(chosen: &Chosen, act: &Act) -> Option<PlacedRecord> {
    let (origin, topic) = chosen.target.as_ref()?;
    let letter = &chosen.letter;
    let record = letter.record.as_record();
    let replay = Replay {
        by: &act.by,
        at_ms: act.at,
        count: replays(&record).saturating_add(letter.replays).saturating_add(1),
    };
    Some(PlacedRecord {
        topic: topic.clone(),
        partition: Some(origin.partition),
        key: letter.record.key.clone(),
        value: letter.record.value.clone(),
        headers: retry_headers(&record, origin, replay),
    })
}

/// What is kept of it with everything else that happens: which, who, when and why, and no bodies.
fn event(topic: &str, chosen: &[Chosen], act: &Act, number: u64) -> Result<Vec<u8>, Exit> {
    let letters: Vec<Value> = chosen
        .iter()
        .map(|chosen| {
            let (partition, offset) = chosen.letter.place();
            let code: String = chosen.letter.code().chars().take(MOST_CODE_CHARS).collect();
            let mut letter = json!({"partition": partition, "offset": offset, "code": code});
            if let Some(object) = letter.as_object_mut() {
                let (name, text) = key_of(&chosen.letter);
                object.insert(name.to_owned(), json!(text));
                if let Some((_, to)) = &chosen.target {
                    object.insert("to".to_owned(), json!(to));
                }
            }
            letter
        })
        .collect();
    let mut data = json!({"topic": topic, "count": letters.len(), "letters": letters, "by": act.by});
    if let (Some(object), Some(reason)) = (data.as_object_mut(), &act.reason) {
        object.insert("reason".to_owned(), json!(reason));
    }
    Event {
        kind: match act.state {
            State::Discarded => "dlq.discarded",
            State::Replayed | State::Open => "dlq.replayed",
        },
        priority: Priority::High,
        data,
        by: Some(&act.by),
        at_ms: act.at,
    }
    .encode(number)
}

/// The key of a letter under its name, or its hash where it can be no order's id.
fn key_of(letter: &Letter) -> (&'static str, String) {
    let key = letter.record.key.as_deref().unwrap_or_default();
    match std::str::from_utf8(key) {
        Ok(text) if text.len() <= MOST_KEY_CHARS => ("key", text.to_owned()),
        _ => {
            let hash: String = Sha256::digest(key)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            ("key_sha256", hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use stream::OwnedRecord;
    use stream::position::{Offset, TopicIndex, TopicPartition};

    use super::super::mark::{Marks, is_mark};
    use super::*;

    fn chosen(topic: &str, partition: i32, offset: i64, is_replay: bool) -> Chosen {
        let record = OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(partition),
            },
            offset: Offset(offset),
            record_time_ms: 5,
            key: Some(if offset == 2 {
                vec![b'x'; 65]
            } else {
                b"7".to_vec()
            }),
            value: Some(b"the body".to_vec()),
            headers: vec![("replayed-count".to_owned(), b"4".to_vec())],
        };
        let origin = LetterOrigin {
            source: "orders".to_owned(),
            group: "g".to_owned(),
            partition: Partition(partition),
            offset: Offset(100 + offset),
            record_time_ms: 3,
        };
        Chosen {
            letter: Letter::new(topic, &record.as_record(), None, 2),
            target: is_replay.then(|| (origin, "orders.g.retry.5s".to_owned())),
        }
    }

    fn act(state: State) -> Act {
        Act {
            state,
            by: "me@here".to_owned(),
            at: 1_705_029_300_000,
            reason: (state == State::Discarded).then(|| "test orders".to_owned()),
        }
    }

    fn text(record: &PlacedRecord) -> String {
        String::from_utf8(record.value.clone().expect("value")).expect("text")
    }

    #[test]
    fn a_replay_writes_each_letter_a_mark_in_each_partition_and_an_event() {
        let mut batch = Batch::default();
        for (topic, partition, offset) in [("a.dlq", 0, 1), ("a.dlq", 0, 2), ("a.dlq", 2, 8)] {
            batch.add(chosen(topic, partition, offset, true));
        }
        let records = batch
            .records(&act(State::Replayed), "order-events", 1)
            .expect("records");
        let places: Vec<_> = records
            .iter()
            .map(|record| {
                (
                    record.topic.as_str(),
                    record.partition.map(|partition| partition.0),
                )
            })
            .collect();
        assert_eq!(
            places,
            [
                ("orders.g.retry.5s", Some(0)),
                ("orders.g.retry.5s", Some(0)),
                ("orders.g.retry.5s", Some(2)),
                ("a.dlq", Some(0)),
                ("a.dlq", Some(2)),
                ("order-events", None),
            ]
        );
        let count = ("replayed-count".to_owned(), b"7".to_vec());
        assert!(
            records[0].headers.contains(&count),
            "4 of its forebears, 2 of its own, and this"
        );
        assert_eq!(records[0].value.as_deref(), Some(&b"the body"[..]));
        let mark = OwnedRecord {
            offset: Offset(50),
            value: records[3].value.clone(),
            headers: records[3].headers.clone(),
            ..batch.chosen[0].letter.record.clone()
        };
        assert!(is_mark(&mark.as_record()));
        let mut marks = Marks::default();
        marks.take(&mark.as_record());
        let states = [1, 2, 3].map(|offset| marks.state(0, offset));
        assert_eq!(states, [State::Replayed, State::Replayed, State::Open]);
        let event: Value = serde_json::from_str(&text(&records[5])).expect("json");
        assert_eq!(event["eventType"], "dlq.replayed");
        assert_eq!(event["metadata"]["userId"], "me@here");
        assert_eq!(event["data"]["count"], 3);
        assert_eq!(
            event["data"]["letters"][2],
            json!({"partition": 2, "offset": 8, "code": "", "key": "7", "to": "orders.g.retry.5s"})
        );
        assert_eq!(
            event["data"]["letters"][1]["key_sha256"].as_str().map(str::len),
            Some(64)
        );
    }

    #[test]
    fn a_discard_writes_marks_and_why_and_no_bodies() {
        let mut batch = Batch::default();
        batch.add(chosen("a.dlq", 0, 1, false));
        let records = batch
            .records(&act(State::Discarded), "order-events", 1)
            .expect("records");
        assert_eq!(records.len(), 2);
        for record in &records {
            assert!(text(record).contains("test orders") && !text(record).contains("the body"));
        }
        let event: Value = serde_json::from_str(&text(&records[1])).expect("json");
        assert_eq!(
            (&event["eventType"], &event["data"]["reason"]),
            (&json!("dlq.discarded"), &json!("test orders"))
        );
    }

    #[test]
    fn a_batch_is_bounded_and_so_is_its_event() {
        let mut batch = Batch::default();
        while !batch.is_full(usize::MAX) {
            let offset = i64::try_from(batch.len()).expect("few");
            batch.add(chosen("a.dlq", 0, offset, true));
        }
        assert_eq!(batch.len(), MOST_LETTERS);
        let records = batch
            .records(&act(State::Replayed), "order-events", 1)
            .expect("records");
        // Less than a tenth of what the topic takes.
        assert!(records.last().is_some_and(|event| event.size() < 100_000));
        let mut heavy = Batch::default();
        let mut one = chosen("a.dlq", 0, 1, true);
        one.letter.record.value = Some(vec![0; MOST_BYTES]);
        heavy.add(one);
        assert!(heavy.is_full(usize::MAX));
        assert!(Batch::default().len() == 0 && !Batch::default().is_full(1));
    }
}
