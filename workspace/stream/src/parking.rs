//! Records that have to wait for a later attempt: where they wait, until when, and what they remember.
//!
//! A record whose attempts in place are over is *parked*: written, bytes unchanged, to a retry topic of
//! its source, in the partition of its source, in the transaction that commits its offset. It keeps its
//! own headers and gets ours: when it is due, how often it was tried, and where it stood first. There is
//! one retry topic per delay; a record that fails again goes to the next one, and from the last one to
//! the dead letters.
//!
//! Retry topics are read by whoever owns the partition of the source (`source::retry`). To the pump they
//! are further topics behind its sources: topic `sources + source * delays + level`.
//!
//! Pure: no clock, no I/O.

use std::time::Duration;

use crate::dead_letter::{Cause, cut};
use crate::position::{Offset, TopicIndex, TopicPartition};
use crate::record::Record;

/// Not before this time (milliseconds since the epoch) is the record tried again.
pub(crate) const NOT_BEFORE: &str = "retry-not-before";
/// How often it was tried so far.
const ATTEMPTS: &str = "retry-attempts";
/// When it failed first, in milliseconds since the epoch. A dead letter keeps it.
const FIRST_FAILURE: &str = "retry-first-failure";
const ERROR_CODE: &str = "retry-error-code";
const ERROR: &str = "retry-error";
/// Its offset in its source.
const ORIGIN_OFFSET: &str = "origin-offset";
/// Its record time in its source.
const ORIGIN_TIMESTAMP: &str = "origin-timestamp";

/// What is ours among the headers of a parked record, and of no use to anybody once it is not parked.
pub(crate) const HEADERS: [&str; 6] = [
    NOT_BEFORE,
    ATTEMPTS,
    ERROR_CODE,
    ERROR,
    ORIGIN_OFFSET,
    ORIGIN_TIMESTAMP,
];

/// Retry topics of one worker at most, per source: more would be a plan that nobody can follow.
const MOST_DELAYS: usize = 8;
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 3_600);

/// The delays of the retry topics, as they are configured: `5s,1m,10m`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays(Vec<(String, Duration)>);

impl Delays {
    /// Reads a list such as `5s,1m,10m`; `off` or nothing is an empty one.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its key.
    pub fn parse(text: &str) -> Result<Self, String> {
        if matches!(text.trim(), "" | "off") {
            return Ok(Self::default());
        }
        let mut delays: Vec<(String, Duration)> = Vec::new();
        for label in text.split(',').map(str::trim) {
            let delay = delay_of(label)
                .filter(|delay| (Duration::from_millis(1)..=LONGEST_DELAY).contains(delay))
                .ok_or_else(|| {
                    format!("`{label}`, must be a delay such as 500ms, 5s, 1m, 2h (at most 24h)")
                })?;
            if delays.last().is_some_and(|(_, last)| *last >= delay) {
                return Err(format!("`{label}`, must be longer than the delay before it"));
            }
            delays.push((label.to_owned(), delay));
        }
        if delays.len() > MOST_DELAYS {
            return Err(format!("`{text}`, must be at most {MOST_DELAYS} delays"));
        }
        Ok(Self(delays))
    }

    /// The delays alone, shortest first.
    pub(crate) fn durations(&self) -> Vec<Duration> {
        self.0.iter().map(|(_, delay)| *delay).collect()
    }

    /// The names of the retry topics of a group that reads `source`, shortest delay first.
    pub fn topics<'a>(&'a self, source: &'a str, group: &'a str) -> impl Iterator<Item = String> + 'a {
        self.0
            .iter()
            .map(move |(label, _)| retry_topic_prefix(source, group) + label)
    }
}

/// What the names of all retry topics of a group that reads `source` begin with.
#[must_use]
pub fn retry_topic_prefix(source: &str, group: &str) -> String {
    format!("{source}.{group}.retry.")
}

fn delay_of(label: &str) -> Option<Duration> {
    let digits = label.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = label.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit_ms)?))
}

/// The topics of a pump: its sources, and behind them the retry topics of each of them.
#[derive(Clone, Debug)]
pub(crate) struct RetryPlan {
    sources: u16,
    delays: Vec<Duration>,
}

impl RetryPlan {
    pub fn new(sources: usize, delays: &Delays) -> Self {
        Self {
            sources: u16::try_from(sources).unwrap_or(u16::MAX),
            delays: delays.durations(),
        }
    }

    /// No retry topics: all topics are sources.
    pub const fn none() -> Self {
        Self {
            sources: u16::MAX,
            delays: Vec::new(),
        }
    }

    /// How many of the topics are sources.
    pub fn sources(&self) -> usize {
        usize::from(self.sources)
    }

    fn levels(&self) -> u16 {
        u16::try_from(self.delays.len()).unwrap_or(u16::MAX)
    }

