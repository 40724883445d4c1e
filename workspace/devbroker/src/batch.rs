//! Record batches (magic 2) as they travel and as they are kept: one run of bytes.
//!
//! The broker reads the header of a batch and leaves the records alone. Base offset and leader
//! epoch stand before the checksum's range, so they can be written without touching it.
//!
//! Pure. Format: <https://kafka.apache.org/documentation/#recordbatch>.

use bytes::Buf;
use kafka_protocol::error::ResponseError;

/// Bytes of a batch before its first record.
pub(crate) const HEADER_BYTES: usize = 61;
/// Base offset and length: what the length field does not count.
const PREFIX_BYTES: usize = 12;
/// Where the checksum's range (everything from the attributes on) begins.
const CHECKSUMMED_FROM: usize = 21;
/// The epoch of the only leader that there ever is.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// Where the format's version stands.
const MAGIC_AT: usize = 16;
/// The least that the length field can say: what a batch of the oldest format had.
const MIN_LENGTH: i32 = 14;

const COMPRESSION_MASK: i16 = 0x07;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// Why a batch was refused: the code that the client gets, and a sentence with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The producer's own numbering of an idempotent batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequenced {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

/// What the broker needs to know of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchHeader {
    pub(crate) compression: Compression,
    pub(crate) records: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// `None` for a producer without idempotence.
    pub(crate) sequenced: Option<Sequenced>,
}

impl BatchHeader {
    /// Checks that `bytes` is exactly one sound batch that a client may send.
    pub(crate) fn check(bytes: &[u8]) -> Result<Self, Refusal> {
        let corrupt = |message: String| Refusal::new(ResponseError::CorruptMessage, message);
        let invalid = |message: &str| Refusal::new(ResponseError::InvalidRecord, message);
        check_extent(bytes)?;
        // 61 bytes are there, and the reads below take 61 in all.
        let mut fields = bytes;
        let _base_offset = fields.get_i64();
        let _length = fields.get_i32();
        let _leader_epoch = fields.get_i32();
        let _magic = fields.get_i8();
        let checksum = fields.get_u32();
        let attributes = fields.get_i16();
        let last_offset_delta = fields.get_i32();
        let base_timestamp = fields.get_i64();
        let max_timestamp = fields.get_i64();
        let producer_id = fields.get_i64();
        let producer_epoch = fields.get_i16();
        let base_sequence = fields.get_i32();
        let records = fields.get_i32();

        if crc32c::crc32c(bytes.get(CHECKSUMMED_FROM..).unwrap_or_default()) != checksum {
            return Err(corrupt("the checksum of the batch does not match".to_owned()));
        }
        if records < 1 || last_offset_delta != records - 1 {
            return Err(invalid("the record count and the offsets of the batch disagree"));
        }
        if attributes & CONTROL != 0 {
            return Err(invalid("clients may not write control batches"));
        }
        if attributes & TRANSACTIONAL != 0 {
            return Err(Refusal::new(
                ResponseError::TransactionalIdAuthorizationFailed,
                "a transactional batch needs a transactional id, and transactions are not served by this broker",
            ));
        }
        let sequenced = match (producer_id, base_sequence) {
            (..=-1, _) => None,
            (_, ..=-1) => return Err(invalid("an idempotent batch needs a sequence number")),
            _ => Some(Sequenced {
                producer_id,
                epoch: producer_epoch,
                first: base_sequence,
                last: advance(base_sequence, last_offset_delta),
            }),
        };
        Ok(Self {
            compression: compression(attributes)?,
            records,
            base_timestamp,
            max_timestamp,
            sequenced,
        })
    }
}

/// Checks that the bytes are one whole batch of magic 2 with room for its header. The codes, and the
/// order in which they are decided, are those that Apache Kafka 4.3 was seen to answer; where a batch
/// has no room for its header it answers UNKNOWN_SERVER_ERROR, and this broker says what is wrong.
fn check_extent(bytes: &[u8]) -> Result<(), Refusal> {
    let corrupt = |message: String| Err(Refusal::new(ResponseError::CorruptMessage, message));
    let invalid = |message: &str| Err(Refusal::new(ResponseError::InvalidRecord, message));
    let (Some(mut length), Some(magic)) = (bytes.get(8..PREFIX_BYTES), bytes.get(MAGIC_AT)) else {
        return invalid("a produce request must carry one batch per partition");
    };
    let length = length.get_i32();
    if length < MIN_LENGTH {
        return corrupt(format!("batch length `{length}` is less than any batch has"));
    }
    let whole = PREFIX_BYTES.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    if whole > bytes.len() {
        return invalid("the batch is longer than the bytes that carry it");
    }
    if *magic != 2 {
        return invalid("only record batches of magic 2 are accepted");
    }
    if whole < bytes.len() {
        return invalid("a produce request may carry one batch per partition");
    }
    if whole < HEADER_BYTES {
        return corrupt(format!("a batch of {whole} bytes is shorter than its header"));
    }
    Ok(())
}

