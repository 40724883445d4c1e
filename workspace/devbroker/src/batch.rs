//! Record batches (magic 2) as they travel and as they are kept: one run of bytes.
//!
//! The broker reads the header of a batch and leaves the records alone. Base offset and leader
//! epoch stand before the checksum's range, so they can be written without touching it.
//!
//! Pure. Format: <https://kafka.apache.org/documentation/#recordbatch>.

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::error::ResponseError;

/// Bytes of a batch before its first record.
pub(crate) const HEADER_BYTES: usize = 61;
/// Base offset and length: what the length field does not count.
pub(crate) const PREFIX_BYTES: usize = 12;
/// Where the checksum stands, and where its range (everything from the attributes on) begins.
const CHECKSUM_AT: usize = 17;
const CHECKSUMMED_FROM: usize = 21;
/// Where the fields stand that compaction writes anew.
const LENGTH_AT: usize = 8;
const ATTRIBUTES_AT: usize = CHECKSUMMED_FROM;
const MAX_TIMESTAMP_AT: usize = 35;
const RECORD_COUNT_AT: usize = 57;
/// Where a marker tells the outcome: the second field of its only record's key.
const MARKER_KIND_AT: usize = HEADER_BYTES + 5 + 2;
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

/// The codecs, as the attributes of a batch number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// The producer's own numbering of an idempotent batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequenced {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Commit,
    Abort,
}

/// What the broker needs to know of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchHeader {
    pub(crate) compression: Compression,
    pub(crate) records: i32,
    /// The offset of the last record that the batch was written with, counted from the first.
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// `None` for a producer without idempotence.
    pub(crate) sequenced: Option<Sequenced>,
    /// Whether the records belong to a transaction; then `sequenced` names its producer.
    pub(crate) transactional: bool,
    /// Whether this is a marker that ends a transaction, which the broker alone writes.
    pub(crate) control: bool,
}

impl BatchHeader {
    /// Checks that `bytes` is exactly one sound batch that a client may send.
    pub(crate) fn check(bytes: &[u8]) -> Result<Self, Refusal> {
        let invalid = |message: &str| Err(Refusal::new(ResponseError::InvalidRecord, message));
        let header = Self::read(bytes)?;
        if header.records < 1 || header.last_offset_delta != header.records - 1 {
            return invalid("the record count and the offsets of the batch disagree");
        }
        if header.control {
            return invalid("clients may not write control batches");
        }
        match header.sequenced {
            Some(sequenced) if sequenced.first < 0 => {
                return invalid("an idempotent batch needs a sequence number");
            }
            None if header.transactional => return invalid("a transactional batch needs a producer id"),
            _ => {}
        }
        Ok(header)
    }

    /// Reads the header of exactly one sound batch, whoever wrote it. It has less records than offsets
    /// where compaction took some, or all.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
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
        if records < 0 || last_offset_delta < 0 || i64::from(records) > i64::from(last_offset_delta) + 1 {
            return Err(invalid("the record count and the offsets of the batch disagree"));
        }
        let sequenced = (producer_id >= 0).then_some(Sequenced {
            producer_id,
            epoch: producer_epoch,
            first: base_sequence,
            last: advance(base_sequence, last_offset_delta),
        });
        Ok(Self {
            compression: compression(attributes)?,
            records,
            last_offset_delta,
            base_timestamp,
            max_timestamp,
            sequenced,
            transactional: attributes & TRANSACTIONAL != 0,
            control: attributes & CONTROL != 0,
        })
    }
}

/// The control batch that ends a transaction of a producer in one partition: one record, whose key
/// tells the outcome (KIP-98). Its offset is not stamped yet.
pub(crate) fn marker(producer_id: i64, epoch: i16, outcome: Outcome, timestamp: i64) -> BytesMut {
    /// The lengths inside of the record are varints of one byte: twice the number.
    const RECORD: [u8; 5] = [2 * MARKER_RECORD_BYTES, 0, 0, 0, 2 * 4];
    const MARKER_RECORD_BYTES: u8 = 16;
    let kind: i16 = match outcome {
        Outcome::Abort => 0,
        Outcome::Commit => 1,
    };
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + 17);
    bytes.put_i64(0);
    bytes.put_i32(i32::try_from(HEADER_BYTES - PREFIX_BYTES).unwrap_or(0) + 17);
    bytes.put_i32(LEADER_EPOCH);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_i16(TRANSACTIONAL | CONTROL);
    bytes.put_i32(0);
    bytes.put_i64(timestamp);
    bytes.put_i64(timestamp);
    bytes.put_i64(producer_id);
    bytes.put_i16(epoch);
    bytes.put_i32(-1);
    bytes.put_i32(1);
    bytes.put_slice(&RECORD);
    // Key: version and kind. Value: version and the epoch of the coordinator, which is the first.
    bytes.put_i16(0);
    bytes.put_i16(kind);
    bytes.put_u8(2 * 6);
    bytes.put_i16(0);
    bytes.put_i32(0);
    bytes.put_u8(0);
    seal(&mut bytes);
    bytes
}

