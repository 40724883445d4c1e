//! Record times inside a batch, for finding offsets by time.
//!
//! The only place where the broker looks at records. Compressed batches are read as a stream with
//! a bound, so that a batch that unpacks to gigabytes costs time in proportion to the bound only.

use std::io::{self, Read};

use bytes::Buf;
use flate2::read::GzDecoder;

use crate::batch::{Compression, HEADER_BYTES};
use crate::log::StoredBatch;

/// Unpacked bytes of one batch that are looked at.
const MAX_UNPACKED_BYTES: u64 = 256 * 1024 * 1024;
/// Where the base timestamp stands in a batch, and the record count.
const BASE_TIMESTAMP_AT: usize = 27;
const RECORD_COUNT_AT: usize = 57;
/// The header of the framing that Java's snappy streams have: magic, version, compatible version.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

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
    let corrupt = || io::Error::from(io::ErrorKind::InvalidData);
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
        let length = u64::try_from(varint(&mut records)?).map_err(|_| corrupt())?;
        let mut record = (&mut records).take(length);
        let mut attributes = [0_u8; 1];
        record.read_exact(&mut attributes)?;
        let timestamp = base_timestamp.wrapping_add(varint(&mut record)?);
        let offset = batch.base_offset.wrapping_add(varint(&mut record)?);
        if !visit(RecordTime { offset, timestamp }) {
            return Ok(());
        }
        let rest = record.limit();
        if io::copy(&mut record, &mut io::sink())? < rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn unpacked(compression: Compression, bytes: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    let reader: Box<dyn Read + '_> = match compression {
        Compression::None => return Ok(Box::new(bytes)),
        Compression::Gzip => Box::new(GzDecoder::new(bytes)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(bytes)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?),
        Compression::Snappy => Box::new(io::Cursor::new(unsnappy(bytes)?)),
    };
    Ok(Box::new(io::BufReader::new(reader.take(MAX_UNPACKED_BYTES))))
}

/// Snappy comes bare (librdkafka) or as blocks in the framing of Java's library.
fn unsnappy(bytes: &[u8]) -> io::Result<Vec<u8>> {
    if !bytes.starts_with(XERIAL_MAGIC) {
        let mut out = Vec::new();
        unsnappy_block(bytes, &mut out)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let length = rest.try_get_u32().map_err(|_| io::ErrorKind::UnexpectedEof)? as usize;
        let block = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        unsnappy_block(block, &mut out)?;
        rest.advance(length);
    }
    Ok(out)
}

fn unsnappy_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if out.len() as u64 + length as u64 > MAX_UNPACKED_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    out.extend(
        snap::raw::Decoder::new()
            .decompress_vec(block)
            .map_err(io::Error::other)?,
    );
    Ok(())
}

/// A zigzag varint of up to ten bytes.
fn varint(reader: &mut impl Read) -> io::Result<i64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let mut byte = [0_u8; 1];
        reader.read_exact(&mut byte)?;
        let [byte] = byte;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}