fn compression(attributes: i16) -> Result<Compression, Refusal> {
    match attributes & COMPRESSION_MASK {
        0 => Ok(Compression::None),
        1 => Ok(Compression::Gzip),
        2 => Ok(Compression::Snappy),
        3 => Ok(Compression::Lz4),
        4 => Ok(Compression::Zstd),
        other => Err(Refusal::new(
            ResponseError::UnsupportedCompressionType,
            format!("compression type `{other}` is not known"),
        )),
    }
}

/// Sequence numbers count from 0 to the largest i32 and begin again at 0.
pub(crate) fn advance(sequence: i32, by: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

/// Writes the offset and the leader epoch into a batch that passed [`BatchHeader::check`].
pub(crate) fn stamp(bytes: &mut [u8], base_offset: i64) {
    if let Some(field) = bytes.get_mut(0..8) {
        field.copy_from_slice(&base_offset.to_be_bytes());
    }
    if let Some(field) = bytes.get_mut(12..16) {
        field.copy_from_slice(&LEADER_EPOCH.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError::*;

    use super::*;
    use crate::samples::batch;

    fn refused(change: impl FnOnce(&mut Vec<u8>)) -> ResponseError {
        let mut bytes = batch(3, 1_000, None);
        change(&mut bytes);
        BatchHeader::check(&bytes).unwrap_err().error
    }

    /// Changes a field behind the checksum and makes the checksum fit again.
    fn patched(at: usize, field: &[u8]) -> impl FnOnce(&mut Vec<u8>) {
        move |bytes| {
            bytes[at..at + field.len()].copy_from_slice(field);
            let checksum = crc32c::crc32c(&bytes[CHECKSUMMED_FROM..]);
            bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    #[test]
    fn a_sound_batch_tells_its_header() {
        let sequenced = Sequenced {
            producer_id: 9,
            epoch: 1,
            first: 5,
            last: 7,
        };
        let header = BatchHeader::check(&batch(3, 1_000, Some(sequenced))).unwrap();
        assert_eq!((header.records, header.max_timestamp), (3, 1_002));
        assert_eq!(header.sequenced, Some(sequenced));
    }

    #[test]
    fn what_is_wrong_with_a_batch_decides_the_code() {
        assert_eq!(refused(|bytes| bytes.truncate(0)), InvalidRecord);
        assert_eq!(refused(|bytes| bytes.truncate(16)), InvalidRecord);
        assert_eq!(
            refused(|bytes| bytes.truncate(50)),
            InvalidRecord,
            "as Kafka 4.3 answers"
        );
        assert_eq!(refused(|bytes| bytes.truncate(70)), InvalidRecord);
        let short = |bytes: &mut Vec<u8>| {
            bytes.truncate(26);
            bytes[8..12].copy_from_slice(&14_i32.to_be_bytes());
        };
        assert_eq!(
            refused(short),
            CorruptMessage,
            "a batch without room for its header"
        );
        assert_eq!(refused(|bytes| *bytes.last_mut().unwrap() ^= 1), CorruptMessage);
        assert_eq!(
            refused(|bytes| bytes[8..12].copy_from_slice(&(-1_i32).to_be_bytes())),
            CorruptMessage
        );
        assert_eq!(
            refused(|bytes| bytes.extend_from_slice(&batch(1, 0, None))),
            InvalidRecord,
            "two batches"
        );
        assert_eq!(refused(|bytes| bytes[16] = 1), InvalidRecord, "an old magic");
        assert_eq!(
            refused(patched(57, &9_i32.to_be_bytes())),
            InvalidRecord,
            "a wrong record count"
        );
        assert_eq!(refused(patched(21, &CONTROL.to_be_bytes())), InvalidRecord);
        assert_eq!(
            refused(patched(21, &TRANSACTIONAL.to_be_bytes())),
            TransactionalIdAuthorizationFailed
        );
        assert_eq!(
            refused(patched(21, &7_i16.to_be_bytes())),
            UnsupportedCompressionType
        );
        assert_eq!(
            refused(patched(43, &1_i64.to_be_bytes())),
            InvalidRecord,
            "a producer without a sequence"
        );
    }

    #[test]
    fn the_stamp_leaves_the_checksum_valid() {
        let mut bytes = batch(2, 0, None);
        bytes[12..16].copy_from_slice(&77_i32.to_be_bytes());
        stamp(&mut bytes, 4_711);
        assert_eq!(bytes[..8], 4_711_i64.to_be_bytes());
        assert_eq!(bytes[12..16], LEADER_EPOCH.to_be_bytes());
        BatchHeader::check(&bytes).unwrap();
    }
}
