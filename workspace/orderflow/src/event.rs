//! What the operator's command says in the topic of events.

use domain::{EventEnvelope, EventMetadata, EventTime, JsonObject, Priority, ids};
use serde_json::Value;
use service::Exit;

/// Something that an operator did.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// Its `eventType`.
    pub kind: &'a str,
    pub priority: Priority,
    pub data: Value,
    /// Who, where it is known.
    pub by: Option<&'a str>,
    pub at_ms: i64,
}

impl Event<'_> {
    /// The event as a record's value; `random` tells it from others of the same millisecond.
    pub fn encode(&self, random: u64) -> Result<Vec<u8>, Exit> {
        let timestamp = EventTime(self.at_ms);
        let event = EventEnvelope {
            event_id: ids::event_id(timestamp, random).into(),
            event_type: self.kind.into(),
            timestamp,
            priority: self.priority,
            data: JsonObject::new(self.data.to_string()).map_err(|error| Exit::bug(error.to_string()))?,
            metadata: EventMetadata {
                source: "orderflow".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                environment: "operator".into(),
                user_id: self.by.map(Into::into),
                ip_address: None,
            },
        };
        let mut text = Vec::new();
        event.encode(&mut text);
        Ok(text)
    }
}
