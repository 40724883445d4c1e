//! What a dead letter carries besides the original key and bytes.

use crate::parking::{self, Origin};
use crate::record::{Headers, Record};

/// `dlq-error` is cut here, so that a dead letter always fits into its topic.
const MOST_ERROR_BYTES: usize = 1_024;

/// Why a record became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub code: String,
    pub message: String,
    pub attempts: u32,
}

pub(crate) const TOPIC: &str = "dlq-topic";
pub(crate) const PARTITION: &str = "dlq-partition";
pub(crate) const OFFSET: &str = "dlq-offset";
pub(crate) const TIMESTAMP: &str = "dlq-timestamp";
pub(crate) const GROUP: &str = "dlq-group";
pub(crate) const ERROR_CODE: &str = "dlq-error-code";
pub(crate) const ERROR: &str = "dlq-error";

/// The names of the headers that a dead letter gets, in the order in which they are written.
pub(crate) const HEADERS: [&str; 9] = [
    TOPIC,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    GROUP,
    ERROR_CODE,
    ERROR,
    "dlq-attempts",
    "dlq-service-version",
];

/// The headers of the dead letter of a record that stood first at `origin`: its own first, then ours.
/// Headers of an earlier failure of the same record are left out, so that they do not pile up.
pub(crate) fn headers(
    record: &Record<'_>,
    origin: &Origin,
    topic: &str,
    group: &str,
    cause: &Cause,
) -> Vec<(String, Vec<u8>)> {
    let mut list = own_headers(record.headers, &[]);
    let values = [
        topic.to_owned(),
        origin.at.partition.to_string(),
        origin.offset.to_string(),
        origin.record_time_ms.to_string(),
        group.to_owned(),
        cause.code.clone(),
        cut(&cause.message).to_owned(),
        cause.attempts.to_string(),
        env!("CARGO_PKG_VERSION").to_owned(),
    ];
    list.extend(
        HEADERS
            .into_iter()
            .zip(values)
            .map(|(name, value)| (name.to_owned(), value.into_bytes())),
    );
    list
}

/// What a record carries of its own: all but what we wrote beside it when it failed before.
pub(crate) fn own_headers(headers: &dyn Headers, but: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut list = Vec::new();
    let mut index = 0;
    while let Some((name, value)) = headers.get(index) {
        let is_ours = HEADERS.contains(&name) || parking::HEADERS.contains(&name) || but.contains(&name);
        if !is_ours {
            list.push((name.to_owned(), value.to_vec()));
        }
        index += 1;
    }
    list
}

/// As much of a message as a header takes.
pub(crate) fn cut(message: &str) -> &str {
    message
        .get(..message.floor_char_boundary(MOST_ERROR_BYTES))
        .unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Offset, Partition, TopicIndex, TopicPartition};
    use crate::record::OwnedRecord;

    fn record(headers: Vec<(String, Vec<u8>)>) -> OwnedRecord {
        OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(2),
            },
            offset: Offset(41),
            record_time_ms: 1_700_000_000_000,
            key: Some(b"7".to_vec()),
            value: Some(b"{".to_vec()),
            headers,
        }
    }

    fn origin(record: &OwnedRecord) -> Origin {
        let plan = parking::RetryPlan::new(1, &parking::Delays::default());
        plan.origin(&record.as_record()).expect("origin")
    }

    #[test]
    fn a_dead_letter_says_where_it_came_from_and_why() {
        let owned = record(vec![("traceparent".to_owned(), b"00-x".to_vec())]);
        let cause = Cause {
            code: "not_json".to_owned(),
            message: "no value".to_owned(),
            attempts: 1,
        };
        let list = headers(
            &owned.as_record(),
            &origin(&owned),
            "orders",
            "fraud-group",
            &cause,
        );
        let find = |name: &str| {
            list.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_slice())
        };
        assert_eq!(find("traceparent"), Some(&b"00-x"[..]));
        assert_eq!(find("dlq-topic"), Some(&b"orders"[..]));
        assert_eq!(find("dlq-partition"), Some(&b"2"[..]));
        assert_eq!(find("dlq-offset"), Some(&b"41"[..]));
        assert_eq!(find("dlq-timestamp"), Some(&b"1700000000000"[..]));
        assert_eq!(find("dlq-error-code"), Some(&b"not_json"[..]));
        assert_eq!(find("dlq-attempts"), Some(&b"1"[..]));
    }

    #[test]
    fn headers_of_an_earlier_dead_letter_are_replaced_and_long_errors_are_cut() {
        let owned = record(vec![("dlq-error-code".to_owned(), b"old".to_vec())]);
        let cause = Cause {
            code: "new".to_owned(),
            message: "ä".repeat(2_000),
            attempts: 3,
        };
        let list = headers(&owned.as_record(), &origin(&owned), "orders", "g", &cause);
        let codes: Vec<_> = list.iter().filter(|(name, _)| name == "dlq-error-code").collect();
        assert_eq!(codes, vec![&("dlq-error-code".to_owned(), b"new".to_vec())]);
        let error = &list
            .iter()
            .find(|(name, _)| name == "dlq-error")
            .expect("present")
            .1;
        assert!(error.len() <= MOST_ERROR_BYTES && String::from_utf8(error.clone()).is_ok());
    }
}
