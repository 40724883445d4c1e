//! A dead letter that is tried again.
//!
//! It goes into the first retry topic of the group that gave up, in the partition of its source, as if that
//! group had parked it just now: so nobody else sees it, and the worker knows where it stood first. It keeps
//! key, bytes and its own headers; its attempts begin anew, when it failed first is kept. It says who had it
//! tried again, when, and for which time: if it fails again, the new dead letter says so too.
//!
//! Pure: no clock, no I/O.

use std::borrow::Cow;

use crate::dead_letter::{self, Cause};
use crate::parking::{Memory, first_failure_ms, number};
use crate::position::{Offset, Partition};
use crate::record::Record;

/// Who had it tried again.
pub const REPLAYED_BY: &str = "replayed-by";
/// When, in milliseconds since the epoch.
pub const REPLAYED_AT: &str = "replayed-at";
/// How often so far.
pub const REPLAYED_COUNT: &str = "replayed-count";

/// Where a dead letter says that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterOrigin {
    /// The topic that the group read.
    pub source: String,
    /// The group that gave up.
    pub group: String,
    /// Its partition in the source.
    pub partition: Partition,
    /// Its offset in the source.
    pub offset: Offset,
    /// Its record time in the source, in milliseconds.
    pub record_time_ms: i64,
}

impl LetterOrigin {
    /// What the headers of a dead letter say. `None` where one is missing or no number.
    #[must_use]
    pub fn of(letter: &Record<'_>) -> Option<Self> {
        let text = |name| Some(text_of(letter, name)?.into_owned());
        let partition = i32::try_from(number(letter, dead_letter::PARTITION)?).ok();
        let offset = number(letter, dead_letter::OFFSET)?;
        Some(Self {
            source: text(dead_letter::TOPIC)?,
            group: text(dead_letter::GROUP)?,
            partition: Partition(partition.filter(|partition| *partition >= 0)?),
            offset: Offset(Some(offset).filter(|offset| *offset >= 0)?),
            record_time_ms: number(letter, dead_letter::TIMESTAMP)?,
        })
    }
}

/// How often a record was replayed.
#[must_use]
pub fn replays(record: &Record<'_>) -> u32 {
    number(record, REPLAYED_COUNT)
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0)
}

/// One replay of a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// Who has it tried again.
    pub by: &'a str,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// For which time.
    pub count: u32,
}

/// The headers of a dead letter in the first retry topic of its group, due at once.
#[must_use]
pub fn retry_headers(
    letter: &Record<'_>,
    origin: &LetterOrigin,
    replay: Replay<'_>,
) -> Vec<(String, Vec<u8>)> {
    let text = |name| text_of(letter, name).unwrap_or_default().into_owned();
    let cause = Cause {
        code: text(dead_letter::ERROR_CODE),
        message: text(dead_letter::ERROR),
        attempts: 0,
    };
    let memory = Memory {
        // At once, whatever this machine takes for the time: nobody waits behind it.
        not_before_ms: 0,
        // One that was never parked became a dead letter when it failed first.
        first_failure_ms: first_failure_ms(letter).unwrap_or(letter.record_time_ms),
        cause: &cause,
        origin_offset: origin.offset,
        origin_time_ms: origin.record_time_ms,
    };
    let mut headers = memory.headers(letter, &[REPLAYED_BY, REPLAYED_AT, REPLAYED_COUNT]);
    let ours = [
        (REPLAYED_BY, replay.by.to_owned()),
        (REPLAYED_AT, replay.at_ms.to_string()),
        (REPLAYED_COUNT, replay.count.to_string()),
    ];
    headers.extend(ours.map(|(name, value)| (name.to_owned(), value.into_bytes())));
    headers
}

