//! Record times inside a batch, for finding offsets by time.
//!
//! A batch is read as a stream, and no further than the answer needs.

use std::io;

use bytes::Buf;

use crate::batch::HEADER_BYTES;
use crate::codec::unpacked;
use crate::log::StoredBatch;
use crate::records::{corrupt, next, skip_rest, varint};

/// Where the base timestamp stands in a batch, and the record count.
const BASE_TIMESTAMP_AT: usize = 27;
const RECORD_COUNT_AT: usize = 57;

/// An offset and the time of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordTime {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

/// The first record of the batch, from offset `start` on, whose time is `timestamp` or later.
pub(crate) fn first_at_or_after(
    batch: &StoredBatch,
    timestamp: i64,
    start: i64,
) -> io::Result<Option<RecordTime>> {
    let mut found = None;
    each_record(batch, |record| {
        if record.timestamp >= timestamp && record.offset >= start {
            found = Some(record);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// The first record with the largest time of the batch.
pub(crate) fn first_of_largest(batch: &StoredBatch) -> io::Result<Option<RecordTime>> {
    let mut largest: Option<RecordTime> = None;
    each_record(batch, |record| {
        if largest.is_none_or(|known| record.timestamp > known.timestamp) {
            largest = Some(record);
        }
        true
    })?;
    Ok(largest)
}

/// Calls `visit` for each record until it returns false.
fn each_record(batch: &StoredBatch, mut visit: impl FnMut(RecordTime) -> bool) -> io::Result<()> {
    let base_timestamp = batch
        .bytes
        .get(BASE_TIMESTAMP_AT..)
        .and_then(|mut field| field.try_get_i64().ok());
    let base_timestamp = base_timestamp.ok_or_else(corrupt)?;
    let count = batch
        .bytes
        .get(RECORD_COUNT_AT..)
        .and_then(|mut field| field.try_get_i32().ok());
    let mut records = unpacked(
        batch.header.compression,
        batch.bytes.get(HEADER_BYTES..).unwrap_or_default(),
    )?;
    for _ in 0..count.unwrap_or(0) {
        let (mut record, timestamp_delta) = next(&mut records)?;
        let timestamp = base_timestamp.wrapping_add(timestamp_delta);
        let offset = batch.base_offset.wrapping_add(varint(&mut record)?);
        if !visit(RecordTime { offset, timestamp }) {
            return Ok(());
        }
        skip_rest(&mut record)?;
    }
    Ok(())
}
