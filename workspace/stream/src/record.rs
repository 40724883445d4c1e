//! Records as a handler sees them: borrowed from wherever their bytes came from.

use crate::position::{Offset, TopicPartition};

/// The headers of one record. A trait, because nothing outside of the source may know how they are
/// kept; most handlers never look, so nothing is decoded before somebody asks.
pub trait Headers {
    /// The header at `index`, in the order of the record.
    fn get(&self, index: usize) -> Option<(&str, &[u8])>;

    /// The last header of that name, as Kafka defines a header's value.
    fn last(&self, name: &str) -> Option<&[u8]> {
        let mut found = None;
        let mut index = 0;
        while let Some((key, value)) = self.get(index) {
            if key == name {
                found = Some(value);
            }
            index += 1;
        }
        found
    }
}

/// No headers at all.
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _: usize) -> Option<(&str, &[u8])> {
        None
    }
}

/// One Kafka message.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Topic and partition.
    pub at: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// When it was sent, in milliseconds since the epoch.
    pub record_time_ms: i64,
    /// The key, where it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a dyn Headers,
}

impl Record<'_> {
    /// Bytes of key and value.
    #[must_use]
    pub fn size(&self) -> u32 {
        let bytes = self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// A copy that outlives the batch.
    #[must_use]
    pub fn to_owned(&self) -> OwnedRecord {
        let mut headers = Vec::new();
        while let Some((name, value)) = self.headers.get(headers.len()) {
            headers.push((name.to_owned(), value.to_vec()));
        }
        OwnedRecord {
            at: self.at,
            offset: self.offset,
            record_time_ms: self.record_time_ms,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// A record that was copied out of its batch, because its work outlives the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Topic and partition.
    pub at: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// When it was sent, in milliseconds since the epoch.
    pub record_time_ms: i64,
    /// The key, where it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OwnedRecord {
    /// The record as a handler sees it.
    #[must_use]
    pub fn as_record(&self) -> Record<'_> {
        Record {
            at: self.at,
            offset: self.offset,
            record_time_ms: self.record_time_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

impl Headers for Vec<(String, Vec<u8>)> {
    fn get(&self, index: usize) -> Option<(&str, &[u8])> {
        self.as_slice()
            .get(index)
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}
