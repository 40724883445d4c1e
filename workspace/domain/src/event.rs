//! The event envelope of the topic `order-events`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::MAX_DERIVED_BYTES;
use crate::fields::{Known, text_of, wrong_type};
use crate::json::{Fields, Kind, write_string};
use crate::rejection::{Rejection, RejectionCode};
use crate::time::EventTime;

/// How urgent an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// At once.
    Critical,
    /// Soon.
    High,
    /// As usual.
    Medium,
    /// Whenever.
    Low,
}

impl Priority {
    /// All priorities from critical to low.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// The text in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// The text of one JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonObject<'a>(Cow<'a, str>);

impl<'a> JsonObject<'a> {
    /// Checks that the text is one JSON object.
    ///
    /// # Errors
    /// `not_an_object`, `invalid_json` or `too_deep`.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, Rejection> {
        let text = text.into();
        let mut fields = Fields::of(&text)?;
        while fields.next_field()?.is_some() {}
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMetadata<'a> {
    /// The service that says it.
    pub source: Cow<'a, str>,
    /// That service's version.
    pub version: Cow<'a, str>,
    /// `production`, `demo`, ...
    pub environment: Cow<'a, str>,
    /// On whose behalf.
    pub user_id: Option<Cow<'a, str>>,
    /// From which address.
    pub ip_address: Option<Cow<'a, str>>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventEnvelope<'a> {
    /// From [`crate::ids::event_id`].
    pub event_id: Cow<'a, str>,
    /// What happened, such as `order.accepted`.
    pub event_type: Cow<'a, str>,
    /// When.
    pub timestamp: EventTime,
    /// How urgent.
    pub priority: Priority,
    /// What it is about, in the shape of its type.
    pub data: JsonObject<'a>,
    /// Where it comes from.
    pub metadata: EventMetadata<'a>,
}

static FIELDS: [&str; 6] = [
    "eventId",
    "eventType",
    "timestamp",
    "priority",
    "data",
    "metadata",
];
static METADATA_FIELDS: [&str; 5] = ["source", "version", "environment", "userId", "ipAddress"];
const TEXT: &str = "a string";

impl<'a> EventEnvelope<'a> {
    /// Appends the event as JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"eventId\":");
        write_string(out, &self.event_id);
        out.extend_from_slice(b",\"eventType\":");
        write_string(out, &self.event_type);
        out.extend_from_slice(format!(",\"timestamp\":\"{}\",\"priority\":", self.timestamp).as_bytes());
        write_string(out, self.priority.as_str());
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(self.data.as_str().as_bytes());
        out.extend_from_slice(b",\"metadata\":{\"source\":");
        write_string(out, &self.metadata.source);
        out.extend_from_slice(b",\"version\":");
        write_string(out, &self.metadata.version);
        out.extend_from_slice(b",\"environment\":");
        write_string(out, &self.metadata.environment);
        for (name, value) in [
            ("userId", &self.metadata.user_id),
            ("ipAddress", &self.metadata.ip_address),
        ] {
            if let Some(text) = value {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                write_string(out, text);
            }
        }
        out.extend_from_slice(b"}}");
    }

    /// Reads an event; unknown fields are passed over.
    ///
    /// # Errors
    /// A [`Rejection`] with a stable code.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let known = Known::read(text_of(bytes, MAX_DERIVED_BYTES)?, &FIELDS)?;
        let priority = known.string(3, "a priority")?;
        let priority = Priority::ALL
            .into_iter()
            .find(|known| known.as_str() == priority)
            .ok_or_else(|| {
                let must = "`critical`, `high`, `medium` or `low`";
                Rejection::value(RejectionCode::InvalidValue, "priority", &priority, must)
            })?;
        let object = |index| {
            let value = known.required(index, "an object")?;
            match value.kind {
                Kind::Object => Ok(value.raw),
                _ => Err(wrong_type(known.name(index), &value, "an object")),
            }
        };
        let metadata = Known::read(object(5)?, &METADATA_FIELDS)?;
        Ok(Self {
            event_id: known.string(0, TEXT)?,
            event_type: known.string(1, TEXT)?,
            timestamp: known
                .timestamp(2)?
                .ok_or_else(|| Rejection::missing("timestamp", "an RFC 3339 time"))?,
            priority,
            data: JsonObject::new(object(4)?)?,
            metadata: EventMetadata {
                source: metadata.string(0, TEXT)?,
                version: metadata.string(1, TEXT)?,
                environment: metadata.string(2, TEXT)?,
                user_id: metadata.optional_string(3, TEXT)?,
                ip_address: metadata.optional_string(4, TEXT)?,
            },
        })
    }
}