    pub fn is_retry(&self, topic: TopicIndex) -> bool {
        topic.0 >= self.sources
    }

    /// The partition of the source that a record of this partition came from.
    pub fn source(&self, at: TopicPartition) -> TopicPartition {
        TopicPartition {
            topic: self.source_topic(at.topic),
            ..at
        }
    }

    fn source_topic(&self, topic: TopicIndex) -> TopicIndex {
        match topic.0.checked_sub(self.sources) {
            Some(behind) => TopicIndex(behind / self.levels().max(1)),
            None => topic,
        }
    }

    /// The retry topics' partitions that go with a partition of a source.
    pub fn retries(&self, source: TopicPartition) -> impl Iterator<Item = TopicPartition> + use<> {
        let first = self
            .sources
            .saturating_add(source.topic.0.saturating_mul(self.levels()));
        (first..first.saturating_add(self.levels())).map(move |topic| TopicPartition {
            topic: TopicIndex(topic),
            ..source
        })
    }

    /// Where a record goes that failed here, and for how long; `None` behind the last retry topic.
    fn next(&self, topic: TopicIndex) -> Option<(TopicIndex, Duration)> {
        let level = match topic.0.checked_sub(self.sources) {
            Some(behind) => behind % self.levels().max(1) + 1,
            None => 0,
        };
        let delay = self.delays.get(usize::from(level))?;
        let of_source = self.source_topic(topic).0.saturating_mul(self.levels());
        let to = self.sources.checked_add(of_source)?.checked_add(level)?;
        Some((TopicIndex(to), *delay))
    }

    /// Parks a record that failed with this cause at this time, where there is a retry topic for it.
    pub fn park(&self, record: &Record<'_>, cause: &Cause, now_ms: i64) -> Option<Parked> {
        let (to, delay) = self.next(record.at.topic)?;
        let origin = self.origin(record)?;
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let memory = Memory {
            not_before_ms: now_ms.saturating_add(delay_ms),
            first_failure_ms: first_failure_ms(record).unwrap_or(now_ms),
            cause,
            origin_offset: origin.offset,
            origin_time_ms: origin.record_time_ms,
        };
        let headers = memory.headers(record, &[]);
        Some(Parked { to, headers })
    }

    /// Where a record stood first, or where it stands, where it does not say so.
    pub fn origin_or_place(&self, record: &Record<'_>) -> Origin {
        self.origin(record).unwrap_or(Origin {
            at: record.at,
            offset: record.offset,
            record_time_ms: record.record_time_ms,
            attempts: 0,
        })
    }

    /// Where a record stood first. `None` for a record of a retry topic that does not say so.
    pub fn origin(&self, record: &Record<'_>) -> Option<Origin> {
        if !self.is_retry(record.at.topic) {
            return Some(Origin {
                at: record.at,
                offset: record.offset,
                record_time_ms: record.record_time_ms,
                attempts: 0,
            });
        }
        Some(Origin {
            at: self.source(record.at),
            offset: Offset(number(record, ORIGIN_OFFSET)?),
            record_time_ms: number(record, ORIGIN_TIMESTAMP)?,
            attempts: number(record, ATTEMPTS)
                .and_then(|attempts| u32::try_from(attempts).ok())
                .unwrap_or(0),
        })
    }
}

/// What a record of a retry topic remembers.
pub(crate) struct Memory<'a> {
    pub not_before_ms: i64,
    pub first_failure_ms: i64,
    /// Why it waits, and how often it was tried.
    pub cause: &'a Cause,
    pub origin_offset: Offset,
    pub origin_time_ms: i64,
}

impl Memory<'_> {
    /// The headers of the record while it waits: its own, but for these, and what is remembered.
    pub fn headers(&self, record: &Record<'_>, but: &[&str]) -> Vec<(String, Vec<u8>)> {
        let but = [&[FIRST_FAILURE], but].concat();
        let mut headers = crate::dead_letter::own_headers(record.headers, &but);
        let values = [
            (NOT_BEFORE, self.not_before_ms.to_string()),
            (ATTEMPTS, self.cause.attempts.to_string()),
            (FIRST_FAILURE, self.first_failure_ms.to_string()),
            (ERROR_CODE, self.cause.code.clone()),
            (ERROR, cut(&self.cause.message).to_owned()),
            (ORIGIN_OFFSET, self.origin_offset.to_string()),
            (ORIGIN_TIMESTAMP, self.origin_time_ms.to_string()),
        ];
        headers.extend(values.map(|(name, value)| (name.to_owned(), value.into_bytes())));
        headers
    }
}

/// When a record failed first, where it says so.
pub(crate) fn first_failure_ms(record: &Record<'_>) -> Option<i64> {
    number(record, FIRST_FAILURE)
}

/// Where a record goes to wait, and with which headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    pub to: TopicIndex,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Where a record stood first, and how often it was tried before it came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub at: TopicPartition,
    pub offset: Offset,
    pub record_time_ms: i64,
    pub attempts: u32,
}