fn text_of<'a>(record: &'a Record<'_>, name: &str) -> Option<Cow<'a, str>> {
    let value = record.headers.last(name).filter(|value| !value.is_empty())?;
    Some(String::from_utf8_lossy(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::{Delays, RetryPlan, due_ms};
    use crate::position::{TopicIndex, TopicPartition};
    use crate::record::OwnedRecord;

    fn record(topic: u16, offset: i64, record_time_ms: i64, headers: Vec<(String, Vec<u8>)>) -> OwnedRecord {
        OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(topic),
                partition: Partition(3),
            },
            offset: Offset(offset),
            record_time_ms,
            key: Some(b"7".to_vec()),
            value: Some(b"{}".to_vec()),
            headers,
        }
    }

    fn cause(attempts: u32) -> Cause {
        Cause {
            code: "gateway_unavailable".to_owned(),
            message: "no answer".to_owned(),
            attempts,
        }
    }

    #[test]
    fn what_is_replayed_is_to_its_reader_as_if_it_was_parked_and_counts_its_replays() {
        let plan = RetryPlan::new(1, &Delays::parse("5s,1m").expect("delays"));
        let own = vec![("traceparent".to_owned(), b"00-x".to_vec())];
        let mut waiting = record(0, 41, 1_000, own);
        waiting.headers = plan
            .park(&waiting.as_record(), &cause(3), 2_000)
            .expect("parked")
            .headers;
        waiting.at.topic = TopicIndex(1);
        for replays_before in 0..3 {
            let given_up = waiting.as_record();
            let origin = plan.origin(&given_up).expect("origin");
            let headers = dead_letter::headers(&given_up, &origin, "orders", "g", &cause(9));
            let letter = record(0, 7, 9_000, headers);
            assert_eq!(replays(&letter.as_record()), replays_before);
            let origin = LetterOrigin::of(&letter.as_record()).expect("origin");
            let wanted = LetterOrigin {
                source: "orders".to_owned(),
                group: "g".to_owned(),
                partition: Partition(3),
                offset: Offset(41),
                record_time_ms: 1_000,
            };
            assert_eq!(origin, wanted);
            let by = format!("operator {replays_before}");
            let replay = Replay {
                by: &by,
                at_ms: 10_000,
                count: replays_before + 1,
            };
            let headers = retry_headers(&letter.as_record(), &origin, replay);
            waiting = record(1, 0, 10_000, headers);
            let again = waiting.as_record();
            let origin = plan.origin(&again).expect("origin");
            assert_eq!(
                (origin.offset, origin.record_time_ms, origin.attempts),
                (Offset(41), 1_000, 0)
            );
            assert_eq!(due_ms(&again), 0, "at once");
            let last = |name| again.headers.last(name).map(String::from_utf8_lossy);
            assert_eq!(last("retry-first-failure").as_deref(), Some("2000"));
            assert_eq!(last("traceparent").as_deref(), Some("00-x"));
            assert_eq!(last(REPLAYED_BY).as_deref(), Some(by.as_str()));
            assert_eq!(last(REPLAYED_AT).as_deref(), Some("10000"));
            assert_eq!(
                last(REPLAYED_COUNT),
                Some((replays_before + 1).to_string().into())
            );
            // 1 own, 7 of the retry topic, 3 of the replay: they do not pile up.
            assert_eq!(again.headers.get(11), None);
            assert_eq!(last("dlq-group"), None);
        }
    }

    #[test]
    fn a_letter_that_was_never_parked_failed_when_it_became_one() {
        let headers = [
            ("dlq-topic", "orders"),
            ("dlq-group", "g"),
            ("dlq-partition", "0"),
            ("dlq-offset", "4"),
            ("dlq-timestamp", "5"),
        ];
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into();
        let letter = record(0, 1, 77, headers.clone());
        let origin = LetterOrigin::of(&letter.as_record()).expect("origin");
        let replay = Replay {
            by: "o",
            at_ms: 100,
            count: 1,
        };
        let headers_then = retry_headers(&letter.as_record(), &origin, replay);
        assert_eq!(headers_then.as_slice().len(), 10);
        assert!(headers_then.contains(&("retry-first-failure".to_owned(), b"77".to_vec())));
        for missing in 0..headers.len() {
            let mut fewer = headers.clone();
            fewer.remove(missing);
            assert_eq!(
                LetterOrigin::of(&record(0, 1, 77, fewer).as_record()),
                None,
                "{missing}"
            );
            let mut empty = headers.clone();
            empty[missing].1.clear();
            assert_eq!(
                LetterOrigin::of(&record(0, 1, 77, empty).as_record()),
                None,
                "{missing}"
            );
        }
    }
}