/// Makes the header that stands in a batch's bytes say what `header` says of codec, record count and
/// largest time, and makes length and checksum fit.
pub(crate) fn patch(bytes: &mut [u8], header: &BatchHeader) {
    let length = i32::try_from(bytes.len().saturating_sub(PREFIX_BYTES)).unwrap_or(i32::MAX);
    let attributes = bytes.get(ATTRIBUTES_AT..).and_then(<[u8]>::first_chunk);
    let attributes = attributes.map_or(0, |field| i16::from_be_bytes(*field)) & !COMPRESSION_MASK;
    let attributes = attributes | header.compression as i16;
    put(bytes, LENGTH_AT, &length.to_be_bytes());
    put(bytes, ATTRIBUTES_AT, &attributes.to_be_bytes());
    put(bytes, MAX_TIMESTAMP_AT, &header.max_timestamp.to_be_bytes());
    put(bytes, RECORD_COUNT_AT, &header.records.to_be_bytes());
    seal(bytes);
}

/// Writes the checksum.
pub(crate) fn seal(bytes: &mut [u8]) {
    let checksum = crc32c::crc32c(bytes.get(CHECKSUMMED_FROM..).unwrap_or_default());
    put(bytes, CHECKSUM_AT, &checksum.to_be_bytes());
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

/// How the transaction ends that a control batch marks; `None` where it is no such marker.
pub(crate) fn outcome(bytes: &[u8]) -> Option<Outcome> {
    let kind = bytes.get(MARKER_KIND_AT..)?.first_chunk::<2>()?;
    match i16::from_be_bytes(*kind) {
        0 => Some(Outcome::Abort),
        1 => Some(Outcome::Commit),
        _ => None,
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
    match *magic {
        2 => {}
        0 | 1 => return invalid("only record batches of magic 2 are accepted"),
        unknown => return corrupt(format!("magic `{unknown}` is no format of record batches")),
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
    put(bytes, 0, &base_offset.to_be_bytes());
    put(bytes, PREFIX_BYTES, &LEADER_EPOCH.to_be_bytes());
}

/// Where a batch that is kept on disk lies in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
}

impl Extent {
    /// Reads it from a batch as the broker writes it, after checking that it is whole and undamaged.
    /// The base offset is outside of the checksum: who calls knows which one must come next.
    pub(crate) fn of_stored(bytes: &[u8]) -> Result<Self, String> {
        check_extent(bytes).map_err(|refusal| refusal.message)?;
        let mut fields = bytes;
        let base_offset = fields.get_i64();
        let _length = fields.get_i32();
        let leader_epoch = fields.get_i32();
        let _magic = fields.get_i8();
        let checksum = fields.get_u32();
        let _attributes = fields.get_i16();
        let last_offset_delta = fields.get_i32();
        if crc32c::crc32c(bytes.get(CHECKSUMMED_FROM..).unwrap_or_default()) != checksum {
            return Err("the checksum of the batch does not match".to_owned());
        }
        if leader_epoch != LEADER_EPOCH || base_offset < 0 || last_offset_delta < 0 {
            return Err("the batch has an offset or an epoch that this broker does not write".to_owned());
        }
        Ok(Self {
            base_offset,
            last_offset: base_offset.saturating_add(i64::from(last_offset_delta)),
        })
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError::*;
    use kafka_protocol::records::RecordBatchDecoder;

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
            InvalidRecord,
            "a transaction of nobody"
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
    fn a_marker_is_a_control_batch_that_the_codec_reads() {
        for (outcome, kind) in [(Outcome::Abort, 0_i16), (Outcome::Commit, 1)] {
            let bytes = marker(7, 3, outcome, 1_000);
            let header = BatchHeader::read(&bytes).unwrap();
            assert!(header.control && header.transactional);
            assert_eq!(
                header.sequenced.map(|by| (by.producer_id, by.epoch)),
                Some((7, 3))
            );
            assert_eq!(super::outcome(&bytes), Some(outcome));
            assert_eq!(BatchHeader::check(&bytes).unwrap_err().error, InvalidRecord);
            let mut whole = bytes.freeze();
            let records = RecordBatchDecoder::decode(&mut whole).unwrap().records;
            assert_eq!(records.len(), 1);
            assert!(records[0].control && records[0].transactional);
            let key = [0_i16.to_be_bytes(), kind.to_be_bytes()].concat();
            assert_eq!(records[0].key.as_deref(), Some(key.as_slice()));
            assert_eq!(records[0].value.as_deref(), Some([0_u8; 6].as_slice()));
        }
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