/// When a record of a retry topic may be tried again; one that does not say so is due at once, and none waits
/// for longer than the longest delay.
pub(crate) fn due_ms(record: &Record<'_>) -> i64 {
    let longest_ms = i64::try_from(LONGEST_DELAY.as_millis()).unwrap_or(i64::MAX);
    let latest = record.record_time_ms.saturating_add(longest_ms);
    number(record, NOT_BEFORE).map_or(i64::MIN, |due| due.min(latest))
}

/// The offset in its source that a parked record names.
pub(crate) fn origin_offset(record: &Record<'_>) -> Option<Offset> {
    number(record, ORIGIN_OFFSET).map(Offset)
}

pub(crate) fn number(record: &Record<'_>, header: &str) -> Option<i64> {
    std::str::from_utf8(record.headers.last(header)?)
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Partition;
    use crate::record::OwnedRecord;

    fn plan() -> RetryPlan {
        RetryPlan::new(2, &Delays::parse("5s,1m,10m").expect("delays"))
    }

    fn at(topic: u16) -> TopicPartition {
        TopicPartition {
            topic: TopicIndex(topic),
            partition: Partition(3),
        }
    }

    fn record(topic: u16, headers: Vec<(String, Vec<u8>)>) -> OwnedRecord {
        OwnedRecord {
            at: at(topic),
            offset: Offset(41),
            record_time_ms: 1_700_000_000_000,
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
    fn delays_are_read_and_name_their_topics() {
        let delays = Delays::parse("500ms, 5s,1m,2h").expect("delays");
        let names: Vec<_> = delays.topics("orders", "g").collect();
        assert_eq!(names[0], "orders.g.retry.500ms");
        assert_eq!(names[3], "orders.g.retry.2h");
        assert_eq!(Delays::parse("off"), Ok(Delays::default()));
        for wrong in [
            "5",
            "s",
            "5s,,1m",
            "5s,5s",
            "1m,5s",
            "25h",
            "0s",
            "1s,2s,3s,4s,5s,6s,7s,8s,9s",
        ] {
            assert!(Delays::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_source_and_its_retry_topics_find_each_other() {
        let plan = plan();
        let of_second: Vec<_> = plan.retries(at(1)).collect();
        assert_eq!(of_second, [at(5), at(6), at(7)]);
        for (topic, source) in [(0, 0), (1, 1), (2, 0), (4, 0), (5, 1), (7, 1)] {
            assert_eq!(plan.source(at(topic)), at(source), "topic {topic}");
            assert_eq!(plan.is_retry(TopicIndex(topic)), topic > 1);
        }
        assert_eq!(RetryPlan::new(2, &Delays::default()).retries(at(1)).count(), 0);
    }

    #[test]
    fn a_record_goes_from_delay_to_delay_and_remembers_where_it_came_from() {
        let plan = plan();
        let mut parked_in = Vec::new();
        let mut record = record(1, vec![("traceparent".to_owned(), b"00-x".to_vec())]);
        let mut now_ms = 1_000;
        while let Some(parked) = plan.park(&record.as_record(), &cause(3), now_ms) {
            parked_in.push(parked.to.0);
            record = OwnedRecord {
                at: at(parked.to.0),
                offset: Offset(0),
                record_time_ms: now_ms,
                headers: parked.headers,
                ..record
            };
            let origin = plan.origin(&record.as_record()).expect("origin");
            assert_eq!(
                (origin.at, origin.offset, origin.attempts),
                (at(1), Offset(41), 3)
            );
            assert_eq!(origin.record_time_ms, 1_700_000_000_000);
            assert_eq!(record.as_record().headers.last(FIRST_FAILURE), Some(&b"1000"[..]));
            now_ms = due_ms(&record.as_record());
        }
        assert_eq!(parked_in, [5, 6, 7]);
        assert_eq!(now_ms, 1_000 + 5_000 + 60_000 + 600_000);
        let names = record.headers.iter().filter(|(name, _)| name == NOT_BEFORE);
        assert_eq!(names.count(), 1, "headers do not pile up");
        assert_eq!(record.as_record().headers.last("traceparent"), Some(&b"00-x"[..]));
    }

    #[test]
    fn a_record_of_a_retry_topic_without_its_origin_is_told_apart() {
        let stray = record(2, Vec::new());
        assert_eq!(plan().origin(&stray.as_record()), None);
        assert_eq!(due_ms(&stray.as_record()), i64::MIN, "it is due at once");
        let far = record(
            2,
            vec![(NOT_BEFORE.to_owned(), i64::MAX.to_string().into_bytes())],
        );
        let in_a_day = far.record_time_ms + 24 * 3_600_000;
        assert_eq!(due_ms(&far.as_record()), in_a_day, "nothing waits for ever");
    }
}
