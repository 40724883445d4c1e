//! A batch with fewer records: the same header but for what must differ, the same bytes of each record
//! that stays, packed with the same codec.

use std::borrow::Cow;
use std::io;

use bytes::{BufMut, BytesMut};

use crate::batch::{BatchHeader, Compression, HEADER_BYTES, patch};
use crate::codec::{packed, unpacked_whole};
use crate::log::StoredBatch;
use crate::records::{Record, corrupt, records};

/// The most that a batch may unpack to; a larger one stays as it is.
const MAX_UNPACKED_BYTES: u64 = 64 * 1024 * 1024;
/// The time of a batch without records, as Kafka writes "none".
const NO_TIME: i64 = -1;

/// What is left of a batch.
#[derive(Debug)]
pub(super) enum Left {
    Everything,
    Some(StoredBatch),
    Nothing,
}

pub(super) fn unpacked_records(batch: &StoredBatch) -> io::Result<Cow<'_, [u8]>> {
    let packed = batch.bytes.get(HEADER_BYTES..).unwrap_or_default();
    unpacked_whole(batch.header.compression, packed, MAX_UNPACKED_BYTES)
}

/// The batch with those of its records for which `stays` says so.
pub(super) fn filtered(batch: &StoredBatch, stays: impl Fn(&Record<'_>) -> bool) -> io::Result<Left> {
    let header = &batch.header;
    let unpacked = unpacked_records(batch)?;
    let all = records(&unpacked, header.records, header.last_offset_delta)?;
    let kept: Vec<&Record<'_>> = all.iter().filter(|record| stays(record)).collect();
    let Some(latest) = kept.iter().map(|record| record.timestamp_delta).max() else {
        return Ok(Left::Nothing);
    };
    if kept.len() == all.len() {
        return Ok(Left::Everything);
    }
    let unpacked: Vec<u8> = kept.iter().flat_map(|record| record.bytes).copied().collect();
    let header = BatchHeader {
        records: i32::try_from(kept.len()).map_err(|_| corrupt())?,
        max_timestamp: header.base_timestamp.saturating_add(latest),
        ..*header
    };
    let packed = packed(header.compression, &unpacked)?;
    Ok(Left::Some(rewritten(batch, header, &packed)))
}

/// The header alone, for what it says about its producer.
pub(super) fn emptied(batch: &StoredBatch) -> StoredBatch {
    let header = BatchHeader {
        compression: Compression::None,
        records: 0,
        max_timestamp: NO_TIME,
        ..batch.header
    };
    rewritten(batch, header, &[])
}

/// The batch with another header, as far as compaction changes it, and other records.
fn rewritten(batch: &StoredBatch, header: BatchHeader, packed: &[u8]) -> StoredBatch {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + packed.len());
    bytes.put_slice(batch.bytes.get(..HEADER_BYTES).unwrap_or_default());
    bytes.put_slice(packed);
    patch(&mut bytes, &header);
    StoredBatch {
        header,
        bytes: bytes.freeze(),
        ..batch.clone()
    }
}
