//! The records inside a batch, as far as the broker has to know them: where each begins and ends,
//! its offset and time, whether it has a key and a value.
//!
//! Pure. Format: <https://kafka.apache.org/documentation/#record>.

use std::io::{self, Read};

use crate::batch::Compression;
use crate::codec::unpacked;

/// One record of an unpacked batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The whole of it, its length included.
    pub(crate) bytes: &'a [u8],
    /// Counted from the batch's base offset.
    pub(crate) offset_delta: i64,
    /// Counted from the batch's base timestamp.
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    /// A record without a value says that its key is gone.
    pub(crate) is_tombstone: bool,
}

/// All records of an unpacked batch. It must hold exactly `count` of them, in the order of their
/// offsets, which lie between 0 and `last_offset_delta`.
pub(crate) fn records(unpacked: &[u8], count: i32, last_offset_delta: i32) -> io::Result<Vec<Record<'_>>> {
    let mut rest = unpacked;
    let mut found = Vec::new();
    let mut lowest = 0;
    for _ in 0..count {
        let record = record(&mut rest)?;
        if !(lowest..=i64::from(last_offset_delta)).contains(&record.offset_delta) {
            return Err(corrupt());
        }
        lowest = record.offset_delta + 1;
        found.push(record);
    }
    if rest.is_empty() {
        Ok(found)
    } else {
        Err(corrupt())
    }
}

fn record<'a>(rest: &mut &'a [u8]) -> io::Result<Record<'a>> {
    let whole = *rest;
    let length = usize::try_from(varint(rest)?).map_err(|_| corrupt())?;
    let mut body = take(rest, length)?;
    let bytes = whole.get(..whole.len() - rest.len()).ok_or_else(corrupt)?;
    let _attributes = take(&mut body, 1)?;
    let timestamp_delta = varint(&mut body)?;
    let offset_delta = varint(&mut body)?;
    let key = nullable(&mut body)?;
    let value = nullable(&mut body)?;
    Ok(Record {
        bytes,
        offset_delta,
        timestamp_delta,
        key,
        is_tombstone: value.is_none(),
    })
}

fn nullable<'a>(body: &mut &'a [u8]) -> io::Result<Option<&'a [u8]>> {
    match varint(body)? {
        ..0 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| corrupt())?;
            take(body, length).map(Some)
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> io::Result<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count).ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Ok(taken)
}

/// Whether each record of a packed batch has a key.
pub(crate) fn all_have_keys(compression: Compression, packed: &[u8], count: i32) -> io::Result<bool> {
    let mut stream = unpacked(compression, packed)?;
    for _ in 0..count {
        let (mut record, _) = next(&mut stream)?;
        let _offset_delta = varint(&mut record)?;
        if varint(&mut record)? < 0 {
            return Ok(false);
        }
        skip_rest(&mut record)?;
    }
    Ok(true)
}

/// A record of a stream, read up to its time, which is returned counted from the batch's base.
pub(crate) fn next<R: Read>(stream: &mut R) -> io::Result<(io::Take<&mut R>, i64)> {
    let length = u64::try_from(varint(stream)?).map_err(|_| corrupt())?;
    let mut record = stream.take(length);
    let mut attributes = [0_u8; 1];
    record.read_exact(&mut attributes)?;
    let timestamp_delta = varint(&mut record)?;
    Ok((record, timestamp_delta))
}

pub(crate) fn skip_rest(record: &mut io::Take<impl Read>) -> io::Result<()> {
    let rest = record.limit();
    if io::copy(record, &mut io::sink())? < rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

pub(crate) fn corrupt() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// A zigzag varint of up to ten bytes.
pub(crate) fn varint(reader: &mut impl Read) -> io::Result<i64> {
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
    Err(corrupt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::HEADER_BYTES;
    use crate::samples::batch;

    #[test]
    fn the_records_of_a_batch_are_told_apart() {
        let batch = batch(3, 1_000, None);
        let bytes = &batch[HEADER_BYTES..];
        let found = records(bytes, 3, 2).unwrap();
        assert_eq!(
            found.iter().map(|record| record.bytes.len()).sum::<usize>(),
            bytes.len()
        );
        for (index, record) in (0..).zip(&found) {
            assert_eq!((record.offset_delta, record.timestamp_delta), (index, index));
            assert_eq!((record.key, record.is_tombstone), (Some(&b"key"[..]), false));
        }
        assert!(all_have_keys(Compression::None, bytes, 3).unwrap());
    }

    #[test]
    fn a_count_or_an_offset_that_does_not_fit_is_an_error() {
        let batch = batch(3, 1_000, None);
        let bytes = &batch[HEADER_BYTES..];
        assert!(records(bytes, 2, 2).is_err(), "a record too many");
        assert!(records(bytes, 4, 3).is_err(), "a record too few");
        assert!(records(bytes, 3, 1).is_err(), "an offset of the next batch");
        assert!(records(&bytes.repeat(2), 6, 5).is_err(), "offsets that go back");
        for length in 0..bytes.len() {
            assert!(records(&bytes[..length], 3, 2).is_err(), "cut at {length}");
        }
    }
}
