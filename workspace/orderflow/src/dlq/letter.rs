//! One dead letter: what its headers say, which are wanted, and how it is told.
//!
//! Pure. Bytes that are no text are told in base64, so that an export loses nothing.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::EventTime;
use serde_json::{Map, Value, json};
use stream::OwnedRecord;
use stream::Record;

use super::mark::{Act, State};

const CODE: &str = "dlq-error-code";
const ERROR: &str = "dlq-error";
/// What `list` shows of an error.
const MOST_ERROR_CHARS: usize = 100;

/// Which dead letters are wanted; what is empty wants all.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// When it became a dead letter, in milliseconds.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub codes: Vec<String>,
    pub keys: Vec<String>,
    /// Partitions and offsets in the topic of dead letters.
    pub at: Vec<(i32, i64)>,
    pub states: Vec<State>,
}

impl Filter {
    pub fn wants(&self, record: &Record<'_>, state: State) -> bool {
        let time_ms = record.record_time_ms;
        let place = (record.at.partition.0, record.offset.0);
        let code = header(record, CODE);
        let key = record.key.map(String::from_utf8_lossy).unwrap_or_default();
        let is_one_of = |list: &[String], text: &str| list.is_empty() || list.iter().any(|one| one == text);
        self.from_ms.is_none_or(|from| time_ms >= from)
            && self.to_ms.is_none_or(|to| time_ms <= to)
            && is_one_of(&self.codes, &code)
            && is_one_of(&self.keys, &key)
            && (self.at.is_empty() || self.at.contains(&place))
            && (self.states.is_empty() || self.states.contains(&state))
    }
}

fn header(record: &Record<'_>, name: &str) -> String {
    let value = record.headers.last(name).map(String::from_utf8_lossy);
    value.unwrap_or_default().into_owned()
}

/// A dead letter that is told.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub topic: String,
    pub record: OwnedRecord,
    /// What was done with it last.
    act: Option<Act>,
    /// How often it was replayed itself.
    pub replays: u32,
}

/// Where it stands among others: by time first.
pub(super) type Rank = (i64, String, i32, i64);

impl Letter {
    pub fn new(topic: &str, record: &Record<'_>, act: Option<&Act>, replays: u32) -> Self {
        Self {
            topic: topic.to_owned(),
            record: record.to_owned(),
            act: act.cloned(),
            replays,
        }
    }

    fn state(&self) -> &'static str {
        self.act.as_ref().map_or(State::Open, |act| act.state).as_str()
    }

    /// Partition and offset.
    pub fn place(&self) -> (i32, i64) {
        (self.record.at.partition.0, self.record.offset.0)
    }

    pub fn rank(&self) -> Rank {
        let record = &self.record;
        let topic = self.topic.clone();
        (
            record.record_time_ms,
            topic,
            record.at.partition.0,
            record.offset.0,
        )
    }

    pub fn code(&self) -> String {
        self.header(CODE)
    }

    fn header(&self, name: &str) -> String {
        header(&self.record.as_record(), name)
    }

    pub fn key(&self) -> String {
        let key = self.record.key.as_deref().unwrap_or_default();
        String::from_utf8_lossy(key).into_owned()
    }

    /// One line for `list`.
    pub fn line(&self) -> String {
        let record = &self.record;
        let error: String = self.header(ERROR).chars().take(MOST_ERROR_CHARS).collect();
        format!(
            "{}  {:<9}  {} {}@{}  {}  key {}  {}",
            EventTime(record.record_time_ms),
            self.state(),
            self.topic,
            record.at.partition,
            record.offset,
            printable(&self.code()),
            printable(&self.key()),
            printable(&error),
        )
    }

    /// The whole of it for `show`, the value cut to so many bytes.
    pub fn text(&self, most_value_bytes: usize) -> String {
        let record = &self.record;
        let mut lines = vec![
            format!("topic      {}", self.topic),
            format!("at         {}@{}", record.at.partition, record.offset),
            format!("time       {}", EventTime(record.record_time_ms)),
            format!("key        {}", printable(&self.key())),
            match &self.act {
                None => format!("state      {}", self.state()),
                Some(act) => format!("state      {}", printable(&act.to_string())),
            },
        ];
        let headers = record.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value);
            format!("header     {}: {}", printable(name), printable(&value))
        });
        lines.extend(headers);
        match &record.value {
            None => lines.push("value      none".to_owned()),
            Some(value) => {
                let shown = value.get(..most_value_bytes).unwrap_or(value);
                lines.push(format!("value      {} bytes", value.len()));
                lines.push(printable(&String::from_utf8_lossy(shown)));
                if shown.len() < value.len() {
                    lines.push(format!("... {} bytes more", value.len() - shown.len()));
                }
            }
        }
        lines.join("\n")
    }

    /// One line of JSON for `export`, with everything in it.
    pub fn to_json(&self) -> Value {
        let record = &self.record;
        let mut line = Map::new();
        line.insert("topic".to_owned(), json!(self.topic));
        line.insert("partition".to_owned(), json!(record.at.partition.0));
        line.insert("offset".to_owned(), json!(record.offset.0));
        line.insert(
            "time".to_owned(),
            json!(EventTime(record.record_time_ms).to_string()),
        );
        line.insert("state".to_owned(), json!(self.state()));
        insert(&mut line, "key", record.key.as_deref());
        let headers = record.headers.iter().map(|(name, value)| {
            let mut header = Map::new();
            header.insert("name".to_owned(), json!(name));
            insert(&mut header, "value", Some(value));
            Value::Object(header)
        });
        line.insert("headers".to_owned(), headers.collect());
        insert(&mut line, "value", record.value.as_deref());
        Value::Object(line)
    }
}

/// Bytes as text under their name where they are text, and else as base64 under `name_base64`.
fn insert(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => {
            object.insert(format!("{name}_base64"), json!(BASE64_STANDARD.encode(bytes)))
        }
    };
}

/// Text of strangers for a terminal: control characters could steer it.
pub(super) fn printable(text: &str) -> String {
    let safe = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use stream::position::{Offset, Partition, TopicIndex, TopicPartition};

    use super::*;

    fn record(value: &[u8]) -> OwnedRecord {
        OwnedRecord {
            at: TopicPartition {
                topic: TopicIndex(0),
                partition: Partition(2),
            },
            offset: Offset(41),
            record_time_ms: 1_705_029_300_000,
            key: Some(b"7".to_vec()),
            value: Some(value.to_vec()),
            headers: vec![
                ("dlq-error-code".to_owned(), b"invalid_json".to_vec()),
                ("dlq-error".to_owned(), b"no \x1b[2J brace".to_vec()),
                ("odd".to_owned(), vec![0xff]),
            ],
        }
    }

    #[test]
    fn a_filter_wants_what_fits_all_of_it() {
        let owned = record(b"{");
        let wants = |filter: Filter| filter.wants(&owned.as_record(), State::Replayed);
        let all = Filter::default;
        assert!(wants(all()));
        let time = owned.record_time_ms;
        let text = |text: &str| vec![text.to_owned()];
        for (filter, wanted) in [
            (
                Filter {
                    from_ms: Some(time),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    from_ms: Some(time + 1),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    to_ms: Some(time),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    to_ms: Some(time - 1),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    codes: text("invalid_json"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    codes: text("invalid"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    keys: text("7"),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    keys: text("77"),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    at: vec![(2, 40), (2, 41)],
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    at: vec![(1, 41)],
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    states: vec![State::Open, State::Replayed],
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    states: vec![State::Open, State::Discarded],
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    keys: text("7"),
                    codes: text("other"),
                    ..all()
                },
                false,
            ),
        ] {
            assert_eq!(wants(filter.clone()), wanted, "{filter:?}");
        }
    }

    #[test]
    fn what_is_told_can_not_steer_a_terminal_and_names_the_place() {
        let letter = Letter::new("orders.g.dlq", &record(b"a\x07b\xff").as_record(), None, 0);
        let (line, text) = (letter.line(), letter.text(3));
        for told in [&line, &text] {
            assert!(!told.replace('\n', "").chars().any(char::is_control), "{told:?}");
            assert!(told.contains("2@41") && told.contains("invalid_json"), "{told}");
        }
        assert!(
            line.starts_with("2024-01-12T03:15:00.000Z  open       orders.g.dlq 2@41"),
            "{line}"
        );
        assert!(text.ends_with("... 1 bytes more"), "{text}");
    }

    #[test]
    fn an_export_keeps_every_byte() {
        let bytes = b"\xff\x00 {".as_slice();
        let line = Letter::new("t", &record(bytes).as_record(), None, 0).to_json();
        let decoded = BASE64_STANDARD.decode(line["value_base64"].as_str().expect("base64"));
        assert_eq!(decoded.expect("base64"), bytes);
        assert_eq!(line["key"], json!("7"));
        assert_eq!(
            line["headers"][0],
            json!({"name": "dlq-error-code", "value": "invalid_json"})
        );
        assert_eq!(line["headers"][2], json!({"name": "odd", "value_base64": "/w=="}));
        let text = Letter::new("t", &record(b"{\"a\":1}").as_record(), None, 0).to_json();
        assert_eq!(text["value"], json!("{\"a\":1}"));
    }
}
